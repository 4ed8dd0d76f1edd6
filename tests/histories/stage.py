"""Where histories are played: one embedded Postgres for the process, one tenant, and a loop that goes on from one to the next."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from snapshots.embedded import embedded_postgres
from snapshots.pool import Store, open_store
from tests.histories.oracle import Failure
from tests.histories.player import Player
from tests.histories.steps import History
from tests.histories.store_view import StoreView


@contextmanager
def server() -> Iterator[str]:
    """The URL of an embedded Postgres that lasts as long as the block, and does not wait for its disk."""
    directory = Path(tempfile.mkdtemp(prefix="cf-"))
    try:
        with embedded_postgres(directory) as url:
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("ALTER SYSTEM SET fsync = off")
                conn.execute("SELECT pg_reload_conf()")
            yield url
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Stage:
    """A tenant's store that histories are played on, one after another."""

    def __init__(self, url: str, tenant: str) -> None:
        self._runner = asyncio.Runner()
        self._store = self._runner.run(_migrated(url, tenant))
        self._view = StoreView(url, tenant)

    def play(self, history: History) -> tuple[Failure | None, list[str]]:
        """How it ended, and how each of its runs did."""
        player = Player(history, self._store, self._view)
        failure = self._runner.run(player.play())
        return failure, player.told

    def close(self) -> None:
        self._view.close()
        self._runner.close()


async def _migrated(url: str, tenant: str) -> Store:
    async with open_store(url, tenant) as store:
        return store  # of a server that others hold: only its URL
