"""Runs one asynchronous command so that SIGINT and SIGTERM end it cleanly: cancel, let it close, then say how to go on.

What "closing" means is left to the use case: what is committed stays, the run stays resumable.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")

SIGNAL_BASE = 128
# Records and pages die by their reference counts. Python's own 700 would look for cycles at every second page, through all that
# a plan and the libraries hold: 3 % of a crawl's CPU, in pauses of 30 to 50 ms during which nothing is sent.
_COLLECT_EVERY = 50_000


class InterruptedBySignalError(Exception):
    """The command was asked to stop and did so cleanly. `signal` is the number."""

    def __init__(self, number: int, resume: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {resume}")
        self.signal = number


def supervise(
    command: Callable[[], Awaitable[Result]], *, resume: str = "run the same command again to go on"
) -> Result:
    """Run the command to its end; InterruptedBySignalError when a signal ended it. A second signal ends at once."""
    gc.set_threshold(_COLLECT_EVERY)
    return asyncio.run(_supervised(command, resume))


async def _supervised(command: Callable[[], Awaitable[Result]], resume: str) -> Result:
    received: list[int] = []

    async def work() -> Result:
        return await command()

    task = asyncio.ensure_future(work())

    def stop(number: int) -> None:
        received.append(number)
        if len(received) > 1:
            os._exit(SIGNAL_BASE + number)
        # psycopg warns of each statement that the cancelling cuts off; nobody can do anything about it
        for library in ("psycopg", "psycopg.pool"):
            logging.getLogger(library).setLevel(logging.ERROR)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if received:
            raise InterruptedBySignalError(received[0], resume) from None
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
