"""Datasets that others follow: what is published night after night leads to an equal copy, whatever happens in between."""

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

import pytest

from exports.delivery.destination import LocalFolder
from exports.errors import DatasetError, DestinationError, PlanError
from exports.plan import ExportRequest
from exports.publishing.publish import Published, PublishRequest, publish
from exports.publishing.verification import Verified, verify
from exports.run import Progress, export
from snapshots.reader import Selection
from snapshots.record import Batch
from snapshots.report import RunScope
from snapshots.store import Store
from snapshots.witness import Deletion, Said
from tests.integration.exports.follower import Follower
from tests.integration.exports.test_export_run import fill, patient, record, remove

pytestmark = pytest.mark.anyio
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


async def published(store: Store, folder: Path, request: PublishRequest = REQUEST, **more: Any) -> Published:
    def opened(since: int | None) -> Any:
        return store.snapshot(
            Selection(
                connections=request.connections, types=request.types, patients=request.patients, changed_since=since
            )
        )

    return await publish(request, LocalFolder(folder), opened, **more)


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
        await run.finish(watermark=None, requests=1, retries=0)


def verified(folder: Path) -> Verified:
    """Verify it as it would be served from anywhere."""

    def read(url: str) -> Iterator[bytes]:
        yield (folder / url.rpartition("/")[2]).read_bytes()

    return verify("https://data.example.org/manifest.json", read)


class Killed(Exception):  # noqa: N818 - what a kill is here
    """The process ends in the middle of its work."""


def files_in(folder: Path, pattern: str = "*") -> dict[str, Path]:
    return {path.name: path for path in folder.glob(pattern)}


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Each file's content, and when it was written."""
    return {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in files_in(folder).items()}


def rewrite(folder: Path, old: str, new: str) -> None:
    """Change what all pages say."""
    for path in files_in(folder, "*.json").values():
        path.write_text(path.read_text().replace(old, new))


def killing(rng: random.Random) -> Any:
    left = rng.randrange(1, 5)

    def on_progress(_: Progress) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    return on_progress


