"""The SQL type that a column requests by the tag `ansi/type` (SQL on FHIR v2, §Type hinting), and which values fit it.

Only the types listed below are accepted; the tag's text never becomes SQL. A value that does not fit is odd, as in any other
column: nothing is rounded or cut, except that a moment in a date column becomes its date.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from exports.compiler.fragments import SQL, Fragment, Literal
from exports.compiler.moments import MOMENT
from exports.compiler.scalar_sql import MARK, Odd

_WRITTEN = re.compile(
    r"(?P<name>[a-z]+(?: [a-z]+)*?)"
    r"(?: ?\( ?(?P<first>\d{1,9}) ?(?:, ?(?P<second>\d{1,9}) ?)?\))?(?P<zone> with(?:out)? time zone)?"
)
_INTEGERS = {"smallint": 2**15, "integer": 2**31, "int": 2**31, "bigint": 2**63}
_TEXTS = ("character varying", "varchar", "character", "char", "text", "clob", "character large object")
_MOST_DIGITS = 1000
ALLOWED = (
    "CHARACTER VARYING(n), CHARACTER(n), TEXT, BOOLEAN, SMALLINT, INTEGER, BIGINT, NUMERIC(p,s), DECIMAL(p,s), REAL,"
    " DOUBLE PRECISION, DATE, TIME, TIMESTAMP, TIMESTAMP WITH TIME ZONE"
)
# what kind of value the type can be made of
SORTS = {
    "text": {"string", "temporal", "number", "boolean", "complex", None},
    "boolean": {"boolean", None},
    "number": {"number", None},
    "temporal": {"temporal", "string", None},
}


@dataclass(frozen=True)
class AnsiType:
    """A type of the list: its `sort`, its Postgres name, and what else limits a value."""

    sort: str
    sql: str
    length: int | None = None  # of a text
    bound: int | None = None  # of a whole number
    digits: tuple[int, int] | None = None  # of a NUMERIC: all of them, and those behind the point


def read_ansi_type(text: str) -> AnsiType | None:
    """Return the type that the tag names; None if the list does not have it."""
    found = _WRITTEN.fullmatch(" ".join(text.lower().split()))
    if found is None:
        return None
    name, first, second, zone = found["name"], found["first"], found["second"], found["zone"]
    if name in _TEXTS and second is None and zone is None:
        return AnsiType("text", "text", length=int(first) if first else 1 if name in {"character", "char"} else None)
    if name in {"numeric", "decimal", "dec"} and zone is None:
        digits = (int(first), int(second or 0)) if first else None
        if digits and not (0 < digits[0] <= _MOST_DIGITS and digits[1] <= digits[0]):
            return None
        return AnsiType("number", "numeric", digits=digits)
    if name in {"timestamp", "time"} and second is None:
        return AnsiType(
            "temporal", "text" if name == "time" else "timestamptz" if zone == " with time zone" else "timestamp"
        )
    if first is not None or zone is not None:
        return None
    if name in _INTEGERS:
        return AnsiType("number", "integer" if name == "int" else name, bound=_INTEGERS[name])
    plain = {
        "boolean": "boolean",
        "date": "temporal",
        "real": "number",
        "float": "number",
        "double precision": "number",
    }
    sql = {"float": "double precision"}.get(name, name)
    return AnsiType(plain[name], sql) if name in plain else None


def as_ansi(value: Fragment, wanted: AnsiType, odd: Odd) -> Fragment:
    """Return a column's value, bound once by the caller, as the requested type; a value that does not fit is odd."""
    marked = odd.row is None
    as_type = SQL("text" if marked else wanted.sql)
    text = SQL("({})::text").format(value)
    fits, given = _fitting(text, wanted)
    own = SQL("WHEN {} = {} THEN {} ").format(text, Literal(MARK), text) if marked else SQL("")
    return SQL("CASE {own}WHEN {fits} THEN ({given})::{type} WHEN {text} IS NOT NULL THEN {odd} END").format(
        own=own,
        fits=fits,
        given=given,
        type=as_type,
        text=text,
        odd=odd(f"holds a value that does not fit {wanted.sql}", as_type),
    )


def _fitting(text: Fragment, wanted: AnsiType) -> tuple[Fragment, Fragment]:
    """Return SQL that is true if the text fits, and the text in the form that it then has."""
    if wanted.length is not None:
        return SQL("length({}) <= {}").format(text, Literal(wanted.length)), text
    if wanted.bound is not None:
        number = SQL("({})::numeric").format(text)
        low, high = Literal(-wanted.bound), Literal(wanted.bound - 1)
        fits = SQL("trunc({n}) = {n} AND {n} BETWEEN {low} AND {high}").format(n=number, low=low, high=high)
        return fits, SQL("trunc({})").format(number)
    if wanted.digits is not None:
        number = SQL("({})::numeric").format(text)
        whole, behind = Literal(wanted.digits[0] - wanted.digits[1]), Literal(wanted.digits[1])
        fits = SQL("scale(trim_scale({n})) <= {s} AND abs({n}) < power(10::numeric, {p})").format(
            n=number, s=behind, p=whole
        )
        return fits, SQL("round({}, {})").format(number, behind)
    if wanted.sql in {"date", "timestamp", "timestamptz"}:
        real = SQL("{t} ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}' AND {t} ~ {moment}").format(
            t=text, moment=Literal(MOMENT)
        )
        return real, SQL("left({}, 10)").format(text) if wanted.sql == "date" else text
    return SQL("{} IS NOT NULL").format(text), text
