"""The small shapes that connectors hand to the store: records, deletions, quarantine, units of work and how they end.

Standard library only, so that both connectors and the store may import it. `connectors` fetches them; `snapshots.ingest` and
`snapshots.ledger` store them.
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
    patient_id: str | None  # id of the compartment's patient; a Patient's own id; None if there is none
    version_id: str | None
    last_updated: str | None  # FHIR instant as written in meta; None if the EHR sends no meta (Epic)
    content_hash: bytes  # 16 bytes, BLAKE2b of `body`
    body: bytes  # UTF-8 JSON, byte for byte as received: numbers keep their written form
    unit_key: str | None = None  # the unit that brought it; it becomes a hole if the store refuses the record
    subsetted: bool = False  # only some of its elements (meta.tag SUBSETTED): never replaces a whole one
    way: Way | None = None  # the way that listed it; None: no listing
    others: tuple[str, ...] = ()  # further patients whose compartment contains it
    searched: str | None = None  # the patient whose search brought it, if the resource does not name them
    attached: tuple[Attached, ...] | None = None  # None: not examined


class Quarantined(NamedTuple):
    """Input that could not become a record: it is kept as raw bytes, counted, reported, never dropped."""

    resource_type: str | None
    source: str  # where it came from, without PHI: "bulk file 3, line 17", "search page 2, entry 5"
    reason: str  # what is wrong with it; never quotes it
    raw: bytes
    unit_key: str | None = None  # the unit that brought it, which becomes a hole; None: only counted and kept


class Deferral(NamedTuple):
    """What the EHR said not to request before a time."""

    resource_type: str  # "*": every type of the patient
    patient_id: str | None  # None: every patient
    reason: str  # "restricted" | "paused"
    until: datetime


class Alias(NamedTuple):
    """A patient that the EHR has merged into another."""

    former_id: str
    surviving_id: str
    gone: bool  # the former id leads to the survivor (Epic 4107); False: Patient.link reports it, and both can be read


class StoredPatient(NamedTuple):
    """A patient that the store knows."""

    id: str
    alive: bool  # the Patient is not a tombstone
    has_chart: bool  # the patient has a live row


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The content of one transaction: records to merge, deletions to apply, units to settle; all or none."""

    records: Sequence[Record] = ()
    deletions: Sequence[Deletion] = ()
    quarantined: Sequence[Quarantined] = ()
    results: Sequence[UnitResult] = ()
    places: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # unit's key -> its progress (JSON)
    documents: Sequence[Document] = ()
    aliases: Sequence[Alias] = ()  # merges found; an id that is its own alias is no longer merged
    mentions: Sequence[ReferenceTarget] = ()  # those references of its records that the run follows


@dataclass(frozen=True, kw_only=True)
class BulkJob:
    """A bulk export job in the form that survives a crash: stored before the kick-off is sent, and again with its answer."""

    status_url: str | None = None  # None: the kick-off was sent, or is about to be, and its answer is unknown
    kicked_off_at: datetime
    request: str  # the kick-off as template, for the report
    transaction_time: str | None = None
    manifest_complete: bool = False  # True once every file of every manifest page is a unit in the ledger
    deleted: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)  # what its files prove (JSON): `bulk.kick_off.Asked`
    elements: bool = False  # requested with `_elements`: its files contain partial resources
    progress: str | None = None  # the server's last X-Progress
    next_poll_at: datetime | None = None
    expires_at: datetime | None = None  # when the manifest's links expire
    pages: Sequence[str] = ()  # URLs of the manifest's pages whose files are units


@dataclass(frozen=True, kw_only=True)
class EarlierJob:
    """A job that an earlier, closed run left at the server."""

    run: int
    job: BulkJob
    stored: bool  # all its files are in the store: the server may delete it


