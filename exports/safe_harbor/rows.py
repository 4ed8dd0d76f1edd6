"""The resources of a snapshot, de-identified, as lines of JSON ordered by their keyed ids: another order would reveal the ids."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import BinaryIO, Self

from exports.safe_harbor.deidentify import Deidentifier
from exports.snapshot_port import RowChunks, Snapshot

_CHUNK_BYTES = 1 << 20


class DeidentifiedCharts:
    """What leaves of a snapshot, type by type. Each is read and de-identified once, whatever is made of it. Use as a context.

    Until the end it is in nameless temporary files. While a type is sorted, its file exists twice, and some 200 bytes a resource
    are in memory: its position.
    """

    def __init__(self, deidentifier: Deidentifier) -> None:
        self.deidentifier = deidentifier
        self._files = ExitStack()
        self._of_types: dict[str, BinaryIO] = {}
        self._at_work: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._files.close()

    async def lines(self, resource_type: str, snapshot: Snapshot) -> AsyncIterator[bytes]:
        """Yield the resources of a type in chunks of about 1 MB, each of whole lines."""
        async with self._at_work[resource_type]:  # two sessions may want one type
            if resource_type not in self._of_types:
                self._of_types[resource_type] = await self._sorted(resource_type, snapshot.ndjson(resource_type))
        for chunk in _chunks(self._of_types[resource_type]):
            yield chunk

    async def _sorted(self, resource_type: str, chunks: RowChunks) -> BinaryIO:
        with tempfile.TemporaryFile(prefix="chartferry-") as kept:
            places: list[tuple[bytes, int, int]] = []
            rest = b""
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    found = self.deidentifier.line(resource_type, line)
                    if found is not None:
                        places.append((found.order, kept.tell(), len(found.text)))
                        kept.write(found.text)
            in_order = self._files.enter_context(tempfile.TemporaryFile(prefix="chartferry-"))  # noqa: SIM115 - of the export
            for _, at, length in sorted(places):
                kept.seek(at)
                in_order.write(kept.read(length))
            return in_order


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield whole lines; somebody else may read the file between two chunks."""
    at = 0
    while True:
        file.seek(at)
        chunk = file.read(_CHUNK_BYTES)
        if not chunk:
            return
        chunk += file.readline()
        at += len(chunk)
        yield chunk


class DeidentifiedRows:
    """The resources of one type as NDJSON; read them once. `rows` counts those that were given so far."""

    def __init__(self, charts: DeidentifiedCharts, resource_type: str, snapshot: Snapshot) -> None:
        self._lines = charts.lines(resource_type, snapshot)
        self.rows = 0

    @property
    def rows_by_query(self) -> list[int]:
        """Nothing: their order does not reveal the connection."""
        return []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._lines:
            self.rows += chunk.count(b"\n")
            yield chunk
