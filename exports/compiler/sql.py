"""The typed tree of a view to one Postgres query.

A selection becomes LATERAL joins: an iteration a set-returning call, a union one lateral UNION ALL, `forEachOrNull` a left join
or, where more hangs below it, a union with its null row. Each adds its ordinal to the ORDER BY, so that equal data gives rows in
equal order. SQL of single expressions is left to `expression_sql`, what fits a column to `scalar_sql`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from psycopg.sql import SQL, Composable, Identifier, Literal

from exports.compiler.elements import TEMPORAL_TYPES
from exports.compiler.expression_sql import (
    Place,
    array_of,
    computed,
    condition,
    json_of,
    present,
    rows_of,
    text_of,
)
from exports.compiler.scalar_sql import Odd, json_as_column, number_as_column, text_as_column
from exports.compiler.trouble_sql import Trouble, troubles_of, troubles_of_condition, troubles_of_one
from exports.compiler.typed_tree import At, Child, Constant, Expression, Focus, Resource, RowIndex
from exports.compiler.view_definition import ColumnNode, Selection, View, parse_view
from exports.errors import ViewError


@dataclass(frozen=True)
class Column:
    """One column of the result. `type`: its FHIR type; `collection`: a JSON array of such."""

    name: str
    type: str
    collection: bool


@dataclass(frozen=True)
class CompiledView:
    """A view as one query, whose rows come in a fixed order: connection, id, then the order of the iterations.

    `undecided` counts the resources of which `where`, or a criterion of an iteration, could not say whether they belong in the
    view; None where no data can bring that about.
    """

    name: str
    resource: str
    columns: tuple[Column, ...]
    query: Composable
    undecided: Composable | None


def compile_view(definition: Mapping[str, Any], source: Composable, *, marked: bool = False) -> CompiledView:
    """Compile a ViewDefinition against `source`, a FROM item with columns (connection text, id text, body jsonb).

    `source` may hold other resource types too. On data that does not fit (two values for a column that holds one, a value of
    another type) the query raises, as SQL on FHIR v2 wants it. `marked`: it does not; such a cell holds `scalar_sql.MARK`, every
    column is text, and what `where` cannot decide is left out.

    Raises:
        ViewError: the definition is wrong or needs what is not supported; says where, and what is allowed.
    """
    try:
        view = parse_view(definition)
        writer = _Writer(marked=marked)
        query, undecided = writer.query(view, source), writer.undecided(view, source)
        query.as_string(None)  # Postgres must take what is deep here, and Python be able to write it
    except RecursionError:
        raise ViewError(str(definition.get("name", "(unnamed)")), "", "the view is nested too deeply") from None
    columns = tuple(Column(column.name, column.type, column.collection) for column in view.select.all_columns())
    return CompiledView(view.name, view.resource, columns, query, undecided)


@dataclass(frozen=True)
class _Cell:
    node: ColumnNode
    value: Composable
    sql_type: str

    @property
    def null(self) -> Composable:
        """What stands here in a null row (SQL on FHIR v2: only `%rowIndex` has a value there)."""
        content = SQL("0") if isinstance(self.node.value, RowIndex) else SQL("NULL")
        return SQL("{}::{}").format(content, SQL(self.sql_type))


@dataclass(frozen=True)
class _Rows:
    """What a selection adds to a query: cells, FROM items to the right of what is there, ordinals (bigint) to order by."""

    cells: tuple[_Cell, ...] = ()
    joins: tuple[Composable, ...] = ()
    order: tuple[Composable, ...] = ()

    def __add__(self, other: _Rows) -> _Rows:
        return _Rows(self.cells + other.cells, self.joins + other.joins, self.order + other.order)


class _Writer:
    def __init__(self, *, marked: bool) -> None:
        self._numbers = count(1)
        self._marked = marked

    def query(self, view: View, source: Composable) -> Composable:
        inside = _outermost("s")
        conditions = [_of_resource(view)]
        for node in view.where:
            troubles = [] if self._marked else troubles_of_condition(node, inside)
            decided = _or_odd(condition(node, inside), troubles, Odd(inside.resource, "where", "boolean"))
            conditions.append(SQL("({}) IS TRUE").format(decided))
        if not self._marked:
            troubles = _troubles_of_iterations(view.select, inside)
            conditions.append(_or_odd(SQL("true"), troubles, Odd(inside.resource, "an iteration", "boolean")))
        place = _outermost("r")
        rows = self._selection(view.select, place)
        order = (SQL('r.connection COLLATE "C"'), SQL('r.id COLLATE "C"'), *rows.order)
        # OFFSET 0 keeps Postgres from running an iteration on resources of another type, or on those that `where` leaves out.
        # `|| {}` changes nothing, but unpacks a large (toasted) body once and not for each column: 3x faster from 16 kB a body
        return SQL(
            "SELECT {cells} FROM (SELECT s.connection, s.id, s.body || '{{}}'::jsonb AS body FROM {source} AS s"
            " WHERE {where} OFFSET 0) AS r{joins}"
            " ORDER BY {order}"
        ).format(
            cells=_listed(SQL("{} AS {}").format(cell.value, Identifier(cell.node.name)) for cell in rows.cells),
            source=source,
            where=SQL(" AND ").join(conditions),
            joins=SQL("").join(rows.joins),
            order=_listed(order),
        )

    def undecided(self, view: View, source: Composable) -> Composable | None:
        place = _outermost("s")
        troubles = [trouble for node in view.where for trouble in troubles_of_condition(node, place)]
        troubles += _troubles_of_iterations(view.select, place)
        if not troubles:
            return None
        return SQL("SELECT count(*) FROM {} AS s WHERE {} AND ({})").format(
            source, _of_resource(view), SQL(" OR ").join([trouble.when for trouble in troubles])
        )

    def _selection(self, selection: Selection, place: Place) -> _Rows:
        if selection.each is None:
            return self._contents(selection, place)
        item = Identifier(f"e{next(self._numbers)}")
        focus = SQL("{}.v").format(item)
        if not selection.each.many:
            return self._at_most_one(selection, place, item)
        ordinal = SQL("{}.o").format(item)
        row_index = SQL("({} - 1)").format(ordinal)
        each = SQL("{} WITH ORDINALITY AS {}(v, o)").format(rows_of(selection.each, place), item)
        inner = self._contents(selection, replace(place, focus=focus, row_index=row_index))
        order = (ordinal, *inner.order)
        if not selection.or_null:
            return _Rows(inner.cells, (SQL(" CROSS JOIN LATERAL {}").format(each), *inner.joins), order)
        if not inner.joins:
            cells = tuple(_null_with(cell, focus) for cell in inner.cells)
            return _Rows(cells, (SQL(" LEFT JOIN LATERAL {} ON true").format(each),), order)
        items = SQL("SELECT {} FROM {}{}").format(
            _cells_and_order(inner.cells, order, len(order)), each, SQL("").join(inner.joins)
        )
        none = SQL("SELECT {} WHERE NOT EXISTS (SELECT FROM {})").format(
            _cells_and_order([replace(cell, value=cell.null) for cell in inner.cells], (), len(order)), each
        )
        return self._subquery((items, none), inner.cells, len(order))

    def _at_most_one(self, selection: Selection, place: Place, item: Identifier) -> _Rows:
        """An iteration over a path of one item at most: evaluated once for all of its columns, no ordinal needed."""
        assert selection.each is not None
        focus = SQL("{}.v").format(item)
        inner = self._contents(selection, replace(place, focus=focus, row_index=SQL("0")))
        one = SQL("(SELECT {} AS v OFFSET 0)").format(present(selection.each, place))
        if not selection.or_null:
            join = SQL(" CROSS JOIN LATERAL (SELECT q.v FROM {} AS q WHERE q.v IS NOT NULL) AS {}").format(one, item)
            return _Rows(inner.cells, (join, *inner.joins), inner.order)
        if not inner.joins:
            cells = tuple(_null_with(cell, focus) for cell in inner.cells)
            return _Rows(cells, (SQL(" CROSS JOIN LATERAL {} AS {}").format(one, item),), inner.order)
        some = SQL("SELECT {} FROM {} AS {}{} WHERE {} IS NOT NULL").format(
            _cells_and_order(inner.cells, inner.order, len(inner.order)), one, item, SQL("").join(inner.joins), focus
        )
        none = SQL("SELECT {} FROM {} AS {} WHERE {} IS NULL").format(
            _cells_and_order([replace(cell, value=cell.null) for cell in inner.cells], (), len(inner.order)),
            one,
            item,
            focus,
        )
        return self._subquery((some, none), inner.cells, len(inner.order))

    def _contents(self, selection: Selection, place: Place) -> _Rows:
        rows = _Rows(tuple(self._cell(node, place) for node in selection.columns))
        for nested in selection.select:
            rows += self._selection(nested, place)
        return rows + self._union(selection.union, place) if selection.union else rows

    def _cell(self, node: ColumnNode, place: Place) -> _Cell:
        odd = Odd(None if self._marked else place.resource, f"column {node.name}", node.type)
        if node.collection:
            kind = "text" if self._marked else "jsonb"
            items = SQL("{}::{}").format(array_of(node.value, place), SQL(kind))
            return _Cell(node, _or_odd(items, troubles_of(node.value, place), odd, kind), kind)
        value = _or_odd(_value(node.value, place, odd), troubles_of_one(node.value, place), odd)
        return _Cell(node, value, odd.sql_type)

    def _union(self, branches: Sequence[Selection], place: Place) -> _Rows:
        parts = [self._selection(branch, place) for branch in branches]
        width = 1 + max(len(part.order) for part in parts)
        queries = []
        for number, part in enumerate(parts):
            listed = _cells_and_order(part.cells, (SQL("{}").format(Literal(number)), *part.order), width)
            # a one-row FROM, so that every join of the branch has something to its left
            queries.append(SQL("SELECT {} FROM (SELECT) AS one{}").format(listed, SQL("").join(part.joins)))
        return self._subquery(queries, parts[0].cells, width)

    def _subquery(self, queries: Sequence[Composable], cells: Sequence[_Cell], width: int) -> _Rows:
        name = Identifier(f"u{next(self._numbers)}")
        join = SQL(" CROSS JOIN LATERAL ({}) AS {}").format(SQL(" UNION ALL ").join(queries), name)
        outer = tuple(replace(cell, value=SQL("{}.{}").format(name, Identifier(cell.node.name))) for cell in cells)
        return _Rows(outer, (join,), tuple(SQL("{}.{}").format(name, _order_name(at)) for at in range(width)))


def _listed(items: Iterable[Composable]) -> Composable:
    return SQL(", ").join(tuple(items))


def _order_name(at: int) -> Identifier:
    return Identifier(f"#{at}")  # no column can have this name


def _cells_and_order(cells: Sequence[_Cell], order: Sequence[Composable], width: int) -> Composable:
    items = [SQL("{} AS {}").format(cell.value, Identifier(cell.node.name)) for cell in cells]
    for at in range(width):
        ordinal = order[at] if at < len(order) else SQL("NULL")
        items.append(SQL("{}::bigint AS {}").format(ordinal, _order_name(at)))
    return _listed(items)


def _null_with(cell: _Cell, focus: Composable) -> _Cell:
    """The cell in a left join: null where the item is, whatever its expression gives on nothing."""
    if _is_path_from_focus(cell.node.value) and not cell.node.collection:
        return cell
    value = SQL("CASE WHEN {} IS NOT NULL THEN {} ELSE {} END").format(focus, cell.value, cell.null)
    return replace(cell, value=value)


def _is_path_from_focus(node: Expression) -> bool:
    while isinstance(node, (Child, At)):
        node = node.of
    return isinstance(node, Focus)


def _value(node: Expression, place: Place, odd: Odd) -> Composable:
    """The value of a column on an expression of one item."""
    found, kind = computed(node, place) or (None, None)
    if found is not None and isinstance(node, RowIndex):
        return SQL("({})::{}").format(found, SQL(odd.sql_type))
    if found is not None and kind == "boolean" and odd.type == "boolean":
        return SQL("({})::{}").format(found, SQL(odd.sql_type))
    if found is not None and kind == "number" and odd.sql_type_of_values != "text":
        return _bound(SQL("({})::numeric").format(found), lambda value: number_as_column(value, odd))
    if odd.sql_type_of_values == "text":
        text = text_of(node, place)
        if odd.type not in TEMPORAL_TYPES or _is_cheap(node):
            return text_as_column(text, odd)
        return _bound(text, lambda value: text_as_column(value, odd))
    value = json_of(node, place)
    if _is_cheap(node):
        return json_as_column(value, text_of(node, place), odd)
    return _bound(value, lambda bound: json_as_column(bound, SQL("({} #>> '{{}}')").format(bound), odd))


def _is_cheap(node: Expression) -> bool:
    """Whether to look its value up again costs less than to bind it: steps into objects, without arrays on the way."""
    while isinstance(node, Child) and not node.many and len(node.keys) == 1:
        node = node.of
    return isinstance(node, (Focus, Resource, Constant))


def _bound(value: Composable, use: Callable[[Composable], Composable]) -> Composable:
    return SQL("(SELECT {} FROM (SELECT {} AS v OFFSET 0) AS q)").format(use(SQL("q.v")), value)


def _or_odd(value: Composable, troubles: Sequence[Trouble], odd: Odd, sql_type: str | None = None) -> Composable:
    """The value, or what stands for an odd one where there is trouble."""
    if not troubles:
        return value
    cast = SQL(sql_type or odd.sql_type)
    cases = [SQL("WHEN {} THEN {}::{}").format(trouble.when, odd(trouble.problem), cast) for trouble in troubles]
    return SQL("CASE {} ELSE {} END").format(SQL(" ").join(cases), value)


def _outermost(row: str) -> Place:
    body = SQL("{}.body").format(Identifier(row))
    return Place(body, body, SQL("{}.connection").format(Identifier(row)), SQL("0"))


def _of_resource(view: View) -> Composable:
    return SQL("s.body ->> 'resourceType' = {}").format(Literal(view.resource))


def _troubles_of_iterations(selection: Selection, place: Place) -> list[Trouble]:
    """What may be wrong with the criteria of iterations: whether an item is one of the rows cannot be said then."""
    inner, found = place, []
    if selection.each is not None:
        found = troubles_of(selection.each, place)
        inner = replace(place, focus=SQL("i.v"))
    below = [
        trouble
        for nested in (*selection.select, *selection.union)
        for trouble in _troubles_of_iterations(nested, inner)
    ]
    if selection.each is not None:
        within = SQL("EXISTS (SELECT FROM {} AS i(v) WHERE {})")
        items = rows_of(selection.each, place)
        below = [Trouble(within.format(items, trouble.when), trouble.problem) for trouble in below]
    return found + below
