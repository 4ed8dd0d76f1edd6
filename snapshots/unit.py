"""Units of work: what one piece of a run requests, and how it ended.

Standard library only, so that both connectors and the store may import it. The connector that made a unit interprets its
`detail`; `snapshots.closing` and `snapshots.judgement` act on its ending.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from snapshots.witness import Way

_KEY_DIGITS = 32


class UnitState(StrEnum):
    """The state of a unit in the ledger."""

    PENDING = "pending"
    SETTLED = "settled"
    FAILED = "failed"  # a hole: the report names it, it blocks the watermark, the next run requests it first


class Ending(StrEnum):
    """How the EHR answered a unit. A reason is for people; code decides by the ending."""

    LISTED = "listed"  # everything requested came
    PARTIAL = "partial"  # something may be missing, or arrived unrequested: the EHR says so, or the answer shows it
    NOT_SERVED = "not-served"  # the EHR has no such search
    NOT_FOUND = "not-found"  # the EHR knows no such patient or resource
    GONE = "gone"  # the patient or the resource is deleted
    MERGED = "merged"  # the patient was merged into another
    RESTRICTED = "restricted"  # the EHR refuses this client
    PAUSED = "paused"  # not before another day
    FAILED = "failed"


class UnitKind(StrEnum):
    """What a unit asks for. By it the store decides what the unit's end proves; a checked column."""

    SEARCH = "search"  # a patient's resources of a type, or, without a patient, a directory
    READ = "read"  # a Patient by id
    BATCH = "batch"  # Patients by their ids
    COHORT = "cohort"  # an entry of the cohort that may be no patient
    FILE = "file"  # a file of an export
    NO_FILE = "no-file"  # a requested type of which an export has no file
    DELETED_FILE = "deleted-file"
    ERROR_FILE = "error-file"
    REFERENCE = "reference"
    ATTACHMENT = "attachment"
    CONFIRM = "confirm"  # reads by id what was missed
    CONTROL = "control"  # reads by id what was listed
    DOUBT = "doubt"  # the store's own: what is not believed
    UNLISTED = "unlisted"  # the store's own: files of the type failed last time, and this export lists none
    # of a source that is no EHR: a part of what its way lists. Parts of a type that are all complete miss what did not come; of a
    # feed, where absence says nothing, the way's scope is NOTHING, or none is given
    LISTING = "listing"


def unit_key(*parts: object) -> str:
    """Return the key of the unit that these parts name: opaque, the same in every run, and without an id in it."""
    return sha256(":".join(map(str, parts)).encode()).hexdigest()[:_KEY_DIGITS]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of a run's work: a patient x type search, a bulk file. Unique in its run by `key`."""

    key: str  # `unit_key`
    kind: UnitKind
    resource_type: str
    patient_id: str | None = None  # PHI: lives in the store, never in a log or report
    template: str = ""  # its request, without ids, for people: "GET /Observation?patient=…"
    split: str = ""  # which part of the patient's resources of the type: "category=laboratory"
    incremental: bool = False  # it requests only news
    since: str | None = None  # since when, if the unit itself sets it: a FHIR instant
    ids: tuple[str, ...] = ()  # PHI: the resources that it requests by id
    of_chart: str | None = None  # PHI: the patient whose chart mentions them; some EHRs bind a token to one
    page: int | None = None  # page of the manifest that lists the file
    detail: Mapping[str, Any] = field(default_factory=dict)  # what else its fetcher needs to repeat it (JSON); no token
    reached: Mapping[str, Any] | None = None  # how far an interrupted run got with it (JSON)
    way: Way | None = None  # by which it lists
    way_of_none: Way | None = None  # the way by which it lists what belongs to no patient, if different


class Counted(NamedTuple):
    """Something that a run counts in the resources that pass by, for a note at its end."""

    about: str  # which note it is for: "validity", "references"
    resource_type: str
    what: str  # no PHI


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """How one unit ended."""

    key: str
    state: UnitState
    reason: str | None = None  # why it failed, or a note ("restricted", "type not served here"); no PHI
    # True: the unit listed everything that it can list, so that it misses what did not come
    complete_listing: bool = False
    records: int = 0
    ending: Ending | None = None  # None: LISTED if it was settled, else FAILED
    # the newest date in what it fetched, as a FHIR instant; only if changes will be requested
    newest: str | None = None
    counted: Mapping[Counted, int] = field(default_factory=dict)  # in what it fetched

    @property
    def ended(self) -> Ending:
        """How the EHR answered."""
        return self.ending or (Ending.LISTED if self.state is UnitState.SETTLED else Ending.FAILED)
