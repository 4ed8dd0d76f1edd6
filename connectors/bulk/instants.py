"""Reads instants that servers say, to be compared as moments: as texts, `10:00+14:00` comes after `01:00Z`. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def moment(text: str | None, *, zoned: bool = False) -> datetime | None:
    """A FHIR date, dateTime or instant, in UTC, which is assumed where it says no zone; with `zoned` it must say one."""
    try:
        found = datetime.fromisoformat(text or "")
        if found.tzinfo is None:
            return None if zoned else found.replace(tzinfo=UTC)
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def http_date(text: str | None) -> datetime | None:
    """An HTTP-date; None for what is none."""
    try:
        found = parsedate_to_datetime(text or "")
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
