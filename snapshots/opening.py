"""Opens a snapshot: one transaction in which a selection is read, as it was at its moment. `reader` reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import AsyncConnection, sql

from snapshots.audit_event import Action
from snapshots.errors import HistoryPrunedError, RunNotFoundError, StoreError, store_border
from snapshots.read_runs import ReadRuns, Source, UnendedRun
from snapshots.reader import Lend, Snapshot
from snapshots.reading import Reading, reading
from snapshots.selection import Selection
from snapshots.sql import load
from snapshots.tenancy import TenantSession

_SQL = load("reader")


class _Moment(NamedTuple):
    """Up to when runs are shown. With `order` it is the end of a run, whatever clocks say: they differ and are set back."""

    at: datetime | None  # None: now
    order: int | None = None

    def is_after(self, other: _Moment) -> bool:
        """Whether a run that ended at this moment had not ended by the other."""
        if self.order is not None and other.order is not None:
            return self.order > other.order
        return self.at is not None and other.at is not None and self.at > other.at

    @property
    def ended(self) -> sql.Composable:
        """The condition of a run that had ended by then."""
        if self.order is not None:
            return sql.SQL(_SQL["ended_by_order"]).format(order=sql.Literal(self.order))
        return sql.SQL(_SQL["ended_by_time"]).format(at=sql.Literal(self.at))


@asynccontextmanager
async def open_snapshot(
    session: TenantSession, selection: Selection, action: Action, lend: Lend
) -> AsyncIterator[Snapshot]:
    """Run the block in the snapshot's transaction, on its own session; at its end, what was read is in the audit.

    Show nothing of it before `Snapshot.end` or the end of the block. An error undoes the reads and their audit. `lend` provides
    further sessions.

    Raises:
        StoreError: the selection names a connection that the tenant's store does not know.
        RunNotFoundError: it names a run that does not exist, has not ended, or ended after the selection's moment.
        StoreKeyError: the store has become an encrypted one since it was opened without keys.
        HistoryPrunedError: it names a moment or a run whose history is no longer kept.
    """
    conn, tenant = session.conn, session.tenant
    with store_border("opening a snapshot"):
        async with reading(session, action, repeatable_read=True) as audited:
            session = replace(session, sealer=audited.sealer)
            await conn.execute(_SQL["settings"])
            until = await _moment(conn, tenant, selection.as_of)
            before = None
            if selection.changed_since is not None:
                then = await _moment(conn, tenant, selection.changed_since)
                if then.is_after(until):
                    raise RunNotFoundError(
                        f"run {selection.changed_since} ended after the requested moment, so nothing can have changed "
                        "since: name an earlier run."
                    )
                before = await _as_left(session, replace(selection, changed_since=None), then)
            snapshot = await _as_left(session, selection, until, before=before, audited=audited, lend=lend)
            if before is not None and snapshot.is_behind(before):
                raise RunNotFoundError(
                    f"run {selection.changed_since} left more than there was at the requested moment: the clocks of the runs "
                    "differ, or one was still ending. Name an earlier run, or a later moment."
                )
            await snapshot.find_mentioned()
            try:
                yield snapshot
            finally:
                await snapshot.sessions.own.stop()
            await snapshot.end()


async def _as_left(
    session: TenantSession,
    selection: Selection,
    until: _Moment,
    *,
    before: Snapshot | None = None,
    audited: Reading | None = None,
    lend: Lend | None = None,
) -> Snapshot:
    """The snapshot after the runs that had ended by a moment."""
    conn, tenant = session.conn, session.tenant
    query = sql.SQL(_SQL["connections"]).format(ended=until.ended)
    known = [Source(*row) async for row in await conn.execute(query)]
    names = set(selection.connections)
    if unknown := names - {one.name for one in known}:
        raise StoreError(
            f"nothing is stored for connection {', '.join(sorted(unknown))}: "
            f"the store of tenant {tenant} has {', '.join(one.name for one in known) or 'no connections yet'}."
        )
    sources = [one for one in known if not names or one.name in names]
    for one in sources:
        if one.newest is not None and one.newest < (one.history_from or 0):
            raise HistoryPrunedError(
                f"what connection {one.name} had then is no longer known: its history before run {one.history_from} was pruned. "
                f"Name run {one.history_from} or a later one, or a moment after it had ended."
            )
    numbers = {"connections": [one.number for one in sources]}
    open_runs = [
        UnendedRun(*row) async for row in await conn.execute(_SQL["open_runs"], {**numbers, "until": until.at})
    ]
    newest = {**numbers, "newest": [one.newest or 0 for one in sources]}
    later = [row[0] async for row in await conn.execute(_SQL["later_runs"], newest)]
    return Snapshot(
        conn,
        selection,
        ReadRuns(tuple(sources), tuple(open_runs), tuple(later)),
        before=before,
        audited=audited,
        lend=lend,
        sealer=session.sealer,
        masks=session.actor.masked,
    )


async def _moment(conn: AsyncConnection[Any], tenant: str, moment: int | datetime | None) -> _Moment:
    if not isinstance(moment, int):
        return _Moment(moment)
    row = await (await conn.execute(_SQL["ended_at"], {"run": moment})).fetchone()
    if row is None:
        raise RunNotFoundError(f"tenant {tenant} has no run {moment}: `chartferry runs` lists the existing ones.")
    if row[0] is None:
        raise RunNotFoundError(f"run {moment} has not ended, so there is no data as of it yet: name an earlier run.")
    return _Moment(*row)
