"""A source that is no EHR needs nothing but the core: a listener whose messages settle as they come."""

from __future__ import annotations

import pytest

from connectors.core.drain import fetch_pending
from connectors.core.pipeline import Emit, Fetched
from connectors.core.run import Progress, Run
from snapshots.record import Batch, Record
from snapshots.unit import Unit, UnitKind, UnitResult, UnitState
from tests.memory_store import BEGAN, MemoryRunStore

pytestmark = pytest.mark.anyio


async def _no_sleep(seconds: float) -> None:
    del seconds


def message(number: int) -> Unit:
    return Unit(key=f"m{number}", kind=UnitKind.LISTING, resource_type="Observation", detail={"text": f"OBX|{number}"})


async def test_messages_settle_as_they_arrive_and_messages_arriving_meanwhile_are_fetched_too() -> None:
    store = MemoryRunStore()
    shown: list[int] = []
    run = Run(
        store=store,
        now=lambda: BEGAN,
        sleep=_no_sleep,
        on_progress=lambda progress: shown.append(progress.units_done),
        progress=Progress(connection="listener"),
    )

    async def read(unit: Unit, emit: Emit) -> UnitResult:
        if unit.key == "m1":
            await store.plan([message(3)])  # it arrived while the others were read
        body = unit.detail["text"].encode()
        await emit(
            Fetched(records=[Record("Observation", unit.key, None, None, None, bytes(16), body)], size=len(body))
        )
        return UnitResult(key=unit.key, state=UnitState.SETTLED, records=1)

    await store.plan([message(1), message(2)])
    doing = {"doing": "reading messages", "workers": 2, "let_in": lambda: True}
    assert await fetch_pending(run, (UnitKind.LISTING,), read, **doing)
    assert set(store.results) == {"m1", "m2", "m3"}
    assert {id_ for _, id_ in store.records} == {"m1", "m2", "m3"}
    assert (run.progress.records, shown[-1]) == (3, 3)
    assert not await fetch_pending(run, (UnitKind.LISTING,), read, **doing)
    assert all(isinstance(one, Batch) for one in store.batches)
