"""Reads the dates and waits that HTTP servers say beside FHIR's (`snapshots.instants`). Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from snapshots.instants import believed

_EPOCH_SECONDS, _EPOCH_MS = 1e9, 1e12  # what is larger is a moment, and not so many seconds from now
_WEEK_S = 7 * 86_400.0
CLOCKS_DIFFER = timedelta(minutes=5)  # by so much, and nobody need be wrong


def http_date(text: str | None) -> datetime | None:
    """An HTTP-date; None for what is none."""
    try:
        return believed(parsedate_to_datetime(text or ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def wait_until(number: float, *, now: float) -> float | None:
    """A wait that a server says as a number: seconds, or a moment in epoch seconds or ms (smart-bulk-data-server's 429).

    In seconds, 0 for what is over; None for what is longer than any server means: more than a week.
    """
    moment_s = number / 1000 if number >= _EPOCH_MS else number
    wait_s = max(0.0, moment_s - now if number >= _EPOCH_SECONDS else number)
    return wait_s if wait_s <= _WEEK_S else None
