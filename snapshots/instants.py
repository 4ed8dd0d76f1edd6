"""FHIR dates and instants, read to be compared as moments: as texts, `10:00+14:00` comes after `01:00Z`. Pure.

What no server of ours can mean is no date: `0001-01-01` is what .NET writes for an unset one, `9999-12-31` what others write for
"never". Arithmetic near either end overflows.
"""

from __future__ import annotations

from datetime import UTC, datetime

_EARLIEST, _LATEST = 1900, 9999  # years: the first with records of the living, and the end of time
_MISSING = {4: "-01-01", 7: "-01"}  # of a FHIR date by its length: a year, a year and month


def moment(text: str | None, *, zoned: bool = False) -> datetime | None:
    """Read a FHIR date, dateTime or instant, in UTC, which is assumed where it says no zone; with `zoned` it must say one."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text + _MISSING.get(len(text), ""))
    except ValueError:
        return None
    return None if zoned and found.tzinfo is None else believed(found)


def believed(found: datetime) -> datetime | None:
    """Give a moment in UTC; None for what no server can mean."""
    if not _EARLIEST <= found.year < _LATEST:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def instant(at: datetime) -> str:
    """Write a moment as FHIR instant in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_older(one: str | None, other: str | None) -> bool:
    """Whether the FHIR instant `one` is before `other`; False if either is missing or is no instant."""
    first, second = moment(one), moment(other)
    return first is not None and second is not None and first < second
