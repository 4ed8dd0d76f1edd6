"""The one door to patient data: a transaction that reads them and that notes who read whose, both or neither.

Whoever reads patient data for an actor opens a `Reading`. Runs read too, but show nothing to anybody. `audit` reads what is
noted here, and seals it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from psycopg import AsyncTransaction, Rollback, pq, sql
from psycopg.types.json import Jsonb

from snapshots.audit import seal
from snapshots.audit_event import Action
from snapshots.rights import require_auditing
from snapshots.sealed_values import Sealer
from snapshots.sealing_keys import sealer_of_moment
from snapshots.sql import load
from snapshots.tenancy import TenantSession

_SQL = load("audit")


@dataclass(frozen=True, kw_only=True)
class WhatWasRead:
    """What the audit records of a read. `patients` are queries of (connection, patient_id), each pair once."""

    connections: Sequence[str]
    types: Sequence[str] = ()
    runs: Sequence[int] = ()
    patients: Sequence[sql.Composable] = ()
    everyone: bool = False  # all patients of the connections: of a backup their charts, else their ids


@dataclass
class ReadSoFar:
    """What was read so far, in any session of a snapshot, for the audit."""

    types: set[str] = field(default_factory=set)
    documents: bool = False
    removed: bool = False
    before: bool = False


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One transaction that reads patient data: read-only, until `note` says what was read. `reading` makes it."""

    session: TenantSession
    action: Action
    moment: str | None  # what it sees, for other sessions; None: its statements see different moments
    sealer: Sealer | None  # knows all that is encrypted at this moment; None: the store is plain
    reads: AsyncExitStack
    subtransaction: AsyncTransaction
    transaction: AsyncExitStack

    async def end_reads(self) -> None:
        """End the read-only part. Nothing more can be read."""
        if self.session.conn.pgconn.transaction_status == pq.TransactionStatus.INERROR:
            await self.reads.__aexit__(Rollback, Rollback(self.subtransaction), None)
        else:
            await self.reads.aclose()

    async def note(self, read: WhatWasRead) -> None:
        """Add the read to the audit; it is there once this transaction has committed.

        A read that was broken off, or that Postgres refused, is noted as well: part of it may have been given.
        """
        await self.end_reads()
        await note(self.session, self.action, read)

    async def end(self) -> None:
        """Commit. From here on the read is in the audit, and its result may be shown."""
        await self.transaction.aclose()


@asynccontextmanager
async def reading(session: TenantSession, action: Action, *, repeatable_read: bool = False) -> AsyncIterator[Reading]:
    """Run a transaction that reads patient data; it commits at the end, or when `Reading.end` is called.

    The reads are a subtransaction that is read-only, which nothing in it can undo; the audit is written after it.

    Raises:
        MissingRightsError, StoreUnavailableError: what is read could not be audited, so it is not read.
        StoreKeyError: the store has become an encrypted one since it was opened without keys.
    """
    await require_auditing(session)
    async with AsyncExitStack() as transaction:
        await transaction.enter_async_context(session.transaction(repeatable_read=repeatable_read))
        moment = await _export_moment(session) if repeatable_read else None
        reads = await transaction.enter_async_context(AsyncExitStack())
        subtransaction = await reads.enter_async_context(session.conn.transaction())
        await session.conn.execute(_SQL["read_only"])
        yield Reading(
            session=session,
            action=action,
            moment=moment,
            sealer=await sealer_of_moment(session),
            reads=reads,
            subtransaction=subtransaction,
            transaction=transaction,
        )
    await seal(session)


@asynccontextmanager
async def reading_beside(session: TenantSession, audited: Reading) -> AsyncIterator[None]:
    """Run a read-only transaction that sees what an open one sees, which notes in the audit what both have read.

    It ends before that one does: nothing of it may be shown until the read is in the audit.
    """
    assert audited.moment is not None
    async with session.transaction(repeatable_read=True, moment=audited.moment):
        await session.conn.execute(_SQL["read_only"])
        yield


async def _export_moment(session: TenantSession) -> str:
    row = await (await session.conn.execute(_SQL["export_moment"])).fetchone()
    assert row is not None
    return str(row[0])


async def note(
    session: TenantSession,
    action: Action,
    read: WhatWasRead,
    *,
    erased: Mapping[str, int] | None = None,
) -> int:
    """Add a read to the audit, or what was deleted; return the event's number. In a transaction of the session."""
    actor = session.actor
    values = {
        "actor": actor.name,
        "account": actor.account,
        "roles": list(actor.roles),
        "origin": actor.origin,
        "reason": actor.reason,
        "broke_glass": actor.broke_glass,
        "action": action,
        "connections": list(read.connections),
        "types": list(read.types),
        "runs": list(read.runs),
        "everyone": read.everyone,
        "erased": None if erased is None else Jsonb(dict(erased)),
    }
    await session.conn.execute(_SQL["enter"], {"tenant": session.tenant})
    row = await (await session.conn.execute(_SQL["event"], values)).fetchone()
    assert row is not None
    event = sql.Literal(row[0])
    if read.patients:
        patients = sql.SQL(" UNION ").join(read.patients)
        await session.conn.execute(sql.SQL(_SQL["patients"]).format(event=event, patients=patients))
    return int(row[0])


def named_patients(connection: str, patients: Sequence[str]) -> sql.Composable:
    """Return a query of these patients of a connection, for `WhatWasRead`."""
    return sql.SQL(_SQL["named_patients"]).format(
        connection=sql.Literal(connection), patients=sql.Literal(list(patients))
    )


def patients_of_type(connection: str, resource_type: str) -> sql.Composable:
    """Return a query of the patients whose live resources of a type a connection has, for `WhatWasRead`."""
    return sql.SQL(_SQL["patients_of_type"]).format(
        connection=sql.Literal(connection), resource_type=sql.Literal(resource_type)
    )


def patients_of_ids(connection: str, resource_type: str, ids: Sequence[str]) -> sql.Composable:
    """Return a query of the patients whose resources these are, for `WhatWasRead`."""
    return sql.SQL(_SQL["patients_of_ids"]).format(
        connection=sql.Literal(connection), resource_type=sql.Literal(resource_type), ids=sql.Literal(list(ids))
    )
