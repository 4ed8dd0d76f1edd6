"""Take records and deletions into the store, inside the caller's transaction, in as few round trips as their content allows.

New resources are COPYed straight into their partition, so their JSON is parsed once and written once; unchanged ones send
only key and hash; only changed ones go through a merge. (Measured on two cores: COPY into a staging table and one INSERT …
SELECT reach 0.45-0.6 of a bare COPY of the same JSON, this way 0.8-0.9.) It relies on the run's lock: nobody else writes
resources of this connection meanwhile. What the store refuses to read as JSON is left to `refusals`.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation

from snapshots.record import Deletion, Record
from snapshots.sql import load
from snapshots.wire import bytea_array, copy_rows, encoded, text_array

_SQL = load("ingest")
_SEND_BUFFER_BYTES = 4 << 20
_MERGE_BYTES = 8 * 1024 * 1024  # bodies of one merge statement: it holds them twice, as text and as jsonb


@dataclass
class TypeCounts:
    """What a batch did to one resource type, in distinct resources of the run."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0  # may be negative: a resource that this run first saw unchanged has changed since
    deleted: int = 0


@dataclass
class Intake:
    """What a batch did, by resource type."""

    counts: dict[str, TypeCounts] = field(default_factory=dict)
    collided: bool = False  # something that was taken for new was stored already

    def of(self, resource_type: str) -> TypeCounts:
        """Give the counts of a type, to be added to."""
        return self.counts.setdefault(resource_type, TypeCounts())


async def prepare_session(conn: AsyncConnection[Any]) -> None:
    """Set what the planner must know about this kind of work, until the session ends or is reset."""
    await conn.execute(_SQL["session"])
    _widen(conn)


def _widen(conn: AsyncConnection[Any]) -> None:
    """Let a local socket hold more of a COPY than the usual 200 kB, 2 ms of Postgres' work: it idles while lines are read.

    First sync of 100 MB: 0.53 of a bare COPY without, 0.64 with. The kernel cuts the wish to its net.core.wmem_max. TCP sockets
    adapt by themselves, and better.
    """
    with socket.socket(fileno=os.dup(conn.pgconn.socket)) as sending:
        if sending.family == socket.AF_UNIX:
            sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)


def is_older(one: str | None, other: str | None) -> bool:
    """Whether the FHIR instant `one` lies before `other`; False where either is missing or no instant."""
    if one is None or other is None:
        return False
    try:
        return _instant(one) < _instant(other)
    except ValueError:
        return False


