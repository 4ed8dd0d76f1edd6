"""How a scalar of the data becomes the value of a column: the one place that decides what fits and what does not.

A value that does not fit is never rounded, cut or read as something else. The caller chose what takes its place (`Odd`): an error
(in a query whose reader must know), or `MARK` in the cell (an export empties and counts it). `expression_sql` says where a value
comes from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from exports.compiler.fragments import SQL, Fragment, Literal
from exports.elements.table import TEMPORAL_TYPES

RAISED = "chartferry: "  # begins every text that our SQL raises, which tells it from Postgres' own
# Stands in a cell whose value is odd. FHIR strings hold no control characters but tab, CR and LF (R4, datatypes, string), and no
# number, boolean or date holds any.
MARK = "\x01odd\x01"

INTEGER_TYPES = frozenset({"integer", "positiveInt", "unsignedInt"})
_RANGE = {**dict.fromkeys(INTEGER_TYPES, (-(2**31), 2**31 - 1)), "integer64": (-(2**63), 2**63 - 1)}

WHOLE_TYPES = frozenset(_RANGE)

# How dates and times are written. Seconds and zone may be missing, though R4 wants them, or the zone be written
# otherwise, as +0100: what is written is still true. That there is such a day is not asked of a column.
_TIME = r"[0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)?"
_DATE = r"[0-9]{4}(?:-[0-9]{2}(?:-[0-9]{2})?)?"
_DATE_TIME = r"[0-9]{4}(?:-[0-9]{2}(?:-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2}.*|Z|[+-][0-9:]*)?)?)?)?"
_PATTERN = {"date": _DATE, "dateTime": _DATE_TIME, "instant": _DATE_TIME, "time": _TIME}
# The usual forms, found without a pattern: Postgres builds a pattern's states again for each value. LIKE and the first
# character take 0.24 us a value, one small pattern more takes 1.0, the patterns above 4 and more (30,000 observations).
_USUAL = {
    "date": ("____-__-__",),
    "dateTime": ("____-__-__T__:__:__%", "____-__-__"),
    "instant": ("____-__-__T__:__:__%", "____-__-__"),
    "time": ("__:__:__",),
}


def sql_type(type_: str) -> str:
    """The Postgres type of a column: the defaults of SQL on FHIR v2, but numeric for decimal (it keeps the written digits)."""
    if type_ in INTEGER_TYPES:
        return "integer"
    return {"boolean": "boolean", "decimal": "numeric", "integer64": "bigint"}.get(type_, "text")


@dataclass(frozen=True)
class Odd:
    """What stands for odd values of a column. `row`: a jsonb expression that differs by row, for errors; None: `MARK`."""

    row: Fragment | None
    label: str  # "column family"
    type: str

    @property
    def sql_type(self) -> str:
        """The type of the column's SQL: where marks may stand among the values, all are text."""
        return self.sql_type_of_values if self.row is not None else "text"

    @property
    def sql_type_of_values(self) -> str:
        """The Postgres type of the values themselves."""
        return sql_type(self.type)

    def __call__(self, problem: str, as_type: Fragment | None = None) -> Fragment:
        """SQL that raises what the problem is, or gives the mark."""
        if self.row is None:
            return SQL("{}::text").format(Literal(MARK))
        return self._raised(problem, as_type or SQL(self.sql_type))

    def _raised(self, problem: str, as_type: Fragment) -> Fragment:
        # the text depends on the row: a constant one would be cast, and so raised, when the query is planned
        message = Literal(f"{RAISED}{self.label} {problem}")
        return SQL("({} || left({}::text, 0))::boolean::text::{}").format(message, self.row or SQL("NULL"), as_type)

    def poison(self, problem: str) -> Fragment:
        """Jsonb that raises what the problem is, or SQL NULL, which is no honest value (`value_sql`)."""
        return SQL("NULL::jsonb") if self.row is None else self._raised(problem, SQL("jsonb"))

    @property
    def of_another_type(self) -> Fragment:
        """What takes the place of a value that is not of the column's type."""
        return self(f"holds a value that is not of type {self.type}")


def json_as_column(value: Fragment, text: Fragment, odd: Odd) -> Fragment:
    """A jsonb value, which is `text` as text, as its column's value: boolean or number.

    Both stand here several times: bind what is expensive to compute.
    """
    kind = "boolean" if odd.type == "boolean" else "number"
    if odd.type in _RANGE:
        good = number_as_column(SQL("({})::numeric").format(value), odd)
    else:
        good = text if odd.sql_type == "text" else SQL("({})::{}").format(value, SQL(odd.sql_type))
    other = SQL("CASE WHEN {v} IS NOT NULL THEN {odd} END").format(v=value, odd=odd.of_another_type)
    if odd.type == "integer64":  # in JSON a string (FHIR R5 §2.24.0.1), since JavaScript's numbers do not hold it
        whole = number_as_column(SQL("({})::numeric").format(text), odd)
        other = SQL("CASE WHEN jsonb_typeof({v}) = 'string' AND {t} ~ '^-?[0-9]{{1,19}}$' THEN {whole} ELSE {other} END").format(
            v=value, t=text, whole=whole, other=other
        )  # fmt: skip
    return SQL("CASE jsonb_typeof({v}) WHEN {kind} THEN {good} WHEN 'null' THEN NULL ELSE {other} END").format(
        v=value, kind=Literal(kind), good=good, other=other
    )


def number_as_column(value: Fragment, odd: Odd) -> Fragment:
    """A numeric value as its column's value: a whole number within its range, where the column holds such."""
    if odd.type not in _RANGE:
        return SQL("({})::{}").format(value, SQL(odd.sql_type))
    lowest, highest = _RANGE[odd.type]
    return SQL(
        "CASE WHEN trunc({n}) = {n} AND {n} BETWEEN {low} AND {high} THEN trunc({n})::{type} WHEN {n} IS NOT NULL THEN {odd} END"
    ).format(
        n=value, low=Literal(lowest), high=Literal(highest), type=SQL(odd.sql_type), odd=odd.of_another_type
    )  # fmt: skip


def usual_text(value: Fragment, odd: Odd) -> Fragment:
    """Whether a text that was looked up is certain to fit: it is no JSON array, and a date or time is in the usual form."""
    if odd.type not in TEMPORAL_TYPES:
        return SQL("{} NOT LIKE '[%'").format(value)
    usual = SQL(" OR ").join([SQL("{} LIKE {}").format(value, Literal(one)) for one in _USUAL[odd.type]])
    return SQL("({usual}) AND {t} COLLATE \"C\" BETWEEN '0' AND ':'").format(usual=usual, t=value)


def date_fits(text: str) -> bool:
    """Whether a text fits a date column, as `text_as_column` says it in SQL."""
    usual = re.fullmatch("[0-9]...-..-..", text, re.DOTALL)
    return usual is not None or re.fullmatch(_DATE, text) is not None


def text_as_column(value: Fragment, odd: Odd) -> Fragment:
    """A text as its column's value: a date or time only if it is one, any other text as written."""
    if odd.type not in TEMPORAL_TYPES:
        return value
    return SQL("CASE WHEN {usual} THEN {t} WHEN {t} ~ {pattern} THEN {t} WHEN {t} IS NOT NULL THEN {odd} END").format(
        usual=usual_text(value, odd),
        t=value,
        pattern=Literal(f"^{_PATTERN[odd.type]}$"),
        odd=odd.of_another_type,
    )
