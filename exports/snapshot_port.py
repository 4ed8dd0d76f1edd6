"""What exports need from a snapshot, as protocols; `snapshots.reader` implements them.

A snapshot is one consistent moment of the store: it does not change while it is read, and equal data give equal bytes, in the
order (connection, id).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

from psycopg.sql import Composable

from snapshots.identifying import SealedElements


class UnendedRun(Protocol):
    """A run that has not ended."""

    @property
    def run(self) -> int:
        """The run's number."""

    @property
    def connection(self) -> str:
        """The name of its connection."""

    @property
    def began(self) -> datetime:
        """The time at which it began."""


class ShownRun(Protocol):
    """The newest run of a connection that left anything in a snapshot."""

    @property
    def run(self) -> int:
        """The run's number."""

    @property
    def connection(self) -> str:
        """The name of its connection."""

    @property
    def kind(self) -> str:
        """What it fetched: "sync" or "pull"."""

    @property
    def state(self) -> str:
        """How it ended: "complete", "partial", "failed" or "nothing"."""

    @property
    def last_complete(self) -> int | None:
        """The connection's newest complete sync."""


class RowChunks(Protocol):
    """A stream of bytes that counts its rows."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks of any size; a row may be split between two."""

    @property
    def rows(self) -> int:
        """Rows so far, without the header."""

    @property
    def rows_by_query(self) -> list[int]:
        """Rows of each part that was read to its end; in NDJSON, a part is a connection, in the snapshot's order."""


class Snapshot(Protocol):
    """The live resources of a selection at one moment."""

    @property
    def as_of(self) -> datetime:
        """The moment that the data represent; equal for equal data."""

    @property
    def runs(self) -> tuple[int, ...]:
        """The newest finished run of each connection in the selection that left anything."""

    @property
    def left_by(self) -> int | None:
        """The run of these that ended last: `changed_since` it is what has changed since this moment. None: there is none."""

    @property
    def shown(self) -> tuple[ShownRun, ...]:
        """The same runs, and how they ended."""

    @property
    def not_included(self) -> tuple[UnendedRun, ...]:
        """Runs of these connections that have not ended; the snapshot contains nothing of them."""

    @property
    def connections(self) -> tuple[str, ...]:
        """The connections of the selection, in NDJSON's order."""

    def beside(self) -> AbstractAsyncContextManager[Snapshot]:
        """Give the same rows of the same moment in a session of its own, to be read at the same time; it ends before this one.

        Raises:
            StoreUnavailableError: the server gives no further session.
        """

    def lent(self) -> AbstractAsyncContextManager[None]:
        """Let the streams of snapshots beside this one read in its session too, until the end of the block; it reads nothing."""

    @property
    def sealed(self) -> SealedElements | None:
        """What is encrypted: NDJSON has it decrypted, SQL has not. None: the store is plain."""

    @property
    def mask(self) -> str | None:
        """What NDJSON and `unsealed` give instead of each encrypted value; None: the value."""

    def unsealed(self, token: bytes, resource_type: str) -> bytes:
        """Return an encrypted value of a type's row as JSON: a string or a number, as Postgres writes jsonb."""

    @property
    def changed_since(self) -> int | None:
        """The run since which the rows have changed; None: the snapshot has all rows."""

    @property
    def changed_from(self) -> datetime | None:
        """The moment that the data represented after that run: `as_of` of a snapshot that was taken then."""

    @property
    def changed_from_run(self) -> int | None:
        """What `left_by` was after that run."""

    @property
    def erasures(self) -> int:
        """How many patients of these connections have been erased by now; what was read before that has their charts."""

    @property
    def erased_since(self) -> tuple[str, ...]:
        """The connections of which a patient was erased after `changed_since` had ended; changes cannot tell whose chart."""

    async def narrow(
        self,
        *,
        keep: Mapping[str, Composable] | None = None,
        sample: int | None = None,
        seed: int = 0,
        limit: int | None = None,
    ) -> None:
        """Narrow the selection, before anything is read of it.

        `keep`: by type, what its rows must meet, a condition on the row `r` with (connection, id text, body jsonb). `sample`: so
        many of the patients that are left, and what their charts refer to. `limit`: no stream gives more rows.
        """

    def removed(self) -> RowChunks:
        """Return the keys that the selection has lost since then, each as one line of JSON with `type` and `id`."""

    async def differences(self) -> RowChunks:
        """Return what differs from then, each as one line of JSON.

        With `type`, `id`, `patient` (or null), `change` ("added", "changed", "deleted"), and, of what has changed, `old` and
        `new`: its contents as texts. Ordered by (connection, patient, type, id).
        """

    async def types(self) -> Mapping[str, int]:
        """Return the number of live rows by resource type, within the selection."""

    async def present(self) -> Mapping[str, int | None]:
        """Return the types that the selection contains, with the approximate number of rows; None: not known."""

    async def not_stored(self) -> tuple[int, int]:
        """Return how many of the patients that the selection names have no Patient at this moment, and how many it names."""

    def ndjson(self, resource_type: str) -> RowChunks:
        """Return every live resource of a type, each as one line of JSON."""

    def entries(self, resource_type: str) -> RowChunks:
        """Return the same resources as entries of a Bundle, one a line: `resource`, and `fullUrl` below the EHR's base."""

    def sources(
        self, resource_type: str, *, documents: bool = False, divisible: bool = False
    ) -> tuple[Composable, ...]:
        """Return FROM items with columns (connection text, id text, body jsonb), one per connection, for compiled views.

        `documents`: bodies have what is stored of their documents, as an extension (`snapshots.stored_documents`); and what has
        changed since a run are also rows of whose documents something has become. `divisible`: by stretches of ids.
        """

    def csv(self, *queries: Composable, resource_type: str | None = None) -> RowChunks:
        """Return the rows of queries of the same columns as CSV, with one header.

        `resource_type`: there is one for each of its divisible `sources`, with rows in the order of ids: sessions may share them.
        """

    def table(self, query: Composable) -> RowChunks:
        """Return the rows of any one query as CSV, with a header."""

    async def columns(self, query: Composable) -> list[tuple[str, str]]:
        """Return the names and SQL types of a query's columns, without their modifiers: ("n", "int8"), ("ids", "text[]")."""

    async def limit(self, *, seconds: int, memory_mb: int) -> None:
        """Bound what each further statement may take."""

    async def end(self) -> None:
        """Note in the audit what was read, in sessions beside this one too, and commit.

        Show nothing before; nothing more can be read after it.
        """

    async def fetch(self, query: Composable, values: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
        """Return all rows of a query: for counts, not for data. `values` are bound, so that no statement has them."""
