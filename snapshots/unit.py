"""Units of work: what one piece of a run asks for, and how it ended.

Standard library only, so that both sides of the hourglass may import it. What a unit's `detail` means is left to the connector
that made it; what follows from its ending, to `snapshots.closing` and `snapshots.evidence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

from snapshots.witness import Way

_KEY_DIGITS = 32


class UnitState(StrEnum):
    """How a unit of a run stands in the ledger."""

    PENDING = "pending"
    SETTLED = "settled"
    FAILED = "failed"  # a hole: named by the report, blocks the watermark, asked first by the next run


class Ending(StrEnum):
    """How the EHR answered a unit. What a reason says is for people; code decides by this."""

    LISTED = "listed"  # all that was asked for came
    PARTIAL = "partial"  # something may be missing, or came unasked; the EHR said so, or it shows
    NOT_SERVED = "not-served"  # it has no such search
    NOT_FOUND = "not-found"  # it knows no such patient, or no such resource
    GONE = "gone"  # the patient, or the resource, is deleted
    MERGED = "merged"  # the patient is another's by now
    RESTRICTED = "restricted"  # this client may not
    PAUSED = "paused"  # not today
    FAILED = "failed"


def unit_key(*parts: object) -> str:
    """Give the key of the unit that these parts name: opaque, the same in every run, and without an id in it."""
    return sha256(":".join(map(str, parts)).encode()).hexdigest()[:_KEY_DIGITS]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of a run's work: a patient x type search, a bulk file. Unique in its run by `key`."""

    key: str  # `unit_key`
    # "search" | "read" | "batch" | "file" | "no-file" | "deleted-file" | "error-file" | "cohort" | "reference" | "attachment"
    # | "confirm" and "control" (reads by id of what was missed, and of what was listed) | "doubt" (the store's own: what is not
    # believed)
    kind: str
    resource_type: str
    patient_id: str | None = None  # PHI: lives in the store, never in a log or report
    template: str = ""  # what it asks, without ids, for people: "GET /Observation?patient=…"
    split: str = ""  # which part of the patient's resources of the type: "category=laboratory"
    incremental: bool = False  # it asks for news only
    since: str | None = None  # from when, where the unit says so itself: a FHIR instant
    ids: tuple[str, ...] = ()  # PHI: the resources that it asks for by id
    of_chart: str | None = None  # PHI: the patient whose chart mentions them; some EHRs bind a token to one
    page: int | None = None  # of the manifest that lists the file
    detail: Mapping[str, Any] = field(
        default_factory=dict
    )  # what else its fetcher needs to do it again (JSON); no token
    reached: Mapping[str, Any] | None = None  # how far an interrupted run came with it (JSON)
    way: Way | None = None  # by which it lists
    way_of_none: Way | None = None  # by which it lists what belongs to no patient, where that is another


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """How one unit ended."""

    key: str
    state: UnitState
    reason: str | None = None  # why it failed, or a note ("restricted", "type not served here"); no PHI
    complete_listing: bool = (
        False  # True: everything this unit could list was listed, so that it misses what did not come
    )
    records: int = 0
    ending: Ending | None = None  # None: LISTED where it settled, else FAILED
    newest: str | None = None  # the newest date of what it brought, as a FHIR instant; only where news will be asked

    @property
    def ended(self) -> Ending:
        """How the EHR answered."""
        return self.ending or (Ending.LISTED if self.state is UnitState.SETTLED else Ending.FAILED)
