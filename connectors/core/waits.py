"""What one connection is waiting for, why and until when, so that it can be shown.

Every sleep of a connection goes through here with its reason, and so does every wait for the source's answer. `cli.progress`
decides how to show it, and after how many seconds. Reasons contain no address and no id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import NamedTuple

Sleep = Callable[[float], Awaitable[None]]


class Wait(NamedTuple):
    """One wait. Times are epoch seconds."""

    reason: str
    since: float
    until: float  # the latest time at which it ends
    open: bool = False  # whether it may end at any moment before that, as an answer may come


class _Answers:
    """The answers that are awaited, and when one was last heard of."""

    def __init__(self) -> None:
        self.waits: dict[int, Wait] = {}
        self.heard_at = 0.0


class _Awaited:
    """The wait for one answer. Each request waits twice, and a generator would cost four times as much."""

    __slots__ = ("_answers", "_clock", "_wait")

    def __init__(self, answers: _Answers, clock: Callable[[], float], wait: Wait) -> None:
        self._answers = answers
        self._clock = clock
        self._wait = wait

    def __enter__(self) -> None:
        self._answers.waits[id(self)] = self._wait

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self._answers.waits[id(self)]
        if kind is None:
            self._answers.heard_at = self._clock()


class Waits:
    """The current waits of one connection."""

    def __init__(self, clock: Callable[[], float], sleep: Sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._sleeping: dict[int, Wait] = {}
        self._answers = _Answers()
        self._numbers = 0

    async def sleep(self, seconds: float, reason: str) -> None:
        """Sleep, and publish why and until when."""
        await self.sleeper(reason)(seconds)

    def sleeper(self, reason: str, sleep: Sleep | None = None) -> Sleep:
        """Return a function that sleeps for this reason, with the given sleep function if there is one."""

        async def slept(seconds: float) -> None:
            now = self._clock()
            with self._kept(Wait(reason, now, now + seconds)):
                await (sleep or self._sleep)(seconds)

        return slept

    def answer(self, reason: str, patience_s: float) -> AbstractContextManager[None]:
        """Publish that the block waits for the source's answer, which may take `patience_s` from its last sign of life."""
        now = self._clock()
        return _Awaited(self._answers, self._clock, Wait(reason, now, now + patience_s, open=True))

    def current(self) -> Wait | None:
        """Return what holds everything up: the awaited answer if none has come since, else the sleep that ends first.

        While answers come, a sleep delays only itself: then None.
        """
        awaited = min(self._answers.waits.values(), key=lambda wait: wait.since, default=None)
        slept = min(self._sleeping.values(), key=lambda wait: wait.until, default=None)
        if awaited is not None:
            since = max(awaited.since, self._answers.heard_at)
            return awaited._replace(since=since, until=awaited.until - awaited.since + since)
        return slept

    @contextmanager
    def _kept(self, wait: Wait) -> Iterator[None]:
        self._numbers += 1
        number = self._numbers
        self._sleeping[number] = wait
        try:
            yield
        finally:
            del self._sleeping[number]
