"""A table as a file of its format: rows come as CSV from the store, and leave as the format's bytes.

DuckDB holds many tables in one file, which `duckdb_file` makes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from exports.errors import MissingExtraError, PlanError
from exports.formats.csv_dialect import DIALECTS
from exports.formats.csv_table import CsvTable
from exports.formats.file_formats import FILE_FORMATS, TYPED
from exports.formats.table_columns import TableColumn

if TYPE_CHECKING:
    from exports.formats.arrow_rows import ArrowRows


class CsvChunks(AsyncIterable[bytes], Protocol):
    """Whole rows of CSV in chunks, the header first; and how many rows they were."""

    @property
    def rows(self) -> int:
        """Rows so far, without the header."""


def check_installed(kinds: Collection[str]) -> None:
    """Say what is missing before anything is begun; it imports nothing.

    Raises:
        MissingExtraError: what writes tables of these kinds is an extra, and not installed.
    """
    for one in (FILE_FORMATS[kind] for kind in kinds if kind in FILE_FORMATS):
        if one.package is not None and find_spec(one.package) is None:
            raise MissingExtraError(f"writes {one.label} files", one.package)


def load_formats(kinds: Collection[str]) -> None:
    """Import what writes tables of these kinds: for Parquet 40 MB and 0.2 s, best spent while something else is waited for.

    Raises:
        PlanError: as `check_installed`.
    """
    check_installed(kinds)
    if {*TYPED} & {*kinds}:
        # Arrow's own allocator keeps what it once had: with the system's an export's peak is lower
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        import exports.formats.parquet_table  # only who wants it, has it
    if "duckdb" in kinds:
        import exports.formats.duckdb_file  # noqa: F401


def open_table(
    kind: str, dialect: str, columns: Sequence[TableColumn], write: Callable[[bytes], None]
) -> CsvTable | ArrowRows:
    """Return a file in the making that has one table; a dialect is CSV's.

    Raises:
        PlanError: no file of this format has one table alone.
    """
    if kind == "csv":
        return CsvTable(write, DIALECTS[dialect], columns)
    load_formats({kind})
    if kind == "parquet":
        from exports.formats.parquet_table import parquet_table

        return parquet_table(write, columns)
    raise PlanError(f"a file of the format {kind} cannot be written for one table: choose another format")


class TableBytes:
    """The bytes of a table's file, for who takes them in turn; read it once."""

    def __init__(self, rows: CsvChunks, kind: str, dialect: str, columns: Sequence[TableColumn]) -> None:
        self._rows = rows
        self._of = (kind, dialect, columns)
        self._pieces: list[bytes] = []  # a format's thread may add one while others are taken

    @property
    def rows(self) -> int:
        """Rows so far, without the header."""
        return self._rows.rows

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with open_table(*self._of, self._pieces.append) as table:
            async for chunk in self._rows:
                table.add(chunk)
                yield self._taken()
            table.close()
        yield self._taken()

    def _taken(self) -> bytes:
        taken = self._pieces[:]
        del self._pieces[: len(taken)]
        return b"".join(taken)
