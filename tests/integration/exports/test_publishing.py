"""Datasets that others follow: what is published night after night leads to an equal copy, whatever happens in between."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from exports.delivery.destination import LocalFolder
from exports.errors import DatasetError, DestinationError, PlanError
from exports.plan import ExportRequest
from exports.publishing.publish import ERASED, PublishRequest
from exports.run import FileProgress, export
from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.exports.charts import fill, patient, remove
from tests.integration.exports.datasets import (
    Killed,
    KilledAt,
    files_in,
    killing,
    live,
    night,
    published,
    static,
    verified,
)
from tests.integration.exports.follower import Follower

pytestmark = pytest.mark.anyio


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Each file's content, and when it was written."""
    return {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in files_in(folder).items()}


def rewrite(folder: Path, old: str, new: str) -> None:
    """Change what all pages say."""
    for path in files_in(folder, "*.json").values():
        path.write_text(path.read_text().replace(old, new))


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


@pytest.mark.quick
async def test_a_rerun_reuses_the_files_of_a_killed_publication(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a"), {"resourceType": "Device", "id": "d"}])

    def kill(progress: FileProgress) -> None:
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
async def test_a_chain_that_has_lost_a_part_is_restarted_and_says_why(store: Store, tmp_path: Path, loss: str) -> None:
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


async def test_a_dataset_of_another_store_is_replaced(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    await published(store, tmp_path)
    rewrite(tmp_path, '"valueInstant": "2', '"valueInstant": "1')
    assert (await published(store, tmp_path)).why == "the store's run 1 is not the one that was published"
    rewrite(tmp_path, '"valuePositiveInt": 1', '"valuePositiveInt": 9')
    assert (await published(store, tmp_path)).why == "the store has no run 9, which was published"


async def test_a_different_request_makes_a_new_snapshot_and_closes_the_chain(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a"), {"resourceType": "Device", "id": "d"}])
    await published(store, tmp_path)
    with static(tmp_path) as url:
        follower = Follower(url)
        follower.poll()
        narrow = PublishRequest(connections=("site",), types=("Patient",))
        assert (await published(store, tmp_path, narrow)).what == "snapshot"
        follower.poll()
    assert (set(follower.copy), follower.begun) == ({("Patient", "a")}, 2)


async def test_named_patients_who_are_not_stored_are_counted_each_time(store: Store, tmp_path: Path) -> None:
    request = PublishRequest(connections=("site",), patients=("a", "MRN-7"))
    for person in (patient("a"), patient("a", gender="male")):
        await fill(store, [person])
        (note,) = (await published(store, tmp_path, request)).notes
        assert note.startswith("the store has no Patient for 1 of the 2 patients named")


async def test_pages_with_a_base_url_have_absolute_urls(store: Store, tmp_path: Path) -> None:
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


async def test_after_an_erasure_a_follower_starts_over_and_no_file_has_the_chart(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("kept"), patient("gone")])
    with static(tmp_path) as url:
        await published(store, tmp_path)
        follower = Follower(url)
        follower.poll()
        await store.erase("site", "gone")
        assert (await published(store, tmp_path)).why == ERASED  # though no run has ended since
        follower.poll()
        assert (set(follower.copy), follower.begun) == ({("Patient", "kept")}, 2)
    assert not [name for name, path in files_in(tmp_path).items() if "gone" in path.read_text()]
    assert (await published(store, tmp_path)).what == "unchanged"


async def test_a_publication_killed_after_an_erasure_leaves_the_next_no_file_with_the_chart(
    store: Store, tmp_path: Path
) -> None:
    await fill(store, [patient("kept"), patient("gone"), {"resourceType": "Device", "id": "d"}])
    await published(store, tmp_path / "first")
    await store.erase("site", "gone")
    for at in range(20):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "first", folder)
        with suppress(Killed):
            await published(store, KilledAt(folder, at))
        await published(store, folder)
        assert not [name for name, path in files_in(folder).items() if "gone" in path.read_text()]
        assert verified(folder).problems == []


async def test_a_publication_overtaken_by_an_erasure_reuses_none_of_its_files(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("kept"), patient("gone"), {"resourceType": "Zygote", "id": "z"}])

    def kill(progress: FileProgress) -> None:
        if progress.file.startswith("Zygote"):
            raise Killed

    with pytest.raises(Killed):
        await published(store, tmp_path, on_progress=kill)
    await store.erase("site", "gone")
    await published(store, tmp_path)
    assert not [name for name, path in files_in(tmp_path).items() if "gone" in path.read_text()]


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
            await export(ExportRequest(out=LocalFolder(tmp_path)), snapshot)
    assert contents(tmp_path) == before
