"""Decompression of bodies, whatever the headers say of them; pure, bounded, with ISA-L.

Where JSON was requested, the bytes decide: JSON never begins with 1f 8b and gzip always does, so a missing Content-Encoding, a
wrong one and gzip within gzip (F23) are all read correctly. Deflate has no such beginning: only if the header names it is what
begins neither as gzip nor as JSON inflated. Elsewhere (attachments) only the header counts, because a .gz file
may be what was requested. Words in the header that name no coding are ignored: object stores keep what an uploader wrote there
(`aws-chunked`, `UTF-8`, `binary`). A real coding that was not requested is named in the error.

A decompression bomb ends early: no layer may produce more than MOST_TIMES what came from the wire, beyond a first FREE_BYTES.
FHIR as JSON compresses to a tenth or a thirtieth, a file of one repeated line to a four-hundredth, zeros to a thousandth,
compressed twice to a millionth.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

from isal import igzip_lib

GZIP_MAGIC = b"\x1f\x8b"
PIECE_BYTES = 1 << 20  # decompressed pieces are at most this long: a gzip bomb costs time, not memory
MAX_LAYERS = 3
MOST_TIMES = 500
FREE_BYTES = 32 << 20
_GZIP = ("gzip", "x-gzip")
_DEFLATE = "deflate"  # nobody asks for it; some servers send it all the same
# how JSON begins, and no zlib or bare deflate stream of JSON does (RFC 1951 3.2: a block of type 3, or one whose first character
# is none of ASCII; 0x7b also begins a deflated byte order mark, but then an `f` is the next byte's lower half)
_JSON_BEGINS = (b'{"', b"{ ", b"{\n", b"{\r", b"{\t", b"{}", b"[", b"\xef\xbb")
_ZSTD_MAGIC = b"\x28\xb5"  # of its four bytes; JSON never begins with a parenthesis
# codings that exist (IANA, HTTP Content Coding Registry), but are never requested
UNREQUESTED = frozenset({"aes128gcm", "br", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip", "zstd"})
_DAMAGED: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub says instance, it is a class


class ContentCodingError(Exception):
    """A body that ends too early or is damaged; the message never quotes it."""


class BombError(ContentCodingError):
    """A body that unpacks to far more than FHIR ever does; the rest was not unpacked."""


class UnrequestedCodingError(ContentCodingError):
    """A body in a coding that was not requested: asking again brings the same. `coding` is its name, one of UNREQUESTED."""

    def __init__(self, coding: str) -> None:
        super().__init__(f"it is compressed as {coding}, which was not requested")
        self.coding = coding


class _Meter:
    """What has come from the wire for one body, and what that entitles each layer to."""

    def __init__(self) -> None:
        self.wire_bytes = 0

    def check(self, given_out: int) -> None:
        if given_out > FREE_BYTES + MOST_TIMES * self.wire_bytes:
            raise BombError(f"it unpacks to more than {MOST_TIMES} times its size")


class _Layer(Protocol):
    @property
    def proves_its_end(self) -> bool:
        """Whether what came says itself where it ends."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> Iterator[bytes]: ...


class _Unrequested:
    proves_its_end = False

    def __init__(self, coding: str) -> None:
        self._coding = coding

    def feed(self, data: bytes) -> Iterator[bytes]:
        raise UnrequestedCodingError(self._coding)

    def finish(self) -> Iterator[bytes]:
        return iter(())


class _TooManyLayers:
    proves_its_end = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        raise ContentCodingError(f"it is compressed more than {MAX_LAYERS} times over")

    def finish(self) -> Iterator[bytes]:
        return iter(())


class _Gunzip:
    """Any number of gzip members, zeros or white space between and after them: padding, or what a script has appended."""

    _name = "gzip"

    def __init__(self, meter: _Meter) -> None:
        self._member: igzip_lib.IgzipDecompressor | None = None
        self._meter = meter
        self._given_out = 0
        self.proves_its_end = False

    def _begin(self, data: bytes) -> bytes:
        """Begin a member with its first bytes; return what to decompress, b"" while there is nothing."""
        data = data.lstrip(b"\0 \t\r\n" if self.proves_its_end else b"\0")
        if data:
            self._member = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
        return data

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._member is None:
                data = self._begin(data)
            if self._member is None:
                return
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except _DAMAGED:
                piece = None
            if piece is None:  # outside `except`: nothing of the body may hang on the error as its context
                raise ContentCodingError(f"its {self._name} data is damaged")
            if piece:
                self._given_out += len(piece)
                self._meter.check(self._given_out)
                yield piece
            data = b""
            if self._member.eof:
                self.proves_its_end = True
                data, self._member = self._member.unused_data, None
            elif self._member.needs_input:
                return

    def finish(self) -> Iterator[bytes]:
        if self._member is not None:
            raise ContentCodingError(f"its {self._name} data ends too early")
        return iter(())


