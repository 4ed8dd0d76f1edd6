"""Deletions: one transaction Bundle per line, whose only entry deletes one resource (Bulk Data Access, `deleted`)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from exports.snapshot_port import RowChunks, Snapshot


class DeletionBundles:
    """Keys that a selection has lost, as Bundles; read it once. A Bundle has one entry, so that lines count resources."""

    def __init__(self, keys: RowChunks) -> None:
        self._keys = keys

    @property
    def rows(self) -> int:
        """Lines so far."""
        return self._keys.rows

    @property
    def rows_by_query(self) -> list[int]:
        """Lines of each part that was read to its end; a part is a connection, in the snapshot's order."""
        return self._keys.rows_by_query

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in self._keys:
            *lines, rest = (rest + chunk).split(b"\n")
            yield b"".join(_bundle(json.loads(line)) for line in lines)


def deletion_bundles(snapshot: Snapshot) -> DeletionBundles:
    """Return the deletions since the run since which the snapshot shows changes."""
    return DeletionBundles(snapshot.removed())


def _bundle(key: dict[str, str]) -> bytes:
    entry = {"request": {"method": "DELETE", "url": f"{key['type']}/{key['id']}"}}
    return json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [entry]}).encode() + b"\n"
