"""The database session of one open run: who it is, and its transactions. Every part of a run's state shares it.

What a transaction does is its caller's: `ledger` (units, batches), and one module a kind of state beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from snapshots.errors import store_border
from snapshots.report import RunScope
from snapshots.tenancy import tenant_transaction


@dataclass(kw_only=True)
class OpenScope:
    """Which run is open, what it had asked for, and what is found out of that while it is at work."""

    run: int
    connection: int
    scope: RunScope
    knowledge: str = ""  # whose watermarks, roster and lags it moves: its selection, and how that is listed
    marks: Mapping[str, str] = field(default_factory=dict)  # types asked for news only, and from when
    as_of: datetime | None = None  # the instant of its evidence, where the EHR names one

    @property
    def asks_news(self) -> bool:
        """Whether anything is asked for news only."""
        return bool(self.marks)

    @property
    def own(self) -> dict[str, Any]:
        """The parameters that most statements take."""
        return {
            "run": self.run,
            "connection": self.connection,
            "selection": self.scope.selection,
            "knowledge": self.knowledge or self.scope.selection,
        }


@dataclass(frozen=True, kw_only=True)
class RunSession:
    """One session that holds the connection's lock, for one run of one tenant. Its calls come from one task at a time."""

    conn: AsyncConnection[Any]
    tenant: str
    open: OpenScope
    clock: Callable[[], datetime]

    @asynccontextmanager
    async def transaction(self, doing: str) -> AsyncIterator[dict[str, Any]]:
        """Run a transaction; gives the parameters that most statements take: run, connection, selection, knowledge, at.

        `doing` stands in a StoreError's message.
        """
        with store_border(f"run {self.open.run}: {doing}"):
            async with tenant_transaction(self.conn, self.tenant):
                yield {**self.open.own, "at": self.clock()}
