"""vendors hold what each EHR really does, as data: one profile a file, each value with its evidence.

Adding a vendor is one file here, one manner in `mocks/manners`, one section in docs. Source keys such as (TM) or (CB) are those
of docs/vendors.md; [D] documented, [R] reported, [I] inferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors.fhir.profile import VendorProfile
from connectors.fhir.vendors.allscripts import ALLSCRIPTS
from connectors.fhir.vendors.cerner import CERNER
from connectors.fhir.vendors.epic import EPIC
from connectors.fhir.vendors.generic import GENERIC
from connectors.fhir.vendors.va import VA

PROFILES: Mapping[str, VendorProfile] = {profile.name: profile for profile in (EPIC, CERNER, ALLSCRIPTS, VA, GENERIC)}


def profile_for(vendor: str, overrides: Mapping[str, Any] | None = None) -> VendorProfile:
    """The vendor's profile with a site's overrides laid over it.

    Raises:
        KeyError: no such vendor.
        pydantic.ValidationError: an override that is unknown or of the wrong type; its location is the override's key.
    """
    profile = PROFILES[vendor]
    if not overrides:
        return profile
    return VendorProfile.model_validate({**profile.model_dump(), **overrides})
