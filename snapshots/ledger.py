"""One open run: its lock, its units, its batches; the real `connectors.store_port.RunStore`.

Every call is one transaction. How records are merged is `ingest`'s, which records are to blame for a refused batch
`refusals`', how a run ends `closing`'s, and what is said of it `reports`'.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from itertools import islice
from types import TracebackType
from typing import Any, Self

import orjson
import psycopg
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from snapshots.attachments import StoredAttachments, keep_documents
from snapshots.bulk_jobs import StoredBulkJobs
from snapshots.closing import close_run, fail_run
from snapshots.errors import ConnectionBusyError, UnitConflictError, store_border
from snapshots.ingest import Intake, is_empty, prepare_session, take_in
from snapshots.pace import StoredPace
from snapshots.record import Batch, Quarantined, RunReport, RunScope, Unit
from snapshots.references import StoredReferences
from snapshots.refusals import Refusal, blames_a_record, find_refused
from snapshots.reports import reports
from snapshots.roster import RunRoster, note_aliases
from snapshots.run_session import OpenScope, RunSession
from snapshots.sql import load
from snapshots.tenancy import tenant_transaction
from snapshots.wire import encoded, register_arrays, text_array

_SQL = load("ledger")
_PLANNED_AT_ONCE = 5_000  # units of one statement: a plan of millions takes no more memory than that
REFUSED_BY_STORE = "refused by the store"


class OpenRun:
    """One open run of one connection. `begin` makes it; close it with `aclose` or as an async context manager.

    Holds a session of its own, and with it the connection's advisory lock, until it is closed. A run that is closed
    without `finish` or `fail` counts as interrupted: the next run of an equal scope goes on with it.
    """

    def __init__(self, session: RunSession, *, started_at: datetime, planned: bool) -> None:
        self._session = session
        self._conn = session.conn
        self._open = session.open
        self._all_new: bool | None = (
            None  # nothing of the connection was stored when this run first wrote, and none came twice
        )
        self._started_at = started_at
        self._planned = planned
        self._roster = RunRoster(session)
        self._pace = StoredPace(session)

    @property
    def id(self) -> int:
        """The run's number."""
        return self._open.run

    @property
    def started_at(self) -> datetime:
        """When the run first began, also when this is its resumption."""
        return self._started_at

    @property
    def planned(self) -> bool:
        """Whether a resumed run already has its units."""
        return self._planned

    @property
    def pace(self) -> StoredPace:
        """How fast the connection's EHR may be asked, and what the run has sent."""
        return self._pace

    @property
    def attachments(self) -> StoredAttachments:
        """The documents that the run's resources have attached."""
        return StoredAttachments(self._session)

    @property
    def references(self) -> StoredReferences:
        """What the run's resources refer to."""
        return StoredReferences(self._session)

    @property
    def jobs(self) -> StoredBulkJobs:
        """The connection's bulk export jobs."""
        return StoredBulkJobs(self._session)

    @property
    def roster(self) -> RunRoster:
        """Which patients the run's selection covers, and what they are behind with."""
        return self._roster

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give back the session, and with it the connection's lock."""
        await self._conn.close()

    async def plan(self, units: Iterable[Unit]) -> int:
        """Write the run's units, all or none, and give their number. Units already present (same key) are left as they are."""
        waiting, count = iter(units), 0
        async with self._session.transaction("planning") as own:
            while some := list(islice(waiting, _PLANNED_AT_ONCE)):
                count += len(some)
                columns = {
                    "keys": text_array([unit.key.encode() for unit in some]),
                    "kinds": text_array([unit.kind.encode() for unit in some]),
                    "types": text_array([unit.resource_type.encode() for unit in some]),
                    "patients": text_array([encoded(unit.patient_id) for unit in some]),
                    "details": text_array([orjson.dumps(dict(unit.detail)) for unit in some]),
                }
                await self._conn.execute(_SQL["plan"], {**columns, **own})
        return count

    async def pending(self, limit: int | None = None, kinds: Collection[str] | None = None) -> list[Unit]:
        """Give units still to do, of these kinds (None: all), the first `limit`: former holes first, then in planned order."""
        async with self._session.transaction("reading the ledger") as own:
            wanted = None if kinds is None else list(kinds)
            found = await self._conn.execute(_SQL["pending"], {**own, "limit": limit, "kinds": wanted})
            return [
                Unit(key=key, kind=kind, resource_type=resource_type, patient_id=patient_id, detail=detail)
                async for key, kind, resource_type, patient_id, detail in found
            ]

    async def write(self, batch: Batch) -> None:
        """Merge records, apply deletions, keep quarantine, settle units; one transaction.

        Raises:
            UnitConflictError: a result names a unit that the ledger does not have; nothing was written.
            StoreError: the server refused; nothing was written.
        """
        refused: list[Refusal] = []
        try:
            await self._write(batch, refused)
        except (psycopg.Error, UnicodeEncodeError) as error:
            with store_border(f"run {self.id}: writing a batch"):
                if isinstance(error, UnicodeEncodeError) or blames_a_record(error):
                    refused = await find_refused(self._conn, batch.records)
                if not refused:
                    raise
                bad = {id(one.record) for one in refused}
                good = [record for record in batch.records if id(record) not in bad]
                await self._write(replace(batch, records=good), refused)

    async def _write(self, batch: Batch, refused: Sequence[Refusal]) -> None:
        run, connection = self._open.run, self._open.connection
        async with tenant_transaction(self._conn, self._session.tenant):
            await self._conn.execute(_SQL["let_disk_follow"], prepare=True)
            if self._all_new is None:
                self._all_new = await is_empty(self._conn, connection)
            intake = await take_in(
                self._conn, batch.records, batch.deletions, connection=connection, run=run, all_new=self._all_new
            )
            self._all_new = self._all_new and not intake.collided
            quarantined = [*batch.quarantined, *(_quarantined(one) for one in refused)]
            if quarantined:
                await self._quarantine(quarantined)
                await self._poison(quarantined, refused, batch)
            if batch.documents:
                await keep_documents(self._conn, connection, batch.documents)
            if batch.aliases:
                await note_aliases(self._conn, self._open, batch.aliases)
            if batch.places:
                keys, places = list(batch.places), [Jsonb(dict(place)) for place in batch.places.values()]
                await self._conn.execute(_SQL["note_places"], {"run": run, "keys": keys, "places": places})
            if batch.results:
                await self._settle(batch)
            if intake.counts:
                await self._count(intake)
            await self._pace.ride_along()

    async def _quarantine(self, quarantined: Sequence[Quarantined]) -> None:
        rows = [
            {
                "run": self._open.run,
                "digest": blake2b(one.source.encode() + b"\x00" + one.raw, digest_size=16).digest(),
                "resource_type": one.resource_type,
                "unit_key": one.unit_key,
                "source": one.source,
                "reason": one.reason,
                "raw": one.raw,
            }
            for one in quarantined
        ]
        async with self._conn.cursor() as cursor:
            await cursor.executemany(_SQL["quarantine"], rows)

    async def _poison(self, quarantined: Sequence[Quarantined], refused: Sequence[Refusal], batch: Batch) -> None:
        """Make holes of the units that brought bad input.

        A refused record that names no unit makes holes of all that could have brought it: the units of this batch, or, where
        it settles none, every open unit of its type.
        """
        run = self._open.run
        reasons = {one.unit_key: one.reason for one in quarantined if one.unit_key is not None}
        for record, reason in refused:
            if record.unit_key is not None:
                continue
            if batch.results:
                reasons.update(dict.fromkeys((result.key for result in batch.results), reason))
            else:
                values = {"run": run, "reason": reason, "resource_type": record.resource_type}
                await self._conn.execute(_SQL["poison_type"], values)
        if reasons:
            values = {"run": run, "keys": list(reasons), "reasons": list(reasons.values())}
            await self._conn.execute(_SQL["poison"], values)

    async def _settle(self, batch: Batch) -> None:
        results = {result.key: result for result in batch.results}.values()
        values = {
            "run": self._open.run,
            "keys": [result.key for result in results],
            "states": [result.state.value for result in results],
            "reasons": [result.reason for result in results],
            "completes": [result.complete_listing for result in results],
            "records": [result.records for result in results],
        }
        settled = await self._conn.execute(_SQL["settle"], values, prepare=True)
        if settled.rowcount != len(results):
            raise UnitConflictError(
                f"run {self.id}: {len(results) - settled.rowcount} of {len(results)} units to be settled are not in its ledger; "
                "nothing of the batch was written. Plan units before settling them."
            )

    async def _count(self, intake: Intake) -> None:
        counts = intake.counts.values()
        values = {
            "run": self._open.run,
            "types": list(intake.counts),
            "new": [one.new for one in counts],
            "changed": [one.changed for one in counts],
            "unchanged": [one.unchanged for one in counts],
            "deleted": [one.deleted for one in counts],
        }
        await self._conn.execute(_SQL["count"], values, prepare=True)

    async def watermarks(self) -> Mapping[str, str]:
        """Give, per resource type, the instant up to which this connection and selection are known to be complete."""
        async with self._session.transaction("reading watermarks") as own:
            return {row[0]: row[1] async for row in await self._conn.execute(_SQL["watermarks"], own)}

    async def received_types(self) -> frozenset[str]:
        """Give the types of which this connection has ever sent something."""
        async with self._session.transaction("reading what came before") as own:
            return frozenset([row[0] async for row in await self._conn.execute(_SQL["received_types"], own)])

    async def last_full_listing(self) -> datetime | None:
        """Give when the last complete run that listed everything of this selection began."""
        async with self._session.transaction("reading watermarks") as own:
            row = await (await self._conn.execute(_SQL["last_full_listing"], own)).fetchone()
        return row[0] if row else None

    async def finish(
        self, *, watermark: str | None, requests: int, retries: int, notes: Sequence[str] = ()
    ) -> RunReport:
        """Tombstone what complete listings no longer had, move watermarks, close the run; then say what it did."""
        async with self._session.transaction("closing"):
            await close_run(
                self._conn,
                self._open,
                watermark=watermark,
                requests=requests,
                retries=retries,
                notes=notes,
                held_back=self._roster.held_back,
            )
            return await self._report()

    async def fail(self, *, reason: str, requests: int, retries: int, notes: Sequence[str] = ()) -> RunReport:
        """Close the run as failed: everything committed stays, nothing is tombstoned, no watermark moves."""
        async with self._session.transaction("closing"):
            await fail_run(self._conn, self._open, reason=reason, requests=requests, retries=retries, notes=notes)
            return await self._report()

    async def _report(self) -> RunReport:
        return (await reports(self._conn, [self.id]))[0]


