"""Parses FHIR dates and instants, so that they can be compared as times: as text, `10:00+14:00` comes after `01:00Z`. Pure.

Impossible dates count as none: .NET writes `0001-01-01` for an unset date, others write `9999-12-31` for "never". Arithmetic near
either end overflows.
"""

from __future__ import annotations

from datetime import UTC, datetime

_EARLIEST, _LATEST = 1900, 9999  # years: the first with records of the living, and the end of time
_MISSING = {4: "-01-01", 7: "-01"}  # of a FHIR date by its length: a year, a year and month


def moment(text: str | None, *, zoned: bool = False) -> datetime | None:
    """Parse a FHIR date, dateTime or instant to UTC, the default zone; with `zoned` it must have a zone."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text + _MISSING.get(len(text), ""))
    except ValueError:
        return None
    return None if zoned and found.tzinfo is None else believed(found)


def believed(found: datetime) -> datetime | None:
    """Return a time in UTC; None for an impossible one."""
    if not _EARLIEST <= found.year < _LATEST:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def instant(at: datetime) -> str:
    """Format a time as a FHIR instant in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_older(one: str | None, other: str | None) -> bool:
    """Whether the FHIR instant `one` is before `other`; False if either is missing or is no instant."""
    first, second = moment(one), moment(other)
    return first is not None and second is not None and first < second
