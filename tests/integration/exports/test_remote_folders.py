"""Datasets and exports that go to an S3 server (moto's) and to an SFTP server (asyncssh's), over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pyrage
import pytest

from exports.delivery.destination import Destination, LocalFolder
from exports.delivery.encryption import recipients_of
from exports.delivery.files import AtomicFile, DeliveredFile, Staged
from exports.delivery.place_name import destination_of
from exports.delivery.remote_folder import RemoteFolder
from exports.errors import DestinationError, PlanError
from exports.plan import ExportRequest
from exports.publishing.publish import PublishRequest, publish
from exports.run import export
from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.exports.charts import fill, patient
from tests.integration.exports.datasets import Killed, killing, live, night, static, verified
from tests.integration.exports.follower import Follower

pytestmark = pytest.mark.anyio


@contextmanager
def s3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    (folder / "aws").write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "aws"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"charts-{port}"  # moto's servers of one process share their buckets
    RemoteFolder(f"s3://{bucket}")._fs.mkdir(bucket)
    try:
        yield f"s3://{bucket}/nightly/dataset"
    finally:
        server.stop()


@contextmanager
def sftp(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server in a separate thread; it and the user's home folder know each other's keys."""
    home, served = folder / "home" / ".ssh", folder / "served"
    home.mkdir(parents=True)
    served.mkdir()
    host_key, own_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    own_key.write_private_key(str(home / "id_ed25519"))
    (home / "id_ed25519").chmod(0o600)
    own_key.write_public_key(str(home / "authorized"))
    monkeypatch.setenv("HOME", str(home.parent))

    connections: list[asyncssh.SSHServerConnection] = []

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            connections.append(conn)

    async def listening() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Server,
            server_host_keys=[host_key],
            authorized_client_keys=str(home / "authorized"),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(served).encode()),
        )

    async def closed(server: asyncssh.SSHAcceptor) -> None:
        server.close()
        for connection in connections:
            connection.abort()
            await connection.wait_closed()
        await server.wait_closed()

    with started_loop() as loop:
        server = asyncio.run_coroutine_threadsafe(listening(), loop).result()
        port = server.get_port()
        known = host_key.export_public_key().decode()
        (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {known}")
        try:
            yield f"sftp://carrier@127.0.0.1:{port}/nightly/dataset"
        finally:
            asyncio.run_coroutine_threadsafe(closed(server), loop).result()


@contextmanager
def started_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a separate thread: the code under test blocks the test's own loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(params=[s3, sftp])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with request.param(tmp_path, monkeypatch) as place:
        yield place


def fetched(place: RemoteFolder, folder: Path) -> None:
    """What lies there, copied into a folder of this machine."""
    folder.mkdir(exist_ok=True)
    there = place.names()
    for path in folder.iterdir():
        if path.name not in there:
            path.unlink()
    for name in there:
        (folder / name).write_bytes(b"".join(place.chunks(name)))


async def test_a_remote_dataset_is_followed_over_several_nights(store: Store, tmp_path: Path, url: str) -> None:
    rng = random.Random(3)
    request = PublishRequest(connections=("site",), increments=2)
    place = RemoteFolder(url)
    copy = tmp_path / "copy"

    async def published(**more: Any) -> str:
        def opened(since: int | None) -> Any:
            return store.snapshot(Selection(connections=("site",), changed_since=since))

        return (await publish(request, RemoteFolder(url), opened, **more)).what

    await fill(store, [patient("first")])
    whats = []
    with static(copy) as root:
        follower = Follower(root)
        for _ in range(4):
            await night(store, rng)
            before = dict(follower.copy)
            if whats:
                try:
                    await published(on_progress=killing(rng))
                except Killed:
                    fetched(place, copy)
                    follower.poll()
                    assert follower.copy == before
            whats.append(await published())
            fetched(place, copy)
            follower.poll()
            assert follower.copy == await live(store)
            assert verified(copy).problems == []
    assert whats.count("snapshot") >= 2
    assert not [name for name in place.names() if name.startswith(".")]


async def test_uploaded_files_are_read_back_and_differences_reported(store: Store, tmp_path: Path, url: str) -> None:
    class Forgetful(RemoteFolder):
        """Loses the end of what it takes."""

        def chunks(self, name: str) -> Iterator[bytes]:
            for chunk in super().chunks(name):
                yield chunk[:-1] if name.startswith("Patient") else chunk

    await fill(store, [patient("a")])
    request = PublishRequest(connections=("site",))
    with pytest.raises(DestinationError, match="reads back differently from what was written"):
        await publish(request, Forgetful(url), lambda since: store.snapshot(Selection(changed_since=since)))
    assert "manifest.json" not in RemoteFolder(url).names()


async def exported(store: Store, out: Destination, *types: str, formats: tuple[str, ...] = ("ndjson", "csv")) -> None:
    views = ("patient",) if "csv" in formats else ()
    async with store.snapshot(Selection(types=types)) as snapshot:
        await export(ExportRequest(out=out, types=types, formats=formats, views=views), snapshot)


def contents(place: Destination) -> dict[str, bytes]:
    return {name: b"".join(place.chunks(name)) for name in place.names()}


async def test_a_remote_export_has_the_bytes_of_a_local_one_and_removes_only_the_former_ones_files(
    store: Store, tmp_path: Path, url: str
) -> None:
    await fill(store, [patient("a"), {"resourceType": "Device", "id": "d1"}])
    here, there = LocalFolder(tmp_path / "here"), RemoteFolder(url)
    there.put("notes.txt", b"a foreign file")
    for types in (("Device", "Patient"), ("Patient",)):
        await exported(store, here, *types)
        await exported(store, there, *types)
        assert contents(there) == contents(here) | {"notes.txt": b"a foreign file"}
    assert not any(name.startswith("Device") for name in there.names())
    assert {name for name in there._all_names() if name.startswith(".")} == set(), "nothing is left beside the files"


async def test_a_remote_export_is_partitioned_into_folders_and_the_next_one_removes_them(
    store: Store, tmp_path: Path, url: str
) -> None:
    await fill(store, [patient("a"), {"resourceType": "Device", "id": "d1"}])
    here, there = LocalFolder(tmp_path / "here"), RemoteFolder(url)
    for out in (here, there):
        async with store.snapshot(Selection()) as snapshot:
            await export(ExportRequest(out=out, partition_by="type"), snapshot)
    for name in ("type=Patient/Patient.ndjson.gz", "type=Device/Device.ndjson.gz", "manifest.json"):
        assert b"".join(there.chunks(name)) == b"".join(here.chunks(name))
    await exported(store, there, "Patient", formats=("ndjson",))
    assert there._fs.find(there._root) == [there._path(name) for name in ("Patient.ndjson.gz", "manifest.json")]
    assert not [name for name in there.names() if name.startswith("type")]


class Broken(RemoteFolder):
    """Breaks off at a step: while files are uploaded, or while they are moved to their names."""

    def __init__(self, url: str, *, staged: int = 99, placed: int = 99) -> None:
        super().__init__(url)
        self.left = {"stage": staged, "place": placed}

    def stage(self, part: AtomicFile, sealed: DeliveredFile) -> Staged:
        self._step("stage")
        return super().stage(part, sealed)

    def place_staged(self, name: str) -> None:
        self._step("place")
        super().place_staged(name)

    def _step(self, step: str) -> None:
        self.left[step] -= 1
        if self.left[step] < 0:
            raise Killed

    def _clear_staged(self) -> None:
        if min(self.left.values()) >= 0:  # a killed export removes nothing
            super()._clear_staged()


async def test_an_interrupted_remote_export_is_never_partly_visible(store: Store, tmp_path: Path, url: str) -> None:
    there = RemoteFolder(url)
    await fill(store, [patient("a")])
    await exported(store, there)
    first = contents(there)
    await fill(store, [patient("b"), {"resourceType": "Device", "id": "d1"}])
    with pytest.raises(Killed):
        await exported(store, Broken(url, staged=2))
    assert contents(there) == first, "while files are uploaded, the former export is there as it was"
    with pytest.raises(Killed):
        await exported(store, Broken(url, placed=2))
    assert "manifest.json" not in there.names(), "while files are moved, nothing says what they are"
    await exported(store, there, "Patient", formats=("ndjson",))
    await exported(store, LocalFolder(tmp_path / "here"), "Patient", formats=("ndjson",))
    assert contents(there) == contents(LocalFolder(tmp_path / "here"))
    assert {name for name in there._all_names() if name.startswith(".")} == set()


async def test_a_remote_export_is_read_back_before_it_replaces_the_former_one(store: Store, url: str) -> None:
    class Lossy(RemoteFolder):
        """Loses the end of what it takes."""

        def chunks(self, name: str) -> Iterator[bytes]:
            for chunk in super().chunks(name):
                yield chunk[:-1] if "Patient" in name else chunk

    await fill(store, [patient("a")])
    with pytest.raises(DestinationError, match=r"Patient\.ndjson\.gz reads back differently from what was written"):
        await exported(store, Lossy(url))
    assert RemoteFolder(url)._all_names() == frozenset()


async def test_only_encrypted_files_reach_a_remote_folder(store: Store, url: str) -> None:
    await fill(store, [patient("a")])
    identity = pyrage.x25519.Identity.generate()
    there = RemoteFolder(url)
    request = ExportRequest(out=there, recipients=recipients_of([str(identity.to_public())]))
    async with store.snapshot(Selection()) as snapshot:
        await export(request, snapshot)
    found = contents(there)
    assert found.keys() == {"Patient.ndjson.gz.age", "manifest.json"}
    assert b'"id": "a"' in gzip.decompress(pyrage.decrypt(found["Patient.ndjson.gz.age"], [identity]))


async def test_an_export_into_a_remote_dataset_is_refused(store: Store, url: str) -> None:
    await fill(store, [patient("a")])
    there = RemoteFolder(url)
    request = PublishRequest(connections=("site",))
    await publish(request, there, lambda since: store.snapshot(Selection(changed_since=since)))
    before = contents(there)
    with pytest.raises(DestinationError, match="published dataset, which others follow"):
        await exported(store, there)
    assert contents(there) == before


def test_a_file_url_is_a_local_folder_and_a_malformed_url_is_refused(tmp_path: Path) -> None:
    assert str(destination_of(f"file://{tmp_path}/my%20charts")) == str(destination_of(f"{tmp_path}/my charts"))
    for place in ("file://elsewhere/charts", "file://"):
        with pytest.raises(PlanError, match="names a folder on this machine"):
            destination_of(place)
    with pytest.raises(PlanError, match="s3:/bucket/charts is neither a folder nor a URL; a URL starts with s3://"):
        destination_of("s3:/bucket/charts")
    with pytest.raises(PlanError, match="- would be stdin or stdout, which is one file; name a folder"):
        destination_of("-")
    with pytest.raises(PlanError, match="is not a URL"):
        destination_of("sftp://carrier:hunter2@[x/charts")


async def test_a_missing_bucket_is_reported_and_not_created(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, [patient("a")])
    with s3(tmp_path, monkeypatch), pytest.raises(DestinationError, match="make the bucket"):
        await exported(store, RemoteFolder("s3://nowhere/nightly"))
    with s3(tmp_path, monkeypatch), pytest.raises(DestinationError, match="make the bucket"):
        RemoteFolder("s3://nowhere/nightly").put("manifest.json", b"{}")


def test_an_unreachable_destination_is_named_without_its_password() -> None:
    with socket.socket() as taken:  # bound, and listening to nobody
        taken.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{taken.getsockname()[1]}/x"
        with pytest.raises(DestinationError, match=f"sftp://{where} cannot be reached") as caught:
            RemoteFolder(f"sftp://carrier:hunter2@{where}")
    assert "hunter2" not in str(caught.value)


def test_an_unknown_url_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PlanError, match="no destination has ftp:// URLs; allowed: file, s3, gs, az, sftp, or a folder"):
        RemoteFolder("ftp://example.org/x")
    with pytest.raises(PlanError, match=r"pip install 'chartferry\[gs\]'"):
        RemoteFolder("gs://bucket/x")
