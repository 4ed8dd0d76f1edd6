"""Stores records and deletions, inside the caller's transaction, in as few round trips as their content allows.

New resources are COPYed straight into their partition, so their JSON is parsed and written once; unchanged ones send only key
and hash; only changed ones go through a merge. (Measured on two cores: COPY into a staging table and one INSERT …
SELECT reach 0.45-0.6 of a bare COPY of the same JSON, this way 0.8-0.9.) It relies on the run's lock: nobody else writes
resources of this connection meanwhile. `distinct` chooses between versions of one resource; `refusals` handles what the store
refuses as JSON.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation

from snapshots.distinct import Distinct, by_type, distinct, is_same_version, is_superseded
from snapshots.record import Record
from snapshots.sealed_values import Sealer
from snapshots.sql import load
from snapshots.stale_seals import seal_stale
from snapshots.wire import bytea_array, copy_rows, encoded, int_array, text_array
from snapshots.witness import Deletion, Way

_SQL = load("ingest")
CLASSIFY = _SQL["classify"].format(type="s.resource_type")
CLASSIFY_ONE_TYPE = _SQL["classify"].format(type="%(type)s")
_SEND_BUFFER_BYTES = 4 << 20
_MERGE_BYTES = 8 * 1024 * 1024  # bodies of one merge statement: it holds them twice, as text and as jsonb


@dataclass
class TypeCounts:
    """What a batch did to one resource type, in distinct resources of the run."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0  # may be negative: a resource that this run first saw unchanged may change later
    deleted: int = 0


@dataclass
class Intake:
    """What a batch did, by resource type."""

    counts: dict[str, TypeCounts] = field(default_factory=dict)
    collided: bool = False  # something that was expected to be new was stored already
    # hashes of contents that differed from what was stored, those aside that made no version of it
    merged: set[bytes] = field(default_factory=set)

    def of(self, resource_type: str) -> TypeCounts:
        """Return the counts of a type, to add to."""
        return self.counts.setdefault(resource_type, TypeCounts())


async def prepare_session(conn: AsyncConnection[Any]) -> None:
    """Set the planner's options for this kind of work, until the session ends or is reset."""
    await conn.execute(_SQL["session"])
    _widen(conn)


def _widen(conn: AsyncConnection[Any]) -> None:
    """Let a local socket buffer more of a COPY than the usual 200 kB: Postgres needs 2 ms for those, then idles.

    First sync of 100 MB: 0.53 of a bare COPY without, 0.64 with. The kernel limits the size to its net.core.wmem_max. TCP sockets
    adapt by themselves, and better.
    """
    with socket.socket(fileno=os.dup(conn.pgconn.socket)) as sending:
        if sending.family == socket.AF_UNIX:
            sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)


@dataclass
class IngestState:
    """Whose rows a run stores, and what it knows about the connection; `prepare` fills it once per run."""

    connection: int
    run: int
    as_of: datetime | None = None  # the instant of the evidence, if it may be older than what is stored
    all_new: bool = False  # the connection had no stored rows when the run first wrote, and nothing came twice
    has_evidence: bool = False
    has_rivals: bool = False
    has_versions_by_way: bool = False
    has_parts: bool = False  # rows of which only some `_elements` are stored
    formers: frozenset[str] = frozenset()  # ids of Patients that lead to another Patient
    ways: Mapping[Way, int] = field(default_factory=dict)
    sealer: Sealer | None = None  # None: the store is plain
    ignored: Sequence[str] = ()  # what may change without making a version: `RunScope.ignored`

    @property
    def own(self) -> dict[str, Any]:
        """The parameters of all statements."""
        return {"connection": self.connection, "run": self.run}


async def prepare(conn: AsyncConnection[Any], state: IngestState) -> None:
    """Look up what is open in the connection, so that batches need not ask."""
    row = await (await conn.execute(_SQL["has_evidence"], state.own)).fetchone()
    state.has_evidence, state.has_rivals, state.has_versions_by_way, state.has_parts = row or (True,) * 4
    state.all_new = await is_empty(conn, state.connection)


