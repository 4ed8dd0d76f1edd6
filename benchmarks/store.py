"""store measures the cost of the snapshot store, compared with what Postgres alone takes for the same bytes.

It writes and reads through the store itself, without an EHR; `bulk_sync` measures reading the records' keys. Each load has a
separate tenant.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from statistics import median

import psycopg

from benchmarks.figures import Figure
from benchmarks.processes import CommandFailedError
from benchmarks.workplace import DataSet, Workplace, copy_in, tell
from connectors.fhir.records import record_from
from connectors.fhir.transport.fhir_base import FhirBase
from snapshots.actor import Actor
from snapshots.record import Batch, Record
from snapshots.report import RunScope
from snapshots.sealed_values import KEY_BYTES, Keyring
from snapshots.selection import Selection
from snapshots.store import Store, open_store
from snapshots.unit import Unit, UnitKind, UnitResult, UnitState
from snapshots.witness import Way, WayScope

WAY = Way("benchmark", WayScope.EVERYTHING)
UNIT = Unit(key="benchmark", kind=UnitKind.FILE, resource_type="Patient", way=WAY)
SCOPE = RunScope(connection="bench", kind="sync", mode="bulk", selection="all", types=())
KEYS = Keyring(current="k1", keys={"k1": bytes(range(KEY_BYTES))})
ACTOR = Actor(name="bench")
AT_ONCE = 2_000  # records of a batch
# of the load whose cost per row should stay flat: rows that are timed together, and its end
STEP_ROWS, MOST_ROWS, MOST_S = 100_000, 5_000_000, 240.0
CORES_OF_TWO = 4
STEP_TIMES, MOST_TIMES = 10, 60  # the records, where there are few
BARE = "bare COPY of the same bytes into jsonb"


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """What one turn took, in seconds, and how many bytes things had."""

    bare: float
    first: float
    together: float  # two writers
    again: float
    changed: float
    sealed: float
    present: float
    past: float
    sealed_export: float
    disk: int
    bare_disk: int


def run(place: Workplace) -> list[Figure]:
    """Measure every part in each turn; the figures are medians. Then one load as large as a few minutes allow."""
    data = place.data()
    records = list(_records(data))
    turns = []
    for turn in range(place.runs):
        tell(f"store, {len(records):,} resources, turn {turn + 1} of {place.runs}")
        turns.append(asyncio.run(_turn(place, data, records, _load_by_two(place, records))))
    tell(f"store, up to {min(MOST_ROWS, MOST_TIMES * len(records)):,} resources or {MOST_S:.0f} s")
    return [*_figures(data, turns), asyncio.run(_growth(place, records))]


def _figures(data: DataSet, turns: Sequence[_Turn]) -> list[Figure]:
    def speed(part: str) -> float:
        return float(data.megabytes / median(getattr(turn, part) for turn in turns))

    together = "all types together, persons too"
    return [
        Figure(name="store: first load", value=speed("first"), unit="MB/s", limit=speed("bare"), limit_name=BARE, bar=0.9),
        Figure(
            name="store: first load by two writers at a time", value=speed("together"), unit="MB/s", limit=speed("first"),
            limit_name="one writer", bar=1.6 if (os.cpu_count() or 1) >= CORES_OF_TWO else None,
            note=f"two processes, {os.cpu_count()} cores; each writer takes one, and its session in Postgres another",
        ),
        Figure(
            name="store: the same again, unchanged", value=speed("again"), unit="MB/s", limit=speed("first"),
            limit_name="first load", bar=2.0,
        ),
        Figure(
            name="store: again, 1 % changed", value=speed("changed"), unit="MB/s", limit=speed("again"),
            limit_name="unchanged",
        ),
        Figure(
            name="store: first load, encrypted", value=speed("sealed"), unit="MB/s", limit=speed("first"),
            limit_name="first load", note=together,
        ),
        Figure(
            name="store: export as of the run before, 1 % changed since", value=speed("past"), unit="MB/s",
            limit=speed("present"), limit_name="export of the present", bar=0.7,
        ),
        Figure(
            name="store: export, encrypted", value=speed("sealed_export"), unit="MB/s", limit=speed("present"),
            limit_name="export of the present", note=together,
        ),
        Figure(
            name="store: disk, beside that of a plain jsonb table", value=median(one.disk / one.bare_disk for one in turns),
            unit="times", bar=1.3, bar_on="at most", note="with indexes, after the first load",
        ),
    ]  # fmt: skip


def _records(data: DataSet) -> Iterator[Record]:
    base = FhirBase("http://localhost/fhir")
    for path in sorted(data.plain.iterdir()):
        with path.open("rb") as file:
            for line in file:
                yield record_from(line.rstrip(b"\n"), base, UNIT.key, WAY)


def _renamed(record: Record, copy: int) -> Record:
    """The same resource of another patient."""
    id_ = f"{record.id}-{copy}"
    body = record.body.replace(record.id.encode(), id_.encode(), 1)
    patient = record.patient_id and f"{record.patient_id}-{copy}"
    return record._replace(id=id_, patient_id=patient, body=body, content_hash=blake2b(body, digest_size=16).digest())


def _altered(record: Record) -> Record:
    body = record.body[:-1] + b',"altered":true}'
    return record._replace(body=body, content_hash=blake2b(body, digest_size=16).digest())


async def _turn(place: Workplace, data: DataSet, records: Sequence[Record], together: float) -> _Turn:
    with place.table(data) as table:
        begins = time.perf_counter()
        copy_in(place.url, table, data)
        bare, bare_disk = time.perf_counter() - begins, _size(place, "public", "bare")
    async with _store(place) as (store, tenant):
        first = await _load(store, records)
        disk = _size(place, f"tenant_{tenant}", "resource%")
        again = await _load(store, records)
        changed = await _load(store, [_altered(one) if n % 100 == 0 else one for n, one in enumerate(records)])
        present, past = await _export(store), await _export(store, as_of=2)
    async with _store(place, KEYS) as (store, _):
        sealed = await _load(store, records)
        sealed_export = await _export(store)
    return _Turn(
        bare=bare, first=first, together=together, again=again, changed=changed, sealed=sealed, present=present, past=past,
        sealed_export=sealed_export, disk=disk, bare_disk=bare_disk,
    )  # fmt: skip


async def _growth(place: Workplace, records: Sequence[Record]) -> Figure:
    """Load copies of the records; compare the cost per row at the end with that of the first rows."""
    step, most = min(STEP_ROWS, STEP_TIMES * len(records)), min(MOST_ROWS, MOST_TIMES * len(records))
    rows, spent, marks = 0, 0.0, [(0, 0.0)]
    async with _store(place) as (store, _), await store.begin_run(SCOPE) as opened:
        await opened.plan([UNIT])
        for copy in range(MOST_TIMES):
            for some in _batches(records):
                batch = Batch(records=[_renamed(one, copy) for one in some])
                begins = time.perf_counter()
                await opened.write(batch)
                spent += time.perf_counter() - begins
                rows += len(some)
                if rows - marks[-1][0] >= step:
                    marks.append((rows, spent))
            if rows >= most or (spent > MOST_S and len(marks) > 1):
                break
        await opened.fail(reason="only measured")
    speeds = [(after[0] - before[0]) / (after[1] - before[1]) for before, after in pairwise(marks)]
    return Figure(
        name=f"store: load, the last {step:,} of {rows:,} rows", value=speeds[-1], unit="rows/s", limit=speeds[0],
        limit_name=f"the first {step:,}", bar=0.85, samples=tuple(speeds),
    )  # fmt: skip


@asynccontextmanager
async def _store(place: Workplace, keyring: Keyring | None = None) -> AsyncIterator[tuple[Store, str]]:
    tenant = place.tenant()
    try:
        async with open_store(place.url, tenant, ACTOR, keyring=keyring) as store:
            yield store, tenant
    finally:
        place.drop(tenant)


def _load_by_two(place: Workplace, records: Sequence[Record]) -> float:
    """Load the records into one tenant by two processes, each half of them for a connection of its own; return the seconds."""
    tenant = place.tenant()
    started = multiprocessing.get_context("fork")
    barrier, parts = started.Barrier(3), (records[::2], records[1::2])
    writers = [
        started.Process(target=_write, args=(place.url, tenant, part, n, barrier)) for n, part in enumerate(parts)
    ]
    try:
        asyncio.run(_made(place.url, tenant))
        for writer in writers:
            writer.start()
        barrier.wait()
        begins = time.perf_counter()
        for writer in writers:
            writer.join()
        seconds = time.perf_counter() - begins
        if any(writer.exitcode for writer in writers):
            raise CommandFailedError("one of two writers failed")
        return seconds
    finally:
        place.drop(tenant)


async def _made(url: str, tenant: str) -> None:
    async with open_store(url, tenant, ACTOR):
        pass


def _write(url: str, tenant: str, records: Sequence[Record], number: int, barrier: Barrier) -> None:
    async def write() -> None:
        async with open_store(url, tenant, ACTOR) as store:
            await asyncio.to_thread(barrier.wait)
            await _load(store, records, replace(SCOPE, connection=f"bench-{number}"))

    asyncio.run(write())


async def _load(store: Store, records: Sequence[Record], scope: RunScope = SCOPE) -> float:
    """Load the records in one run, from its begin to its end; return the seconds."""
    begins = time.perf_counter()
    async with await store.begin_run(scope) as opened:
        await opened.plan([UNIT])
        for some in _batches(records):
            await opened.write(Batch(records=some))
        await opened.write(Batch(results=[UnitResult(key=UNIT.key, state=UnitState.SETTLED)]))
        await opened.finish(watermark=None)
    return time.perf_counter() - begins


async def _export(store: Store, as_of: int | None = None) -> float:
    """Read all resources as NDJSON, and keep nothing; return the seconds."""
    begins = time.perf_counter()
    async with store.snapshot(Selection(as_of=as_of)) as snapshot:
        for kind in await snapshot.types():
            async for _ in snapshot.ndjson(kind):
                pass
    return time.perf_counter() - begins


def _batches(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    for start in range(0, len(records), AT_ONCE):
        yield records[start : start + AT_ONCE]


def _size(place: Workplace, schema: str, tables: str) -> int:
    """The bytes of some tables on the disk, with their indexes and what lies beside them."""
    query = """
        SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c
        WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r' AND c.relname LIKE %s
    """
    with psycopg.connect(place.url) as connection:
        row = connection.execute(query, [schema, tables]).fetchone()
    return int(row[0]) if row else 0
