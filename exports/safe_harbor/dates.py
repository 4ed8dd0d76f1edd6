"""What of a date may leave: its year, or with `shifted-dates` the date, as many days earlier as all its patient's dates. Pure.

Safe Harbor permits the year, by (C) of 45 CFR 164.514(b)(2)(i). A shifted date is not Safe Harbor: the time between a patient's
dates stays as it is, and only the key tells how many days they were moved.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from exports.safe_harbor.release import Dropped, Release

MOST_DAYS = 364  # so that each is at least a day and less than a year earlier, and none is later than it was
_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})(?:T(.*))?)?)?", re.DOTALL)
_TIME_IN_ZONE = re.compile(r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:Z|[+-][0-9]{2}:[0-9]{2})")
_MIDDLE_OF_YEAR, _MIDDLE_OF_MONTH = (7, 1), 16
# the elements of the types in `allowed.txt` that say whose a resource is
_OWNERS = (
    "patient",
    "subject",
    "beneficiary",
)
_PATIENT = re.compile(r"Patient/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")


def days_of(key: bytes, patient: str) -> int:
    """Return how many days earlier a patient's dates are given, from 1 to 364; without the key nobody can compute it."""
    digest = hmac.digest(key, f"days of Patient/{patient}".encode(), hashlib.sha256)
    return 1 + int.from_bytes(digest) % MOST_DAYS


def patient_of(resource_type: str, resource: dict[str, Any]) -> str | None:
    """Return the id of the patient to whom a resource belongs; None: to nobody, to several, or not named by type and id."""
    if resource_type == "Patient":
        id_ = resource.get("id")
        return id_ if isinstance(id_, str) else None
    owners = [resource[name] for name in _OWNERS if name in resource]
    references = [one.get("reference") if isinstance(one, dict) else None for one in owners]
    found = [_PATIENT.fullmatch(one) if isinstance(one, str) else None for one in references]
    ids = {one and one[1] for one in found}
    return ids.pop() if len(ids) == 1 else None


def date_of(value: Any, release: Release) -> str:
    """(C): of a date the year, or the shifted date; none that indicates an age over 89."""
    found = _DATE.fullmatch(value) if isinstance(value, str) else None
    if found is None or not release.too_old < int(found[1]) <= release.latest:
        raise Dropped
    given = _given(found, release)
    if int(given[:4]) <= release.too_old:
        raise Dropped
    return given


def birth_date(value: Any, release: Release) -> str:
    """(C): the same of a birth; who may be 90 or older has the year in which the youngest of them was born."""
    found = _DATE.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found[1]) > release.latest:
        raise Dropped
    given = _given(found, release) if int(found[1]) > release.too_old else f"{release.too_old:04}"
    return given if int(given[:4]) > release.too_old else f"{release.too_old:04}"


def is_of_whole_months(start: Any, end: Any) -> bool:
    """Whether a period begins on the first day of a month and ends on the last one of a month, as they are written."""
    if not isinstance(start, str) or not isinstance(end, str):
        return False
    try:
        first, after = (date.fromisoformat(one[: len("2020-02-29")]) for one in (start, end))
        return first.day == 1 and (after + timedelta(1)).day == 1
    except (ValueError, OverflowError):  # no day of the calendar
        return False


def _given(found: re.Match[str], release: Release) -> str:
    return found[1] if release.days is None else _shifted(found, release.days)


def _shifted(found: re.Match[str], days: int) -> str:
    """Return the date in the precision that it has; a year and a month are shifted by their middle.

    A moment is given in UTC, since its offset would tell whether it was in summer; without a zone it is a day.
    """
    year, month, day, time = found.groups()
    earlier = timedelta(days)
    try:
        if month is None:
            return f"{(date(int(year), *_MIDDLE_OF_YEAR) - earlier).year:04}"
        if day is None:
            return (date(int(year), int(month), _MIDDLE_OF_MONTH) - earlier).isoformat()[: len("2020-02")]
        if time is not None and _TIME_IN_ZONE.fullmatch(time):
            moment = datetime.fromisoformat(found[0]).astimezone(UTC) - earlier
            return moment.isoformat().replace("+00:00", "Z")
        return (date(int(year), int(month), int(day)) - earlier).isoformat()
    except (ValueError, OverflowError):  # no day of the calendar
        raise Dropped from None
