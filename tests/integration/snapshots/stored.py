"""Shorthand of these tests: ways, records, units, whole runs with their confirmation step, and a look into the tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import anyio
import orjson
import psycopg
import pytest
from psycopg import sql

from snapshots.errors import StoreError
from snapshots.export_job import BulkJob
from snapshots.ledger import OpenRun
from snapshots.migrate import migrations
from snapshots.patient import Alias
from snapshots.record import Batch, Record
from snapshots.report import RunReport, RunScope
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.unit import Unit, UnitKind, UnitResult, UnitState
from snapshots.witness import AbsentRow, Deletion, Said, Way, WayScope

SCHEMA = "tenant_default"
PERIOD = timedelta(days=35)  # that a full listing witnesses
SEARCH = Way("search", WayScope.PATIENT)
PATIENTS = Way("patient", WayScope.PATIENT)
DIRECTORY = Way("directory", WayScope.EVERYTHING)
GROUP = Way("export group", WayScope.MEMBERS)
BESIDE = Way("export group beside 1", WayScope.EVERYTHING, strict=False)
Answer = Said | Record
# which row of the tables each is: an update makes another
FOOTPRINT = (
    "SELECT 'resource' || tableoid::text || ctid::text || xmin::text FROM resource "
    "UNION ALL SELECT 'history' || ctid::text || xmin::text FROM resource_history ORDER BY 1"
)


def record(
    identity: str,
    content: object = None,
    *,
    kind: str = "Observation",
    patient: str | None = "p1",
    version: str | None = None,
    updated: str | None = None,
    unit: str | None = None,
    way: Way | None = SEARCH,
    others: tuple[str, ...] = (),
    searched: str | None = None,
) -> Record:
    """A record; `content` is a body as bytes, or a value put under "value"."""
    document = {"resourceType": kind, "id": identity, "value": content}
    body = content if isinstance(content, bytes) else orjson.dumps(document)
    digest = blake2b(body, digest_size=16).digest()
    return Record(
        kind, identity, patient, version, updated, digest, body, unit, way=way, others=others, searched=searched
    )


def person(identity: str, content: object = None, *, way: Way | None = PATIENTS) -> Record:
    return record(identity, content, kind="Patient", patient=identity, way=way)


def scope(**changes: Any) -> RunScope:
    given: dict[str, Any] = {"connection": "mercy", "kind": "sync", "mode": "crawl", "selection": "all", "types": ()}
    return RunScope(**{**given, **changes})


def search(
    kind: str = "Observation", patient: str | None = "p1", split: str = "", *, way: Way | None = None, **changes: Any
) -> Unit:
    key = f"search:{kind}:{patient or 'all'}:{split}"
    by = way or (DIRECTORY if patient is None else _narrowed(SEARCH, split))
    return Unit(key=key, kind=UnitKind.SEARCH, resource_type=kind, patient_id=patient, split=split, way=by, **changes)


def _narrowed(way: Way, split: str) -> Way:
    """The way of a search that is narrowed by a split."""
    codes = tuple(split.removeprefix("category=").split(",")) if split else ()
    return way._replace(name=f"{way.name} {split}", codes=codes) if split else way


def read(patient: str) -> Unit:
    """The unit of one Patient."""
    return Unit(
        key=f"read:Patient:{patient}", kind=UnitKind.READ, resource_type="Patient", patient_id=patient, way=PATIENTS
    )


def file(kind: str = "Observation", way: Way = GROUP, number: int = 1, of_none: Way | None = None) -> Unit:
    """A file of an export."""
    key = f"file:{kind}:1:{number}"
    return Unit(key=key, kind=UnitKind.FILE, resource_type=kind, way=way, way_of_none=of_none)


def settled(unit: Unit, *, complete: bool = True, records: int = 0, **ended: Any) -> UnitResult:
    return UnitResult(key=unit.key, state=UnitState.SETTLED, complete_listing=complete, records=records, **ended)


def failed(unit: Unit, reason: str = "HTTP 500", **ended: Any) -> UnitResult:
    return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason, **ended)


async def full_run(
    run: OpenRun,
    records: Sequence[Record],
    units: Sequence[Unit],
    *,
    results: Sequence[UnitResult] | None = None,
    watermark: str | None = None,
    **batch: Any,
) -> RunReport:
    """Plan, write everything in one batch (`batch`: what else is in it), finish and close."""
    async with run:
        await run.knowledge.speak_for(run.selection, [])
        await run.plan(units)
        ended = [settled(unit, records=_brought(unit, records)) for unit in units] if results is None else results
        await run.write(Batch(records=records, results=ended, **batch))
        return await run.finish(watermark=watermark)


async def weighed(
    store: Store,
    records: Sequence[Record],
    units: Sequence[Unit],
    *,
    requested: RunScope | None = None,
    results: Sequence[UnitResult] | None = None,
    words: Sequence[Deletion] = (),
    aliases: Sequence[Alias] = (),
    answers: Mapping[str, Answer] | None = None,
    controlled: bool = True,
    withdrawn: Collection[str] = (),
    readable: Sequence[str] | None = None,
    limit: int = 200,
    rotated: int | None = None,
    at: datetime | None = None,
    exported_at: str | None = None,
    watermark: str | None = None,
) -> RunReport:
    """A whole run: it writes, reads missed rows by id, and ends.

    `answers`: the answer to the read of each id, a word or a record; reads of other ids show nothing. `rotated`: how many
    unwitnessed rows are read after a full listing; None: none, and no full listing is noted. `withdrawn`: types of which no
    control can be read. Exports have a job.
    """
    begun = scope() if requested is None else requested
    async with await store.begin_run(begun) as run:
        await run.knowledge.speak_for(begun.selection, [])
        if begun.mode == "bulk":
            kicked_off = datetime.now(UTC)
            job = BulkJob(
                status_url="https://ehr/job",
                kicked_off_at=kicked_off,
                request="GET $export",
                transaction_time=exported_at,
            )
            await run.jobs.save(job)
        await run.plan(units)
        ended = [settled(unit, records=_brought(unit, records)) for unit in units] if results is None else results
        await run.write(Batch(records=records, deletions=words, results=ended, aliases=aliases))
        reader = _Reader(run, answers or {}, controlled, withdrawn)
        await run.evidence.note_departed(PATIENTS)
        left = limit - await reader.ask(readable, limit)
        await run.evidence.note_missed()
        left -= await reader.ask(readable, left)
        if rotated is not None:
            moment = at or datetime.now(UTC)
            await run.evidence.note_listings(moment)
            await run.evidence.rotate(readable, rotated, at=moment, period=PERIOD, fresh=timedelta(0))
            await reader.ask(readable, left)
        return await run.finish(watermark=watermark)


def _brought(unit: Unit, records: Sequence[Record]) -> int:
    ways = (unit.way, unit.way_of_none)
    return sum(
        one.resource_type == unit.resource_type
        and one.way in ways
        and unit.patient_id in (None, one.patient_id, one.searched)
        for one in records
    )


class _Reader:
    """Plays the EHR that answers reads by id."""

    def __init__(
        self, run: OpenRun, answers: Mapping[str, Answer], controlled: bool, withdrawn: Collection[str]
    ) -> None:
        self._run = run
        self._answers = answers
        self._controlled = controlled
        self._withdrawn = withdrawn
        self._types: set[str] = set()  # whose controls were read

    async def ask(self, readable: Sequence[str] | None, limit: int) -> int:
        evidence = self._run.evidence
        due = await evidence.due(readable, limit) if limit > 0 else []
        heard = {row.resource_type for row in due} | set(await evidence.not_found_types())
        types = {*heard, "Patient"} - self._types if heard else set()
        self._types |= types
        controls = await evidence.controls(sorted(types))
        await self._run.plan([_unit("control", row) for row in controls] + [_unit("confirm", row) for row in due])
        await evidence.note_requested(due)
        answers = {row.id: self._answers.get(row.id, Said.UNANSWERED) for row in due}
        records = [one for one in answers.values() if isinstance(one, Record)]
        words = [Deletion(row.resource_type, row.id, word) for row in due if isinstance(word := answers[row.id], Said)]
        results = [
            settled(_unit("control", row), complete=False, records=int(self._is_readable(row))) for row in controls
        ]
        results += [settled(_unit("confirm", row), complete=False) for row in due]
        await self._run.write(Batch(records=records, deletions=words, results=results))
        return len(due)

    def _is_readable(self, row: AbsentRow) -> bool:
        return self._controlled and row.resource_type not in self._withdrawn


def _unit(kind: str, row: AbsentRow) -> Unit:
    return Unit(key=f"{kind}:{row.resource_type}:{row.id}", kind=kind, resource_type=row.resource_type, ids=(row.id,))


def asked_for(url: str, run: int) -> list[str]:
    """Ids that a run read because it missed them, in order."""
    found = rows(url, "SELECT ids[1] FROM unit WHERE run = %s AND kind = 'confirm' ORDER BY ordinal", run)
    return [row[0] for row in found]


def open_evidence(url: str) -> dict[str, str]:
    """The open doubts, by id."""
    return dict(rows(url, "SELECT id, state FROM evidence"))


def rows(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Look into the default tenant's tables."""
    with psycopg.connect(url, autocommit=True, options=f"-c search_path={SCHEMA}") as conn:
        return conn.execute(query, values).fetchall()


