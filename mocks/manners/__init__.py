"""manners owns how each vendor's server behaves: one file per vendor, with data and small functions and their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mocks.manners.allscripts import ALLSCRIPTS
from mocks.manners.cerner import CERNER
from mocks.manners.epic import EPIC
from mocks.manners.families import FAMILIES
from mocks.manners.generic import GENERIC
from mocks.manners.manner import Manner
from mocks.manners.va import VA

__all__ = ["FAMILIES", "MANNERS"]

MANNERS: Mapping[str, Manner] = MappingProxyType(
    {manner.vendor: manner for manner in (EPIC, CERNER, ALLSCRIPTS, VA, GENERIC)}
)
