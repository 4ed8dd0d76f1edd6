"""Parquet: the rows of one table, zstd, in the groups in which they come, with dictionaries where they help.

`arrow_rows` types the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow.parquet as pq

from exports.formats.arrow_rows import ArrowRows, arrow_sink, schema_of
from exports.formats.table_columns import TableColumn


def parquet_table(write: Callable[[bytes], None], columns: Sequence[TableColumn]) -> ArrowRows:
    """Return a file in the making: takes CSV, gives Parquet to `write`."""
    writer = pq.ParquetWriter(arrow_sink(write), schema_of(columns), compression="zstd")
    return ArrowRows(columns, lambda rows: writer.write_table(rows, row_group_size=len(rows)), writer.close)
