"""Reading while a run is open: a snapshot shows what the ended runs left, and names the run that it leaves out."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots.read_runs import UnendedRun
from snapshots.reader import Snapshot
from snapshots.record import Batch
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.unit import UnitResult, UnitState
from snapshots.witness import Deletion
from tests.integration.snapshots.stored import execute, full_run, record, scope, search

pytestmark = pytest.mark.anyio
U = search()
FORMER = [record("kept", 1), record("changed", 1), record("gone", 1), record("moved", 1), record("dead", 1)]
FOUND = {"kept": 1, "changed": 1, "gone": 1, "moved": 1}


async def shown(snapshot: Snapshot, kind: str = "Observation") -> dict[str, Any]:
    lines = b"".join([chunk async for chunk in snapshot.ndjson(kind)]).splitlines()
    return {body["id"]: body["value"] for body in map(orjson.loads, lines)}


async def contents(store: Store, selection: Selection | None = None) -> dict[str, Any]:
    async with store.snapshot(selection or Selection()) as snapshot:
        return await shown(snapshot)


async def former(store: Store) -> None:
    await full_run(await store.begin_run(scope()), FORMER, [U])
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(deletions=[Deletion("Observation", "dead")]))
        await run.finish(watermark=None)


NEWS = Batch(
    records=[record("changed", 2), record("new", 2), record("dead", 2), record("moved", 2, patient="p2")],
    deletions=[Deletion("Observation", "gone")],
)


async def test_rows_written_by_an_open_run_are_shown_as_they_were_before(store: Store):
    await former(store)
    async with await store.begin_run(scope()) as run:
        await run.write(NEWS)
        async with store.snapshot(Selection()) as snapshot:
            assert await shown(snapshot) == FOUND
            assert await snapshot.types() == {"Observation": 4}
            assert await snapshot.present() == {"Observation": 4}
            assert [row[0] for row in await snapshot.fetch(snapshot.sources("Observation")[0])] == ["mercy"] * 4
            assert snapshot.runs == (run.id - 1,)
            assert snapshot.not_included == (UnendedRun(run.id, "mercy", run.started_at),)
        await run.finish(watermark=None)
    async with store.snapshot(Selection()) as snapshot:
        assert await shown(snapshot) == {"kept": 1, "changed": 2, "moved": 2, "dead": 2, "new": 2}
        assert (snapshot.runs, snapshot.not_included) == ((run.id,), ())


async def test_a_killed_run_is_not_shown_until_it_is_resumed_and_has_ended(store: Store):
    await former(store)
    async with await store.begin_run(scope()) as run:
        await run.write(NEWS)
    assert await contents(store) == FOUND
    async with await store.begin_run(scope()) as again:
        assert again.id == run.id
        await again.write(Batch(records=[record("kept", 3)]))
        assert await contents(store) == FOUND
        await again.finish(watermark=None)
    assert await contents(store) == {"kept": 3, "changed": 2, "moved": 2, "dead": 2, "new": 2}


async def test_several_changes_by_one_open_run_hide_no_earlier_state(store: Store):
    await former(store)
    async with await store.begin_run(scope()) as run:
        await run.write(NEWS)
        again = [record(one, 3) for one in ("changed", "gone", "new")]
        await run.write(Batch(records=again, deletions=[Deletion("Observation", "moved")]))
        await run.write(Batch(records=[record("gone", 4)], deletions=[Deletion("Observation", "changed")]))
        assert await contents(store) == FOUND


async def test_a_row_belongs_to_its_patient_from_before_the_open_run(store: Store):
    await former(store)
    async with await store.begin_run(scope()) as run:
        await run.write(NEWS)
        assert await contents(store, Selection(patients=("p1",))) == FOUND
        assert await contents(store, Selection(patients=("p2",))) == {}
        assert await contents(store, Selection(patients=("p1", "p2"))) == FOUND


async def test_the_other_patients_of_a_row_are_those_from_before_the_open_run(store: Store):
    named = [record("stays", 1, others=("p7",)), record("leaves", 1, others=("p7",)), record("joins", 1)]
    await full_run(await store.begin_run(scope()), named, [U])
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(records=[record("leaves", 2), record("joins", 2, others=("p7",))]))
        await run.write(
            Batch(records=[record("stays", 3, version="3", others=("p7", "p8")), record("new", 1, others=("p7",))])
        )
        await run.write(Batch(records=[record("stays", 4, version="4", others=("p8",))]))
        assert await contents(store, Selection(patients=("p7",))) == {"stays": 1, "leaves": 1}
        assert await contents(store, Selection(patients=("p8",))) == {}
        await run.finish(watermark=None)
    assert await contents(store, Selection(patients=("p7",))) == {"joins": 2, "new": 1}
    assert await contents(store, Selection(patients=("p8",))) == {"stays": 4}


async def test_an_open_run_of_another_connection_does_not_matter(store: Store):
    await former(store)
    async with await store.begin_run(scope(connection="other")) as run:
        await run.write(Batch(records=[record("theirs", 1)]))
        async with store.snapshot(Selection(connections=("mercy",))) as snapshot:
            assert (await shown(snapshot), snapshot.not_included) == (FOUND, ())
        async with store.snapshot(Selection()) as snapshot:
            assert await shown(snapshot) == FOUND
            assert await snapshot.present() == {"Observation": 4}
            assert [one.run for one in snapshot.not_included] == [run.id]


async def test_a_first_run_that_is_still_open_shows_nothing(store: Store):
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(records=FORMER))
        async with store.snapshot(Selection()) as snapshot:
            assert (await shown(snapshot), await snapshot.types(), await snapshot.present()) == ({}, {}, {})
            assert snapshot.runs == ()


async def test_a_pull_that_found_nobody_does_not_date_a_snapshot(store: Store):
    await former(store)
    async with store.snapshot(Selection()) as snapshot:
        before = (snapshot.shown, snapshot.as_of)
    async with await store.begin_run(scope(kind="pull", selection="one patient")) as run:
        empty = search("Condition")
        await run.plan([U, empty])
        hole = UnitResult(key=U.key, state=UnitState.FAILED, reason="the server does not know this patient")
        await run.write(Batch(results=[hole, UnitResult(key=empty.key, state=UnitState.SETTLED)]))
        await run.finish(watermark=None)
    async with store.snapshot(Selection()) as snapshot:
        assert (snapshot.shown, snapshot.as_of) == before
        assert await shown(snapshot) == FOUND


async def test_a_mention_leads_to_the_row_from_before_the_open_run(store: Store):
    chart = record("a", orjson.dumps({"id": "a", "value": 1, "x": {"reference": "Medication/m"}}))
    await full_run(await store.begin_run(scope()), [chart, record("m", 1, kind="Medication", patient=None)], [U])
    async with await store.begin_run(scope()) as run:
        changed = record("a", orjson.dumps({"id": "a", "value": 2, "x": {"reference": "Medication/n"}}))
        news = [record(one, 2, kind="Medication", patient=None) for one in ("m", "n")]
        await run.write(Batch(records=[changed, *news]))
        async with store.snapshot(Selection(patients=("p1",), mentioned=True)) as snapshot:
            assert await shown(snapshot, "Medication") == {"m": 1}


async def test_without_open_runs_the_tables_are_read_without_history(store: Store, store_url: str):
    await former(store)
    execute(store_url, "ALTER TABLE resource_history RENAME TO out_of_reach")
    try:
        assert await contents(store) == FOUND
        assert await contents(store, Selection(patients=("p1",))) == FOUND
    finally:
        execute(store_url, "ALTER TABLE out_of_reach RENAME TO resource_history")


_NUMBERS = itertools.count()
_ROW = st.sampled_from(["a", "b", "c"])
_STEP = st.one_of(
    st.tuples(_ROW, st.integers(1, 3), st.sampled_from(["p1", "p2"])),
    st.tuples(_ROW, st.none(), st.none()),
)


@settings(max_examples=15)
@given(ended=st.lists(st.lists(_STEP, max_size=4), max_size=3), still_open=st.lists(_STEP, max_size=6))
async def test_an_open_run_never_changes_a_snapshot(store: Store, ended: list[list[Any]], still_open: list[Any]):
    name = f"connection-{next(_NUMBERS)}"
    truth: dict[str, tuple[str, str]] = {}  # content tells its patient: equal content is not written again

    async def play(steps: list[Any], *, end: bool) -> None:
        given: dict[str, tuple[str, str]] = {}
        said_deleted = {row for row, value, _ in steps if value is None}
        async with await store.begin_run(scope(connection=name)) as run:
            for row, value, patient in steps:
                if value is None:
                    await run.write(Batch(deletions=[Deletion("Observation", row)]))
                else:
                    given[row] = (f"{value} {patient}", patient)
                    newer = record(row, given[row][0], patient=patient, version=str(next(_NUMBERS)))
                    await run.write(Batch(records=[newer]))
            if end:
                await run.finish(watermark=None)
                for row in said_deleted - given.keys():  # what is given and said to be deleted in one run stays
                    truth.pop(row, None)
                truth.update(given)

    for steps in ended:
        await play(steps, end=True)
    await play(still_open, end=False)
    assert await contents(store, Selection(connections=(name,))) == {row: value for row, (value, _) in truth.items()}
    for one in ("p1", "p2"):
        theirs = {row: value for row, (value, patient) in truth.items() if patient == one}
        assert await contents(store, Selection(connections=(name,), patients=(one,))) == theirs
