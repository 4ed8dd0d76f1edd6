"""lowBoundary() and highBoundary(), and dates that are moved by a length of time, as SQL.

FHIRPath 3 (STU): a value that is written to some precision stands for all values that would be written so; the boundaries are
the first and the last of them. Precision counts digits: those of a decimal after the point, all those of a date or time.
"""

from __future__ import annotations

from decimal import Decimal

from exports.compiler.fragments import SQL, Fragment, Literal
from exports.compiler.moments import MOMENT
from exports.compiler.typed_tree import Boundary, Shifted
from exports.compiler.value_sql import Environment, Value, as_item, bound, lower, lowers

_DECIMAL_DIGITS, _MOST_DECIMAL_DIGITS = 8, 31
# digits of precision -> characters of a date-time without its zone, and of a time
_DATE_LENGTHS = {4: 4, 6: 7, 8: 10, 10: 13, 12: 16, 14: 19, 17: 23}
_TIME_LENGTHS = {2: 2, 4: 5, 6: 8, 9: 12}
_DAY_DIGITS = 8

_NUMBER = (
    "(SELECT CASE WHEN abs(n.n) < 1e308 THEN to_jsonb(trim_scale({cut}((n.n {sign} 0.5 * power(10::numeric, -scale(n.n)))"
    " * {power}) * {unit})) ELSE 'null' END FROM (SELECT {v}::numeric AS n OFFSET 0) AS n)"
)
# t.d the date as it is written, t.c the time of day, t.z the zone
_SPLIT = (
    "(SELECT split_part({v} #>> '{{}}', 'T', 1) AS d, substring({v} #>> '{{}}' from 'T([0-9:.]*)') AS c,"
    " COALESCE(substring({v} #>> '{{}}' from 'T[0-9:.]*([Z+-].*)$'), {zone}) AS z OFFSET 0) AS t"
)
_LOW_DAY = "left(t.d || substr('-01-01', length(t.d) - 3), 10)"
_HIGH_DAY = (
    "CASE length(t.d) WHEN 4 THEN t.d || '-12-31' WHEN 7 THEN"
    " t.d || to_char((t.d || '-01')::date + interval '1 month' - interval '1 day', '-DD') ELSE t.d END"
)
_LOW_CLOCK = "left({c} || substr('00:00:00.000', length({c}) + 1), 12)"
_HIGH_CLOCK = "left({c} || substr('23:59:59.999', length({c}) + 1), 12)"


@lowers(Boundary)
def _boundary(node: Boundary, environment: Environment) -> Value:
    one = as_item(lower(node.of, environment), environment)

    def found(v: Fragment) -> Fragment:
        return SQL(
            "CASE WHEN {v} = 'null' THEN 'null'::jsonb WHEN jsonb_typeof({v}) = 'number' THEN {number}"
            " WHEN ({v} #>> '{{}}') ~ {moment} THEN CASE WHEN ({v} #>> '{{}}') ~ '^[0-9]{{2}}(:|$)' THEN {time} ELSE {date} END"
            " ELSE {odd} END"
        ).format(
            v=v,
            moment=Literal(MOMENT),
            number=_of_number(node, v),
            time=_of_time(node, v),
            date=_of_date(node, v),
            odd=environment.poison("needs a decimal, a date or a time, but holds something else"),
        )

    return Value(bound(environment, [one.sql], found), "item", safe=False)


_NONE = SQL("'null'::jsonb")


def _of_number(node: Boundary, v: Fragment) -> Fragment:
    digits = _DECIMAL_DIGITS if node.precision is None else node.precision
    if not 0 <= digits <= _MOST_DECIMAL_DIGITS:
        return _NONE
    return SQL(_NUMBER).format(
        v=v,
        cut=SQL("ceil" if node.high else "floor"),
        sign=SQL("+" if node.high else "-"),
        power=Literal(Decimal(10) ** digits),
        unit=Literal(Decimal(1).scaleb(-digits)),  # multiplied: a quotient of large numbers has fewer digits
    )


