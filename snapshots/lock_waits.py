"""Bounds how long the opening of a store, and the work on its tenants, wait for another session's lock, and names that session.

A VACUUM FULL, an index being built or somebody's open transaction holds such a lock. Every other statement is bounded by the
session's own setting (`sessions`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection

from snapshots.errors import StoreError, StoreLockedError, store_border
from snapshots.sessions import connect
from snapshots.sql import load

_SQL = load("sessions")
_log = logging.getLogger("chartferry.store")
WAIT_S = 60.0
_LOOKS = 20  # within that time


@asynccontextmanager
async def bounded_locks(conn: AsyncConnection[Any], url: str, wait_s: float = WAIT_S) -> AsyncIterator[None]:
    """Let no statement of the block wait longer than `wait_s` for a lock; soon after a wait begins, log who holds it.

    `url`: of the server, for a second session that looks there. The bound stays in the session.

    Raises:
        StoreLockedError: a statement waited longer.
    """
    with store_border("bounding the wait for locks"):
        await conn.execute(_SQL["bound_locks"], {"milliseconds": f"{wait_s * 1000:.0f}"})
        row = await (await conn.execute(_SQL["backend"])).fetchone()
    looking = asyncio.create_task(_look(url, row[0] if row else 0, wait_s / _LOOKS, holders := list[str]()))
    try:
        yield
    except StoreLockedError as error:
        raise (error.held_by(holders[-1]) if holders else error) from error
    finally:
        looking.cancel()
        await asyncio.wait([looking])


async def _look(url: str, process: int, every_s: float, holders: list[str]) -> None:
    """Keep the newest holder of a lock for which a server process waits, and log each that is new."""
    with suppress(StoreError, psycopg.Error):  # without a second session the bound holds all the same
        await asyncio.sleep(every_s)  # almost always it is over by then
        async with await connect(url) as beside:
            while True:
                row = await (await beside.execute(_SQL["holders"], {"process": process})).fetchone()
                if row and row[0] and row[0] not in holders:
                    holders.append(row[0])
                    _log.warning("the store waits for a lock that another session holds: %s", row[0])
                await asyncio.sleep(every_s)
