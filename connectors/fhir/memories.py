"""What an EHR's connector remembers in the store beside its units, as protocols; modules of `snapshots` are the real ones.

Each memory is one concern of one open run, and every call one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from connectors.core.store_port import Missed, RunStore
from snapshots.export_job import BulkJob, EarlierJob
from snapshots.given_up import LeftBehind
from snapshots.patient import Alias, Deferral, StoredPatient
from snapshots.proof import Certificate, ProvedRun
from snapshots.referred import AttachmentUse, ReferencePath, ReferenceTarget
from snapshots.traffic import PaceState, Traffic
from snapshots.unit import Unit, UnitKind
from snapshots.witness import AbsentRow, Way


class BulkJobs(Protocol):
    """The export jobs of one open run's connection; every call is one transaction, on the disk when it returns."""

    async def current(self) -> BulkJob | None:
        """The run's job: kicked off, or, without a status URL, sent and never answered."""

    async def save(self, job: BulkJob) -> None:
        """Insert or update the run's job."""

    async def forget(self) -> None:
        """Take back the intent: the server refused the kick-off, so that there is no job."""

    async def earlier(self) -> Sequence[EarlierJob]:
        """Jobs of earlier runs, all closed, that were never deleted at the server; newest first."""

    async def settle_earlier(self, run: int) -> None:
        """An earlier run's job is gone from the server, or cannot be found any more."""

    async def last_kicked_off(self) -> datetime | None:
        """When an earlier run of the same selection last started an export."""

    async def patients_without_data(self, patients: Sequence[str]) -> Sequence[str]:
        """Those of the patients whose Patient this run has not received."""

    async def patients_without_rows(self, patients: Sequence[str]) -> Sequence[str]:
        """Those of the patients of whose charts this run has received nothing."""

    async def never_stored(self, patients: Sequence[str]) -> Sequence[str]:
        """Those of the patients of whose charts no run has stored anything."""

    async def planned_types(self, kinds: Sequence[UnitKind]) -> Sequence[str]:
        """Types of the run's units of these kinds."""

    async def received_types(self) -> Sequence[str]:
        """Types of which the run's files have brought something."""

    async def planned_files(self, page: int) -> Sequence[Unit]:
        """The files of one manifest page that are units of the run."""

    async def vanished_types(self) -> Sequence[str]:
        """Types that earlier exports of this selection had files of, and this one has none of."""


class References(Protocol):
    """What one open run's resources refer to; every call is one transaction."""

    async def follow(self, types: Collection[str]) -> None:
        """Note which types this run follows references to."""

    async def collect(
        self,
        paths: Sequence[ReferencePath],
        resolve: Callable[[str], ReferenceTarget | None],
        *,
        depth: int,
        fresh: timedelta,
    ) -> bool:
        """Note references, `depth` steps from a listing, to resources that the run did not bring; return whether there are any.

        At depth 0 they are those of `Batch.mentions`; further on, those at `paths` of what was fetched.
        """

    async def due(
        self, types: Collection[str], *, depth: int, fresh: timedelta, limit: int, leftovers: bool
    ) -> Sequence[ReferenceTarget]:
        """What is due and in no unit yet, by type and patient; `leftovers`: also what earlier runs could not get."""

    async def note_requested(self, *, depth: int) -> None:
        """Note what the run's reference units ask for (`Unit.ids`)."""

    async def note_answers(self) -> Mapping[str, Mapping[str, int]]:
        """Note how settled reference units were answered; give by type how many are found, missing, restricted, wanted."""


