"""CSV: the rows of one view, RFC 4180 with a header, null and what does not fit its column as an empty field, lists as JSON text.

Also tells what a database error on a view's data means: Postgres' own words may quote a resource, so they never go further.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

import psycopg

from exports.compiler import MARK, RAISED, Column, CompiledView
from exports.errors import ViewDataError
from exports.snapshot_port import RowChunks, Snapshot
from snapshots.errors import StoreQueryError

_OURS = re.compile(RAISED + r'([^"]*)')
_MARK = MARK.encode()
_CELL = re.compile(rb'((?:[^",\n][^,\n]*)?|"(?:[^"]|"")*")([,\n])')


class CsvRows:
    """The rows of a view as CSV; read it once. `left_empty` counts, by column, the cells whose value did not fit it.

    Chunks without a mark, all of them in most exports, pass as they are.
    """

    def __init__(self, chunks: RowChunks, columns: Sequence[Column]) -> None:
        self._chunks = chunks
        self._columns = columns
        self.left_empty: dict[str, int] = {}

    @property
    def rows(self) -> int:
        """Rows so far, without the header."""
        return self._chunks.rows

    @property
    def rows_by_query(self) -> list[int]:
        """Rows of each part that has been read to its end."""
        return self._chunks.rows_by_query

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield self._emptied(chunk) if _MARK in chunk else chunk

    def _emptied(self, chunk: bytes) -> bytes:
        """The chunk, whole rows, with its marked cells empty."""
        parts: list[bytes] = []
        at = done = 0
        for cell in _CELL.finditer(chunk):
            if cell[1] == _MARK:
                name = self._columns[at].name
                self.left_empty[name] = self.left_empty.get(name, 0) + 1
                parts.append(chunk[done : cell.start()])
                done = cell.start() + len(_MARK)
            at = 0 if cell[2] == b"\n" else at + 1
        return b"".join((*parts, chunk[done:]))


def csv_rows(snapshot: Snapshot, parts: Sequence[CompiledView]) -> CsvRows:
    """The rows of a view that was compiled with marks, a part for each source of the snapshot."""
    return CsvRows(snapshot.csv(*[part.query for part in parts]), parts[0].columns)


def odd_value(view: CompiledView, column: str) -> ViewDataError:
    """What a strict export says of a cell that it would have to leave empty."""
    (found,) = (one for one in view.columns if one.name == column)
    return ViewDataError(
        f"view {view.name!r}: column {column} has a value that is no {found.type}, or several where it holds one. Export without "
        "--strict to have such cells empty and counted, or see the value in the NDJSON"
    )


def odd_criterion(view: CompiledView, undecided: int) -> ViewDataError:
    """What a strict export says of resources that it would have to leave out."""
    return ViewDataError(
        f"view {view.name!r}: whether {undecided} {view.resource} resources belong in it cannot be decided: its criteria meet a"
        " value of another type, or several where they look at one. Export without --strict to have them left out and counted"
    )


def is_data_error(error: StoreQueryError) -> bool:
    """Whether the data did not fit the query (SQLSTATE classes 21 and 22), and not the query the database."""
    return (error.sqlstate or "")[:2] in {"21", "22"}


def data_error(view: str, error: StoreQueryError) -> ViewDataError:
    """What went wrong on the data, without a value of it."""
    cause = error.__cause__
    told = _OURS.search(cause.diag.message_primary or "") if isinstance(cause, psycopg.Error) else None
    if told:
        return ViewDataError(f"view {view!r}: {told.group(1)}")
    return ViewDataError(
        f"view {view!r}: a value does not fit the type that its column or comparison needs (SQLSTATE {error.sqlstate});"
        " declare the column as string to see it"
    )
