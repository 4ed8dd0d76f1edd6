"""Chooses between contents of one resource that come together: the newest version, and what else claims to be that version. Pure.

What is stored is compared by `ingest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from snapshots.instants import is_older
from snapshots.record import Record

_MANY = 500  # records of one type in a batch: worth a statement of their own


def is_superseded(record: Record, last_updated: str | None, version_id: str | None) -> bool:
    """Whether a record is older than a version of the same resource that this run has already received.

    lastUpdated decides; if it cannot, a numeric versionId decides (HAPI counts 9, 10).
    """
    if last_updated != record.last_updated:
        return is_older(record.last_updated, last_updated)
    mine, stored = record.version_id, version_id
    numbers = mine is not None and stored is not None and mine.isdecimal() and stored.isdecimal()
    return numbers and int(mine or 0) < int(stored or 0)


def is_same_version(record: Record, last_updated: str | None, version_id: str | None) -> bool:
    """Whether both claim to be the same version: then different content is a rival, not a change."""
    return (record.last_updated, record.version_id) == (last_updated, version_id)


@dataclass
class Distinct:
    """A batch with each resource once, and what else the batch says about it."""

    records: list[Record]
    rivals: list[Record]  # rival contents of a kept record's version
    again: list[Record]  # the same resources, listed by other ways or by other patients' searches
    late: list[Record] = field(default_factory=list)  # kept records that are rivals of what this run received before
    outdated: set[tuple[str, str]] = field(default_factory=set)  # older than what is known: they prove nothing


def distinct(records: Sequence[Record]) -> Distinct:
    """Keep one record per (type, id), in order of first occurrence: the newest version, and of it the last content."""
    kept: dict[tuple[str, str], Record] = {}
    rivals: list[Record] = []
    again: list[Record] = []
    for record in records:
        key = (record.resource_type, record.id)
        before = kept.setdefault(key, record)
        if before is record:
            continue
        if record.way is not None and (record.way, record.searched) != (before.way, before.searched):
            again.append(record)
        if before.content_hash == record.content_hash:
            continue
        if is_same_version(record, before.last_updated, before.version_id):
            rivals.append(before)
            kept[key] = record
        elif not is_superseded(record, before.last_updated, before.version_id):
            kept[key] = record
    rivals = [one for one in rivals if _is_rival(one, kept[one.resource_type, one.id])]
    return Distinct(list(kept.values()), rivals, again)


def _is_rival(record: Record, kept: Record) -> bool:
    return is_same_version(record, kept.last_updated, kept.version_id)


def by_type(records: Sequence[Record]) -> list[list[Record]]:
    """Divide records into those of each type that has many of them, and all others together; no part is empty."""
    types: dict[str, list[Record]] = {}
    for record in records:
        types.setdefault(record.resource_type, []).append(record)
    parts = [some for some in types.values() if len(some) >= _MANY]
    others = [record for some in types.values() if len(some) < _MANY for record in some]
    return [*parts, others] if others else parts
