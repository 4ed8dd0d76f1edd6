"""Finds out what a sync would request, without requesting it.

Runs the use case itself, so that a preview cannot drift from the real thing: with a client that stops before the first kick-off,
and a store that keeps nothing and stops once it has the crawl's units. It sends only what planning needs: discovery, login, the
list of patients. If there is a store, it reads what earlier runs know (watermarks, covered patients), so that it shows the
`_since` that will be sent; it writes nothing. `preview` has the plan and the client that stops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Literal

from cli.preview import Preview
from connectors.core.errors import ConnectorError
from connectors.fhir.memories import BulkJobs, EhrRunStore, Knowledge, PaceStore, Roster
from snapshots.export_job import BulkJob, EarlierJob
from snapshots.given_up import LeftBehind
from snapshots.patient import Alias, Deferral, StoredPatient
from snapshots.peek import Peek
from snapshots.record import Batch
from snapshots.report import RunReport, RunScope
from snapshots.store import Store
from snapshots.traffic import NO_TRAFFIC, PaceState, Traffic
from snapshots.unit import Counted, Unit, UnitKind
from snapshots.witness import AbsentRow


class PreviewJobs(BulkJobs):
    """Has no job and stores none; knows which patients are stored."""

    def __init__(self, known: Peek | None) -> None:
        self._known = known

    async def current(self) -> BulkJob | None:
        """Return none."""
        return None

    async def save(self, job: BulkJob) -> None:
        """Forget the intent: the client stops before the kick-off is sent."""

    async def forget(self) -> None:
        """Do nothing."""

    async def earlier(self) -> Sequence[EarlierJob]:
        """Return none: a preview has no store."""
        return ()

    async def settle_earlier(self, run: int) -> None:
        """Do nothing."""

    async def last_kicked_off(self) -> datetime | None:
        """Return none: a preview has no store."""
        return None

    async def patients_without_data(self, patients: Sequence[str]) -> Sequence[str]:
        """Return none: nothing is fetched."""
        return ()

    async def patients_without_rows(self, patients: Sequence[str]) -> Sequence[str]:
        """Return none: nothing is fetched."""
        return ()

    async def never_stored(self, patients: Sequence[str]) -> Sequence[str]:
        """Return those of whose charts no run has stored anything."""
        return patients if self._known is None else await self._known.jobs.never_stored(patients)

    async def planned_types(self, kinds: Sequence[UnitKind]) -> Sequence[str]:
        """Return none: nothing is fetched."""
        return ()

    async def received_types(self) -> Sequence[str]:
        """Return none: nothing is fetched."""
        return ()

    async def planned_files(self, page: int) -> Sequence[Unit]:
        """Return none: nothing is fetched."""
        return ()

    async def vanished_types(self) -> Sequence[str]:
        """Return none: nothing is fetched."""
        return ()


class PreviewRoster(Roster):
    """The patients that earlier runs cover, and their lags; empty if there were no runs. Stores nothing."""

    def __init__(self, peek: Peek | None) -> None:
        self._known = None if peek is None else peek.roster

    async def covered(self) -> frozenset[str]:
        """Return the patients that the selection's watermarks cover."""
        return frozenset() if self._known is None else await self._known.covered()

    async def lags(self) -> Mapping[tuple[str, str], str | None]:
        """Return their lags."""
        return {} if self._known is None else await self._known.lags()

    async def behind(self) -> frozenset[str]:
        """Return the patients who are behind."""
        return frozenset() if self._known is None else await self._known.behind()

    async def deferrals(self, now: datetime) -> Sequence[Deferral]:
        """Return none."""
        return ()

    async def defer(self, deferrals: Sequence[Deferral]) -> None:
        """Forget them."""

    async def aliases(self) -> Sequence[Alias]:
        """Return the known merges."""
        return () if self._known is None else await self._known.aliases()

    async def new_aliases(self) -> Sequence[Alias]:
        """Return none."""
        return ()

    async def unanswered(self) -> Sequence[str]:
        """Return none."""
        return ()

    async def stored_patients(self) -> Sequence[StoredPatient]:
        """Return the patients in the store."""
        return () if self._known is None else await self._known.stored_patients()

    async def revived(self) -> Sequence[str]:
        """Return none: nothing is fetched."""
        return ()

    async def led_nowhere(self) -> Sequence[str]:
        """Return none: nothing is fetched."""
        return ()

    async def knew_members(self) -> bool:
        """Return whether the last full listing knew the members of the Group."""
        return self._known is not None and await self._known.knew_members()

    async def missed_members(self) -> bool:
        """Return whether a run of news since then did not know it."""
        return self._known is not None and await self._known.missed_members()

    async def note_members(self, patients: Sequence[str]) -> None:
        """Note nothing."""

    async def unmet_members(self) -> Sequence[str]:
        """Nothing is exported, so nobody can be missing from it."""
        return ()

    async def uncovered_members(self) -> Sequence[str]:
        """Nothing is exported, so nobody can be missing from it."""
        return ()

    async def describe_cohort(self, cohort: Mapping[str, Any]) -> None:
        """Do nothing: the plan's notes have it."""


class PreviewEvidence:
    """Finds nothing withheld: only the sync finds out whether something can be read again."""

    async def withheld(self, patients: Sequence[str] | None, limit: int) -> Sequence[AbsentRow]:
        """Return none."""
        return ()


class PreviewPace(PaceStore):
    """Nothing remembered, nothing kept."""

    counted = Traffic()

    async def load(self) -> PaceState:
        """Return an empty state."""
        return PaceState()

    def note(self, state: PaceState, traffic: Traffic) -> None:
        """Forget it."""

    async def save(self, state: PaceState, traffic: Traffic) -> None:
        """Forget it."""


