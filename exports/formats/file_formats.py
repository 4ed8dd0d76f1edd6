"""The formats of an export by name: which are tables, and how a table's file is told by its name. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exports.errors import PlanError

FORMATS = ("ndjson", "csv", "parquet", "duckdb")
TABLES = ("csv", "parquet", "duckdb")
TYPED = ("parquet", "duckdb")  # of TABLES: Arrow types their columns, and compression is their own
DATABASES = ("postgres", "delta")  # what `warehouse` loads views into, beside files
CSV_DIALECTS = ("postgres", "pandas", "excel")  # `csv_dialect` says what each is
Compression = Literal["gzip", "zstd", "none"]
ENDINGS: dict[Compression, str] = {"gzip": ".gz", "zstd": ".zst", "none": ""}


@dataclass(frozen=True)
class TableFormat:
    """How one table is written; Parquet compresses its columns itself."""

    kind: str  # of TABLES
    compression: Compression = "none"


def format_by_name(name: str) -> TableFormat:
    """Return the format of a file that somebody named: `.parquet`, `.csv.gz`, `.csv.zst`; any other name is plain CSV.

    Raises:
        PlanError: it is a name of a DuckDB file, which has several tables.
    """
    if name.endswith(".duckdb"):
        raise PlanError("a DuckDB file has many tables: `chartferry export --format duckdb --query FILE` writes it")
    if name.endswith(".parquet"):
        return TableFormat("parquet")
    return TableFormat(
        "csv", next((one for one, ending in ENDINGS.items() if ending and name.endswith(ending)), "none")
    )
