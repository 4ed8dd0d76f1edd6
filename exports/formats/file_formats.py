"""The formats of an export by name: which are tables, and how a table's file is told by its name. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FORMATS = ("ndjson", "csv", "parquet")
TABLES = ("csv", "parquet")
DATABASES = ("postgres",)  # what `warehouse` loads views into, beside files
CSV_DIALECTS = ("postgres", "pandas", "excel")  # `csv_dialect` says what each is
Compression = Literal["gzip", "zstd", "none"]
ENDINGS: dict[Compression, str] = {"gzip": ".gz", "zstd": ".zst", "none": ""}


@dataclass(frozen=True)
class TableFormat:
    """How one table is written; Parquet compresses its columns itself."""

    kind: str  # of TABLES
    compression: Compression = "none"


def format_by_name(name: str) -> TableFormat:
    """Return the format of a file that somebody named: `.parquet`, `.csv.gz`, `.csv.zst`; any other name is plain CSV."""
    if name.endswith(".parquet"):
        return TableFormat("parquet")
    return TableFormat(
        "csv", next((one for one, ending in ENDINGS.items() if ending and name.endswith(ending)), "none")
    )
