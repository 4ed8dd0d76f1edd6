"""mock_process owns running one mock EHR in a separate process, so that its CPU and memory do not count for the client.

As a program (`python -m benchmarks.mock_process`) it reads a MockConfig as JSON from its first line of input, prints its
addresses as a JSON line, and ends when its input ends. Its latency is exact: an answer begins `latency_s` after its request came,
however long the mock's one thread took to make it, so that a client that keeps its semaphore full can reach the ideal rate.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mocks.mock_config import MockConfig
from mocks.server import create_app

REPOSITORY = Path(__file__).resolve().parents[1]
BACKLOG = 1024


@contextmanager
def mock_ehr(**config: Any) -> Iterator[dict[str, Any]]:
    """Serve a mock EHR until the block ends; yield `base_url`, `group_ids` and `patient_ids`. `config`: MockConfig's fields."""
    command = [sys.executable, "-m", "benchmarks.mock_process"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(config, default=str) + "\n")
            process.stdin.flush()
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(30)


class LatentApp:
    """An ASGI app whose answers begin a fixed time after their requests."""

    def __init__(self, app: ASGIApp, latency_s: float) -> None:
        self._app = app
        self._latency_s = latency_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        due = time.monotonic() + self._latency_s

        async def later(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(due - time.monotonic())  # returns at once if the time has passed
            await send(message)

        await self._app(scope, receive, later)


def _listen() -> socket.socket:
    # asyncio turns Nagle's algorithm off only for sockets whose protocol is named; with it on, an answer that is written in
    # two pieces waits 40 ms for the client's delayed ACK
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener


def main() -> None:
    """Serve with the settings in the first line of input until the input ends."""
    settings = json.loads(sys.stdin.readline())
    latency_s = settings.pop("latency_s", 0.0)
    app = create_app(MockConfig(**settings | {"data": Path(settings["data"])}))
    ehr = app.state.ehr
    sockets = [_listen(), _listen()]
    ehr.set_origins(*(f"http://127.0.0.1:{each.getsockname()[1]}" for each in sockets))
    latent = LatentApp(app, latency_s) if latency_s else app
    server = uvicorn.Server(
        uvicorn.Config(latent, lifespan="off", log_config=None, access_log=False, timeout_keep_alive=75)
    )
    where = {"base_url": ehr.base_url, "group_ids": list(ehr.groups), "patient_ids": list(ehr.dataset.patient_ids)}
    sys.stdout.write(json.dumps(where) + "\n")
    sys.stdout.flush()

    def stop_at_end_of_input() -> None:
        sys.stdin.read()
        server.force_exit = server.should_exit = True

    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    server.run(sockets=sockets)


if __name__ == "__main__":
    main()
