"""Where histories are played: one tenant of a Postgres, and a loop that goes on from one to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
from psycopg import waiting

from snapshots.beginning import begin, utc_now
from snapshots.erasure import Erased
from snapshots.ledger import OpenRun
from snapshots.pool import SessionPool
from snapshots.report import RunScope
from snapshots.retention import Pruned
from snapshots.store import Store
from snapshots.tenancy import TenantSession
from snapshots.walls import Walls
from tests.fix_store import TESTER, opened_store
from tests.histories.nights import Nights
from tests.histories.player import NAME, Player
from tests.histories.steps import History, Site
from tests.histories.store_view import StoreView
from tests.histories.watch import Failure


class _Lasting(psycopg.AsyncConnection[Any]):
    """A session that stays when a run gives it back, without its locks: a new one would learn every table anew.

    It waits for Postgres without the event loop, which has nothing else to do and would cost half of a night's time.
    """

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ASYNC109  psycopg's
        return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=timeout)

    async def close(self) -> None:
        await self.rollback()
        await self.execute("SELECT pg_advisory_unlock_all()")

    async def end(self) -> None:
        await super().close()


class _LastingStore(Store):
    """A store whose runs share one session; they come one after another."""

    session: _Lasting | None = None

    async def begin_run(self, scope: RunScope, clock: Callable[[], datetime] = utc_now) -> OpenRun:
        if self.session is None or self.session.broken:
            self.session = await _Lasting.connect(self._url, autocommit=True)
        session = TenantSession(conn=self.session, tenant=self._tenant, actor=TESTER)
        try:
            return await begin(session, scope, clock=clock, release=self.session.close)
        except BaseException:
            await self.session.close()
            raise

    async def erase(self, connection: str, patient: str) -> Erased:
        async with opened_store(self._url, self._tenant) as store:
            return await store.erase(connection, patient)

    async def prune(self, **until: Any) -> Pruned:
        async with opened_store(self._url, self._tenant) as store:
            return await store.prune(**until)

    async def end(self) -> None:
        if self.session is not None:
            await self.session.end()


class Stage:
    """A tenant's store that histories are played on, one after another."""

    def __init__(self, url: str, tenant: str) -> None:
        self._url, self._tenant = url, tenant
        self._runner = asyncio.Runner()
        self._store = self._runner.run(_migrated(url, tenant))
        self._view = StoreView(url, tenant)

    def play(self, history: History, *, to_end: bool = True) -> tuple[Failure | None, list[str]]:
        """How it ended, and how each of its runs did. `to_end`: also the sound runs after its last step."""
        player = Player(history, self._store, self._view)
        failure = self._runner.run(player.play(to_end=to_end))
        return failure, player.endings

    def nights(self, site: Site) -> Nights:
        """A history that the caller tells, on an empty store."""
        return Nights(site, self._store, self._view, self._runner.run)

    def erase(self, patient: str) -> None:
        """Erase a patient, as the command does."""
        self._runner.run(self._store.erase(NAME, patient))

    def close(self) -> None:
        self._view.close()
        self._runner.run(self._store.end())
        self._runner.close()


async def _migrated(url: str, tenant: str) -> _LastingStore:
    async with opened_store(url, tenant):
        return _LastingStore(
            url, tenant, SessionPool(url, tenant, TESTER, walls=Walls(names=None), sealer=None, most=1, wait_s=1)
        )
