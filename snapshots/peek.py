"""Reads what earlier runs know about a connection, to plan a run: watermarks, roster, patients. Takes no lock, writes nothing.

An open run uses the same tables through `ledger` and `roster`.
"""

from __future__ import annotations

from snapshots.beginning import utc_now
from snapshots.errors import store_border
from snapshots.knowledge import StoredKnowledge
from snapshots.report import RunScope
from snapshots.roster import RunRoster
from snapshots.run_session import OpenScope, RunSession
from snapshots.sql import load
from snapshots.tenancy import TenantSession

_SQL = load("ledger")
_NO_RUN = 0


class Peek:
    """One session that reads what a run of this scope would find; `Store.peek` makes it."""

    def __init__(self, session: RunSession) -> None:
        self._session = session

    @property
    def roster(self) -> RunRoster:
        """The patients whom the selection covers; call only methods that read."""
        return RunRoster(self._session)

    @property
    def knowledge(self) -> StoredKnowledge:
        """Up to when it is known to be complete; call only methods that read."""
        return StoredKnowledge(self._session)

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
    opened = OpenScope(run=_NO_RUN, connection=row[0], scope=scope)
    return Peek(RunSession(session=session, open=opened, clock=utc_now))
