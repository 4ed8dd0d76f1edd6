"""NDJSON: the resources of one type, one a line, straight from the store's bytes."""

from __future__ import annotations

from exports.snapshot_port import RowChunks, Snapshot


def ndjson_rows(snapshot: Snapshot, resource_type: str) -> RowChunks:
    """Every live resource of a type, as FHIR NDJSON: one JSON object a line, and a line feed after each."""
    return snapshot.ndjson(resource_type)
