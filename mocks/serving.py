"""Mock EHRs on real sockets: in a thread for tests, or in a separate process.

One web server listens on two sockets: the EHR's, and the object store's, which is another origin for a client.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from starlette.applications import Starlette

from mocks.dataset import Dataset
from mocks.ehr import Ehr
from mocks.faults import Faults
from mocks.mock_config import MockConfig
from mocks.request_log import RequestLog
from mocks.server import create_app
from mocks.web_server import WebServer, in_thread, listen, origin_of, web_server


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


def _prepare(config: MockConfig, host: str, port: int) -> tuple[WebServer, list[socket.socket], Served]:
    app: Starlette = create_app(config)
    ehr: Ehr = app.state.ehr
    listeners = [listen(host, port)]
    listeners.append(listen(host, 0))
    ehr.set_origins(origin_of(host, listeners[0]), origin_of(host, listeners[1]))
    server = web_server(app, date_header=not config.clock_skew_s)

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
    with in_thread(server, listeners, f"mock-{config.vendor}"):
        yield served


def run_forever(config: MockConfig, host: str, port: int, announce: Callable[[Served], None]) -> None:
    """Serve until interrupted (SIGINT, SIGTERM). Calls `announce` once, when requests are answered or queued."""
    server, listeners, served = _prepare(config, host, port)
    announce(served)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=listeners)