def everything(url: str) -> str:
    """All rows of all tables, as text, with bytes as they are."""
    with psycopg.connect(url) as conn:
        tables = conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition",
            [SCHEMA],
        ).fetchall()
        found = []
        for (name,) in tables:
            conn.execute("SET bytea_output = 'escape'")
            query = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(SCHEMA, name))
            conn.execute("SELECT set_config('app.current_tenant_id', 'default', false)")
            found += [row[0] for row in conn.execute(query)]
    return "\n".join(found)


def execute(url: str, statement: str) -> None:
    """Change the default tenant's tables behind the store's back."""
    with psycopg.connect(url, autocommit=True, options=f"-c search_path={SCHEMA}") as conn:
        conn.execute(statement)


def make_as_of_version(url: str, version: int) -> None:
    """Make the store's schema what the program of an earlier version left."""
    execute(url, f"DROP SCHEMA {SCHEMA} CASCADE")
    execute(url, f"CREATE SCHEMA {SCHEMA}")
    record_of_steps = "version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()"
    execute(url, f"CREATE TABLE schema_migration ({record_of_steps})")
    for step in migrations()[:version]:
        execute(url, step.statements)
        execute(url, f"INSERT INTO schema_migration (version, name) VALUES ({step.version}, '{step.name}')")


