"""What was kept long enough goes; what a kept moment needs stays, and of an earlier one nothing wrong is said."""

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
from snapshots.witness import Deletion, Said
from tests.integration.snapshots.stored import execute, record, rows, scope

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
PRUNING = st.integers(0, 5)  # all but so many of the nights before
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
        await run.finish(watermark=None, requests=0, retries=0)
        return run.id


async def read(store: Store, name: str, as_of: int | datetime | None, patient: str | None = None) -> Rows:
    selection = Selection(connections=(name,), patients=None if patient is None else (patient,), as_of=as_of)
    async with store.snapshot(selection) as snapshot:
        text = b"".join([chunk async for chunk in snapshot.ndjson("Observation")])
    found = {one["id"]: one["value"] for one in map(orjson.loads, text.splitlines())}
    return {id_: (value, patient, tuple(others)) for id_, (value, patient, others) in found.items()}


@settings(max_examples=8)
@given(st.lists(NIGHT | PRUNING, min_size=3, max_size=7))
async def test_every_moment_that_is_kept_reads_back_as_it_was_and_every_other_is_refused(
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
            told = await store.prune(history=horizon, dry_run=True)
            done = await store.prune(history=horizon)
            assert done == told
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


async def test_what_was_deleted_is_counted_in_the_audit_run_by_run(store: Store, store_url: str) -> None:
    await changed_thrice(store)
    done = await store.prune(history=T0 + timedelta(days=2))
    assert (done.rows, done.kept_from) == ({"member_history": 1, "resource_history": 2}, {"mercy": 3})
    told = rows(store_url, "SELECT action, runs, erased FROM audit_event ORDER BY id")
    assert told == [
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


async def test_a_pruning_that_was_killed_has_refused_what_it_began_to_delete_and_the_next_one_deletes_the_rest(
    store: Store, store_url: str
) -> None:
    await changed_thrice(store)
    execute(store_url, "UPDATE connection SET history_from = 2")  # all that the killed one did
    with pytest.raises(HistoryPrunedError):
        await read(store, "mercy", 1)
    assert await read(store, "mercy", 2) == {"a": (2, "p1", ())}
    assert (await store.prune(history=T0 - timedelta(days=1))).rows == {"member_history": 1, "resource_history": 1}
    assert await read(store, "mercy", 2) == {"a": (2, "p1", ())}


async def test_who_reads_the_past_while_it_is_pruned_reads_it_to_the_end(store: Store) -> None:
    await changed_thrice(store)
    async with store.snapshot(Selection(as_of=1)) as snapshot:
        assert await snapshot.types() == {"Observation": 1}
        await store.prune(history=T0 + timedelta(days=2))
        text = b"".join([chunk async for chunk in snapshot.ndjson("Observation")])
    assert orjson.loads(text)["value"][0] == 1


async def test_an_open_run_and_what_it_has_replaced_are_not_pruned(store: Store) -> None:
    await changed_thrice(store)
    async with await store.begin_run(scope(), clock=lambda: T0 + timedelta(days=3)) as run:
        await run.write(Batch(records=[record("a", (4, "p1", ()))]))
        await store.prune(history=datetime.now(UTC), quarantine=datetime.now(UTC))
        assert await read(store, "mercy", None) == {"a": (3, "p1", ())}
        await run.finish(watermark=None, requests=0, retries=0)
    assert await read(store, "mercy", 3) == {"a": (3, "p1", ())}


async def test_of_quarantine_what_ended_runs_left_is_deleted(store: Store, store_url: str) -> None:
    await changed_thrice(store)
    execute(
        store_url,
        "INSERT INTO quarantine (run, digest, source, reason, raw) SELECT id, 'x', 's', 'r', 'raw' FROM run",
    )
    assert (await store.prune(quarantine=T0 + timedelta(days=1))).rows == {"quarantine": 2}
    assert rows(store_url, "SELECT run FROM quarantine") == [(3,)]
