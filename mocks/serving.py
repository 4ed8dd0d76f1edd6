"""Mock EHRs on real sockets: in a thread for tests, or in a separate process.

One web server listens on two sockets: the EHR's, and the object store's, which is another origin for a client.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette

from mocks.dataset import Dataset
from mocks.ehr import Ehr
from mocks.faults import Faults
from mocks.mock_config import MockConfig
from mocks.request_log import RequestLog
from mocks.server import create_app

_BACKLOG = 2048
_END_S = 30
_TICK_S = 0.02
_DATE_TICKS = 50  # the Date header is renewed once a second


class ServingError(Exception):
    """A mock could not start; the message says where it tried to listen."""


@dataclass(frozen=True)
class Served:
    """A running mock EHR. Data, faults and the log can be used while it serves, from any thread."""

    vendor: str
    base_url: str
    token_url: str
    audience: str
    client_id: str
    client_secret: str | None
    store_origin: str
    ehr: Ehr

    @property
    def group_ids(self) -> list[str]:
        """The ids of the groups that can be exported."""
        return list(self.ehr.groups)

    @property
    def group_id(self) -> str:
        """The first of those ids."""
        return self.group_ids[0]

    @property
    def patient_ids(self) -> list[str]:
        """The ids of the patients."""
        return self.ehr.dataset.patient_ids

    @property
    def dataset(self) -> Dataset:
        """The resources: `replace(resource)`, `delete(type, id)`."""
        return self.ehr.dataset

    @property
    def faults(self) -> Faults:
        """The faults: `add(rule)`, `clear()`, `hits`."""
        return self.ehr.faults

    @property
    def log(self) -> RequestLog:
        """The requests received, and `max_concurrency`."""
        return self.ehr.log


class _Server(uvicorn.Server):
    """uvicorn that stops within milliseconds: it drops answers in flight, which a mock's client must tolerate."""

    async def main_loop(self) -> None:
        tick = 0
        while not self.should_exit:
            if tick % _DATE_TICKS == 0:
                await self.on_tick(0)
            tick += 1
            await asyncio.sleep(_TICK_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
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


def _listen(host: str, port: int) -> socket.socket:
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


def _origin(host: str, listener: socket.socket) -> str:
    named = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{named}:{listener.getsockname()[1]}"


def _prepare(config: MockConfig, host: str, port: int) -> tuple[_Server, list[socket.socket], Served]:
    app: Starlette = create_app(config)
    ehr: Ehr = app.state.ehr
    listeners = [_listen(host, port)]
    listeners.append(_listen(host, 0))
    ehr.set_origins(_origin(host, listeners[0]), _origin(host, listeners[1]))
    server = _Server(
        uvicorn.Config(
            app,
            http="auto",  # httptools if installed, else h11
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # a cut answer is intended, not an error of the web server
            access_log=False,
            date_header=not config.clock_skew_s,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=0,
        )
    )

    def abort(client: tuple[str, int]) -> None:
        for connection in list(server.server_state.connections):
            if getattr(connection, "client", None) == client:
                connection.transport.abort()

    ehr.abort = abort
    served = Served(
        config.vendor,
        ehr.base_url,
        ehr.token_url,
        ehr.audience,
        config.client_id,
        config.client_secret,
        ehr.store_origin,
        ehr,
    )
    return server, listeners, served


@contextlib.contextmanager
def serve(config: MockConfig, port: int = 0, host: str = "127.0.0.1") -> Iterator[Served]:
    """Serve a mock EHR from a thread while the block runs. Raises DataError, ServingError."""
    server, listeners, served = _prepare(config, host, port)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": listeners}, name=f"mock-{config.vendor}", daemon=True
    )
    thread.start()
    try:
        yield served
    finally:
        server.should_exit = True
        thread.join(_END_S)


def run_forever(config: MockConfig, host: str, port: int, announce: Callable[[Served], None]) -> None:
    """Serve until interrupted (SIGINT, SIGTERM). Calls `announce` once, when requests are answered or queued."""
    server, listeners, served = _prepare(config, host, port)
    announce(served)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=listeners)