async def is_empty(conn: AsyncConnection[Any], connection: int) -> bool:
    """Whether nothing of this connection is stored yet, so that everything is new."""
    row = await (await conn.execute(_SQL["is_empty"], {"connection": connection})).fetchone()
    return row is not None and bool(row[0])


async def take_in(
    conn: AsyncConnection[Any], records: Sequence[Record], deletions: Sequence[Deletion], state: IngestState
) -> Intake:
    """Merge records, note what the EHR says is absent, and return the effect. The caller holds the transaction.

    With `state.all_new`, records are most likely not stored yet, so they are not compared first (a fifth of a first sync). If
    that proves wrong, the batch is compared after all, and `Intake.collided` is set.

    Within a run an older version never replaces a newer one; across runs the server is right, except for evidence that is older
    than what is stored. A record that comes is alive again. Raises psycopg's errors unchanged: the caller decides whether a
    record is to blame.
    """
    intake = Intake()
    if any(record.subsetted for record in records):
        records = await _without_lesser(conn, records, intake, state)
    if records:
        batch = distinct(records)
        differing: list[Record] = []
        if not state.all_new or not await _copied_all(conn, batch.records, intake, state):
            new, differing = await _classify(conn, batch, intake, state)
            await _copy(conn, new, intake, state)
        if differing:
            await _note_by_way(conn, differing, state)
        for part in _slices(differing):
            if state.sealer is not None:
                await seal_stale(conn, _keys(part, state), state.sealer)
            await _merge(conn, part, intake, state)
        await _note_parts(conn, batch.records, differing, state)
        changed = [record for record in differing if record.content_hash in intake.merged]
        await _note_beside(conn, batch, differing, changed, state)
    if deletions:
        await _note_words(conn, deletions, state)
    return intake


async def _without_lesser(
    conn: AsyncConnection[Any], records: Sequence[Record], intake: Intake, state: IngestState
) -> list[Record]:
    """Leave out subsetted records of resources that are stored whole, dead or alive, or that also come whole.

    Those resources were seen, but their other elements are unknown: what is stored stays as it is.
    """
    whole = {(record.resource_type, record.id) for record in records if not record.subsetted}
    lesser = {(record.resource_type, record.id) for record in records if record.subsetted} - whole
    keys_of_lesser = sorted(lesser)
    keys = {
        "types": text_array([resource_type.encode() for resource_type, _ in keys_of_lesser]),
        "ids": text_array([identity.encode() for _, identity in keys_of_lesser]),
        **state.own,
    }
    row = await (await conn.execute(_SQL["keep_whole"], keys)).fetchone()
    kept, noted = row or (None, None)
    for resource_type, count in (noted or {}).items():
        intake.of(resource_type).unchanged += count
    lesser -= {keys_of_lesser[position - 1] for position in kept or ()}
    return [record for record in records if not record.subsetted or (record.resource_type, record.id) in lesser]


async def _note_parts(
    conn: AsyncConnection[Any], records: Sequence[Record], differing: Sequence[Record], state: IngestState
) -> None:
    """Note which of the records are parts: no more of their rows is stored. Whole ones that differed have replaced parts."""
    whole = [record for record in differing if not record.subsetted]
    if state.has_parts and whole:
        await conn.execute(_SQL["forget_parts"], _keys(whole, state))
    parts = [record for record in records if record.subsetted]
    if parts:
        await conn.execute(_SQL["note_parts"], _keys(parts, state))
        state.has_parts = True


async def _copied_all(conn: AsyncConnection[Any], records: list[Record], intake: Intake, state: IngestState) -> bool:
    try:
        async with conn.transaction():
            await _copy(conn, records, intake, state)
    except UniqueViolation:
        intake.collided = True
        return False
    return True


async def _copy(conn: AsyncConnection[Any], records: list[Record], intake: Intake, state: IngestState) -> None:
    if not records:
        return
    async with conn.cursor() as cursor, cursor.copy(_SQL["copy_new"]) as copy:
        for chunk in copy_rows(records, connection=state.connection, run=state.run, ways=state.ways):
            await copy.write(chunk)
    for resource_type, count in Counter(record.resource_type for record in records).items():
        intake.of(resource_type).new += count


