"""Functions on collections as SQL, over a jsonb array: whatever jsonpath cannot express.

A criterion or projection is written once, for one item of the array. If it has no honest value for one item, the whole
collection has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from exports.compiler.fragments import SQL, Fragment, Literal
from exports.compiler.temporal_sql import usual_moment
from exports.compiler.typed_tree import (
    All,
    Ampersand,
    ComputedSlice,
    Count,
    Distinct,
    Equivalence,
    Filter,
    Iif,
    Join,
    Membership,
    Nothing,
    Select,
    Union,
    category,
)
from exports.compiler.value_sql import (
    Environment,
    Value,
    as_item,
    bound,
    computed,
    item,
    items,
    lowers,
    number,
    text,
    truth,
)

_ELEMENTS = SQL("jsonb_array_elements({}) WITH ORDINALITY AS {}(v, o)")


def _over(of: Value, environment: Environment, build: Callable[[Fragment], Fragment]) -> Fragment:
    """The result of `build` on an array, if the array has an honest value."""
    if of.safe:
        return build(of.sql)
    return bound(
        environment, [of.sql], lambda array: SQL("CASE WHEN {} IS NOT NULL THEN {} END").format(array, build(array))
    )


def filtered(node: Filter, environment: Environment) -> Value:
    """The items for which the criterion is true."""
    of, row, outer = items(node.of, environment), environment.name("w"), environment.name("x")
    criterion = truth(node.criterion, environment.on(SQL("{}.v").format(row)), strict=True)
    native = criterion.kind == "boolean"
    template = (
        "(SELECT {begin}COALESCE(jsonb_agg({x}.v ORDER BY {x}.o) FILTER (WHERE {x}.c{true}), '[]'){end}"
        " FROM (SELECT {row}.v, {row}.o, {c} AS c FROM {elements} OFFSET 0) AS {x})"
    )
    honest = criterion.safe or environment.lenient
    begin = SQL("" if honest else "CASE WHEN bool_and({x}.c IS NOT NULL) IS NOT FALSE THEN ").format(x=outer)

    def build(array: Fragment) -> Fragment:
        return SQL(template).format(
            begin=begin,
            end=SQL("" if honest else " END"),
            x=outer,
            row=row,
            c=criterion.sql,
            true=SQL("" if native else " = 'true'"),
            elements=_ELEMENTS.format(array, row),
        )

    return Value(_over(of, environment, build), "items", of.safe and honest)


def selected(node: Select, environment: Environment) -> Value:
    """All items of the projection, item by item."""
    of, row, outer = items(node.of, environment), environment.name("w"), environment.name("x")
    found = items(node.projection, environment.on(SQL("{}.v").format(row)))
    begin = SQL("" if found.safe else "CASE WHEN bool_and({x}.a IS NOT NULL) IS NOT FALSE THEN ").format(x=outer)

    def build(array: Fragment) -> Fragment:
        return SQL(
            "(SELECT {begin}jsonb_path_query_array(COALESCE(jsonb_agg({x}.a ORDER BY {x}.o), '[]'), '$[*][*]'){end}"
            " FROM (SELECT {a} AS a, {row}.o FROM {elements} OFFSET 0) AS {x})"
        ).format(
            begin=begin,
            end=SQL("" if found.safe else " END"),
            x=outer,
            row=row,
            a=found.sql,
            elements=_ELEMENTS.format(array, row),
        )

    return Value(_over(of, environment, build), "items", of.safe and found.safe)


@lowers(All)
def _all(node: All, environment: Environment) -> Value:
    of, row, outer = items(node.of, environment), environment.name("w"), environment.name("x")
    criterion = truth(node.criterion, environment.on(SQL("{}.v").format(row)), strict=True)
    honest = as_item(criterion, environment)

    def build(array: Fragment) -> Fragment:
        return SQL(
            "(SELECT CASE WHEN bool_and({x}.c IS NOT NULL) IS NOT FALSE"
            " THEN to_jsonb(COALESCE(bool_and({x}.c = 'true'), true)) END FROM (SELECT {c} AS c FROM {elements} OFFSET 0) AS {x})"
        ).format(x=outer, c=honest.sql, elements=_ELEMENTS.format(array, row))

    safe = of.safe and honest.safe
    found = _over(of, environment, build)
    return Value(SQL("({})::boolean").format(found), "boolean") if safe else Value(found, "item", safe=False)


@lowers(Union)
def _union(node: Union, environment: Environment) -> Value:
    sides = [(items(side, environment), "items") for side in (node.left, node.right)]
    return computed(environment, sides, "items", lambda a, b: SQL("({} || {})").format(a, b))  # type: ignore[arg-type]


@lowers(Distinct)
def _distinct(node: Distinct, environment: Environment) -> Value:
    row, outer = environment.name("w"), environment.name("x")

    def build(array: Fragment) -> Fragment:
        return SQL(
            "(SELECT COALESCE(jsonb_agg({x}.v ORDER BY {x}.o), '[]') FROM"
            " (SELECT {row}.v, min({row}.o) AS o FROM {elements} GROUP BY {row}.v) AS {x})"
        ).format(x=outer, row=row, elements=_ELEMENTS.format(array, row))

    of = items(node.of, environment)
    return Value(_over(of, environment, build), "items", of.safe)


@lowers(ComputedSlice)
def _computed_slice(node: ComputedSlice, environment: Environment) -> Value:
    """A slice with computed ends; an empty number selects nothing."""
    numbers = [number(one, environment) for one in (node.start, node.length) if one is not None]

    def build(array: Fragment, start: Fragment, length: Fragment | None = None) -> Fragment:
        given = [start] if length is None else [start, length]
        return SQL(
            "CASE WHEN {none} THEN '[]' WHEN {whole} THEN"
            " jsonb_path_query_array({array}, {path}, jsonb_build_object('start', {start}, 'end', {end})) ELSE {odd} END"
        ).format(
            none=SQL(" OR ").join([SQL("{} IS NULL").format(one) for one in given]),
            whole=SQL(" AND ").join([SQL("trunc({0}) = {0}").format(one) for one in given]),
            array=array,
            path=SQL("'$[$start to last]'" if length is None else "'$[$start to $end]'"),
            start=_subscript(start),
            end=SQL("0") if length is None else _subscript(SQL("({} + {} - 1)").format(start, length)),
            odd=environment.poison("takes a whole number, and found a fraction"),
        )

    operands = [(items(node.of, environment), "items"), *[(one, "number") for one in numbers]]
    return replace(computed(environment, operands, "items", build), safe=False)  # type: ignore[arg-type]


def _subscript(whole: Fragment) -> Fragment:
    """A number that jsonpath takes as a subscript: of an item that no array has, where it is too small or too large."""
    return SQL("greatest(least({}, 2147483647), -1)").format(whole)


@lowers(Count)
def _count(node: Count, environment: Environment) -> Value:
    of = items(node.of, environment)
    return computed(environment, [(of, "items")], "number", lambda a: SQL("jsonb_array_length({})").format(a))


@lowers(Iif)
def _iif(node: Iif, environment: Environment) -> Value:
    criterion = as_item(truth(node.criterion, environment, strict=True), environment)
    then, otherwise = items(node.then, environment), items(node.otherwise, environment)
    chosen = bound(
        environment,
        [criterion.sql],
        lambda c: SQL("CASE WHEN {c} = 'true' THEN {a} WHEN {c} IS NOT NULL THEN {b} END").format(
            c=c, a=then.sql, b=otherwise.sql
        ),
    )
    return Value(chosen, "items", criterion.safe and then.safe and otherwise.safe)


@lowers(Nothing)
def _nothing(_node: Nothing, _place: Environment) -> Value:
    return Value(SQL("'[]'::jsonb"), "items")


@lowers(Membership)
def _membership(node: Membership, environment: Environment) -> Value:
    row = environment.name("w")
    among = SQL("CASE WHEN {one} <> 'null' THEN EXISTS (SELECT FROM {elements} WHERE {row}.v = {one}) END")
    return computed(
        environment,
        [(item(node.item, environment), "item"), (items(node.collection, environment), "items")],
        "boolean",
        lambda one, array: among.format(one=one, row=row, elements=_ELEMENTS.format(array, row)),
    )


@lowers(Join)
def _join(node: Join, environment: Environment) -> Value:
    of, row = items(node.of, environment), environment.name("w")
    separator = text_literal(node.separator)

    def build(array: Fragment) -> Fragment:
        return SQL(
            "(SELECT CASE WHEN count(*) = 0 THEN 'null' WHEN bool_and(jsonb_typeof({row}.v) = 'string')"
            " THEN to_jsonb(string_agg({row}.v #>> '{{}}', {separator} ORDER BY {row}.o)) ELSE {odd} END FROM {elements})"
        ).format(
            row=row,
            separator=separator,
            odd=environment.poison("joins something that is not a string"),
            elements=_ELEMENTS.format(array, row),
        )

    return Value(_over(of, environment, build), "item", safe=False)


def text_literal(value: str) -> Fragment:
    """A text constant in SQL."""
    return SQL("{}::text").format(Literal(value))


@lowers(Ampersand)
def _ampersand(node: Ampersand, environment: Environment) -> Value:
    sides = [(text(side, environment), "text") for side in (node.left, node.right)]
    joined = SQL("(COALESCE({}, '') || COALESCE({}, ''))")
    return computed(environment, sides, "text", joined.format)  # type: ignore[arg-type]


# Of texts neither case nor white space counts, of objects not the case of what is in them (FHIRPath 2.0.0 §6.1.3).
_ALIKE = (
    "(SELECT COALESCE(jsonb_agg({x}.n ORDER BY {x}.n), '[]') FROM (SELECT CASE jsonb_typeof({row}.v) WHEN 'string' THEN"
    " to_jsonb(lower(btrim(regexp_replace({text}, '\\s+', ' ', 'g')))) WHEN 'object' THEN lower({row}.v::text)::jsonb"
    " ELSE {row}.v END AS n FROM {elements}) AS {x})"
)
# of two numbers the one with fewer digits behind the point says how many count
_ALIKE_NUMBERS = (
    "CASE WHEN jsonb_path_match({a}, '$.size() == 1 && $[0].type() == \"number\"')"
    " AND jsonb_path_match({b}, '$.size() == 1 && $[0].type() == \"number\"')"
    " THEN (SELECT round(n.a, n.digits) = round(n.b, n.digits) FROM (SELECT m.a, m.b,"
    " least(min_scale(m.a), min_scale(m.b)) AS digits FROM (SELECT ({a} ->> 0)::numeric AS a, ({b} ->> 0)::numeric AS b"
    " OFFSET 0) AS m) AS n) ELSE {alike} END"
)


@lowers(Equivalence)
def _equivalence(node: Equivalence, environment: Environment) -> Value:
    temporal = "temporal" in {category(node.left.type), category(node.right.type)}

    def alike(array: Fragment) -> Fragment:
        row = environment.name("w")
        written = SQL("({}.v #>> '{{}}')").format(row)
        return SQL(_ALIKE).format(
            x=environment.name("x"),
            row=row,
            text=usual_moment(written) if temporal else written,
            elements=_ELEMENTS.format(array, row),
        )

    def compared(a: Fragment, b: Fragment) -> Fragment:
        same = SQL("({} = {})").format(alike(a), alike(b))
        if not temporal:
            same = SQL(_ALIKE_NUMBERS).format(a=a, b=b, alike=same)
        return SQL("(NOT {})" if node.negated else "({})").format(same)

    sides = [(items(side, environment), "items") for side in (node.left, node.right)]
    return computed(environment, sides, "boolean", compared)  # type: ignore[arg-type]
