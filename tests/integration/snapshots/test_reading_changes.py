"""Reading the changes since a run: applied to the rows of then, they give the rows of now."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots.audit_event import Action
from snapshots.errors import RunNotFoundError
from snapshots.record import Batch
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.witness import Deletion, Said
from tests.integration.snapshots.stored import execute, record, scope

pytestmark = pytest.mark.anyio
_NUMBERS = itertools.count(1)
IDS = ("a", "b", "c")
# of each resource in a run: left alone, deleted, or written with a value, filed under one patient, naming others as well
WRITTEN = st.tuples(
    st.integers(1, 2), st.sampled_from(["p1", "p2", None]), st.sampled_from([(), ("p1",), ("p1", "p2")])
)
WORK = st.one_of(st.none(), st.just("gone"), WRITTEN)
RUNS = st.lists(st.fixed_dictionaries(dict.fromkeys(IDS, WORK)), min_size=1, max_size=4)
Rows = dict[tuple[str, str], Any]


async def worked(store: Store, work: dict[str, Any], connection: str) -> int:
    given_ = {id_: one for id_, one in work.items() if isinstance(one, tuple)}
    records = [
        record(id_, one[0], patient=one[1], version=str(next(_NUMBERS)), others=one[2]) for id_, one in given_.items()
    ]
    async with await store.begin_run(scope(connection=connection)) as run:
        await run.write(Batch(records=records))
        gone = [Deletion("Observation", id_, Said.DELETED) for id_, one in work.items() if one == "gone"]
        await run.write(Batch(deletions=gone))
        await run.finish(watermark=None)
        return run.id


async def shown(store: Store, selection: Selection) -> tuple[Rows, list[tuple[str, str]]]:
    """Rows, which the source of views has as well, and the keys that are gone."""
    async with store.snapshot(selection) as snapshot:
        text = b"".join([chunk async for chunk in snapshot.ndjson("Observation")])
        rows = {("Observation", one["id"]): one for one in map(orjson.loads, text.splitlines())}
        assert {row[1] for row in await snapshot.fetch(snapshot.sources("Observation")[0])} == {id_ for _, id_ in rows}
        assert set(await snapshot.present()) == ({"Observation"} if rows else set())
        lost = b"".join([chunk async for chunk in snapshot.removed()])
        return rows, [(one["type"], one["id"]) for one in map(orjson.loads, lost.splitlines())]


async def differing(store: Store, selection: Selection) -> dict[tuple[str, str], str]:
    async with store.snapshot(selection, Action.DIFF) as snapshot:
        text = b"".join([chunk async for chunk in await snapshot.differences()])
    differences = [orjson.loads(line) for line in text.splitlines()]
    for one in differences:  # the contents of what has changed, and of nothing else
        assert (one["old"] is not None) == (one["new"] is not None) == (one["change"] == "changed")
        assert one["old"] is None or one["old"] != one["new"]
    assert len({(one["type"], one["id"]) for one in differences}) == len(differences)
    return {(one["type"], one["id"]): one["change"] for one in differences}


@settings(max_examples=8)
@given(RUNS, st.booleans())
async def test_applying_the_changes_since_any_run_gives_the_present_state(
    store: Store, runs: list[dict[str, Any]], with_open: bool
) -> None:
    name = f"mercy-{next(_NUMBERS)}"
    numbers = [await worked(store, work, name) for work in runs]
    # a run that is open has written, and is not to be seen
    async with await store.begin_run(scope(connection=name)) as run:
        if with_open:
            await run.write(Batch(records=[record("a", "open"), record("z", "open")]))
            await run.write(Batch(deletions=[Deletion("Observation", "b", Said.DELETED)]))
        for patients in (None, ("p1",)):
            of = {"connections": (name,), "patients": patients}
            for then, now in {*itertools.pairwise([*numbers, None]), (numbers[0], None)}:
                rows, _ = await shown(store, Selection(**of, as_of=then))
                changed, gone = await shown(store, Selection(**of, as_of=now, changed_since=then))
                expected, nothing = await shown(store, Selection(**of, as_of=now))
                assert not nothing
                assert set(gone) <= set(rows)
                assert not set(gone) & set(changed)
                assert {key: row for key, row in {**rows, **changed}.items() if key not in gone} == expected
                changes = {key: "changed" for key in rows.keys() & expected.keys() if rows[key] != expected[key]}
                changes |= dict.fromkeys(expected.keys() - rows.keys(), "added")
                changes |= dict.fromkeys(rows.keys() - expected.keys(), "deleted")
                assert await differing(store, Selection(**of, as_of=now, changed_since=then)) == changes
        await run.finish(watermark=None)


async def test_an_untouched_row_is_no_change(store: Store) -> None:
    first = await worked(store, {"a": (1, "p1", ()), "b": (1, "p1", ("p2",))}, "mercy")
    await worked(store, {"a": (2, "p1", ()), "c": (1, "p1", ())}, "mercy")
    await worked(store, {"a": (1, "p2", ())}, "other")
    for patients in (None, ("p1", "p2")):
        rows, gone = await shown(store, Selection(connections=("mercy",), patients=patients, changed_since=first))
        assert ({id_ for _, id_ in rows}, gone) == ({"a", "c"}, [])


async def test_changes_omit_deletions_of_unrequested_types(store: Store) -> None:
    first = await worked(store, {"a": (1, "p1", ())}, "mercy")
    await worked(store, {"a": "gone"}, "mercy")
    assert (await shown(store, Selection(changed_since=first)))[1] == [("Observation", "a")]
    assert (await shown(store, Selection(changed_since=first, types=("Patient",))))[1] == []


async def test_a_run_later_than_the_moment_is_refused(store: Store) -> None:
    first = await worked(store, {"a": (1, "p1", ())}, "mercy")
    second = await worked(store, {"a": (2, "p1", ())}, "mercy")
    with pytest.raises(RunNotFoundError, match=f"run {second} ended after"):
        await shown(store, Selection(as_of=first, changed_since=second))


async def brought(store: Store, searched: str | None) -> int:
    """A run that fetches the same row, by a patient's search or not."""
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(records=[record("a", 1, patient="p2")._replace(searched=searched)]))
        await run.finish(watermark=None)
        return run.id


async def test_an_unchanged_row_counts_as_a_change_of_the_patient_it_moves_to(store: Store, store_url: str) -> None:
    first, second, third = [await brought(store, searched) for searched in (None, "p1", None)]
    rows, gone = await shown(store, Selection(patients=("p1",), as_of=second, changed_since=first))
    assert (list(rows), gone) == ([("Observation", "a")], [])
    # what the run's end does with a member that its search has missed and that is another's (`unlist`)
    execute(
        store_url,
        "WITH lost AS (DELETE FROM member RETURNING *) INSERT INTO member_history (connection, resource_type, id, patient_id,"
        f" searched, from_run, to_run) SELECT connection, resource_type, id, patient_id, searched, from_run, {third} FROM lost",
    )
    assert await shown(store, Selection(patients=("p1",), changed_since=second)) == ({}, [("Observation", "a")])
    assert await shown(store, Selection(changed_since=second)) == ({}, [])
