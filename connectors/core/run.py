"""What the steps of one run share, whatever its source: the store, the clock, its progress, and its notes.

Each kind of source adds what its own steps share (`connectors.fhir.run`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from connectors.core.store_port import RunStore
from connectors.core.waits import Wait
from snapshots.unit import UnitResult, UnitState


@dataclass(kw_only=True)
class Progress:
    """The progress of a run; the same object is passed at every step."""

    connection: str
    phase: str = "starting"
    units_done: int = 0
    units: int = 0
    records: int = 0
    waiting: Wait | None = None  # what holds everything up now

    @property
    def details(self) -> list[str]:
        """Return what else is shown of it, in words; each kind of source adds its own."""
        return []


@dataclass(kw_only=True)
class Run:
    """What the steps of one run share."""

    store: RunStore
    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]
    on_progress: Callable[[Progress], None]
    progress: Progress
    failed_units: int = 0
    notes: list[str] = field(default_factory=list)

    async def keep_notes(self) -> None:
        """Keep what is noted so far with the run, which may be killed and resumed."""
        await self.store.keep_notes(self.notes)

    def show(self, phase: str | None = None) -> None:
        """Report the run's progress."""
        self.progress.phase = phase or self.progress.phase
        self.progress.units = max(self.progress.units, self.progress.units_done)  # more units were found than planned
        self.on_progress(self.progress)

    def settled(self, results: Sequence[UnitResult], records: int) -> None:
        """Count units that ended, and records that were written."""
        self.failed_units += sum(result.state is UnitState.FAILED for result in results)
        self.progress.units_done += len(results)
        self.progress.records += records
        self.show()
