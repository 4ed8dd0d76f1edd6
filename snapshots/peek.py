"""Reads what earlier runs know about a connection, and which of its runs is open, so that a run can be planned.

Takes no lock, writes nothing. An open run uses the same tables through `ledger` and `roster`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection

from snapshots.beginning import address, same_scope, utc_now
from snapshots.bulk_jobs import StoredBulkJobs
from snapshots.errors import store_border
from snapshots.knowledge import StoredKnowledge
from snapshots.report import RunScope
from snapshots.reports import reports
from snapshots.roster import RunRoster
from snapshots.run_session import OpenScope, RunSession
from snapshots.sql import load
from snapshots.tenancy import TenantSession

_SQL = load("ledger")
_NO_RUN = 0


@dataclass(frozen=True, kw_only=True)
class OpenRunFound:
    """A run of the connection that has not ended, and what the next run of this scope does with it."""

    run: int
    began: datetime
    fate: Literal["in progress", "resumed", "given up"]
    units: int = 0  # in its ledger
    left: Mapping[str, int] = field(default_factory=dict)  # of these, by type, what it would still ask for
    has_export: bool = False  # a job at the server, with which it would go on


class Peek:
    """One session that reads what a run of this scope would find; `Store.peek` makes it.

    Call only those methods of `roster`, `jobs` and `knowledge` that read.
    """

    def __init__(self, session: RunSession, open_run: OpenRunFound | None = None) -> None:
        self._session = session
        self.open_run = open_run
        self.roster = RunRoster(session)
        self.jobs = StoredBulkJobs(session)
        self.knowledge = StoredKnowledge(session)

    def speak_for(self, knowledge: str) -> None:
        """Choose whose watermarks and roster to read."""
        self._session.open.knowledge = knowledge


async def peek(session: TenantSession, scope: RunScope) -> Peek | None:
    """Read what is known for a run of this scope; None: the connection never ran."""
    with store_border(f"looking at connection {scope.connection}"):
        async with session.transaction():
            found = await session.conn.execute(_SQL["find_connection"], {"connection": scope.connection})
            row = await found.fetchone()
            if row is None:
                return None
            open_run = await _open_run(session.conn, row[0], row[1], scope)
    opened = OpenScope(run=_NO_RUN, connection=row[0], scope=scope)
    return Peek(RunSession(session=session, open=opened, clock=utc_now, writes=False), open_run)


async def _open_run(
    conn: AsyncConnection[Any], connection: int, base_url: str | None, scope: RunScope
) -> OpenRunFound | None:
    """The connection's newest open run, as `beginning` would find it."""
    now = {"connection": connection, "at": utc_now()}
    row = await (await conn.execute(_SQL["interrupted"], now)).fetchone()
    if row is None:
        return None
    run, began = row[:2]
    (report,) = await reports(conn, [run])
    if report.status == "running":
        return OpenRunFound(run=run, began=began, fate="in progress")
    has_moved = base_url is not None and bool(scope.base_url) and address(base_url) != address(scope.base_url)
    if has_moved or not same_scope(row, scope):
        return OpenRunFound(run=run, began=began, fate="given up")
    units = [one async for one in await conn.execute(_SQL["units_left"], {"run": run})]
    job = await (await conn.execute(_SQL["has_job"], {"run": run})).fetchone()
    return OpenRunFound(
        run=run,
        began=began,
        fate="resumed",
        units=sum(total for _, _, total in units),
        left={resource_type: left for resource_type, left, _ in units if left},
        has_export=job is not None and bool(job[0]),
    )
