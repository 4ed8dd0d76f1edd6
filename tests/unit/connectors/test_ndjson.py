"""How a stream of bytes becomes lines."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.bulk.ndjson import LineSplitter, OverlongLine


def split(*chunks: bytes, max_line: int = 1000) -> list:
    splitter = LineSplitter(max_line)
    return [line for chunk in chunks for line in splitter.feed(chunk)] + list(splitter.finish())


@given(st.lists(st.binary(max_size=20)), st.data())
def test_lines_do_not_depend_on_chunk_boundaries(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    bounds = [0, *cuts, len(whole)]
    chunks = [whole[a:b] for a, b in pairwise(bounds)]
    assert split(*chunks) == split(whole)


def test_bom_crlf_blank_lines_and_a_missing_last_newline_are_tolerated() -> None:
    assert split(b'\xef\xbb\xbf{"a":1}\r\n\r\n  \n{"b":2}\n{"c":3}') == [
        (1, b'{"a":1}'),
        (4, b'{"b":2}'),
        (5, b'{"c":3}'),
    ]


def test_zeros_after_the_last_line_are_no_line_and_those_before_are_kept() -> None:
    for end in (b"\n", b""):
        splitter = LineSplitter()
        found = splitter.feed(b'{"a":1}\n\0\n{"b":2}' + end + b"\0" * 512) + splitter.finish()
        assert (found, splitter.padded) == ([(1, b'{"a":1}'), (2, b"\0"), (3, b'{"b":2}')], True)
    assert not LineSplitter().padded


def test_an_overlong_line_costs_that_line_and_no_more_memory_than_the_limit() -> None:
    long = b"x" * 50
    expected = [(1, b"a"), OverlongLine(2, long), (3, b"b")]
    assert split(b"a\n", long, b"\nb", max_line=40) == expected
    assert split(b"a\n" + long + b"\nb", max_line=40) == expected


def test_lines_after_an_overlong_line_across_chunks_are_read() -> None:
    found = split(b"y" * 30, b"y" * 30, b"y" * 30, b"\nok\n", max_line=40)
    assert [item for item in found if not isinstance(item, OverlongLine)] == [(2, b"ok")]
    assert sum(isinstance(item, OverlongLine) for item in found) == 1
