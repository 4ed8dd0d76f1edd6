"""How a CSV file is written for the program that reads it: null, line ends, and cells that a spreadsheet must not run. Pure.

All dialects are RFC 4180 in UTF-8 with a header, except that Postgres and pandas get plain line feeds. In all of them an empty
text differs from null.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from exports.formats.table_columns import TableColumn

# possessive, or a long cell takes 100 times its size: Python notes each place to which it may have to go back
CELL = re.compile(rb'((?:[^",\n][^,\n]*)?|"[^"]*+(?:""[^"]*+)*+")([,\n])')


def header_row(chunk: bytes) -> bytes:
    """Return the first row of CSV as Postgres gives it."""
    return chunk[: next(cell.end() for cell in CELL.finditer(chunk) if cell[2] == b"\n")]


# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection"; the last four are the full-width signs)
_FORMULA = re.compile('"?(?:[=+@\t\r\n-]|\uff1d|\uff0b|\uff0d|\uff20)'.encode())
_BYTE_ORDER_MARK = "\ufeff".encode()


@dataclass(frozen=True)
class CsvDialect:
    """`null` is how null is written; a text that is the same gets one more backslash before it.

    `for_spreadsheets`: the file begins with a byte order mark, lines end with CR LF, and a text that would be taken for a
    formula gets an apostrophe before it. Numbers, dates and booleans stay as they are.
    """

    name: str
    null: bytes = b""
    for_spreadsheets: bool = False

    @property
    def as_postgres_writes(self) -> bool:
        """Whether the store's CSV is already as it should be."""
        return not self.null and not self.for_spreadsheets


DIALECTS = {
    one.name: one
    for one in (CsvDialect("postgres"), CsvDialect("pandas", null=rb"\N"), CsvDialect("excel", for_spreadsheets=True))
}


class DialectWriter:
    """Rewrites CSV as Postgres gives it, in chunks of whole rows, the first of which begins with the header."""

    def __init__(self, dialect: CsvDialect, columns: Sequence[TableColumn]) -> None:
        self._dialect = dialect
        self._free_text = [column.kind in {"text", "list"} for column in columns]
        self._begun = False

    def rewritten(self, chunk: bytes) -> bytes:
        """Return the chunk in the dialect."""
        if self._dialect.as_postgres_writes:
            return chunk
        line_end = b"\r\n" if self._dialect.for_spreadsheets else b"\n"
        parts = [] if self._begun or not self._dialect.for_spreadsheets else [_BYTE_ORDER_MARK]
        self._begun = True
        at = 0
        for cell in CELL.finditer(chunk):
            parts.append(self._cell(cell[1], free_text=self._free_text[at]))
            ends_row = cell[2] == b"\n"
            parts.append(line_end if ends_row else b",")
            at = 0 if ends_row else at + 1
        return b"".join(parts)

    def _cell(self, cell: bytes, *, free_text: bool) -> bytes:
        if not cell:
            return self._dialect.null
        if self._dialect.null and cell == self._dialect.null:
            return b"\\" + cell
        if self._dialect.for_spreadsheets and free_text and _FORMULA.match(cell):
            return b"\"'" + cell[1:] if cell[:1] == b'"' else b"'" + cell
        return cell
