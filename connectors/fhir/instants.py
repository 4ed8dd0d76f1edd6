"""Parses the dates and waits in HTTP headers (FHIR's own dates: `snapshots.instants`). Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from snapshots.instants import believed

_EPOCH_SECONDS, _EPOCH_MS = 1e9, 1e12  # what is larger is a moment, and not so many seconds from now
_WEEK_S = 7 * 86_400.0
CLOCKS_DIFFER = timedelta(minutes=5)  # by so much, and nobody need be wrong


def http_date(text: str | None) -> datetime | None:
    """Parse an HTTP-date; None if it is not one."""
    try:
        return believed(parsedate_to_datetime(text or ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def wait_until(number: float, *, now: float) -> float | None:
    """Parse a server's wait given as a number: seconds, or a time in epoch seconds or ms (smart-bulk-data-server's 429).

    Returns seconds, 0 for a time in the past; None for more than a week, which no server means.
    """
    moment_s = number / 1000 if number >= _EPOCH_MS else number
    wait_s = max(0.0, moment_s - now if number >= _EPOCH_SECONDS else number)
    return wait_s if wait_s <= _WEEK_S else None