class Roster(Protocol):
    """The patients that one open run's selection covers, and how far each is behind; every call is one transaction.

    When the run is finished, the ledger shows who was requested: then the roster, lags and watermarks move together.
    """

    async def covered(self) -> frozenset[str]:
        """The patients that the selection's watermarks speak for; all others are to be listed in full."""

    async def lags(self) -> Mapping[tuple[str, str], str | None]:
        """By (type, patient): the instant up to which a patient behind the type's watermark is complete; None: not at all."""

    async def behind(self) -> frozenset[str]:
        """Patients who have a lag for another reason than that rows of theirs are withheld."""

    async def deferrals(self, now: datetime) -> Sequence[Deferral]:
        """What the EHR told us not to request before a time that has not come yet."""

    async def defer(self, deferrals: Sequence[Deferral]) -> None:
        """Note what is not to be requested before a time."""

    async def aliases(self) -> Sequence[Alias]:
        """The merges that any run of the connection met."""

    async def new_aliases(self) -> Sequence[Alias]:
        """The merges that this run was the first to meet (`Batch.aliases`); an id that is its own alias is merged no more."""

    async def unanswered(self) -> Sequence[str]:
        """Patients that settled batches requested and did not return, and that no unit of their own requests."""

    async def stored_patients(self) -> Sequence[StoredPatient]:
        """The connection's patients, tombstones included, in order."""

    async def revived(self) -> Sequence[str]:
        """Patients whose Patient this run has brought back to life."""

    async def led_nowhere(self) -> Sequence[str]:
        """Merged patients whom this run requested, and whose former ids no longer lead to anybody."""

    async def note_members(self, patients: Sequence[str]) -> None:
        """Note the members of the Group that this run exports, as the Group itself lists them."""

    async def knew_members(self) -> bool:
        """Whether the selection's last full listing knew from the Group itself who is in it."""

    async def missed_members(self) -> bool:
        """Whether a run of news since then did not."""

    async def unmet_members(self) -> Sequence[str]:
        """Of these members, those whose Patient is not stored, or is a tombstone."""

    async def uncovered_members(self) -> Sequence[str]:
        """Of these members, those who are not on the roster."""

    async def describe_cohort(self, cohort: Mapping[str, Any]) -> None:
        """Add to what the report says about the cohort: numbers and line numbers, never a value."""


class Evidence(Missed, Protocol):
    """What one open run missed, and which rows to request by id; every call is one transaction."""

    async def note_departed(self, way: Way) -> None:
        """Note patients that the selection covered and that this run did not list or, by this way, request."""

    async def due(self, readable: Sequence[str] | None, limit: int) -> Sequence[AbsentRow]:
        """Missed rows to request by id, Patients first; none that belong to a mass."""

    async def not_found_types(self) -> Sequence[str]:
        """Types of which the EHR has answered in this run that a resource does not exist."""

    async def controls(self, types: Sequence[str]) -> Sequence[AbsentRow]:
        """Rows of these types that this run has listed."""

    async def note_requested(self, rows: Sequence[AbsentRow]) -> None:
        """Note that units ask for these rows."""

    async def withheld(self, patients: Sequence[str] | None, limit: int) -> Sequence[AbsentRow]:
        """Some rows that this client may not see, as earlier runs found, Patients first; None: whoever they belong to."""

    async def note_listings(self, at: datetime) -> None:
        """Note by which ways this run has listed types in full."""

    async def rotate(
        self, readable: Sequence[str] | None, limit: int, *, at: datetime, period: timedelta, fresh: timedelta
    ) -> Mapping[str, int]:
        """Note some rows that no listing of the period could have, so that they are requested too; return how many, by type."""


class PaceStore(Protocol):
    """What one open run's connection remembers of its pace, and what the run has sent."""

    @property
    def counted(self) -> Traffic:
        """What is counted into the run already: `finish` and `fail` take what came since."""

    async def load(self) -> PaceState:
        """What the connection's last run left."""

    def note(self, state: PaceState, traffic: Traffic) -> None:
        """Keep this with one of the next batches; `traffic` is all that this process has sent."""

    async def save(self, state: PaceState, traffic: Traffic) -> None:
        """Keep this now."""


class Attachments(Protocol):
    """The documents that one open run's resources have attached; every call is one transaction."""

    async def due(self, *, fresh: timedelta, limit: int, leftovers: bool) -> Sequence[AttachmentUse]:
        """Attachments to get by URL, or to decide on; `leftovers`: also what earlier runs could not get."""

    async def note_requested(self, uses: Sequence[AttachmentUse]) -> None:
        """Note that units ask for these by their URLs."""

    async def inline(
        self, paths: Mapping[str, str], *, most: int, together: int, leftovers: bool
    ) -> Sequence[tuple[AttachmentUse, str | None]]:
        """Some attachments that are contained in their resource, with their base64 (None: longer than `most` characters)."""

    async def outcome(self) -> Sequence[tuple[str, str, int]]:
        """(state, note, how many) of what this run wanted, those aside that are stored with their text."""


