"""What runs left in the store, read back by SQL: for judging what connectors write. Runs are opened on the real store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

import anyio
import psycopg
from psycopg import sql

from snapshots.beginning import utc_now
from snapshots.ledger import OpenRun
from snapshots.report import RunScope
from snapshots.store import Store
from tests.fix_store import opened_store
from tests.user_site import written


async def cut_off(work: Awaitable[Any], when: Callable[[], bool]) -> None:
    """Do the work until `when` says that it is time to be killed."""

    async def watch(scope: anyio.CancelScope) -> None:
        while not when():  # noqa: ASYNC110  what is waited for lies in another thread's server, or in the database
            await anyio.sleep(0.02)
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, tasks.cancel_scope)
        await work


class Ended(NamedTuple):
    """How the ledger says that a unit stands."""

    kind: str
    resource_type: str
    state: str
    complete_listing: bool


class KeptRows:
    """One tenant of a test's own database."""

    def __init__(self, store: Store, url: str, tenant: str) -> None:
        self._store = store
        self._url = url
        self._schema = sql.Identifier(f"tenant_{tenant}")

    @asynccontextmanager
    async def open(self, scope: RunScope, clock: Callable[[], datetime] = utc_now) -> AsyncIterator[OpenRun]:
        """Open a run, as the command does."""
        async with await self._store.begin_run(scope, clock) as opened:
            yield opened

    def live(self) -> dict[tuple[str, str], Any]:
        """Live resources by type and id, numbers as written."""
        rows = self._read("SELECT resource_type, id, body::text FROM {}.resource WHERE deleted_run IS NULL")
        return {(kind, id_): written(body) for kind, id_, body in rows}

    def units(self) -> list[Ended]:
        """Units of the newest run, as they were planned."""
        newest = (
            "SELECT kind, resource_type, state, complete_listing FROM {0}.unit"
            " WHERE run = (SELECT max(id) FROM {0}.run) ORDER BY ordinal"
        )
        return [Ended(*row) for row in self._read(newest)]

    def job_deleted(self) -> bool | None:
        """Whether the newest run's export was deleted at the server; None without an export."""
        rows = self._read("SELECT deleted FROM {0}.bulk_job WHERE run = (SELECT max(id) FROM {0}.run)")
        return rows[0][0] if rows else None

    def watermarks(self) -> dict[str, str]:
        """Watermarks by type."""
        return dict(self._read("SELECT resource_type, instant FROM {}.watermark"))

    def _read(self, query: str) -> list[Any]:
        with psycopg.connect(self._url) as conn:
            return conn.execute(sql.SQL(query).format(self._schema)).fetchall()


@asynccontextmanager
async def kept_rows(url: str, tenant: str) -> AsyncIterator[KeptRows]:
    """Open a tenant more of the database at `url`."""
    async with opened_store(url, tenant) as store:
        yield KeptRows(store, url, tenant)
