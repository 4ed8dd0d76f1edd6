"""Shares an export's files between several sessions that read one snapshot.

Postgres computes a view in one process, so two sessions keep two cores busy. Each fills a file; once no file is left, a session
reads for those that are still being filled. The caller decides what is written into a file.
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
    planned: Sequence[T],
    snapshot: Snapshot,
    fill: Callable[[T, Snapshot], Awaitable[None]],
    *,
    sessions: int,
    at_once: int | None = None,
) -> None:
    """Fill each file once, by up to `sessions`; fewer, if the server gives no more sessions.

    `at_once`: of how many files at a time; None: of as many as there are sessions.

    Raises:
        What `fill` raises first. The snapshot's own session then completes its file, and the others stop at once.
    """
    todo = deque(planned)
    filling = 0
    nothing_left = asyncio.Event()

    async def work(snapshot: Snapshot) -> None:
        nonlocal filling
        filling += 1
        try:
            while todo:
                await fill(todo.popleft(), snapshot)
        except BaseException:
            todo.clear()
            raise
        finally:
            filling -= 1
            if not filling:
                nothing_left.set()
        await help_(snapshot)

    async def help_(snapshot: Snapshot) -> None:
        async with snapshot.lent():
            await nothing_left.wait()

    async with AsyncExitStack() as opened:
        beside = []
        for _ in range(sessions - 1 if planned else 0):
            try:
                beside.append(await opened.enter_async_context(snapshot.beside()))
            except StoreUnavailableError:
                break
        # no task group: it would cancel the snapshot's own session within a COPY, and that session has the audit still to write
        fillers = len(beside) if at_once is None else at_once - 1
        others = [asyncio.ensure_future((work if at < fillers else help_)(one)) for at, one in enumerate(beside)]
        try:
            await work(snapshot)
            for one in others:
                await one
        finally:
            for one in others:
                one.cancel()
            await asyncio.gather(*others, return_exceptions=True)
