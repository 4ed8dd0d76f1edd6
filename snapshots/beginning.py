"""Begins a run: takes the connection's lock, resumes an interrupted run, and gives up old work, also by hand.

`ledger` does everything once the run is open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from snapshots import judgement
from snapshots.errors import ConnectionBusyError, RunNotFoundError, store_border
from snapshots.given_up import Discarded, LeftBehind
from snapshots.ingest import prepare_session
from snapshots.ledger import OpenRun
from snapshots.report import RunScope
from snapshots.run_session import OpenScope, RunSession
from snapshots.sealing_keys import require_same
from snapshots.sql import load
from snapshots.tenancy import TenantSession
from snapshots.wire import register_arrays

_SQL = load("ledger")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def utc_now() -> datetime:
    """The process's clock."""
    return datetime.now(UTC)


async def begin(
    session: TenantSession, scope: RunScope, *, clock: Callable[[], datetime], release: Callable[[], Awaitable[None]]
) -> OpenRun:
    """Begin a run on its own session, or resume the connection's interrupted one.

    An interrupted run is resumed, with its number, when its scope is equal and it is younger than 24 hours; any other is
    closed as failed. If the connection's base_url has changed, nothing of the old address is resumed: its open runs and its
    export jobs are given up, and `left_behind` counts them; up to when anything is known is forgotten, so that what is at the new
    address is listed in full. The session must not be used for anything else; once this has
    returned, closing the run calls `release`. Only `clock` dates what the run does: Postgres' own clock decides nothing.

    Raises:
        ConnectionBusyError: another run of the connection is in progress.
        StoreKeyError: the store has become encrypted since it was opened without keys.
    """
    conn = session.conn
    register_arrays(conn)
    with store_border(f"beginning a run of connection {scope.connection}"):
        await lock_connection(session, scope.connection)
        await prepare_session(conn)
        async with session.transaction(writes=True):
            connection, has_moved = await _found_connection(conn, scope)
            now = {"connection": connection, "at": clock()}
            interrupted = await (await conn.execute(_SQL["interrupted"], now)).fetchall()
            keep = interrupted[0] if interrupted and not has_moved and same_scope(interrupted[0], scope) else None
            stale = [row[0] for row in interrupted if row is not keep]
            if stale:
                why = "given up: base_url has changed since" if has_moved else "interrupted"
                await _abandon(conn, connection, stale, scope, {**now, "error": why})
            left_behind = LeftBehind()
            if has_moved:
                dropped = await conn.execute(_SQL["drop_jobs"], {"connection": connection, "run": None})
                for step in ("forget_down", "forget_instants"):
                    await conn.execute(_SQL[step], {"connection": connection})
                left_behind = LeftBehind(len(stale), dropped.rowcount)
            as_of: datetime | None = None
            idle = timedelta()
            if keep is not None:
                run, started_at, as_of = keep[:3]
                lay = await (await conn.execute(_SQL["note_idle"], {**now, "run": run})).fetchone()
                idle = lay[0] if lay else idle
                planned = await (await conn.execute(_SQL["resume"], {"run": run})).fetchone()
            else:
                run, started_at = await _insert(conn, connection, scope, clock())
                planned = None
            await require_same(session)
    opened = OpenScope(run=run, connection=connection, scope=scope, as_of=as_of)
    of_run = RunSession(session=session, open=opened, clock=clock)
    has_plan = bool(planned and planned[0])
    return OpenRun(of_run, started_at=started_at, idle=idle, planned=has_plan, left_behind=left_behind, release=release)


async def discard(session: TenantSession, run: int, *, at: datetime) -> Discarded:
    """Give up an open run, or what a closed one left at its server; committed data stay.

    If an open run's job can be found, the connection's next run deletes it at the server: when the job is in the way, or
    at the latest when that run ends. Every other job is dropped: the store forgets it.

    Raises:
        RunNotFoundError: there is no such run.
        ConnectionBusyError: a run of the connection is in progress.
    """
    conn = session.conn
    with store_border(f"discarding run {run}"):
        connection, name, is_open, has_job, can_be_found = await _to_discard(session, run)
        await lock_connection(session, name)
        async with session.transaction(writes=True):
            if is_open:
                scope = RunScope(connection=name, kind="sync", mode="auto", selection="", types=())
                now = {"connection": connection, "at": at, "error": "given up by hand (runs discard)"}
                await _abandon(conn, connection, [run], scope, now)
            if not has_job:
                return Discarded(run_closed=is_open, job=None)
            if is_open and can_be_found:
                return Discarded(run_closed=True, job="left to the next run")
            await conn.execute(_SQL["drop_jobs"], {"connection": connection, "run": run})
            return Discarded(run_closed=is_open, job="dropped")