@pytest.mark.quick
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_follower_stays_equal_over_thirty_random_nights(store: Store, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    request = PublishRequest(connections=("site",), increments=7)
    await fill(store, [patient("first")])
    whats: list[str] = []
    with static(tmp_path / "dataset") as url:
        await published(store, tmp_path / "dataset", request)
        nightly, seldom = Follower(url), Follower(url)
        nightly.poll()
        for _ in range(30):
            await night(store, rng)
            before = dict(nightly.copy)
            if rng.random() < 0.3:
                try:
                    await published(store, tmp_path / "dataset", request, on_progress=killing(rng))
                except Killed:
                    # a half export is never seen
                    nightly.poll()
                    assert nightly.copy == before
            done = await published(store, tmp_path / "dataset", request)
            whats.append(done.what)
            nightly.poll()
            assert nightly.copy == await live(store)
            if rng.random() < 0.2:
                seldom.poll()
                assert seldom.copy == nightly.copy
            assert verified(tmp_path / "dataset").problems == []
        fresh = Follower(url)
        fresh.poll()
        assert fresh.copy == nightly.copy
    assert {"snapshot", "increment", "unchanged"} <= set(whats)
    assert nightly.begun == 1 + whats.count("snapshot")


async def test_a_rerun_takes_what_a_killed_one_has_written(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a"), {"resourceType": "Device", "id": "d"}])

    def kill(progress: Progress) -> None:
        if progress.file.startswith("Patient"):
            raise Killed

    with pytest.raises(Killed):
        await published(store, tmp_path, on_progress=kill)
    (device,) = files_in(tmp_path, "Device-*")
    assert not (tmp_path / "manifest.json").exists()
    seen: list[str] = []
    done = await published(store, tmp_path, on_progress=lambda progress: seen.append(progress.file))
    assert (done.what, set(seen)) == ("snapshot", {"Patient.ndjson"})
    assert device in {entry.url for entry in done.output}
    # after more has come, what was written for less is not taken
    await fill(store, [patient("a", gender="male"), {"resourceType": "Device", "id": "d", "x": 1}])
    with pytest.raises(Killed):
        await published(store, tmp_path, on_progress=kill)
    await fill(store, [{"resourceType": "Device", "id": "d", "x": 2}])
    await published(store, tmp_path)
    with static(tmp_path) as url:
        follower = Follower(url)
        follower.poll()
    assert follower.copy == await live(store)


async def test_the_same_runs_publish_nothing_twice(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    await published(store, tmp_path)
    before = contents(tmp_path)
    assert (await published(store, tmp_path)).what == "unchanged"
    assert contents(tmp_path) == before


@pytest.mark.parametrize("loss", ["page", "file"])
async def test_a_chain_that_has_lost_a_part_is_begun_anew_and_says_why(store: Store, tmp_path: Path, loss: str) -> None:
    await fill(store, [patient("a")])
    await published(store, tmp_path)
    (lost,) = files_in(tmp_path, "page-*" if loss == "page" else "Patient-*").values()
    lost.unlink()
    done = await published(store, tmp_path)
    assert done.what == "snapshot"
    assert done.why is not None
    assert ("broken" if loss == "page" else "1 of its files are missing") in done.why
    with static(tmp_path) as url:
        follower = Follower(url)
        follower.poll()
    assert follower.copy == await live(store)


async def test_what_another_store_has_published_is_replaced(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    await published(store, tmp_path)
    rewrite(tmp_path, '"valueInstant": "2', '"valueInstant": "1')
    assert (await published(store, tmp_path)).why == "the store's run 1 is not the one that was published"
    rewrite(tmp_path, '"valuePositiveInt": 1', '"valuePositiveInt": 9')
    assert (await published(store, tmp_path)).why == "the store has no run 9, which was published"


async def test_another_request_makes_another_snapshot_and_closes_the_chain(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a"), {"resourceType": "Device", "id": "d"}])
    await published(store, tmp_path)
    with static(tmp_path) as url:
        follower = Follower(url)
        follower.poll()
        narrow = PublishRequest(connections=("site",), types=("Patient",))
        assert (await published(store, tmp_path, narrow)).what == "snapshot"
        follower.poll()
    assert (set(follower.copy), follower.begun) == ({("Patient", "a")}, 2)


async def test_pages_with_a_base_url_have_absolute_ones(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    with static(tmp_path) as url:
        request = PublishRequest(connections=("site",), base_url=url.rpartition("/")[0])
        await published(store, tmp_path, request)
        await remove(store, "a")
        await published(store, tmp_path, request)
        follower = Follower(url)
        follower.poll()
    page = json.loads((tmp_path / "manifest.json").read_text())
    assert all(one["url"].startswith("http://127.0.0.1:") for one in page["output"] + page["link"])
    assert follower.copy == {}


async def test_files_of_a_snapshot_stay_until_the_one_after_the_next(store: Store, tmp_path: Path) -> None:
    every = PublishRequest(connections=("site",), increments=0)
    kept: list[set[str]] = []
    for at in range(3):
        await fill(store, [patient("a", x=at)])
        await published(store, tmp_path, every)
        kept.append(set(files_in(tmp_path, "*-*")))
    first = kept[0]
    assert first < kept[1]
    assert not first & kept[2]
    assert len(kept[2]) == len(kept[1]) == 4  # two snapshots, each with its stub


async def test_several_connections_are_refused(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    await fill(store, [patient("a")], connection="south")
    with pytest.raises(PlanError, match=r"the store has site, south: publish each .* --connection"):
        await published(store, tmp_path, PublishRequest())
    assert not files_in(tmp_path)


@pytest.mark.parametrize("content", ["{}", "no json", '{"manifestType": "x"}', "[" * 100_000])
async def test_a_manifest_of_another_kind_is_left_alone(store: Store, tmp_path: Path, content: str) -> None:
    await fill(store, [patient("a")])
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DatasetError, match="folder of its own"):
        await published(store, tmp_path)
    assert set(files_in(tmp_path)) == {"manifest.json"}
    assert (tmp_path / "manifest.json").read_text() == content


async def test_an_export_into_a_published_folder_is_refused(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    await published(store, tmp_path)
    before = contents(tmp_path)
    async with store.snapshot(Selection()) as snapshot:
        with pytest.raises(DestinationError, match="published dataset"):
            await export(ExportRequest(out=tmp_path), snapshot)
    assert contents(tmp_path) == before
