"""What every connector needs from a store, as a protocol; `snapshots.ledger` is the real one.

One `RunStore` is one open run. Calls come from one task at a time. Every call is one transaction: it happens completely or not
at all; after a crash, opening the same scope again finds exactly what was committed. What one kind of source remembers besides
its units has its own protocol: an EHR's is `connectors.fhir.memories`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from snapshots.record import Batch
from snapshots.report import RunReport
from snapshots.traffic import NO_TRAFFIC, Traffic
from snapshots.unit import Counted, Unit, UnitKind


class Missed(Protocol):
    """What one open run's listings no longer had; every call is one transaction."""

    async def note_missed(self) -> None:
        """Note every row that a way has listed before and that its complete listing in this run no longer had.

        `RunStore.finish` judges them. A source that lists everything calls this once all its units have ended; otherwise
        nothing that was deleted there is ever deleted here.
        """


class RunStore(Protocol):
    """One open run of one connection, which holds that connection's lock until it is finished or closed."""

    @property
    def id(self) -> int:
        """The run's number."""

    @property
    def started_at(self) -> datetime:
        """When the run first started, even if it was resumed: the watermark's upper bound."""

    @property
    def idle(self) -> timedelta:
        """How long it lay dead before it was resumed, in all: no time at work."""

    @property
    def planned(self) -> bool:
        """True when a resumed run already has its units: do not plan again, continue with `pending`."""

    @property
    def evidence(self) -> Missed:
        """What the run missed."""

    async def plan(self, units: Iterable[Unit]) -> int:
        """Write the run's units, all or none, and return their number. Units that exist already (same key) are not changed.

        The units are consumed one by one: a plan may be larger than memory.
        """

    async def pending(self, limit: int | None = None, kinds: Collection[UnitKind] | None = None) -> list[Unit]:
        """Return pending units, the first `limit`: holes of the previous run first, then in planned order.

        A fetcher asks only for the `kinds` that it fetches; None returns all.
        """

    async def keep_notes(self, notes: Sequence[str]) -> None:
        """Keep notes of steps that a resumed run does not repeat; a note that is kept already is not kept twice.

        What concerns one unit belongs in the reason of its result instead: then the report has it, whichever process settled
        the unit.
        """

    async def write(self, batch: Batch) -> int:
        """Merge records, apply deletions, keep quarantine, settle units; one transaction. Unchanged content writes no row.

        Complete and in order, even after a crash of the store's server; certainly on its disk once a later `jobs.save` or
        `finish` has returned.

        Bad records (jsonb refuses them) cost only themselves: they are quarantined, and the unit that brought them is a hole.
        Return the number of bad records.
        """

    async def counted(self) -> Mapping[Counted, int]:
        """Return the total of what the run's ended units counted (`UnitResult.counted`)."""

    async def finish(
        self,
        *,
        watermark: str | None,
        traffic: Traffic = NO_TRAFFIC,
        notes: Sequence[str] = (),
        overlap: timedelta | None = None,
    ) -> RunReport:
        """Judge what was missed, move the watermark of every type that was listed as requested, close the run.

        The report's notes are those that were kept, these, and what settled units had to remark, by type.

        `watermark` None moves none (a pull); with an `overlap` it stays at least that far before the newest date that came.
        State moves last: this is one transaction after all data has committed.
        """

    async def fail(self, *, reason: str, traffic: Traffic = NO_TRAFFIC, notes: Sequence[str] = ()) -> RunReport:
        """Close the run as failed (login refused, discovery impossible): everything committed stays, nothing is tombstoned."""
