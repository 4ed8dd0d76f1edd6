"""The web server under every mock: it listens on sockets that were opened before, and stops within milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

_BACKLOG = 2048
_END_S = 30
_TICK_S = 0.02
_DATE_TICKS = 50  # the Date header is renewed once a second


class ServingError(Exception):
    """A mock could not start; the message says where it tried to listen."""


class WebServer(uvicorn.Server):
    """uvicorn that stops within milliseconds: it drops answers in flight, which a mock's client must tolerate."""

    async def main_loop(self) -> None:
        """Wait for the end."""
        tick = 0
        while not self.should_exit:
            if tick % _DATE_TICKS == 0:
                await self.on_tick(0)
            tick += 1
            await asyncio.sleep(_TICK_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything at once."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # lets the transports close their sockets


def listen(host: str, port: int) -> socket.socket:
    """Listen on a port; 0: a free one. Raises ServingError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # name the protocol: asyncio turns Nagle's delay (40 ms per answer) off only on sockets that declare TCP
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise ServingError(f"cannot listen on {host}:{port}: {exc.strerror}; choose another --port") from exc
    listener.listen(_BACKLOG)
    return listener


def origin_of(host: str, listener: socket.socket) -> str:
    """Return the origin at which a socket is reached."""
    named = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{named}:{listener.getsockname()[1]}"


def web_server(app: ASGIApp, *, date_header: bool = True) -> WebServer:
    """Return a server of this app, which is not running yet."""
    return WebServer(
        uvicorn.Config(
            app,
            http="auto",  # httptools if installed, else h11
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # a cut answer is intended, not an error of the web server
            access_log=False,
            date_header=date_header,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=0,
        )
    )


@contextlib.contextmanager
def in_thread(server: WebServer, listeners: list[socket.socket], name: str) -> Iterator[None]:
    """Serve from a thread while the block runs."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": listeners}, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_END_S)
