"""Where the data leaves an expression without an honest value: SQL that is true there, and words that say what is wrong.

The expressions themselves never raise; they are empty then (`expression_sql`). Whether that becomes an error or a marked cell is
left to `sql` and `scalar_sql`. Where no data can bring trouble about, there is no SQL and it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from psycopg.sql import SQL, Composable

from exports.compiler.expression_sql import (
    Place,
    array_of,
    computed,
    ordered_unknown,
    present,
    rows_of,
    text_of,
)
from exports.compiler.scalar_sql import operand_boolean, operand_moment, operand_number
from exports.compiler.typed_tree import (
    Arithmetic,
    At,
    Child,
    Comparison,
    Constant,
    Count,
    Exists,
    Expression,
    Filter,
    Join,
    Logic,
    Not,
    Nothing,
    ReferenceKey,
    category,
)


class Trouble(NamedTuple):
    """`when` is SQL, true where the data is such that an expression on it has no honest value; `problem` says what is wrong."""

    when: Composable
    problem: str


def troubles_of(node: Expression, place: Place) -> list[Trouble]:
    """What may be wrong with the data inside an expression, whatever is then made of its value."""
    match node:
        case Child(of=of) | At(of=of) | Exists(of=of) | Count(of=of) | ReferenceKey(of=of):
            return troubles_of(of, place)
        case Filter(of=of, criterion=criterion):
            return troubles_of(of, place) + _troubles_of_items(node, criterion, place)
        case Join(of=of):
            stranger = SQL("EXISTS (SELECT FROM {} AS w(v) WHERE jsonb_typeof(w.v) <> 'string')").format(
                rows_of(of, place)
            )
            return [*troubles_of(of, place), Trouble(stranger, "joins something that is no string")]
        case Not(of=of):
            return troubles_of_condition(of, place) if of.type == "boolean" else troubles_of_one(of, place)
        case Logic(left=left, right=right):
            return [
                trouble
                for side in (left, right)
                for trouble in (troubles_of_condition if side.type == "boolean" else troubles_of_one)(side, place)
            ]
        case Comparison():
            return _troubles_of_comparison(node, place)
        case Arithmetic(left=left, right=right):
            within = troubles_of_one if node.type == "string" else troubles_of_number
            return within(left, place) + within(right, place)
        case _:
            return []


def troubles_of_one(node: Expression, place: Place) -> list[Trouble]:
    """As `troubles_of`, where at most one item is wanted."""
    found = troubles_of(node, place)
    if not node.many:
        return found
    several = SQL("jsonb_array_length({}) > 1").format(array_of(node, place))
    return [*found, Trouble(several, "has more than one value; use first(), forEach or collection: true")]


def troubles_of_condition(node: Expression, place: Place) -> list[Trouble]:
    """As `troubles_of`, where a boolean is wanted."""
    return troubles_of_one(node, place) + _another(node, "boolean", operand_boolean, place)


def troubles_of_number(node: Expression, place: Place) -> list[Trouble]:
    """As `troubles_of`, where a number is wanted."""
    return troubles_of_one(node, place) + _another(node, "number", operand_number, place)


def _another(node: Expression, kind: str, read: Callable[[Composable], Composable], place: Place) -> list[Trouble]:
    native = None if node.many else computed(node, place)
    if isinstance(node, (Constant, Nothing)) or (native is not None and native[1] == kind):
        return []
    value = present(node, place)
    unread = SQL("({} IS NOT NULL AND {} IS NULL)").format(value, read(value))
    return [Trouble(unread, f"needs a {kind}, and holds something else")]


def _troubles_of_comparison(node: Comparison, place: Place) -> list[Trouble]:
    sides = (node.left, node.right)
    equality = node.operator in {"=", "!="}
    if equality and any(side.many for side in sides):
        return [trouble for side in sides for trouble in troubles_of(side, place)]
    sorts = {category(side.type) for side in sides}
    if "temporal" in sorts:
        return [trouble for side in sides for trouble in _troubles_of_moment(side, place)]
    if "number" in sorts and not equality:
        return [trouble for side in sides for trouble in troubles_of_number(side, place)]
    found = [trouble for side in sides for trouble in troubles_of_one(side, place)]
    if sorts == {None} and not equality:
        left, right = (present(side, place) for side in sides)
        both = SQL("({} IS NOT NULL AND {} IS NOT NULL AND {} IS NULL)")
        unknown = both.format(left, right, ordered_unknown(SQL(node.operator), left, right))
        found.append(Trouble(unknown, "compares what is neither two numbers nor two strings"))
    return found


def _troubles_of_moment(node: Expression, place: Place) -> list[Trouble]:
    found = troubles_of_one(node, place)
    if isinstance(node, (Constant, Nothing)):
        return found
    text = text_of(node, place)
    unread = SQL("({} IS NOT NULL AND {} IS NULL)").format(text, operand_moment(text))
    return [*found, Trouble(unread, "compares with a date or time what is none")]


def _troubles_of_items(node: Filter, criterion: Expression, place: Place) -> list[Trouble]:
    """What may be wrong within the criterion of a filter, on any of the items that it looks at."""
    inside = troubles_of_condition(criterion, replace(place, focus=SQL("w.v")))
    if not inside:
        return []
    items = (
        SQL("{} AS w(v)").format(rows_of(node.of, place))
        if node.of.many
        else SQL("(SELECT {} AS v OFFSET 0) AS w").format(present(node.of, place))
    )
    exists = SQL("EXISTS (SELECT FROM {} WHERE {})")
    return [Trouble(exists.format(items, when), problem) for when, problem in inside]
