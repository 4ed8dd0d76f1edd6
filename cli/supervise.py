"""Runs one command so that SIGINT and SIGTERM end it cleanly: cancel, let it close, then say how to resume.

The use case decides what closing means: committed data stay, and the run stays resumable.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")

SIGNAL_BASE = 128
_BLOCKED_S = 1.0


class InterruptedBySignalError(Exception):
    """A signal stopped the command, and it ended cleanly. `signal` is the number."""

    def __init__(self, number: int, resume: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {resume}")
        self.signal = number


def supervise(
    command: Callable[[], Awaitable[Result]], *, resume: str = "run the same command again to resume"
) -> Result:
    """Run the command to its end; raise InterruptedBySignalError if a signal ended it. A second signal exits at once."""
    received: list[int] = []
    former = signal.getsignal(signal.SIGALRM)
    try:
        return asyncio.run(_supervised(command, resume, received))
    except KeyboardInterrupt as error:  # of `_Interrupting`
        if not received:
            raise
        raise InterruptedBySignalError(received[0], resume) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def supervise_blocking(work: Callable[[], Result], *, resume: str = "run the same command again to resume") -> Result:
    """Do what blocks to its end; a signal raises InterruptedBySignalError in its middle. A second signal exits at once."""

    def stop(number: int, _: object) -> None:
        for one in former:
            signal.signal(one, signal.SIG_DFL)
        raise InterruptedBySignalError(number, resume)

    former = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        for one in former:
            signal.signal(one, stop)
        return work()
    finally:
        for one, handler in former.items():
            signal.signal(one, handler)


async def _supervised(command: Callable[[], Awaitable[Result]], resume: str, received: list[int]) -> Result:
    async def work() -> Result:
        return await command()

    task = asyncio.ensure_future(work())
    interrupting = _Interrupting()

    def stop() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # psycopg warns about each statement that is cancelled; nobody can act on that
        for library in ("psycopg", "psycopg.pool"):
            logging.getLogger(library).setLevel(logging.ERROR)
        if not interrupting.has_begun:  # else the command closes already
            task.cancel()

    def notice(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            os._exit(SIGNAL_BASE + number)
        interrupting.prepare()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
        # at once, also while somebody blocks the loop, which calls `stop` when it goes on
        signal.signal(number, notice)
    try:
        return await task
    except (asyncio.CancelledError, Exception) as error:
        # what is cancelled in the middle may fail while it closes: psycopg gives up a session that is cancelled twice
        # the KeyboardInterrupt of a command that blocked has left the loop, and `supervise` tells of it
        if received and not (interrupting.has_begun and isinstance(error, asyncio.CancelledError)):
            raise InterruptedBySignalError(received[0], resume) from error
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class _Interrupting:
    """Interrupts whoever blocks the loop, as the library of an object store that does not answer; again if need be."""

    def __init__(self) -> None:
        self.has_begun = False

    def prepare(self) -> None:
        """Begin after a while, unless the loop goes on before."""
        signal.signal(signal.SIGALRM, self._interrupt)
        signal.setitimer(signal.ITIMER_REAL, _BLOCKED_S, _BLOCKED_S)

    def _interrupt(self, _number: int, _frame: object) -> None:
        self.has_begun = True
        raise KeyboardInterrupt
