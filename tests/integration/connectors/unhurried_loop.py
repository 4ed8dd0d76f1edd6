"""An event loop whose time stands still while anybody has work to do, and moves to the next timer when nobody has.

Client and server run in it together, on real sockets. So waits cost nothing, and no time-out ends early because the machine is
busy. It is not for tests that wait for another thread or process: their answers would come after any time-out.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

_ON_ITS_WAY_S = 0.01  # what was sent over the loopback has arrived by then


class _Selector(selectors.DefaultSelector):
    passed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0 if timeout is not None else None)
        if ready or not timeout or timeout < 0:
            return ready
        ready = super().select(min(timeout, _ON_ITS_WAY_S))
        if not ready:
            self.passed += timeout
        return ready


class UnhurriedLoop(asyncio.SelectorEventLoop):
    """The loop; `time()` are seconds since it was made."""

    def __init__(self) -> None:
        self._moments = _Selector()
        super().__init__(self._moments)

    def time(self) -> float:
        return self._moments.passed


BACKEND = ("asyncio", {"loop_factory": UnhurriedLoop})
