"""One open run: its lock, its units, its batches; the real `connectors.fhir.memories.EhrRunStore`.

Every call is one transaction. `ingest` merges records, `refusals` finds the records to blame for a refused batch, `closing` ends
the run, and `reports` describes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from types import TracebackType
from typing import Self

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from snapshots.attachments import StoredAttachments, keep_documents, note_attached
from snapshots.bulk_jobs import StoredBulkJobs
from snapshots.closing import Earned, close_run, count, fail_run
from snapshots.errors import UnitConflictError, store_border
from snapshots.evidence import StoredEvidence
from snapshots.given_up import LeftBehind
from snapshots.ingest import IngestState, prepare, take_in
from snapshots.knowledge import StoredKnowledge
from snapshots.pace import StoredPace
from snapshots.patient_index import index_records
from snapshots.record import REFUSED_BY_STORE, Batch, Quarantined, Record
from snapshots.references import StoredReferences, note_mentions
from snapshots.refusals import RefusedRecord, blames_a_record, find_refused, suspects, without
from snapshots.report import RunReport
from snapshots.reports import reports
from snapshots.roster import RunRoster, formers, note_aliases
from snapshots.run_session import RunSession
from snapshots.sealing import sealed_input, sealed_records
from snapshots.sql import load
from snapshots.traffic import NO_TRAFFIC, Traffic
from snapshots.unit import Counted, Unit, UnitKind
from snapshots.ways import WayNumbers
from snapshots.wire import encoded, int_array, text_array

_SQL = load("ledger")
_PLANNED_AT_ONCE = 5_000  # units per statement, which limits memory for a plan of millions


class OpenRun:
    """One open run of one connection. `begin` makes it; close it with `aclose` or as an async context manager.

    Holds its own session, and with it the connection's advisory lock, until it is closed. A run that is closed without `finish`
    or `fail` counts as interrupted: the next run of an equal scope resumes it.
    """

    def __init__(
        self,
        session: RunSession,
        *,
        started_at: datetime,
        idle: timedelta,
        planned: bool,
        left_behind: LeftBehind,
        release: Callable[[], Awaitable[None]],
    ) -> None:
        """`release` gives the session back, and with it the connection's lock."""
        self._session = session
        self._conn = session.conn
        self._release: Callable[[], Awaitable[None]] | None = release
        self._open = session.open
        self._ingest_state: IngestState | None = None  # known after the first write
        self._ways = WayNumbers(session)
        self.id = session.open.run
        self.selection = session.open.scope.selection
        self.started_at = started_at
        self.idle = idle
        self.planned = planned
        self.left_behind = left_behind
        self.knowledge = StoredKnowledge(session)
        self.roster = RunRoster(session)
        self.evidence = StoredEvidence(session)
        self.jobs = StoredBulkJobs(session)
        self.references = StoredReferences(session)
        self.attachments = StoredAttachments(session)
        self.pace = StoredPace(session)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give the session back, and with it the connection's lock; calling it again does nothing."""
        if self._release is not None:
            release, self._release = self._release, None
            await release()

    async def plan(self, units: Iterable[Unit]) -> int:
        """Write the run's units, all or none, and return their number. Units that exist already (same key) are not changed."""
        waiting, planned = iter(units), 0
        async with self._session.transaction("planning") as own:
            while some := list(islice(waiting, _PLANNED_AT_ONCE)):
                planned += len(some)
                numbers = await self._ways.of(way for unit in some for way in (unit.way, unit.way_of_none))
                columns = {
                    "keys": text_array([unit.key.encode() for unit in some]),
                    "kinds": text_array([unit.kind.encode() for unit in some]),
                    "types": text_array([unit.resource_type.encode() for unit in some]),
                    "patients": text_array([encoded(unit.patient_id) for unit in some]),
                    "templates": text_array([unit.template.encode() for unit in some]),
                    "splits": text_array([unit.split.encode() for unit in some]),
                    "incremental": [unit.incremental for unit in some],
                    "since": text_array([encoded(unit.since) for unit in some]),
                    "ids": text_array([orjson.dumps(unit.ids) for unit in some]),
                    "charts": text_array([encoded(unit.of_chart) for unit in some]),
                    "pages": int_array([unit.page for unit in some]),
                    "details": text_array([orjson.dumps(dict(unit.detail)) for unit in some]),
                    "ways": int_array([numbers[unit.way] if unit.way else None for unit in some]),
                    "ways_of_none": int_array(
                        [numbers[unit.way_of_none] if unit.way_of_none else None for unit in some]
                    ),
                }
                await self._conn.execute(_SQL["plan"], {**columns, **own})
        return planned

    async def pending(self, limit: int | None = None, kinds: Collection[UnitKind] | None = None) -> list[Unit]:
        """Return pending units of these kinds (None: all), the first `limit`: former holes first, then in planned order."""
        async with self._session.transaction("reading the ledger") as own:
            wanted = None if kinds is None else [kind.value for kind in kinds]
            async with self._conn.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(_SQL["pending"], {**own, "limit": limit, "kinds": wanted})
                found = await cursor.fetchall()
            ways = await self._ways.by_number()
            return [
                Unit(
                    **{
                        **columns,
                        "kind": UnitKind(columns["kind"]),
                        "ids": tuple(columns["ids"]),
                        "way": ways.get(columns["way"]),
                        "way_of_none": ways.get(columns["way_of_none"]),
                    }
                )
                for columns in found
            ]

    async def keep_notes(self, notes: Sequence[str]) -> None:
        """Keep notes with the open run; those that it has already are not kept twice."""
        async with self._session.transaction("keeping notes") as own:
            await self._conn.execute(_SQL["keep_notes"], {**own, "notes": list(notes)})

    async def write(self, batch: Batch) -> int:
        """Merge records, apply deletions, keep quarantine, settle units; one transaction. Return how many records it refused.

        Raises:
            UnitConflictError: a result names a unit that the ledger does not have; nothing was written.
            StoreError: the server refused; nothing was written.
        """
        sealer, refused = self._session.session.sealer, []
        given: dict[int, Record] = {}  # by what is sent instead: quarantine keeps what the EHR sent
        if sealer is not None:
            sealed, unsealable = sealed_records(batch.records, sealer)
            batch = replace(batch, records=[one for one, _ in sealed])
            refused = [RefusedRecord(*one) for one in unsealable]
            given = {id(one): record for one, record in sealed}
        doing = f"run {self.id}: writing a batch"
        if suspected := suspects(batch.records):
            with store_border(doing):
                found = await find_refused(self._session.session, suspected)
            batch = replace(batch, records=without(batch.records, found))
            refused += [one._replace(record=given.get(id(one.record), one.record)) for one in found]
        try:
            await self._write(batch, refused)
        except (psycopg.Error, UnicodeEncodeError) as error:
            with store_border(doing):
                may_be_a_record = isinstance(error, UnicodeEncodeError) or blames_a_record(error)
                found = await find_refused(self._session.session, batch.records) if may_be_a_record else []
                if not found:
                    raise
                refused += [one._replace(record=given.get(id(one.record), one.record)) for one in found]
                await self._write(replace(batch, records=without(batch.records, found)), refused)
        return len(refused)

    async def _write(self, batch: Batch, refused: Sequence[RefusedRecord]) -> None:
        run = self._open.run
        async with self._session.session.transaction(writes=True):
            await self._conn.execute(_SQL["let_disk_follow"], prepare=True)
            state = await self._prepared()
            state.ways = await self._ways.of(
                [*(one.way for one in batch.records), *(one.way for one in batch.deletions)]
            )
            intake = await take_in(self._conn, batch.records, batch.deletions, state)
            state.all_new = state.all_new and not intake.collided
            await note_attached(self._conn, batch.records, intake.merged, state.own)
            await index_records(
                self._session.session, self._open.connection, self._open.scope.connection, batch.records
            )
            await note_mentions(self._conn, run, batch.mentions)
            quarantined = [*batch.quarantined, *(_quarantined(one) for one in refused)]
            if quarantined:
                await self._quarantine(quarantined)
                await self._poison(quarantined, refused, batch)
            if batch.documents:
                await keep_documents(self._session, batch.documents)
            if batch.aliases:
                await note_aliases(self._conn, self._open, batch.aliases)
                state.formers |= {one.former_id for one in batch.aliases if one.gone}
            if batch.places:
                keys, places = list(batch.places), [Jsonb(dict(place)) for place in batch.places.values()]
                await self._conn.execute(_SQL["note_places"], {"run": run, "keys": keys, "places": places})
            if batch.results:
                await self._settle(batch)
            await count(self._conn, run, intake)
            await self.pace.ride_along()

    async def _prepared(self) -> IngestState:
        """Return what is known about the connection, looked up at the first batch. In a transaction of the run."""
        if self._ingest_state is None:
            ignored = self._open.scope.ignored
            sealer = self._session.session.sealer
            own = self._open
            self._ingest_state = IngestState(connection=own.connection, run=own.run, sealer=sealer, ignored=ignored)
            await prepare(self._conn, self._ingest_state)
            self._ingest_state.formers = await formers(self._conn, self._open)
        self._ingest_state.as_of = self._open.as_of
        return self._ingest_state

    async def _quarantine(self, quarantined: Sequence[Quarantined]) -> None:
        rows = []
        for one in quarantined:
            digest, raw = sealed_input(one, self._session.session.sealer)
            rows.append({**one._asdict(), "run": self._open.run, "digest": digest, "raw": raw})
        async with self._conn.cursor() as cursor:
            await cursor.executemany(_SQL["quarantine"], rows)

    async def _poison(self, quarantined: Sequence[Quarantined], refused: Sequence[RefusedRecord], batch: Batch) -> None:
        """Turn the units that fetched bad input into holes.

        If a refused record names no unit, all units that could have fetched it become holes: the units of this batch, or, if it
        settles none, every open unit of the type.
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
            "endings": [result.ended.value for result in results],
            "newest": [result.newest for result in results],
            "counted": [_counts(result.counted) for result in results],
            "at": self._session.clock(),
        }
        settled = await self._conn.execute(_SQL["settle"], values, prepare=True)
        if settled.rowcount != len(results):
            raise UnitConflictError(
                f"run {self.id}: {len(results) - settled.rowcount} of {len(results)} units to be settled are not in its ledger; "
                "nothing of the batch was written. Plan units before settling them."
            )

    async def counted(self) -> Mapping[Counted, int]:
        """Return the total of what the run's ended units counted."""
        async with self._session.transaction("reading what was counted") as own:
            found = await self._conn.execute(_SQL["counted"], own)
            return {Counted(about, kind, what): number async for about, kind, what, number in found}

    async def finish(
        self,
        *,
        watermark: str | None,
        traffic: Traffic = NO_TRAFFIC,
        notes: Sequence[str] = (),
        overlap: timedelta | None = None,
    ) -> RunReport:
        """Judge what was missed, move watermarks, close the run; then return its report."""
        async with self._session.transaction("closing"):
            await close_run(
                self._conn,
                self._open,
                await self._prepared(),
                earned=None if watermark is None else Earned(watermark=watermark, overlap=overlap),
                at=self._session.clock(),
                traffic=traffic,
                notes=notes,
            )
            return await self._report()

    async def fail(self, *, reason: str, traffic: Traffic = NO_TRAFFIC, notes: Sequence[str] = ()) -> RunReport:
        """Close the run as failed: everything committed stays, nothing is tombstoned, no watermark moves."""
        async with self._session.transaction("closing"):
            await fail_run(
                self._conn,
                self._open,
                reason=reason,
                at=self._session.clock(),
                traffic=traffic,
                notes=notes,
            )
            return await self._report()

    async def _report(self) -> RunReport:
        return (await reports(self._conn, [self.id]))[0]


def _counts(counted: Mapping[Counted, int]) -> Jsonb | None:
    return Jsonb([[*one, number] for one, number in counted.items()]) if counted else None


def _quarantined(refusal: RefusedRecord) -> Quarantined:
    record = refusal.record
    return Quarantined(record.resource_type, REFUSED_BY_STORE, refusal.reason, record.body, record.unit_key)
