"""The use case: runs one query over one snapshot, and writes its rows as a table, to a file or a stream.

`statement` compiles it; the snapshot reads only, in its tenant, within the limits that are set here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from exports.delivery.files import COMPRESS, DeliveredFile
from exports.delivery.shown_late import deliver_late
from exports.errors import QueryError
from exports.formats.file_formats import TableFormat, format_by_name
from exports.formats.sealed_cells import SEALED
from exports.formats.table_file import TableBytes
from exports.named_patients import patient_notes
from exports.queries.statement import Statement, compile_library, query_errors
from exports.snapshot_port import Snapshot
from snapshots.errors import StoreQueryError

CANCELLED = "57014"  # SQLSTATE query_canceled


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a query may take: `seconds` for all, `memory_mb` for each sort and hash, beyond which they go to the disk."""

    seconds: int = 300
    memory_mb: int = 256


async def run_query(
    path: Path,
    parameters: Mapping[str, str],
    snapshot: Snapshot,
    out: Path | BinaryIO,
    limits: Limits,
    *,
    dialect: str = "postgres",
) -> tuple[DeliveredFile, Statement]:
    """Run a library's file, and write its rows in the format that the path's name says; to a stream, as CSV.

    The statement's notes also say how many of the named patients are not stored.

    Raises:
        QueryError: the query is wrong, does more than select, or takes longer than it may.
        ViewError: a view that it depends on is wrong.
        ViewDataError: a value does not fit what the query does with it.
        DestinationError: the file cannot be written.
        PlanError: its name is that of a DuckDB file.
    """
    of_patients = await patient_notes(snapshot)
    statement = await compile_library(path, parameters, snapshot)
    statement = replace(statement, notes=(*of_patients, *statement.notes))
    await snapshot.limit(seconds=limits.seconds, memory_mb=limits.memory_mb)
    format_ = format_by_name(out.name) if isinstance(out, Path) else TableFormat("csv")
    rows = TableBytes(QueryRows(statement, snapshot), format_.kind, dialect, statement.columns)
    try:
        compress = COMPRESS[format_.compression]
        return await deliver_late(rows, out, end=snapshot.end, kind=format_.kind, compress=compress), statement
    except StoreQueryError as error:
        if error.sqlstate == CANCELLED:
            raise QueryError(f"{path.name} was stopped after {limits.seconds} s; --timeout allows more") from None
        raise


class QueryRows:
    """The rows of a statement as CSV, with a header; read it once. What does not fit is null in its views, and not counted."""

    left_empty: Mapping[str, int] = MappingProxyType({})
    left_out = 0

    def __init__(self, statement: Statement, snapshot: Snapshot) -> None:
        self._statement = statement
        self._snapshot = snapshot
        self._chunks = snapshot.table(statement.query)

    @property
    def rows(self) -> int:
        """Rows so far, without the header."""
        return self._chunks.rows

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with query_errors(self._statement.name):
            if self._statement.prepare is not None:
                await self._snapshot.fetch(self._statement.prepare)
            async for chunk in self._chunks:
                if self._snapshot.sealed and SEALED in chunk:
                    raise QueryError(
                        f"{self._statement.name} shows an encrypted element; only views and NDJSON decrypt"
                    )
                yield chunk
