"""The use case: writes the audit as one file or stream, one line per read and patient."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from exports.audit_port import AuditedReads
from exports.delivery.files import DeliveredFile
from exports.delivery.shown_late import deliver_late
from exports.formats.audit_lines import audit_line

_CHUNK_BYTES = 256 * 1024


async def write_audit(reads: AuditedReads, tenant: str, out: Path | BinaryIO, format_: str) -> DeliveredFile:
    """Write the reads as FHIR AuditEvents ("fhir") or plain JSON lines ("json"). It appears complete or not at all.

    Raises:
        DestinationError: the file cannot be written.
    """
    return await deliver_late(_Lines(reads, tenant, format_), out, end=reads.end, kind=f"audit-{format_}")


class _Lines:
    """The lines, in chunks, and their number."""

    def __init__(self, reads: AuditedReads, tenant: str, format_: str) -> None:
        self._reads = reads
        self._tenant = tenant
        self._format = format_
        self.rows = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        waiting = bytearray()
        async for read in self._reads:
            waiting += audit_line(read, self._tenant, self._format)
            self.rows += 1
            if len(waiting) >= _CHUNK_BYTES:
                yield bytes(waiting)
                waiting.clear()
        yield bytes(waiting)
