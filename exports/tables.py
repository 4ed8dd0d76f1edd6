"""The rows of one view or query, written into a file of its format; what did not fit is counted, and the columns are described.

A value that does not fit is an empty cell, or the end of a strict export. How a format writes rows is left to `formats`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from exports.catalogue import LoadedView
from exports.compiler import CompiledView, Source, compile_view
from exports.delivery.outgoing import Outgoing, Parts, Tally
from exports.formats.csv_dialect import DIALECTS, header_row
from exports.formats.csv_table import CsvRows, csv_rows, data_error, is_data_error, odd_criterion, odd_value
from exports.formats.data_package import DescribedTable
from exports.formats.table_columns import TableColumn, table_columns, with_written_numbers
from exports.formats.table_file import open_table
from exports.formats.written_forms import can_ask_postgres
from exports.plan import PlannedFile
from exports.queries.run import QueryRows
from exports.queries.statement import Statement
from exports.snapshot_port import Snapshot
from exports.typed_rows import NOTHING
from snapshots.errors import StoreQueryError

Show = Callable[[int, int, bool], None]  # rows and uncompressed bytes so far, and whether that is all


class ViewRows:
    """The rows of a view, which was compiled for each source of a snapshot, as CSV with a header; read it once.

    At the end `left_out` is how many resources its criteria could not decide about. Reading raises ViewDataError if it is strict,
    and a value does not fit; or if Postgres says that one does not.
    """

    def __init__(self, views: Sequence[CompiledView], snapshot: Snapshot, *, strict: bool) -> None:
        self._views = views
        self._snapshot = snapshot
        self._strict = strict
        self._chunks: CsvRows | None = None
        self.left_out = 0

    @property
    def rows(self) -> int:
        """Rows so far, without the header."""
        return 0 if self._chunks is None else self._chunks.rows

    @property
    def left_empty(self) -> dict[str, int]:
        """By column, in the view's order, the cells so far whose value did not fit."""
        empty = {} if self._chunks is None else self._chunks.left_empty
        return {column.name: empty[column.name] for column in self._views[0].columns if column.name in empty}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        view = self._views[0]
        self._chunks = csv_rows(self._snapshot, self._views, asks=await can_ask_postgres(self._snapshot))
        try:
            async for chunk in self._chunks:
                if self._strict and self._chunks.left_empty:
                    raise odd_value(view, next(iter(self._chunks.left_empty)))
                yield chunk
            criteria = [one.undecided for one in self._views if one.undecided is not None]
            self.left_out = sum([(await self._snapshot.fetch(one))[0][0] for one in criteria])
        except StoreQueryError as error:
            if not is_data_error(error):
                raise
            raise data_error(view.name, error) from None  # the cause may quote a resource
        if self._strict and self.left_out:
            raise odd_criterion(view, self.left_out)


def compiled_over(view: LoadedView, snapshot: Snapshot) -> tuple[CompiledView, ...]:
    """Compile a view for each connection of a snapshot: one after the other they are in order, each along the key.

    Raises:
        ViewError: the view is wrong.
    """
    sources = snapshot.sources(view.resource) or (NOTHING,)
    return tuple(
        compile_view(
            view.definition,
            Source(rows, of_type=True, one_connection=True),
            marked=True,
            as_of=snapshot.as_of,
            sealed=snapshot.sealed,
            shows=snapshot.sealed,
        )
        for rows in sources
    )


async def fill_table(
    files: Outgoing,
    planned: PlannedFile,
    views: Sequence[CompiledView],
    snapshot: Snapshot,
    show: Show,
    *,
    strict: bool,
) -> None:
    """Write the rows of a view, which was compiled for each source of the snapshot.

    Raises:
        ViewDataError: it is strict, and a value does not fit; or Postgres says that one does not.
    """
    rows = ViewRows(views, snapshot, strict=strict)
    with _parts(files, planned, columns_of(planned, views[0])) as parts:
        async for chunk in rows:
            parts.add(chunk, lambda: Tally(rows.rows, rows.left_empty))
            show(rows.rows, parts.uncompressed_bytes, False)
        parts.close(Tally(rows.rows, rows.left_empty), left_out=rows.left_out or None)
    show(rows.rows, parts.uncompressed_bytes, True)


async def fill_query(
    files: Outgoing, planned: PlannedFile, statement: Statement, snapshot: Snapshot, show: Show
) -> None:
    """Write the rows of a query.

    Raises:
        QueryError, ViewDataError: Postgres says that it is wrong, or that a value does not fit what it does with it.
    """
    rows = QueryRows(statement, snapshot)
    with _parts(files, planned, statement.columns) as parts:
        async for chunk in rows:
            parts.add(chunk, lambda: Tally(rows.rows))
            show(rows.rows, parts.uncompressed_bytes, False)
        parts.close(Tally(rows.rows))
    show(rows.rows, parts.uncompressed_bytes, True)


def _parts(files: Outgoing, planned: PlannedFile, columns: Sequence[TableColumn]) -> Parts:
    return Parts(
        files,
        planned.name,
        kind=planned.kind,
        compress=planned.compress,
        open_=partial(open_table, planned.kind, planned.dialect, columns),
        header_of=header_row,
    )


def columns_of(planned: PlannedFile, view: CompiledView) -> tuple[TableColumn, ...]:
    """What the definition says of the view's columns."""
    return table_columns(view.columns, planned.view.definition if planned.view is not None else {})


def described(planned: PlannedFile, columns: Sequence[TableColumn]) -> DescribedTable:
    """What is to be said of the table beside it."""
    definition = planned.view.definition if planned.view is not None else {"name": planned.query}
    if planned.kind == "csv":
        missing = (DIALECTS[planned.dialect].null.decode(),)
        return DescribedTable((planned.name,), planned.kind, definition, tuple(columns), missing)
    return DescribedTable((planned.name,), planned.kind, definition, with_written_numbers(columns))
