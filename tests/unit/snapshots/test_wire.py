"""Postgres' binary formats, checked against an independent reading of their documentation."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from snapshots.record import Record
from snapshots.wire import bytea_array, copy_rows, text_array
from snapshots.witness import Way, WayScope


def read_array(data: bytes) -> tuple[int, list[bytes | None]]:
    dimensions, _, element = struct.unpack_from(">iii", data)
    if not dimensions:
        return element, []
    count, lower = struct.unpack_from(">ii", data, 12)
    assert lower == 1
    values: list[bytes | None] = []
    at = 20
    for _ in range(count):
        (size,) = struct.unpack_from(">i", data, at)
        at += 4
        values.append(None if size < 0 else data[at : at + size])
        at += max(size, 0)
    assert at == len(data)
    return element, values


@given(st.lists(st.none() | st.binary(max_size=20), max_size=20))
def test_arrays_hold_their_values_and_nulls_in_order(values: list[bytes | None]):
    assert read_array(text_array(values)) == (25, values)
    assert read_array(bytea_array(values)) == (17, values)


@given(
    st.lists(st.tuples(st.text(max_size=5), st.none() | st.text(max_size=5), st.binary(max_size=300_000)), max_size=4)
)
def test_copy_rows_frame_every_field(rows: list[tuple[str, str | None, bytes]]):
    way = Way("search", WayScope.PATIENT)
    ways = [way if text is None else None for _, text, _ in rows]
    records = [
        Record("T", name, text, text, None, bytes(16), body, way=one)
        for one, (name, text, body) in zip(ways, rows, strict=True)
    ]
    data = b"".join(copy_rows(records, connection=7, run=9, ways={way: 5}))
    assert data[:11] == b"PGCOPY\n\xff\r\n\x00"
    at = 19
    found = []
    while (fields := struct.unpack_from(">h", data, at)[0]) != -1:
        at += 2
        row: list[bytes | None] = []
        for _ in range(fields):
            (size,) = struct.unpack_from(">i", data, at)
            at += 4
            row.append(None if size < 0 else data[at : at + size])
            at += max(size, 0)
        found.append(row)
    assert at + 2 == len(data)
    number, run = struct.pack(">i", 7), struct.pack(">q", 9)
    expected = []
    for name, text, body in rows:
        value = None if text is None else text.encode()
        first_way = struct.pack(">i", 5) if text is None else None
        kind = b"T"
        expected.append(
            [number, run, run, kind, name.encode(), value, value, None, bytes(16), first_way, b"\x01" + body]
        )
    assert found == expected
