"""Dates, times and boundaries on plain Python values: FHIRPath's rules for what is written to some precision only."""

from __future__ import annotations

import calendar
import operator as operators
import re
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any

_WRITTEN = re.compile(
    r"(?:(\d{4})(?:-(\d\d)(?:-(\d\d))?)?)?T?(?:(\d\d)(?::(\d\d)(?::(\d\d(?:\.\d+)?))?)?)?(Z|[+-]\d\d:\d\d)?"
)
_OPERATORS = {
    "=": operators.eq, "<": operators.lt, "<=": operators.le, ">": operators.gt, ">=": operators.ge,
}  # fmt: skip


def parts(text: str) -> tuple[list[Decimal], str | None]:
    """Year, month, day, hour, minute, second as far as they are written; and the zone."""
    if re.match(r"\d\d(:|$)", text):
        text = "2000-01-01T" + text
    found = _WRITTEN.fullmatch(text)
    assert found is not None, text
    *numbers, zone = found.groups()
    return [Decimal(number) for number in numbers if number is not None], zone


def compare_moments(operator: str, left: str, right: str) -> bool | None:
    """Part by part; None where one is written to less than tells."""
    (a, zone_a), (b, zone_b) = parts(left), parts(right)
    if zone_a and zone_b and len(a) > 4 and len(b) > 4:
        a, b = _in_utc(a, zone_a), _in_utc(b, zone_b)
    elif bool(zone_a and len(a) > 4) != bool(zone_b and len(b) > 4):
        if a[:3] == b[:3]:
            return operator in {"=", "<=", ">="} if left == right else None
        a, b = a[:3], b[:3]
    for x, y in zip(a, b, strict=False):
        if x != y:
            return bool(_OPERATORS[operator](a, b))
    if len(a) != len(b):
        return None
    return operator in {"=", "<=", ">="}


def _in_utc(numbers: list[Decimal], zone: str) -> list[Decimal]:
    if zone == "Z":
        return numbers
    away = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:])) * (1 if zone[0] == "+" else -1)
    local = datetime(*[int(number) for number in numbers[:5]], tzinfo=UTC)  # type: ignore[arg-type]
    moved = local - away
    return [Decimal(n) for n in (moved.year, moved.month, moved.day, moved.hour, moved.minute)] + numbers[5:]


def boundary(value: Any, type_: str | None, *, high: bool, precision: int | None) -> Any:
    """The first or last value that would be written like this one; None where there is no such precision."""
    if isinstance(value, (int, Decimal)):
        return _of_number(Decimal(value), high=high, digits=8 if precision is None else precision)
    if re.match(r"\d\d(:|$)", value):
        length = {2: 2, 4: 5, 6: 8, 9: 12}.get(9 if precision is None else precision)
        clock = (value + ("23:59:59.999" if high else "00:00:00.000")[len(value) :])[:12]
        return None if length is None else clock[:length]
    is_date = type_ == "date"
    digits = (8 if is_date else 17) if precision is None else precision
    length = {4: 4, 6: 7, 8: 10, 10: 13, 12: 16, 14: 19, 17: 23}.get(digits)
    if length is None or (is_date and digits > 8):
        return None
    day, _, rest = value.partition("T")
    if len(day) == 4:
        day += "-12-31" if high else "-01-01"
    elif len(day) == 7:
        last = calendar.monthrange(int(day[:4]), int(day[5:]))[1]
        day += f"-{last}" if high else "-01"
    if digits <= 8:
        return day[:length]
    clock, zone = re.fullmatch(r"([0-9:.]*)(.*)", rest).groups()  # type: ignore[union-attr]
    clock = (clock + ("23:59:59.999" if high else "00:00:00.000")[len(clock) :])[:12]
    return f"{day}T{clock}"[:length] + (zone or ("-12:00" if high else "+14:00"))


def _of_number(value: Decimal, *, high: bool, digits: int) -> Decimal | None:
    if not 0 <= digits <= 31:
        return None
    with localcontext(prec=400):
        half = Decimal(5).scaleb(min(value.as_tuple().exponent, 0) - 1)  # type: ignore[type-var,operator]
        edge = value + half if high else value - half
        return edge.quantize(Decimal(1).scaleb(-digits), ROUND_CEILING if high else ROUND_FLOOR)


def shifted(text: str, amount: Decimal, unit: str) -> str | None:
    """The moment that much later, to the precision that it is written to."""
    if re.match(r"\d\d(:|$)", text):
        moved = shifted(f"2000-01-01T{text}", amount, unit)
        return None if moved is None else moved.partition("T")[2]
    day, _, rest = text.partition("T")
    if not rest:
        return _shifted_day(day, amount, unit)
    clock, zone = re.fullmatch(r"([0-9:.]*)(.*)", rest).groups()  # type: ignore[union-attr]
    whole, _, fraction = clock.partition(".")
    begins = datetime.fromisoformat(f"{day}T{whole}" + (":00" if len(whole) == 2 else ""))
    moved_day = _shifted_day(day, amount, unit) if unit in {"year", "month", "week", "day"} else day
    if moved_day is None:
        return None
    begins = begins.replace(year=int(moved_day[:4]), month=int(moved_day[5:7]), day=int(moved_day[8:]))
    seconds = int(amount) * {"hour": 3600, "minute": 60, "second": 1}.get(unit, 0)
    finest = {2: 3600, 5: 60}.get(len(whole), 1)  # only whole parts of what is written count (FHIRPath 2.0.0 §6.6.7)
    seconds = int(Decimal(seconds) / finest) * finest
    try:
        moved = begins + timedelta(seconds=seconds)
    except OverflowError:
        return None
    written = f"{moved:%H:%M:%S}"[: len(whole)] + (f".{fraction}" if fraction else "")
    return f"{moved.date().isoformat()}T{written}{zone}"


def _shifted_day(day: str, amount: Decimal, unit: str) -> str | None:
    per_year = {"year": 1, "month": 12, "day": 365, "hour": 8760, "minute": 525600, "second": 31536000}
    per_month = {"month": 1, "day": 30, "hour": 720, "minute": 43200, "second": 2592000}
    if unit == "week":
        amount, unit = Decimal(int(amount)) * 7, "day"  # of a week no parts count (FHIRPath 2.0.0 §6.6.7)
    year, month, number = [int(part) for part in (*day.split("-"), "1", "1")[:3]]
    months = days = 0
    if len(day) == 4:
        months = 12 * int(amount / per_year[unit])
    elif len(day) == 7:
        months = 12 * int(amount) if unit == "year" else int(amount / per_month[unit])
    elif unit in {"year", "month"}:
        months = int(amount) * (12 if unit == "year" else 1)
    else:
        days = int(amount / {"day": 1, "hour": 24, "minute": 1440, "second": 86400}[unit])
    total = year * 12 + month - 1 + months
    year, month = divmod(total, 12)
    if not 1 <= year <= 9999:
        return None
    number = min(number, calendar.monthrange(year, month + 1)[1])
    try:
        moved = date(year, month + 1, number) + timedelta(days=days)
    except OverflowError:
        return None
    return moved.isoformat()[: len(day)]
