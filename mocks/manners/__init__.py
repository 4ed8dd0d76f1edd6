"""manners owns how each vendor's server behaves: one file per vendor, with data and small functions and their evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from mocks.manners.families import FAMILIES
from mocks.manners.manner import Manner

__all__ = ["FAMILIES", "MANNERS"]


def _manners() -> Iterator[Manner]:
    """Return the manner of each module here that is named for a vendor; families are variants of one."""
    for found in iter_modules(__path__):
        module = import_module(f"{__name__}.{found.name}")
        own = (value for value in vars(module).values() if isinstance(value, Manner))
        yield from (manner for manner in own if manner.vendor == found.name)


MANNERS: Mapping[str, Manner] = MappingProxyType({manner.vendor: manner for manner in _manners()})
