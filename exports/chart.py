"""The use case: writes everything in a snapshot as one file or stream. Meant for one patient's chart (`pull --out`)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from exports.delivery.files import DeliveredFile
from exports.delivery.shown_late import deliver_late
from exports.errors import DestinationError, PlanError
from exports.formats.bundle import HEAD, TAIL, BundleEntries
from exports.snapshot_port import Snapshot

CHART_FORMATS = ("ndjson", "bundle")


async def deliver_chart(snapshot: Snapshot, out: Path | BinaryIO, format: str) -> DeliveredFile:  # noqa: A002 - the flag's name
    """Write every live resource of the snapshot, Patient first, then by type; as NDJSON or as one Bundle (collection).

    Nothing of it is shown before the read is in the audit.

    A path that ends in `.gz` is written compressed; any other path and a stream are not. The file appears complete or not at all,
    with mode 0600. Memory does not grow with the chart.

    Raises:
        PlanError: no such format.
        DestinationError: the file cannot be written.
    """
    if format not in CHART_FORMATS:
        raise PlanError(f"no such chart format: {format}; allowed: {', '.join(CHART_FORMATS)}")
    types = sorted(await snapshot.types(), key=lambda name: (name != "Patient", name))
    content = _Content(snapshot, types, format)
    return await deliver_late(content, out, end=snapshot.end, kind=format)


def check_place(place: str) -> None:
    """Refuse a place where no file can be made, before a chart is fetched for it or a query runs.

    Raises:
        DestinationError: it is a folder, or its folder is not there or may not be written.
    """
    out = Path(place)
    if out.is_dir() or place.endswith("/"):
        raise DestinationError(f"cannot write {out}: it is a folder; name a file in it")
    if not out.parent.is_dir():
        raise DestinationError(f"cannot write {out}: there is no folder {out.parent}; create it, or name another place")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise DestinationError(f"cannot write {out}: you may not write to {out.parent}; name another place")


class _Content:
    """The bytes of a chart and, once they are read to the end, the number of resources in them."""

    def __init__(self, snapshot: Snapshot, types: list[str], format_: str) -> None:
        self._snapshot = snapshot
        self._types = types
        self._bundle = BundleEntries() if format_ == "bundle" else None
        self.rows = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._bundle is not None:
            yield HEAD
        for resource_type in self._types:
            of_bundle = self._bundle is not None
            chunks = self._snapshot.entries(resource_type) if of_bundle else self._snapshot.ndjson(resource_type)
            async for chunk in chunks:
                yield self._bundle.feed(chunk) if self._bundle is not None else chunk
            self.rows += chunks.rows
        if self._bundle is not None:
            yield TAIL
