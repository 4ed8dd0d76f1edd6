"""What fetchers find reaches the writer whole and in order, no more waits in line than memory allows, and an error stops all."""

from __future__ import annotations

from typing import Any, cast

import anyio
import pytest

from connectors.errors import TransientFetchError
from connectors.pipeline import LINE_BYTES, Emit, Fetched, run_units
from connectors.store_port import RunStore
from snapshots.record import Batch, Record, Unit, UnitResult, UnitState

pytestmark = pytest.mark.anyio


class Written:
    """Keeps what is written; `hold` keeps the writer waiting, `error` stops it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.batches: list[Batch] = []
        self.hold = anyio.Event()
        self.hold.set()
        self.error = error

    async def write(self, batch: Batch) -> None:
        await self.hold.wait()
        if self.error is not None:
            raise self.error
        self.batches.append(batch)

    @property
    def store(self) -> RunStore:
        return cast("RunStore", self)


def units(count: int) -> list[Unit]:
    return [Unit(key=f"u{n}", kind="search", resource_type="Observation") for n in range(count)]


def record(name: str) -> Record:
    return Record("Observation", name, None, None, None, b"0" * 16, b"{}")


async def settle(unit: Unit, emit: Emit) -> UnitResult:
    for page in range(3):
        await emit(Fetched(records=[record(f"{unit.key}-{page}")], size=2))
    return UnitResult(key=unit.key, state=UnitState.SETTLED, records=3)


@pytest.mark.parametrize(("count", "workers"), [(1, 8), (7, 1), (200, 8)])
async def test_every_piece_is_written_before_or_with_the_result_of_its_unit(count: int, workers: int) -> None:
    written = Written()
    seen: set[str] = set()
    await run_units(units(count), settle, written.store, workers=workers)
    for batch in written.batches:
        seen.update(one.id for one in batch.records)
        for result in batch.results:
            assert {f"{result.key}-{page}" for page in range(3)} <= seen
    assert len(seen) == 3 * count
    assert sum(len(batch.results) for batch in written.batches) == count


async def test_fetchers_wait_while_the_line_is_full_and_go_on_when_there_is_room() -> None:
    written, begun = Written(), []
    written.hold = anyio.Event()

    async def large(unit: Unit, emit: Emit) -> UnitResult:
        begun.append(unit.key)
        await emit(Fetched(records=[record(unit.key)], size=LINE_BYTES))
        return UnitResult(key=unit.key, state=UnitState.SETTLED)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run_units(units(20), large, written.store, workers=2))
        await anyio.wait_all_tasks_blocked()
        assert len(begun) < 6
        written.hold.set()
    assert len(begun) == 20


async def test_a_unit_that_fails_is_a_hole_and_its_neighbours_are_written() -> None:
    async def second_fails(unit: Unit, emit: Emit) -> UnitResult:
        if unit.key == "u1":
            raise TransientFetchError("GET /Observation: no answer.")
        return await settle(unit, emit)

    written = Written()
    await run_units(units(3), second_fails, written.store, workers=2)
    states: dict[str, Any] = {result.key: result.state for batch in written.batches for result in batch.results}
    assert states == {"u0": UnitState.SETTLED, "u1": UnitState.FAILED, "u2": UnitState.SETTLED}


async def test_an_error_of_the_store_stops_the_fetchers_and_is_raised_as_it_is() -> None:
    with pytest.raises(OSError, match="disk full"):
        await run_units(units(500), settle, Written(OSError("disk full")).store, workers=4)
