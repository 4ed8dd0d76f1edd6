"""Old rows are deleted, rows that a kept moment needs stay, and earlier moments are refused."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots.audit_event import Action
from snapshots.errors import HistoryPrunedError
from snapshots.record import Batch
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.unit import Unit
from snapshots.witness import Deletion, Said
from tests.integration.snapshots.stored import (
    execute,
    failed,
    file,
    full_run,
    killed_at,
    record,
    rows,
    scope,
    search,
    settled,
)

pytestmark = pytest.mark.anyio
_NUMBERS = itertools.count(1)
T0 = datetime(2020, 1, 1, tzinfo=UTC)
IDS = ("a", "b", "c")
# of each resource in a run: left alone, deleted, or written with a value, for one patient and perhaps another
WORK = st.one_of(
    st.none(),
    st.just("gone"),
    st.tuples(st.integers(1, 2), st.sampled_from(["p1", "p2"]), st.sampled_from([(), ("p2",)])),
)
NIGHT = st.fixed_dictionaries(dict.fromkeys(IDS, WORK))
PRUNING = st.integers(0, 5)  # all but this many of the nights before
Rows = dict[str, Any]


async def night(store: Store, name: str, day: int, work: dict[str, Any]) -> int:
    given_ = {id_: one for id_, one in work.items() if isinstance(one, tuple)}
    records = [
        record(id_, one, patient=one[1], version=str(next(_NUMBERS)), others=one[2]) for id_, one in given_.items()
    ]
    async with await store.begin_run(scope(connection=name), clock=lambda: T0 + timedelta(days=day)) as run:
        await run.write(Batch(records=records))
        await run.write(
            Batch(deletions=[Deletion("Observation", id_, Said.DELETED) for id_, one in work.items() if one == "gone"])
        )
        await run.finish(watermark=None)
        return run.id


async def read(store: Store, name: str, as_of: int | datetime | None, patient: str | None = None) -> Rows:
    selection = Selection(connections=(name,), patients=None if patient is None else (patient,), as_of=as_of)
    async with store.snapshot(selection) as snapshot:
        text = b"".join([chunk async for chunk in snapshot.ndjson("Observation")])
    found = {one["id"]: one["value"] for one in map(orjson.loads, text.splitlines())}
    return {id_: (value, patient, tuple(others)) for id_, (value, patient, others) in found.items()}


@settings(max_examples=8)
@given(st.lists(NIGHT | PRUNING, min_size=3, max_size=7))
async def test_every_kept_moment_reads_back_as_it_was_and_every_other_is_refused(
    store: Store, steps: list[dict[str, Any] | int]
) -> None:
    name = f"mercy-{next(_NUMBERS)}"
    numbers: list[int] = []
    truth: dict[str, tuple[Any, ...]] = {}
    model: list[dict[str, tuple[Any, ...]]] = []
    kept_from = 0
    for step in [*steps, *steps[:1]]:
        if isinstance(step, dict):
            numbers.append(await night(store, name, len(numbers), step))
            truth = {id_: one for id_, one in {**truth, **step}.items() if one not in (None, "gone")} | {
                id_: truth[id_] for id_, one in step.items() if one is None and id_ in truth
            }
            model.append(truth)
        else:
            horizon = T0 + timedelta(days=len(numbers) - 1 - step)
            foreseen = await store.prune(history=horizon, dry_run=True)
            done = await store.prune(history=horizon)
            assert done == foreseen
            kept_from = done.kept_from.get(name, kept_from)
            assert (await store.prune(history=horizon)).rows == {}
    for number, then in zip(numbers, model, strict=True):
        if number < kept_from:
            with pytest.raises(HistoryPrunedError, match=f"before run {kept_from} was pruned"):
                await read(store, name, number)
        else:
            assert await read(store, name, number) == then
            of = {id_: one for id_, one in then.items() if one[1] == "p2" or "p2" in one[2]}
            assert await read(store, name, number, "p2") == of


async def changed_thrice(store: Store) -> list[int]:
    given_ = [(1, "p1", ("p2",)), (2, "p1", ()), (3, "p1", ())]
    return [await night(store, "mercy", day, {"a": one}) for day, one in enumerate(given_)]


async def test_the_audit_counts_pruned_rows_run_by_run(store: Store, store_url: str) -> None:
    await changed_thrice(store)
    done = await store.prune(history=T0 + timedelta(days=2))
    assert (done.rows, done.kept_from) == ({"member_history": 1, "resource_history": 2}, {"mercy": 3})
    events = rows(store_url, "SELECT action, runs, erased FROM audit_event ORDER BY id")
    assert events == [
        (Action.PRUNE, [2], {"member_history": 1, "resource_history": 1}),
        (Action.PRUNE, [3], {"resource_history": 1}),
    ]
    assert (await store.audit.verify()).faults == ()
    history = await store.chart_history("mercy", "p1")
    assert [(one.run, one.new, one.changed) for one in history.changes] == [(3, 0, 1)]
    assert history.kept_from == 3
    with pytest.raises(HistoryPrunedError):
        async with store.snapshot(Selection(changed_since=2)):
            pass


async def test_after_a_killed_pruning_its_moments_are_refused_and_the_next_one_deletes_the_rest(
    store: Store, store_url: str
) -> None:
    await changed_thrice(store)
    execute(store_url, "UPDATE connection SET history_from = 2")  # all that the killed one did
    with pytest.raises(HistoryPrunedError):
        await read(store, "mercy", 1)
    assert await read(store, "mercy", 2) == {"a": (2, "p1", ())}
    assert (await store.prune(history=T0 - timedelta(days=1))).rows == {"member_history": 1, "resource_history": 1}
    assert await read(store, "mercy", 2) == {"a": (2, "p1", ())}


async def test_a_read_of_the_past_finishes_although_it_is_pruned_meanwhile(store: Store) -> None:
    await changed_thrice(store)
    async with store.snapshot(Selection(as_of=1)) as snapshot:
        assert await snapshot.types() == {"Observation": 1}
        await store.prune(history=T0 + timedelta(days=2))
        text = b"".join([chunk async for chunk in snapshot.ndjson("Observation")])
    assert orjson.loads(text)["value"][0] == 1


async def test_a_run_by_a_wrong_clock_is_as_young_as_those_beside_it(store: Store) -> None:
    days = (0, 100, -9000, 300, 9000, 400)  # the third by a clock that is behind, the fifth by one that is ahead
    numbers = [await night(store, "mercy", day, {"a": (day, "p1", ())}) for day in days]
    for before, kept in ((50, 0), (200, 2 - 1), (350, 3), (500, 5)):
        horizon = T0 + timedelta(days=before)
        assert await store.prune(history=horizon, dry_run=True) == await store.prune(history=horizon)
        for day, number in list(zip(days, numbers, strict=True))[kept:]:
            assert await read(store, "mercy", number) == {"a": (day, "p1", ())}
        for number in numbers[:kept]:
            with pytest.raises(HistoryPrunedError):
                await read(store, "mercy", number)


async def test_an_open_run_and_the_versions_it_replaced_are_not_pruned(store: Store) -> None:
    await changed_thrice(store)
    async with await store.begin_run(scope(), clock=lambda: T0 + timedelta(days=3)) as run:
        await run.write(Batch(records=[record("a", (4, "p1", ()))]))
        await store.prune(history=datetime.now(UTC), quarantine=datetime.now(UTC))
        assert await read(store, "mercy", None) == {"a": (3, "p1", ())}
        await run.finish(watermark=None)
    assert await read(store, "mercy", 3) == {"a": (3, "p1", ())}


async def test_quarantine_of_ended_runs_is_deleted(store: Store, store_url: str) -> None:
    await changed_thrice(store)
    execute(
        store_url,
        "INSERT INTO quarantine (run, digest, source, reason, raw) SELECT id, 'x', 's', 'r', 'raw' FROM run",
    )
    assert (await store.prune(quarantine=T0 + timedelta(days=1))).rows == {"quarantine": 2}
    assert rows(store_url, "SELECT run FROM quarantine") == [(3,)]


async def test_quarantine_and_units_of_a_run_by_a_wrong_clock_are_as_young_as_those_beside_it(
    store: Store, store_url: str
) -> None:
    days = (0, 100, -9000, 300, 9000, 400, 500)  # the third by a clock that is behind, the fifth by one that is ahead
    for day in days:
        async with await store.begin_run(scope(), clock=lambda day=day: T0 + timedelta(days=day)) as run:
            await run.plan([search("Condition", patient="p1")])
            await run.write(Batch(results=[settled(search("Condition", patient="p1"))]))
            await run.finish(watermark=None)
    execute(
        store_url,
        "DELETE FROM watermark; INSERT INTO quarantine (run, digest, unit_key, source, reason, raw) "
        "SELECT run, 'x', key, 's', 'r', 'raw' FROM unit",
    )
    for before, last in ((50, 1), (200, 2), (350, 4), (450, 6)):
        horizon = T0 + timedelta(days=before)
        await store.prune(runs=horizon)
        assert rows(store_url, "SELECT min(run) FROM unit") == rows(store_url, "SELECT min(run) FROM quarantine")
        await store.prune(runs=horizon, quarantine=horizon)
        for table in ("quarantine", "unit"):
            assert rows(store_url, f"SELECT min(run), count(*) FROM {table}") == [(last + 1, len(days) - last)]


UNITS = (search(patient="p1"), search("Condition", patient="p1"))


async def night_of_units(store: Store, *units: Unit) -> None:
    """A night of the year 2020 that asks for the units, and misses the last of them."""
    results = [*map(settled, units[:-1]), failed(units[-1])]
    run = await store.begin_run(scope(), clock=lambda: T0)
    await full_run(run, [record("a", (next(_NUMBERS), "p1", ()))], units, results=results)


async def test_units_are_deleted_run_by_run_and_runs_keep_numbers_and_dates(store: Store, store_url: str) -> None:
    for _ in range(3):
        await night_of_units(store, *UNITS)
    before = [await read(store, "mercy", run) for run in (1, 2, 3)]
    newest = await store.run(3)
    foreseen = await store.prune(runs=T0, dry_run=True)
    done = await store.prune(runs=T0)
    assert (done, done.rows, done.kept_from) == (foreseen, {"unit": 4}, {})
    assert rows(store_url, "SELECT DISTINCT run FROM unit") == [(3,)]
    assert (await store.prune(runs=T0)).rows == {}
    events = rows(store_url, "SELECT runs, erased FROM audit_event WHERE action = 'prune' ORDER BY id")
    assert events == [([1], {"unit": 2}), ([2], {"unit": 2})]
    old = await store.run(1)
    assert (old.status, old.resources, list(old.holes), old.units_pruned) == ("partial", {"Observation": 1}, [], True)
    assert await store.run(3) == newest
    assert [await read(store, "mercy", run) for run in (1, 2, 3)] == before
    assert [one.run for one in (await store.chart_history("mercy", "p1")).changes] == [1, 2, 3]


JOB = (
    "INSERT INTO bulk_job (run, status_url, kicked_off_at, request, manifest_complete, deleted, elements) "
    "VALUES (1, 'u', now(), 'r', true, {}, {})"
)
ENDED = JOB.format("true", "false")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE run SET finished_at = NULL, status = 'running' WHERE id = 1",
        "UPDATE run SET selection = 'group:G', knowledge = '' WHERE id > 1",
        "UPDATE run SET knowledge = 'export' WHERE id > 1",
        "INSERT INTO watermark VALUES (1, 'all', 'Condition', '2020', 1)",
        "INSERT INTO lag VALUES (1, 'all', 'Condition', 'p9', NULL, 1)",
        JOB.format("false", "false"),
        JOB.format("true", "true"),
        f"{ENDED}; UPDATE run SET full_listing = id = 1",
        f"{ENDED}; UPDATE unit SET kind = 'file', records = 1 WHERE run = 1",
    ],
    ids=["open", "selection", "knowledge", "watermark", "lag", "job", "elements", "full-export", "type"],
)
async def test_units_needed_by_a_hole_watermark_or_export_are_kept(
    store: Store, store_url: str, statement: str
) -> None:
    for _ in range(3):
        await night_of_units(store, *UNITS)
    execute(store_url, "DELETE FROM watermark; DELETE FROM lag; UPDATE run SET full_listing = id = 3")
    assert (await store.prune(runs=T0, dry_run=True)).rows == {"unit": 4}
    execute(store_url, statement)
    assert (await store.prune(runs=T0)).rows == {"unit": 2}
    assert rows(store_url, "SELECT DISTINCT run FROM unit ORDER BY run") == [(1,), (3,)]


QUARANTINED = (
    "INSERT INTO quarantine (run, digest, unit_key, source, reason, raw) "
    "SELECT run, 'x', key, 's', 'not JSON', '{' FROM unit WHERE run = 1 AND resource_type = 'Condition'"
)


async def test_erasing_a_patient_after_pruning_units_also_deletes_the_quarantined_line(
    store: Store, store_url: str
) -> None:
    for _ in range(3):
        await night_of_units(store, *UNITS)
    execute(store_url, f"DELETE FROM watermark; DELETE FROM lag; {QUARANTINED}")
    assert (await store.prune(runs=T0)).rows == {"unit": 2}
    assert (await store.erase("mercy", "p1")).rows["quarantine"] == 1
    assert rows(store_url, "SELECT count(*) FROM quarantine") == [(0,)]


async def test_units_that_identify_a_quarantined_line_are_deleted_with_it(store: Store, store_url: str) -> None:
    for _ in range(3):
        await night_of_units(store, *UNITS)
    execute(store_url, f"DELETE FROM watermark; DELETE FROM lag; {QUARANTINED}")
    foreseen = await store.prune(runs=T0, quarantine=T0, dry_run=True)
    assert await store.prune(runs=T0, quarantine=T0) == foreseen
    assert foreseen.rows == {"quarantine": 1, "unit": 4}


async def test_the_newest_export_of_a_type_keeps_its_units(store: Store, store_url: str) -> None:
    for _ in range(3):
        await night_of_units(store, *UNITS, file())
        execute(store_url, ENDED.replace("(1,", "((SELECT max(id) FROM run),"))
    execute(store_url, "DELETE FROM watermark; DELETE FROM lag; UPDATE run SET full_listing = id = 3")
    execute(store_url, "UPDATE unit SET records = 7, state = 'settled' WHERE kind = 'file' AND run < 3")
    assert (await store.prune(runs=T0)).rows == {"unit": 3}
    assert rows(store_url, "SELECT DISTINCT run FROM unit ORDER BY run") == [(2,), (3,)]


@pytest.mark.parametrize(
    ("held", "left"),
    [
        ("SELECT FROM unit WHERE run = 1 FOR UPDATE", 4),
        ("SELECT FROM run WHERE id = 2 FOR UPDATE", 2),
        ("LOCK TABLE audit_event IN SHARE MODE", 4),
        ("LOCK TABLE audit_seal IN SHARE MODE", 0),
    ],
    ids=["first run", "second run", "its event", "its seal"],
)
async def test_a_pruning_of_units_killed_at_any_statement_is_continued(
    store: Store, store_url: str, held: str, left: int
) -> None:
    for _ in range(3):
        await night_of_units(store, *UNITS)
    await killed_at(store_url, held, lambda: store.prune(runs=T0))
    assert rows(store_url, "SELECT count(*) FROM unit WHERE run < 3") == [(left,)]
    events = rows(store_url, "SELECT erased FROM audit_event WHERE action = 'prune'")
    assert sum(erased["unit"] for (erased,) in events) == 4 - left
    assert sum((await store.prune(runs=T0)).rows.values()) == left
    assert [(await store.run(run)).units_pruned for run in (1, 2, 3)] == [True, True, False]
    assert (await store.audit.verify()).faults == ()
