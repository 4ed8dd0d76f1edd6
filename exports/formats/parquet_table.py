"""Parquet: the rows of one table, zstd, in the groups in which they come, with dictionaries where they help.

`arrow_rows` types the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from exports.formats.arrow_rows import ArrowRows, schema_of
from exports.formats.table_columns import TableColumn


def parquet_table(write: Callable[[bytes], None], columns: Sequence[TableColumn]) -> ArrowRows:
    """Return a file in the making: takes CSV, gives Parquet to `write`."""
    writer = pq.ParquetWriter(pa.PythonFile(_Sink(write), mode="w"), schema_of(columns), compression="zstd")
    return ArrowRows(columns, lambda rows: writer.write_table(rows, row_group_size=len(rows)), writer.close)


class _Sink:
    """What pyarrow needs of a file that is only written."""

    closed = False

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, data: Any) -> int:
        self._write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Whose file it is, completes it."""
