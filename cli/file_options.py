"""How the files of an export are written, as options: CSV's dialect, and compression."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class CsvDialectName(StrEnum):
    """Whose CSV it is; the same names as `exports.formats.file_formats.CSV_DIALECTS`."""

    postgres = "postgres"
    pandas = "pandas"
    excel = "excel"


class CompressionName(StrEnum):
    """The same names as `exports.formats.file_formats.Compression`."""

    gzip = "gzip"
    zstd = "zstd"
    none = "none"


CsvOption = Annotated[
    CsvDialectName,
    typer.Option(
        "--csv",
        help="The program that will read the CSV: decides how null and line ends are written, and disarms formulas.",
    ),
]
CompressOption = Annotated[CompressionName, typer.Option("--compress", help="How to compress NDJSON and CSV.")]
