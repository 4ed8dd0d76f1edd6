"""NDJSON: the resources of one type, one per line, straight from the store's bytes."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from exports.snapshot_port import RowChunks, Snapshot


class Lines:
    """A file in the making, of lines that stay as they are."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.add = write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """It holds nothing."""

    def close(self) -> None:
        """All lines are written."""


def ndjson_rows(snapshot: Snapshot, resource_type: str) -> RowChunks:
    """Return every live resource of a type as FHIR NDJSON: one JSON object per line, each followed by a line feed."""
    return snapshot.ndjson(resource_type)