def _quarantined(refusal: Refusal) -> Quarantined:
    record = refusal.record
    return Quarantined(record.resource_type, REFUSED_BY_STORE, refusal.reason, record.body, record.unit_key)


async def begin(conn: AsyncConnection[Any], tenant: str, scope: RunScope) -> OpenRun:
    """Begin a run on a session of its own, or go on with the connection's interrupted one.

    An interrupted run is resumed, with its number, when its scope is equal and it is younger than 24 hours; any other is
    closed as failed. The session must not be used for anything else, and is the run's to close once this returns.

    Raises:
        ConnectionBusyError: another run of the connection is at work.
    """
    register_arrays(conn)
    with store_border(f"beginning a run of connection {scope.connection}"):
        await _lock(conn, tenant, scope.connection)
        await prepare_session(conn)
        async with tenant_transaction(conn, tenant):
            connection = await _connection_number(conn, scope.connection)
            interrupted = await (await conn.execute(_SQL["interrupted"], {"connection": connection})).fetchall()
            keep = interrupted[0] if interrupted and _same_scope(interrupted[0], scope) else None
            stale = [row[0] for row in interrupted if row is not keep]
            if stale:
                await conn.execute(_SQL["abandon"], {"runs": stale})
                await conn.execute(_SQL["forget_seen"], {"runs": stale})
            if keep is not None:
                run, started_at = keep[0], keep[1]
                planned = await (await conn.execute(_SQL["resume"], {"run": run})).fetchone()
            else:
                run, started_at = await _insert(conn, connection, scope)
                planned = None
    opened = OpenScope(run=run, connection=connection, scope=scope)
    session = RunSession(conn=conn, tenant=tenant, open=opened)
    return OpenRun(session, started_at=started_at, planned=bool(planned and planned[0]))


