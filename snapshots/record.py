"""The small shapes that connectors hand to the store: records, deletions, quarantine, units of work and how they end.

Standard library only, so that both sides of the hourglass may import it. How they are stored is left to `snapshots.ingest`
and `snapshots.ledger`; how they are fetched, to `connectors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from snapshots.given_up import LeftBehind as LeftBehind  # noqa: PLC0414 -- handed on
from snapshots.referred import Attached as Attached  # noqa: PLC0414 -- handed on
from snapshots.referred import AttachmentUse as AttachmentUse  # noqa: PLC0414 -- handed on
from snapshots.referred import Document as Document  # noqa: PLC0414 -- handed on
from snapshots.referred import ReferencePath as ReferencePath  # noqa: PLC0414 -- handed on
from snapshots.referred import ReferenceTarget as ReferenceTarget  # noqa: PLC0414 -- handed on
from snapshots.unit import Ending as Ending  # noqa: PLC0414 -- handed on
from snapshots.unit import Unit as Unit  # noqa: PLC0414 -- handed on
from snapshots.unit import UnitResult as UnitResult  # noqa: PLC0414 -- handed on
from snapshots.unit import UnitState as UnitState  # noqa: PLC0414 -- handed on
from snapshots.unit import unit_key as unit_key  # noqa: PLC0414 -- handed on
from snapshots.witness import AbsentRow as AbsentRow  # noqa: PLC0414 -- handed on
from snapshots.witness import Deletion as Deletion  # noqa: PLC0414 -- handed on
from snapshots.witness import Said as Said  # noqa: PLC0414 -- handed on
from snapshots.witness import Way as Way  # noqa: PLC0414 -- handed on
from snapshots.witness import WayScope as WayScope  # noqa: PLC0414 -- handed on


class Record(NamedTuple):
    """One version of one resource, as the EHR wrote it."""

    resource_type: str
    id: str
    patient_id: str | None  # id of the compartment's patient; a Patient's own id; None where there is none
    version_id: str | None
    last_updated: str | None  # FHIR instant as written in meta; None where the EHR gives no meta (Epic)
    content_hash: bytes  # 16 bytes, BLAKE2b of `body`
    body: bytes  # UTF-8 JSON, byte for byte as received: numbers keep their written form
    unit_key: str | None = None  # the unit that brought it: a hole, should the store refuse the record
    subsetted: bool = False  # some of its elements only (meta.tag SUBSETTED): never stored over a whole one
    way: Way | None = None  # what listed it; None: nothing that lists
    others: tuple[str, ...] = ()  # further patients in whose compartment it lies
    searched: str | None = None  # the patient whose search brought it, where the resource does not name them
    attached: tuple[Attached, ...] | None = None  # None: nobody has looked


class Quarantined(NamedTuple):
    """Input that could not become a record: kept as raw bytes, counted, reported, never dropped."""

    resource_type: str | None
    source: str  # where it came from, without PHI: "bulk file 3, line 17", "search page 2, entry 5"
    reason: str  # what is wrong with it, without quoting it
    raw: bytes
    unit_key: str | None = None  # the unit that brought it, which ends as a hole; None: only counted and kept


class Deferral(NamedTuple):
    """What the EHR said not to ask before a time."""

    resource_type: str  # "*": every type of the patient
    patient_id: str | None  # None: every patient
    reason: str  # "restricted" | "paused"
    until: datetime


class Alias(NamedTuple):
    """A patient that the EHR has merged into another."""

    former_id: str
    surviving_id: str
    gone: bool  # the former id leads to the survivor (Epic 4107); False: Patient.link says so, and both can be read


class StoredPatient(NamedTuple):
    """A patient that the store knows."""

    id: str
    alive: bool  # the Patient is no tombstone
    has_chart: bool  # something of the patient is alive


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one transaction takes in: records merged, deletions applied, units settled; all of it or none."""

    records: Sequence[Record] = ()
    deletions: Sequence[Deletion] = ()
    quarantined: Sequence[Quarantined] = ()
    results: Sequence[UnitResult] = ()
    places: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # unit's key -> how far it has come (JSON)
    documents: Sequence[Document] = ()
    aliases: Sequence[Alias] = ()  # merges met; an id that is its own alias is merged no more
    mentions: Sequence[ReferenceTarget] = ()  # what its records refer to, of what the run follows


@dataclass(frozen=True, kw_only=True)
class BulkJob:
    """A bulk export job as it must survive a crash: stored before the kick-off is sent, and again when its answer is there."""

    status_url: str | None = None  # None: the kick-off was sent, or about to be, and its answer is not known
    kicked_off_at: datetime
    request: str  # the kick-off as template, for the report
    transaction_time: str | None = None
    manifest_complete: bool = False  # True once every file of every manifest page is a unit in the ledger
    deleted: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)  # what its files prove (JSON): `bulk.kick_off.Asked`
    elements: bool = False  # asked for with `_elements`: what its files hold is not whole
    progress: str | None = None  # the server's last X-Progress
    next_poll_at: datetime | None = None
    expires_at: datetime | None = None  # of the manifest's links
    pages: Sequence[str] = ()  # URLs of the manifest's pages whose files are units


@dataclass(frozen=True, kw_only=True)
class EarlierJob:
    """A job that an earlier, closed run left at the server."""

    run: int
    job: BulkJob
    stored: bool  # every file of it is in the store: the server may drop it


