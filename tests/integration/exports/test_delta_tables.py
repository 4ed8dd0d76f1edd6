"""Views loaded into Delta tables: what an analyst finds there after each night, and after a load that broke off."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from exports.delivery.destination import LocalFolder
from exports.delivery.remote_folder import RemoteFolder
from exports.errors import PlanError, ViewDataError, WarehouseError
from exports.plan import ExportRequest
from exports.run import FileProgress, export
from exports.warehouse.delta import DeltaFolder, DeltaTables
from exports.warehouse.load import Loaded, WarehouseRequest, load_warehouse
from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.exports.charts import fill, patient, remove, view_file

pytestmark = pytest.mark.anyio
KEYS = ({"name": "site", "path": "%connection"}, {"name": "key", "path": "getResourceKey()", "type": "id"})
GENDER = {"name": "gender", "path": "gender", "type": "code"}
BORN = {"name": "born", "path": "birthDate", "type": "date"}
OBSERVATION = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "subject": {"reference": "Patient/a"},
    "effectiveDateTime": "2020-02-29T03:04:05-05:00",
    "valueQuantity": {"value": 1.50},
}


async def load(
    store: Store, lake: Path | str, *views: str, since: int | None = None, as_of: int | None = None, **more: Any
) -> Loaded:
    request = WarehouseRequest(into=DeltaFolder(str(lake)), views=views, **more)
    async with store.snapshot(Selection(changed_since=since, as_of=as_of)) as snapshot:
        return await load_warehouse(request, snapshot)


def rows(lake: Path, table: str, *columns: str) -> list[tuple[Any, ...]]:
    found = DeltaTable(lake / table).to_pyarrow_table(columns=list(columns)).to_pylist()
    return sorted((tuple(one[name] for name in columns) for one in found), key=str)


def commits(lake: Path, table: str) -> int:
    return len(DeltaTable(lake / table).history())


async def test_each_view_is_a_table_with_the_rows_and_types_of_its_parquet_file(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", birthDate="2000-02-29", active=True, name=[{"text": 'a "b",\n'}]), OBSERVATION])
    lake, files = tmp_path / "lake", tmp_path / "files"
    done = await load(store, lake)
    async with store.snapshot(Selection()) as snapshot:
        await export(ExportRequest(out=LocalFolder(files), formats=("parquet",)), snapshot)
    assert [one.name for one in done.tables] == sorted(path.stem for path in files.glob("*.parquet"))
    for one in done.tables:
        table, file = DeltaTable(lake / one.name).to_pyarrow_table(), pq.read_table(files / f"{one.name}.parquet")
        assert table.to_pylist() == file.to_pylist()
        assert [(each.name, each.type) for each in table.schema] == [(each.name, each.type) for each in file.schema]
        assert commits(lake, one.name) == 1
    assert not [path for path in (lake, *lake.rglob("*")) if path.stat().st_mode & 0o077]


async def test_changes_replace_and_delete_the_rows_of_their_resources_in_one_commit(
    store: Store, tmp_path: Path
) -> None:
    await fill(store, [patient(id_, gender="male") for id_ in "abcd"])
    await fill(store, [patient("a", gender="other")], connection="another")
    lake, view = tmp_path / "lake", view_file(tmp_path, "people", *KEYS, GENDER, where=[{"path": "gender.exists()"}])
    first = await load(store, lake, view)
    await fill(store, [patient("a", gender="female"), patient("b"), patient("e", gender="male")])
    await remove(store, "c")
    done = await load(store, lake, view, since=first.left_by)
    assert [(one.rows, one.deleted) for one in done.tables] == [(2, 3)]
    assert rows(lake, "people", "key", "gender") == [("a", "female"), ("a", "other"), ("d", "male"), ("e", "male")]
    assert commits(lake, "people") == 2
    again = await load(store, lake, view, since=done.left_by)
    assert ([(one.rows, one.deleted) for one in again.tables], commits(lake, "people")) == ([(0, 0)], 2)
    await fill(store, [patient("f", gender="male")])
    with pytest.raises(WarehouseError, match=f"not what run {first.left_by} left: name run {done.left_by}"):
        await load(store, lake, view, since=first.left_by)


async def test_a_load_interrupted_between_two_tables_continues(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, [patient("a", gender="male")])
    lake = tmp_path / "lake"
    views = [view_file(tmp_path, name, *KEYS, GENDER) for name in ("first", "second")]
    before = await load(store, lake, *views)
    await fill(store, [patient("a", gender="female"), patient("b", gender="female")])
    (lake / "second" / "_delta_log" / "00000000000000000001.json").mkdir()  # its commit fails
    with pytest.raises(
        WarehouseError, match=r"Delta table second in .* cannot be written .* run the same command again"
    ):
        await load(store, lake, *views, since=before.left_by)
    new = [("a", "female"), ("b", "female")]
    (lake / "second" / "_delta_log" / "00000000000000000001.json").rmdir()
    assert (rows(lake, "first", "key", "gender"), rows(lake, "second", "key", "gender")) == (new, [("a", "male")])
    await fill(store, [patient("c", gender="male")])
    left = (before.left_by or 0) + 1
    with pytest.raises(
        WarehouseError, match=rf"name run {left}, or finish a load that broke off .* with --as-of {left}, or load"
    ):
        await load(store, lake, *views, since=before.left_by)
    done = await load(store, lake, *views, since=before.left_by, as_of=left)
    assert [(one.name, one.rows) for one in done.tables] == [("first", 0), ("second", 2)]
    assert (rows(lake, "first", "key", "gender"), rows(lake, "second", "key", "gender")) == (new, new)
    assert (commits(lake, "first"), commits(lake, "second")) == (2, 2)


async def test_a_second_load_replaces_the_rows_adds_columns_and_empties_removed_ones(
    store: Store, tmp_path: Path
) -> None:
    await fill(store, [patient("a", gender="male", birthDate="2000-01-01"), patient("b")])
    lake = tmp_path / "lake"
    await load(store, lake, view_file(tmp_path, "people", *KEYS, GENDER))
    done = await load(store, lake, view_file(tmp_path, "people", BORN, *KEYS))
    (table,) = done.tables
    assert (table.rows, table.deleted, table.added, table.unfilled) == (2, 2, ("born", "born_written"), ("gender",))
    assert rows(lake, "people", "key", "gender", "born_written") == [("a", None, "2000-01-01"), ("b", None, None)]
    retyped = {"name": "gender", "path": "multipleBirth.ofType(integer)", "type": "integer"}
    with pytest.raises(WarehouseError, match="gender now has another type"):
        await load(store, lake, view_file(tmp_path, "people", *KEYS, retyped))


async def test_a_load_that_fails_before_its_commits_changes_no_table(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", gender="male")])
    lake, good = tmp_path / "lake", view_file(tmp_path, "people", *KEYS, GENDER)
    await load(store, lake, good)
    await fill(store, [patient("a", gender="female", multipleBirthInteger="two")])
    odd = view_file(tmp_path, "zodiac", {"name": "n", "path": "multipleBirth.ofType(integer)", "type": "integer"})
    with pytest.raises(ViewDataError):
        await load(store, lake, good, odd, strict=True)
    assert (rows(lake, "people", "key", "gender"), commits(lake, "people")) == ([("a", "male")], 1)
    assert not (lake / "zodiac").exists()


@pytest.mark.parametrize("place", ["s3://[x", "file:///srv/charts"])
def test_a_url_that_no_table_can_be_at_is_not_taken_for_a_folder(place: str) -> None:
    with pytest.raises(PlanError, match="a folder, or"):
        DeltaFolder(place)


async def test_a_foreign_table_and_names_that_are_equal_to_delta_are_refused(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", gender="male")])
    lake = tmp_path / "lake"
    write_deltalake(lake / "people", pa.table({"key": ["theirs"]}))
    with pytest.raises(WarehouseError, match=r"people in .*lake is not chartferry's"):
        await load(store, lake, view_file(tmp_path, "people", *KEYS, GENDER))
    with pytest.raises(PlanError, match="two columns named gender"):
        await load(store, lake, view_file(tmp_path, "people", *KEYS, GENDER, {**GENDER, "name": "GENDER"}))
    assert rows(lake, "people", "key") == [("theirs",)]


def restored(table: DeltaTable) -> None:
    table.restore(0)


def cleaned_up(table: DeltaTable) -> None:
    """What Delta does to commits of more than 30 days ago."""
    table.delete("gender = 'none'")
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    table.create_checkpoint()
    for commit in (Path(table.table_uri.removeprefix("file://")) / "_delta_log").glob("*.json"):
        os.utime(commit, (0, 0))
    table.cleanup_metadata()


@pytest.mark.parametrize("forget", [restored, cleaned_up], ids=lambda one: one.__name__)
async def test_a_table_that_has_lost_its_description_is_loaded_whole(
    store: Store, tmp_path: Path, forget: Callable[[DeltaTable], None]
) -> None:
    await fill(store, [patient("a", gender="male")])
    lake, view = tmp_path / "lake", view_file(tmp_path, "people", *KEYS, GENDER)
    first = await load(store, lake, view)
    await fill(store, [patient("a", gender="female")])
    second = await load(store, lake, view, since=first.left_by)
    forget(DeltaTable(lake / "people"))
    with pytest.raises(
        WarehouseError, match=r"people in .* no longer has the comment that says what it holds: load it whole"
    ):
        await load(store, lake, view, since=second.left_by)
    await load(store, lake, view)
    assert rows(lake, "people", "key", "gender") == [("a", "female")]


@pytest.mark.parametrize("is_there", [True, False])
async def test_foreign_writes_during_a_load_are_left_unchanged(store: Store, tmp_path: Path, is_there: bool) -> None:
    await fill(store, [patient("a", gender="male")])
    lake, view = tmp_path / "lake", view_file(tmp_path, "people", *KEYS, GENDER)
    if is_there:
        await load(store, lake, view)

    def write(progress: FileProgress) -> None:
        if progress.done:
            write_deltalake(lake / "people", pa.table({"key": ["theirs"]}), mode="append", schema_mode="merge")

    request = WarehouseRequest(into=DeltaFolder(str(lake)), views=(view,))
    async with store.snapshot(Selection()) as snapshot:
        with pytest.raises(WarehouseError, match="somebody else has written into the Delta table people"):
            await load_warehouse(request, snapshot, on_progress=write)
    assert rows(lake, "people", "key") == ([("a",)] if is_there else []) + [("theirs",)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """In a separate process: the library blocks the interpreter while it waits for the server."""
    served = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"
    with subprocess.Popen([sys.executable, "-u", "-c", served], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = next(line.split()[-1] for line in server.stderr if "Running on" in line)
        given = {"ENDPOINT_URL": url, "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "REGION": "us-east-1"}
        for name, value in {**given, "DEFAULT_REGION": "us-east-1", "ALLOW_HTTP": "true"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        RemoteFolder("s3://lake")._fs.mkdir("lake")
        yield "s3://lake/charts"
        server.terminate()


async def test_tables_in_a_bucket_follow_the_changes(store: Store, tmp_path: Path, bucket: str) -> None:
    await fill(store, [patient("a", gender="male"), patient("b", gender="male")])
    view = view_file(tmp_path, "people", *KEYS, GENDER)
    first = await load(store, bucket, view)
    await fill(store, [patient("b", gender="female")])
    await remove(store, "a")
    await load(store, bucket, view, since=first.left_by)
    assert DeltaTable(f"{bucket}/people").to_pyarrow_table().to_pylist() == [
        {"site": "site", "key": "b", "gender": "female"}
    ]


async def test_keys_are_read_as_they_are_in_csv(tmp_path: Path) -> None:
    text = io.StringIO(newline="")
    keys = [("connection", "id"), ("site", "a,b"), ("site", 'c"d\ne')]
    csv.writer(text, lineterminator="\n").writerows(keys)

    async def chunks() -> Any:
        yield text.getvalue().encode()

    tables = DeltaTables(DeltaFolder(str(tmp_path)), tmp_path)
    await tables.note_keys("Patient", chunks())
    assert tables._noted == {"Patient": set(keys[1:])}
