"""The typed tree of a view to one Postgres query.

A selection becomes LATERAL joins: an iteration a set-returning call, a union one lateral UNION ALL, `forEachOrNull` a left join
or, where more hangs below it, a union with its null row. Each adds its ordinal to the ORDER BY, so that equal data gives rows in
equal order. SQL of single expressions is left to `expression_sql`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from psycopg.sql import SQL, Composable, Identifier, Literal

from exports.compiler.expression_sql import Place, array_of, condition, json_of, number_of, present, rows_of, text_of
from exports.compiler.typed_tree import At, Child, Expression, Focus, RowIndex, category
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
    """A view as one query, whose rows come in a fixed order: connection, id, then the order of the iterations."""

    name: str
    resource: str
    columns: tuple[Column, ...]
    query: Composable


def compile_view(definition: Mapping[str, Any], source: Composable) -> CompiledView:
    """Compile a ViewDefinition against `source`, a FROM item with columns (connection text, id text, body jsonb).

    `source` may hold other resource types too. Run on data with two values for a column that holds one, the query raises.

    Raises:
        ViewError: the definition is wrong or needs what is not supported; says where, and what is allowed.
    """
    try:
        view = parse_view(definition)
        query = _Writer().query(view, source)
        query.as_string(None)  # Postgres must take what is deep here, and Python be able to write it
    except RecursionError:
        raise ViewError(str(definition.get("name", "(unnamed)")), "", "the view is nested too deeply") from None
    columns = tuple(Column(column.name, column.type, column.collection) for column in view.select.all_columns())
    return CompiledView(view.name, view.resource, columns, query)


@dataclass(frozen=True)
class _Cell:
    node: ColumnNode
    value: Composable

    @property
    def null(self) -> Composable:
        """What stands here in a null row (SQL on FHIR v2: only `%rowIndex` has a value there)."""
        if isinstance(self.node.value, RowIndex):
            return _cast(Literal(0), self.node)
        return SQL("NULL::{}").format(SQL(self.node.sql_type))


@dataclass(frozen=True)
class _Rows:
    """What a selection adds to a query: cells, FROM items to the right of what is there, ordinals (bigint) to order by."""

    cells: tuple[_Cell, ...] = ()
    joins: tuple[Composable, ...] = ()
    order: tuple[Composable, ...] = ()

    def __add__(self, other: _Rows) -> _Rows:
        return _Rows(self.cells + other.cells, self.joins + other.joins, self.order + other.order)


class _Writer:
    def __init__(self) -> None:
        self._numbers = count(1)

    def query(self, view: View, source: Composable) -> Composable:
        body = SQL("s.body")
        inside = Place(body, body, SQL("s.connection"), SQL("0"), "where")
        conditions = [SQL("s.body ->> 'resourceType' = {}").format(Literal(view.resource))]
        conditions += [SQL("({}) IS TRUE").format(condition(node, inside)) for node in view.where]
        place = Place(SQL("r.body"), SQL("r.body"), SQL("r.connection"), SQL("0"), "")
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
            _cells_and_order([_Cell(cell.node, cell.null) for cell in inner.cells], (), len(order)), each
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
            _cells_and_order([_Cell(cell.node, cell.null) for cell in inner.cells], (), len(inner.order)),
            one,
            item,
            focus,
        )
        return self._subquery((some, none), inner.cells, len(inner.order))

    def _contents(self, selection: Selection, place: Place) -> _Rows:
        rows = _Rows(tuple(_Cell(node, _value(node, place)) for node in selection.columns))
        for nested in selection.select:
            rows += self._selection(nested, place)
        return rows + self._union(selection.union, place) if selection.union else rows

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
        outer = tuple(_Cell(cell.node, SQL("{}.{}").format(name, Identifier(cell.node.name))) for cell in cells)
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
    return _Cell(cell.node, value)


def _is_path_from_focus(node: Expression) -> bool:
    while isinstance(node, (Child, At)):
        node = node.of
    return isinstance(node, Focus)


def _value(node: ColumnNode, place: Place) -> Composable:
    place = replace(place, label=f"column {node.name}")
    if node.collection:
        return array_of(node.value, place)
    if node.sql_type == "text":
        return text_of(node.value, place)
    if category(node.value.type) == "boolean":
        return condition(node.value, place)
    if category(node.value.type) == "number":
        return _cast(number_of(node.value, place), node)
    return _cast(json_of(node.value, place) if isinstance(node.value, RowIndex) else present(node.value, place), node)


def _cast(value: Composable, node: ColumnNode) -> Composable:
    return SQL("({})::{}").format(value, SQL(node.sql_type))
