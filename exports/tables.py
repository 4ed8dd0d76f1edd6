"""Writes the rows of views and queries into files of their formats, counts what did not fit, and describes the columns.

A value that does not fit is an empty cell, or ends a strict export. `formats` writes the rows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from exports.catalogue import LoadedView
from exports.compiler import ANY_ROWS, CompiledView, Source, compile_view
from exports.delivery.files import TableCounts
from exports.delivery.outgoing import Outgoing, Parts, Tally
from exports.errors import PlanError
from exports.formats.csv_dialect import DIALECTS, header_row
from exports.formats.csv_table import CsvRows, csv_rows, data_error, is_data_error, odd_criterion, odd_value
from exports.formats.data_package import DescribedTable
from exports.formats.file_formats import FILE_FORMATS, TYPED
from exports.formats.table_columns import TableColumn, table_columns, with_written_numbers
from exports.formats.table_file import open_table
from exports.formats.written_forms import can_ask_postgres
from exports.plan import PlannedFile, names_alike
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


def compiled_over(view: LoadedView, snapshot: Snapshot, *, documents: bool = False) -> tuple[CompiledView, ...]:
    """Compile a view, and write it for each connection of a snapshot: one after the other they are in order, each along the key.

    `documents`: of what has changed it has the rows that a view has which reads documents, even if it reads none.

    Raises:
        ViewError: the view is wrong.
    """
    reads_documents = documents or view.reads_documents
    sources = snapshot.sources(view.resource, documents=reads_documents, divisible=view.is_whole) or (NOTHING,)
    compiled = compile_view(
        view.definition,
        Source(ANY_ROWS, of_type=True, one_connection=True, divisible=view.is_whole),
        marked=True,
        as_of=snapshot.as_of,
        sealed=snapshot.sealed,
        shows=snapshot.sealed is not None,
    )
    return tuple(compiled.over(rows) for rows in sources)


class TableRows(Protocol):
    """The rows of a table as CSV with a header; `ViewRows` says what is counted."""

    @property
    def rows(self) -> int:
        """Rows so far, without the header."""

    @property
    def left_empty(self) -> Mapping[str, int]:
        """By column, the cells so far whose value did not fit."""

    @property
    def left_out(self) -> int:
        """At the end, the resources about which the criteria could not decide."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks of whole rows."""


@dataclass(frozen=True)
class Table:
    """A table as it is to be written: its view's definition, or its query's name; its columns; and its rows in a snapshot."""

    definition: Mapping[str, Any]
    columns: tuple[TableColumn, ...]
    rows: Callable[[Snapshot], TableRows]


def view_table(view: LoadedView, compiled: Sequence[CompiledView], *, strict: bool) -> Table:
    """Return the table of a view, which was compiled for each source of the snapshot."""
    columns = table_columns(compiled[0].columns, view.definition)
    return Table(view.definition, columns, lambda snapshot: ViewRows(compiled, snapshot, strict=strict))


def query_table(statement: Statement) -> Table:
    """Return the table of a query."""
    return Table({"name": statement.name}, statement.columns, lambda snapshot: QueryRows(statement, snapshot))


async def fill_table(files: Outgoing, planned: PlannedFile, table: Table, snapshot: Snapshot, show: Show) -> None:
    """Write a file that has one table.

    Raises:
        ViewDataError: it is strict, and a value does not fit; or Postgres says that one does not.
        QueryError: Postgres says that a query is wrong.
    """
    rows = table.rows(snapshot)
    with Parts(
        files,
        planned.name,
        kind=planned.kind,
        compress=planned.compress,
        open_=partial(open_table, planned.kind, planned.dialect, table.columns),
        header_of=header_row,
    ) as parts:
        async for chunk in rows:
            parts.add(chunk, lambda: Tally(rows.rows, rows.left_empty))
            show(rows.rows, parts.uncompressed_bytes, False)
        parts.close(Tally(rows.rows, rows.left_empty), left_out=rows.left_out or None)
    show(rows.rows, parts.uncompressed_bytes, True)


async def fill_database(
    files: Outgoing, planned: PlannedFile, tables: Mapping[str, Table], snapshot: Snapshot, show: Show
) -> None:
    """Write a file that has all tables, one after the other. Raises what `fill_table` does."""
    from exports.formats.duckdb_file import DuckdbFile

    part = files.begin(planned.name, planned.compress)
    counts: dict[str, TableCounts] = {}
    before = 0
    with files.room() as room, DuckdbFile(room) as database:
        for name, table in tables.items():
            rows = table.rows(snapshot)
            with database.table(name, table.columns) as writer:
                async for chunk in rows:
                    writer.add(chunk)
                    show(before + rows.rows, database.bytes, False)
                writer.close()
            counts[name] = TableCounts(rows.rows, rows.left_empty or None, rows.left_out or None)
            before += rows.rows
        database.close()
        part.write_all(database.path)
    sealed = part.seal(kind=planned.kind, rows=before)
    files.add(planned.name, part, replace(sealed, tables=counts))
    show(before, sealed.uncompressed_bytes, True)


def described(planned: PlannedFile, table: Table) -> DescribedTable:
    """What describes a table beside its file.

    Raises:
        PlanError: its format does not distinguish two of its columns.
    """
    paths, kind = (planned.name,), planned.kind
    if kind not in TYPED:
        missing = (DIALECTS[planned.dialect].null.decode(),)
        return DescribedTable(paths, kind, table.definition, table.columns, missing)
    columns = with_written_numbers(table.columns)
    format_ = FILE_FORMATS[kind]
    if format_.database and (twice := names_alike([one.name for one in columns])):
        raise PlanError(
            f"{format_.label} does not distinguish upper and lower case: {table.definition['name']} would have two columns named "
            f"{', '.join(twice)}; rename one of them"
        )
    return DescribedTable(paths, kind, table.definition, columns)
