"""Keeps the progress display alive: refreshes it every second, and says what a slow start or end waits for.

`connectors.core.waits` knows what a run waits for; `progress` formats it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cli.render import print_message

if TYPE_CHECKING:
    from connectors.core.run import Progress
    from connectors.core.waits import Waits

EVERY_S = 1.0


@asynccontextmanager
async def shown_if_slow(what: str, *, after_s: float = 2.0, every_s: float = 10.0) -> AsyncIterator[None]:
    """If the block takes longer than `after_s`, say what it waits for, and repeat every `every_s` with the time so far."""

    async def print_line() -> None:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(after_s)
        while True:
            print_message(f"{what} ({asyncio.get_running_loop().time() - began:.0f} s)")
            await asyncio.sleep(every_s)

    task = asyncio.create_task(print_line())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def beating(waits: Waits, show: Callable[[Progress], None]) -> AsyncIterator[Callable[[Progress], None]]:
    """Yield the function to call at every step; between calls, the last progress is shown again."""
    last: Progress | None = None

    def step(progress: Progress) -> None:
        nonlocal last
        last = progress
        progress.waiting = None  # something moves
        show(progress)

    async def beat() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if last is not None:
                last.waiting = waits.current()
                show(last)

    task = asyncio.create_task(beat())
    try:
        yield step
    finally:
        task.cancel()
        await asyncio.wait([task])
