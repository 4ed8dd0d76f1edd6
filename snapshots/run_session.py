"""The database session of one open run: who it is, and its transactions. Every part of a run's state shares it.

What a transaction does is its caller's: `ledger` (units, batches), and one module a kind of state beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from snapshots.errors import store_border
from snapshots.record import RunScope
from snapshots.tenancy import tenant_transaction


@dataclass(frozen=True, kw_only=True)
class OpenScope:
    """Which run is open, and what it had asked for."""

    run: int
    connection: int
    scope: RunScope


@dataclass(frozen=True, kw_only=True)
class RunSession:
    """One session that holds the connection's lock, for one run of one tenant. Its calls come from one task at a time."""

    conn: AsyncConnection[Any]
    tenant: str
    open: OpenScope

    @asynccontextmanager
    async def transaction(self, doing: str) -> AsyncIterator[dict[str, Any]]:
        """Run a transaction; gives the parameters that most statements take: run, connection, selection.

        `doing` stands in a StoreError's message.
        """
        with store_border(f"run {self.open.run}: {doing}"):
            async with tenant_transaction(self.conn, self.tenant):
                yield {
                    "run": self.open.run,
                    "connection": self.open.connection,
                    "selection": self.open.scope.selection,
                }
