"""The typed tree of a view to one Postgres query.

A selection becomes LATERAL joins: an iteration a set-returning call, a union one lateral UNION ALL, `forEachOrNull` a left join
or, where more hangs below it, a union with its null row. Each adds its ordinal to the ORDER BY, so that equal data gives rows in
equal order. How an iteration finds its items is left to `iteration_sql`, a column its value to `cell_sql`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import Any

from psycopg.sql import Composable

from exports.compiler import boundary_sql, text_sql  # noqa: F401 - they register what they write
from exports.compiler.ansi_type import as_ansi
from exports.compiler.cell_sql import cell, is_looked_up
from exports.compiler.fragments import SQL, Fragment, Identifier, Literal, read, written
from exports.compiler.iteration_sql import each_item, items_of_each, undecided_iterations
from exports.compiler.scalar_sql import Odd
from exports.compiler.typed_tree import RowIndex
from exports.compiler.value_sql import Environment, Stage, bound, truth
from exports.compiler.view_definition import ColumnNode, Selection, View, parse_view
from exports.errors import ViewError
from snapshots.identifying import SealedElements


@dataclass(frozen=True)
class Source:
    """What a view reads: `rows`, a FROM item with columns (connection text, id text, body jsonb).

    `of_type`: every row is of the view's resource type. `one_connection`: every row is of the same connection, so that rows in
    the order of their ids are in order. `divisible`: it can be read by stretches of ids, in any session of a snapshot.
    """

    rows: Composable
    of_type: bool = False
    one_connection: bool = False
    divisible: bool = False


@dataclass(frozen=True)
class Column:
    """One column of the result.

    `type`: its FHIR type; `collection`: a JSON array of such; `ansi`: the Postgres type that its tag `ansi/type` asks for;
    `sealed`: its values may be encrypted, and are not yet checked against the type.
    """

    name: str
    type: str
    collection: bool
    ansi: str | None = None
    sealed: bool = False


@dataclass(frozen=True)
class CompiledView:
    """A view as one query, whose rows come in a fixed order: connection, id, then the order of the iterations.

    `undecided` counts the resources of which `where`, or a criterion of an iteration, could not say whether they belong in the
    view; None where no data can bring that about. `notes` say what R4 does not have, where the view is
    for R4 by its `fhirVersion`.
    """

    name: str
    resource: str
    columns: tuple[Column, ...]
    query: Composable
    undecided: Composable | None
    notes: tuple[str, ...] = ()
    of_r4: bool = True
    divisible: bool = False  # any stretch of ids can be read by itself, in any session of the snapshot


def compile_view(
    definition: Mapping[str, Any],
    source: Composable | Source,
    *,
    marked: bool = False,
    as_of: datetime | None = None,
    sealed: SealedElements | None = None,
    shows: bool = False,
) -> CompiledView:
    """Compile a ViewDefinition against a source, which may hold other resource types too.

    On data that does not fit (two values for a column that holds one, a value of another type) the query raises, as SQL on FHIR
    v2 wants it. `marked`: it does not; such a cell holds `scalar_sql.MARK`, every column is text, and what `where` cannot decide
    is left out. `as_of` is what `now()` and `today()` give. `sealed`: what is encrypted in the store; `shows`:
    who reads the rows decrypts the columns that are `sealed`.

    Raises:
        ViewError: the definition is wrong or needs what is not supported; says where, and what is allowed.
    """
    read = source if isinstance(source, Source) else Source(source)
    try:
        view = parse_view(definition, as_of=as_of, sealed=sealed, shows=shows)
        writer = _Writer(marked=marked)
        query, undecided = writer.query(view, read), writer.undecided(view, read)
    except RecursionError:
        raise ViewError(str(definition.get("name", "(unnamed)")), "", "the view is nested too deeply") from None
    columns = tuple(
        Column(node.name, node.type, node.collection, node.ansi.sql if node.ansi else None, node.sealed)
        for node in view.select.all_columns()
    )
    doubtful = None if undecided is None else written(undecided)
    of = (view.notes, view.of_r4, read.divisible and _is_along_key(view, read))
    return CompiledView(view.name, view.resource, columns, written(query), doubtful, *of)


def compile_criterion(
    definition: Mapping[str, Any], *, as_of: datetime, sealed: SealedElements | None = None
) -> Composable:
    """Compile the `where` of a ViewDefinition to a condition on a row `r` of the store, with (connection, id, body).

    Of a resource for which one of its expressions is no boolean, the condition is false or null.

    Raises:
        ViewError: as `compile_view`.
    """
    view = parse_view(definition, as_of=as_of, sealed=sealed)
    return written(SQL("({})").format(SQL(" AND ").join(_Writer(marked=True).criteria(view, "r", of_store=True))))


@dataclass(frozen=True)
class _Cell:
    node: ColumnNode
    value: Fragment
    sql_type: str

    @property
    def null(self) -> Fragment:
        """What stands here in a null row (SQL on FHIR v2: only `%rowIndex` has a value there)."""
        zero = SQL("'[0]'" if self.node.collection else "'0'")
        return SQL("{}::{}").format(zero if isinstance(self.node.value, RowIndex) else SQL("NULL"), SQL(self.sql_type))


@dataclass(frozen=True)
class _Rows:
    """What a selection adds to a query: cells, FROM items to the right of what is there, ordinals (bigint) to order by."""

    cells: tuple[_Cell, ...] = ()
    joins: tuple[Fragment, ...] = ()
    order: tuple[Fragment, ...] = ()

    def __add__(self, other: _Rows) -> _Rows:
        return _Rows(self.cells + other.cells, self.joins + other.joins, self.order + other.order)


class _Writer:
    def __init__(self, *, marked: bool) -> None:
        self._numbers = count(1)
        self._marked = marked

    def query(self, view: View, source: Source) -> Fragment:
        conditions = self.criteria(view, "s")
        alias = Identifier("r")
        stage = Stage(alias, self._numbers)
        environment = replace(self._place("r", "an iteration"), stage=stage, lenient=self._marked)
        rows = self._selection(view.select, environment)
        keys = ("id",) if source.one_connection else ("connection", "id")
        order = (*[SQL('r.{} COLLATE "C"').format(Identifier(key)) for key in keys], *rows.order)
        along_key = _is_along_key(view, source)
        # OFFSET 0 keeps Postgres from running an iteration on resources of another type, or on those that `where` leaves out.
        # `|| {}` changes nothing, but unpacks a large (toasted) body once and not for each column: 3x faster from 16 kB a body
        resources = SQL(
            "(SELECT s.connection, s.id, s.body || '{{}}'::jsonb AS body FROM {source} AS s{where}{order} OFFSET 0) AS r"
        ).format(
            source=_of_resource(view, source),
            where=SQL(" WHERE {}").format(SQL(" AND ").join(conditions)) if conditions else SQL(""),
            order=SQL(' ORDER BY s.id COLLATE "C"') if along_key else SQL(""),
        )
        in_order = SQL(' ORDER BY r.id COLLATE "C"') if along_key else SQL("")
        return SQL("SELECT {cells} FROM {resources}{joins} ORDER BY {order}").format(
            cells=_listed(SQL("{} AS {}").format(cell.value, Identifier(cell.node.name)) for cell in rows.cells),
            resources=stage.around(resources, in_order),
            joins=SQL("").join(rows.joins),
            order=_listed(order),
        )

    def criteria(self, view: View, row: str, *, of_store: bool = False) -> list[Fragment]:
        """The conditions of `where` on a row, whose connection is a name, or in the store a number."""
        environment = self._place(row, "where")
        if of_store:
            name = SQL("(SELECT n.name FROM connection n WHERE n.id = {})").format(environment.connection)
            environment = replace(environment, connection=name)
        conditions = []
        for node in view.where:
            found = truth(node, environment, strict=True)
            # of an equality Postgres expects few rows, of a function a third: few are worth a scan by several workers
            template = "({})::integer = 1" if found.kind == "boolean" else "({}) = 'true'"
            conditions.append(SQL(template).format(found.sql))
        return conditions

    def undecided(self, view: View, source: Source) -> Fragment | None:
        environment = replace(self._place("s", "where"), odd=Odd(None, "where", "boolean"))
        criteria = [truth(node, environment, strict=True) for node in view.where]
        doubts = [SQL("({}) IS NULL").format(one.sql) for one in criteria if not one.safe]
        doubts += undecided_iterations(view.select, environment)
        if not doubts:
            return None
        # a criterion that is not met decides, whatever another would have said
        met = {"boolean": SQL("({}) IS TRUE AND "), "item": SQL("(({}) = 'true') IS NOT FALSE AND ")}
        return SQL("SELECT count(*) FROM {} AS s WHERE {}({})").format(
            _of_resource(view, source),
            SQL("").join([met[one.kind].format(one.sql) for one in criteria]),
            SQL(" OR ").join(doubts),
        )

    def _place(self, row: str, label: str) -> Environment:
        name = Identifier(row)
        body = SQL("{}.body").format(name)
        odd = Odd(None if self._marked else body, label, "boolean")
        key, connection = SQL("{}.id").format(name), SQL("{}.connection").format(name)
        return Environment(body, body, key, connection, SQL("0"), odd, self._numbers)

    def _selection(self, selection: Selection, environment: Environment) -> _Rows:
        if not selection.iterates:
            return self._contents(selection, environment)
        item = Identifier(f"e{next(self._numbers)}")
        stage = Stage(item, self._numbers)
        focus, ordinal = SQL("{}.v").format(item), SQL("{}.o").format(item)
        inside = replace(environment, focus=focus, row_index=SQL("({} - 1)").format(ordinal), stage=stage)
        inner = self._contents(selection, inside)
        order = (ordinal, *inner.order)
        if selection.or_null and inner.joins:
            array = Identifier(f"s{next(self._numbers)}")
            rows = SQL("jsonb_array_elements({}.a) WITH ORDINALITY AS {}(v, o)").format(array, item)
            found = SQL("(SELECT {} AS a OFFSET 0) AS {}").format(items_of_each(selection, environment), array)
            return self._with_null_row(array, found, stage.around(rows), replace(inner, order=order))
        each = stage.around(each_item(selection, environment, item))
        if not selection.or_null:
            return _Rows(inner.cells, (SQL(" CROSS JOIN LATERAL {}").format(each), *inner.joins), order)
        cells = tuple(_null_with(cell, inside) for cell in inner.cells)
        return _Rows(cells, (SQL(" LEFT JOIN LATERAL {} ON true").format(each),), order)

    def _with_null_row(self, array: Fragment, found: Fragment, each: Fragment, inner: _Rows) -> _Rows:
        """Rows of `each` item of the array, and where it has none the null row, which joins further inside must not lose."""
        width = len(inner.order)
        some = SQL("SELECT {} FROM {}{}").format(
            _cells_and_order(inner.cells, inner.order, width), each, SQL("").join(inner.joins)
        )
        nulls = [replace(cell, value=cell.null) for cell in inner.cells]
        none = SQL("SELECT {} WHERE ({}.a = '[]') IS NOT FALSE").format(_cells_and_order(nulls, (), width), array)
        rows = self._subquery((some, none), inner.cells, width)
        return _Rows(rows.cells, (SQL(" CROSS JOIN LATERAL {}").format(found), *rows.joins), rows.order)

    def _contents(self, selection: Selection, environment: Environment) -> _Rows:
        rows = _Rows(tuple(self._cell(node, environment) for node in selection.columns))
        for nested in selection.select:
            rows += self._selection(nested, environment)
        return rows + self._union(selection.union, environment) if selection.union else rows

    def _cell(self, node: ColumnNode, environment: Environment) -> _Cell:
        odd = Odd(
            None if self._marked else environment.resource,
            f"column {node.name}",
            "string" if node.sealed else node.type,
        )
        within = replace(environment, odd=odd, lenient=False)
        kind = "text" if self._marked else node.sql_type
        value = cell(node.value, within, collection=node.collection)
        if node.ansi is not None:
            wanted = node.ansi
            value = bound(within, [value], lambda found: as_ansi(found, wanted, odd))
        return _Cell(node, value, kind)

    def _union(self, branches: Sequence[Selection], environment: Environment) -> _Rows:
        parts = [self._selection(branch, environment) for branch in branches]
        width = 1 + max(len(part.order) for part in parts)
        queries = []
        for number, part in enumerate(parts):
            listed = _cells_and_order(part.cells, (SQL("{}").format(Literal(number)), *part.order), width)
            # a one-row FROM, so that every join of the branch has something to its left
            queries.append(SQL("SELECT {} FROM (SELECT) AS one{}").format(listed, SQL("").join(part.joins)))
        return self._subquery(queries, parts[0].cells, width)

    def _subquery(self, queries: Sequence[Fragment], cells: Sequence[_Cell], width: int) -> _Rows:
        name = Identifier(f"u{next(self._numbers)}")
        join = SQL(" CROSS JOIN LATERAL ({}) AS {}").format(SQL(" UNION ALL ").join(queries), name)
        outer = tuple(replace(cell, value=SQL("{}.{}").format(name, Identifier(cell.node.name))) for cell in cells)
        return _Rows(outer, (join,), tuple(SQL("{}.{}").format(name, _order_name(at)) for at in range(width)))


def _is_along_key(view: View, source: Source) -> bool:
    """Along the key nothing is sorted; where few resources are left, to sort these is less than to read all in order."""
    return source.one_connection and not view.where


def _listed(items: Iterable[Fragment]) -> Fragment:
    return SQL(", ").join(tuple(items))


def _order_name(at: int) -> Fragment:
    return Identifier(f"#{at}")  # no column can have this name


def _cells_and_order(cells: Sequence[_Cell], order: Sequence[Fragment], width: int) -> Fragment:
    items = [SQL("{} AS {}").format(cell.value, Identifier(cell.node.name)) for cell in cells]
    for at in range(width):
        ordinal = order[at] if at < len(order) else SQL("NULL")
        items.append(SQL("{}::bigint AS {}").format(ordinal, _order_name(at)))
    return _listed(items)


def _null_with(found: _Cell, environment: Environment) -> _Cell:
    """The cell in a left join: null where the item is, whatever its expression gives on nothing."""
    if is_looked_up(found.node.value, environment) and not found.node.collection and found.node.ansi is None:
        return found
    value = SQL("CASE WHEN {} IS NOT NULL THEN {} ELSE {} END").format(environment.focus, found.value, found.null)
    return replace(found, value=value)


def _of_resource(view: View, source: Source) -> Fragment:
    """The rows of the view's type. COALESCE changes nothing, but Postgres then expects half of the rows, and not every 200th."""
    rows = read(source.rows)
    if source.of_type:
        return rows
    return SQL("(SELECT t.* FROM {} AS t WHERE COALESCE(t.body ->> 'resourceType' = {}, false) OFFSET 0)").format(
        rows, Literal(view.resource)
    )
