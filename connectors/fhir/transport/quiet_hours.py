"""The hours of each day in which an EHR is spared: turns "07:00-19:00" into whether they are now, and until when. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

PATTERN = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"


class QuietState(NamedTuple):
    """Whether it is quiet, and the moment (epoch seconds) from which to ask again."""

    quiet: bool
    until: float


class QuietHours:
    """The same hours every day in one time zone; hours that end before they begin pass midnight."""

    def __init__(self, hours: str, zone: str) -> None:
        if re.match(PATTERN, hours) is None:
            raise ValueError(f'quiet hours are "HH:MM-HH:MM", not {hours!r}')
        begin, end = hours.split("-")
        self._begin, self._end = time.fromisoformat(begin), time.fromisoformat(end)
        self._zone = ZoneInfo(zone)

    def at(self, now: float) -> QuietState:
        """How it is at `now` (epoch seconds). Days on which clocks change are as long as they are."""
        local = datetime.fromtimestamp(now, self._zone)
        days = [local.date() + timedelta(days=days) for days in (-1, 0, 1, 2)]
        spells = [(self._moment(day, self._begin), self._moment(self._ends_on(day), self._end)) for day in days]
        for begin, end in spells:
            if begin <= now < end:
                return QuietState(quiet=True, until=end)
        return QuietState(quiet=False, until=min(begin for begin, _ in spells if begin > now))

    def _ends_on(self, day: date) -> date:
        return day if self._end > self._begin else day + timedelta(days=1)

    def _moment(self, day: date, at: time) -> float:
        return datetime.combine(day, at, self._zone).astimezone(UTC).timestamp()
