"""What exports need of a snapshot, as protocols; `snapshots.reader` is the real one.

A snapshot is one consistent moment of the store: what it says does not change while it is read, and equal data gives equal
bytes, in the order (connection, id).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Protocol

from psycopg.sql import Composable


class OpenRun(Protocol):
    """A run that has not ended."""

    @property
    def run(self) -> int:
        """Its number."""

    @property
    def connection(self) -> str:
        """The name of its connection."""

    @property
    def began(self) -> datetime:
        """When it began."""


class RowChunks(Protocol):
    """A stream of bytes that knows, once it has ended, how many rows it carried."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks of any size; a row may be split between two."""

    @property
    def rows(self) -> int:
        """Rows so far; without a header."""

    @property
    def rows_by_query(self) -> list[int]:
        """Rows of each part that has been read to its end; of NDJSON, a part is a connection, in the snapshot's order."""


class Snapshot(Protocol):
    """Live resources of a selection, as they stood at one moment."""

    @property
    def as_of(self) -> datetime:
        """The moment that the data stands for; equal for equal data."""

    @property
    def runs(self) -> tuple[int, ...]:
        """The newest finished run of each connection in the selection."""

    @property
    def not_included(self) -> tuple[OpenRun, ...]:
        """Runs of these connections that have not ended: nothing of them is in the snapshot."""

    @property
    def connections(self) -> tuple[str, ...]:
        """The connections of the selection, in the order in which NDJSON has them."""

    async def types(self) -> Mapping[str, int]:
        """Live rows by resource type, those of the selection only."""

    async def present(self) -> Mapping[str, int | None]:
        """The types of which the selection has anything, with about how many rows of each; None: not known."""

    def ndjson(self, resource_type: str) -> RowChunks:
        """Every live resource of a type as one line of JSON."""

    def sources(self, resource_type: str) -> tuple[Composable, ...]:
        """FROM items with columns (connection text, id text, body jsonb), one a connection in their order, for compiled views."""

    def csv(self, *queries: Composable) -> RowChunks:
        """The rows of queries of the same columns as CSV, the header once."""

    async def fetch(self, query: Composable) -> list[tuple[Any, ...]]:
        """All rows of a query: for counts, not for data."""
