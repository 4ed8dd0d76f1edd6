"""How an iteration finds its items: as rows of a FROM item with columns v (jsonb) and o (1-based ordinal, bigint)."""

from __future__ import annotations

from dataclasses import replace

from exports.compiler.fragments import SQL, Fragment, Literal
from exports.compiler.path_sql import Fast, fast
from exports.compiler.typed_tree import At, Child, Expression
from exports.compiler.value_sql import Environment, as_item, items, lower
from exports.compiler.view_tree import Selection

_RANK = 2**32  # more than any array holds


def each_item(selection: Selection, environment: Environment, item: Fragment) -> Fragment:
    """The items of a selection that iterates, as a FROM item of that name."""
    if selection.each is None:
        return SQL("({}) AS {}").format(_repeated(selection.repeat, environment), item)
    look_up = fast(selection.each, environment, repeated=True)
    if look_up is not None and not _repeats(selection.each):
        return _one_mostly(selection.each, look_up, environment, item)
    found = lower(selection.each, replace(environment, stage=None))
    if found.kind == "item":
        return SQL(
            "(SELECT {q}.v, 1::bigint AS o FROM (SELECT {v} AS v OFFSET 0) AS {q} WHERE {q}.v <> 'null') AS {item}"
        ).format(q=environment.name("q"), v=found.sql, item=item)
    return SQL("jsonb_array_elements({}) WITH ORDINALITY AS {}(v, o)").format(
        items_of_each(selection, environment), item
    )


def one_at_most(selection: Selection, environment: Environment) -> Fragment | None:
    """The item of an iteration that cannot have a second one in any data, or NULL; None: other iterations."""
    if not isinstance(selection.each, At):
        return None
    found = as_item(lower(selection.each, replace(environment, stage=None)), environment)
    slow = SQL("NULLIF({}, 'null')").format(found.sql)
    look_up = fast(selection.each, environment)
    if look_up is None:
        return slow
    at_hand = environment.staged(look_up.json)
    return SQL("CASE WHEN jsonb_typeof({x}) NOT IN ('array', 'null') THEN {x} WHEN {elsewhere} THEN {slow} END").format(
        x=at_hand, elsewhere=look_up.may_be_elsewhere(at_hand), slow=slow
    )


def any_item(selection: Selection, environment: Environment) -> Fragment | None:
    """Whether an iteration may find anything, as a cheap test: a set-returning call that finds nothing takes 1 us.

    None: no such test.
    """
    look_up = None if selection.each is None else fast(selection.each, environment, repeated=True)
    return None if look_up is None else look_up.may_be_elsewhere(environment.staged(look_up.json))


def items_of_each(selection: Selection, environment: Environment) -> Fragment:
    """The items of an iteration by forEach or forEachOrNull, as a jsonb array or NULL."""
    assert selection.each is not None
    look_up = fast(selection.each, environment, repeated=True)
    slow = items(selection.each, replace(environment, stage=None)).sql
    if look_up is None or not _repeats(selection.each):
        return slow
    found = environment.staged(look_up.json)
    # as it is, unless a null among the items must be left out
    return SQL(
        "CASE WHEN jsonb_typeof({x}) = 'array' AND NOT {x} @> '[null]' THEN {x} WHEN {elsewhere} THEN {slow} END"
    ).format(x=found, elsewhere=look_up.may_be_elsewhere(found), slow=slow)


def _repeats(node: Expression) -> bool:
    return isinstance(node, Child) and node.repeats and not isinstance(node, At)


def _one_mostly(node: Expression, look_up: Fast, environment: Environment, item: Fragment) -> Fragment:
    """Items of an element that R4 has once: one row without a set-returning call, or all items if the data have several."""
    found = environment.staged(look_up.json)
    slow = items(node, replace(environment, stage=None)).sql
    return SQL(
        "(SELECT {x} AS v, 1::bigint AS o WHERE jsonb_typeof({x}) NOT IN ('array', 'null')"
        " UNION ALL SELECT m.v, m.o FROM jsonb_array_elements({slow}) WITH ORDINALITY AS m(v, o)"
        " WHERE jsonb_typeof({x}) IN ('array', 'null') OR ({x} IS NULL AND {base} ? {key})) AS {item}"
    ).format(x=found, slow=slow, base=look_up.base, key=Literal(look_up.keys[0]), item=item)


def _repeated(paths: tuple[Expression, ...], environment: Environment) -> Fragment:
    """All that the paths lead to, and what they lead to from there, each item before what is in it.

    The key of an item is the way to it: which path, and which of its items, at each step; ways order as arrays do.
    """
    walk = environment.name("t")
    below = replace(environment, focus=SQL("{}.v").format(walk), stage=None)
    # the first step is taken from the focus, all others from what was found
    return SQL(
        "WITH RECURSIVE {w}(v, k) AS (SELECT c.v, ARRAY[c.o] FROM ({start}) AS c(v, o)"
        " UNION ALL SELECT c.v, {w}.k || c.o FROM {w} CROSS JOIN LATERAL ({below}) AS c(v, o))"
        " SELECT {w}.v, row_number() OVER (ORDER BY {w}.k) AS o FROM {w}"
    ).format(w=walk, start=_steps(paths, replace(environment, stage=None)), below=_steps(paths, below))


def _steps(paths: tuple[Expression, ...], environment: Environment) -> Fragment:
    parts = [
        SQL("SELECT m.v, {rank}::bigint + m.o FROM jsonb_array_elements({items}) WITH ORDINALITY AS m(v, o)").format(
            rank=Literal(rank * _RANK), items=items(path, environment).sql
        )
        for rank, path in enumerate(paths)
    ]
    return SQL(" UNION ALL ").join(parts)


def undecided_iterations(selection: Selection, environment: Environment) -> list[Fragment]:
    """SQL that is true where a criterion of an iteration cannot say whether an item is one of the rows."""
    paths = (selection.each,) if selection.each is not None else selection.repeat
    found = [SQL("({}) IS NULL").format(value.sql) for path in paths if not (value := items(path, environment)).safe]
    inner, row = environment, environment.name("i")
    if selection.iterates:
        inner = environment.on(SQL("{}.v").format(row))
    below = [doubt for nested in (*selection.select, *selection.union) for doubt in undecided_iterations(nested, inner)]
    if selection.repeat:
        below += [SQL("({}) IS NULL").format(value.sql) for path in paths if not (value := items(path, inner)).safe]
    if selection.iterates and below:
        rows = each_item(selection, replace(environment, lenient=True), row)
        below = [SQL("EXISTS (SELECT FROM {} WHERE {})").format(rows, SQL(" OR ").join(below))]
    return found + below
