"""vendors hold what each EHR really does, as data: one profile per file, each value with its evidence.

Adding a vendor is one file here, one manner in `mocks/manners`, one section in docs. A comment cites its evidence as
`[D] CB, vendor-facts 2.7`: a confidence ([D] documented, [R] reported, [I] inferred), the key of a source, and a section of
docs/vendor-facts.md, which explains the three and gives each fact. [I] without a section is a choice of chartferry's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from connectors.fhir.profile import VendorProfile


def _profiles() -> Iterator[VendorProfile]:
    """The profile of each module here."""
    for found in iter_modules(__path__):
        module = import_module(f"{__name__}.{found.name}")
        yield from (value for value in vars(module).values() if isinstance(value, VendorProfile))


PROFILES: Mapping[str, VendorProfile] = {profile.name: profile for profile in _profiles()}


def profile_for(vendor: str, overrides: Mapping[str, Any] | None = None) -> VendorProfile:
    """The vendor's profile with a site's overrides laid over it.

    Raises:
        KeyError: no such vendor.
        pydantic.ValidationError: an override that is unknown or of the wrong type; its location is the override's path.
    """
    return PROFILES[vendor].with_overrides(overrides or {})
