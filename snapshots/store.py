"""Opens the store of a tenant for an actor: finds or starts its server, upgrades the tenant's schema, offers what can be done.

A run and a snapshot each have their own session, because locks and settings live in it; a short query borrows one. `pool` has
the sessions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from snapshots.actor import Actor
from snapshots.audit import seal
from snapshots.audit_event import Action
from snapshots.audit_reader import AuditReader
from snapshots.beginning import begin, discard, utc_now
from snapshots.chart_history import ChartHistory, chart_history
from snapshots.encrypting import begin_encryption
from snapshots.erasure import Erased, erase, resample
from snapshots.errors import RunNotFoundError, StoreError, describe_server, store_border
from snapshots.given_up import Discarded
from snapshots.ledger import OpenRun
from snapshots.lock_waits import WAIT_S, bounded_locks
from snapshots.migrate import migrate
from snapshots.opening import open_snapshot
from snapshots.pace import connections_down, pace_of
from snapshots.patient_index import find_patients, index_missing
from snapshots.patient_terms import Term
from snapshots.peek import Peek, peek
from snapshots.pool import SessionPool
from snapshots.proof_session import ProofSession, open_proof
from snapshots.reader import Snapshot
from snapshots.reading import WhatWasRead, named_patients, reading
from snapshots.report import RunReport, RunScope
from snapshots.reports import patient_ids, recent_runs, reports
from snapshots.retention import Pruned, prune
from snapshots.rights import require_creating, require_writing
from snapshots.rotation import Rotated, rotate
from snapshots.sealed_values import Keyring, Sealer
from snapshots.sealing_keys import sealer_for, sealer_of_moment
from snapshots.selection import Selection
from snapshots.server import running_server
from snapshots.sessions import check_server, connect
from snapshots.sql_views import SqlViews
from snapshots.tenancy import TenantSession, tenant_schema
from snapshots.traffic import Down, PaceState
from snapshots.walls import Walls


class Store:
    """The store of one tenant, opened for one actor; `open_store` makes it."""

    def __init__(self, url: str, tenant: str, pool: SessionPool) -> None:
        self._url = url
        self._tenant = tenant
        self._pool = pool

    def __repr__(self) -> str:
        return f"Store({describe_server(self._url)}, tenant {self._tenant})"

    async def begin_run(self, scope: RunScope, clock: Callable[[], datetime] = utc_now) -> OpenRun:
        """Begin a run, or resume the connection's interrupted one of equal scope; close it when done.

        Only `clock` dates what the run does.

        Raises:
            ConnectionBusyError: another run of the connection is in progress; the message names it.
        """
        session = await self._pool.lend()
        try:
            await require_writing(session)
            return await begin(session, scope, clock=clock, release=lambda: self._pool.take_back(session))
        except BaseException:
            await self._pool.take_back(session)
            raise

    @asynccontextmanager
    async def snapshot(self, selection: Selection, action: Action = Action.EXPORT) -> AsyncIterator[Snapshot]:
        """Open one consistent snapshot of the selection: whatever runs meanwhile, every read sees the same state.

        What is read is in the audit after `Snapshot.end`, or the end of the block; show nothing before.
        """
        async with (
            self._pool.session() as session,
            open_snapshot(session, selection, action, self._pool.session_beside) as snapshot,
        ):
            yield snapshot

    @asynccontextmanager
    async def sql_views(self) -> AsyncIterator[SqlViews]:
        """Open a session for the SQL views of the tenant's schema.

        Raises:
            MissingRightsError: the login may create nothing there; the message has the GRANT.
            StoreKeyError: the store has become an encrypted one since it was opened without keys.
        """
        async with self._pool.owner_session() as session:
            await require_creating(session)
            with store_border("reading what is encrypted in the store"):
                async with session.transaction():
                    sealer = await sealer_of_moment(session)
            yield SqlViews(replace(session, sealer=sealer))

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
        async with self._pool.session() as session:
            yield await peek(session, scope)

    async def discard(self, run: int, clock: Callable[[], datetime] = utc_now) -> Discarded:
        """Give up an open run, or the export job that a closed one left at its server.

        Raises:
            RunNotFoundError: this tenant has no such run.
            ConnectionBusyError: a run of its connection is in progress.
        """
        async with self._pool.session() as session:
            return await discard(session, run, at=clock())

    @asynccontextmanager
    async def proof(self, connection: str) -> AsyncIterator[ProofSession]:
        """Open a session for comparing a connection's rows with its EHR; it holds no lock."""
        async with self._pool.session() as session:
            await require_writing(session)  # its certificate, the pace, and the audit
            yield await open_proof(session, connection)
            await seal(session)

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

    async def chart_history(self, connection: str, patient: str) -> ChartHistory:
        """Give what the runs that have ended did to a patient's chart; nothing for an unknown patient."""
        async with self._pool.session() as session:
            with store_border("reading a chart's history"):
                async with reading(session, Action.SNAPSHOTS) as audited:
                    history = await chart_history(session.conn, connection, patient)
                    types = sorted({one.resource_type for one in history.changes})
                    whose = named_patients(connection, [patient])
                    await audited.note(WhatWasRead(connections=[connection], types=types, patients=[whose]))
        return history

    async def find(self, connection: str, term: Term) -> list[str] | None:
        """Return the ids of a connection's live patients who have a term, in order; None: the connection never ran.

        Patients stored by an older version are indexed first.

        Raises:
            MissingRightsError: some must be indexed first, and the login may not write.
        """
        async with self._pool.session() as session:
            with store_border("finding patients"):
                if not await index_missing(session, connection):
                    return None
                async with reading(session, Action.FIND) as audited:
                    found = await find_patients(session, connection, term)
                    whose = [named_patients(connection, found)]
                    await audited.note(WhatWasRead(connections=[connection], types=["Patient"], patients=whose))
        return found

    async def erase(self, connection: str, patient: str) -> Erased:
        """Delete every trace of a patient of a connection but the audit's, and note that there.

        Values that no key opens cannot be searched for the patient: they stay, unless their resource is the patient's by what is
        plain, and are named. After it has committed, chartferry's materialised views are refreshed, and the planner's samples are
        renewed, if the login owns them; views that could not be refreshed are named. What fails by then raises nothing.

        Raises:
            StoreError: nothing is stored of the connection, one of its runs has not ended, or something would remain.
            ConnectionBusyError: a run of the connection is in progress.
            StoreKeyError: the store has become an encrypted one since it was opened without keys.
        """
        async with self._pool.session() as session:
            await require_writing(session)
            erased = await erase(session, connection, patient)
        try:
            return await self._without_copies(erased)
        except StoreError:  # it is committed; the caller tells what is left to do
            return erased._replace(copies_known=False)

    async def _without_copies(self, erased: Erased) -> Erased:
        """Renew what was made of the rows that are gone, even by an earlier call that was cut here."""
        async with self._pool.session() as session:
            await seal(session)
            copies = [view.name for view in await SqlViews(session).existing() if view.materialized]
        if not erased.rows and not copies:
            return erased
        async with self._pool.owner_session() as owner:
            left = await SqlViews(owner).refresh_each(copies)
            return erased._replace(views=tuple(left), resampled=await resample(owner, [*erased.rows, *copies]))

    async def prune(
        self,
        *,
        history: datetime | None = None,
        quarantine: datetime | None = None,
        runs: datetime | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        """Delete versions that no moment since `history` needs, and quarantined input and units of ended runs.

        `quarantine`, `runs`: the moment by which the run had ended. Units that later runs, proofs or exports need stay. Needs the
        owner's login. It deletes run by run and notes each in the audit; after an interruption, the next call continues.
        `dry_run`: only count.

        Raises:
            MissingRightsError: the login does not own the tables.
        """
        async with self._pool.owner_session() as session:
            return await prune(session, history=history, quarantine=quarantine, runs=runs, dry_run=dry_run)

    async def rotate(self) -> Rotated:
        """Encrypt with the current key what is still plain, or encrypted with older keys.

        Only the owner may, while no run is open.

        The next call continues one that was cut. If every row could be opened, the store forgets its older keys.

        Raises:
            StoreKeyError: the store is plain.
            ConnectionBusyError: a run is in progress.
            MissingRightsError: the login does not own the tables.
        """
        async with self._pool.owner_session() as session:
            return await rotate(session)

    @property
    def audit(self) -> AuditReader:
        """Who read patient data."""
        return AuditReader(self._pool)

    @asynccontextmanager
    async def _session(self, doing: str) -> AsyncIterator[AsyncConnection[Any]]:
        async with self._pool.session() as session:
            with store_border(doing):
                async with session.transaction():
                    yield session.conn


@asynccontextmanager
async def open_store(
    url: str,
    tenant: str,
    actor: Actor,
    *,
    keyring: Keyring | None = None,
    encrypts: bool = False,
    lock_wait_s: float = WAIT_S,
) -> AsyncIterator[Store]:
    """Open the store of a tenant for an actor: "embedded", "embedded:DIR" or a libpq URL of Postgres 15 or newer.

    Starts the embedded server where needed and holds it until the end; creates or upgrades the tenant's schema. With a `keyring`
    a store in which no run has begun becomes an encrypted one. `encrypts`: so does one with charts, if no run is in progress;
    until `Store.rotate` has come to its end, nobody opens it for anything else. `lock_wait_s`: how long to wait for a lock.

    Raises:
        StoreError: the tenant's name cannot name a schema.
        StoreUnavailableError: there is no server, it refuses us, or it cannot be a store: too old, an encoding, a pooler.
        MissingRightsError: the login lacks a right; the message has the GRANT.
        MigrationError: a newer chartferry has upgraded the schema.
        StoreKeyError: the keys are not the store's; nothing was written.
        StoreLockedError: another session holds a lock on the tenant's tables; nothing was written.
    """
    tenant_schema(tenant)
    async with running_server(url) as server:
        walls, sealer = await _prepare(
            server, tenant, actor, keyring, with_login=server != url, encrypts=encrypts, lock_wait_s=lock_wait_s
        )
        async with SessionPool(server, tenant, actor, walls=walls, sealer=sealer) as pool:
            yield Store(server, tenant, pool)


async def _prepare(
    url: str,
    tenant: str,
    actor: Actor,
    keyring: Keyring | None,
    *,
    with_login: bool,
    encrypts: bool,
    lock_wait_s: float,
) -> tuple[Walls, Sealer | None]:
    conn = await connect(url)
    try:
        await check_server(conn, url)
        session = TenantSession(conn=conn, tenant=tenant, actor=actor)
        async with bounded_locks(conn, url, lock_wait_s):
            walls = await migrate(session, with_login=with_login)
            if encrypts and keyring is not None:
                await begin_encryption(session, keyring)
            return walls, await sealer_for(replace(session, roles=walls.roles), keyring, encrypts=encrypts)
    finally:
        await conn.close()
