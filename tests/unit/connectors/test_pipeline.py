"""Records reach the writer complete and in order, the stream is bounded, and an error stops everything."""

from __future__ import annotations

from typing import Any, cast

import anyio
import pytest

from connectors.core.errors import AuthError, FetchError, LoginRefusedError
from connectors.core.pipeline import LINE_BYTES, Emit, Fetched, run_units
from connectors.core.store_port import RunStore
from snapshots.record import Batch, Record
from snapshots.unit import Unit, UnitKind, UnitResult, UnitState

pytestmark = pytest.mark.anyio


class Written:
    """Keeps what is written; `hold` keeps the writer waiting, `error` stops it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.batches: list[Batch] = []
        self.hold = anyio.Event()
        self.hold.set()
        self.error = error

    async def write(self, batch: Batch) -> int:
        await self.hold.wait()
        if self.error is not None:
            raise self.error
        self.batches.append(batch)
        return 0

    @property
    def store(self) -> RunStore:
        return cast("RunStore", self)


def units(count: int) -> list[Unit]:
    return [Unit(key=f"u{n}", kind=UnitKind.SEARCH, resource_type="Observation") for n in range(count)]


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


async def test_fetchers_wait_while_the_stream_is_full_and_continue_when_there_is_room() -> None:
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
            raise FetchError("GET /Observation: no answer.")
        return await settle(unit, emit)

    written = Written()
    await run_units(units(3), second_fails, written.store, workers=2)
    states: dict[str, Any] = {result.key: result.state for batch in written.batches for result in batch.results}
    assert states == {"u0": UnitState.SETTLED, "u1": UnitState.FAILED, "u2": UnitState.SETTLED}


async def test_an_error_of_the_store_stops_the_fetchers_and_is_raised_as_it_is() -> None:
    with pytest.raises(OSError, match="disk full"):
        await run_units(units(500), settle, Written(OSError("disk full")).store, workers=4)


def charts(patients: int, types: int = 4) -> list[Unit]:
    return [
        Unit(key=f"p{p}-{t}", kind=UnitKind.SEARCH, resource_type="Observation", patient_id=f"p{p}")
        for p in range(patients)
        for t in range(types)
    ]


def refusing(*patients: str, error: type[AuthError] = LoginRefusedError):
    async def fetch(unit: Unit, emit: Emit) -> UnitResult:
        if unit.patient_id is None or unit.patient_id in patients:
            raise error("refused")
        return await settle(unit, emit)

    return fetch


@pytest.mark.parametrize("refused", [("p0", "p1"), ("p3",), ("p1", "p4", "p7")])
async def test_a_patient_that_no_login_can_open_is_a_hole_and_the_others_are_fetched(refused: tuple[str, ...]) -> None:
    written = Written()
    await run_units(charts(9), refusing(*refused), written.store, workers=1)
    failed = {r.key for batch in written.batches for r in batch.results if r.state is UnitState.FAILED}
    assert failed == {f"{patient}-{t}" for patient in refused for t in range(4)}


async def test_a_401_to_a_fresh_token_concerns_only_that_patient_if_others_were_allowed() -> None:
    written = Written()
    await run_units(charts(9), refusing("p5", error=AuthError), written.store, workers=1)
    assert sum(r.state is UnitState.FAILED for batch in written.batches for r in batch.results) == 4
    await run_units(charts(9), refusing("p0", error=AuthError), Written().store, workers=1)
    with pytest.raises(AuthError):
        await run_units(charts(2), refusing("p0", "p1", error=AuthError), Written().store, workers=1)


async def test_a_client_refused_for_three_patients_in_a_row_stops() -> None:
    requested = []

    async def fetch(unit: Unit, emit: Emit) -> UnitResult:
        requested.append(unit.patient_id)
        return await refusing(*(f"p{n}" for n in range(9)))(unit, emit)

    with pytest.raises(AuthError):
        await run_units(charts(9), fetch, Written().store, workers=1)
    assert set(requested) == {"p0", "p1", "p2"}


async def test_a_refusal_that_concerns_no_single_patient_stops_the_run_at_once() -> None:
    with pytest.raises(AuthError):
        await run_units(units(3), refusing(), Written().store, workers=1)


async def test_a_401_is_a_hole_if_the_login_is_accepted_for_another_request() -> None:
    written = Written()

    async def fetch(unit: Unit, emit: Emit) -> UnitResult:
        if unit.key == "u0":
            raise AuthError("the EHR refused a fresh token")
        return await settle(unit, emit)

    await run_units(units(1), fetch, written.store, workers=1, let_in=True)
    await run_units(units(4), fetch, written.store, workers=1)
    assert [r.state for batch in written.batches for r in batch.results].count(UnitState.FAILED) == 2
    with pytest.raises(AuthError):
        await run_units(units(1), fetch, Written().store, workers=1)
