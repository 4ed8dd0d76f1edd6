"""Shares an export's files between several sessions that read one snapshot.

Postgres computes a view in one process: two sessions keep two cores busy. What is written into a file is its caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

from exports.snapshot_port import Snapshot
from snapshots.errors import StoreUnavailableError

T = TypeVar("T")


async def fill_all(
    planned: Sequence[T], snapshot: Snapshot, fill: Callable[[T, Snapshot], Awaitable[None]], *, sessions: int
) -> None:
    """Fill each file once, up to `sessions` at a time; fewer, if the server gives no more sessions.

    Raises:
        What `fill` raises first; the other sessions stop.
    """
    todo = iter(planned)

    async def work(snapshot: Snapshot) -> None:
        for one in todo:
            await fill(one, snapshot)

    async with AsyncExitStack() as opened:
        beside = []
        for _ in range(min(sessions, len(planned)) - 1):
            try:
                beside.append(await opened.enter_async_context(snapshot.beside()))
            except StoreUnavailableError:
                break
        try:
            # anyio's group cancels at each await: psycopg then cannot end a COPY, and closes the snapshot's session
            async with asyncio.TaskGroup() as tasks:
                for one in beside:
                    tasks.create_task(work(one))
                await work(snapshot)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