class Knowledge(Protocol):
    """Up to when what one open run covers is known to be complete; every call is one transaction."""

    async def watermarks(self, *, held_back: bool = False) -> Mapping[str, str]:
        """Per resource type, the instant up to which this connection and selection are known to be complete.

        `held_back`: only of types whose rows' dates could hold it back. Of another type, what an EHR whose dates are behind the
        clock adds next may be dated before it.
        """

    async def unlisted_types(self) -> Sequence[str]:
        """Types that exports of this selection have listed, but none in full yet: for these, news are not everything."""

    async def listed_patients(self, patients: Sequence[str]) -> frozenset[str]:
        """Those of these patients whose Patient this run has listed."""

    async def forget(self) -> None:
        """Forget these instants, because the clock that gave them cannot be believed: the next run lists everything."""

    async def received_types(self) -> frozenset[str]:
        """Types of which any run of this connection has received something: a search of them exists."""

    async def empty_types(self) -> frozenset[str]:
        """Types for which this run's searches were answered, and of which the connection has never sent anything."""

    async def last_full_listing(self, granted: Collection[str]) -> datetime | None:
        """When the last complete run started that listed all of this selection, this way, by a login that read as much."""

    async def speak_for(self, knowledge: str, granted: Collection[str], *, notes_dates: bool | None = None) -> None:
        """Say whose watermarks, roster and lags this run reads and moves, and which types its login may read.

        `notes_dates`: whether this session notes the dates of what it lists; None: it is no crawl.
        """

    def request_since(self, marks: Mapping[str, str]) -> None:
        """Set which types (or "*") are requested only for news, and since when."""

    async def last_mode(self) -> Literal["bulk", "crawl"] | None:
        """How the selection's last sync went that ended complete or partial."""

    async def namesakes(self) -> Sequence[str]:
        """Other connections with the same base_url, where this run is its connection's first."""


class EhrRunStore(RunStore, Protocol):
    """One open run of an EHR's connection, with all that is remembered of it."""

    @property
    def selection(self) -> str:
        """Which patients were requested."""

    @property
    def left_behind(self) -> LeftBehind:
        """What was given up as the run began, since the connection's base_url has changed."""

    @property
    def jobs(self) -> BulkJobs:
        """The connection's bulk export jobs."""

    @property
    def roster(self) -> Roster:
        """Which patients the run's selection covers, and what they are behind with."""

    @property
    def references(self) -> References:
        """What the run's resources refer to."""

    @property
    def attachments(self) -> Attachments:
        """The documents that the run's resources have attached."""

    @property
    def evidence(self) -> Evidence:
        """What the run missed."""

    @property
    def pace(self) -> PaceStore:
        """How fast the connection may send requests to its EHR."""

    @property
    def knowledge(self) -> Knowledge:
        """Up to when the run's selection is known to be complete."""


class ProofStore(Protocol):
    """What a proof needs from the store; `snapshots.proof_session` is the real one. Calls may come from several tasks."""

    async def newest_sync(self, selection: str) -> ProvedRun | None:
        """The sync to prove: the newest finished one of this selection, else of any."""

    async def run_at_work(self) -> int | None:
        """The connection's run that is at work now."""

    async def check_idle(self) -> None:
        """Raise where a run is at work."""

    async def patients(self) -> list[str]:
        """The connection's live patients."""

    async def types(self) -> frozenset[str]:
        """Types of which something live belongs to a patient."""

    async def number(self, resource_type: str, patient: str | None) -> int:
        """How many live resources; of no patient: all of the type."""

    async def held(self, resource_type: str, patient: str | None) -> Mapping[str, str | None]:
        """Their ids, each with its lastUpdated."""

    async def by_id(self, resource_type: str, ids: Sequence[str]) -> Mapping[str, tuple[str | None, bool]]:
        """What is known of these ids: lastUpdated, and whether it is a tombstone."""

    async def holes(self, run: int, patients: Sequence[str]) -> Mapping[tuple[str, str | None], str]:
        """Why units of the run failed, by type and patient."""

    async def asked(self, run: int) -> frozenset[str]:
        """Types that the run requested, without those that the server never serves."""

    async def patient_mark(self, patient: str) -> str:
        """A patient as reports name it."""

    async def deferrals(self, now: datetime) -> Sequence[Deferral]:
        """What the connection's runs learned not to ask."""

    async def pace(self) -> PaceState:
        """The pace that the connection's last run left."""

    async def keep_pace(self, state: PaceState) -> None:
        """Remember the pace."""

    async def save(self, certificate: Certificate) -> None:
        """Keep the certificate beside its run."""
