"""How the files of an export are written, as options: CSV's dialect, compression, and the size of their parts."""

from __future__ import annotations

import re
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
PartSizeOption = Annotated[
    str | None,
    typer.Option(
        "--part-size",
        metavar="SIZE",
        help="Write each file in parts, Patient.0001.ndjson.gz and so on, of about this size before compression: 100MB.",
        show_default=False,
    ),
]
_SIZE = re.compile(r"([0-9]{1,6})(MB|GB)", re.IGNORECASE)
_UNITS = {"MB": 10**6, "GB": 10**9}


def checked_size(text: str | None) -> int | None:
    """Return a size in bytes; a usage error for what is none."""
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise typer.BadParameter(f"--part-size {text}: a whole number of MB or GB, such as 100MB")
    return int(found[1]) * _UNITS[found[2].upper()]


CompressOption = Annotated[CompressionName, typer.Option("--compress", help="How to compress NDJSON and CSV.")]
