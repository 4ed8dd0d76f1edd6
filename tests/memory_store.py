"""A run's store in memory: the core of what `snapshots.ledger.OpenRun` does, for tests of what comes before a store.

`tests/integration/snapshots/test_run_store_contract.py` holds both to the same behaviour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from connectors.core.store_port import RunStore
from snapshots.closing import remark_notes
from snapshots.errors import UnitConflictError
from snapshots.record import Batch, Record
from snapshots.report import RunReport
from snapshots.traffic import NO_TRAFFIC, Traffic
from snapshots.unit import Counted, Unit, UnitKind, UnitResult, UnitState

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class NothingMissed:
    """Compares no listings: which rows were missed is the real store's to find."""

    async def note_missed(self) -> None:
        """Nothing to note."""


class MemoryRunStore(RunStore):
    """One open run. What it has taken in can be looked at: `records`, `batches`, `results`."""

    id = 1
    started_at = BEGAN
    idle = timedelta()
    evidence = NothingMissed()

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.records: dict[tuple[str, str], Record] = {}
        self.results: dict[str, UnitResult] = {}
        self._units: dict[str, Unit] = {}
        self._notes: dict[str, None] = {}
        self._kept: dict[tuple[str, str], Record] = {}  # tombstones included

    @property
    def planned(self) -> bool:
        return bool(self._units)

    async def plan(self, units: Iterable[Unit]) -> int:
        given = list(units)
        for unit in given:
            self._units.setdefault(unit.key, unit)
        return len(given)

    async def pending(self, limit: int | None = None, kinds: Collection[UnitKind] | None = None) -> list[Unit]:
        found = [
            unit
            for unit in self._units.values()
            if unit.key not in self.results and (kinds is None or unit.kind in kinds)
        ]
        return found[:limit]

    async def keep_notes(self, notes: Sequence[str]) -> None:
        self._notes |= dict.fromkeys(notes)

    def _remarks(self) -> list[str]:
        found = Counter(
            (self._units[one.key].resource_type, one.reason)
            for one in self.results.values()
            if one.state is UnitState.SETTLED and one.reason
        )
        return remark_notes((kind, remark, count) for (kind, remark), count in sorted(found.items()))

    async def write(self, batch: Batch) -> int:
        unknown = [result.key for result in batch.results if result.key not in self._units]
        if unknown:
            raise UnitConflictError(f"{len(unknown)} units to be settled are not planned")
        self.batches.append(batch)
        for record in batch.records:
            self.records[record.resource_type, record.id] = record
        for key, place in batch.places.items():
            self._units[key] = replace(self._units[key], reached=place)
        for result in batch.results:
            self.results[result.key] = result
        return 0

    async def counted(self) -> Mapping[Counted, int]:
        found: Counter[Counted] = Counter()
        for one in self.results.values():
            found.update(one.counted)
        return found

    async def finish(
        self,
        *,
        watermark: str | None,
        traffic: Traffic = NO_TRAFFIC,
        notes: Sequence[str] = (),
        overlap: timedelta | None = None,
    ) -> RunReport:
        holes = any(one.state is UnitState.FAILED for one in self.results.values()) or bool(await self.pending())
        status = "partial" if holes else "complete" if self.records else "nothing"
        return self._report(status, notes)

    async def fail(self, *, reason: str, traffic: Traffic = NO_TRAFFIC, notes: Sequence[str] = ()) -> RunReport:
        return replace(self._report("failed", notes), error=reason)

    def _report(self, status: str, notes: Sequence[str]) -> RunReport:
        received = Counter(resource_type for resource_type, _ in self.records)
        whole = tuple(dict.fromkeys((*self._notes, *notes, *self._remarks())))
        return RunReport(id=self.id, connection="memory", status=status, mode="crawl", resources=received, notes=whole)