def _of_time(node: Boundary, v: Fragment) -> Fragment:
    length = _TIME_LENGTHS.get(9 if node.precision is None else node.precision)
    if length is None:
        return _NONE
    clock = SQL(_HIGH_CLOCK if node.high else _LOW_CLOCK).format(c=SQL("({} #>> '{{}}')").format(v))
    return SQL("to_jsonb(left({}, {}))").format(clock, Literal(length))


def _of_date(node: Boundary, v: Fragment) -> Fragment:
    is_date = node.type == "date"
    digits = (_DAY_DIGITS if is_date else 17) if node.precision is None else node.precision
    length = _DATE_LENGTHS.get(digits)
    if length is None or (is_date and digits > _DAY_DIGITS):
        return _NONE
    day = SQL(_HIGH_DAY if node.high else _LOW_DAY)
    rows = SQL(_SPLIT).format(v=v, zone=Literal("-12:00" if node.high else "+14:00"))
    if digits <= _DAY_DIGITS:
        return SQL("(SELECT to_jsonb(left({}, {})) FROM {})").format(day, Literal(length), rows)
    clock = SQL(_HIGH_CLOCK if node.high else _LOW_CLOCK).format(c=SQL("COALESCE(t.c, '')"))
    return SQL("(SELECT to_jsonb(left(({}) || 'T' || {}, {}) || t.z) FROM {})").format(
        day, clock, Literal(length), rows
    )


_UNITS = {"week": ("day", Decimal(7)), "millisecond": ("second", Decimal("0.001"))}
_IN_A_YEAR = {"year": 1, "month": 12, "day": 365, "hour": 8760, "minute": 525600, "second": 31536000}
_IN_A_MONTH = {"month": 1, "day": 30, "hour": 720, "minute": 43200, "second": 2592000}
_LONGEST = 10**6  # years, and as many of any smaller unit: Postgres has no dates so far away


@lowers(Shifted)
def _shifted(node: Shifted, environment: Environment) -> Value:
    one = as_item(lower(node.of, environment), environment)
    unit, factor = _UNITS.get(node.unit, (node.unit, Decimal(1)))
    # of what is longer than a second only whole ones count (FHIRPath 2.0.0 §6.6.7)
    counted = node.amount if node.unit in {"second", "millisecond"} else Decimal(int(node.amount))
    amount = counted * factor
    steps: list[tuple[str, Fragment]] = [
        ("^[0-9]{4}$", _moved("v || '-01-01'", "YYYY", "year", _parts(amount, unit, _IN_A_YEAR))),
        ("^[0-9]{4}-[0-9]{2}$", _moved("v || '-01'", "YYYY-MM", *_months(amount, unit))),
        ("^[0-9]{4}-[0-9]{2}-[0-9]{2}$", _moved("v", "YYYY-MM-DD", *_days(amount, unit))),
    ]

    def found(v: Fragment) -> Fragment:
        whens = [SQL("WHEN s.v ~ {} THEN {}").format(Literal(pattern), moved) for pattern, moved in steps]
        return SQL(
            "CASE WHEN {v} = 'null' THEN 'null'::jsonb WHEN (({v} #>> '{{}}') ~ {moment}) IS NOT TRUE THEN {odd}"
            " ELSE (SELECT CASE {whens} ELSE {clock} END FROM (SELECT {v} #>> '{{}}' AS v OFFSET 0) AS s) END"
        ).format(
            v=v,
            moment=Literal(MOMENT),
            odd=environment.poison("needs a date or a time, but holds something else"),
            whens=SQL(" ").join(whens),
            clock=_moved_clock(amount, unit),
        )

    return Value(bound(environment, [one.sql], found), "item", safe=False)


def _parts(amount: Decimal, unit: str, in_one: dict[str, int]) -> int:
    return int(amount / in_one.get(unit, in_one["day"]))


