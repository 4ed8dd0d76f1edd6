"""Decrypts or masks the cells of a view's rows that hold encrypted values. Pure: CSV as Postgres writes it, in and out.

In a plain store, SQL decides whether a text is a day, and gives it one form. Here SQL sees only ciphertext, so this module does
both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import date

from exports.compiler import MARK, Column
from exports.compiler.scalar_sql import date_fits
from exports.formats.csv_dialect import CELL

SEALED = b"~sealed:"
# the third and the fourth of its parts, an id and a JSON pointer, may have ~ in them; what is damaged need not have parts
_SHAPE = rb'~sealed:(?:[^:~]*:[^:~]*:[^:"\s]*:[^:"\s]*:)?[^~]*~'
_TOKEN = re.compile(_SHAPE)
_ITEM = re.compile(rb'"(%b)"|(%b)' % (_SHAPE, _SHAPE))
_QUOTED = re.compile(rb'[",\n\r]')


class SealedCells:
    """Decrypts the cells of one table; `unsealed` gives a value as JSON."""

    def __init__(self, columns: Sequence[Column], unsealed: Callable[[bytes], bytes], *, masked: bool = False) -> None:
        """`columns`: of each column of the CSV, the view's column that it shows; a day's form comes before what is written.

        `masked`: `unsealed` gives masks, which are texts: days stay empty.
        """
        self._columns = columns
        self._unsealed = unsealed
        self._masked = masked
        self._in_header = True
        self._has_days = any(one.sealed and one.type == "date" for one in columns)

    def shown(self, chunk: bytes) -> bytes:
        """Return a chunk, which consists of whole rows, with its values decrypted. The first of all begins with the header."""
        if SEALED not in chunk and not self._has_days:
            self._in_header = False
            return chunk
        parts: list[bytes] = []
        at = done = 0
        for cell in CELL.finditer(chunk):
            if not self._in_header:
                new = self._cell(cell[1], at)
                if new != cell[1]:
                    parts += [chunk[done : cell.start()], new]
                    done = cell.end(1)
            ends_row = cell[2] == b"\n"
            at = 0 if ends_row else at + 1
            self._in_header = self._in_header and not ends_row
        return b"".join((*parts, chunk[done:]))

    def _cell(self, cell: bytes, at: int) -> bytes:
        column = self._columns[at]
        is_day = column.sealed and column.type == "date" and not column.collection
        if not cell or (SEALED not in cell and not is_day) or cell == MARK.encode():
            return b"" if is_day and self._is_form(at) else cell
        if is_day and self._masked:
            return b""
        plain = cell[1:-1].replace(b'""', b'"') if cell[:1] == b'"' else cell
        if column.collection:
            return _as_csv(_ITEM.sub(lambda found: self._item(found[1], found[2]), plain))
        text = _TOKEN.sub(lambda found: _text(self._unsealed(found[0])), plain)
        if not is_day:
            return _as_csv(text)
        if self._is_form(at):
            return text if _is_day(text) else b""
        return _as_csv(text if date_fits(text.decode()) else MARK.encode())

    def _item(self, whole: bytes | None, piece: bytes | None) -> bytes:
        """Return the JSON of an item of a collection, or of a piece of a string that was joined."""
        if whole is not None:
            return self._unsealed(whole)
        value = self._unsealed(piece or b"")
        return value[1:-1] if value[:1] == b'"' else value

    def _is_form(self, at: int) -> bool:
        """Whether this is the first of a column's two."""
        return self._columns[at + 1 : at + 2] == [self._columns[at]]


def _text(value: bytes) -> bytes:
    return str(json.loads(value)).encode() if value[:1] == b'"' else value


def _as_csv(text: bytes) -> bytes:
    return b'"' + text.replace(b'"', b'""') + b'"' if not text or _QUOTED.search(text) else text


def _is_day(text: bytes) -> bool:
    if re.fullmatch(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is None:
        return False
    try:
        date.fromisoformat(text.decode())
    except ValueError:
        return False
    return True
