"""Reads the audit: who saw a patient, and whether anything was tampered with. Seals new events and prunes old ones.

Events are added by `reading`. A seal covers a range of them and the hash of the seal before, so that an alteration, a deletion
and a gap are found. Ranges are closed afterwards, so no read waits for another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import sql

from snapshots.audit_event import Action, Fault, PatientRead, ReadEvent, Verified
from snapshots.errors import store_border
from snapshots.sql import load
from snapshots.tenancy import TenantSession

_SQL = load("audit")
GENESIS = bytes(32)
_SEALED_AT_ONCE = 1_000  # events of one seal
_FETCHED_AT_ONCE = 10_000
_EVENT_COLUMNS = len(ReadEvent._fields)


async def seal(session: TenantSession) -> None:
    """Seal all existing events; do nothing if others add events or seal at this moment: the next reader seals."""
    with store_border("sealing the audit"):
        async with session.transaction():
            if not await _locked(session, "close_range"):
                return
            row = await (await session.conn.execute(_SQL["newest_event"])).fetchone()
            last = int(row[0]) if row else 0
        async with session.transaction():
            if await _locked(session, "seal_alone"):
                await _seal_up_to(session, last)


async def _locked(session: TenantSession, lock: str) -> bool:
    row = await (await session.conn.execute(_SQL[lock], {"tenant": session.tenant})).fetchone()
    return bool(row and row[0])


async def _seal_up_to(session: TenantSession, last: int) -> None:
    row = await (await session.conn.execute(_SQL["newest_seal"])).fetchone()
    number, after, previous = row or (0, 0, GENESIS)
    while after < last:
        number, end = number + 1, min(last, after + _SEALED_AT_ONCE)
        of = {"number": sql.Literal(number), "after": sql.Literal(after), "last": sql.Literal(end)}
        before = sql.SQL("{}::bytea").format(sql.Literal(previous))
        hashed = sql.SQL(_SQL["hash"]).format(
            **of, previous=before, at=sql.SQL("now()"), events=sql.SQL("s.events"), digests=sql.SQL("s.digests")
        )
        digests = sql.SQL(_SQL["digests"]).format(after=of["after"], last=of["last"])
        query = sql.SQL(_SQL["seal"]).format(**of, previous=before, hash=hashed, digests=digests)
        sealed = await (await session.conn.execute(query)).fetchone()
        assert sealed is not None
        after, previous = end, sealed[0]


async def verify(session: TenantSession, head: str | None = None) -> Verified:
    """Check every seal and every sealed event, and that the chain contains `head`, if one was noted."""
    columns = {
        name: sql.Identifier("s", column)
        for name, column in (
            ("number", "number"),
            ("at", "at"),
            ("after", "after_event"),
            ("last", "last_event"),
            ("events", "events"),
            ("digests", "digests"),
            ("previous", "previous"),
        )
    }
    query = sql.SQL(_SQL["verify"]).format(
        hash=sql.SQL(_SQL["hash"]).format(**columns),
        digests=sql.SQL(_SQL["digests"]).format(after=columns["after"], last=columns["last"]),
    )
    with store_border("verifying the audit"):
        async with session.transaction(repeatable_read=True):
            row = await (await session.conn.execute(_SQL["rest"])).fetchone()
            unsealed, ownerless, before_first, pruned = row or (0, 0, 0, 0)
            chain = _Chain(pruned)
            async for found in await session.conn.execute(query):
                chain.add(_Sealed(*found))
    if ownerless:
        chain.faults.append(Fault(kind="no event"))
    if before_first:
        chain.faults.append(Fault(kind="added"))
    if head is not None and head not in chain.heads:
        chain.faults.append(Fault(kind="head missing"))
    return Verified(
        seals=len(chain.heads),
        events=chain.events,
        unsealed=unsealed,
        unused=chain.last - chain.events,
        pruned_through=pruned,
        head=chain.heads[-1] if chain.heads else None,
        faults=tuple(chain.faults),
    )


class _Sealed(NamedTuple):
    """One seal, and what is wrong with its events."""

    number: int
    after: int
    last: int
    previous: bytes
    hash: bytes
    computed: bytes
    events: int
    missing: list[int]
    altered: list[int]
    added: list[int]


class _Chain:
    """The seals so far, in their order."""

    def __init__(self, pruned: int) -> None:
        self.faults: list[Fault] = []
        self.heads: list[str] = []
        self.events = 0
        self.last = 0
        self._hash = GENESIS
        self._pruned = pruned

    def add(self, sealed: _Sealed) -> None:
        """Check the next seal."""
        number = sealed.number
        if (number, sealed.after, sealed.previous) != (len(self.heads) + 1, self.last, self._hash):
            self.faults.append(Fault(kind="chain broken", seal=number))
        if sealed.hash != sealed.computed:
            self.faults.append(Fault(kind="seal altered", seal=number))
        missing = [id_ for id_ in sealed.missing if id_ > self._pruned]
        for kind, ids in (("missing", missing), ("altered", sealed.altered), ("added", sealed.added)):
            self.faults += [Fault(kind=kind, seal=number, event=id_) for id_ in ids]
        self.events += sealed.events
        self.last, self._hash = sealed.last, sealed.hash
        self.heads.append(f"{number}:{sealed.hash.hex()}")


async def who_saw(
    session: TenantSession, patient: str, since: datetime | None, until: datetime | None
) -> list[ReadEvent]:
    """Return the reads of a patient's data in [since, until), oldest first. In a transaction of the session.

    Contains reads under ids that were merged with the patient's, and the listings of everybody's ids, of whatever connection.
    """
    between = {"since": sql.Literal(since), "until": sql.Literal(until)}
    query = sql.SQL(_SQL["saw"]).format(reads=_reads_of(patient), **between)
    return [_event(row) async for row in await session.conn.execute(query)]


def patient_in_audit(patient: str) -> sql.Composable:
    """Return a query of the patient, of each connection and under each id of which the audit knows reads, for `WhatWasRead`."""
    return sql.SQL(_SQL["patient_in_audit"]).format(reads=_reads_of(patient))


def _reads_of(patient: str) -> sql.Composable:
    return sql.SQL(_SQL["reads_of_patient"]).format(patient=sql.Literal(patient))


async def all_reads(
    session: TenantSession, since: datetime | None, until: datetime | None
) -> AsyncIterator[PatientRead]:
    """Yield all reads in [since, until), each once a patient, oldest first. In a transaction of the session."""
    async with session.conn.cursor("all_reads") as cursor:
        cursor.itersize = _FETCHED_AT_ONCE
        await cursor.execute(_SQL["all_reads"], {"since": since, "until": until})
        async for row in cursor:
            yield PatientRead(_event(row[:_EVENT_COLUMNS]), row[-2], row[-1])


def _event(row: tuple[Any, ...]) -> ReadEvent:
    found = ReadEvent(*row)
    return found._replace(
        roles=tuple(found.roles),
        action=Action(found.action),
        connections=tuple(found.connections),
        types=tuple(found.types),
        runs=tuple(found.runs),
    )


async def expired(session: TenantSession, before: datetime) -> int:
    """Return the last sealed event up to which all events are older than a moment; 0: none. In a transaction."""
    row = await (await session.conn.execute(_SQL["expired"], {"before": before})).fetchone()
    return int(row[0]) if row else 0


async def delete_through(session: TenantSession, through: int) -> int:
    """Delete the events up to one, and return how many. In a transaction that notes it."""
    row = await (await session.conn.execute(_SQL["prune"], {"through": through})).fetchone()
    return int(row[0]) if row else 0
