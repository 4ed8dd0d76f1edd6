"""What one connection is waiting for, why and until when, so that it can be shown.

Every sleep of a connection goes through here with its reason, and so does every wait for the source's answer. `cli.progress`
decides how to show it, and after how many seconds. Reasons contain no address and no id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

Sleep = Callable[[float], Awaitable[None]]


class Wait(NamedTuple):
    """One wait. Times are epoch seconds."""

    reason: str
    since: float
    until: float  # the latest time at which it ends
    open: bool = False  # whether it may end at any moment before that, as an answer may come


class Waits:
    """The current waits of one connection."""

    def __init__(self, clock: Callable[[], float], sleep: Sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._sleeping: dict[int, Wait] = {}
        self._answers: dict[int, Wait] = {}
        self._numbers = 0
        self._heard_at = 0.0

    async def sleep(self, seconds: float, reason: str) -> None:
        """Sleep, and publish why and until when."""
        await self.sleeper(reason)(seconds)

    def sleeper(self, reason: str, sleep: Sleep | None = None) -> Sleep:
        """Return a function that sleeps for this reason, with the given sleep function if there is one."""

        async def slept(seconds: float) -> None:
            now = self._clock()
            with self._kept(self._sleeping, Wait(reason, now, now + seconds)):
                await (sleep or self._sleep)(seconds)

        return slept

    @contextmanager
    def answer(self, reason: str, patience_s: float) -> Iterator[None]:
        """Publish that the block waits for the source's answer, which may take `patience_s` from its last sign of life."""
        now = self._clock()
        with self._kept(self._answers, Wait(reason, now, now + patience_s, open=True)):
            yield
        self._heard_at = self._clock()

    def current(self) -> Wait | None:
        """Return what holds everything up: the awaited answer if none has come since, else the sleep that ends first.

        While answers come, a sleep delays only itself: then None.
        """
        awaited = min(self._answers.values(), key=lambda wait: wait.since, default=None)
        slept = min(self._sleeping.values(), key=lambda wait: wait.until, default=None)
        if awaited is not None:
            since = max(awaited.since, self._heard_at)
            return awaited._replace(since=since, until=awaited.until - awaited.since + since)
        return slept

    @contextmanager
    def _kept(self, waits: dict[int, Wait], wait: Wait) -> Iterator[None]:
        self._numbers += 1
        number = self._numbers
        waits[number] = wait
        try:
            yield
        finally:
            del waits[number]
