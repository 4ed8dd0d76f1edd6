"""Opens the store: finds or starts its server, upgrades the tenant's schema, provides sessions.

A run and a snapshot each have their own session, because locks and settings live in it; a short query opens one for itself.
`sessions` opens them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import platformdirs
from psycopg import AsyncConnection

from snapshots.beginning import begin, discard, utc_now
from snapshots.chart_history import ChartChange, chart_history
from snapshots.embedded import EmbeddedPostgres
from snapshots.errors import RunNotFoundError, describe_server, store_border
from snapshots.given_up import Discarded
from snapshots.ledger import OpenRun
from snapshots.migrate import migrate
from snapshots.pace import connections_down, pace_of
from snapshots.peek import Peek, peek
from snapshots.proof_session import ProofSession, open_proof
from snapshots.reader import Selection, Snapshot, open_snapshot
from snapshots.report import RunReport, RunScope
from snapshots.reports import patient_ids, recent_runs, reports
from snapshots.rights import require_writing
from snapshots.sessions import check_server, connect
from snapshots.tenancy import tenant_schema, tenant_transaction
from snapshots.traffic import Down, PaceState

EMBEDDED = "embedded"
SYSTEM_DATA = Path("/var/lib/chartferry")  # FHS 3.0, 5.8: state of one program


class Store:
    """The store of one tenant; `open_store` makes it."""

    def __init__(self, url: str, tenant: str) -> None:
        self._url = url
        self._tenant = tenant

    def __repr__(self) -> str:
        return f"Store({describe_server(self._url)}, tenant {self._tenant})"

    async def begin_run(self, scope: RunScope, clock: Callable[[], datetime] = utc_now) -> OpenRun:
        """Begin a run, or resume the connection's interrupted one of equal scope; close it when done.

        Only `clock` dates what the run does.

        Raises:
            ConnectionBusyError: another run of the connection is in progress; the message names it.
        """
        conn = await connect(self._url)
        try:
            await require_writing(conn, self._tenant)
            return await begin(conn, self._tenant, scope, clock=clock)
        except BaseException:
            await conn.close()
            raise

    @asynccontextmanager
    async def snapshot(self, selection: Selection) -> AsyncIterator[Snapshot]:
        """Open one consistent snapshot of the selection: whatever runs meanwhile, every read sees the same state."""
        conn = await connect(self._url)
        try:
            async with open_snapshot(conn, self._tenant, selection) as snapshot:
                yield snapshot
        finally:
            await conn.close()

    async def runs(self, limit: int = 20, connection: str | None = None) -> list[RunReport]:
        """Return the reports of the newest runs, newest first; a run that has not ended is "running" or "interrupted"."""
        async with self._session("listing runs") as conn:
            return await reports(conn, await recent_runs(conn, limit=limit, connection=connection))

    async def run(self, number: int) -> RunReport:
        """Return the report of one run.

        Raises:
            RunNotFoundError: this tenant has no such run.
        """
        async with self._session("reading a run") as conn:
            found = await reports(conn, [number])
        if not found:
            raise RunNotFoundError(
                f"tenant {self._tenant} has no run {number}: `chartferry runs` lists the existing ones."
            )
        return found[0]

    @asynccontextmanager
    async def peek(self, scope: RunScope) -> AsyncIterator[Peek | None]:
        """Read what a run of this scope would find, in order to plan it; None: the connection never ran."""
        conn = await connect(self._url)
        try:
            yield await peek(conn, self._tenant, scope)
        finally:
            await conn.close()

    async def discard(self, run: int, clock: Callable[[], datetime] = utc_now) -> Discarded:
        """Give up an open run, or the export job that a closed one left at its server.

        Raises:
            RunNotFoundError: this tenant has no such run.
            ConnectionBusyError: a run of its connection is in progress.
        """
        conn = await connect(self._url)
        try:
            return await discard(conn, self._tenant, run, at=clock())
        finally:
            await conn.close()

    @asynccontextmanager
    async def proof(self, connection: str) -> AsyncIterator[ProofSession]:
        """Open a session for comparing a connection's rows with its EHR; it holds no lock."""
        conn = await connect(self._url)
        try:
            await require_writing(conn, self._tenant)  # its certificate, and the pace
            yield await open_proof(conn, self._tenant, connection)
        finally:
            await conn.close()

    async def pace(self, connection: str) -> PaceState:
        """Return a connection's pace, as its last run left it."""
        async with self._session("reading the pace") as conn:
            return await pace_of(conn, connection)

    async def down(self) -> list[Down]:
        """Return the connections whose EHR was down at the last request, and until when it is assumed to be."""
        async with self._session("reading the pace") as conn:
            return await connections_down(conn)

    async def patient_ids(self, connection: str) -> list[str]:
        """Return the ids of a connection's live patients, in order; none for a connection that never ran."""
        async with self._session("listing patients") as conn:
            return await patient_ids(conn, connection)

    async def chart_history(self, connection: str, patient: str) -> list[ChartChange]:
        """Give what the runs that have ended did to a patient's chart, oldest first; nothing for an unknown patient."""
        async with self._session("reading a chart's history") as conn:
            return await chart_history(conn, connection, patient)

    @asynccontextmanager
    async def _session(self, doing: str) -> AsyncIterator[AsyncConnection[Any]]:
        conn = await connect(self._url)
        try:
            with store_border(doing):
                async with tenant_transaction(conn, self._tenant):
                    yield conn
        finally:
            await conn.close()


def embedded_directory(url: str) -> Path | None:
    """Return the directory that "embedded" or "embedded:DIR" means; None for the URL of a server.

    Root's is a system directory: the server runs under another account, which would otherwise need access to root's home.
    """
    if url == EMBEDDED and os.geteuid() == 0 and not os.environ.get("XDG_DATA_HOME"):
        return SYSTEM_DATA / "postgres"
    if url == EMBEDDED:
        return platformdirs.user_data_path("chartferry") / "postgres"
    name, _, directory = url.partition(":")
    return Path(directory) if name == EMBEDDED and directory else None


def store_exists(url: str) -> bool:
    """Return whether there is a store to open: assumed for a server's URL; an embedded store has left its directory."""
    directory = embedded_directory(url)
    return directory is None or (directory.is_dir() and any(directory.iterdir()))


@asynccontextmanager
async def open_store(url: str, tenant: str = "default") -> AsyncIterator[Store]:
    """Open the store of a tenant: "embedded", "embedded:DIR" or a libpq URL of Postgres 15 or newer.

    Starts the embedded server where needed and holds it until the end; creates or upgrades the tenant's schema.

    Raises:
        StoreError: the tenant's name cannot name a schema.
        StoreUnavailableError: there is no server, it refuses us, or it cannot be a store: too old, an encoding, a pooler.
        MissingRightsError: the login lacks a right; the message has the GRANT.
        MigrationError: a newer chartferry has upgraded the schema.
    """
    tenant_schema(tenant)
    directory = embedded_directory(url)
    if directory is None:
        yield await _opened(url, tenant)
        return
    server = EmbeddedPostgres(directory)
    try:
        yield await _opened(await anyio.to_thread.run_sync(server.acquire), tenant)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.release)


async def _opened(url: str, tenant: str) -> Store:
    conn = await connect(url)
    try:
        await check_server(conn, url)
        await migrate(conn, tenant)
    finally:
        await conn.close()
    return Store(url, tenant)
