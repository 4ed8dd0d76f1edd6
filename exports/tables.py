"""Writes the table of one view or query into a file of its format, counts what did not fit, and describes its columns.

A value that does not fit is an empty cell, or the end of a strict export. How a format writes rows is left to `formats`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from exports.compiler import CompiledView
from exports.delivery.files import AtomicFile, DeliveredFile
from exports.formats.csv_dialect import DIALECTS
from exports.formats.csv_table import csv_rows, data_error, is_data_error, odd_criterion, odd_value
from exports.formats.data_package import DescribedTable
from exports.formats.table_columns import TableColumn, table_columns, with_written_numbers
from exports.formats.table_file import TableBytes, open_table
from exports.formats.written_forms import can_ask_postgres
from exports.plan import PlannedFile
from exports.queries.run import QueryRows
from exports.queries.statement import Statement
from exports.snapshot_port import Snapshot
from snapshots.errors import StoreQueryError

Show = Callable[[int, int, bool], None]  # rows and uncompressed bytes so far, and whether that is all


async def fill_table(
    part: AtomicFile,
    planned: PlannedFile,
    views: Sequence[CompiledView],
    snapshot: Snapshot,
    show: Show,
    *,
    strict: bool,
) -> DeliveredFile:
    """Write the rows of a view, which was compiled for each source of the snapshot.

    Raises:
        ViewDataError: it is strict, and a value does not fit; or Postgres says that one does not.
    """
    view = views[0]
    chunks = csv_rows(snapshot, views, asks=await can_ask_postgres(snapshot))
    try:
        with open_table(planned.kind, planned.dialect, columns_of(planned, view), part.write) as table:
            async for chunk in chunks:
                if strict and chunks.left_empty:
                    raise odd_value(view, next(iter(chunks.left_empty)))
                table.add(chunk)
                show(chunks.rows, part.uncompressed_bytes, False)
            table.close()
        undecided = sum([(await snapshot.fetch(one.undecided))[0][0] for one in views if one.undecided is not None])
    except StoreQueryError as error:
        if not is_data_error(error):
            raise
        raise data_error(view.name, error) from None  # the cause may quote a resource
    if strict and undecided:
        raise odd_criterion(view, undecided)
    delivered = part.seal(kind=planned.kind, rows=chunks.rows)
    show(chunks.rows, part.uncompressed_bytes, True)
    in_order = {
        column.name: chunks.left_empty[column.name] for column in view.columns if column.name in chunks.left_empty
    }
    return replace(delivered, left_empty=in_order or None, left_out=undecided or None)


async def fill_query(
    part: AtomicFile, planned: PlannedFile, statement: Statement, snapshot: Snapshot, show: Show
) -> DeliveredFile:
    """Write the rows of a query.

    Raises:
        QueryError, ViewDataError: Postgres says that it is wrong, or that a value does not fit what it does with it.
    """
    rows = QueryRows(statement, snapshot)
    async for chunk in TableBytes(rows, planned.kind, planned.dialect, statement.columns):
        part.write(chunk)
        show(rows.rows, part.uncompressed_bytes, False)
    delivered = part.seal(kind=planned.kind, rows=rows.rows)
    show(rows.rows, part.uncompressed_bytes, True)
    return delivered


def columns_of(planned: PlannedFile, view: CompiledView) -> tuple[TableColumn, ...]:
    """What the definition says of the view's columns."""
    return table_columns(view.columns, planned.view.definition if planned.view is not None else {})


def described(planned: PlannedFile, columns: Sequence[TableColumn]) -> DescribedTable:
    """What is to be said of the table beside it."""
    definition = planned.view.definition if planned.view is not None else {"name": planned.query}
    if planned.kind == "csv":
        missing = (DIALECTS[planned.dialect].null.decode(),)
        return DescribedTable(planned.name, planned.kind, definition, tuple(columns), missing)
    return DescribedTable(planned.name, planned.kind, definition, with_written_numbers(columns))
