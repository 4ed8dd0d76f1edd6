"""Reads the body of one response: decompressed, in pieces of bounded size, with failures distinguished from the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Self

import httpx

from connectors.fhir.transport.content_coding import GZIP_MAGIC, Chain, ContentCodingError, codings_of, decoder

LEAST_RATE = 512  # bytes a second over the wire, once patience has run out: a byte now and then is no answer either


class BodyReader:
    """Decompressed pieces, none empty, readable once.

    Raises httpx.TransportError when the connection fails or the body is shorter than announced, ContentCodingError when the
    compressed data is cut or damaged; httpx.ReadTimeout also when the wire has been waited on for more than `patience_s` and
    gives less than LEAST_RATE beyond that, though it is never silent.

    `raw_bytes` counts what has come over the wire. A body that was cut goes on in the answer to a Range from there on: its
    reader `continues` the cut one's, decompression included; `is_whole_so_far` says that nothing read was damaged,
    `is_plain` that raw bytes are the body's own. `proves_its_end`, once it has been read: a length, chunks or a trailer said that
    this was all of it; without them a closed connection is the end, also of a body that was cut. A reader of a part sets
    `goes_on` where another part follows: compressed data may then end anywhere.
    """

    def __init__(
        self,
        response: httpx.Response,
        *,
        json_expected: bool,
        continues: BodyReader | None = None,
        patience_s: float = 300,
    ) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._raw: AsyncIterator[bytes] = response.stream.__aiter__()
        coding = response.headers.get("content-encoding", "")
        self.chain: Chain = decoder(coding, json_expected=json_expected) if continues is None else continues.chain
        self.raw_bytes: int = 0 if continues is None else continues.raw_bytes
        self.is_whole_so_far = True
        self.goes_on = False
        self.is_plain: bool = not codings_of(coding) if continues is None else continues.is_plain
        self._framed = (
            "content-length" in response.headers or "chunked" in response.headers.get("transfer-encoding", "").lower()
        )
        self._request = response.request
        self._patience_s = patience_s
        self._waited_s = 0.0
        self._got = 0
        self._pieces: Iterator[bytes] = iter(())
        self._ended = False
        self._held: bytes | None = None

    @property
    def proves_its_end(self) -> bool:
        """Return the iterator over the pieces."""
        return self._framed or self.chain.proves_its_end

    async def peek(self) -> bytes:
        """The first piece, which stays to be read; b"" for an empty body."""
        if self._held is None:
            self._held = await anext(self, b"")
        return self._held

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._held:
            held, self._held = self._held, b""
            return held
        while True:
            try:
                for piece in self._pieces:
                    if piece:
                        return piece
            except ContentCodingError:
                self.is_whole_so_far = False
                raise
            if self._ended:
                raise StopAsyncIteration
            began = time.monotonic()
            try:
                raw = await anext(self._raw)
            except StopAsyncIteration:
                self._ended = True
                self._pieces = iter(()) if self.goes_on else self.chain.finish()
            else:
                self._keep_pace(time.monotonic() - began, len(raw))
                self.is_plain = self.is_plain and (self.raw_bytes > 0 or not raw.startswith(GZIP_MAGIC[:1]))
                self.raw_bytes += len(raw)  # together with `feed`: a body that goes on misses nothing
                self._pieces = self.chain.feed(raw)

    def _keep_pace(self, waited_s: float, size: int) -> None:
        """Count only waiting: a body is not slow because its reader is."""
        self._waited_s += waited_s
        self._got += size
        if self._got < LEAST_RATE * (self._waited_s - self._patience_s):
            raise httpx.ReadTimeout("slower than the slowest allowed speed", request=self._request)

    async def read(self, limit: int) -> tuple[bytes, bool]:
        """All of it, and True; or the first pieces and False, once they are more than `limit` bytes."""
        pieces: list[bytes] = []
        size = 0
        async for piece in self:
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                return b"".join(pieces), False
        return b"".join(pieces), True
