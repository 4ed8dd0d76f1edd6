"""Parses servers' instants, so that they can be compared as times: as text, `10:00+14:00` comes after `01:00Z`. Pure.

Impossible dates count as none: .NET writes `0001-01-01` for an unset date, others write `9999-12-31` for "never". Arithmetic near
either end overflows.
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
    """Parse a FHIR date, dateTime or instant to UTC, the default zone; with `zoned` it must have a zone."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text + _MISSING.get(len(text), ""))
    except ValueError:
        return None
    return None if zoned and found.tzinfo is None else _believed(found)


def http_date(text: str | None) -> datetime | None:
    """Parse an HTTP-date; None if it is not one."""
    try:
        return _believed(parsedate_to_datetime(text or ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def wait_until(number: float, *, now: float) -> float | None:
    """Parse a server's wait given as a number: seconds, or a time in epoch seconds or ms (smart-bulk-data-server's 429).

    Returns seconds, 0 for a time in the past; None for more than a week, which no server means.
    """
    moment_s = number / 1000 if number >= _EPOCH_MS else number
    wait_s = max(0.0, moment_s - now if number >= _EPOCH_SECONDS else number)
    return wait_s if wait_s <= _WEEK_S else None


def _believed(found: datetime) -> datetime | None:
    if not _EARLIEST <= found.year < _LATEST:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
