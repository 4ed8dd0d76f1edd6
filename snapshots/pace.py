"""Stores a connection's pace between runs, and what a run has sent so far.

`connectors.fhir.transport` finds the pace; this module keeps it. During a run the numbers are saved with its batches, so that a
killed process loses only the last seconds' counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from psycopg import AsyncConnection

from snapshots.run_session import RunSession
from snapshots.sql import load
from snapshots.traffic import Down, PaceState, Traffic

_SQL = load("pace")
SAVE_EVERY_S = 2.0


class StoredPace:
    """The pace of one open run's connection; the real `connectors.fhir.memories.PaceStore`."""

    def __init__(self, session: RunSession, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._clock = clock
        self._noted: tuple[PaceState, Traffic] | None = None
        self._saved_at = clock()
        self._counted = Traffic()

    @property
    def counted(self) -> Traffic:
        """What this process has already added to the run; `finish` and `fail` add the rest."""
        return self._counted

    async def load(self) -> PaceState:
        """Return what the connection's last run left; for its origin, what the newest run of any of its connections left."""
        async with self._session.transaction("reading the pace") as own:
            row = await (await self._session.conn.execute(_SQL["load"], own)).fetchone()
        return _state(row)

    def note(self, state: PaceState, traffic: Traffic) -> None:
        """Save this with one of the next batches; `traffic` is all that this process has sent."""
        self._noted = (state, traffic)

    async def save(self, state: PaceState, traffic: Traffic) -> None:
        """Save this now."""
        async with self._session.transaction("keeping the pace"):
            await self._write(state, traffic)

    async def ride_along(self) -> None:
        """Save what was noted, if the last save was some time ago. In a transaction of the run."""
        if self._noted is not None and self._clock() - self._saved_at >= SAVE_EVERY_S:
            await self._write(*self._noted)

    async def _write(self, state: PaceState, traffic: Traffic) -> None:
        own = {"run": self._session.open.run, "connection": self._session.open.connection}
        more = traffic.since(self._counted)
        await self._session.conn.execute(_SQL["save"], {**asdict(state), **own})
        await self._session.conn.execute(_SQL["count"], {**asdict(more), "down_until": state.down_until, **own})
        self._counted, self._noted, self._saved_at = traffic, None, self._clock()


def _state(row: tuple[Any, ...] | None) -> PaceState:
    if row is None:
        return PaceState()
    concurrency, file_concurrency, down_until, down_reason, trips, quota_free_at = row
    return PaceState(
        concurrency=concurrency,
        file_concurrency=file_concurrency,
        down_until=down_until,
        down_reason=down_reason,
        trips=trips,
        quota_free_at=quota_free_at,
    )


async def pace_of(conn: AsyncConnection[Any], connection: str) -> PaceState:
    """Return what a connection's last run left, by the connection's name. In a tenant's transaction."""
    number = await (await conn.execute(_SQL["number"], {"name": connection})).fetchone()
    if number is None:
        return _state(None)
    return _state(await (await conn.execute(_SQL["load"], {"connection": number[0]})).fetchone())


async def connections_down(conn: AsyncConnection[Any]) -> list[Down]:
    """Return the connections whose EHR was down at the last request. In a tenant's transaction."""
    return [Down(*row) async for row in await conn.execute(_SQL["down"])]