@dataclass(frozen=True, kw_only=True)
class PaceState:
    """A connection's pace, as the last run left it. Times are epoch seconds."""

    concurrency: int | None = None  # concurrent requests; None: never measured
    file_concurrency: int | None = None
    down_until: float | None = None  # the circuit breaker is open until then
    down_reason: str | None = None  # what was found, without PHI
    trips: int = 0  # how often it opened since the last success
    quota_free_at: float | None = None  # the time from which the next request is within the quota


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a process has sent for a run, and its retry budget: `spent` on failures, `left` (None: not known)."""

    requests: int = 0
    retries: int = 0
    spent: int = 0
    left: int | None = None

    def since(self, before: Traffic) -> Traffic:
        """Return what was added after `before`; `left` stays the same."""
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
    """What a run requests: two runs with equal scopes list the same things; tombstones rely on that."""

    connection: str
    kind: str  # "sync" | "pull"
    mode: str  # "bulk" | "crawl"
    selection: str  # whose watermarks and roster: "group:<id>", "cohort", "store", "patients:<hash>", "all"
    types: tuple[str, ...]  # empty: whatever the server gives
    since: Mapping[str, str] = field(default_factory=dict)  # resource type (or "*") -> instant; empty: full listing
    cohort: str = ""  # digest of the cohort as given: an interrupted run is resumed only with the same cohort
    everything: bool = False  # lists in full whatever is known: never resumes a run that requested news
    base_url: str = ""  # of the EHR; not compared


@dataclass(frozen=True, kw_only=True)
class Hole:
    """Something that a run could not fetch. `scope` never contains unmasked PHI."""

    resource_type: str
    scope: str  # "patient ~3f2a9c41, category=laboratory", "bulk file 3"
    reason: str
    ending: Ending = Ending.FAILED


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of a run about what is complete: by which way, of which type, for how many patients, up to when."""

    way: str
    resource_type: str
    patients: int | None  # None: not by patient
    up_to: str | None  # None: no instant from which news could be requested
    full: bool  # a full listing; False: news since the claim before


@dataclass(frozen=True, kw_only=True)
class ProvedRun:
    """The sync that a proof checks."""

    id: int
    started_at: datetime
    mode: str  # "bulk" | "crawl" | "auto"
    types: tuple[str, ...]  # asked for by name; empty: whatever the server gives
    holes: int = 0


Verdict = Literal["equal", "more", "fewer", "not asked", "unanswered"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One question of a proof whose answer was not "equal". `scope` never contains unmasked PHI."""

    resource_type: str
    scope: str  # "patient ~3f2a9c41", "everyone"
    verdict: Verdict
    at_ehr: int | None  # None: the EHR did not say
    stored: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class TypeProof:
    """What a proof found about one resource type. The five verdicts count questions, one per patient."""

    resource_type: str
    method: str  # how the EHR was asked: "count", "ids", or both
    equal: int = 0
    more: int = 0
    fewer: int = 0
    not_asked: int = 0
    unanswered: int = 0
    at_ehr: int = 0  # resources, over all answered questions
    stored: int = 0
    missing: int = 0  # at the EHR, but not in the store


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the EHR counts and what the store holds, side by side, at one moment after a sync."""

    at: datetime
    connection: str
    run: int  # the sync that is proved
    patients: int  # asked
    of_patients: int  # there are
    seed: int | None  # of the sample; None: the proof covers everyone
    types: Sequence[TypeProof] = ()
    findings: Sequence[Finding] = ()  # at most a few hundred are named
    findings_unnamed: int = 0
    notes: Sequence[str] = ()
    requests: int = 0
    seconds: float = 0
    gave_way: bool = False  # a sync began, so the proof stopped before its last question

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of all questions: fewer, then unanswered, more, equal; "not asked" if nothing could be compared."""
        ranked: tuple[Verdict, ...] = ("fewer", "unanswered", "more", "equal")
        return next((one for one in ranked if any(getattr(found, one) for found in self.types)), "not asked")


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a run did; `sync --json` prints it."""

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
    retries_spent: int = 0  # of the retry budget, by failures; retries after refusals (429) count only in `retries`
    retries_left: int | None = None
    down_until: datetime | None = None  # set if the EHR counted as down when the run ended
    seconds: float = 0
    error: str | None = None
    # the result of the cohort: counts and line numbers, no values
    cohort: Mapping[str, Any] = field(default_factory=dict)
    certificates: Sequence[Certificate] = ()  # proofs of this run, oldest first
    claims: Sequence[Claim] = ()
    kind: str = "sync"  # "sync" | "pull"
