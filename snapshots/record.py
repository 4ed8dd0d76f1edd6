"""What connectors hand to the store: records, input that could not become one, and the batch that one transaction takes in.

Standard library only, so that both connectors and the store may import it. `connectors` fetches them; `snapshots.ingest` and
`snapshots.ledger` store them.
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
    patient_id: str | None  # id of the compartment's patient; for a Patient its own id; None: no patient
    version_id: str | None
    last_updated: str | None  # FHIR instant as written in meta; None if the EHR sends no meta (Epic)
    content_hash: bytes  # 16 bytes, BLAKE2b of `body`
    body: bytes  # UTF-8 JSON, byte for byte as received: numbers keep their written form
    unit_key: str | None = None  # the unit that fetched it; it becomes a hole if the store refuses the record
    subsetted: bool = False  # only the requested elements: never replaces a whole resource
    way: Way | None = None  # the way that listed it; None: no listing
    others: tuple[str, ...] = ()  # further patients whose compartment contains it
    searched: str | None = None  # the patient whose search returned it, if the resource does not name them
    attached: tuple[Attached, ...] | None = None  # None: not examined


REFUSED_BY_STORE = "refused by the store"  # the source of input that was a record, and that Postgres could not take


class Quarantined(NamedTuple):
    """Input that could not become a record: it is kept as raw bytes, counted, reported, never dropped."""

    resource_type: str | None
    source: str  # where it came from, without PHI: "bulk file 3, line 17", "search page 2, entry 5"
    reason: str  # what is wrong with it; never quotes it
    raw: bytes
    unit_key: str | None = None  # the unit that fetched it, which becomes a hole; None: only counted and kept


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
