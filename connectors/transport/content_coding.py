"""Decompression of bodies, whatever the headers say of them; pure, bounded, with ISA-L.

Where JSON was asked for, the bytes decide: JSON never begins with 1f 8b and gzip always does, so a missing
Content-Encoding, a false one and gzip within gzip (vendors.md F23) all read right. Elsewhere (attachments) only the header
counts, since a .gz file may be what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from isal import igzip_lib

GZIP_MAGIC = b"\x1f\x8b"
PIECE_BYTES = 1 << 20  # decompressed pieces are at most this long: a gzip bomb costs time, not memory
MAX_LAYERS = 3
_GZIP = ("gzip", "x-gzip")
_DAMAGED: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub says instance, it is a class


class ContentCodingError(Exception):
    """A body that ends too early or is damaged; the message never quotes it."""


class _Layer(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> Iterator[bytes]: ...


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def finish(self) -> Iterator[bytes]:
        return iter(())


class _NotAskedFor:
    def feed(self, data: bytes) -> Iterator[bytes]:
        raise ContentCodingError("its Content-Encoding is not gzip, the only one asked for")

    def finish(self) -> Iterator[bytes]:
        return iter(())


class _Gunzip:
    """Any number of gzip members, zero padding between and after them."""

    def __init__(self) -> None:
        self._member: igzip_lib.IgzipDecompressor | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._member is None:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._member = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except _DAMAGED:
                piece = None
            if piece is None:  # outside `except`: nothing of the body may hang on the error as its context
                raise ContentCodingError("its gzip data is damaged")
            if piece:
                yield piece
            data = b""
            if self._member.eof:
                data, self._member = self._member.unused_data, None
            elif self._member.needs_input:
                return

    def finish(self) -> Iterator[bytes]:
        if self._member is not None:
            raise ContentCodingError("its gzip data ends too early")
        return iter(())


class _Sniff:
    """Looks at the first two bytes, then becomes gzip (with another look at what comes out) or plain."""

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._held = b""
        self._chain: Chain | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._chain is None:
            self._held += data
            if len(self._held) < len(GZIP_MAGIC):
                return
            data, self._held = self._held, b""
            packed = data.startswith(GZIP_MAGIC) and self._layers > 0
            self._chain = Chain([_Gunzip(), _Sniff(self._layers - 1)] if packed else [_Plain()])
        yield from self._chain.feed(data)

    def finish(self) -> Iterator[bytes]:
        if self._held:
            yield self._held
        if self._chain is not None:
            yield from self._chain.finish()


class Chain:
    """Layers one behind the other."""

    def __init__(self, layers: list[_Layer]) -> None:
        self._layers = layers

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces that come out for `data` going in."""
        return _through(self._layers, iter((data,)))

    def finish(self) -> Iterator[bytes]:
        """The last pieces; raises ContentCodingError when something is missing."""
        for position, layer in enumerate(self._layers):
            yield from _through(self._layers[position + 1 :], layer.finish())


def _through(layers: list[_Layer], pieces: Iterator[bytes]) -> Iterator[bytes]:
    for layer in layers:
        pieces = _fed(layer, pieces)
    return pieces


def _fed(layer: _Layer, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from layer.feed(piece)


def decoder(content_encoding: str, *, json_expected: bool) -> Chain:
    """The layers that undo a body's coding; other codings than gzip fail when bytes come."""
    codings = [name for part in content_encoding.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if any(name not in _GZIP for name in codings):
        return Chain([_NotAskedFor()])
    if json_expected:
        return Chain([_Sniff(MAX_LAYERS)])
    return Chain([_Gunzip() for _ in codings] or [_Plain()])
