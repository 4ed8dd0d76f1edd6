"""Exports as one DuckDB file: its tables are those of the Parquet files, and it is delivered as every file is."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import duckdb
import pytest

from exports.delivery.destination import LocalFolder
from exports.errors import PlanError, ViewDataError
from exports.plan import ExportRequest
from exports.run import ExportResult, export
from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.exports.charts import fill, names_in, patient, view_file

pytestmark = pytest.mark.anyio
ODD = {
    "resourceType": "Observation",
    "id": "o1",
    "valueQuantity": {"value": "q12h"},
    "effectiveDateTime": "2020-01-02T03:04:05-05:00",
}
PLAIN = {"resourceType": "Observation", "id": "o2", "valueQuantity": {"value": 1.50}, "category": [{"text": "x"}]}
COUNT = "-- @name: count\n-- @relatedDependency: patient as p\nSELECT count(*) AS n, 0.10 AS share FROM p\n"


async def exported(store: Store, request: ExportRequest) -> ExportResult:
    async with store.snapshot(Selection()) as snapshot:
        return await export(request, snapshot)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_each_view_and_query_is_a_table_equal_to_its_parquet_file(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", birthDate="2000-02-29"), patient("b"), ODD, PLAIN])
    (tmp_path / "count.sql").write_text(COUNT)
    out = tmp_path / "out"
    request = ExportRequest(out=LocalFolder(out), formats=("duckdb", "parquet"), queries=(tmp_path / "count.sql",))
    result = await exported(store, request)
    tables = {path.stem for path in out.glob("*.parquet")}
    with duckdb.connect(str(out / "charts.duckdb"), read_only=True) as database:
        assert {row[0] for row in database.sql("SHOW TABLES").fetchall()} == tables
        assert len(tables) == 37
        for name in tables:
            in_table, in_file = (
                database.sql(f"DESCRIBE FROM {one}").fetchall() for one in (name, f"'{out}/{name}.parquet'")
            )
            assert in_table == in_file
            for one, other in ((name, f"'{out}/{name}.parquet'"), (f"'{out}/{name}.parquet'", name)):
                assert database.sql(f"FROM {one} EXCEPT ALL FROM {other}").fetchall() == []
    parquet = {file.path.split(".")[0]: file for file in result.files if file.kind == "parquet"}
    (file,) = (one for one in result.files if one.kind == "duckdb")
    assert file.tables is not None
    assert {name: (one.rows, one.left_empty) for name, one in file.tables.items()} == {
        name: (one.rows, one.left_empty) for name, one in parquet.items()
    }
    assert file.tables["observation"].left_empty == {"value_quantity": 1}
    assert file.rows == sum(one.rows for one in parquet.values())


async def test_a_duckdb_file_is_delivered_and_described_like_any_other(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    request = ExportRequest(out=LocalFolder(tmp_path), formats=("duckdb",), views=("patient", "patient_name"))
    await exported(store, request)
    assert names_in(tmp_path) == {"charts.duckdb", "datapackage.json", "data_dictionary.csv", "manifest.json"}
    made = tmp_path / "charts.duckdb"
    assert made.stat().st_mode & 0o777 == 0o600
    (file,) = json.loads((tmp_path / "manifest.json").read_bytes())["files"]
    assert file["sha256"] == hashlib.sha256(made.read_bytes()).hexdigest()
    assert file["tables"] == {"patient": {"rows": 1}, "patient_name": {"rows": 0}}
    described = json.loads((tmp_path / "datapackage.json").read_bytes())["resources"]
    assert [(one["path"], one["dialect"]) for one in described] == [
        ("charts.duckdb", {"table": "patient"}),
        ("charts.duckdb", {"table": "patient_name"}),
    ]
    with duckdb.connect(str(made), read_only=True) as database:
        assert [field["name"] for field in described[0]["schema"]["fields"]] == database.table("patient").columns


async def test_a_failed_export_leaves_the_former_file_and_nothing_else(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a"), ODD])
    await exported(store, ExportRequest(out=LocalFolder(tmp_path), formats=("duckdb",), views=("patient",)))
    former = contents(tmp_path)
    request = ExportRequest(out=LocalFolder(tmp_path), formats=("duckdb",), views=("observation",), strict=True)
    with pytest.raises(ViewDataError):
        await exported(store, request)
    assert contents(tmp_path) == former


async def test_without_duckdb_installed_nothing_is_written_and_the_install_command_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.delitem(sys.modules, "exports.formats.duckdb_file", raising=False)
    await fill(store, [patient("a")])
    with pytest.raises(PlanError, match=r"pip install 'chartferry\[duckdb\]'"):
        await exported(store, ExportRequest(out=LocalFolder(tmp_path / "out"), formats=("ndjson", "duckdb")))
    assert not (tmp_path / "out").exists()


async def test_columns_whose_names_are_equal_to_duckdb_are_refused(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    view = view_file(tmp_path, "v", {"path": "id", "name": "id"}, {"path": "gender", "name": "ID"})
    with pytest.raises(PlanError, match="v would have two columns named id"):
        await exported(store, ExportRequest(out=LocalFolder(tmp_path / "out"), formats=("duckdb",), views=(view,)))