async def _lock(conn: AsyncConnection[Any], tenant: str, connection: str) -> None:
    await conn.execute(_SQL["bound_wait"])
    try:
        await conn.execute(_SQL["lock"], {"tenant": tenant, "connection": connection})
    except psycopg.errors.LockNotAvailable:
        async with tenant_transaction(conn, tenant):
            row = await (await conn.execute(_SQL["holder"], {"connection": connection})).fetchone()
        run = row[0] if row else None
        raise ConnectionBusyError(
            f"connection {connection} is busy: run {run or 'unknown'} is at work on it. Wait until it ends, "
            "or stop its process; what it has written stays, and the next run goes on from there.",
            run=run,
        ) from None


async def _connection_number(conn: AsyncConnection[Any], name: str) -> int:
    row = await (await conn.execute(_SQL["find_connection"], {"connection": name})).fetchone()
    row = row or await (await conn.execute(_SQL["add_connection"], {"connection": name})).fetchone()
    assert row is not None
    return int(row[0])


def _same_scope(row: tuple[Any, ...], scope: RunScope) -> bool:
    _, _, kind, mode, selection, types, since, cohort, young = row
    asked = (scope.kind, scope.mode, scope.selection, list(scope.types), dict(scope.since), scope.cohort)
    return bool(young) and (kind, mode, selection, types, since, cohort) == asked


async def _insert(conn: AsyncConnection[Any], connection: int, scope: RunScope) -> tuple[int, datetime]:
    values = {
        "connection": connection,
        "kind": scope.kind,
        "mode": scope.mode,
        "selection": scope.selection,
        "types": list(scope.types),
        "since": Jsonb(dict(scope.since)),
        "cohort": scope.cohort,
    }
    row = await (await conn.execute(_SQL["begin"], values)).fetchone()
    assert row is not None
    return row[0], row[1]
