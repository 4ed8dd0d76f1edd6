"""What a sync would ask, without asking it.

The use case runs against a store that keeps nothing and a client that stops before the first kick-off; so a
preview cannot drift from the real thing. It asks the EHR only what planning needs: discovery, login, who the patients are.
Watermarks are not read: what is shown is a full listing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import orjson

from connectors.store_port import Attachments, BulkJobs, Evidence, PaceStore, References, Roster, RunStore
from snapshots.record import (
    AbsentRow,
    Alias,
    AttachmentUse,
    Batch,
    BulkJob,
    Deferral,
    EarlierJob,
    LeftBehind,
    PaceState,
    PlannedFile,
    ReferenceTarget,
    RunReport,
    RunScope,
    StoredPatient,
    Traffic,
    Unit,
    Way,
)

if TYPE_CHECKING:
    from connectors.transport.call import Call, Reply
    from connectors.transport.client import EhrClient


@dataclass(kw_only=True)
class Preview:
    """What a run would ask. `units` counts searches or files by type; a bulk export's units are known only by its server."""

    connection: str
    mode: str = "crawl"
    request: str | None = None  # the bulk kick-off, as template
    types: tuple[str, ...] = ()
    patients: int = 0
    units: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str | None = None


class KickOffReachedError(Exception):
    """The plan is a bulk export, and this is where it would begin."""

    def __init__(self, call: Call) -> None:
        super().__init__(call.template)
        self.template = call.template
        listed = parse_qs(urlsplit(call.url).query).get("_type", [])
        if call.body is not None:
            parameters = orjson.loads(call.body)["parameter"]
            listed = [each["valueString"] for each in parameters if each["name"] == "_type"]
        self.types = tuple(",".join(listed).split(","))


