"""A store in memory that keeps the port's promises: one dict of resources, one of units. For judging what connectors write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from snapshots.record import Batch, BulkJob, Hole, Quarantined, Record, RunReport, RunScope, Unit, UnitResult, UnitState


class MemoryStore:
    """One connection's runs. `crash()` makes the next open resume; `fail_after` writes raises, as a store that went away."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Record] = {}
        self.deletions: list[tuple[str, str]] = []
        self.quarantined: list[Quarantined] = []
        self.units: dict[str, Unit] = {}
        self.results: dict[str, UnitResult] = {}
        self.job: BulkJob | None = None
        self.marks: dict[str, str] = {}
        self.watermark: str | None = None
        self.full_listing: datetime | None = None
        self.notes: Sequence[str] = ()
        self.batches = 0
        self.scope: RunScope | None = None
        self.id = 1
        self.started_at = datetime(2026, 1, 1, tzinfo=UTC)

    @asynccontextmanager
    async def open(self, scope: RunScope) -> AsyncIterator[MemoryStore]:
        self.scope = scope
        yield self

    @property
    def planned(self) -> bool:
        return bool(self.units)

    async def plan(self, units: Iterable[Unit]) -> int:
        planned = list(units)
        for unit in planned:
            self.units.setdefault(unit.key, unit)
        return len(planned)

    async def pending(self, limit: int | None = None, kinds: Collection[str] | None = None) -> list[Unit]:
        left = [unit for key, unit in self.units.items() if key not in self.results]
        return [unit for unit in left if kinds is None or unit.kind in kinds][:limit]

    async def write(self, batch: Batch) -> None:
        self.batches += 1
        for record in batch.records:
            self.records[record.resource_type, record.id] = record
        self.deletions += [(gone.resource_type, gone.id) for gone in batch.deletions]
        self.quarantined += batch.quarantined
        for result in batch.results:
            assert result.key in self.units, "a unit was settled that was never planned"
            assert result.key not in self.results, "a unit was settled twice"
            self.results[result.key] = result

    async def bulk_job(self) -> BulkJob | None:
        return self.job

    async def save_bulk_job(self, job: BulkJob) -> None:
        self.job = job

    async def watermarks(self) -> Mapping[str, str]:
        return self.marks

    async def received_types(self) -> frozenset[str]:
        return frozenset(kind for kind, _ in self.records)

    async def last_full_listing(self) -> datetime | None:
        return self.full_listing

    async def finish(
        self, *, watermark: str | None, requests: int, retries: int, notes: Sequence[str] = ()
    ) -> RunReport:
        self.watermark, self.notes = watermark, notes
        assert not await self.pending(), "a run was finished with units that nobody asked for"
        status = "nothing" if not self.units else "partial" if self.holes else "complete"
        return self._report(status, requests, retries, None)

    async def fail(self, *, reason: str, requests: int, retries: int, notes: Sequence[str] = ()) -> RunReport:
        self.notes = notes
        return self._report("failed", requests, retries, reason)

    @property
    def holes(self) -> list[Hole]:
        return [
            Hole(resource_type=self.units[r.key].resource_type, scope="", reason=r.reason or "")
            for r in self.results.values()
            if r.state is UnitState.FAILED
        ]

    def _report(self, status: str, requests: int, retries: int, error: str | None) -> RunReport:
        return RunReport(
            id=self.id,
            connection=self.scope.connection if self.scope else "",
            status=status,
            mode="",
            resources={},
            patients=0,
            new=0,
            changed=0,
            unchanged=0,
            deleted=0,
            quarantined=len(self.quarantined),
            holes=self.holes,
            notes=self.notes,
            requests=requests,
            retries=retries,
            seconds=0,
            error=error,
        )
