"""Reads instants that servers say, to be compared as moments: as texts, `10:00+14:00` comes after `01:00Z`. Pure.

What no server of ours can mean is no date: `0001-01-01` is what .NET writes for an unset one, `9999-12-31` what others write for
"never". Arithmetic near either end overflows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_EARLIEST, _LATEST = 1900, 9999  # years: the first with records of the living, and the end of time
_EPOCH_SECONDS, _EPOCH_MS = 1e9, 1e12  # what is larger is a moment, and not so many seconds from now
_WEEK_S = 7 * 86_400.0
CLOCKS_DIFFER = timedelta(minutes=5)  # by so much, and nobody need be wrong
_MISSING = {4: "-01-01", 7: "-01"}  # of a FHIR date by its length: a year, a year and month


def moment(text: str | None, *, zoned: bool = False) -> datetime | None:
    """A FHIR date, dateTime or instant, in UTC, which is assumed where it says no zone; with `zoned` it must say one."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text + _MISSING.get(len(text), ""))
    except ValueError:
        return None
    return None if zoned and found.tzinfo is None else _believed(found)


def http_date(text: str | None) -> datetime | None:
    """An HTTP-date; None for what is none."""
    try:
        return _believed(parsedate_to_datetime(text or ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def wait_until(number: float, *, now: float) -> float | None:
    """A wait that a server says as a number: seconds, or a moment in epoch seconds or ms (smart-bulk-data-server's 429).

    In seconds, 0 for what is over; None for what is longer than any server means: more than a week.
    """
    moment_s = number / 1000 if number >= _EPOCH_MS else number
    wait_s = max(0.0, moment_s - now if number >= _EPOCH_SECONDS else number)
    return wait_s if wait_s <= _WEEK_S else None


def _believed(found: datetime) -> datetime | None:
    if not _EARLIEST <= found.year < _LATEST:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
