"""Postgres' binary formats, packed by hand: arrays as parameters and rows of COPY. Values in, bytes out.

Packing by hand costs 2 µs per resource, psycopg's own adaptation of the same lists five times that. `ingest` decides which rows
to send.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from psycopg import AsyncConnection
from psycopg.adapt import Dumper
from psycopg.pq import Format

from snapshots.record import Record
from snapshots.witness import Way

_TEXT, _TEXT_ARRAY = 25, 1009
_BYTEA, _BYTEA_ARRAY = 17, 1001
_INT, _INT_ARRAY = 23, 1007
_NULL = b"\xff\xff\xff\xff"
_CHUNK_BYTES = 256 * 1024  # one write of COPY: large enough to be cheap, small enough to overlap with the server's work
_COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_END = b"\xff\xff"
_COPY_COLUMNS = 11

_length = struct.Struct(">i").pack
NO_WAYS: Mapping[Way, int] = MappingProxyType({})
_SHORT = 256
_SHORT_LENGTHS = [_length(number) for number in range(_SHORT)]  # a look-up takes a third of the time of packing


class TextArray(bytes):
    """A binary text[]; `text_array` makes one."""

    __slots__ = ()


class ByteaArray(bytes):
    """A binary bytea[]; `bytea_array` makes one."""

    __slots__ = ()


class IntArray(bytes):
    """A binary int4[]; `int_array` makes one."""

    __slots__ = ()


class _TextArrayDumper(Dumper):
    format = Format.BINARY
    oid = _TEXT_ARRAY

    def dump(self, obj: Any) -> bytes:
        return bytes(obj)


class _ByteaArrayDumper(_TextArrayDumper):
    oid = _BYTEA_ARRAY


class _IntArrayDumper(_TextArrayDumper):
    oid = _INT_ARRAY


def register_arrays(conn: AsyncConnection[Any]) -> None:
    """Make a connection send `TextArray`, `ByteaArray` and `IntArray` unchanged."""
    conn.adapters.register_dumper(TextArray, _TextArrayDumper)
    conn.adapters.register_dumper(ByteaArray, _ByteaArrayDumper)
    conn.adapters.register_dumper(IntArray, _IntArrayDumper)


def _array(element: int, values: Sequence[bytes | None]) -> bytes:
    if not values:
        return struct.pack(">iii", 0, 0, element)
    parts = [struct.pack(">iiiii", 1, 1, element, len(values), 1)]
    parts.extend(_NULL if value is None else _length(len(value)) + value for value in values)
    return b"".join(parts)


def text_array(values: Sequence[bytes | None]) -> TextArray:
    """Pack UTF-8 texts as text[]; None is NULL."""
    return TextArray(_array(_TEXT, values))


def bytea_array(values: Sequence[bytes | None]) -> ByteaArray:
    """Pack bytes as bytea[]; None is NULL."""
    return ByteaArray(_array(_BYTEA, values))


def int_array(values: Sequence[int | None]) -> IntArray:
    """Pack numbers as int4[]; None is NULL."""
    packed = {value: None if value is None else _length(value) for value in set(values)}
    return IntArray(_array(_INT, [packed[value] for value in values]))


def encoded(value: str | None) -> bytes | None:
    """Return a text as UTF-8, None as None.

    Raises:
        UnicodeEncodeError: the text holds a lone surrogate.
    """
    return None if value is None else value.encode()


def copy_rows(
    records: Sequence[Record], *, connection: int, run: int, ways: Mapping[Way, int] = NO_WAYS
) -> Iterator[bytes]:
    """Return the data of `COPY resource (…) FROM STDIN (FORMAT binary)` for new resources, in chunks of about 256 kB.

    Columns: connection int4, first_run int8, last_changed_run int8, then text: resource_type, id, patient_id, version_id,
    last_updated; content_hash bytea, first_way int4, body jsonb. `ways` are the numbers of the ways that listed the rows.
    """
    # field count, and the three numbers that all rows share
    head = struct.pack(">hiiiqiq", _COPY_COLUMNS, 4, connection, 8, run, 8, run)
    length, short, null = _length, _SHORT_LENGTHS, _NULL
    digest_length = length(16)
    kinds: dict[str, bytes] = {}
    numbers: dict[Way | None, bytes] = {way: length(4) + length(number) for way, number in ways.items()}
    numbers[None] = null
    parts = [_COPY_HEAD]
    size = 0
    for resource_type, identity, patient, version, updated, digest, body, _, _, way, *_ in records:
        kind = kinds.get(resource_type)
        if kind is None:
            packed = resource_type.encode()
            kind = kinds[resource_type] = head + length(len(packed)) + packed
        name = identity.encode()
        count = len(name)
        parts += (kind, short[count] if count < _SHORT else length(count), name)
        for text in (patient, version, updated):
            if text is None:
                parts.append(null)
            else:
                value = text.encode()
                count = len(value)
                parts += (short[count] if count < _SHORT else length(count), value)
        # jsonb's binary format is a version byte, 1, and then the text
        bytes_of_body = len(body)
        parts += (digest_length, digest, numbers[way], length(bytes_of_body + 1), b"\x01", body)
        size += bytes_of_body + 150
        if size > _CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    parts.append(_COPY_END)
    yield b"".join(parts)
