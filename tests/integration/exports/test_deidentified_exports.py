"""De-identified exports of a real store: what lands in the folder, and what the manifest says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from exports.delivery.destination import LocalFolder
from exports.errors import PlanError
from exports.plan import ExportRequest
from exports.run import ExportResult, export
from exports.safe_harbor.deidentify import Deidentifier, SafeHarbor
from mocks.synthetic.generator import generate
from mocks.synthetic.json_bytes import to_json_bytes
from snapshots.actor import Actor
from snapshots.sealed_values import Keyring
from snapshots.selection import Selection
from snapshots.store import Store
from tests.fix_store import opened_store
from tests.identifying_values import values_of_people, words_of_names
from tests.integration.exports.charts import fill, lines_of, names_in, patient, table_of, view_file

pytestmark = pytest.mark.anyio
PROFILE = SafeHarbor(b"k" * 32, 2026)


async def exported(store: Store, out: Path, selection: Selection | None = None, **wanted: Any) -> ExportResult:
    wanted = {"formats": ("ndjson",), "safe_harbor": PROFILE, **wanted}
    async with store.snapshot(selection or Selection()) as snapshot:
        return await export(ExportRequest(out=LocalFolder(out), **wanted), snapshot)


async def test_a_deidentified_export_has_only_allowed_values_and_reports_what_was_dropped(
    store: Store, tmp_path: Path
) -> None:
    quill = {"name": [{"family": "Quill"}], "birthDate": "1980-02-03", "address": [{"state": "MA", "city": "Larch"}]}
    observed = {"resourceType": "Observation", "subject": {"reference": "Patient/p1"}, "issued": "2024-05-06T07:08:09Z"}
    await fill(store, [patient(f"p{at}", **quill) for at in range(40)])
    await fill(store, [patient("zebra", modifierExtension=[]), {**observed, "id": "o1"}])
    await fill(store, [{"resourceType": "Consent", "id": "c1"}, {"resourceType": "MrQuill", "id": "x"}])
    ids = ("p1", "zebra")
    result = await exported(store, tmp_path, patients=ids)
    assert names_in(tmp_path) == {"Patient.ndjson.gz", "Observation.ndjson.gz", "manifest.json"}
    keyed = Deidentifier(PROFILE).keyed
    patients = lines_of(tmp_path / "Patient.ndjson.gz")
    assert [one["id"] for one in patients] == sorted(keyed("Patient", f"p{at}") for at in range(40))
    assert patients[0] == {
        "resourceType": "Patient", "id": patients[0]["id"], "birthDate": "1980", "address": [{"state": "MA"}],
    }  # fmt: skip
    (one,) = lines_of(tmp_path / "Observation.ndjson.gz")
    assert one["subject"] == {"reference": f"Patient/{keyed('Patient', 'p1')}"}
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    profile = manifest["profile"]
    assert (profile["name"], profile["dates"], profile["left_out"]) == ("safe-harbor", "the year", {"Patient": 1})
    assert profile["dropped"] == {"Observation.issued": 1, "Patient.name": 40}
    assert profile["types_left_out"] == ["Consent"], "a type that R4 does not have is not named"
    assert manifest["request"]["patients"] == {"count": 2}, "a few ids could be guessed by their checksum"
    assert [(file["rows"], "rows_by_connection" in file) for file in manifest["files"]] == [(1, False), (40, False)]
    assert result.rows == 41
    text = json.dumps([patients, one, manifest])
    assert not [word for word in ("Quill", "zebra", "Larch", "1980-", "2024-05", '"p1"', "kkkk") if word in text]


async def test_the_patients_of_a_sample_cannot_be_known_without_the_key(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient(f"p{at}") for at in range(40)])
    await exported(store, tmp_path / "as they are", sample=10, safe_harbor=None)
    await exported(store, tmp_path / "one", sample=10)
    await exported(store, tmp_path / "again", sample=10)
    keyed = Deidentifier(PROFILE).keyed
    by_ids = {keyed("Patient", one["id"]) for one in lines_of(tmp_path / "as they are" / "Patient.ndjson.gz")}
    drawn = [{one["id"] for one in lines_of(tmp_path / name / "Patient.ndjson.gz")} for name in ("one", "again")]
    assert drawn[0] == drawn[1] != by_ids
    assert len(drawn[0]) == 10


async def test_the_safe_harbor_profile_refuses_options_that_would_reveal_more(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    (tmp_path / "count.sql").write_text("-- @name: count\nSELECT 1 AS n")
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"queries": (tmp_path / "count.sql",)}, "does not allow --query, .* views read the de-identified ones"),
        ({"formats": ("csv",), "views": ("document_reference",)}, "does not allow DocumentReference"),
        ({"where": ("Patient.name.family = 'Quill'",)}, "leave it out"),
        ({"limit": 1}, "use --sample"),
        ({"types": ("DocumentReference",)}, "does not allow DocumentReference"),
        ({"safe_harbor": SafeHarbor(b"short", 2026)}, "fewer than 32 bytes"),
    )
    for wanted, why in refused:
        with pytest.raises(PlanError, match=why):
            await exported(store, tmp_path / "out", **wanted)
    with pytest.raises(PlanError, match="does not allow --changed-since"):
        await exported(store, tmp_path / "out", Selection(changed_since=1))
    await fill(store, [patient("a")], connection="also")
    with pytest.raises(PlanError, match=r"the store has also, site: .* --connection"):
        await exported(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


SHIFTED = replace(PROFILE, shifts_dates=True)
TABLES = ("csv", "parquet", "duckdb")


def cells_of(out: Path) -> Iterator[tuple[str, str, Any]]:
    """Table, column and value of each cell in each file of tables."""
    for file in out.glob("*.csv.gz"):
        for row in table_of(file):
            yield from ((file.name, name, value) for name, value in row.items() if value)
    for file in out.glob("*.parquet"):
        for row in pq.read_table(file).to_pylist():
            yield from ((file.name, name, value) for name, value in row.items() if value is not None)
    with duckdb.connect(str(out / "charts.duckdb"), read_only=True) as database:
        for (table,) in database.sql("SHOW TABLES").fetchall():
            rows = database.sql(f"FROM {table}")
            for row in rows.fetchall():
                yield from (
                    (table, name, value) for name, value in zip(rows.columns, row, strict=True) if value is not None
                )


@pytest.mark.parametrize("profile", [PROFILE, SHIFTED], ids=lambda one: one.name)
async def test_no_identifying_value_of_a_synthetic_patient_is_in_a_table(
    store: Store, tmp_path: Path, profile: SafeHarbor
) -> None:
    resources = [json.loads(to_json_bytes(one)) for one in generate(4)]
    await fill(store, resources)
    result = await exported(store, tmp_path, formats=TABLES, safe_harbor=profile)
    assert {file.path for file in result.files} >= {
        "patient.csv.gz",
        "patient.parquet",
        "observation.parquet",
        "charts.duckdb",
    }
    assert not [file.path for file in result.files if file.path.startswith("document_reference")]
    values, words = values_of_people(resources), words_of_names(resources)
    births = {one["birthDate"] for one in resources if one["resourceType"] == "Patient"}
    searched = 0
    for table, name, value in cells_of(tmp_path):
        for one in map(str, value if isinstance(value, list) else [value]):
            searched += 1
            where, word = (table, name, one), one.lower()
            assert not words & set(re.split(r"\W+", word)), where
            assert not re.search(r"@|urn:oid|://ehr", word), where
            if re.match("[0-9]{4}-[0-9]{2}", word):
                assert profile is SHIFTED, where
                assert "birth" not in name or word[:10] not in births, where
            elif word[:4] not in {"true", "http"} and not re.fullmatch(r"[-0-9.]+|[a-z-]{,20}", word):
                assert word not in values, where
    assert searched > 5000
    stated = json.loads((tmp_path / "manifest.json").read_bytes())["profile"]
    assert stated["name"] == profile.name
    assert stated["dropped"]["Patient.name"] == 4, "counted once, however many tables a type is in"


async def test_a_view_of_a_deidentified_resource_shows_what_its_ndjson_has(store: Store, tmp_path: Path) -> None:
    """Many megabytes, so that Postgres is given them in several turns."""
    filler = [{"given": ["x" * 50]}] * 4
    written = [
        {
            "address": [{"state": "MA"}, {"state": "NY"}],
            "birthDate": "1980-02-03",
            "name": filler,
            "deceasedDateTime": f"20{at % 20:02}-05-06",
        }
        for at in range(9000)
    ]
    await fill(store, [patient(f"p{at}", **one) for at, one in enumerate(written)])
    columns = [
        {"name": "key", "path": "getResourceKey()"},
        {"name": "birth", "path": "birthDate", "type": "date"},
        {"name": "death", "path": "deceased.ofType(dateTime)", "type": "dateTime"},
        {"name": "known", "path": "name.given.first()"},
        {"name": "odd", "path": "address.state"},
    ]
    view = view_file(tmp_path, "people", *columns)
    out = tmp_path / "out"
    result = await exported(store, out, formats=("ndjson", "csv"), views=(view,), safe_harbor=SHIFTED)
    resources, rows = lines_of(out / "Patient.ndjson.gz"), table_of(out / "people.csv.gz")
    assert [(one["id"], one["birthDate"], one["deceasedDateTime"], "", "") for one in resources] == [
        (row["key"], row["birth"], row["death_written"], row["known"], row["odd"]) for row in rows
    ]
    (table,) = (file for file in result.files if file.kind == "csv")
    assert (table.rows, table.left_empty) == (9000, {"odd": 9000})


async def test_several_sessions_write_each_row_of_a_deidentified_table_once(store: Store, tmp_path: Path) -> None:
    many = [{"resourceType": "Device", "id": f"d{number}", "status": "active"} for number in range(25_000)]
    await fill(store, many)  # enough for sessions to share them
    request = ExportRequest(
        out=LocalFolder(tmp_path), formats=("ndjson", "csv"), views=("device",), safe_harbor=PROFILE
    )
    async with store.snapshot(Selection()) as snapshot:
        result = await export(request, snapshot, sessions=2)
    assert {file.path: file.rows for file in result.files}["device.csv.gz"] == len(many)


async def test_masked_readers_cannot_deidentify_because_ages_over_89_would_be_unknown(
    store_url: str, tmp_path: Path
) -> None:
    keys = Keyring(current="k1", keys={"k1": b"1" * 32})
    async with opened_store(store_url, actor=Actor(name="ben", masked=True), keyring=keys) as store:
        await fill(store, [patient("p1", birthDate="1920-02-03")])
        with pytest.raises(PlanError, match="masked for you"):
            await exported(store, tmp_path / "out")


async def test_an_encrypted_store_gives_the_same_tables_in_any_number_of_sessions(
    store_url: str, tmp_path: Path
) -> None:
    keys = Keyring(current="k1", keys={"k1": b"1" * 32})
    charts = [json.loads(to_json_bytes(one)) for one in generate(2)]
    found = []
    async with opened_store(store_url) as plain, opened_store(store_url, "sealed", keyring=keys) as sealed:
        for store, sessions in ((plain, 1), (sealed, 2)):
            out = tmp_path / str(sessions)
            await fill(store, charts)
            request = ExportRequest(out=LocalFolder(out), formats=("ndjson", "csv"), safe_harbor=SHIFTED)
            async with store.snapshot(Selection()) as snapshot:
                await export(request, snapshot, sessions=sessions)
            found.append({path.name: path.read_bytes() for path in out.iterdir() if path.name.endswith(".gz")})
    assert found[0] == found[1]
    assert len(found[0]) > 40
