"""What connectors hand to the store: records, input that could not become one, and the batch that one transaction takes in.

Standard library only, so that both sides of the hourglass may import it. How they are stored is left to `snapshots.ingest`
and `snapshots.ledger`; how they are fetched, to `connectors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from snapshots.patient import Alias
from snapshots.referred import Attached, Document, ReferenceTarget
from snapshots.unit import UnitResult
from snapshots.witness import Deletion, Way


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