class _Inflate(_Gunzip):
    """One stream of what HTTP calls deflate: zlib's (RFC 9110 8.4.1.2), or the bare one that some servers send."""

    _name = "deflate"
    _ZLIB = 8  # the low half of a zlib stream's first byte; its first two are a multiple of 31

    def __init__(self, meter: _Meter) -> None:
        super().__init__(meter)
        self._held = b""

    def _begin(self, data: bytes) -> bytes:
        if self.proves_its_end:
            if data:
                raise ContentCodingError("its deflate data is followed by something else")
            return b""
        self._held += data
        if len(self._held) < 2:  # noqa: PLR2004 - a zlib header
            return b""
        data, self._held = self._held, b""
        has_header = data[0] & 15 == self._ZLIB and int.from_bytes(data[:2], "big") % 31 == 0
        self._member = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_ZLIB if has_header else igzip_lib.DECOMP_DEFLATE)
        return data

    def finish(self) -> Iterator[bytes]:
        if self._held:
            raise ContentCodingError("its deflate data ends too early")
        return super().finish()


class _Sniff:
    """Looks at the first two bytes, then becomes gzip (with another look at what comes out) or plain.

    `unrequested`: a coding that the header names and the client did not request. It is believed unless the bytes are gzip's or
    an object's. `deflates`: how often the header says that the body was deflated, which is believed unless the bytes are gzip's
    or JSON.
    A brotli stream that begins with a brace is an empty one (RFC 7932 9.1), so that none is taken for JSON.
    """

    def __init__(self, layers: int, meter: _Meter, unrequested: str | None = None, deflates: int = 0) -> None:
        self._unrequested = unrequested
        self._deflates = deflates
        self._layers = layers
        self._meter = meter
        self._held = b""
        self._chain: Chain | None = None

    @property
    def proves_its_end(self) -> bool:
        return self._chain is not None and self._chain.proves_its_end

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._chain is None:
            self._held += data
            if len(self._held) < len(GZIP_MAGIC):
                return
            data, self._held = self._held, b""
            believed = self._unrequested is not None and not data.startswith((GZIP_MAGIC, b"{"))
            if believed or data.startswith(_ZSTD_MAGIC):
                raise UnrequestedCodingError(self._unrequested or "zstd")
            self._chain = Chain(self._within(data) if self._layers > 0 else [])
        yield from self._chain.feed(data)

    def _within(self, data: bytes) -> list[_Layer]:
        """The layers that undo what `data` begins; none where it begins JSON."""
        if data.startswith(GZIP_MAGIC):
            return [_Gunzip(self._meter), _Sniff(self._layers - 1, self._meter, deflates=self._deflates)]
        if self._deflates and not data.startswith(_JSON_BEGINS):
            return [_Inflate(self._meter), _Sniff(self._layers - 1, self._meter, deflates=self._deflates - 1)]
        return []

    def finish(self) -> Iterator[bytes]:
        if self._held and self._unrequested is not None:
            raise UnrequestedCodingError(self._unrequested)
        if self._held and self._deflates:
            raise ContentCodingError("its deflate data ends too early")
        if self._held:
            yield self._held
        if self._chain is not None:
            yield from self._chain.finish()


class Chain:
    """Layers one behind the other, none where nothing is packed; the outermost one counts what comes from the wire."""

    def __init__(self, layers: list[_Layer], meter: _Meter | None = None) -> None:
        self._layers = layers
        self._meter = meter

    @property
    def proves_its_end(self) -> bool:
        """Whether something was packed and came to its own end: a body that was merely cut has none."""
        return any(layer.proves_its_end for layer in self._layers)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces that come out for `data` going in; raises ContentCodingError, for a bomb BombError."""
        if self._meter is not None:
            self._meter.wire_bytes += len(data)
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


@lru_cache(maxsize=64)
def codings_of(content_encoding: str) -> tuple[str, ...]:
    """The codings that a header names, in the order in which they were put on; words that name none are no codings."""
    words = (part.partition(";")[0].strip(" \t\"'").lower() for part in content_encoding.split(","))
    return tuple(word for word in words if word in _GZIP or word == _DEFLATE or word in UNREQUESTED)


def decoder(content_encoding: str, *, json_expected: bool) -> Chain:
    """The layers that undo a body's coding; other codings than gzip, and deflate unasked, fail when bytes come."""
    codings = codings_of(content_encoding)
    unasked = next((name for name in codings if name in UNREQUESTED), None)
    meter = _Meter()
    if unasked is not None:
        return Chain([_Sniff(MAX_LAYERS, meter, unasked) if json_expected else _Unrequested(unasked)], meter)
    if json_expected:
        return Chain([_Sniff(MAX_LAYERS, meter, deflates=codings.count(_DEFLATE))], meter)
    if len(codings) > MAX_LAYERS:
        return Chain([_TooManyLayers()])
    # the last one named was put on last
    return Chain([_Inflate(meter) if name == _DEFLATE else _Gunzip(meter) for name in reversed(codings)], meter)
