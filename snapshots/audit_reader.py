"""Queries of the audit; those that show reads are themselves noted in it. `Store.audit` makes the reader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from snapshots.audit import all_reads, delete_through, expired, patient_in_audit, seal, verify, who_saw
from snapshots.audit_event import Action, PatientRead, ReadEvent, Verified
from snapshots.errors import store_border
from snapshots.pool import SessionPool
from snapshots.reading import Reading, WhatWasRead, note, reading
from snapshots.sql import load
from snapshots.tenancy import TenantSession

_SQL = load("audit")


class AuditedReads:
    """The reads between two moments, in one transaction that notes who read them. Read it once."""

    def __init__(
        self, session: TenantSession, audited: Reading, since: datetime | None, until: datetime | None
    ) -> None:
        self._session = session
        self._audited: Reading | None = audited
        self._between = since, until

    async def __aiter__(self) -> AsyncIterator[PatientRead]:
        async for read in all_reads(self._session, *self._between):
            yield read

    async def end(self) -> None:
        """Note in the audit that it was read, and commit."""
        if self._audited is not None:
            audited, self._audited = self._audited, None
            await audited.note(WhatWasRead(connections=(), everyone=True))
            await audited.end()


class AuditReader:
    """The audit of one tenant."""

    def __init__(self, pool: SessionPool) -> None:
        self._pool = pool

    async def who_saw(
        self, patient: str, since: datetime | None = None, until: datetime | None = None
    ) -> list[ReadEvent]:
        """Return the reads of a patient's data in [since, until), oldest first; listings of everybody's ids are among them.

        Contains reads under the ids that were merged with this one, former or surviving.
        """
        async with self._pool.session() as session:
            with store_border("reading the audit"):
                async with reading(session, Action.AUDIT) as audited:
                    found = await who_saw(session, patient, since, until)
                    await audited.note(WhatWasRead(connections=(), patients=(patient_in_audit(patient),)))
        return found

    @asynccontextmanager
    async def reads(self, since: datetime | None = None, until: datetime | None = None) -> AsyncIterator[AuditedReads]:
        """Open all reads in [since, until), each once a patient, oldest first; show them after `AuditedReads.end`."""
        async with self._pool.session() as session:
            with store_border("reading the audit"):
                async with reading(session, Action.AUDIT, repeatable_read=True) as audited:
                    reads = AuditedReads(session, audited, since, until)
                    yield reads
                    await reads.end()

    async def verify(self, head: str | None = None) -> Verified:
        """Check the whole audit, and that it contains a head that was noted earlier. It first seals the existing events."""
        async with self._pool.session() as session:
            await seal(session)
            return await verify(session, head)

    async def prune(self, before: datetime) -> int:
        """Delete the sealed events up to which all are older than a moment, note that, and return how many. The owner does it."""
        async with self._pool.owner_session() as session:
            with store_border("pruning the audit"):
                async with session.transaction():
                    through = await expired(session, before)
                    count = await delete_through(session, through)
                    if count:
                        event = await note(session, Action.PRUNE, WhatWasRead(connections=()))
                        await session.conn.execute(_SQL["pruned_through"], {"through": through, "event": event})
            await seal(session)
        return count
