"""What every connector may expect of a run's store: the real one and the one in memory behave the same."""

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


async def test_planning_a_unit_again_changes_nothing(store: RunStore) -> None:
    await store.plan([A, B])
    await store.write(Batch(results=[settled(A)]))
    await store.plan([A, B, FILE])
    assert [unit.key for unit in await store.pending()] == ["b", "f"]


async def test_a_fetcher_takes_a_few_units_of_its_own_kinds(store: RunStore) -> None:
    await store.plan([A, FILE, B])
    assert [unit.key for unit in await store.pending(1, (UnitKind.SEARCH,))] == ["a"]
    assert [unit.key for unit in await store.pending(None, (UnitKind.FILE,))] == ["f"]


async def test_a_unit_is_read_back_with_its_progress(store: RunStore) -> None:
    await store.plan([FILE])
    await store.write(Batch(places={"f": {"bytes": 7}}))
    (unit,) = await store.pending()
    assert unit.reached == {"bytes": 7}


async def test_a_result_of_an_unplanned_unit_is_refused_and_writes_nothing(store: RunStore) -> None:
    await store.plan([A])
    with pytest.raises(UnitConflictError):
        await store.write(Batch(records=[record("o1")], results=[settled(B)]))
    assert [unit.key for unit in await store.pending()] == ["a"]


async def test_remarks_of_settled_units_are_reported_by_type(store: RunStore) -> None:
    await store.plan([A, B, FILE])
    await store.write(Batch(results=[settled(A, "odd"), settled(B, "odd"), settled(FILE, "else")]))
    report = await store.finish(watermark=None)
    assert list(report.notes) == ["Condition: else (1 x)", "Observation: odd (2 x)"]


async def test_counts_of_units_are_totalled_by_subject(store: RunStore) -> None:
    bad, far = Counted("validity", "Observation", "invalid"), Counted("references", "Observation", "foreign")
    await store.plan([A, B, FILE])
    await store.write(
        Batch(results=[replace(settled(A), counted={bad: 2, far: 1}), replace(settled(B), counted={bad: 3})])
    )
    await store.write(Batch(results=[settled(FILE)]))
    assert await store.counted() == {bad: 5, far: 1}


async def test_each_kept_note_is_in_the_report_once(store: RunStore) -> None:
    await store.keep_notes(["first", "second"])
    await store.keep_notes(["second", "third"])
    report = await store.fail(reason="the EHR is gone", notes=["third", "last"])
    assert list(report.notes) == ["first", "second", "third", "last"]


@pytest.mark.parametrize(("left", "status"), [((), "complete"), ((B,), "partial")])
async def test_a_run_is_complete_if_all_units_settled_and_otherwise_partial(
    store: RunStore, left: tuple[Unit, ...], status: str
) -> None:
    await store.plan([A, *left])
    await store.write(Batch(records=[record("o1")], results=[settled(A)]))
    report = await store.finish(watermark=None, notes=["told"])
    assert (report.status, report.resources, list(report.notes)) == (status, {"Observation": 1}, ["told"])


async def test_a_failed_run_says_why_and_keeps_what_was_fetched(store: RunStore) -> None:
    await store.plan([A])
    await store.write(Batch(records=[record("o1")], results=[settled(A)]))
    report = await store.fail(reason="the EHR is gone")
    assert (report.status, report.error, report.resources) == ("failed", "the EHR is gone", {"Observation": 1})
