"""How much of one connection is used at a time: a place per request, and a second, scarcer kind per bulk file.

A place covers the request and its body, not the wait before the next try. Token requests take none: they go to another server,
and a request that waits for its token may hold the last place.
"""

from __future__ import annotations

import anyio

from connectors.transport.call import Purpose


class ConnectionLimits:
    """Places of one connection, first come first served."""

    def __init__(self, max_concurrency: int, file_concurrency: int) -> None:
        self._places = anyio.Semaphore(max_concurrency, fast_acquire=True)
        self._files = anyio.Semaphore(file_concurrency, fast_acquire=True)

    async def acquire(self, purpose: Purpose) -> None:
        """Wait for a place; give it back with `release` of the same purpose."""
        if purpose == "file":
            await self._files.acquire()
        try:
            await self._places.acquire()
        except BaseException:
            if purpose == "file":
                self._files.release()
            raise

    def release(self, purpose: Purpose) -> None:
        """Give the place back."""
        self._places.release()
        if purpose == "file":
            self._files.release()
