"""Typed expressions to Postgres SQL on jsonb.

An expression that holds at most one item becomes a jsonb value (SQL NULL: empty), or a native boolean, number or text where it
is computed. One that may hold several becomes a jsonb value and a jsonpath into it, read as array, rows or first item.

No expression raises, whatever the data: what cannot be read as a number, boolean or moment, or is several where one is wanted,
is empty, and `trouble_sql` tells so. What then becomes of the column is left to `scalar_sql`, how rows are made of expressions to
`sql`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from psycopg.sql import SQL, Composable, Literal

from exports.compiler.scalar_sql import operand_boolean, operand_moment, operand_number
from exports.compiler.temporal_sql import temporal_comparison
from exports.compiler.typed_tree import (
    Arithmetic,
    At,
    Child,
    Comparison,
    Connection,
    Constant,
    Count,
    Exists,
    Expression,
    Filter,
    Focus,
    Join,
    Logic,
    Not,
    Nothing,
    ReferenceKey,
    Resource,
    RowIndex,
    category,
)


@dataclass(frozen=True)
class Place:
    """Where an expression stands: the SQL of what it may refer to."""

    focus: Composable  # jsonb
    resource: Composable  # jsonb
    connection: Composable  # text
    row_index: Composable  # integer


def json_of(node: Expression, place: Place) -> Composable:
    """The one item as jsonb, SQL NULL where there is none, or several. A JSON null may come through."""
    if node.many:
        return _only_one(array_of(node, place))
    native = computed(node, place)
    if native is not None:
        return SQL("to_jsonb({})").format(native[0])
    match node:
        case Focus():
            return place.focus
        case Resource():
            return place.resource
        case Constant():
            return _constant_json(node.value)
        case Child():
            return _child_json(node, place)
        case At():
            return _at(node, place)
        case Filter():
            inner = replace(place, focus=SQL("q.v"))
            return SQL("(SELECT q.v FROM (SELECT {} AS v OFFSET 0) AS q WHERE {})").format(
                json_of(node.of, place), condition(node.criterion, inner)
            )
    return SQL("NULL::jsonb")


def present(node: Expression, place: Place) -> Composable:
    """As `json_of`, but a JSON null is SQL NULL."""
    value = json_of(node, place)
    return value if isinstance(node, Constant) else SQL("NULLIF({}, 'null'::jsonb)").format(value)


def array_of(node: Expression, place: Place) -> Composable:
    """All items as a jsonb array, `[]` where there are none."""
    if node.many:
        base, path = _path(node, place)
        return SQL("COALESCE(jsonb_path_query_array({}, {}), '[]'::jsonb)").format(base, _jsonpath(path))
    return SQL(
        "(SELECT CASE WHEN q.v IS NULL THEN '[]'::jsonb ELSE jsonb_build_array(q.v) END FROM (SELECT {} AS v) AS q)"
    ).format(present(node, place))


def rows_of(node: Expression, place: Place) -> Composable:
    """All items as a set-returning call, for a FROM clause WITH ORDINALITY."""
    base, path = _path(node, place)
    return SQL("jsonb_path_query({}, {})").format(base, _jsonpath(path))


def text_of(node: Expression, place: Place) -> Composable:
    """The one item as text in its FHIR form: strings bare, numbers and booleans as written, objects as JSON."""
    native = None if node.many else computed(node, place)
    if native is not None:
        sql, kind = native
        return sql if kind == "text" else SQL("({})::text").format(sql)
    if isinstance(node, Constant) and isinstance(node.value, str):
        return _text_literal(node.value)
    if isinstance(node, Child) and not node.many and len(node.keys) == 1:
        return SQL("({} ->> {})").format(json_of(node.of, place), Literal(node.keys[0]))
    return SQL("({} #>> '{{}}')").format(json_of(node, place))


def number_of(node: Expression, place: Place) -> Composable:
    """The one item as numeric; NULL where it is none."""
    native = None if node.many else computed(node, place)
    if native is not None and native[1] == "number":
        return SQL("({})::numeric").format(native[0])
    if isinstance(node, Constant):
        return SQL("({})::numeric").format(_constant_json(node.value))
    return operand_number(json_of(node, place))


def condition(node: Expression, place: Place) -> Composable:
    """A criterion as boolean: empty, and anything but a boolean, is NULL."""
    native = None if node.many else computed(node, place)
    if native is not None and native[1] == "boolean":
        return native[0]
    return operand_boolean(json_of(node, place))


def _operand(node: Expression, place: Place) -> Composable:
    """A side of `and`, `or`, …: a single item that is no boolean counts as true (FHIRPath 2.0.0, §4.5)."""
    if node.type == "boolean" or isinstance(node, Nothing):
        return condition(node, place)
    return SQL(
        "(SELECT CASE jsonb_typeof(q.v) WHEN 'boolean' THEN q.v::boolean ELSE CASE WHEN q.v IS NOT NULL THEN true END END"
        " FROM (SELECT {} AS v OFFSET 0) AS q)"
    ).format(present(node, place))


def _only_one(array: Composable) -> Composable:
    return SQL(
        "(SELECT CASE WHEN jsonb_array_length(q.a) = 1 THEN q.a -> 0 END FROM (SELECT {} AS a OFFSET 0) AS q)"
    ).format(array)


def _constant_json(value: str | bool | int | Decimal) -> Composable:
    text = str(value) if isinstance(value, Decimal) else json.dumps(value)
    return SQL("{}::jsonb").format(Literal(text))


def _text_literal(value: str) -> Composable:
    return SQL("{}::text").format(Literal(value))


def _jsonpath(path: str) -> Composable:
    return SQL("{}::jsonpath").format(Literal(path))


def _child_json(node: Child, place: Place) -> Composable:
    of = json_of(node.of, place)
    values = [SQL("({} -> {})").format(of, Literal(key)) for key in node.keys]
    return values[0] if len(values) == 1 else SQL("COALESCE({})").format(SQL(", ").join(values))


def _at(node: At, place: Place) -> Composable:
    if not node.of.many:
        return json_of(node.of, place) if node.index in {0, -1} else SQL("NULL::jsonb")
    if node.index == 0:
        base, path = _path(node.of, place)
        return SQL("jsonb_path_query_first({}, {})").format(base, _jsonpath(path))
    return SQL("({} -> {}::integer)").format(array_of(node.of, place), Literal(node.index))


def _path(node: Expression, place: Place) -> tuple[Composable, str]:
    """A jsonb value, and the (lax) jsonpath that finds the items in it; JSON nulls are left out."""
    base, steps = _steps(node, place)
    return base, f"{steps} ? (@ != null)"


def _steps(node: Expression, place: Place) -> tuple[Composable, str]:
    if not node.many:
        return json_of(node, place), "$"
    match node:
        case Child(of=of, keys=(key,), repeats=repeats):
            base, steps = _steps(of, place)
            # a step into an array goes into its items (lax mode), but a last step would give the array itself
            return base, f"{steps}.{_quoted(key)}" + ("[*]" if repeats else "")
        case Filter(of=of):
            base, steps = _steps(of, place)
            inside = _jsonpath_predicate(node.criterion)
            if inside is not None:
                return base, f"{steps} ? ({inside})"
            criterion = condition(node.criterion, replace(place, focus=SQL("w.v")))
            return _each(of, SQL("w.v"), place, where=criterion), "$[*]"
        case Child(of=of):
            one = replace(node, of=Focus(type=of.type), many=False)
            return _each(of, json_of(one, replace(place, focus=SQL("w.v"))), place), "$[*]"
        case ReferenceKey(of=of):
            one_key = replace(node, of=Focus(type="Reference"), many=False)
            return _each(of, json_of(one_key, replace(place, focus=SQL("w.v"))), place), "$[*]"
    raise AssertionError(f"{type(node).__name__} never holds several items")


def _each(of: Expression, value: Composable, place: Place, *, where: Composable | None = None) -> Composable:
    """A jsonb array of `value`, computed on each item `w.v` for which `where` is true; NULL where there are none."""
    rows = SQL("SELECT jsonb_agg({} ORDER BY w.o) FROM {} WITH ORDINALITY AS w(v, o)").format(value, rows_of(of, place))
    return SQL("({} WHERE {})").format(rows, where) if where is not None else SQL("({})").format(rows)


def _quoted(text: str) -> str:
    return json.dumps(text)  # a jsonpath string is a JSON string


def _jsonpath_predicate(node: Expression) -> str | None:
    """The criterion as jsonpath, where that means the same: comparing strings of the focus that cannot repeat. None elsewhere."""
    match node:
        case Comparison(
            operator="=",
            left=Child(of=Focus(), keys=(key,), many=False, known=True, type=type_),
            right=Constant(value=str() as value),
        ) if category(type_) == "string":
            return f"@.{_quoted(key)} == {_quoted(value)}"
        case Logic(operator="and" | "or" as operator, left=left, right=right):
            sides = [_jsonpath_predicate(left), _jsonpath_predicate(right)]
            mark = " && " if operator == "and" else " || "
            return mark.join(f"({side})" for side in sides if side) if all(sides) else None
        case _:
            return None


def computed(node: Expression, place: Place) -> tuple[Composable, str] | None:
    """SQL of a computed expression and its kind (boolean, number, text); None for what is read out of the resource."""
    if isinstance(node, ReferenceKey) and node.many:
        return None
    write = _NATIVE.get(type(node))
    return write(node, place) if write is not None else None


def _exists(node: Exists, place: Place) -> tuple[Composable, str]:
    if node.of.many:
        base, path = _path(node.of, place)
        found = SQL("COALESCE(jsonb_path_exists({}, {}), false)").format(base, _jsonpath(path))
    elif (native := computed(node.of, place)) is not None:
        found = SQL("({} IS NOT NULL)").format(native[0])
    else:
        found = SQL("({} IS NOT NULL)").format(present(node.of, place))
    return (SQL("(NOT {})").format(found) if node.negated else found), "boolean"


def _logic(node: Logic, place: Place) -> tuple[Composable, str]:
    template = {
        "and": SQL("({} AND {})"),
        "or": SQL("({} OR {})"),
        "xor": SQL("({} <> {})"),
        "implies": SQL("(NOT {} OR {})"),
    }[node.operator]
    return template.format(_operand(node.left, place), _operand(node.right, place)), "boolean"


def _comparison(node: Comparison, place: Place) -> tuple[Composable, str]:
    left, right, operator = node.left, node.right, SQL(node.operator.replace("!=", "<>"))
    equality = node.operator in {"=", "!="}
    sorts = {category(left.type), category(right.type)}
    if equality and (left.many or right.many):
        sides = (SQL("NULLIF({}, '[]'::jsonb)").format(array_of(side, place)) for side in (left, right))
        return SQL("({} {} {})").format(next(sides), operator, next(sides)), "boolean"
    if "temporal" in sorts:
        return temporal_comparison(node.operator, _moment_of(left, place), _moment_of(right, place)), "boolean"
    if sorts == {"string"} or (sorts == {"string", None} and not equality):
        template = SQL('({} COLLATE "C" {} {})')
        return template.format(text_of(left, place), operator, text_of(right, place)), "boolean"
    if equality:
        return SQL("({} {} {})").format(present(left, place), operator, present(right, place)), "boolean"
    if sorts & {"number"}:
        return SQL("({} {} {})").format(number_of(left, place), operator, number_of(right, place)), "boolean"
    return ordered_unknown(operator, present(left, place), present(right, place)), "boolean"


def ordered_unknown(operator: Composable, left: Composable, right: Composable) -> Composable:
    """Both types unknown until the data is seen: numbers compare as numbers, strings as strings, anything else has no answer."""
    return SQL(
        "(SELECT CASE WHEN jsonb_typeof(q.a) = 'string' AND jsonb_typeof(q.b) = 'string'"
        " THEN (q.a #>> '{{}}') COLLATE \"C\" {} (q.b #>> '{{}}') ELSE {} {} {} END"
        " FROM (SELECT {} AS a, {} AS b OFFSET 0) AS q)"
    ).format(operator, operand_number(SQL("q.a")), operator, operand_number(SQL("q.b")), left, right)


def _moment_of(node: Expression, place: Place) -> Composable:
    text = text_of(node, place)
    return text if isinstance(node, Constant) else operand_moment(text)


def _arithmetic(node: Arithmetic, place: Place) -> tuple[Composable, str]:
    if node.type == "string":
        return SQL("({} || {})").format(text_of(node.left, place), text_of(node.right, place)), "text"
    left, right = number_of(node.left, place), number_of(node.right, place)
    template = {
        "+": SQL("({} + {})"),
        "-": SQL("({} - {})"),
        "*": SQL("({} * {})"),
        "/": SQL("trim_scale({} / NULLIF({}, 0))"),
        "div": SQL("div({}, NULLIF({}, 0))"),
        "mod": SQL("mod({}, NULLIF({}, 0))"),
    }[node.operator]
    return template.format(left, right), "number"


def _join(node: Join, place: Place) -> tuple[Composable, str]:
    return SQL(
        "(SELECT CASE WHEN bool_and(jsonb_typeof(w.v) = 'string') THEN string_agg(w.v #>> '{{}}', {} ORDER BY w.o) END"
        " FROM {} WITH ORDINALITY AS w(v, o))"
    ).format(_text_literal(node.separator), rows_of(node.of, place)), "text"


def _reference_key(node: ReferenceKey, place: Place) -> tuple[Composable, str]:
    # relative or absolute, with or without a version; not `#contained`, `urn:…` or a conditional reference `Type?…`
    kind = "[A-Z][A-Za-z]*" if node.target is None else node.target
    pattern = f"(?:^|/){kind}/([^/?#|]+)(?:/_history/[^/?#]*)?$"
    reference = SQL("({} ->> 'reference')").format(json_of(node.of, place))
    return SQL("substring({} from {})").format(reference, Literal(pattern)), "text"


_NATIVE: dict[type[Expression], Callable[..., tuple[Composable, str]]] = {
    Exists: _exists,
    Not: lambda node, place: (SQL("(NOT {})").format(_operand(node.of, place)), "boolean"),
    Logic: _logic,
    Comparison: _comparison,
    Arithmetic: _arithmetic,
    Count: lambda node, place: (SQL("jsonb_array_length({})").format(array_of(node.of, place)), "number"),
    Join: _join,
    ReferenceKey: _reference_key,
    Connection: lambda _, place: (place.connection, "text"),
    RowIndex: lambda _, place: (place.row_index, "number"),
}
