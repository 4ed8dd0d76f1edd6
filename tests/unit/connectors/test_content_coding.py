"""Decompression: what comes out, and what is noticed when bytes are missing or wrong."""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.transport.content_coding import (
    PIECE_BYTES,
    UNREQUESTED,
    BombError,
    ContentCodingError,
    UnrequestedCodingError,
    codings_of,
    decoder,
)

NDJSON = b'{"resourceType":"Patient","id":"p1"}\n' * 500


def decoded(body, coding="", *, json_expected=True, step=1000):
    chain = decoder(coding, json_expected=json_expected)
    pieces = [piece for at in range(0, len(body), step) for piece in chain.feed(body[at : at + step])]
    return b"".join([*pieces, *chain.finish()])


@pytest.mark.parametrize("step", [1, 7, 10**6])
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("", NDJSON),
        ("gzip", gzip.compress(NDJSON, mtime=0)),
        ("x-gzip", gzip.compress(NDJSON, mtime=0)),
        ("", gzip.compress(NDJSON, mtime=0)),
        ("gzip", gzip.compress(gzip.compress(NDJSON, mtime=0), mtime=0)),
        ("gzip, gzip", gzip.compress(gzip.compress(NDJSON, mtime=0), mtime=0)),
        ("", gzip.compress(gzip.compress(NDJSON, mtime=0), mtime=0)),
        ("gzip", NDJSON),
        ("deflate", zlib.compress(NDJSON)),
        ("deflate", zlib.compress(NDJSON, wbits=-15)),
        ("deflate, gzip", gzip.compress(zlib.compress(NDJSON), mtime=0)),
        ("gzip, deflate", zlib.compress(gzip.compress(NDJSON, mtime=0))),
        ("deflate", NDJSON),
        ("deflate", gzip.compress(NDJSON, mtime=0)),
        ("deflate, deflate", zlib.compress(zlib.compress(NDJSON))),
        ("deflate, deflate", zlib.compress(NDJSON)),
        ("UTF-8", NDJSON),
        ("utf-8", gzip.compress(NDJSON, mtime=0)),
        ("aws-chunked", NDJSON),
        ("aws-chunked", gzip.compress(NDJSON, mtime=0)),
        ("aws-chunked,gzip", gzip.compress(NDJSON, mtime=0)),
        ("gzip, aws-chunked", NDJSON),
        ("binary", NDJSON),
        ("none", NDJSON),
        ("gzip;q=1.0", gzip.compress(NDJSON, mtime=0)),
        ("UTF-8, deflate", zlib.compress(NDJSON)),
        ("gzip", gzip.compress(NDJSON[:999], mtime=0) + gzip.compress(NDJSON[999:], mtime=0) + b"\0" * 9),
        ("gzip", gzip.compress(NDJSON[:999], mtime=0) + b"\n" + gzip.compress(NDJSON[999:], mtime=0) + b"\r\n"),
    ],
)
def test_json_is_decoded_whatever_content_encoding_the_headers_claim(coding, body, step):
    assert decoded(body, coding, step=step) == NDJSON


@given(st.binary(max_size=300), st.integers(0, 3), st.integers(1, 50))
def test_encoding_and_decoding_gives_the_same_bytes(data, layers, step):
    body = b"{" + data
    packed = body
    for _ in range(layers):
        packed = gzip.compress(packed)
    assert decoded(packed, step=step) == body


@pytest.mark.parametrize("wbits", [15, -15])
@pytest.mark.parametrize("begins", [b"{", b"[", b"\xef\xbb\xbf{", b"\n{", b" "])
@given(text=st.text(max_size=60), level=st.integers(0, 9))
def test_deflated_json_is_never_mistaken_for_plain_json(begins, wbits, text, level):
    body = begins + text.encode()
    packer = zlib.compressobj(level, wbits=wbits)
    assert decoded(packer.compress(body) + packer.flush(), "deflate") == body


def test_a_gzip_attachment_is_not_decompressed():
    packed = gzip.compress(b"report")
    assert decoded(packed, json_expected=False) == packed
    assert decoded(gzip.compress(packed), "gzip", json_expected=False) == packed


@pytest.mark.parametrize("missing", [1, 4, 8, 9, 60])
@pytest.mark.parametrize("step", [7, 10**6])
def test_a_truncated_gzip_body_is_noticed(missing, step):
    with pytest.raises(ContentCodingError, match="too early"):
        decoded(gzip.compress(NDJSON, mtime=0)[:-missing], "gzip", step=step)


