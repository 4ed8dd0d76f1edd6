"""NDJSON: the resources of one type, one per line, straight from the store's bytes."""

from __future__ import annotations

from exports.snapshot_port import RowChunks, Snapshot


def ndjson_rows(snapshot: Snapshot, resource_type: str) -> RowChunks:
    """Return every live resource of a type as FHIR NDJSON: one JSON object per line, each followed by a line feed."""
    return snapshot.ndjson(resource_type)