def _months(amount: Decimal, unit: str) -> tuple[str, int]:
    if unit == "year":
        return "year", int(amount)
    return "month", _parts(amount, unit, _IN_A_MONTH)


def _days(amount: Decimal, unit: str) -> tuple[str, int]:
    if unit in {"year", "month", "day"}:
        return unit, int(amount)
    return "day", int(amount / {"hour": 24, "minute": 1440, "second": 86400}[unit])


def _moved(text: str, form: str, unit: str, amount: int) -> Fragment:
    if abs(amount) > _LONGEST:
        return _NONE
    moved = SQL("({})::date + interval {}").format(SQL(text.replace("v", "s.v")), Literal(f"{amount} {unit}"))
    return _within(moved, SQL("to_char(q.m, {})").format(Literal(form)))


def _within(moved: Fragment, written: Fragment) -> Fragment:
    """What is written of a moment between the years 1 and 9999; FHIR has no others."""
    return SQL(
        "(SELECT CASE WHEN q.m >= '0001-01-01' AND q.m < '10000-01-01' THEN to_jsonb({}) ELSE 'null'::jsonb END"
        " FROM (SELECT {} AS m OFFSET 0) AS q)"
    ).format(written, moved)


_CLOCK = "substring(CASE WHEN s.v ~ '^[0-9]{{2}}(:|$)' THEN s.v ELSE split_part(s.v, 'T', 2) END from '^[0-9:]*')"
_FRACTION = "COALESCE(substring(s.v from '[.][0-9]*'), '')"
_IS_TIME = "s.v ~ '^[0-9]{{2}}(:|$)'"
_SECONDS_IN = {"hour": 3600, "minute": 60, "second": 1}


def _moved_clock(amount: Decimal, unit: str) -> Fragment:
    """A date-time or time, to the precision it is written to, with the zone it has."""
    whole = amount if unit == "second" else Decimal(int(amount))
    if abs(whole) > _LONGEST * 10_000:
        return _NONE
    # Postgres rounds what is finer than a microsecond, so a fraction that stays as it is goes round it
    moves_fraction = whole % 1 != 0
    begins = (
        f"((CASE WHEN {_IS_TIME} THEN '2000-01-01' ELSE left(s.v, 10) END) || ' ' || {_CLOCK}"
        f" || CASE WHEN length({_CLOCK}) = 2 THEN ':00' ELSE '' END{f' || {_FRACTION}' if moves_fraction else ''})::timestamp"
    )
    fraction = _FRACTION
    if moves_fraction:
        fraction = f"CASE WHEN length({_CLOCK}) > 5 THEN left(to_char(q.m, '.US'), greatest(length({_FRACTION}), 4)) ELSE '' END"
    written = (
        f"CASE WHEN {_IS_TIME} THEN '' ELSE to_char(q.m, 'YYYY-MM-DD\"T\"') END"
        f" || left(to_char(q.m, 'HH24:MI:SS'), length({_CLOCK})) || {fraction}"
        " || COALESCE(substring(s.v from 'T[0-9:.]*([Z+-].*)$'), '')"
    )
    moved = SQL(
        begins + " + CASE length({}) WHEN 2 THEN interval {} WHEN 5 THEN interval {} ELSE interval {} END"
    ).format(SQL(_CLOCK).format(), *[Literal(_interval(whole, unit, finest)) for finest in _SECONDS_IN])
    return _within(moved, SQL(written).format())


def _interval(amount: Decimal, unit: str, finest: str) -> str:
    """A length of time, in whole parts of the precision to which the clock is written (FHIRPath 2.0.0 §6.6.7)."""
    if unit not in _SECONDS_IN or finest == "second":
        return f"{amount:f} {unit}"
    return f"{int(amount * _SECONDS_IN[unit] / _SECONDS_IN[finest])} {finest}"