def _keys(records: Sequence[Record], state: IngestState) -> dict[str, Any]:
    return {
        "types": text_array([record.resource_type.encode() for record in records]),
        "ids": text_array([record.id.encode() for record in records]),
        **state.own,
    }


def _ways(records: Sequence[Record], state: IngestState) -> dict[str, Any]:
    numbers = state.ways
    return {"ways": int_array([None if record.way is None else numbers[record.way] for record in records])}


def _versions(records: Sequence[Record], state: IngestState) -> dict[str, Any]:
    return {
        **_keys(records, state),
        **_ways(records, state),
        "versions": text_array([encoded(record.version_id) for record in records]),
        "updated": text_array([encoded(record.last_updated) for record in records]),
        "hashes": bytea_array([record.content_hash for record in records]),
    }


async def _classify(
    conn: AsyncConnection[Any], batch: Distinct, intake: Intake, state: IngestState
) -> tuple[list[Record], list[Record]]:
    """Split into (new, differing); unchanged records are noted as seen, stale ones dropped, late rivals added to the batch's."""
    found = [await _classify_some(conn, some, batch, intake, state) for some in by_type(batch.records)]
    return [one for new, _ in found for one in new], [one for _, differing in found for one in differing]


async def _classify_some(
    conn: AsyncConnection[Any], records: list[Record], batch: Distinct, intake: Intake, state: IngestState
) -> tuple[list[Record], list[Record]]:
    kinds = {record.resource_type for record in records}
    statement = CLASSIFY if len(kinds) > 1 else CLASSIFY_ONE_TYPE
    values = {
        "type": records[0].resource_type,
        **_keys(records, state),
        **_ways(records, state),
        "hashes": bytea_array([record.content_hash for record in records]),
        "updated": text_array([encoded(record.last_updated) for record in records]),
        "as_of": state.as_of,
        "rivals": state.has_rivals,
        "by_way": state.has_versions_by_way,
    }
    row = await (await conn.execute(statement, values, prepare=True)).fetchone()
    same, outdated, differing, updated, versions, received, noted = row or (None,) * 7
    for resource_type, count in (noted or {}).items():
        intake.of(resource_type).unchanged += count
    stored = {*(same or ()), *(outdated or ()), *(differing or ())}
    if not stored:
        return records, []
    batch.outdated.update((records[n - 1].resource_type, records[n - 1].id) for n in outdated or ())
    new = [record for position, record in enumerate(records, 1) if position not in stored]
    fresh = []
    for position, at, version, twice in zip(
        differing or (), updated or (), versions or (), received or (), strict=True
    ):
        record = records[position - 1]
        if twice and is_same_version(record, at, version):
            batch.late.append(record)
        elif not (twice and is_superseded(record, at, version)):
            fresh.append(record)
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


async def _merge(conn: AsyncConnection[Any], records: list[Record], intake: Intake, state: IngestState) -> None:
    staged = {
        **_keys(records, state),
        "patients": text_array([encoded(record.patient_id) for record in records]),
        "versions": text_array([encoded(record.version_id) for record in records]),
        "updated": text_array([encoded(record.last_updated) for record in records]),
        "hashes": bytea_array([record.content_hash for record in records]),
        "bodies": text_array([record.body for record in records]),
        "ignored": list(state.ignored),
    }
    intake.merged.update(record.content_hash for record in records)
    async for resource_type, changed, unchanged, touched in await conn.execute(_SQL["merge"], staged, prepare=True):
        counts = intake.of(resource_type)
        counts.changed += changed
        counts.unchanged += unchanged
        intake.merged.difference_update(map(bytes, touched or ()))


async def _note_by_way(conn: AsyncConnection[Any], differing: Sequence[Record], state: IngestState) -> None:
    """Note, before merging, what ways give of versions that others give differently: repeating it is no news."""
    values = _versions(differing, state)
    if state.has_versions_by_way:
        await conn.execute(_SQL["forget_other_versions"], values, prepare=True)
    noted = await conn.execute(_SQL["note_by_way"], values, prepare=True)
    state.has_versions_by_way |= noted.rowcount > 0


