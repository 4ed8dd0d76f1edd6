"""Shares an export's files between several sessions that read one snapshot.

Postgres computes a view in one process: two sessions keep two cores busy. What is written into a file is its caller's.
"""

from __future__ import annotations

import asyncio
from collections import deque
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
        What `fill` raises first. The snapshot's own session then completes its file, and the others stop at once.
    """
    todo = deque(planned)

    async def work(snapshot: Snapshot) -> None:
        try:
            while todo:
                await fill(todo.popleft(), snapshot)
        except BaseException:
            todo.clear()
            raise

    async with AsyncExitStack() as opened:
        beside = []
        for _ in range(min(sessions, len(planned)) - 1):
            try:
                beside.append(await opened.enter_async_context(snapshot.beside()))
            except StoreUnavailableError:
                break
        # no task group: it would cancel the snapshot's own session within a COPY, and that session has the audit still to write
        others = [asyncio.ensure_future(work(one)) for one in beside]
        try:
            await work(snapshot)
            for one in others:
                await one
        finally:
            for one in others:
                one.cancel()
            await asyncio.gather(*others, return_exceptions=True)
