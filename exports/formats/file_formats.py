"""The formats of an export: the properties of each, in one table, and how a file's name shows its format. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from exports.errors import PlanError


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """One format of files, by what others ask of it: planning, writing and describing name no format."""

    name: str
    label: str  # for people
    media_type: str
    is_table: bool = True  # of views and queries; else of whole resources
    typed: bool = False  # Arrow types its columns, and its compression is its own
    database: str | None = None  # the one file in which all tables are; such a file does not tell upper case from lower
    of_list: str = "array"  # what a Data Package calls a column of lists
    package: str | None = None  # what writes it and is not always installed: an extra of this name


FILE_FORMATS = {
    one.name: one
    for one in (
        FileFormat(name="ndjson", label="NDJSON", media_type="application/fhir+ndjson", is_table=False),
        FileFormat(name="csv", label="CSV", media_type="text/csv"),
        FileFormat(
            name="parquet", label="Parquet", media_type="application/vnd.apache.parquet", typed=True, of_list="list"
        ),
        FileFormat(
            name="duckdb", label="DuckDB", media_type="application/octet-stream", typed=True, of_list="list",
            database="charts.duckdb", package="duckdb",
        ),
    )
}  # fmt: skip
FORMATS = tuple(FILE_FORMATS)
TABLES = tuple(one.name for one in FILE_FORMATS.values() if one.is_table)
TYPED = tuple(one.name for one in FILE_FORMATS.values() if one.typed)
DATABASES = ("postgres", "delta")  # what `warehouse` loads views into, beside files
Compression = Literal["gzip", "zstd", "none"]
ENDINGS: dict[Compression, str] = {"gzip": ".gz", "zstd": ".zst", "none": ""}


@dataclass(frozen=True)
class TableFormat:
    """How one table is written; Parquet compresses its columns itself."""

    kind: str  # of TABLES
    compression: Compression = "none"


def format_by_name(name: str) -> TableFormat:
    """Return the format that a file's name shows: `.parquet`, `.csv.gz`, `.csv.zst`; a name that shows none is plain CSV.

    Raises:
        PlanError: a file of this format has several tables, or the name is that of a file of another kind, of JSON, say.
    """
    small = name.lower()
    compression: Compression = next((one for one, end in ENDINGS.items() if end and small.endswith(end)), "none")
    ending = PurePath(small.removesuffix(ENDINGS[compression])).suffix
    named = next((one for one in FILE_FORMATS.values() if one.typed and ending == f".{one.name}"), None)
    if named is not None and named.database:
        raise PlanError(
            f"a {named.label} file has many tables: `chartferry export --format {named.name} --query FILE` writes it"
        )
    if named is not None and compression == "none":
        return TableFormat(named.name)
    if ending not in {"", ".csv", ".txt"}:
        alone = [f".{one.name}" for one in FILE_FORMATS.values() if one.typed and not one.database]
        allowed = ", ".join((*alone, ".csv", ".csv.gz", ".csv.zst"))
        raise PlanError(f"a file with the ending {PurePath(small).suffix} cannot be written; allowed: {allowed}")
    return TableFormat("csv", compression)
