"""DuckDB: one database file with a table for each view or query, typed as in Parquet.

DuckDB writes a file by itself, at a path; who delivers it reads it from there. Equal rows give equal tables, but never equal
bytes, since DuckDB gives each file a random identifier of 16 bytes. `arrow_rows` types the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa

from exports.errors import DestinationError
from exports.formats.arrow_rows import ArrowRows
from exports.formats.table_columns import Kind, TableColumn, with_written_numbers

# DuckDB's memory limit, beyond which rows go to the disk; with 64 the process takes 30 MB more, and is no faster
MEMORY_BYTES = 32 << 20
# DuckDB holds this many rows at once, however wide they are, and fails if they exceed its memory
VECTOR_ROWS = 2048
# the part of the limit that rows cannot use: 100 MB of rows at once fail with 46 MB, and fit in 124
_OTHER_BYTES = 24 << 20
# DuckDB writes in blocks of 256 KiB, at least one per column
_BLOCK_BYTES = 256 << 10
# the rows of a group stay in memory until the commit: of DuckDB's default, 122,880 rows, 60 columns need up to 103 MB
_ROWS_A_GROUP = 1 << 14
# DuckDB raises the same error for a full disk behind its memory, and for rows that its memory cannot hold
_TOO_LARGE = (
    "run the command again; if it fails again, these rows need more memory than DuckDB gets: export with --format parquet, "
    "whose files DuckDB reads as they are"
)
_TYPES: dict[Kind, str] = {
    "text": "VARCHAR",
    "boolean": "BOOLEAN",
    "integer": "INTEGER",
    "long": "BIGINT",
    "number": "DOUBLE",
    "date": "DATE",
    "moment": "TIMESTAMP WITH TIME ZONE",
    "list": "VARCHAR[]",
}


class DuckdbFile:
    """A database in the making, at `path` in a folder that is its own. Use as a context; `close` completes it.

    Raises:
        DestinationError: DuckDB cannot write it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "charts.duckdb"
        self._folder = folder
        self._memory = MEMORY_BYTES
        self._rows = 0  # of the open table
        self._vector_bytes = 0  # of its last vector

    def __enter__(self) -> Self:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,  # several would hold a group of rows each
            "memory_limit": _bytes(MEMORY_BYTES),
            "temp_directory": str(self._folder),
            "autoinstall_known_extensions": False,  # it would ask the network for them
            "autoload_known_extensions": False,
        }
        with _errors():
            self._database = duckdb.connect(":memory:", config=config)
            self._database.execute(f"ATTACH {_text(str(self.path))} AS charts (ROW_GROUP_SIZE {_ROWS_A_GROUP})")
            self._database.execute("USE charts")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()

    @property
    def bytes(self) -> int:
        """Bytes of the file so far."""
        return self.path.stat().st_size

    def table(self, name: str, columns: Sequence[TableColumn]) -> ArrowRows:
        """Begin a table, which takes CSV; the one before is closed. Names may not differ in their case only.

        It is one transaction: with one for each group of rows the file is three times as large, and each comment alone would wait
        for the disk.
        """
        of = with_written_numbers(columns)
        self._rows = self._vector_bytes = 0
        written = len(of) + sum(one.kind == "list" for one in of)  # the items of a list are a column as well
        with _errors():
            self._need(written * _BLOCK_BYTES + _OTHER_BYTES)
            self._database.begin()
            typed = ", ".join(f"{_name(one.name)} {_TYPES[one.kind]}" for one in of)
            self._database.execute(f"CREATE TABLE {_name(name)} ({typed})")
            for one in of:
                self._database.execute(f"COMMENT ON COLUMN {_name(name)}.{_name(one.name)} IS {_text(one.meaning)}")
        return ArrowRows(columns, lambda rows: self._insert(name, rows), self._commit)

    def _insert(self, name: str, rows: pa.Table) -> None:
        with _errors():
            self._make_room(rows)
            self._database.from_arrow(rows).insert_into(_name(name))

    def _make_room(self, rows: pa.Table) -> None:
        """Give DuckDB the memory that its widest vector needs: of 2,048 notes of 20 kB, 40 MB."""
        at = 0
        while at < len(rows):
            begun = self._rows % VECTOR_ROWS
            few = rows.slice(at, VECTOR_ROWS - begun)
            self._vector_bytes = few.nbytes + (self._vector_bytes if begun else 0)
            self._rows += len(few)
            at += len(few)
            self._need(self._vector_bytes + _OTHER_BYTES)

    def _need(self, size: int) -> None:
        """Raise DuckDB's memory limit to at least this many bytes."""
        if size > self._memory:
            self._memory = size
            self._database.execute(f"SET memory_limit = {_text(_bytes(size))}")

    def _commit(self) -> None:
        with _errors():
            self._database.commit()

    def close(self) -> None:
        """Complete the file: all of it is at `path`."""
        with _errors():
            self._database.execute("USE memory")
            self._database.execute("DETACH charts")


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:  # its text may quote a value
        advice = _TOO_LARGE if isinstance(error, duckdb.OutOfMemoryException) else "run the command again"
        raise DestinationError(
            f"DuckDB cannot write its file ({type(error).__name__}); check that the disk has room for it twice, and {advice}"
        ) from None


def _bytes(size: int) -> str:
    return f"{-(-size >> 20)}MiB"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
