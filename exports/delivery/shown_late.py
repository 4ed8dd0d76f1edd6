"""Delivers a stream of bytes to a file or a stream: all of it or nothing, and only once the read is in the audit."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterable, Awaitable, Callable
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from exports.delivery.files import AtomicFile, Compress, DeliveredFile, Encoder

_IN_MEMORY_BYTES = 16 << 20


class CountedChunks(AsyncIterable[bytes], Protocol):
    """Bytes, and once they are read to the end, the number of rows in them."""

    @property
    def rows(self) -> int:
        """Rows so far."""


async def deliver_late(
    content: CountedChunks,
    out: Path | BinaryIO,
    *,
    end: Callable[[], Awaitable[None]],
    kind: str,
    compress: Compress | None = None,
) -> DeliveredFile:
    """Write the content, call `end`, which notes the read in the audit and commits, then show it.

    A stream is not compressed; a path as `compress` says, or if it ends in `.gz`. What a stream will get is kept back in
    memory, and beyond 16 MB in a nameless temporary file.

    Raises:
        DestinationError: the file cannot be written.
    """
    if isinstance(out, Path):
        by_name: Compress = "small" if out.suffix == ".gz" else "no"
        with AtomicFile(out, compress=compress or by_name) as file:
            async for chunk in content:
                file.write(chunk)
            delivered = file.seal(kind=kind, rows=content.rows)
            await end()
            file.place()
            return delivered
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as kept_back:
        encoder = Encoder(kept_back, compress="no")  # type: ignore[arg-type]  # a binary stream in all but its type
        try:
            async for chunk in content:
                encoder.write(chunk)
            encoder.finish()
        finally:
            encoder.abandon()  # its thread, before the file that it writes
        kept_back.seek(0)
        await end()
        _show(kept_back, out)
    return encoder.delivered(path="-", kind=kind, rows=content.rows)


def _show(kept_back: IO[bytes], stream: BinaryIO) -> None:
    shutil.copyfileobj(kept_back, stream)
    stream.flush()
