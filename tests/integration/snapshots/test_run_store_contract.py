"""What every connector may expect of a run's store: the real one and the one in memory behave alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from connectors.core.store_port import RunStore
from snapshots.errors import UnitConflictError
from snapshots.record import Batch
from snapshots.unit import Counted, Unit, UnitKind, UnitResult, UnitState
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import record, scope
from tests.memory_store import MemoryRunStore

pytestmark = pytest.mark.anyio

A, B = (Unit(key=key, kind=UnitKind.SEARCH, resource_type="Observation", patient_id=key) for key in ("a", "b"))
FILE = Unit(key="f", kind=UnitKind.FILE, resource_type="Condition")


@pytest.fixture(params=["real", "memory"])
async def store(request: pytest.FixtureRequest, store_url: str) -> AsyncIterator[RunStore]:
    if request.param == "memory":
        yield MemoryRunStore()
        return
    async with opened_store(store_url) as opened, await opened.begin_run(scope()) as run:
        yield run


def settled(unit: Unit, reason: str | None = None) -> UnitResult:
    return UnitResult(key=unit.key, state=UnitState.SETTLED, complete_listing=True, records=1, reason=reason)


async def test_units_are_pending_in_planned_order_until_they_are_settled(store: RunStore) -> None:
    assert await store.plan([A, FILE, B]) == 3
    assert [unit.key for unit in await store.pending()] == ["a", "f", "b"]
    await store.write(Batch(records=[record("o1")], results=[settled(A)]))
    assert [unit.key for unit in await store.pending()] == ["f", "b"]


async def test_a_unit_that_is_planned_again_stays_as_it_is(store: RunStore) -> None:
    await store.plan([A, B])
    await store.write(Batch(results=[settled(A)]))
    await store.plan([A, B, FILE])
    assert [unit.key for unit in await store.pending()] == ["b", "f"]


async def test_who_fetches_takes_some_units_of_its_own_kinds(store: RunStore) -> None:
    await store.plan([A, FILE, B])
    assert [unit.key for unit in await store.pending(1, (UnitKind.SEARCH,))] == ["a"]
    assert [unit.key for unit in await store.pending(None, (UnitKind.FILE,))] == ["f"]


async def test_a_unit_comes_back_with_how_far_it_came(store: RunStore) -> None:
    await store.plan([FILE])
    await store.write(Batch(places={"f": {"bytes": 7}}))
    (unit,) = await store.pending()
    assert unit.reached == {"bytes": 7}


async def test_a_result_of_a_unit_that_nobody_planned_is_refused_and_nothing_of_it_written(store: RunStore) -> None:
    await store.plan([A])
    with pytest.raises(UnitConflictError):
        await store.write(Batch(records=[record("o1")], results=[settled(B)]))
    assert [unit.key for unit in await store.pending()] == ["a"]


async def test_what_settled_units_had_to_remark_is_told_by_type(store: RunStore) -> None:
    await store.plan([A, B, FILE])
    await store.write(Batch(results=[settled(A, "odd"), settled(B, "odd"), settled(FILE, "else")]))
    report = await store.finish(watermark=None, requests=1, retries=0)
    assert list(report.notes) == ["Condition: else (1 x)", "Observation: odd (2 x)"]


async def test_what_units_counted_is_told_in_all_by_what_it_is_about(store: RunStore) -> None:
    bad, far = Counted("validity", "Observation", "invalid"), Counted("references", "Observation", "foreign")
    await store.plan([A, B, FILE])
    await store.write(
        Batch(results=[replace(settled(A), counted={bad: 2, far: 1}), replace(settled(B), counted={bad: 3})])
    )
    await store.write(Batch(results=[settled(FILE)]))
    assert await store.counted() == {bad: 5, far: 1}


async def test_notes_that_were_kept_stand_in_the_report_each_once(store: RunStore) -> None:
    await store.keep_notes(["first", "second"])
    await store.keep_notes(["second", "third"])
    report = await store.fail(reason="the EHR is gone", requests=1, retries=0, notes=["third", "last"])
    assert list(report.notes) == ["first", "second", "third", "last"]


@pytest.mark.parametrize(("left", "status"), [((), "complete"), ((B,), "partial")])
async def test_a_run_ends_complete_where_all_units_settled_and_partial_elsewhere(
    store: RunStore, left: tuple[Unit, ...], status: str
) -> None:
    await store.plan([A, *left])
    await store.write(Batch(records=[record("o1")], results=[settled(A)]))
    report = await store.finish(watermark=None, requests=1, retries=0, notes=["told"])
    assert (report.status, report.resources, list(report.notes)) == (status, {"Observation": 1}, ["told"])


async def test_a_run_that_fails_says_why_and_keeps_what_came(store: RunStore) -> None:
    await store.plan([A])
    await store.write(Batch(records=[record("o1")], results=[settled(A)]))
    report = await store.fail(reason="the EHR is gone", requests=1, retries=0)
    assert (report.status, report.error, report.resources) == ("failed", "the EHR is gone", {"Observation": 1})
