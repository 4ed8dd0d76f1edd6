"""Exports in the folders of Hive: what an analyst's readers find in them, and what never names a folder."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import rmtree
from typing import Any

import duckdb
import pandas as pd
import pyarrow.dataset as ds
import pytest

from exports.delivery.destination import LocalFolder
from exports.delivery.encryption import recipients_of
from exports.errors import DestinationError, PlanError
from exports.plan import ExportRequest
from exports.run import ExportResult, export
from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.exports.charts import fill, lines_of, patient, view_file

pytestmark = pytest.mark.anyio
READER = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
NULL = "status=__HIVE_DEFAULT_PARTITION__"


def observation(id_: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": id_, "subject": {"reference": "Patient/a"}, **more}


async def exported(store: Store, out: Path, **wanted: Any) -> ExportResult:
    wanted = {"formats": ("parquet",), "views": ("observation", "patient"), "partition_by": "status", **wanted}
    async with store.snapshot(Selection()) as snapshot:
        return await export(ExportRequest(out=LocalFolder(out), **wanted), snapshot)


def files_in(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


async def filled(store: Store) -> None:
    final = [observation(f"f{at}", status="final") for at in range(3)]
    await fill(store, [patient("a"), *final, observation("n"), observation("x", status="Zebulon Quill")])
    await fill(store, [observation("p", status="preliminary"), observation("q", status="final")], connection="b c")


async def test_a_partitioned_table_is_read_whole_by_duckdb_pandas_and_pyarrow(store: Store, tmp_path: Path) -> None:
    await filled(store)
    result = await exported(store, tmp_path)
    folders = {"status=final": 4, "status=preliminary": 1, NULL: 2}
    rows = {file.path: file.rows for file in result.files if file.kind == "parquet" and "observation" in file.path}
    assert rows == {f"observation/{folder}/observation.parquet": count for folder, count in folders.items()}
    assert "patient.parquet" in files_in(tmp_path), "it has no such column"
    package = json.loads((tmp_path / "datapackage.json").read_bytes())
    (table,) = (one for one in package["resources"] if one["name"] == "observation.parquet")
    assert set(table["path"]) == rows.keys()
    assert json.loads((tmp_path / "manifest.json").read_bytes())["request"]["partition_by"] == "status"
    everything = [("f0", "final"), ("f1", "final"), ("f2", "final"), ("n", None), ("p", "preliminary"), ("q", "final")]
    place = f"{tmp_path}/observation/*/*.parquet"
    query = "SELECT key, status FROM read_parquet(?, hive_partitioning = {}) WHERE key <> 'x' ORDER BY key"
    assert duckdb.execute(query.format("false"), [place]).fetchall() == everything, "the column stays in the files"
    found = duckdb.execute(query.format("true").replace("<> 'x'", "LIKE 'f%'"), [place]).fetchall()
    assert found == everything[:3]
    dataset = ds.dataset(tmp_path / "observation", format="parquet", partitioning="hive")
    assert dataset.to_table(filter=ds.field("status") == "final").num_rows == 4
    assert len(pd.read_parquet(tmp_path / "observation" / "status=final")) == 4


async def test_the_next_export_removes_only_the_former_ones_folders(store: Store, tmp_path: Path) -> None:
    await filled(store)
    await exported(store, tmp_path, formats=("csv",), part_size=1)
    assert "observation/status=final/observation.0001.csv.gz" in files_in(tmp_path)
    (tmp_path / "observation" / "notes.txt").write_text("theirs")
    await exported(store, tmp_path, formats=("csv",), partition_by=None)
    tables = {"observation.csv.gz", "patient.csv.gz"}
    beside = {"manifest.json", "datapackage.json", "data_dictionary.csv", "observation/notes.txt"}
    assert files_in(tmp_path) == tables | beside
    assert [path.name for path in (tmp_path / "observation").iterdir()] == ["notes.txt"]
    theirs = tmp_path / "observation" / "status=final" / "observation.csv.gz"
    theirs.parent.mkdir()
    theirs.write_bytes(b"precious")
    with pytest.raises(
        DestinationError, match=r"observation/status=final/observation\.csv\.gz .* was not written by an export"
    ):
        await exported(store, tmp_path, formats=("csv",))
    assert theirs.read_bytes() == b"precious"


async def test_a_file_in_place_of_a_partition_folder_stops_an_export_before_it_replaces_anything(
    store: Store, tmp_path: Path
) -> None:
    await filled(store)
    await exported(store, tmp_path, formats=("csv",), views=("patient",), partition_by=None)
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}
    for theirs in (tmp_path / "observation", tmp_path / "observation" / "status=final"):
        theirs.write_bytes(b"precious")
        with pytest.raises(DestinationError, match=rf"{theirs.name}, a file where a folder .* nothing was replaced"):
            await exported(store, tmp_path, formats=("csv",))
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
        theirs.unlink()
        (tmp_path / "observation").mkdir(exist_ok=True)
    await exported(store, tmp_path, formats=("csv",))
    rmtree(tmp_path / "observation")
    (tmp_path / "observation").write_bytes(b"precious")
    await exported(store, tmp_path, formats=("csv",), views=("patient",), partition_by=None)
    assert files_in(tmp_path) == {*before, "observation"}


async def test_folders_are_named_by_connection_or_type_and_escaped(store: Store, tmp_path: Path) -> None:
    await filled(store)
    await exported(store, tmp_path, formats=("ndjson",), views=(), partition_by="type")
    assert {path for path in files_in(tmp_path) if "/" in path} == {
        "type=Observation/Observation.ndjson.gz", "type=Patient/Patient.ndjson.gz",
    }  # fmt: skip
    assert len(lines_of(tmp_path / "type=Observation" / "Observation.ndjson.gz")) == 7
    await exported(store, tmp_path, formats=("csv",), partition_by="connection")
    assert {path for path in files_in(tmp_path) if path.startswith(("observation", "patient", "type"))} == {
        "observation/connection=b%20c/observation.csv.gz",
        "observation/connection=site/observation.csv.gz",
        "patient/connection=site/patient.csv.gz",
    }


async def test_values_that_may_identify_a_patient_never_name_a_folder(store: Store, tmp_path: Path) -> None:
    await filled(store)
    key = {"name": "status", "path": "id"}
    by_status = view_file(tmp_path, "people", key)
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        (
            {"partition_by": "gender"},
            r"in patient it may say something about patients.*; allowed: type, connection, status",
        ),
        ({"partition_by": "patient_key"}, "it may say something about patients"),
        ({"views": (by_status,)}, "in people it may say something about patients.*; allowed: type"),
        ({"partition_by": "zodiac"}, "no view that is exported has such a column"),
        ({"partition_by": "type"}, "divides NDJSON, which is not exported"),
        ({"formats": ("duckdb",)}, "--format csv or parquet"),
        ({"formats": ("csv", "parquet")}, "readers read a whole folder"),
    )
    for wanted, why in refused:
        with pytest.raises(PlanError, match=why):
            await exported(store, tmp_path / "out", **wanted)
    await exported(
        store,
        tmp_path / "out",
        recipients=recipients_of([READER]),
    )
    assert not [name for name in files_in(tmp_path / "out") if "Quill" in name]


async def test_an_empty_table_still_has_a_file(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    result = await exported(store, tmp_path, formats=("csv",), views=("observation",))
    assert [(file.path, file.rows) for file in result.files] == [(f"observation/{NULL}/observation.csv.gz", 0)]
