"""Compares FHIR dates, times and instants in SQL; each may be written to another precision.

FHIRPath 2.0.0 §6.1 and §6.2: part by part; if one ends while both are equal so far, the answer is empty. Two date-times with a
zone compare as instants. One with and one without a zone have no answer, unless their dates alone decide.
"""

from __future__ import annotations

from exports.compiler.fragments import SQL, Fragment, Literal
from exports.compiler.moments import MOMENT

_ZONED = r"T[0-9]{2}:[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})$"
_SECONDS = r"T[0-9]{2}:[0-9]{2}:[0-9]{2}"
_LOCAL = r"T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?$"
_CLOCK = r"^[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?$"

# q.a, q.b: the two texts; n: how far both are written, the date alone where only one has a zone. Seconds and their fraction are
# one part: …00 and …00.000 are equal.
_COMPARISON = SQL(
    "(SELECT CASE"
    " WHEN q.a IS NULL OR q.b IS NULL THEN NULL"
    " WHEN q.a ~ {zoned} AND q.b ~ {zoned} THEN CASE"
    " WHEN (q.a ~ {seconds}) = (q.b ~ {seconds}) THEN q.a::timestamptz {operator} q.b::timestamptz"
    " WHEN date_trunc('minute', q.a::timestamptz) <> date_trunc('minute', q.b::timestamptz)"
    " THEN q.a::timestamptz {operator} q.b::timestamptz END"
    " WHEN q.a ~ {local} AND q.b ~ {local} THEN q.a::timestamp {operator} q.b::timestamp"
    " WHEN q.a ~ {clock} AND q.b ~ {clock} THEN q.a::time {operator} q.b::time"
    " WHEN {differ} THEN 'time' {operator} 'date'"
    ' WHEN left(q.a, n.n) <> left(q.b, n.n) THEN left(q.a, n.n) COLLATE "C" {operator} left(q.b, n.n)'
    " WHEN q.a = q.b THEN q.a {operator} q.b"
    " END"
    " FROM (SELECT {left} AS a, {right} AS b OFFSET 0) AS q,"
    " LATERAL (SELECT CASE WHEN (q.a ~ {zoned}) = (q.b ~ {zoned})"
    " THEN least(length(q.a), length(q.b)) ELSE least(length(q.a), length(q.b), 10) END AS n) AS n)"
)
_OPERATORS = {"=": SQL("="), "!=": SQL("<>"), "<": SQL("<"), "<=": SQL("<="), ">": SQL(">"), ">=": SQL(">=")}


def temporal_comparison(operator: str, left: Fragment, right: Fragment) -> Fragment:
    """`left operator right` as boolean, NULL where the two have no answer. Both sides are text or NULL."""
    return _COMPARISON.format(
        operator=_OPERATORS[operator],
        left=left,
        right=right,
        zoned=Literal(_ZONED),
        clock=Literal(_CLOCK),
        seconds=Literal(_SECONDS),
        local=Literal(_LOCAL),
        differ=one_is_a_time_of_day(SQL("q.a"), SQL("q.b")),
    )


def one_is_a_time_of_day(a: Fragment, b: Fragment) -> Fragment:
    """Whether one of two moments has a date and the other has none: they are never equal, and have no order."""
    return SQL("((substr({}, 3, 1) IN (':', '')) <> (substr({}, 3, 1) IN (':', '')))").format(a, b)


def usual_moment(written: Fragment) -> Fragment:
    """A text as it is; of a date-time or time the one way of writing it that all equal ones of its precision share.

    With a zone it is in UTC, and seconds have no zeros at their end.
    """
    return SQL(
        "(SELECT CASE WHEN m.v ~ {moment} AND m.v ~ {zoned}"
        " THEN to_char(m.v::timestamptz AT TIME ZONE 'UTC',"
        ' CASE WHEN m.v ~ {seconds} THEN \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\' ELSE \'YYYY-MM-DD"T"HH24:MI"Z"\' END)'
        " WHEN m.v ~ {moment} AND m.v LIKE '%.%' THEN regexp_replace(m.v, '[.]?0*$', '') ELSE m.v END"
        " FROM (SELECT {v} AS v OFFSET 0) AS m)"
    ).format(v=written, moment=Literal(MOMENT), zoned=Literal(_ZONED), seconds=Literal(_SECONDS))
