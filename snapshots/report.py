"""What a run requests, and what it did; `sync --json` prints it. Shapes only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from snapshots.proof import Certificate
from snapshots.unit import Ending


@dataclass(frozen=True, kw_only=True)
class RunScope:
    """What a run requests: two runs with equal scopes list the same things; tombstones rely on that."""

    connection: str
    kind: str  # "sync" | "pull"
    mode: str  # how the source is read; an EHR: "bulk" | "crawl"
    selection: str  # whose watermarks and roster: "group:<id>", "cohort", "store", "patients:<hash>", "all"
    types: tuple[str, ...]  # empty: whatever the server gives
    by_patient: bool = True  # False: the source knows no patients, so the report does not count them; not compared
    since: Mapping[str, str] = field(default_factory=dict)  # resource type (or "*") -> instant; empty: full listing
    cohort: str = ""  # digest of the cohort as given: an interrupted run is resumed only with the same cohort
    everything: bool = False  # lists in full whatever is known: never resumes a run that requested news
    base_url: str = ""  # of the EHR; not compared
    ignored: tuple[str, ...] = ()  # "meta", "narrative": what may change without making a version; not compared


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
    resource_type: str | None  # None: the source has no types, and this is about all that it has
    patients: int | None  # None: not by patient
    up_to: str | None  # None: no instant from which news could be requested
    full: bool  # a full listing; False: news since the claim before


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a run did; `sync --json` prints it."""

    id: int
    connection: str
    status: str  # "complete" | "partial" | "failed" | "nothing"
    mode: str
    resources: Mapping[str, int] = field(default_factory=dict)  # distinct resources received, by type
    patients: int | None = 0  # None: the source knows no patients
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
    units_pruned: bool = False  # its units were pruned: `holes` is empty, which says nothing