def live(url: str) -> set[str]:
    return {row[0] for row in rows(url, "SELECT id FROM resource WHERE deleted_at IS NULL")}


_WAITING = """
SELECT pid FROM pg_locks WHERE NOT granted AND pid IN (
    SELECT pid FROM pg_locks WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""


async def lines(store: Store) -> list[bytes]:
    """All that is live, as chunks of NDJSON, type by type."""
    async with store.snapshot(Selection()) as snapshot:
        return [chunk for kind in await snapshot.types() for chunk in [part async for part in snapshot.ndjson(kind)]]


async def killed_at(url: str, held: str, doing: Callable[[], Awaitable[object]]) -> None:
    """Do something that fails if its server process is killed as it waits for the lock that a statement holds; kill it there."""
    await cut_at(url, held, lambda: _refused(doing))


async def cut_at(url: str, held: str, doing: Callable[[], Awaitable[object]]) -> None:
    """Do something while a statement holds a lock that it needs, and kill its server process as it waits there."""
    async with await psycopg.AsyncConnection.connect(url) as conn, anyio.create_task_group() as group:
        await conn.execute(f"SET search_path = {SCHEMA}; SET app.current_tenant_id = 'default'")  # type: ignore[call-overload]
        await conn.execute(held)  # type: ignore[call-overload]  # a test's own
        group.start_soon(doing)
        await conn.execute("SELECT pg_terminate_backend(%s)", (await who_waits(conn),))


async def who_waits(conn: psycopg.AsyncConnection[Any]) -> int:
    """Return the server process that waits for a lock in this database, once there is one."""
    while True:
        found = await (await conn.execute(_WAITING)).fetchone()
        if found is not None:
            return int(found[0])
        await anyio.lowlevel.checkpoint()


async def _refused(doing: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(StoreError):
        await doing()
