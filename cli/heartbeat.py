"""Keeps the progress display alive: refreshes it every second, and says what a slow start or end waits for.

`connectors.core.waits` knows what a run waits for; `progress` formats it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cli.render import say

if TYPE_CHECKING:
    from connectors.fhir.run import EhrProgress
    from connectors.fhir.transport.client import EhrClient

EVERY_S = 1.0


@asynccontextmanager
async def told_if_slow(what: str, *, after_s: float = 2.0, every_s: float = 10.0) -> AsyncIterator[None]:
    """If the block takes longer than `after_s`, say what it waits for, and repeat every `every_s` with the time so far."""

    async def tell() -> None:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(after_s)
        while True:
            say(f"{what} ({asyncio.get_running_loop().time() - began:.0f} s)")
            await asyncio.sleep(every_s)

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def beating(
    client: EhrClient, show: Callable[[EhrProgress], None]
) -> AsyncIterator[Callable[[EhrProgress], None]]:
    """Yield the function to call at every step; between calls, the last progress is shown again."""
    last: EhrProgress | None = None

    def step(progress: EhrProgress) -> None:
        nonlocal last
        last = progress
        progress.waiting = None  # something moves
        show(progress)

    async def beat() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if last is not None:
                last.waiting = client.waits.current()
                show(last)

    task = asyncio.create_task(beat())
    try:
        yield step
    finally:
        task.cancel()
        await asyncio.wait([task])
