"""Turns the typed tree of a view into one Postgres query.

A selection becomes LATERAL joins: an iteration is a set-returning call, a union one lateral UNION ALL, `forEachOrNull` a left
join or, if more hangs below it, a union with its null row. Each adds its ordinal to the ORDER BY, so that equal data give rows in
equal order. `iteration_sql` finds the items of an iteration, `cell_sql` writes the value of a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import Any

from psycopg.sql import Composable

from exports.compiler import boundary_sql, text_sql  # noqa: F401 - they register what they write
from exports.compiler.ansi_type import as_ansi
from exports.compiler.cell_sql import cell
from exports.compiler.fragments import SQL, Fragment, Identifier, Literal, read, written
from exports.compiler.iteration_sql import any_item, each_item, items_of_each, one_at_most, undecided_iterations
from exports.compiler.rows_sql import (
    Cell,
    Rows,
    cells_and_order,
    is_own,
    listed,
    null_with,
    order_name,
    own_name,
)
from exports.compiler.scalar_sql import Odd
from exports.compiler.typed_tree import Exists, Iif
from exports.compiler.value_sql import Environment, Stage, bound, truth
from exports.compiler.view_definition import parse_view
from exports.compiler.view_tree import ColumnNode, Selection, View
from exports.errors import ViewError
from snapshots.identifying import SealedElements

# stands for a source's rows until `CompiledView.over` names them; no view can contain this character
ANY_ROWS = written(SQL("\0"))


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
    `sealed`: its values may be encrypted, and are not yet checked against the type. `choice`: the name of the column whose value
    it takes where that is there, as `effective_at` that of `effective_datetime`.
    """

    name: str
    type: str
    collection: bool
    ansi: str | None = None
    sealed: bool = False
    choice: str | None = None


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

    def over(self, rows: Composable) -> CompiledView:
        """The view over these rows, if it was compiled over ANY_ROWS: much faster than compiling it for each connection."""
        undecided = None if self.undecided is None else _over(self.undecided, rows)
        return replace(self, query=_over(self.query, rows), undecided=undecided)


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
    nodes = view.select.all_columns()
    columns = tuple(
        Column(one.name, one.type, one.collection, one.ansi.sql if one.ansi else None, one.sealed, _choice(one, nodes))
        for one in nodes
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


def _over(query: Composable, rows: Composable) -> Composable:
    return written(read(rows).join(map(Fragment, read(query).split(read(ANY_ROWS)))))


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
            cells=listed(SQL("{} AS {}").format(cell.value, Identifier(cell.node.name)) for cell in rows.cells),
            resources=stage.around(resources, in_order),
            joins=SQL("").join(rows.joins),
            order=listed(order),
        )

    def criteria(self, view: View, row: str, *, of_store: bool = False) -> list[Fragment]:
        """The conditions of `where` on a row, whose connection is given as a name, or in the store as a number."""
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
        # a criterion that is not met decides, whatever others give
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

    def _selection(self, selection: Selection, environment: Environment) -> Rows:
        if not selection.iterates:
            return self._contents(selection, environment)
        if (beside := self._beside(selection, environment)) is not None:
            return beside
        item = environment.name("e")
        stage = Stage(item, environment.numbers)
        focus, ordinal = SQL("{}.v").format(item), SQL("{}.o").format(item)
        inside = replace(environment, focus=focus, row_index=SQL("({} - 1)").format(ordinal), stage=stage)
        inner = self._contents(selection, inside)
        order = (ordinal, *inner.order)
        if selection.or_null and inner.joins:
            array = environment.name("s")
            rows = SQL("jsonb_array_elements({}.a) WITH ORDINALITY AS {}(v, o)").format(array, item)
            found = SQL("(SELECT {} AS a OFFSET 0) AS {}").format(items_of_each(selection, environment), array)
            return self._with_null_row(environment, array, found, stage.around(rows), replace(inner, order=order))
        each = stage.around(each_item(selection, environment, item))
        if not selection.or_null:
            return Rows(inner.cells, (SQL(" CROSS JOIN LATERAL {}").format(each), *inner.joins), order)
        cells = tuple(null_with(cell, inside) for cell in inner.cells)
        return Rows(cells, (SQL(" LEFT JOIN LATERAL {} ON true").format(each),), order)

    def _beside(self, selection: Selection, environment: Environment) -> Rows | None:
        """The row of an iteration over at most one item, without a join: its cells stand beside what the item is found in."""
        if not selection.or_null or environment.stage is None or selection.select or selection.union:
            return None
        found = one_at_most(selection, environment)
        if found is None:
            return None
        above = environment.stage.above
        inside = replace(environment, focus=above.column(found), row_index=SQL("0"), stage=above.above)
        return Rows(tuple(null_with(self._cell(node, inside), inside) for node in selection.columns))

    def _with_null_row(
        self, environment: Environment, array: Fragment, found: Fragment, each: Fragment, inner: Rows
    ) -> Rows:
        """Rows of `each` item of the array, or the null row if it has none, so that joins further inside do not lose it."""
        width = len(inner.order)
        some = SQL("SELECT {} FROM {}{}").format(
            cells_and_order(inner.cells, inner.order, width), each, SQL("").join(inner.joins)
        )
        nulls = [replace(cell, value=cell.null) for cell in inner.cells]
        none = SQL("SELECT {} WHERE ({}.a = '[]') IS NOT FALSE").format(cells_and_order(nulls, (), width), array)
        rows = self._subquery(environment, (some, none), inner.cells, width)
        return Rows(rows.cells, (SQL(" CROSS JOIN LATERAL {}").format(found), *rows.joins), rows.order)

    def _contents(self, selection: Selection, environment: Environment) -> Rows:
        rows = Rows(tuple(self._cell(node, environment) for node in selection.columns))
        for nested in selection.select:
            rows += self._selection(nested, environment)
        return rows + self._union(selection.union, environment) if selection.union else rows

    def _cell(self, node: ColumnNode, environment: Environment) -> Cell:
        odd = Odd(
            environment.odd.row,
            f"column {node.name}",
            "string" if node.sealed else node.type,
        )
        within = replace(environment, odd=odd, lenient=False)
        kind = "text" if self._marked else node.sql_type
        value = cell(node.value, within, collection=node.collection)
        if node.ansi is not None:
            wanted = node.ansi
            value = bound(within, [value], lambda found: as_ansi(found, wanted, odd))
        return Cell(node, value, kind)

    def _union(self, branches: Sequence[Selection], environment: Environment) -> Rows:
        return self._alike(branches, environment) or self._unlike(branches, environment)

    def _alike(self, branches: Sequence[Selection], environment: Environment) -> Rows | None:
        """Rows of branches that do the same with what they stand on, as with an observation and with its components; else None.

        What they stand on is put together, and all else is done with that, once in the query. Within a union Postgres begins each
        computation again for each row of the resource: for the view of observations that took 1.3 times the CPU.
        """
        # of unions within unions each would be tried twice: the time to compile them would double with each
        if len(branches) == 1 or any(branch.or_null or _has_union(branch) for branch in branches):
            return None
        number = next(environment.numbers)
        item = Identifier(f"h{number}")
        written = [self._on_item(branch, environment, item, number) for branch in branches]
        rows, stage, last = written[0]
        forms = {
            (one.joins, one.order, *((cell.node.name, cell.value) for cell in one.cells), at.around(item))
            for one, at, _ in written
        }
        if len(forms) > 1:
            return None
        while next(environment.numbers) < last:
            continue
        bases = [self._base(at, branch, environment) for at, branch in enumerate(branches)]
        union = SQL("({}) AS {}").format(SQL(" UNION ALL ").join([base for base, _ in bases]), item)
        own = [replace(cell, value=SQL("{}.{}").format(item, own_name(at))) for at, cell in enumerate(bases[0][1])]
        by_name = {cell.node.name: cell for cell in (*own, *rows.cells)}
        cells = tuple(by_name[node.name] for node in branches[0].all_columns())
        order = (SQL("{}.b").format(item), SQL("{}.o").format(item), *rows.order)
        return Rows(cells, (SQL(" CROSS JOIN LATERAL {}").format(stage.around(union)), *rows.joins), order)

    def _on_item(
        self, branch: Selection, environment: Environment, item: Fragment, number: int
    ) -> tuple[Rows, Stage, int]:
        """What a branch does with its focus, there `item`; with numbers of its own, so that the same is written the same."""
        numbers = count(number + 1)
        stage, focus = Stage(item, numbers), SQL("{}.v").format(item)
        stays = environment.focus == environment.resource and not branch.iterates
        inside = replace(
            environment,
            focus=focus,
            resource=focus if stays else environment.resource,
            row_index=SQL("({}.o - 1)").format(item) if branch.iterates else environment.row_index,
            stage=stage,
            numbers=numbers,
        )
        others = tuple(node for node in branch.columns if not is_own(node))
        rows = self._contents(replace(branch, columns=others), inside)
        return rows, stage, next(numbers)

    def _base(self, at: int, branch: Selection, environment: Environment) -> tuple[Fragment, list[Cell]]:
        """What a branch stands on: v, o (its ordinal), b (that of the branch); and the columns that do not depend on it."""
        focus, ordinal, rows = environment.focus, SQL("NULL::bigint"), SQL("")
        if branch.iterates:
            item = environment.name("e")
            focus, ordinal = SQL("{}.v").format(item), SQL("{}.o").format(item)
            there = any_item(branch, environment) or SQL("true")
            rows = SQL(" FROM {} WHERE {}").format(each_item(branch, environment, item), there)
            environment = replace(environment, row_index=SQL("({} - 1)").format(ordinal), stage=None)
        own = [self._cell(node, environment) for node in branch.columns if is_own(node)]
        cells = [SQL(", {} AS {}").format(cell.value, own_name(number)) for number, cell in enumerate(own)]
        base = SQL("SELECT {} AS v, {} AS o, {} AS b{}{}").format(
            focus, ordinal, Literal(at), SQL("").join(cells), rows
        )
        return base, own

    def _unlike(self, branches: Sequence[Selection], environment: Environment) -> Rows:
        parts = [self._selection(branch, environment) for branch in branches]
        width = 1 + max(len(part.order) for part in parts)
        queries = []
        for number, part in enumerate(parts):
            cells = cells_and_order(part.cells, (Literal(number), *part.order), width)
            # a one-row FROM, so that every join of the branch has something to its left
            queries.append(SQL("SELECT {} FROM (SELECT) AS one{}").format(cells, SQL("").join(part.joins)))
        return self._subquery(environment, queries, parts[0].cells, width)

    def _subquery(
        self, environment: Environment, queries: Sequence[Fragment], cells: Sequence[Cell], width: int
    ) -> Rows:
        name = environment.name("u")
        join = SQL(" CROSS JOIN LATERAL ({}) AS {}").format(SQL(" UNION ALL ").join(queries), name)
        outer = tuple(replace(cell, value=SQL("{}.{}").format(name, Identifier(cell.node.name))) for cell in cells)
        return Rows(outer, (join,), tuple(SQL("{}.{}").format(name, order_name(at)) for at in range(width)))


def _has_union(selection: Selection) -> bool:
    return bool(selection.union) or any(map(_has_union, selection.select))


def _is_along_key(view: View, source: Source) -> bool:
    """Whether rows can be read in the order of the key, without sorting.

    If few are left, sorting those costs less than reading all in order.
    """
    return source.one_connection and not view.where


def _choice(node: ColumnNode, others: Sequence[ColumnNode]) -> str | None:
    """The column of what `iif(x.exists(), x, …)` takes first."""
    match node.value:
        case Iif(criterion=Exists(of=of, negated=False), then=then) if of == then:
            return next((other.name for other in others if other.value == of and not other.collection), None)
    return None


def _of_resource(view: View, source: Source) -> Fragment:
    """The rows of the view's type. COALESCE changes nothing, but Postgres then expects half of the rows, and not every 200th."""
    rows = read(source.rows)
    if source.of_type:
        return rows
    return SQL("(SELECT t.* FROM {} AS t WHERE COALESCE(t.body ->> 'resourceType' = {}, false) OFFSET 0)").format(
        rows, Literal(view.resource)
    )
