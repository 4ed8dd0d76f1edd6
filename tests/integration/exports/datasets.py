"""Datasets for followers: published from a store, verified, served, and broken off in the middle."""

from __future__ import annotations

import functools
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from exports.delivery.destination import LocalFolder
from exports.publishing.publish import Published, PublishRequest, publish
from exports.publishing.verification import Verified, verify
from exports.run import FileProgress
from snapshots.record import Batch
from snapshots.report import RunScope
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.witness import Deletion, Said
from tests.integration.exports.charts import record

REQUEST = PublishRequest(connections=("site",))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def static(folder: Path) -> Iterator[str]:
    """Any static file server; the manifest's URL."""
    folder.mkdir(exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/manifest.json"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def published(
    store: Store, folder: Path | LocalFolder, request: PublishRequest = REQUEST, **more: Any
) -> Published:
    def opened(since: int | None) -> Any:
        return store.snapshot(
            Selection(
                connections=request.connections, types=request.types, patients=request.patients, changed_since=since
            )
        )

    destination = LocalFolder(folder) if isinstance(folder, Path) else folder
    return await publish(request, destination, opened, **more)


async def live(store: Store) -> dict[tuple[str, str], Any]:
    """What an export gives."""
    async with store.snapshot(Selection(connections=("site",))) as snapshot:
        text = [chunk for kind in await snapshot.types() async for chunk in snapshot.ndjson(kind)]
    rows = map(json.loads, b"".join(text).splitlines())
    return {(row["resourceType"], row["id"]): row for row in rows}


async def night(store: Store, rng: random.Random) -> None:
    """A run that writes and deletes at random; sometimes nothing."""
    kinds = ("Patient", "Device", "Observation")
    scope = RunScope(connection="site", kind="sync", mode="crawl", selection="all", types=())
    async with await store.begin_run(scope) as run:
        work = rng.sample([(kind, f"r{number}") for kind in kinds for number in range(6)], rng.choice((0, 2, 5)))
        wrote = [{"resourceType": kind, "id": id_, "x": rng.randrange(3)} for kind, id_ in work if rng.random() < 0.6]
        gone = [(kind, id_) for kind, id_ in work if (kind, id_) not in {(r["resourceType"], r["id"]) for r in wrote}]
        await run.write(Batch(records=[record(one) for one in wrote]))
        await run.write(Batch(deletions=[Deletion(kind, id_, Said.DELETED) for kind, id_ in gone]))
        await run.finish(watermark=None)


def verified(folder: Path) -> Verified:
    """Verify it as it would be served from anywhere."""

    def read(url: str) -> Iterator[bytes]:
        yield (folder / url.rpartition("/")[2]).read_bytes()

    return verify("https://data.example.org/manifest.json", read)


class Killed(Exception):  # noqa: N818 - what a kill is here
    """The process ends in the middle of its work."""


class KilledAt(LocalFolder):
    """A folder whose writer is killed after this many steps."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder)
        self._steps = steps

    def _step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise Killed

    def put(self, name: str, content: bytes) -> None:
        self._step()
        super().put(name, content)

    def remove(self, name: str) -> None:
        self._step()
        super().remove(name)


def files_in(folder: Path, pattern: str = "*") -> dict[str, Path]:
    return {path.name: path for path in folder.glob(pattern)}


def killing(rng: random.Random) -> Any:
    left = rng.randrange(1, 5)

    def on_progress(_: FileProgress) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    return on_progress