async def _note_beside(
    conn: AsyncConnection[Any],
    batch: Distinct,
    differing: Sequence[Record],
    changed: Sequence[Record],
    state: IngestState,
) -> None:
    """Note what else a batch says: further ways and patients, rival contents, and open questions that it settles.

    Of those that differ from what was stored, `changed` made a version.
    """
    if batch.again:
        await conn.execute(_SQL["teach"], {**_keys(batch.again, state), **_ways(batch.again, state)})
    if state.has_rivals and differing:
        await conn.execute(_SQL["forget_rivals"], _versions(differing, state))
    await _note_rivals(conn, batch, state)
    if changed:
        await conn.execute(_SQL["forget_members"], _keys(changed, state), prepare=True)
    current = [record for record in batch.records if (record.resource_type, record.id) not in batch.outdated]
    further = [(record, one, False) for record in current if record.others for one in record.others]
    everything = current + [one for one in batch.again if (one.resource_type, one.id) not in batch.outdated]
    further += [(record, record.searched, True) for record in everything if record.searched is not None]
    if further:
        values = {
            **_keys([record for record, _, _ in further], state),
            "patients": text_array([patient.encode() for _, patient, _ in further]),
            "searched": [searched for _, _, searched in further],
        }
        await conn.execute(_SQL["note_members"], values)
    if state.has_evidence:
        await conn.execute(_SQL["clear_evidence"], {**_keys(everything, state), **_ways(everything, state)})
    if state.formers:
        ids = [r.id for r in current if r.resource_type == "Patient" and r.id in state.formers]
        if ids:
            await conn.execute(_SQL["unmerge"], {**state.own, "ids": ids})


async def _note_rivals(conn: AsyncConnection[Any], batch: Distinct, state: IngestState) -> None:
    """Note which contents ways gave of resources that have several; once there are any, also those that come again."""
    came = [*batch.rivals, *batch.late]
    if batch.rivals:
        several = {(record.resource_type, record.id) for record in batch.rivals}
        came += [record for record in batch.records if (record.resource_type, record.id) in several]
    if state.has_rivals:
        row = await (await conn.execute(_SQL["rivalled"], _keys(batch.records, state))).fetchone()
        came += [batch.records[position - 1] for position in (row and row[0]) or ()]
    # of a read nothing is remembered: it is no way that gives something else each night
    came = [one for one in came if one.way is not None and (one.resource_type, one.id) not in batch.outdated]
    if not came:
        return
    late = {(record.resource_type, record.id) for record in batch.late}
    values = {
        **_versions(came, state),
        "patients": text_array([encoded(record.patient_id) for record in came]),
        "bodies": text_array([record.body for record in came]),
        "late": [(record.resource_type, record.id) in late for record in came],
    }
    noted = await conn.execute(_SQL["note_rivals"], values)
    state.has_rivals |= noted.rowcount > 0


async def settle_rivals(conn: AsyncConnection[Any], state: IngestState) -> Intake:
    """Store contents that arrived in this run if the stored one, which their way used to send too, did not.

    Contents that ways sent earlier but not in this run are forgotten. The caller holds the transaction.
    """
    intake = Intake()
    if state.has_rivals:
        found = await (await conn.execute(_SQL["lone_rivals"], state.own)).fetchall()
        lone = [
            Record(kind, identity, patient, version, updated, digest, body.encode())
            for kind, identity, patient, version, updated, digest, body in found
        ]
        await _merge(conn, lone, intake, state)
        await conn.execute(_SQL["forget_former_rivals"], state.own)
    return intake


async def _note_words(conn: AsyncConnection[Any], deletions: Sequence[Deletion], state: IngestState) -> None:
    numbers = state.ways
    values = {
        "types": text_array([deletion.resource_type.encode() for deletion in deletions]),
        "ids": text_array([deletion.id.encode() for deletion in deletions]),
        "ways": int_array([None if deletion.way is None else numbers[deletion.way] for deletion in deletions]),
        "said": text_array([encoded(deletion.said) for deletion in deletions]),
        "as_of": state.as_of,
        **state.own,
    }
    await conn.execute(_SQL["note_words"], values)