async def _to_discard(session: TenantSession, run: int) -> tuple[int, str, bool, bool, bool]:
    async with session.transaction(writes=True):
        row = await (await session.conn.execute(_SQL["run_to_discard"], {"run": run})).fetchone()
    if row is None:
        raise RunNotFoundError(f"tenant {session.tenant} has no run {run}: `chartferry runs` lists the existing ones.")
    connection, name, is_open, has_job, can_be_found = row
    return connection, name, is_open, has_job, can_be_found


async def _abandon(
    conn: AsyncConnection[Any], connection: int, runs: Sequence[int], scope: RunScope, now: Mapping[str, Any]
) -> None:
    """Close interrupted runs that will not be resumed. No selection knows what they revived."""
    for step in ("write_runs", "end_alone", "order_ended"):
        await conn.execute(_SQL[step])
    await conn.execute(_SQL["abandon"], {**now, "runs": list(runs)})
    await conn.execute(_SQL["forget_seen"], {"runs": list(runs)})
    for run in runs:
        await judgement.lower(conn, OpenScope(run=run, connection=connection, scope=scope).own, full=False)
    await judgement.empty(conn, runs)


async def lock_connection(session: TenantSession, connection: str) -> None:
    """Take the connection's lock, until the session gives it back; raise ConnectionBusyError if another has it."""
    conn = session.conn
    await conn.execute(_SQL["bound_wait"])
    try:
        await conn.execute(_SQL["lock"], {"tenant": session.tenant, "connection": connection})
    except psycopg.errors.LockNotAvailable:
        async with session.transaction(writes=True):
            row = await (await conn.execute(_SQL["holder"], {"connection": connection})).fetchone()
        run = row[0] if row else None
        at_work = (
            "another command is at work on it, such as `erase` or `keys rotate-store`. Wait until it ends, then repeat this one."
            if run is None
            else f"run {run} is in progress. Wait until it ends, or stop its process; what it has written stays, and the "
            "next run resumes from there."
        )
        raise ConnectionBusyError(f"connection {connection} is busy: {at_work}", run=run) from None
    await conn.execute(_SQL["bound_locks"])


async def _found_connection(conn: AsyncConnection[Any], scope: RunScope) -> tuple[int, bool]:
    """Return the connection's number, and whether its EHR's address has changed since it last ran."""
    values = {"connection": scope.connection, "base_url": scope.base_url or None}
    found = await (await conn.execute(_SQL["find_connection"], values)).fetchone()
    if found is None:
        added = await (await conn.execute(_SQL["add_connection"], values)).fetchone()
        assert added is not None
        return int(added[0]), False
    number, before = found
    if not scope.base_url:
        return number, False
    await conn.execute(_SQL["move_connection"], {"connection": number, "base_url": scope.base_url})
    return number, before is not None and address(before) != address(scope.base_url)


def address(base_url: str) -> tuple[str, str, int | None, str]:
    """Normalise a base URL, so that different spellings compare equal."""
    parts = urlsplit(base_url)
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme), parts.path.rstrip("/")


def same_scope(row: tuple[Any, ...], scope: RunScope) -> bool:
    """Return whether an interrupted run (a row of `interrupted`) is resumed by a run of this scope."""
    _, _, _, kind, mode, selection, types, since, cohort, everything, young = row
    requested = (
        scope.kind,
        scope.mode,
        scope.selection,
        list(scope.types),
        dict(scope.since),
        scope.cohort,
        scope.everything,
    )
    return bool(young) and (kind, mode, selection, types, since, cohort, everything) == requested


async def _insert(conn: AsyncConnection[Any], connection: int, scope: RunScope, at: datetime) -> tuple[int, datetime]:
    values = {
        "connection": connection,
        "kind": scope.kind,
        "mode": scope.mode,
        "selection": scope.selection,
        "types": list(scope.types),
        "since": Jsonb(dict(scope.since)),
        "cohort": scope.cohort,
        "everything": scope.everything,
        "at": at,
        "patients": 0 if scope.by_patient else None,
    }
    row = await (await conn.execute(_SQL["begin"], values)).fetchone()
    assert row is not None
    return row[0], row[1]
