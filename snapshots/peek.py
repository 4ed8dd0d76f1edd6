"""What earlier runs know of a connection, for who only plans a run: watermarks, roster, patients. Takes no lock, writes nothing.

What a run that is open does with the same tables is `ledger`'s and `roster`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from snapshots.beginning import utc_now
from snapshots.errors import store_border
from snapshots.record import RunScope
from snapshots.roster import RunRoster
from snapshots.run_session import OpenScope, RunSession
from snapshots.sql import load
from snapshots.tenancy import tenant_transaction

_SQL = load("ledger")
_NO_RUN = 0


class Peek:
    """One session that reads what a run of this scope would find; `Store.peek` makes it."""

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._types = list(session.open.scope.types)

    @property
    def roster(self) -> RunRoster:
        """Whom the selection covers; only what reads is to be called."""
        return RunRoster(self._session)

    def speak_for(self, knowledge: str) -> None:
        """Say whose watermarks and roster are meant."""
        self._session.open.knowledge = knowledge

    async def watermarks(self) -> Mapping[str, str]:
        """Give, per resource type, the instant up to which the connection and selection are known to be complete."""
        async with self._session.transaction("reading watermarks") as own:
            return {row[0]: row[1] async for row in await self._session.conn.execute(_SQL["watermarks"], own)}

    async def received_types(self) -> frozenset[str]:
        """Give the types of which the connection has ever sent something."""
        async with self._session.transaction("reading what came before") as own:
            return frozenset([row[0] async for row in await self._session.conn.execute(_SQL["received_types"], own)])

    async def last_full_listing(self, granted: Collection[str]) -> datetime | None:
        """Give when the last run began that listed everything of the selection, with a login no narrower."""
        values = {"granted": list(granted), "types": self._types}
        async with self._session.transaction("reading watermarks") as own:
            row = await (await self._session.conn.execute(_SQL["last_full_listing"], {**own, **values})).fetchone()
        return row[0] if row else None


async def peek(conn: AsyncConnection[Any], tenant: str, scope: RunScope) -> Peek | None:
    """Look at what is known for a run of this scope; None: the connection never ran."""
    with store_border(f"looking at connection {scope.connection}"):
        async with tenant_transaction(conn, tenant):
            found = await conn.execute(_SQL["find_connection"], {"connection": scope.connection})
            row = await found.fetchone()
    if row is None:
        return None
    opened = OpenScope(run=_NO_RUN, connection=row[0], scope=scope)
    return Peek(RunSession(conn=conn, tenant=tenant, open=opened, clock=utc_now))