def _instant(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def newest(records: Sequence[Record]) -> list[Record]:
    """Keep one record of each (type, id): the newest by lastUpdated, else the last given; order of first occurrence."""
    kept: dict[tuple[str, str], Record] = {}
    for record in records:
        key = (record.resource_type, record.id)
        before = kept.get(key)
        if before is None or not is_older(record.last_updated, before.last_updated):
            kept[key] = record
    return list(kept.values())


async def is_empty(conn: AsyncConnection[Any], connection: int) -> bool:
    """Whether nothing of this connection is stored yet, so that whatever comes is new."""
    row = await (await conn.execute(_SQL["is_empty"], {"connection": connection})).fetchone()
    return row is not None and bool(row[0])


async def take_in(
    conn: AsyncConnection[Any],
    records: Sequence[Record],
    deletions: Sequence[Deletion],
    *,
    connection: int,
    run: int,
    all_new: bool = False,
) -> Intake:
    """Merge records, then apply deletions; tell what that did. The caller holds the transaction.

    `all_new` says that the records are most likely not stored yet: they are then not compared first (a fifth of a first sync).
    Where that proves wrong the batch is compared after all, and `Intake.collided` tells.

    Within a run an older lastUpdated never replaces a newer one; from a new run the server is right. Raises psycopg's
    errors as they are: the caller decides whether a record is to blame.
    """
    intake = Intake()
    if any(record.subsetted for record in records):
        records = await _without_lesser(conn, records, intake, connection=connection, run=run)
    if records:
        distinct = newest(records)
        differing: list[Record] = []
        if not all_new or not await _copied_all(conn, distinct, intake, connection=connection, run=run):
            new, differing = await _classify(conn, distinct, intake, connection=connection, run=run)
            await _copy(conn, new, intake, connection=connection, run=run)
        for part in _slices(differing):
            await _merge(conn, part, intake, connection=connection, run=run)
    if deletions:
        await _delete(conn, deletions, intake, connection=connection, run=run)
    return intake


async def _without_lesser(
    conn: AsyncConnection[Any], records: Sequence[Record], intake: Intake, *, connection: int, run: int
) -> list[Record]:
    """Leave out subsetted records of resources that are stored whole, or as tombstones, or come whole beside them.

    Those resources were seen, and nothing is known of their other elements: what is stored of them stays as it is.
    """
    whole = {(record.resource_type, record.id) for record in records if not record.subsetted}
    lesser = {(record.resource_type, record.id) for record in records if record.subsetted} - whole
    asked = sorted(lesser)
    keys = {
        "types": text_array([resource_type.encode() for resource_type, _ in asked]),
        "ids": text_array([identity.encode() for _, identity in asked]),
        "connection": connection,
        "run": run,
    }
    row = await (await conn.execute(_SQL["keep_whole"], keys)).fetchone()
    kept, noted = row or (None, None)
    for resource_type, count in (noted or {}).items():
        intake.of(resource_type).unchanged += count
    lesser -= {asked[position - 1] for position in kept or ()}
    return [record for record in records if not record.subsetted or (record.resource_type, record.id) in lesser]


async def _copied_all(
    conn: AsyncConnection[Any], records: list[Record], intake: Intake, *, connection: int, run: int
) -> bool:
    try:
        async with conn.transaction():
            await _copy(conn, records, intake, connection=connection, run=run)
    except UniqueViolation:
        intake.collided = True
        return False
    return True


async def _copy(
    conn: AsyncConnection[Any], records: list[Record], intake: Intake, *, connection: int, run: int
) -> None:
    if not records:
        return
    async with conn.cursor() as cursor, cursor.copy(_SQL["copy_new"]) as copy:
        for chunk in copy_rows(records, connection=connection, run=run):
            await copy.write(chunk)
    for resource_type, count in Counter(record.resource_type for record in records).items():
        intake.of(resource_type).new += count


async def _classify(
    conn: AsyncConnection[Any], records: list[Record], intake: Intake, *, connection: int, run: int
) -> tuple[list[Record], list[Record]]:
    """Split into (new, differing); what is unchanged has been noted as seen, what is stale is dropped."""
    keys = {
        "types": text_array([record.resource_type.encode() for record in records]),
        "ids": text_array([record.id.encode() for record in records]),
        "hashes": bytea_array([record.content_hash for record in records]),
        "connection": connection,
        "run": run,
    }
    row = await (await conn.execute(_SQL["classify"], keys, prepare=True)).fetchone()
    same, differing, received, noted = row or (None, None, None, None)
    for resource_type, count in (noted or {}).items():
        intake.of(resource_type).unchanged += count
    if same is None and differing is None:
        return records, []
    stored = {*(same or ()), *(differing or ())}
    new = [record for position, record in enumerate(records, 1) if position not in stored]
    fresh = [
        records[position - 1]
        for position, last_updated in zip(differing or (), received or (), strict=True)
        if not is_older(records[position - 1].last_updated, last_updated)
    ]
    return new, fresh


def _slices(records: Sequence[Record]) -> list[list[Record]]:
    slices: list[list[Record]] = []
    size = _MERGE_BYTES
    for record in records:
        if size >= _MERGE_BYTES:
            slices.append([])
            size = 0
        slices[-1].append(record)
        size += len(record.body)
    return slices


async def _merge(
    conn: AsyncConnection[Any], records: list[Record], intake: Intake, *, connection: int, run: int
) -> None:
    staged = {
        "types": text_array([record.resource_type.encode() for record in records]),
        "ids": text_array([record.id.encode() for record in records]),
        "patients": text_array([encoded(record.patient_id) for record in records]),
        "versions": text_array([encoded(record.version_id) for record in records]),
        "updated": text_array([encoded(record.last_updated) for record in records]),
        "hashes": bytea_array([record.content_hash for record in records]),
        "bodies": text_array([record.body for record in records]),
        "connection": connection,
        "run": run,
    }
    async for resource_type, changed, unchanged in await conn.execute(_SQL["merge"], staged, prepare=True):
        counts = intake.of(resource_type)
        counts.changed += changed
        counts.unchanged += unchanged


async def _delete(
    conn: AsyncConnection[Any], deletions: Sequence[Deletion], intake: Intake, *, connection: int, run: int
) -> None:
    keys = {
        "types": text_array([deletion.resource_type.encode() for deletion in deletions]),
        "ids": text_array([deletion.id.encode() for deletion in deletions]),
        "connection": connection,
        "run": run,
    }
    async for resource_type, count in await conn.execute(_SQL["delete"], keys, prepare=True):
        intake.of(resource_type).deleted += count
