"""The database session of one open run: its identity and its transactions. Every part of a run's state shares it.

The callers decide what a transaction does: `ledger` (units, batches), and one module per kind of state.
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
from snapshots.tenancy import TenantSession


@dataclass(kw_only=True)
class OpenScope:
    """Which run is open, what it requests, and what it finds out meanwhile."""

    run: int
    connection: int
    scope: RunScope
    knowledge: str = ""  # whose watermarks, roster and lags it moves: its selection and the way of listing it
    marks: Mapping[str, str] = field(default_factory=dict)  # types of which it requests only news, and since when
    as_of: datetime | None = None  # the instant of its evidence, if the EHR names one

    @property
    def requests_news(self) -> bool:
        """Whether it requests only news of any type."""
        return bool(self.marks)

    @property
    def own(self) -> dict[str, Any]:
        """The parameters of most statements."""
        return {
            "run": self.run,
            "connection": self.connection,
            "selection": self.scope.selection,
            "knowledge": self.knowledge or self.scope.selection,
        }


@dataclass(frozen=True, kw_only=True)
class RunSession:
    """One session that holds the connection's lock, for one run of one tenant. Its calls come from one task at a time."""

    session: TenantSession
    open: OpenScope
    clock: Callable[[], datetime]
    writes: bool = True  # False: a look at what a run would find

    @property
    def conn(self) -> AsyncConnection[Any]:
        """The database session."""
        return self.session.conn

    @asynccontextmanager
    async def transaction(self, doing: str) -> AsyncIterator[dict[str, Any]]:
        """Run a transaction; yield the parameters of most statements: run, connection, selection, knowledge, at.

        A StoreError's message contains `doing`.
        """
        with store_border(f"run {self.open.run}: {doing}"):
            async with self.session.transaction(writes=self.writes):
                yield {**self.open.own, "at": self.clock()}