@pytest.mark.parametrize("wbits", [15, -15])
@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_truncated_deflate_body_is_noticed(wbits, kept):
    with pytest.raises(ContentCodingError, match="too early"):
        decoded(zlib.compress(NDJSON, wbits=wbits)[:kept], "deflate", step=7)


def test_bytes_after_a_deflate_body_are_noticed():
    with pytest.raises(ContentCodingError, match="followed"):
        decoded(zlib.compress(NDJSON) + b"more", "deflate")


def test_a_deflate_bomb_ends_early():
    with pytest.raises(BombError):
        decoded(zlib.compress(b" " * (100 << 20), 9), "deflate", step=10**6)


@pytest.mark.parametrize(
    ("coding", "body", "proved"),
    [
        ("", NDJSON, False),
        ("", gzip.compress(NDJSON, mtime=0), True),
        ("gzip", gzip.compress(NDJSON, mtime=0), True),
        ("gzip", NDJSON, False),
        ("deflate", zlib.compress(NDJSON), True),
    ],
)
def test_only_a_compressed_body_proves_its_own_end(coding, body, proved):
    chain = decoder(coding, json_expected=True)
    assert b"".join([*chain.feed(body), *chain.finish()]) == NDJSON
    assert chain.proves_its_end is proved


@pytest.mark.parametrize("at", [-8, -6, 20])
def test_a_damaged_gzip_body_is_noticed(at):
    body = bytearray(gzip.compress(NDJSON, mtime=0))
    body[at] ^= 0xFF
    with pytest.raises(ContentCodingError):
        decoded(bytes(body), "gzip")


@given(st.binary(max_size=200))
def test_bytes_that_only_look_like_gzip_never_crash_the_reader(tail):
    with suppress(ContentCodingError):
        assert isinstance(decoded(b"\x1f\x8b" + tail), bytes)


def test_a_gzip_bomb_comes_out_in_small_pieces():
    bomb = gzip.compress(b"\0" * (20 * PIECE_BYTES))
    assert max(map(len, decoder("gzip", json_expected=True).feed(bomb))) <= PIECE_BYTES


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "BR", "aws-chunked, zstd"])
@pytest.mark.parametrize("json_expected", [True, False])
def test_an_unrequested_content_coding_is_refused_by_name(coding, json_expected):
    with pytest.raises(UnrequestedCodingError) as caught:
        decoded(b"xx", coding, json_expected=json_expected)
    assert caught.value.coding == coding.rpartition(",")[2].strip().lower()


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "dcz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda body: gzip.compress(gzip.compress(body))])
def test_an_unrequested_coding_that_the_bytes_disprove_is_ignored_for_json(coding, pack):
    assert decoded(pack(NDJSON), coding) == NDJSON
    with pytest.raises(UnrequestedCodingError):
        decoded(pack(NDJSON), coding, json_expected=False)


@pytest.mark.parametrize("body", [b"x", b"\x0b\x02\x80hello\x03", b"[]"])
def test_an_unrequested_coding_is_believed_for_any_other_bytes(body):
    with pytest.raises(UnrequestedCodingError, match="br"):
        decoded(body, "br")


def test_undeclared_zstd_is_recognised_by_its_bytes_where_json_was_requested():
    with pytest.raises(UnrequestedCodingError, match="zstd"):
        decoded(b"\x28\xb5\x2f\xfd\x04\x00")


@pytest.mark.parametrize("coding", ["UTF-8", "aws-chunked", "binary"])
def test_a_document_with_an_unknown_content_coding_is_not_decoded(coding):
    packed = gzip.compress(b"report")
    assert decoded(packed, coding, json_expected=False) == packed
    assert decoded(gzip.compress(packed), f"{coding},gzip", json_expected=False) == packed


def test_a_body_may_have_only_a_few_content_codings():
    with pytest.raises(ContentCodingError, match="more than 3 times"):
        decoded(b"xx", "gzip, gzip, gzip, gzip", json_expected=False)


@given(st.text(max_size=40))
def test_any_header_gives_known_codings_or_none(text):
    assert set(codings_of(text)) <= {"gzip", "x-gzip", "deflate", *UNREQUESTED}


def test_an_empty_body_is_empty_whatever_its_coding():
    assert decoded(b"", "gzip") == b""
    assert decoded(b"", "br") == b""
