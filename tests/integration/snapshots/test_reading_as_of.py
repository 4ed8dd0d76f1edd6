"""Reading the past: a snapshot as of a run shows exactly what was shown when that run had ended."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots.beginning import utc_now
from snapshots.errors import RunNotFoundError
from snapshots.record import Batch
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.witness import Deletion, Said
from tests.integration.snapshots.stored import execute, record, scope

pytestmark = pytest.mark.anyio
_NUMBERS = itertools.count(1)
IDS = ("a", "b", "c")
# of each resource in a run: left alone, deleted, or written with a value for a patient
WORK = st.one_of(st.none(), st.just("gone"), st.tuples(st.integers(1, 2), st.sampled_from(["p1", "p2"])))
RUNS = st.lists(st.fixed_dictionaries(dict.fromkeys(IDS, WORK)), min_size=1, max_size=5)


async def shown(store: Store, **selection: Any) -> tuple[bytes, dict[str, int], tuple[int, ...]]:
    async with store.snapshot(Selection(**selection)) as snapshot:
        lines = b"".join([chunk async for chunk in snapshot.ndjson("Observation")])
        return lines, await snapshot.types(), snapshot.runs


async def worked(store: Store, work: dict[str, Any], *, connection: str = "mercy", at: datetime | None = None) -> int:
    """One run that does this, by a clock that stands still, if there is one; its number."""
    given = {id_: one for id_, one in work.items() if isinstance(one, tuple)}
    records = [
        record(id_, one[0], patient=one[1], version=str(next(_NUMBERS)), kind="Observation")
        for id_, one in given.items()
    ]
    clock = utc_now if at is None else lambda: at
    async with await store.begin_run(scope(connection=connection), clock=clock) as run:
        await run.write(Batch(records=records))
        gone = [Deletion("Observation", id_, Said.DELETED) for id_, one in work.items() if one == "gone"]
        await run.write(Batch(deletions=gone))
        await run.finish(watermark=None)
        return run.id


@settings(max_examples=20)
@given(RUNS, st.lists(st.booleans(), min_size=5, max_size=5))
async def test_every_run_reads_back_as_it_was(store: Store, runs: list[dict[str, Any]], elsewhere: list[bool]) -> None:
    names = tuple(f"{name}-{next(_NUMBERS)}" for name in ("mercy", "other"))
    seen: dict[int, list[Any]] = {}

    async def look(**then: Any) -> list[Any]:
        return [
            await shown(store, connections=names[:known], **then),
            await shown(store, connections=names[:known], patients=("p1",), **then),
        ]

    known = 1
    for number, work in enumerate(runs):
        at = int(elsewhere[number] and number > 0)
        known = max(known, at + 1)
        run = await worked(store, work, connection=names[at])
        seen[run] = await look()
    for run, then in seen.items():
        found = await look(as_of=run)
        assert [one[:2] for one in found] == [one[:2] for one in then]
        assert set(found[0][2]) >= set(then[0][2])


async def test_a_moment_shows_the_result_of_the_runs_that_had_ended_by_then(store: Store) -> None:
    await worked(store, {"a": (1, "p1")})
    between = datetime.now(UTC)
    await worked(store, {"a": (2, "p1"), "b": (1, "p1")})
    lines, types, _ = await shown(store, as_of=between)
    assert ([orjson.loads(line)["value"] for line in lines.splitlines()], types) == ([1], {"Observation": 1})
    assert (await shown(store, as_of=between - timedelta(days=1)))[1] == {}
    assert (await shown(store, as_of=datetime.now(UTC)))[1] == {"Observation": 2}


@pytest.mark.parametrize("other", ["mercy", "south"])
async def test_a_clock_that_was_set_back_or_that_differs_changes_neither_a_runs_moment_nor_what_changed_since_it(
    store: Store, other: str
) -> None:
    now = datetime.now(UTC)
    first = await worked(store, {"a": (1, "p1")}, at=now)
    seen = await shown(store)
    async with store.snapshot(Selection()) as snapshot:
        left_by = snapshot.left_by
    second = await worked(store, {"b": (2, "p1")}, at=now - timedelta(minutes=5), connection=other)
    assert (await shown(store, as_of=first))[:2] == seen[:2]
    assert (await shown(store, as_of=second))[1] == {"Observation": 2}
    assert left_by == first
    assert (await shown(store, changed_since=first))[1] == {"Observation": 1}
    assert (await shown(store, changed_since=first, as_of=second))[1] == {"Observation": 1}
    async with store.snapshot(Selection()) as snapshot:
        assert snapshot.left_by == second
    with pytest.raises(RunNotFoundError, match="ended after the requested moment"):
        await shown(store, changed_since=second, as_of=first)


async def test_what_changed_since_a_run_is_refused_at_an_instant_that_lacks_a_run_which_had_ended_before_it(
    store: Store,
) -> None:
    now = datetime.now(UTC)
    await worked(store, {"b": (1, "p1")}, at=now, connection="south")
    first = await worked(store, {"a": (1, "p1")}, at=now - timedelta(minutes=5))
    with pytest.raises(RunNotFoundError, match="left more than there was"):
        await shown(store, changed_since=first, as_of=now - timedelta(minutes=2))


async def test_a_run_that_an_older_program_ended_gets_its_place_before_the_next_one(
    store: Store, store_url: str
) -> None:
    first = await worked(store, {"a": (1, "p1")})
    execute(store_url, "UPDATE run SET end_order = NULL")
    second = await worked(store, {"b": (2, "p1")}, connection="south")
    assert (await shown(store, as_of=first))[1] == {"Observation": 1}
    assert (await shown(store, as_of=second))[1] == {"Observation": 2}


async def test_a_run_that_is_open_or_unknown_has_no_past_to_read(store: Store) -> None:
    done = await worked(store, {"a": (1, "p1")})
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(records=[record("a", 2)]))
        with pytest.raises(RunNotFoundError, match="has not ended"):
            await shown(store, as_of=run.id)
        assert (await shown(store, as_of=done))[0] == (await shown(store))[0]
        await run.finish(watermark=None)
    with pytest.raises(RunNotFoundError, match="has no run 99"):
        await shown(store, as_of=99)


async def test_a_chart_has_the_rows_that_once_named_the_patient_beside_others(store: Store) -> None:
    for content, others in ((1, ("p2",)), (2, ())):
        shared = record("a", content, version=str(next(_NUMBERS)))._replace(others=others)
        async with await store.begin_run(scope()) as run:
            await run.write(Batch(records=[shared]))
            await run.finish(watermark=None)
    found = await store.chart_history("mercy", "p2")
    assert [(one.resource_type, one.new, one.changed, one.deleted) for one in found.changes] == [
        ("Observation", 1, 0, 0),
        ("Observation", 0, 1, 0),
    ]
