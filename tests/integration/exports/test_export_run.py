"""Exports of a real store: what lands in the folder, and that it is true."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from exports.catalogue import builtin_names
from exports.delivery.destination import LocalFolder
from exports.delivery.files import AtomicFile, DeliveredFile, Staged
from exports.errors import DestinationError, PlanError, ViewDataError, ViewError
from exports.plan import ExportRequest
from exports.run import FileProgress, export
from snapshots.record import Batch
from snapshots.report import RunScope
from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.exports.charts import (
    fill,
    lines_of,
    names_in,
    patient,
    record,
    remove,
    table_header,
    table_of,
    view_file,
)

pytestmark = pytest.mark.anyio
ABOUT = {"datapackage.json", "data_dictionary.csv"}


async def exported(store: Store, request: ExportRequest, *, sessions: int = 1) -> None:
    """Export everything in a separate snapshot, which then has ended: the audit has what was exported."""
    async with store.snapshot(Selection()) as snapshot:
        await export(request, snapshot, sessions=sessions)


@pytest.mark.quick
async def test_ndjson_of_every_type_is_the_default(store: Store, tmp_path: Path) -> None:
    device = {"resourceType": "Device", "id": "d1"}
    await fill(store, [patient("b"), patient("a", multipleBirthInteger=2), device])
    async with store.snapshot(Selection()) as snapshot:
        result = await export(ExportRequest(out=LocalFolder(tmp_path / "out")), snapshot)
    assert [file.path for file in result.files] == ["Device.ndjson.gz", "Patient.ndjson.gz"]
    assert lines_of(tmp_path / "out" / "Device.ndjson.gz") == [device]
    assert [line["id"] for line in lines_of(tmp_path / "out" / "Patient.ndjson.gz")] == ["a", "b"]
    assert result.rows == 3


async def test_the_manifest_has_the_row_counts_and_checksums_of_the_files(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a"), patient("b")])
    async with store.snapshot(Selection()) as snapshot:
        result = await export(ExportRequest(out=LocalFolder(tmp_path), formats=("csv", "ndjson")), snapshot)
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    assert manifest["runs"] == [one.run for one in result.runs] == [manifest["left_by"]]
    assert len(manifest["files"]) == 1 + len(builtin_names())
    assert {file["path"] for file in manifest["descriptions"]} == ABOUT, "what describes the data is not among them"
    for file in manifest["files"]:
        content = (tmp_path / file["path"]).read_bytes()
        plain = gzip.decompress(content) if file["path"].endswith(".gz") else content
        assert file["bytes"] == len(content)
        assert file["uncompressed_bytes"] == len(plain)
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        rows = plain.count(b"\n") - (file["kind"] == "csv")
        assert file["rows"] == rows
    assert names_in(tmp_path) - ABOUT == {"manifest.json", *(file["path"] for file in manifest["files"])}


async def test_equal_requests_on_equal_runs_give_equal_bytes(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient(f"p{number}", gender="other") for number in range(50)])
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        async with store.snapshot(Selection()) as snapshot:
            await export(ExportRequest(out=LocalFolder(folder), formats=("ndjson", "csv")), snapshot)
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert first == second


async def test_several_sessions_give_the_same_bytes_as_one(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient(f"p{number}", gender="other") for number in range(50)])
    for sessions in (1, 3):
        async with store.snapshot(Selection()) as snapshot:
            request = ExportRequest(out=LocalFolder(tmp_path / str(sessions)), formats=("ndjson", "csv"))
            await export(request, snapshot, sessions=sessions)
    one, three = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("1", "3"))
    assert one == three


async def test_an_error_in_one_session_stops_all_and_is_the_error_of_the_export(store: Store, tmp_path: Path) -> None:
    odd = {"resourceType": "Observation", "id": "o", "valueQuantity": {"value": "q12h"}}
    await fill(store, [odd, *(patient(f"p{number}") for number in range(50))])
    request = ExportRequest(out=LocalFolder(tmp_path), formats=("csv",), strict=True)
    with pytest.raises(ViewDataError, match="observation"):
        await exported(store, request, sessions=2)
    assert names_in(tmp_path) == set()


async def test_files_and_folder_are_readable_by_their_owner_only(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    async with store.snapshot(Selection()) as snapshot:
        await export(ExportRequest(out=LocalFolder(tmp_path / "out")), snapshot)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o600}


async def test_a_failed_export_leaves_the_former_one_unchanged(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", name=[{"family": "Quill"}, {"family": "Wren"}])])
    view = view_file(tmp_path, "names", {"path": "name.family", "name": "family"})
    out = tmp_path / "out"
    await exported(store, ExportRequest(out=LocalFolder(out)))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ViewDataError, match=r"view 'names': column family .* --strict") as caught:
        await exported(
            store, ExportRequest(out=LocalFolder(out), formats=("ndjson", "csv"), views=(view,), strict=True)
        )
    assert "Quill" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


async def test_files_that_only_the_former_export_listed_are_removed_and_foreign_files_stay(
    store: Store, tmp_path: Path
) -> None:
    await fill(store, [patient("a"), {"resourceType": "Device", "id": "d"}])
    (tmp_path / "notes.csv.gz").write_text("mine")
    await exported(store, ExportRequest(out=LocalFolder(tmp_path), views=("patient", "encounter")))
    (tmp_path / "condition.csv.gz").write_text("mine too")
    await exported(store, ExportRequest(out=LocalFolder(tmp_path), formats=("ndjson", "csv"), views=("patient",)))
    kept = {
        "notes.csv.gz",
        "condition.csv.gz",
        "patient.csv.gz",
        "Patient.ndjson.gz",
        "Device.ndjson.gz",
        "manifest.json",
    }
    assert names_in(tmp_path) == kept | ABOUT


async def test_odd_values_are_empty_cells_that_the_manifest_counts(store: Store, tmp_path: Path) -> None:
    values = [
        {"valueQuantity": {"value": "q12h"}},
        {"valueInteger": 3.5},
        {"valueInteger": "7"},
        {"valueBoolean": "yes"},
    ]
    values += [
        {"valueQuantity": {"value": 1.50}},
        {"valueInteger": 99999999999},
        {"issued": "soon"},
        {"valueInteger": 3},
    ]
    await fill(store, [{"resourceType": "Observation", "id": f"o{at}", **one} for at, one in enumerate(values)])
    async with store.snapshot(Selection()) as snapshot:
        result = await export(ExportRequest(out=LocalFolder(tmp_path), formats=("csv",)), snapshot)
    rows = table_of(tmp_path / "observation.csv.gz")
    assert [row["value_quantity"] for row in rows] == ["", "", "", "", "1.5", "", "", ""]
    assert [row["value_integer"] for row in rows] == ["", "", "", "", "", "", "", "3"]
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    left_empty = {file["path"]: file.get("left_empty") for file in manifest["files"]}
    counts = {"issued": 1, "value_quantity": 1, "value_boolean": 1, "value_integer": 3}
    assert left_empty == {f"{name}.csv.gz": None for name in builtin_names()} | {"observation.csv.gz": counts}
    # in the order of the columns: equal requests give equal bytes
    assert list(left_empty["observation.csv.gz"]) == list(counts)
    assert result.rows == len(values)


async def test_parquet_has_the_rows_of_csv_typed_and_odd_values_are_null_and_counted(
    store: Store, tmp_path: Path
) -> None:
    values: list[dict[str, Any]] = [
        {"valueQuantity": {"value": "q12h"}, "effectiveDateTime": "2020-01-02T03:04:05-05:00"},
        {"valueQuantity": {"value": 1.50}, "effectivePeriod": {"start": "2019-12"}},
        {"valueString": "", "category": [{"coding": [{"code": "a"}, {"code": "b"}]}]},
    ]
    await fill(store, [{"resourceType": "Observation", "id": f"0{at}", **one} for at, one in enumerate(values)])
    async with store.snapshot(Selection()) as snapshot:
        result = await export(
            ExportRequest(out=LocalFolder(tmp_path), formats=("csv", "parquet"), views=("observation",)), snapshot
        )
    rows = pq.read_table(tmp_path / "observation.parquet").to_pylist()
    assert [row["key"] for row in rows] == ["00", "01", "02"]
    assert [row["effective_at"] for row in rows] == [datetime(2020, 1, 2, 8, 4, 5, tzinfo=UTC), None, None]
    assert [row["effective_at_written"] for row in rows] == ["2020-01-02T03:04:05-05:00", "2019-12", None]
    assert [row["value_quantity"] for row in rows] == [None, 1.5, None]
    assert [row["value_string"] for row in rows] == [None, None, ""]
    assert [row["category_codes"] for row in rows] == [[], [], ["a", "b"]]
    tables = {file.path: file for file in result.files if file.rows}
    assert {path: (file.rows, file.left_empty) for path, file in tables.items()} == {
        name: (3, {"value_quantity": 1}) for name in ("observation.csv.gz", "observation.parquet")
    }


async def test_files_may_be_uncompressed_and_csv_follows_its_dialect(store: Store, tmp_path: Path) -> None:
    family = "=cmd()"
    await fill(store, [patient("a", name=[{"family": family}]), patient("b")])
    request = ExportRequest(
        out=LocalFolder(tmp_path),
        formats=("ndjson", "csv"),
        views=("patient",),
        compression="zstd",
        csv_dialect="pandas",
    )
    async with store.snapshot(Selection()) as snapshot:
        await export(request, snapshot)
    zipped = names_in(tmp_path)
    async with store.snapshot(Selection()) as snapshot:
        with pytest.raises(PlanError, match="allowed: postgres, pandas, excel"):
            await export(replace(request, csv_dialect="lotus"), snapshot)
        await export(replace(request, compression="none", csv_dialect="excel"), snapshot)
    assert zipped == {"Patient.ndjson.zst", "patient.csv.zst", "manifest.json"} | ABOUT
    assert names_in(tmp_path) == {"Patient.ndjson", "patient.csv", "manifest.json"} | ABOUT
    rows = list(csv.DictReader(io.StringIO((tmp_path / "patient.csv").read_text("utf-8-sig"), newline="")))
    assert [row["family_name"] for row in rows] == [f"'{family}", ""]


async def test_tables_come_with_a_description_of_each_column(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    async with store.snapshot(Selection()) as snapshot:
        await export(
            ExportRequest(out=LocalFolder(tmp_path), formats=("csv", "parquet"), views=("vital_sign",)), snapshot
        )
    package = json.loads((tmp_path / "datapackage.json").read_bytes())
    by_path = {table["path"]: table["schema"]["fields"] for table in package["resources"]}
    header = table_header(tmp_path / "vital_sign.csv.gz")
    assert [field["name"] for field in by_path["vital_sign.csv.gz"]] == header
    typed = pq.read_schema(tmp_path / "vital_sign.parquet")
    assert [field["name"] for field in by_path["vital_sign.parquet"]] == typed.names
    value = next(field for field in by_path["vital_sign.parquet"] if field["name"] == "value_quantity")
    assert (value["type"], value["fhirType"]) == ("number", "decimal")
    assert value["fhirPath"] == [
        "Observation.value.ofType(Quantity).value", "Observation.component.value.ofType(Quantity).value"
    ]  # fmt: skip
    with (tmp_path / "data_dictionary.csv").open(newline="") as file:
        described = {row["column"]: row for row in csv.DictReader(file)}
    assert list(described) == typed.names
    assert all(row["meaning"] and row["fhir_path"] for row in described.values())


async def test_resources_that_a_views_criteria_cannot_judge_are_omitted_and_counted(
    store: Store, tmp_path: Path
) -> None:
    await fill(store, [patient(str(value), multipleBirthInteger=value) for value in (1, 2, "q12h", 3.5)])
    where = [{"path": "multipleBirth.ofType(integer) > 1"}]
    view = view_file(tmp_path, "twins", {"path": "id", "name": "id"}, where=where)
    await exported(store, ExportRequest(out=LocalFolder(tmp_path / "out"), views=(view,)))
    with pytest.raises(ViewDataError, match="whether 1 Patient resources belong in it"):
        await exported(store, ExportRequest(out=LocalFolder(tmp_path / "strict"), views=(view,), strict=True))
    assert [row["id"] for row in table_of(tmp_path / "out" / "twins.csv.gz")] == ["2", "3.5"]
    file = json.loads((tmp_path / "out" / "manifest.json").read_bytes())["files"][0]
    assert (file["left_out"], file.get("left_empty")) == (1, None)


async def test_rows_left_out_of_a_table_that_several_sessions_read_are_counted_in_all_of_it(
    store: Store, tmp_path: Path
) -> None:
    given = [{"given": ["x"], "family": "y"}]
    await fill(
        store, [patient(f"p{at:05}", name=given, multipleBirthInteger="q" if at < 3 else 1) for at in range(25_000)]
    )
    column = {"path": "given.first()", "name": "given"}
    select = [{"forEach": "name.where(%resource.multipleBirth.ofType(integer) > 0)", "column": [column]}]
    view = view_file(tmp_path, "names", select=select)
    request = ExportRequest(out=LocalFolder(tmp_path / "out"), formats=("csv",), views=(view,))
    async with store.snapshot(Selection()) as snapshot:
        await export(request, snapshot, sessions=2)
    file = json.loads((tmp_path / "out" / "manifest.json").read_bytes())["files"][0]
    assert (file["rows"], file.get("left_out")) == (24_997, 3)


async def test_the_manifest_names_the_runs_that_have_not_ended(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    scope = RunScope(connection="site", kind="sync", mode="crawl", selection="all", types=())
    async with await store.begin_run(scope) as run:
        await run.write(Batch(records=[record(patient("a", gender="male")), record(patient("b"))]))
        async with store.snapshot(Selection()) as snapshot:
            await export(ExportRequest(out=LocalFolder(tmp_path)), snapshot)
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    assert lines_of(tmp_path / "Patient.ndjson.gz") == [patient("a")]
    assert manifest["runs"] == [run.id - 1]
    began = run.started_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    assert manifest["not_included"] == [{"run": run.id, "connection": "site", "began": began}]


async def test_a_failed_run_is_reported_as_failed_and_one_without_rows_is_not_shown(
    store: Store, tmp_path: Path
) -> None:
    scope = RunScope(connection="site", kind="sync", mode="crawl", selection="all", types=())
    manifests = []
    for found in (None, [], [patient("b")]):
        if found is None:
            await fill(store, [patient("a")])
        else:
            async with await store.begin_run(scope) as run:
                await run.write(Batch(records=[record(one) for one in found]))
                await run.fail(reason="the EHR went away")
        async with store.snapshot(Selection()) as snapshot:
            await export(ExportRequest(out=LocalFolder(tmp_path), formats=("ndjson",)), snapshot)
        manifests.append((tmp_path / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]
    first, last = json.loads(manifests[0]), json.loads(manifests[2])
    whole = first["runs"][0]
    complete = {"connection": "site", "kind": "sync", "state": "complete", "run": whole, "last_complete": whole}
    assert (first["runs"], first["states"]) == ([whole], [complete])
    assert last["states"] == [{**complete, "state": "failed", "run": whole + 2}]
    assert (last["runs"], last["as_of"] > first["as_of"]) == ([whole + 2], True)
    assert len(lines_of(tmp_path / "Patient.ndjson.gz")) == 2


async def test_a_wrong_view_is_reported_before_anything_is_written(store: Store, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "bad.json").write_text(
        '{"resource": "Patient", "name": "bad", "select": [{"column": [{"name": "x"}]}]}'
    )
    async with store.snapshot(Selection()) as snapshot:
        with pytest.raises(ViewError, match=r"select\[0\]\.column\[0\]\.path"):
            await export(ExportRequest(out=LocalFolder(tmp_path), views=(str(tmp_path / "bad.json"),)), snapshot)
    assert (tmp_path / "manifest.json").exists()


async def test_leftovers_of_a_killed_export_are_removed(store: Store, tmp_path: Path) -> None:
    (tmp_path / ".Old.ndjson.gz.chartferry-part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    async with store.snapshot(Selection()) as snapshot:
        await export(ExportRequest(out=LocalFolder(tmp_path)), snapshot)
    assert names_in(tmp_path) == {"notes.txt", "manifest.json"}


class KilledFolder(LocalFolder):
    """Is killed when the first file is to appear."""

    def stage(self, part: AtomicFile, sealed: DeliveredFile) -> Staged:
        class Killed:
            def place(self) -> None:
                raise KeyboardInterrupt

        return Killed()


@pytest.mark.parametrize("name", ["Patient.ndjson.gz", "patient.csv.gz", "datapackage.json", "manifest.json"])
async def test_a_foreign_file_is_not_replaced(store: Store, tmp_path: Path, name: str) -> None:
    await fill(store, [patient("p1")])
    (tmp_path / name).write_text("mine")
    request = ExportRequest(out=LocalFolder(tmp_path), formats=("ndjson", "csv"), views=("patient",))
    with pytest.raises(DestinationError, match=f"{name} in .* was not written by an export"):
        await exported(store, request)
    assert names_in(tmp_path) == {name}
    assert (tmp_path / name).read_text() == "mine"


async def test_files_placed_by_a_killed_export_may_be_replaced_by_the_next(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("p1"), {"resourceType": "Device", "id": "d"}])
    with pytest.raises(KeyboardInterrupt):
        await exported(store, ExportRequest(out=KilledFolder(tmp_path)))
    (tmp_path / "Patient.ndjson.gz").write_text("placed before the kill")
    await exported(store, ExportRequest(out=LocalFolder(tmp_path)))
    assert lines_of(tmp_path / "Patient.ndjson.gz") == [patient("p1")]


async def test_a_destination_that_is_no_folder_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with store.snapshot(Selection()) as snapshot:
        with pytest.raises(DestinationError, match="file"):
            await export(ExportRequest(out=LocalFolder(tmp_path / "file")), snapshot)


async def test_an_empty_store_gives_tables_with_only_a_header(store: Store, tmp_path: Path) -> None:
    async with store.snapshot(Selection()) as snapshot:
        result = await export(ExportRequest(out=LocalFolder(tmp_path), formats=("csv",)), snapshot)
    assert len(result.files) == len(builtin_names())
    assert result.rows == 0
    header = gzip.decompress((tmp_path / "patient.csv.gz").read_bytes()).decode()
    assert header.startswith("connection,key,active,")
    assert header.count("\n") == 1


async def test_progress_shows_rows_and_ends_with_done(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient(f"p{number}") for number in range(10)])
    seen: list[FileProgress] = []
    async with store.snapshot(Selection()) as snapshot:
        await export(ExportRequest(out=LocalFolder(tmp_path)), snapshot, on_progress=seen.append)
    assert seen[-1] == FileProgress("Patient.ndjson.gz", 10, seen[-1].bytes, 10, done=True)


async def test_changes_and_deletions_since_a_run_are_exported_in_every_format(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a"), patient("b"), {"resourceType": "Device", "id": "d"}])
    await fill(store, [patient("c")], connection="south")
    await fill(store, [patient("b", gender="male"), patient("n")])
    await remove(store, "a")
    await remove(store, "c", connection="south")
    request = ExportRequest(out=LocalFolder(tmp_path), formats=("ndjson", "csv"), views=("patient",))
    async with store.snapshot(Selection(changed_since=2)) as snapshot:
        result = await export(request, snapshot)
    assert lines_of(tmp_path / "Patient.ndjson.gz") == [patient("b", gender="male"), patient("n")]
    assert [row["key"] for row in table_of(tmp_path / "patient.csv.gz")] == ["b", "n"]
    deleted = lines_of(tmp_path / "deleted.ndjson.gz")
    assert {(one["resourceType"], one["type"], len(one["entry"])) for one in deleted} == {("Bundle", "transaction", 1)}
    requests = [one["entry"][0]["request"] for one in deleted]
    assert requests == [{"method": "DELETE", "url": "Patient/a"}, {"method": "DELETE", "url": "Patient/c"}]
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    assert manifest["request"]["changed_since"] == 2
    assert {file["path"] for file in manifest["files"]} | {"manifest.json"} == names_in(tmp_path) - ABOUT
    assert result.files[-1].rows_by_connection == {"site": 1, "south": 1}


async def test_changes_since_a_run_before_an_erasure_are_refused_and_those_since_a_later_run_are_not(
    store: Store, tmp_path: Path
) -> None:
    await fill(store, [patient("a"), patient("b")])
    await fill(store, [patient("c")], connection="south")
    await store.erase("site", "a")
    await fill(store, [patient("b", gender="male")])
    request = ExportRequest(out=LocalFolder(tmp_path), formats=("ndjson",))
    async with store.snapshot(Selection(changed_since=1)) as snapshot:
        with pytest.raises(PlanError, match="a patient of site was erased after run 1 had ended"):
            await export(request, snapshot)
    async with store.snapshot(Selection(changed_since=1, connections=("south",))) as snapshot:
        await export(request, snapshot)
    async with store.snapshot(Selection(changed_since=3)) as snapshot:
        await export(request, snapshot)
    assert (tmp_path / "manifest.json").exists()


async def test_rows_say_which_connection_they_come_from(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("1", birthDate="1970")], connection="north")
    await fill(store, [patient("1", birthDate="1980")], connection="south")
    async with store.snapshot(Selection()) as snapshot:
        await export(ExportRequest(out=LocalFolder(tmp_path), views=("patient",)), snapshot)
    rows = table_of(tmp_path / "patient.csv.gz")
    assert [(row["connection"], row["key"], row["birth_date_written"]) for row in rows] == [
        ("north", "1", "1970"),
        ("south", "1", "1980"),
    ]


async def test_csv_distinguishes_null_from_empty_and_writes_booleans_lists_and_line_breaks(
    store: Store, tmp_path: Path
) -> None:
    columns = [
        {"name": "active", "path": "active", "type": "boolean"},
        {"name": "note", "path": "text.div", "type": "string"},
        {"name": "givens", "path": "name.given", "type": "string", "collection": True},
    ]
    view = tmp_path / "view.json"
    view.write_text(json.dumps({"resource": "Patient", "name": "mine", "select": [{"column": columns}]}))
    whole = patient("a", active=True, text={"div": 'a "b"\n,c'}, name=[{"given": ["é", "f"]}])
    await fill(store, [whole, patient("b", active=False, text={"div": ""}), patient("c")])
    async with store.snapshot(Selection()) as snapshot:
        result = await export(ExportRequest(out=LocalFolder(tmp_path / "out"), views=(str(view),)), snapshot)
    content = gzip.decompress((tmp_path / "out" / "mine.csv.gz").read_bytes()).decode()
    assert content == ('active,note,givens\ntrue,"a ""b""\n,c","[""é"", ""f""]"\nfalse,"",[]\n,,[]\n')
    assert result.rows == 3


async def test_files_in_parts_have_together_the_rows_of_one_file(store: Store, tmp_path: Path) -> None:
    text = "x" * 2000
    many = [patient(f"p{at:04}", active=True if at % 2 else "yes", language=text) for at in range(600)]
    await fill(store, many)
    await fill(store, [patient("other", language=text)], connection="also")
    columns = ({"path": "id", "name": "id"}, {"path": "active", "name": "active"})
    view = view_file(tmp_path, "actives", *columns, {"path": "language", "name": "language"})
    query = tmp_path / "born.sql"
    reads = f"-- @name: born\n-- @relatedDependency: {view} as g\n"
    query.write_text(reads + 'SELECT id, language, 1 AS "x,y" FROM g ORDER BY id')
    wanted = {"formats": ("ndjson", "csv", "parquet"), "views": (view,), "queries": (query,), "compression": "none"}
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    await exported(store, ExportRequest(out=LocalFolder(whole), **wanted))
    for _ in range(2):  # the second time over the first
        await exported(store, ExportRequest(out=LocalFolder(parts), part_size=500_000, **wanted))
    manifest = json.loads((parts / "manifest.json").read_bytes())
    found: dict[str, list[str]] = {}
    for file in manifest["files"]:
        stem, number, ending = file["path"].split(".")
        found.setdefault(f"{stem}.{ending}", []).append(file["path"])
        assert int(number) == len(found[f"{stem}.{ending}"])
        content = (parts / file["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert file["uncompressed_bytes"] < 800_000
        if file["kind"] != "parquet":
            lines = list(csv.reader(io.StringIO(content.decode()))) if file["kind"] == "csv" else content.splitlines()
            assert file["rows"] == len(lines) - (file["kind"] == "csv")
    assert {name: len(paths) for name, paths in found.items()} == {
        "Patient.ndjson": 3, "actives.csv": 3, "actives.parquet": 3, "born.csv": 3, "born.parquet": 3,
    }  # fmt: skip
    for name, paths in found.items():
        one = (whole / name).read_bytes()
        if name.endswith("parquet"):
            tables = [pq.read_table(parts / path) for path in paths]
            assert [row for table in tables for row in table.to_pylist()] == pq.read_table(whole / name).to_pylist()
        else:
            header = b"" if name.endswith("ndjson") else one[: one.index(b"\n") + 1]
            cut = [(parts / path).read_bytes() for path in paths]
            assert all(each.startswith(header) for each in cut)
            assert header + b"".join(each.removeprefix(header) for each in cut) == one
    files = [file for file in manifest["files"] if file["path"].startswith("Patient")]
    assert [sum(file["rows_by_connection"][name] for file in files) for name in ("also", "site")] == [1, 600]
    tables = [file for file in manifest["files"] if file["path"].startswith("actives.") and file["kind"] == "csv"]
    assert sum(file["left_empty"]["active"] for file in tables) == 300
    assert manifest["request"]["part_size"] == 500_000
    package = json.loads((parts / "datapackage.json").read_bytes())
    assert {table["name"]: table["path"] for table in package["resources"]} == {
        name: found[name] for name in found if name != "Patient.ndjson"
    }
    assert names_in(parts) - ABOUT == {"manifest.json", *(path for paths in found.values() for path in paths)}


async def test_the_manifest_holds_no_patient_and_no_path_of_this_machine(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("secret-id"), patient("b")])
    view = tmp_path / "view.json"
    view.write_text(
        '{"resource": "Patient", "name": "mine", "select": [{"column": [{"path": "gender", "name": "g"}]}]}'
    )
    patients = ("secret-id",)
    request = ExportRequest(
        out=LocalFolder(tmp_path / "out"), views=(str(view),), patients=patients, connections=("site",)
    )
    async with store.snapshot(Selection(connections=("site",), patients=patients)) as snapshot:
        result = await export(request, snapshot)
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert result.rows == 1
    assert "secret-id" not in manifest
    assert str(tmp_path) not in manifest
    stated = json.loads(manifest)["request"]
    assert (stated["connections"], stated["patients"]["count"], stated["views"][0]["name"]) == (["site"], 1, "mine")


async def test_a_strict_export_names_column_and_type_of_an_odd_value_but_not_the_value(
    store: Store, tmp_path: Path
) -> None:
    await fill(store, [{"resourceType": "Observation", "id": "o", "valueQuantity": {"value": "Quill 98.7"}}])
    async with store.snapshot(Selection()) as snapshot:
        with pytest.raises(
            ViewDataError, match=r"view 'observation': column value_quantity .*not a valid decimal"
        ) as caught:
            await export(ExportRequest(out=LocalFolder(tmp_path), views=("observation",), strict=True), snapshot)
    assert "Quill" not in str(caught.value)
    assert names_in(tmp_path) == set()
