"""Reads documents in a separate process, limited in time and memory, and killed if it exceeds them.

The event loop never waits for a parser. `text_of` reads the bytes.
"""

from __future__ import annotations

import resource
from contextlib import suppress

import anyio
import anyio.to_process

from connectors.documents.text_of import UnreadableDocumentError, text_of

READ_TIME_S = 30.0  # of one document, without the wait for its turn and for the process to start
START_TIME_S = 30.0  # of the process; longer than anyio's own limit, 20 s, for its first sign of life
READ_MEMORY_BYTES = 1 << 30  # of the process: a decompression bomb ends there
_PROCESSES = 1  # parsers are CPU-bound, and the machine has other work


class DocumentReader:
    """Reads the text of documents, one at a time."""

    def __init__(self, *, time_s: float = READ_TIME_S, start_s: float = START_TIME_S) -> None:
        self._time_s = time_s
        self._start_s = start_s
        self._turn = anyio.CapacityLimiter(_PROCESSES)

    async def read(self, content: bytes, content_type: str) -> tuple[str | None, str | None]:
        """The text, or why there is none."""
        if content_type.partition(";")[0].strip().lower() == "text/plain" and not content.startswith(
            (b"%PDF", b"{\\rtf")
        ):
            return _within_bounds(content, content_type)  # plain text needs no parser, so no separate process
        async with self._turn:
            if not await self._has_started():
                return None, "the reading process did not start"
            try:
                with anyio.move_on_after(self._time_s):
                    return await anyio.to_process.run_sync(_bounded, content, content_type, cancellable=True)
            except anyio.BrokenWorkerProcess:
                return None, "reading it crashed the reading process"
        return None, f"reading it took longer than {self._time_s:g} s"

    async def _has_started(self) -> bool:
        # anyio leaves a process behind, with its pipes, that is given up before its first sign of life (4.16, to_process)
        with anyio.move_on_after(self._start_s, shield=True):
            try:
                await anyio.to_process.run_sync(_started, cancellable=True)
            except anyio.BrokenWorkerProcess:
                return False
            return True
        return False


def _started() -> None:
    """Do nothing: an answer shows that the process has started."""


def _bounded(content: bytes, content_type: str) -> tuple[str | None, str | None]:
    with suppress(ValueError, OSError):  # a limit that is lower already, or none on this system
        resource.setrlimit(resource.RLIMIT_AS, (READ_MEMORY_BYTES, READ_MEMORY_BYTES))
    return _within_bounds(content, content_type)


def _within_bounds(content: bytes, content_type: str) -> tuple[str | None, str | None]:
    try:
        return text_of(content, content_type), None
    except UnreadableDocumentError as error:
        return None, str(error)
    except MemoryError:
        return None, f"reading it took more than {READ_MEMORY_BYTES >> 20} MB"
