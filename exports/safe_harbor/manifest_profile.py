"""What the manifest says about a de-identified export: the profile, its choices, and what was dropped, by count. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from exports.elements.table import is_resource
from exports.safe_harbor.allow_list import allowed_paths
from exports.safe_harbor.datatypes import OLDEST_AGE
from exports.safe_harbor.dates import MOST_DAYS
from exports.safe_harbor.deidentify import Deidentifier

_SHIFTED = (
    f"all of one patient's are the same number of whole days earlier, 1 to {MOST_DAYS}, by a key that is not here; moments are in"
    " UTC; of a coverage's and of a period of whole months the year is left; none where a resource names no patient, or several"
)


def manifest_profile(deidentifier: Deidentifier, stored: Iterable[str]) -> dict[str, Any]:
    """Return the manifest's `profile`; `stored` are the types that the selection has. No name that only an EHR knows is in it."""
    closed = set(stored) - allowed_paths().keys()
    shifts = deidentifier.profile.shifts_dates
    return {
        "name": deidentifier.profile.name,
        "rule": "not Safe Harbor: its list, 45 CFR 164.514(b)(2)(i), but for dates"
        if shifts
        else "45 CFR 164.514(b)(2)",
        "ids": "HMAC-SHA256 of type and id, with a key that is not here",
        "dates": _SHIFTED if shifts else "the year",
        "views": "of the de-identified resources",
        "ages": f"births up to {deidentifier.too_old} are given as {deidentifier.too_old}: {OLDEST_AGE + 1} or older; no other "
        f"date is of these years; no age is over {OLDEST_AGE}",
        "zip_codes": "three digits; 000 for the 17 areas of 20,000 people or fewer by the Census of 2000, and for the armed "
        "forces abroad",
        "dropped": dict(sorted(deidentifier.dropped.items())),
        "left_out": dict(sorted(deidentifier.left_out.items())),
        "types_left_out": sorted(name for name in closed if is_resource(name)),
    }
