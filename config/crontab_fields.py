"""Checks five crontab fields (crontab(5)) and describes the first mistake. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

EXAMPLE = '"15 2 * * *"'


class _Field(NamedTuple):
    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()  # names for the numbers from `least` on


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _DAYS),
)
_PART = re.compile(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\d+))?", re.ASCII)


def schedule_problem(text: str) -> str | None:
    """Return what is wrong with a schedule; None if cron would accept it."""
    fields = text.split()
    if len(fields) != len(FIELDS):
        return f"must be five crontab fields, such as {EXAMPLE}; found {len(fields)}"
    return next((wrong for field, rule in zip(fields, FIELDS, strict=True) if (wrong := _wrong(field, rule))), None)


def _wrong(field: str, rule: _Field) -> str | None:
    for part in field.split(","):
        found = _PART.fullmatch(part)
        words = f", or {rule.words[0]} to {rule.words[-1]}" if rule.words else ""
        allowed = f"the {rule.name} is {rule.least} to {rule.most}{words}"
        if found is None or (found["first"] == "*" and found["last"]):
            return f"{part!r}: must be a number, *, a range (1-5), a step (*/15) or a list (1,3); {allowed}"
        ends = [_number(word, rule) for word in (found["first"], found["last"]) if word not in (None, "*")]
        for word, end in zip((found["first"], found["last"]), ends, strict=False):
            if end is None or not rule.least <= end <= rule.most:
                return f"{word!r}: {allowed}"
        if len(ends) == 2 and ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:  # noqa: PLR2004
            return f"{part!r}: a range must go upwards; {allowed}"
        if found["step"] is not None and not 0 < int(found["step"]) <= rule.most:
            return f"{part!r}: the step must be 1 to {rule.most}"
    return None


def _number(word: str, rule: _Field) -> int | None:
    if word.isdigit():
        return int(word[:9])
    lower = word.lower()
    return rule.least + rule.words.index(lower) if lower in rule.words else None