@dataclass(frozen=True, kw_only=True)
class PaceState:
    """How fast a connection's EHR may be asked, as the last run left it. Moments are epoch seconds."""

    concurrency: int | None = None  # requests at a time; None: never measured
    file_concurrency: int | None = None
    down_until: float | None = None  # the circuit breaker is open until then
    down_reason: str | None = None  # what was found, without PHI
    trips: int = 0  # how often it opened since things last went well
    quota_free_at: float | None = None  # from when the next request is within the quota


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a process has sent for a run, and its retry budget: `spent` on failures, `left` (None: not known)."""

    requests: int = 0
    retries: int = 0
    spent: int = 0
    left: int | None = None

    def since(self, before: Traffic) -> Traffic:
        """What came after `before`; what is left stays as it is."""
        return Traffic(
            requests=self.requests - before.requests,
            retries=self.retries - before.retries,
            spent=self.spent - before.spent,
            left=self.left,
        )


class Down(NamedTuple):
    """A connection whose EHR was found down."""

    connection: str
    until: datetime
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunScope:
    """What a run asked for: two runs with equal scopes list the same things, which is what tombstones rest on."""

    connection: str
    kind: str  # "sync" | "pull"
    mode: str  # "bulk" | "crawl"
    selection: str  # whose watermarks and roster: "group:<id>", "cohort", "store", "patients:<hash>", "all"
    types: tuple[str, ...]  # empty: whatever the server gives
    since: Mapping[str, str] = field(default_factory=dict)  # resource type (or "*") -> instant; empty: full listing
    cohort: str = ""  # digest of the cohort as given: an interrupted run goes on only with the same
    everything: bool = False  # in full whatever is known: it never goes on with a run that asked for news
    base_url: str = ""  # of the EHR; not compared


@dataclass(frozen=True, kw_only=True)
class Hole:
    """Something that a run could not fetch. `scope` never is PHI in the clear."""

    resource_type: str
    scope: str  # "patient ~3f2a9c41, category=laboratory", "bulk file 3"
    reason: str
    ending: Ending = Ending.FAILED


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a run says to be complete: by which way, of which type, for how many patients, up to when."""

    way: str
    resource_type: str
    patients: int | None  # None: not by patient
    up_to: str | None  # None: nothing that news could be asked from
    full: bool  # a full listing; False: news since the claim before


@dataclass(frozen=True, kw_only=True)
class ProvedRun:
    """The sync that a proof is of."""

    id: int
    started_at: datetime
    mode: str  # "bulk" | "crawl" | "auto"
    types: tuple[str, ...]  # asked for by name; empty: whatever the server gives
    holes: int = 0


Verdict = Literal["equal", "more", "fewer", "not asked", "unanswered"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One question of a proof whose answer was not "equal". `scope` never is PHI in the clear."""

    resource_type: str
    scope: str  # "patient ~3f2a9c41", "everyone"
    verdict: Verdict
    at_ehr: int | None  # None: the EHR did not say
    stored: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class TypeProof:
    """What a proof found of one resource type. The five verdicts count questions, one a patient."""

    resource_type: str
    method: str  # how the EHR was asked: "count", "ids", or both
    equal: int = 0
    more: int = 0
    fewer: int = 0
    not_asked: int = 0
    unanswered: int = 0
    at_ehr: int = 0  # resources, over all questions that were answered
    stored: int = 0
    missing: int = 0  # of those at the EHR, not in the store


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the EHR counts and what the store holds, side by side, at one moment after a sync."""

    at: datetime
    connection: str
    run: int  # the sync that is proved
    patients: int  # asked
    of_patients: int  # there are
    seed: int | None  # of the sample; None: everyone was asked
    types: Sequence[TypeProof] = ()
    findings: Sequence[Finding] = ()  # at most some hundreds are named
    findings_unnamed: int = 0
    notes: Sequence[str] = ()
    requests: int = 0
    seconds: float = 0
    gave_way: bool = False  # a sync began, and the proof ended before its last question

    @property
    def verdict(self) -> Verdict:
        """The gravest of all questions: fewer, then unanswered, more, equal; "not asked" where nothing could be compared."""
        ranked: tuple[Verdict, ...] = ("fewer", "unanswered", "more", "equal")
        return next((one for one in ranked if any(getattr(found, one) for found in self.types)), "not asked")


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a run did, as `sync --json` prints it."""

    id: int
    connection: str
    status: str  # "complete" | "partial" | "failed" | "nothing"
    mode: str
    resources: Mapping[str, int] = field(default_factory=dict)  # distinct resources received, by type
    patients: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0
    quarantined: int = 0
    holes: Sequence[Hole] = ()
    notes: Sequence[str] = ()
    requests: int = 0
    retries: int = 0
    retries_spent: int = 0  # of the retry budget, by failures; refusals that were paced are in `retries` only
    retries_left: int | None = None
    down_until: datetime | None = None  # the run ended with the EHR taken to be down
    seconds: float = 0
    error: str | None = None
    # what became of the cohort: numbers and line numbers, no values
    cohort: Mapping[str, Any] = field(default_factory=dict)
    certificates: Sequence[Certificate] = ()  # proofs of this run, oldest first
    claims: Sequence[Claim] = ()
    kind: str = "sync"  # "sync" | "pull"
