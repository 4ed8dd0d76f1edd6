"""The server of a store, for as long as somebody needs it: ours, started if need be, or one that runs anyway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from snapshots.embedded import EmbeddedPostgres
from snapshots.store_url import embedded_directory


@asynccontextmanager
async def running_server(url: str) -> AsyncIterator[str]:
    """Yield the URL of the server, which runs until the end."""
    directory = embedded_directory(url)
    if directory is None:
        yield url
        return
    server = EmbeddedPostgres(directory)
    try:
        yield await anyio.to_thread.run_sync(server.acquire)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.release)