class PreviewClient:
    """An EhrClient that stops before a kick-off; everything else goes through."""

    def __init__(self, client: EhrClient) -> None:
        self._client = client

    async def send(self, call: Call) -> Reply:
        """Send what planning needs; KickOffReachedError in place of a kick-off."""
        if call.purpose == "kickoff":
            raise KickOffReachedError(call)
        return await self._client.send(call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class PreviewJobs(BulkJobs):
    """No job, before and after."""

    async def current(self) -> BulkJob | None:
        """Give none."""
        return None

    async def save(self, job: BulkJob) -> None:
        """Forget the intent: the client stops before the kick-off is sent."""

    async def forget(self) -> None:
        """Do nothing."""

    async def earlier(self) -> Sequence[EarlierJob]:
        """Give none: a preview has no store."""
        return ()

    async def settle_earlier(self, run: int) -> None:
        """Do nothing."""

    async def last_kicked_off(self) -> datetime | None:
        """Give none: a preview has no store."""
        return None

    async def patients_without_data(self, patients: Sequence[str]) -> Sequence[str]:
        """Give none: nothing is fetched."""
        return ()

    async def planned_types(self, kinds: Sequence[str]) -> Sequence[str]:
        """Give none: nothing is fetched."""
        return ()

    async def planned_files(self, page: int) -> Sequence[PlannedFile]:
        """Give none: nothing is fetched."""
        return ()

    async def vanished_types(self) -> Sequence[str]:
        """Give none: nothing is fetched."""
        return ()


class PreviewRoster(Roster):
    """Nobody, and nothing owed: a preview shows a full listing."""

    async def covered(self) -> frozenset[str]:
        """Give none."""
        return frozenset()

    async def lags(self) -> Mapping[tuple[str, str], str | None]:
        """Give none."""
        return {}

    async def deferrals(self, now: datetime) -> Sequence[Deferral]:
        """Give none."""
        return ()

    async def defer(self, deferrals: Sequence[Deferral]) -> None:
        """Forget them."""

    async def aliases(self) -> Sequence[Alias]:
        """Give none."""
        return ()

    async def new_aliases(self) -> Sequence[Alias]:
        """Give none."""
        return ()

    async def unanswered(self) -> Sequence[str]:
        """Give none."""
        return ()

    async def stored_patients(self) -> Sequence[StoredPatient]:
        """Give none: a preview has no store."""
        return ()

    async def revived(self) -> Sequence[str]:
        """Give none: nothing is fetched."""
        return ()

    async def describe_cohort(self, cohort: Mapping[str, Any]) -> None:
        """Do nothing: the plan's notes say it."""


class PreviewEvidence(Evidence):
    """Nothing was listed, so nothing was missed."""

    async def note_departed(self, way: Way) -> None:
        """Note nothing."""

    async def note_missed(self) -> None:
        """Note nothing."""

    async def due(self, readable: Sequence[str] | None, limit: int) -> Sequence[AbsentRow]:
        """Give nothing."""
        return ()

    async def not_found_types(self) -> Sequence[str]:
        """Give none."""
        return ()

    async def controls(self, types: Sequence[str]) -> Sequence[AbsentRow]:
        """Give nothing."""
        return ()

    async def note_asked(self, rows: Sequence[AbsentRow]) -> None:
        """Note nothing."""

    async def note_listings(self, at: datetime) -> None:
        """Note nothing."""

    async def rotate(
        self, readable: Sequence[str] | None, limit: int, *, at: datetime, period: timedelta, fresh: timedelta
    ) -> Mapping[str, int]:
        """Give nothing."""
        return {}


class PreviewPace(PaceStore):
    """Nothing remembered, nothing kept."""

    counted = Traffic()

    async def load(self) -> PaceState:
        """Give an empty one."""
        return PaceState()

    def note(self, state: PaceState, traffic: Traffic) -> None:
        """Forget it."""

    async def save(self, state: PaceState, traffic: Traffic) -> None:
        """Forget it."""


class PreviewReferences(References):
    """Nothing was fetched, so nothing is referred to."""

    async def follow(self, types: Collection[str]) -> None:
        """Keep nothing."""

    async def collect(self, *given: Any, **how: Any) -> bool:
        """Find nothing."""
        return False

    async def due(self, *given: Any, **how: Any) -> Sequence[ReferenceTarget]:
        """Give nothing."""
        return ()

    async def note_asked(self, *, depth: int) -> None:
        """Keep nothing."""

    async def note_answers(self) -> Mapping[str, Mapping[str, int]]:
        """Give nothing."""
        return {}


class PreviewAttachments(Attachments):
    """Nothing was fetched, so nothing is attached."""

    async def collect(self, paths: Mapping[str, str]) -> None:
        """Keep nothing."""

    async def due(self, **how: Any) -> Sequence[AttachmentUse]:
        """Give nothing."""
        return ()

    async def inline(self, *given: Any, **how: Any) -> Sequence[tuple[AttachmentUse, str | None]]:
        """Give nothing."""
        return ()

    async def outcome(self) -> Sequence[tuple[str, str, int]]:
        """Give nothing."""
        return ()


class PreviewStore(RunStore):
    """A run that forgets everything but its plan, and has nothing to do."""

    id = 0
    planned = False
    selection = ""
    left_behind = LeftBehind()

    def __init__(self, preview: Preview, started_at: datetime) -> None:
        self._preview = preview
        self._started_at = started_at

    @property
    def started_at(self) -> datetime:
        """When the preview began."""
        return self._started_at

    async def plan(self, units: Iterable[Unit]) -> int:
        """Count the units by type."""
        units = list(units)
        self._preview.mode = "crawl"  # an export's units come after its kick-off, which a preview never reaches
        self._preview.units = dict(Counter(unit.resource_type for unit in units if unit.kind != "cohort"))
        self._preview.types = tuple(self._preview.units)
        self._preview.patients = len({unit.patient_id for unit in units if unit.patient_id is not None})
        return len(units)

    async def pending(self, limit: int | None = None, kinds: Collection[str] | None = None) -> list[Unit]:
        """Nothing: no unit is fetched."""
        return []

    async def write(self, batch: Batch) -> None:
        """Keep nothing."""

    @property
    def pace(self) -> PreviewPace:
        """Nothing is remembered."""
        return PreviewPace()

    @property
    def evidence(self) -> PreviewEvidence:
        """Nothing was missed."""
        return PreviewEvidence()

    @property
    def roster(self) -> PreviewRoster:
        """Nobody is covered."""
        return PreviewRoster()

    @property
    def attachments(self) -> PreviewAttachments:
        """Nothing to fetch."""
        return PreviewAttachments()

    @property
    def references(self) -> PreviewReferences:
        """Nothing to follow."""
        return PreviewReferences()

    @property
    def jobs(self) -> PreviewJobs:
        """No job was kicked off, none will be."""
        return PreviewJobs()

    async def watermarks(self) -> Mapping[str, str]:
        """None: a full listing is shown."""
        return {}

    async def received_types(self) -> frozenset[str]:
        """Give none: a preview has no store."""
        return frozenset()

    async def last_full_listing(self, granted: Collection[str]) -> datetime | None:
        """None: a full listing is shown."""
        return None

    async def speak_for(self, knowledge: str, granted: Collection[str]) -> None:
        """Keep nothing."""

    def ask_since(self, marks: Mapping[str, str]) -> None:
        """Keep nothing."""

    async def namesakes(self) -> Sequence[str]:
        """Give none: a preview has no store."""
        return ()

    async def finish(
        self,
        *,
        watermark: str | None,
        requests: int,
        retries: int,
        notes: Sequence[str] = (),
        overlap: timedelta | None = None,
    ) -> RunReport:
        """Keep the notes."""
        self._preview.notes = tuple(notes)
        return self._report(requests, retries)

    async def fail(self, *, reason: str, requests: int, retries: int, notes: Sequence[str] = ()) -> RunReport:
        """Keep why the plan could not be made."""
        self._preview.error, self._preview.notes = reason, tuple(notes)
        return self._report(requests, retries)

    def _report(self, requests: int, retries: int) -> RunReport:
        return RunReport(
            id=0,
            connection=self._preview.connection,
            status="nothing",
            mode=self._preview.mode,
            requests=requests,
            retries=retries,
        )


class PreviewRuns:
    """Opens preview runs, as a store opens real ones."""

    def __init__(self, preview: Preview, now: datetime) -> None:
        self._preview = preview
        self._now = now

    @asynccontextmanager
    async def begin_run(self, scope: RunScope, clock: Callable[[], datetime]) -> AsyncIterator[RunStore]:
        """Yield a run that keeps only its plan."""
        self._preview.mode = scope.mode
        yield PreviewStore(self._preview, self._now)
