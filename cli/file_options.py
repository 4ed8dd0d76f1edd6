"""How the files of an export are written, as options: CSV's dialect, compression, encryption, and the size of their parts."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from exports.delivery.encryption import Recipients, recipients_of


class CsvDialectName(StrEnum):
    """The program that reads the CSV; the same names as in `exports.formats.csv_dialect`."""

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
    """Return a size in bytes; a usage error if it is malformed."""
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise typer.BadParameter(f"--part-size {text}: a whole number of MB or GB, such as 100MB")
    return int(found[1]) * _UNITS[found[2].upper()]


CompressOption = Annotated[CompressionName, typer.Option("--compress", help="How to compress NDJSON and CSV.")]
EncryptOption = Annotated[
    list[str] | None,
    typer.Option(
        "--encrypt-to",
        metavar="RECIPIENT",
        help="Encrypt each file with age, for a public key (age1…, ssh-ed25519 …) or those in file:PATH; may be repeated.",
        show_default=False,
    ),
]
PartitionOption = Annotated[
    str | None,
    typer.Option(
        "--partition-by",
        metavar="type|COLUMN",
        help="Divide into folders as Hive does: NDJSON by type, or tables by a column, such as status=final/.",
        show_default=False,
    ),
]
_FILE = "file:"


def checked_recipients(words: list[str] | None) -> Recipients | None:
    """Return the recipients whose keys files are encrypted for; a usage error for a file that cannot be read, or has no key.

    Raises:
        PlanError: a value is no public key, or the package that encrypts is not installed.
    """
    if not words:
        return None
    return recipients_of([key for word in words for key in (_keys_in(word) if word.startswith(_FILE) else [word])])


def _keys_in(word: str) -> list[str]:
    path = word.removeprefix(_FILE)
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise typer.BadParameter(f"--encrypt-to {word}: cannot be read: {why}") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise typer.BadParameter(f"--encrypt-to {word}: has no public key; expected one per line, such as age1…")
    return keys
