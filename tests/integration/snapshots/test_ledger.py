"""Runs as they begin, are interrupted, go on and end: the lock, resumption, holes, watermarks, bulk jobs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from psycopg import sql

from snapshots.errors import ConnectionBusyError, RunNotFoundError, UnitConflictError
from snapshots.export_job import BulkJob
from snapshots.ledger import OpenRun
from snapshots.migrate import migrations
from snapshots.record import Batch, Quarantined
from snapshots.report import RunScope
from snapshots.store import Store
from snapshots.unit import Unit, UnitKind
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import (
    GROUP,
    execute,
    failed,
    file,
    full_run,
    live,
    person,
    record,
    scope,
    search,
    settled,
)

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]
P1, P2, P3 = (search(patient=f"p{n}") for n in (1, 2, 3))
T1, T2 = "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"


async def test_a_run_killed_with_sigkill_continues_from_what_it_had_committed(store: Store, store_url: str):
    client = subprocess.Popen(  # noqa: ASYNC220 - it says one line, then it is killed
        [sys.executable, "-m", "tests.integration.snapshots.killed_client", store_url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:
        assert client.stdout is not None
        number = int(client.stdout.readline())
        client.kill()
    async with await store.begin_run(scope()) as run:
        assert (run.id, run.planned) == (number, True)
        assert [unit.key for unit in await run.pending()] == [P2.key, P3.key]
        await run.write(Batch(records=[record("c", 1, patient="p2")], results=[settled(P2), settled(P3)]))
        report = await run.finish(watermark=T1)
    assert live(store_url) == {"a", "b", "c"}
    assert (report.status, report.new, report.resources) == ("complete", 3, {"Observation": 3})


async def test_a_resumed_run_retries_its_holes_and_does_not_double_its_quarantine(store: Store, store_url: str):
    line = Quarantined("Observation", "search page 1, entry 2", "not JSON", b"{", P2.key)
    async with await store.begin_run(scope()) as run:
        await run.plan([P1, P2, P3])
        await run.write(Batch(quarantined=[line], results=[settled(P1), failed(P2)]))
    async with await store.begin_run(scope()) as again:
        assert again.id == run.id
        assert again.started_at == run.started_at
        assert [unit.key for unit in await again.pending()] == [P2.key, P3.key]
        await again.write(Batch(results=[settled(P2), settled(P3)]))
        report = await again.finish(watermark=None)
    assert (report.status, report.quarantined, report.holes) == ("complete", 0, [])


async def test_an_interrupted_run_counts_only_its_working_time(store: Store):
    began = datetime(2026, 1, 1, tzinfo=UTC)
    now = [began]

    async def at_work(seconds: float, *units: Unit) -> OpenRun:
        """Begin or resume a run, settle units after this many seconds, and die."""
        async with await store.begin_run(scope(), lambda: now[0]) as run:
            await run.plan([P1, P2, P3])
            now[0] += timedelta(seconds=seconds)
            await run.write(Batch(results=[settled(unit) for unit in units]))
        return run

    first = await at_work(10, P1)
    assert (await store.run(first.id)).seconds == 10
    now[0] += timedelta(hours=3)
    await at_work(20, P2)
    now[0] += timedelta(hours=3)
    await at_work(5)  # nothing is known of these seconds
    now[0] += timedelta(hours=3)
    async with await store.begin_run(scope(), lambda: now[0]) as run:
        assert run.idle == now[0] - began - timedelta(seconds=30)
        now[0] += timedelta(seconds=30)
        report = await run.finish(watermark=None)
    assert (report.id, report.seconds) == (first.id, 60)


async def test_an_abandoned_run_counts_only_its_working_time(store: Store):
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    async with await store.begin_run(scope(), lambda: now[0]) as run:
        await run.plan([P1])
        now[0] += timedelta(seconds=10)
        await run.write(Batch(results=[settled(P1)]))
    now[0] += timedelta(hours=3)
    async with await store.begin_run(scope(types=("Goal",)), lambda: now[0]):
        assert (await store.run(run.id)).seconds == 10


async def test_a_preview_says_what_happens_to_an_open_run(store: Store):
    async with store.peek(scope()) as known:
        assert known is None
    async with await store.begin_run(scope()) as run:
        await run.plan([P1, P2, P3])
        await run.write(Batch(results=[settled(P1), failed(P2)]))
        async with store.peek(scope()) as known:
            assert known is not None
            assert known.open_run is not None
            assert (known.open_run.run, known.open_run.fate) == (run.id, "in progress")
    async with store.peek(scope()) as known:
        assert known is not None
        assert known.open_run is not None
        found = known.open_run
    assert (found.run, found.fate, found.units, found.left, found.has_export) == (
        run.id, "resumed", 3, {"Observation": 2}, False
    )  # fmt: skip
    for other in (scope(types=("Goal",)), scope(base_url="https://elsewhere.example/fhir")):
        async with store.peek(other) as known:
            assert known is not None
            assert known.open_run is not None
            assert known.open_run.fate == ("given up" if other.types else "resumed")
    async with await store.begin_run(scope()) as again:
        await again.finish(watermark=None)
    async with store.peek(scope()) as known:
        assert known is not None
        assert known.open_run is None


async def test_a_preview_names_the_patients_without_stored_rows(store: Store):
    async with await store.begin_run(scope()) as run:
        await run.plan([P1])
        await run.write(Batch(records=[record("o1", patient="p1")], results=[settled(P1)]))
        await run.finish(watermark=None)
    async with store.peek(scope()) as known:
        assert known is not None
        assert await known.jobs.never_stored(["p1", "p2"]) == ["p2"]


async def test_what_an_exports_files_brought_is_told_apart_from_what_reads_brought(store: Store):
    file = Unit(key="f1", kind=UnitKind.FILE, resource_type="Observation")
    async with await store.begin_run(scope()) as run:
        await run.plan([file])
        await run.write(Batch(records=[record("o1", patient="p1")], results=[settled(file, records=1)]))
        await run.write(Batch(records=[record("p1", kind="Patient", way=None)]))  # read by id
    async with await store.begin_run(scope()) as run:
        assert await run.jobs.received_types() == ["Observation"]


async def test_rows_listed_before_an_interruption_are_not_missed_after_it(store: Store, store_url: str):
    content = [record("a", 1, patient="p1"), record("b", 1, patient="p1")]
    await full_run(await store.begin_run(scope()), content, [P1])
    async with await store.begin_run(scope()) as run:
        await run.plan([P1])
        await run.write(Batch(records=[content[0]]))
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(results=[settled(P1, records=1)]))
        await run.evidence.note_missed()
        assert [row.id for row in await run.evidence.due(None, 10)] == ["b"]
        report = await run.finish(watermark=None)
    assert live(store_url) == {"a", "b"}
    assert (report.unchanged, report.deleted) == (1, 0)


async def test_an_interrupted_run_of_another_scope_is_closed_as_failed(store: Store):
    async with await store.begin_run(scope()) as run:
        await run.plan([P1])
    async with await store.begin_run(scope(types=("Observation",))) as other:
        assert (other.id, other.planned) != (run.id, True)
    assert (await store.run(run.id)).error == "interrupted"
    assert (await store.run(run.id)).status == "failed"


async def test_a_run_that_ends_and_one_that_gives_up_an_interrupted_one_never_wait_for_each_other(store_url: str):
    with psycopg.connect(store_url, autocommit=True) as conn:  # else the server finds the circle, and undoes it
        conn.execute(sql.SQL("ALTER DATABASE {} SET deadlock_timeout = '1h'").format(sql.Identifier(conn.info.dbname)))
    async with opened_store(store_url) as store, await psycopg.AsyncConnection.connect(store_url) as conn:
        async with await store.begin_run(scope(connection="b")) as left:
            await left.plan([P1])
        ending = await store.begin_run(scope(connection="a"))
        await conn.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('chartferry end of a run default', 0))"  # another run ends
        )
        async with (
            ending,
            anyio.create_task_group() as group,
            await psycopg.AsyncConnection.connect(store_url) as third,
        ):
            group.start_soon(begun_and_left, store, scope(connection="b", types=("Observation",)))
            await waiting(conn, 1)
            group.start_soon(finished, ending)
            await waiting(conn, 2)
            group.start_soon(third.execute, "LOCK TABLE tenant_default.run IN SHARE MODE")  # as a new key does
            await waiting(conn, 3)
            with anyio.fail_after(20):
                await conn.rollback()
                await waiting(conn, 0)
                await third.rollback()
        assert [(one.connection, one.status) for one in await store.runs()][1:] == [("a", "nothing"), ("b", "failed")]


async def begun_and_left(store: Store, scope_: RunScope) -> None:
    async with await store.begin_run(scope_):
        pass


async def finished(run: OpenRun) -> None:
    await run.finish(watermark=None)


async def waiting(conn: psycopg.AsyncConnection[Any], number: int) -> None:
    """Return once so many sessions of this database wait for a lock."""
    query = """
        SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE NOT granted AND datname = current_database()
    """
    while (await (await conn.execute(query)).fetchone()) != (number,):
        await anyio.lowlevel.checkpoint()


async def test_a_run_interrupted_more_than_a_day_ago_is_not_resumed(store: Store, store_url: str):
    async with await store.begin_run(scope()) as run:
        await run.plan([P1])
    execute(store_url, "UPDATE run SET started_at = now() - interval '25 hours'")
    async with await store.begin_run(scope()) as other:
        assert other.id != run.id


async def test_a_second_run_of_a_busy_connection_is_refused_with_the_first_ones_number(store: Store):
    async with await store.begin_run(scope()) as run:
        with pytest.raises(
            ConnectionBusyError, match=f"connection mercy is busy: run {run.id} is in progress"
        ) as caught:
            await store.begin_run(scope())
        assert caught.value.run == run.id
        async with await store.begin_run(scope(connection="other")) as other:
            assert other.id != run.id


async def test_tenants_do_not_share_locks_runs_or_rows(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), [record("a", 1)], [P1])
    async with (
        opened_store(store_url, "mercy") as mercy,
        await store.begin_run(scope()),
        await mercy.begin_run(scope()) as run,
    ):
        await run.write(Batch(records=[record("z", 1)]))
        assert len(await mercy.runs()) == 1
    assert live(store_url) == {"a"}


async def test_holes_of_the_previous_run_are_fetched_first(store: Store):
    await full_run(await store.begin_run(scope()), [], [P1, P2, P3], results=[settled(P1), failed(P2), failed(P3)])
    async with await store.begin_run(scope()) as run:
        await run.plan([P1, P2, P3])
        assert [unit.key for unit in await run.pending()] == [P2.key, P3.key, P1.key]


async def test_a_unit_is_read_back_as_planned_and_planning_twice_changes_nothing(store: Store):
    unit = replace(
        search(split="category=laboratory", incremental=True, since=T1),
        template="GET /Observation?patient=…",
        ids=("o1", "o2"),
        of_chart="p2",
        page=3,
        detail={"path": "Observation", "count": 7},
    )
    async with await store.begin_run(scope()) as run:
        await run.plan([unit])
        await run.plan([unit, P2])
        assert await run.pending() == [unit, P2]


async def test_settling_a_unit_that_was_never_planned_writes_nothing(store: Store, store_url: str):
    async with await store.begin_run(scope()) as run:
        with pytest.raises(UnitConflictError, match="1 of 1 units"):
            await run.write(Batch(records=[record("a", 1)], results=[settled(P1)]))
        assert live(store_url) == set()


async def test_a_hole_is_reported_without_the_patients_id(store: Store):
    unit = search(patient="mrn-4711", split="category=laboratory")
    report = await full_run(await store.begin_run(scope()), [], [unit], results=[failed(unit, "HTTP 503")])
    (hole,) = report.holes
    assert (hole.resource_type, hole.reason) == ("Observation", "HTTP 503")
    assert hole.scope.startswith("patient ~")
    assert hole.scope.endswith(", category=laboratory")
    assert "4711" not in repr(report)
    assert report.status == "failed"


async def test_a_hole_without_a_patient_blocks_only_the_watermark_of_its_type(store: Store):
    condition, everyone = search("Condition"), search(patient=None)
    units, results = [P1, everyone, condition], [settled(P1), failed(everyone), settled(condition)]
    brought = [record("a", 1), record("c", 1, kind="Condition")]
    await full_run(await store.begin_run(scope()), brought, units, results=results, watermark=T1)
    async with await store.begin_run(scope()) as run:
        assert await run.knowledge.watermarks() == {"Condition": T1}
        assert await run.knowledge.last_full_listing([]) is None


@pytest.mark.parametrize(
    "unit",
    [
        Unit(key="error-file:1", kind=UnitKind.ERROR_FILE, resource_type="Observation"),
        Unit(key="deleted-file:1", kind=UnitKind.DELETED_FILE, resource_type="*"),
    ],
)
async def test_a_hole_that_hides_deletions_or_errors_blocks_every_watermark(store: Store, unit: Unit):
    results = [settled(P1), failed(unit)]
    await full_run(await store.begin_run(scope()), [], [P1, unit], results=results, watermark=T1)
    async with await store.begin_run(scope()) as run:
        assert await run.knowledge.watermarks() == {}


async def test_a_complete_run_moves_the_watermarks_of_its_selection_only(store: Store):
    wanted = scope(types=("Observation", "Goal"))
    await full_run(await store.begin_run(wanted), [record("a", 1)], [P1, search("Goal")], watermark=T1)
    async with await store.begin_run(wanted) as run:
        assert await run.knowledge.watermarks() == {"Observation": T1}  # of Goal there is nothing at all
        assert await run.knowledge.last_full_listing([]) is not None
    async with await store.begin_run(scope(selection="group:9")) as run:
        assert await run.knowledge.watermarks() == {}


async def test_a_run_from_an_instant_after_the_watermark_does_not_move_it(store: Store):
    await full_run(await store.begin_run(scope()), [record("a", 1)], [P1], watermark=T1)
    await full_run(await store.begin_run(scope(since={"*": "2024-01-15T00:00:00Z"})), [], [P1], watermark=T2)
    async with await store.begin_run(scope()) as run:
        assert await run.knowledge.watermarks() == {"Observation": T1}


async def test_a_pull_moves_no_watermark(store: Store):
    await full_run(await store.begin_run(scope(kind="pull")), [], [P1], watermark=None)
    async with await store.begin_run(scope()) as run:
        assert await run.knowledge.watermarks() == {}
        assert await run.knowledge.last_full_listing([]) is None


async def test_a_bulk_job_survives_a_crash(store: Store):
    job = BulkJob(status_url="https://ehr/x", kicked_off_at=datetime(2024, 1, 1, tzinfo=UTC), request="GET /$export")
    async with await store.begin_run(scope()) as run:
        assert await run.jobs.current() is None
        await run.jobs.save(job)
    async with await store.begin_run(scope()) as run:
        assert await run.jobs.current() == job
        done = BulkJob(**{**vars(job), "transaction_time": T1, "manifest_complete": True, "deleted": True})
        await run.jobs.save(done)
        assert await run.jobs.current() == done


async def test_an_abandoned_open_run_is_listed_as_interrupted(store: Store):
    async with await store.begin_run(scope()) as run:
        assert (await store.run(run.id)).status == "running"
    assert [each.status for each in await store.runs(1)] == ["interrupted"]


async def test_a_run_is_reported_with_the_mode_that_it_chose(store: Store):
    job = BulkJob(status_url="https://ehr/job/1", kicked_off_at=datetime.now(UTC), request="GET /$export")
    async with await store.begin_run(scope(mode="auto")) as run:
        assert (await store.run(run.id)).mode == "auto"
        await run.jobs.save(job)
        assert (await run.finish(watermark=None)).mode == "bulk"
    assert (await full_run(await store.begin_run(scope(mode="auto")), [], [P1])).mode == "crawl"


async def test_a_run_without_units_did_nothing(store: Store):
    assert (await full_run(await store.begin_run(scope()), [], [])).status == "nothing"


async def test_runs_are_listed_newest_first_and_found_by_number(store: Store):
    first = await full_run(await store.begin_run(scope()), [record("p1", kind="Patient", patient="p1")], [P1])
    second = await full_run(await store.begin_run(scope(connection="other")), [], [P1, P2])
    assert [run.id for run in await store.runs(10)] == [second.id, first.id]
    assert [run.id for run in await store.runs(10, "mercy")] == [first.id]
    assert (await store.run(first.id)).resources == {"Patient": 1}
    assert (first.patients, second.patients) == (1, 2)
    assert await store.patient_ids("mercy") == ["p1"]
    with pytest.raises(RunNotFoundError, match="no run 99"):
        await store.run(99)


async def test_pending_returns_only_the_requested_kinds(store: Store) -> None:
    other = Unit(key="reference:Medication:1", kind=UnitKind.REFERENCE, resource_type="Medication")
    async with await store.begin_run(scope()) as run:
        await run.plan([P1, other, P2])
        assert await run.pending(kinds=(UnitKind.REFERENCE,)) == [other]
        assert await run.pending(limit=1, kinds=(UnitKind.SEARCH, UnitKind.READ)) == [P1]
        assert await run.pending(kinds=()) == []
        assert len(await run.pending()) == 3


async def test_an_export_proves_a_type_empty_only_by_its_unit(store: Store):
    wanted = scope(mode="bulk", types=("Observation", "Goal", "CarePlan"))
    no_goals = Unit(key="no-file:Goal", kind=UnitKind.NO_FILE, resource_type="Goal", way=GROUP)
    await full_run(await store.begin_run(wanted), [record("a", 1, way=GROUP)], [file(), no_goals], watermark=T1)
    async with await store.begin_run(wanted) as run:
        assert await run.knowledge.watermarks() == {"Observation": T1, "Goal": T1}


async def test_a_manual_full_run_does_not_resume_an_incremental_one(store: Store):
    async with await store.begin_run(scope()) as run:
        await run.plan([P1])
    async with await store.begin_run(scope(everything=True)) as other:
        assert (other.id != run.id, other.planned) == (True, False)


async def test_a_full_listing_counts_only_for_its_types_and_for_no_wider_login(store: Store):
    async with await store.begin_run(scope()) as run:
        await run.knowledge.speak_for("all, crawled", ["Observation", "Goal"])
        await run.plan([P1])
        await run.write(Batch(records=[record("a", 1)], results=[settled(P1, records=1)]))
        await run.finish(watermark=T1)
    async with await store.begin_run(scope()) as run:
        await run.knowledge.speak_for("all, crawled", ["Observation"])
        assert await run.knowledge.last_full_listing(["Observation"]) is not None
        assert await run.knowledge.last_full_listing(["Observation", "Goal", "Condition"]) is None
        assert await run.knowledge.watermarks() == {"Observation": T1}
        await run.knowledge.speak_for("all, exported", ["Observation"])
        assert (await run.knowledge.last_full_listing(["Observation"]), await run.knowledge.watermarks()) == (None, {})
    async with await store.begin_run(scope(types=("Goal",))) as run:
        await run.knowledge.speak_for("all, crawled", [])
        assert await run.knowledge.last_full_listing([]) is None


@pytest.mark.parametrize(
    ("sessions", "held_back"),
    [([True], {"Observation": T1}), ([False], {}), ([False, True], {}), ([True, False], {}), ([None], {})],
)
async def test_dates_hold_a_watermark_back_only_if_all_sessions_of_the_run_that_moved_it_noted_them(
    store: Store, sessions: list[bool | None], held_back: dict[str, str]
):
    for notes_dates in sessions:
        async with await store.begin_run(scope()) as run:
            await run.knowledge.speak_for("all, crawled", [], notes_dates=notes_dates)
            await run.plan([P1])
            if notes_dates is not sessions[-1]:
                continue  # a crash leaves it open
            await run.write(Batch(records=[record("a", 1)], results=[settled(P1, records=1)]))
            await run.finish(watermark=T1)
    async with await store.begin_run(scope()) as run:
        await run.knowledge.speak_for("all, crawled", [])
        assert await run.knowledge.watermarks(held_back=True) == held_back
        assert await run.knowledge.watermarks() == {"Observation": T1}


async def test_a_crawl_that_an_earlier_version_left_open_noted_no_dates_whoever_resumes_it(
    store: Store, store_url: str
):
    async with await store.begin_run(scope()) as run:
        await run.knowledge.speak_for("all, crawled", [])
        await run.plan([P1])
    (step,) = [one for one in migrations() if one.name == "open_crawls_noted_no_dates"]
    execute(store_url, step.statements)
    async with await store.begin_run(scope()) as run:
        await run.knowledge.speak_for("all, crawled", [], notes_dates=True)
        await run.write(Batch(records=[record("a", 1)], results=[settled(P1, records=1)]))
        await run.finish(watermark=T1)
    async with await store.begin_run(scope()) as run:
        await run.knowledge.speak_for("all, crawled", [])
        assert await run.knowledge.watermarks(held_back=True) == {}


async def test_only_a_connections_first_run_reports_similar_names(store: Store):
    await full_run(await store.begin_run(scope(base_url="https://ehr/r4")), [], [P1])
    twin = scope(connection="twin", base_url="https://ehr/r4")
    async with await store.begin_run(twin) as run:
        assert await run.knowledge.namesakes() == ["mercy"]
        await run.fail(reason="only looked")
    async with await store.begin_run(twin) as run:
        assert await run.knowledge.namesakes() == []
    async with await store.begin_run(scope(connection="another", base_url="https://ehr/dstu2")) as run:
        assert await run.knowledge.namesakes() == []


async def test_a_report_claims_completeness_by_type_mode_patients_and_instant(store: Store):
    goals = [search("Goal", "p1", incremental=True, since=T1), search("Goal", "p2")]
    brought = [record("a", 1), record("b", 1, patient="p2"), record("g", 1, kind="Goal", patient="p2")]
    locations = search("Location", None)
    report = await full_run(
        await store.begin_run(scope()),
        brought,
        [P1, P2, P3, *goals, locations],
        results=[
            *(settled(unit, records=1) for unit in (P1, P2)),
            failed(P3),
            settled(goals[0], complete=False),
            settled(goals[1], records=1),
            settled(locations),
        ],
        watermark=T2,
    )
    assert [(one.way, one.resource_type, one.patients, one.up_to, one.full) for one in report.claims] == [
        ("directory", "Location", None, None, True),
        ("search", "Goal", 2, T2, False),
        ("search", "Observation", 2, T2, True),
    ]
    assert (await store.run(report.id)).claims == report.claims


async def test_a_failed_run_claims_nothing(store: Store):
    async with await store.begin_run(scope()) as run:
        await run.plan([P1])
        await run.write(Batch(results=[settled(P1)]))
        report = await run.fail(reason="down")
    assert list(report.claims) == []


async def test_a_type_whose_files_failed_is_still_a_hole_when_the_next_export_lists_none_of_it(store: Store):
    export = scope(mode="bulk", selection="group:1")
    first = [file("Patient"), file("Observation")]
    everyone = [person("p1", way=GROUP)]
    ended = [settled(first[0], records=1), failed(first[1])]
    await full_run(await store.begin_run(export), everyone, first, results=ended, watermark=T1)
    for _ in range(2):
        report = await full_run(await store.begin_run(export), everyone, [file("Patient")], watermark=T2)
        assert (report.status, [hole.resource_type for hole in report.holes]) == ("partial", ["Observation"])
    brought = [*everyone, record("a", 1, way=GROUP)]
    healed = await full_run(await store.begin_run(export), brought, first, watermark=T2)
    assert healed.status == "complete"


async def test_a_watermark_goes_no_further_than_the_newest_date_less_the_overlap(store: Store):
    async with await store.begin_run(scope()) as run:
        await run.plan([P1, search("Goal")])
        results = [
            settled(P1, records=1, newest="2024-01-01T06:00:00Z"),
            settled(search("Goal"), records=1, newest="2024-03-01T00:00:00Z"),
        ]
        await run.write(Batch(records=[record("a", 1), record("g", 1, kind="Goal")], results=results))
        await run.finish(watermark=T2, overlap=timedelta(hours=6))
    async with await store.begin_run(scope()) as run:
        assert await run.knowledge.watermarks() == {"Observation": T1, "Goal": T2}


async def test_a_hole_of_a_kind_that_an_earlier_chartferry_had_is_still_reported(store: Store, store_url: str) -> None:
    await full_run(await store.begin_run(scope()), [], [search()], results=[failed(search())])
    execute(
        store_url, "ALTER TABLE unit DROP CONSTRAINT unit_kind; UPDATE unit SET kind = 'vanished', patient_id = NULL"
    )
    (hole,) = (await store.run(1)).holes
    assert hole.scope == "vanished 1"