class PreviewKnowledge(Knowledge):
    """What earlier runs know; moves no watermark."""

    def __init__(self, preview: Preview, peek: Peek | None) -> None:
        self._preview = preview
        self._peek = peek

    async def watermarks(self, *, held_back: bool = False) -> Mapping[str, str]:
        """Return the watermarks of earlier runs."""
        return {} if self._peek is None else await self._peek.knowledge.watermarks(held_back=held_back)

    async def forget(self) -> None:
        """Do nothing: a preview changes nothing."""

    async def unlisted_types(self) -> Sequence[str]:
        """Return the types that exports have returned and none has listed in full."""
        return () if self._peek is None else await self._peek.knowledge.unlisted_types()

    async def listed_patients(self, patients: Sequence[str]) -> frozenset[str]:
        """Return none: nothing is exported."""
        return frozenset()

    async def empty_types(self) -> frozenset[str]:
        """Return none: nothing is fetched."""
        return frozenset()

    async def received_types(self) -> frozenset[str]:
        """Return the types that earlier runs received."""
        return frozenset() if self._peek is None else await self._peek.knowledge.received_types()

    async def last_full_listing(self, granted: Collection[str]) -> datetime | None:
        """Return the time of the last full listing."""
        return None if self._peek is None else await self._peek.knowledge.last_full_listing(granted)

    async def last_mode(self) -> Literal["bulk", "crawl"] | None:
        """Return how the selection's last sync went."""
        return None if self._peek is None else await self._peek.knowledge.last_mode()

    async def speak_for(self, knowledge: str, granted: Collection[str], *, notes_dates: bool | None = None) -> None:
        """Choose whose watermarks to read."""
        if self._peek is not None:
            self._peek.speak_for(knowledge)

    def request_since(self, marks: Mapping[str, str]) -> None:
        """Note in the plan since when each type will be requested."""
        self._preview.since = dict(marks)

    async def namesakes(self) -> Sequence[str]:
        """Return none: a preview has no store."""
        return ()


class PlanReachedError(ConnectorError):
    """The run's units are known: nothing is fetched."""


class PreviewStore:
    """A run that ends with its plan: an `EhrRunStore`."""

    id = 0
    idle = timedelta()
    planned = False
    left_behind = LeftBehind()

    def __init__(self, preview: Preview, scope: RunScope, peek: Peek | None, started_at: datetime) -> None:
        self._preview = preview
        self._is_planned = False
        self.selection = scope.selection
        self.started_at = started_at
        self.knowledge = PreviewKnowledge(preview, peek)
        self.roster = PreviewRoster(peek)
        self.jobs = PreviewJobs(peek)
        self.evidence: Any = PreviewEvidence()  # what an export needs before its kick-off
        self.pace = PreviewPace()

    async def plan(self, units: Iterable[Unit]) -> int:
        """Count the units by type; the holes that an export begins with do not make it a crawl."""
        units = list(units)
        if all(unit.kind == UnitKind.COHORT for unit in units):
            return 0
        if any(unit.kind != UnitKind.LISTING for unit in units):
            self._preview.mode = "crawl"  # an export's units come after its kick-off, which a preview never reaches
        self._preview.units = dict(Counter(unit.resource_type for unit in units if unit.kind != UnitKind.COHORT))
        self._preview.types = tuple(self._preview.units)
        if self._preview.patients is not None:
            self._preview.patients = len({unit.patient_id for unit in units if unit.patient_id is not None})
        return len(units)

    async def keep_notes(self, notes: Sequence[str]) -> None:
        """A preview is not resumed: its notes are given at its end."""

    async def counted(self) -> Mapping[Counted, int]:
        """Return nothing: nothing is fetched."""
        return {}

    async def pending(self, limit: int | None = None, kinds: Collection[UnitKind] | None = None) -> list[Unit]:
        """End the run when it is about to fetch what it planned: a crawl's searches, or the parts of a source that is no EHR.

        Raises:
            PlanReachedError: the run is planned.
        """
        if kinds is not None and not {UnitKind.SEARCH, UnitKind.LISTING}.isdisjoint(kinds):
            self._end()
        return []

    async def write(self, batch: Batch) -> int:
        """Keep nothing, and refuse nothing."""
        return 0

    async def fail(self, *, reason: str, traffic: Traffic = NO_TRAFFIC, notes: Sequence[str] = ()) -> RunReport:
        """Keep the notes, and why the plan could not be made."""
        self._preview.notes = tuple(notes)
        self._preview.error = None if self._is_planned else reason
        return RunReport(
            id=0,
            connection=self._preview.connection,
            status="nothing",
            mode=self._preview.mode,
            requests=traffic.requests,
            retries=traffic.retries,
        )

    def _end(self) -> Any:
        """End the run: a preview has no need of what comes after the plan."""
        self._is_planned = True
        raise PlanReachedError("nothing is fetched")

    finish = references = attachments = property(_end)


class PreviewRuns:
    """Opens preview runs, as a store opens real ones; `store` is None if no store exists yet."""

    def __init__(self, preview: Preview, now: datetime, store: Store | None = None) -> None:
        self._preview = preview
        self._now = now
        self._store = store

    @asynccontextmanager
    async def begin_run(self, scope: RunScope, clock: Callable[[], datetime]) -> AsyncIterator[EhrRunStore]:
        """Yield a run that keeps only its plan."""
        self._preview.mode = scope.mode
        self._preview.patients = 0 if scope.by_patient else None
        if self._store is None:
            yield PreviewStore(self._preview, scope, None, self._now)
            return
        async with self._store.peek(scope) as known:
            self._preview.open_run = known.open_run if known is not None else None
            yield PreviewStore(self._preview, scope, known, self._now)
