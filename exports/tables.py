"""Writes the table of one view or query into a file of its format, counts what did not fit, and describes its columns.

A value that does not fit is an empty cell, or the end of a strict export. How a format writes rows is left to `formats`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from exports.compiler import CompiledView
from exports.delivery.outgoing import Outgoing, Parts, Tally
from exports.formats.csv_dialect import DIALECTS, header_row
from exports.formats.csv_table import csv_rows, data_error, is_data_error, odd_criterion, odd_value
from exports.formats.data_package import DescribedTable
from exports.formats.table_columns import TableColumn, table_columns, with_written_numbers
from exports.formats.table_file import open_table
from exports.formats.written_forms import can_ask_postgres
from exports.plan import PlannedFile
from exports.queries.run import QueryRows
from exports.queries.statement import Statement
from exports.snapshot_port import Snapshot
from snapshots.errors import StoreQueryError

Show = Callable[[int, int, bool], None]  # rows and uncompressed bytes so far, and whether that is all


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
    view = views[0]
    names = [column.name for column in view.columns]

    def tally() -> Tally:
        empty = chunks.left_empty
        return Tally(chunks.rows, {name: empty[name] for name in names if name in empty})

    chunks = csv_rows(snapshot, views, asks=await can_ask_postgres(snapshot))
    try:
        with _parts(files, planned, columns_of(planned, view)) as parts:
            async for chunk in chunks:
                if strict and chunks.left_empty:
                    raise odd_value(view, next(iter(chunks.left_empty)))
                parts.add(chunk, tally)
                show(chunks.rows, parts.uncompressed_bytes, False)
            undecided = sum([(await snapshot.fetch(one.undecided))[0][0] for one in views if one.undecided is not None])
            if strict and undecided:
                raise odd_criterion(view, undecided)
            parts.close(tally(), left_out=undecided or None)
    except StoreQueryError as error:
        if not is_data_error(error):
            raise
        raise data_error(view.name, error) from None  # the cause may quote a resource
    show(chunks.rows, parts.uncompressed_bytes, True)


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
