"""The resources of one type, de-identified, as NDJSON by their keyed ids: another order would tell of the former ids."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator

from exports.safe_harbor.deidentify import Deidentifier
from exports.snapshot_port import RowChunks

_CHUNK_BYTES = 1 << 18


class DeidentifiedRows:
    """Lines of JSON, one a resource, in chunks; read them once. `rows` counts those that were given so far.

    What may leave waits in a nameless temporary file until all is read, and in memory some 200 bytes a resource: where it stands.
    """

    def __init__(self, chunks: RowChunks, resource_type: str, deidentifier: Deidentifier) -> None:
        self._chunks = chunks
        self._type = resource_type
        self._deidentifier = deidentifier
        self.rows = 0

    @property
    def rows_by_query(self) -> list[int]:
        """Nothing: their order does not tell whose they are."""
        return []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with tempfile.TemporaryFile(prefix="chartferry-") as kept:
            places: list[tuple[bytes, int, int]] = []
            rest = b""
            async for chunk in self._chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    found = self._deidentifier.line(self._type, line)
                    if found is not None:
                        places.append((found.order, kept.tell(), len(found.text)))
                        kept.write(found.text)
            gathered: list[bytes] = []
            size = 0
            for _, at, length in sorted(places):
                kept.seek(at)
                gathered.append(kept.read(length))
                size += length
                if size >= _CHUNK_BYTES:
                    self.rows += len(gathered)
                    yield b"".join(gathered)
                    gathered, size = [], 0
            self.rows += len(gathered)
            yield b"".join(gathered)
