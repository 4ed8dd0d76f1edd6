"""CSV: the rows of one view, RFC 4180 with a header; null and values that do not fit are empty fields, lists are JSON text.

Also explains database errors about a view's data: Postgres' own messages may quote a resource, so they are never passed on.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import psycopg

from exports.compiler import MARK, RAISED, CompiledView
from exports.compiler.view_definition import MAX_NAME_BYTES
from exports.errors import ViewDataError
from exports.formats.csv_dialect import CELL, CsvDialect, DialectWriter
from exports.formats.sealed_cells import SealedCells
from exports.formats.table_columns import WRITTEN, TableColumn, is_beside_written
from exports.formats.written_forms import with_one_form
from exports.snapshot_port import RowChunks, Snapshot
from snapshots.errors import StoreQueryError

_OURS = re.compile(RAISED + r'([^"]*)')
_MARK = MARK.encode()
_MARK_BEGINS = _MARK[:1]


class CsvRows:
    """The rows of a view as CSV; read it once. `left_empty` counts, by column, the cells whose value did not fit it.

    Chunks without a mark, which are all chunks in most exports, pass unchanged.
    """

    def __init__(
        self,
        chunks: RowChunks,
        columns: Sequence[str],
        sealed: SealedCells | None = None,
        *,
        header: Sequence[str] | None = None,
    ) -> None:
        """`columns`: of each column of the CSV, the view's column that it shows; `sealed` decrypts its cells.

        `header`: the names, where Postgres would give others, since it cuts them off after 63 bytes.
        """
        self._chunks = chunks
        self._columns = columns
        self._sealed = sealed
        self._header = header
        self.left_empty: dict[str, int] = {}

    @property
    def rows(self) -> int:
        """Rows so far, without the header."""
        return self._chunks.rows

    @property
    def rows_by_query(self) -> list[int]:
        """Rows of each part that was read to its end."""
        return self._chunks.rows_by_query

    async def __aiter__(self) -> AsyncIterator[bytes]:
        header = self._header
        async for chunk in self._chunks:
            plain = chunk if self._sealed is None else self._sealed.shown(chunk)
            if header is not None:
                plain, header = ",".join(header).encode() + b"\n" + plain.partition(b"\n")[2], None
            # a single byte is found without looking at each: 84 MB take 1 ms, and 32 to look for the mark
            yield self._emptied(plain) if _MARK_BEGINS in plain and _MARK in plain else plain

    def _emptied(self, chunk: bytes) -> bytes:
        """Return the chunk, which consists of whole rows, with its marked cells emptied."""
        parts: list[bytes] = []
        at = done = 0
        for cell in CELL.finditer(chunk):
            if cell[1] == _MARK:
                name = self._columns[at]
                self.left_empty[name] = self.left_empty.get(name, 0) + 1
                parts.append(chunk[done : cell.start()])
                done = cell.start() + len(_MARK)
            at = 0 if cell[2] == b"\n" else at + 1
        return b"".join((*parts, chunk[done:]))


class CsvTable:
    """A file in the making: takes the store's CSV, and passes it to `write` in a dialect. Use as a context."""

    def __init__(self, write: Callable[[bytes], None], dialect: CsvDialect, columns: Sequence[TableColumn]) -> None:
        self._write = write
        self._dialect = DialectWriter(dialect, columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """It holds nothing."""

    def add(self, chunk: bytes) -> None:
        """Take whole rows; the first of all is the header."""
        self._write(self._dialect.rewritten(chunk))

    def close(self) -> None:
        """All rows are written."""


def csv_rows(snapshot: Snapshot, parts: Sequence[CompiledView], *, asks: bool) -> CsvRows:
    """Return the rows of a view that was compiled with marks; it has a part for each source of the snapshot.

    `asks`: whether this Postgres can tell what it can read (`written_forms`).
    """
    names = [column.name for column in parts[0].columns]
    shown, header = [], []
    for column in parts[0].columns:
        shown.append(column)
        header.append(column.name)
        if is_beside_written(column, names):
            shown.append(column)
            header.append(column.name + WRITTEN)
    divisible = parts[0].resource if all(part.divisible for part in parts) else None
    chunks = snapshot.csv(*[with_one_form(part, asks=asks) for part in parts], resource_type=divisible)
    sealed = (
        SealedCells(
            shown, partial(snapshot.unsealed, resource_type=parts[0].resource), masked=snapshot.mask is not None
        )
        if snapshot.sealed
        else None
    )
    cut = any(len(name) > MAX_NAME_BYTES for name in header)
    return CsvRows(chunks, [one.name for one in shown], sealed, header=header if cut else None)


def odd_value(view: CompiledView, column: str) -> ViewDataError:
    """Return a strict export's error for a cell that it would have to leave empty."""
    (found,) = (one for one in view.columns if one.name == column)
    return ViewDataError(
        f"view {view.name!r}: column {column} has a value that is not a valid {found.type}, or several where it takes one. "
        "Export without --strict to leave such cells empty and count them, or look the value up in the NDJSON"
    )


def odd_criterion(view: CompiledView, undecided: int) -> ViewDataError:
    """Return a strict export's error for resources that it would have to leave out."""
    return ViewDataError(
        f"view {view.name!r}: cannot decide whether {undecided} {view.resource} resources belong in it, because its criteria meet"
        " a value of another type, or several where they expect one. Export without --strict to leave them out and count them"
    )


def is_data_error(error: StoreQueryError) -> bool:
    """Whether the data did not fit the query (SQLSTATE classes 21 and 22), as opposed to a wrong query."""
    return (error.sqlstate or "")[:2] in {"21", "22"}


def data_error(view: str, error: StoreQueryError) -> ViewDataError:
    """Return the error for data that do not fit, without quoting a value."""
    cause = error.__cause__
    raised = _OURS.search(cause.diag.message_primary or "") if isinstance(cause, psycopg.Error) else None
    if raised:
        return ViewDataError(f"view {view!r}: {raised.group(1)}")
    return ViewDataError(
        f"view {view!r}: a value does not fit what the view does with it ({condition(error)}); read it as a string to see it"
    )


def condition(error: StoreQueryError) -> str:
    """Name the condition of a database error, whose own text may quote a value: `SQLSTATE 22012, division by zero`."""
    state = str(error.sqlstate)
    try:
        name = psycopg.errors.lookup(state).__name__
    except KeyError:
        return f"SQLSTATE {state}"
    return f"SQLSTATE {state}, {' '.join(re.findall('[A-Z]+(?![a-z])|[A-Z][a-z]*', name)).lower()}"
