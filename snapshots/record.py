"""The small shapes that connectors hand to the store: records, deletions, quarantine, units of work and how they end.

Standard library only, so that both sides of the hourglass may import it. How they are stored is left to `snapshots.ingest`
and `snapshots.ledger`; how they are fetched, to `connectors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple


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


class Deletion(NamedTuple):
    """A resource that the EHR says is gone (410, Epic 4103, a bulk manifest's `deleted` file)."""

    resource_type: str
    id: str


class Quarantined(NamedTuple):
    """Input that could not become a record: kept as raw bytes, counted, reported, never dropped."""

    resource_type: str | None
    source: str  # where it came from, without PHI: "bulk file 3, line 17", "search page 2, entry 5"
    reason: str  # what is wrong with it, without quoting it
    raw: bytes
    unit_key: str | None = None  # the unit that brought it, which ends as a hole; None: only counted and kept


class UnitState(StrEnum):
    """How a unit of a run stands in the ledger."""

    PENDING = "pending"
    SETTLED = "settled"
    FAILED = "failed"  # a hole: named by the report, blocks the watermark, asked first by the next run


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of a run's work: a patient x type search, a bulk file. Unique in its run by `key`."""

    key: str  # stable and unique within the run, e.g. "search:Observation:<patient>:category=laboratory"
    kind: str  # "search" | "read" | "file" | "no-file" | "deleted-file" | "error-file" | "cohort"
    resource_type: str
    patient_id: str | None = None  # PHI: lives in the store, never in a log or report
    detail: Mapping[str, Any] = field(default_factory=dict)  # what the fetcher needs to do it again (JSON); no token


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """How one unit ended."""

    key: str
    state: UnitState
    reason: str | None = None  # why it failed, or a note ("restricted", "type not served here"); no PHI
    complete_listing: bool = (
        False  # True: everything this unit could list was listed, so what was not seen has vanished
    )
    records: int = 0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one transaction takes in: records merged, deletions applied, units settled; all of it or none."""

    records: Sequence[Record] = ()
    deletions: Sequence[Deletion] = ()
    quarantined: Sequence[Quarantined] = ()
    results: Sequence[UnitResult] = ()


@dataclass(frozen=True, kw_only=True)
class BulkJob:
    """A bulk export job as it must survive a crash. `status_url` is stored before anything else is done with it."""

    status_url: str
    kicked_off_at: datetime
    request: str  # the kick-off as template, for the report
    transaction_time: str | None = None
    manifest_complete: bool = False  # True once every file of every manifest page is a unit in the ledger
    deleted: bool = False


@dataclass(frozen=True, kw_only=True)
class RunScope:
    """What a run asked for: two runs with equal scopes list the same things, which is what tombstones rest on."""

    connection: str
    kind: str  # "sync" | "pull"
    mode: str  # "bulk" | "crawl"
    selection: str  # "group:<id>", "patients:<hash of the sorted ids>", "all"
    types: tuple[str, ...]  # empty: whatever the server gives
    since: Mapping[str, str] = field(default_factory=dict)  # resource type (or "*") -> instant; empty: full listing


@dataclass(frozen=True, kw_only=True)
class Hole:
    """Something that a run could not fetch. `scope` never is PHI in the clear."""

    resource_type: str
    scope: str  # "patient ~3f2a9c41, category=laboratory", "bulk file 3"
    reason: str


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
    seconds: float = 0
    error: str | None = None
