"""An analyst exports from the store in the morning."""

from __future__ import annotations

import gzip
import hashlib
import json

import anyio
import anyio.to_thread

from exports.catalogue import builtin_names
from snapshots.record import Batch, Record
from snapshots.report import RunScope
from snapshots.witness import Deletion
from tests.fix_store import opened_store
from tests.user_site import Site, csv_rows, mock, source, written


def test_the_manifest_describes_every_file_correctly(site: Site) -> None:
    with mock("generic") as served:
        site.connect(served)
        site.sync()
    out = site.folder / "out"
    assert site.run("export", "--out", str(out), "--format", "ndjson,csv").code == 0
    manifest = json.loads((out / "manifest.json").read_text())
    listed = {file["path"]: file for file in (*manifest["files"], *manifest["descriptions"])}
    assert set(listed) | {"manifest.json"} == {path.name for path in out.iterdir()}
    assert {name.removesuffix(".csv.gz") for name in listed if name.endswith(".csv.gz")} == set(builtin_names())
    for name, file in listed.items():
        raw = (out / name).read_bytes()
        plain = gzip.decompress(raw) if name.endswith(".gz") else raw
        assert (file["bytes"], file["uncompressed_bytes"]) == (len(raw), len(plain))
        assert file["sha256"] == hashlib.sha256(raw).hexdigest()
        rows = len(csv_rows(out / name)) if name.endswith(".csv.gz") else len(plain.splitlines())
        assert file["rows"] == (0 if file["kind"] in {"schema", "dictionary"} else rows)
    assert manifest["runs"] == [1]


def test_the_same_request_on_the_same_runs_gives_the_same_bytes(site: Site) -> None:
    with mock("generic") as served:
        site.connect(served)
        site.sync()
    for name in ("a", "b"):
        assert site.run("export", "--out", str(site.folder / name), "--format", "ndjson,csv").code == 0
    first = {path.name: path.read_bytes() for path in (site.folder / "a").iterdir()}
    second = {path.name: path.read_bytes() for path in (site.folder / "b").iterdir()}
    assert first == second


def test_an_export_of_an_earlier_moment_equals_the_export_made_then_byte_for_byte(site: Site) -> None:
    with mock("generic") as served:
        site.connect(served)
        site.sync()
        assert site.run("export", "--out", str(site.folder / "then"), "--format", "ndjson,csv").code == 0
        first, second, *_ = served.dataset.of_type("Condition")
        served.dataset.delete("Condition", first.id)
        served.dataset.replace(json.dumps({**second.body, "recordedDate": "2001-01-01"}, default=str).encode())
        site.sync()
        assert site.run("export", "--out", str(site.folder / "now"), "--format", "ndjson,csv").code == 0
    done = site.run("export", "--out", str(site.folder / "past"), "--format", "ndjson,csv", "--as-of", "1")
    assert done.code == 0, done.stderr
    then, now, past = (
        {path.name: path.read_bytes() for path in (site.folder / name).iterdir()} for name in ("then", "now", "past")
    )
    assert past == then
    assert now["Condition.ndjson.gz"] != then["Condition.ndjson.gz"]


def test_an_unavailable_moment_is_refused_by_name(site: Site) -> None:
    with mock("generic") as served:
        site.connect(served)
        site.sync()
    command = ("export", "--out", str(site.folder / "out"), "--as-of")
    assert "has no run 99" in site.run(*command, "99").stderr
    assert site.run(*command, "1999-01-01T00:00:00Z").code == 4
    assert "which time zone?" in site.run(*command, "2026-01-01T00:00:00").stderr


def test_a_custom_view_makes_a_table(site: Site) -> None:
    view = {
        "resourceType": "ViewDefinition",
        "name": "people",
        "status": "active",
        "resource": "Patient",
        "select": [{"column": [{"path": "getResourceKey()", "name": "id"}, {"path": "gender", "name": "gender"}]}],
    }
    (site.folder / "people.json").write_text(json.dumps(view))
    with mock("generic") as served:
        site.connect(served)
        site.sync()
        expected = {(r["id"], r["gender"]) for r in source(served, ["Patient"]).values()}
    assert site.run("export", "--out", "out", "--format", "csv", "--view", "people.json").code == 0
    assert {(row["id"], row["gender"]) for row in csv_rows(site.folder / "out" / "people.csv.gz")} == expected


def test_only_the_named_patients_are_exported(site: Site) -> None:
    with mock("generic") as served:
        site.connect(served)
        site.sync()
        one = served.patient_ids[0]
        expected = {row.id for row in served.dataset.of_patient("Condition", one)}
    (site.folder / "one.txt").write_text(one)
    exported = site.exported("--types", "Condition", "--patients", "one.txt")
    assert {key[1] for key in exported} == expected


def test_a_misspelt_view_is_refused_with_the_known_names(site: Site) -> None:
    with mock("generic") as served:
        site.connect(served)
        site.sync()
    done = site.run("export", "--out", "out", "--format", "csv", "--view", "encountr")
    assert done.code == 2
    assert "encounter" in done.stderr


def test_numbers_keep_their_digits_through_store_and_export(site: Site) -> None:
    with mock("generic") as served:
        row = served.dataset.of_type("Observation")[0]
        served.dataset.replace(row.raw.replace(b'"resourceType"', b'"valueDecimalNote":1.00,"resourceType"', 1))
        expected = written(served.dataset.get("Observation", row.id).raw)  # type: ignore[union-attr]
        site.connect(served)
        site.sync("--types", "Observation")
    assert site.exported()[("Observation", row.id)] == expected


def test_the_manifest_says_which_lines_belong_to_which_connection(site: Site) -> None:
    with mock("generic", patients=2) as one, mock("generic", patients=3, seed=9) as two:
        site.connect(one, "first")
        site.connect(two, "second")
        site.sync()
        expected = [
            row.id for served in (one, two) for row in sorted(served.dataset.of_type("Patient"), key=lambda row: row.id)
        ]
    assert site.run("export", "--out", "out", "--format", "ndjson").code == 0
    manifest = json.loads((site.folder / "out" / "manifest.json").read_text())
    entry = next(file for file in manifest["files"] if file["path"] == "Patient.ndjson.gz")
    assert entry["rows_by_connection"] == {"first": 2, "second": 3}
    lines = gzip.decompress((site.folder / "out" / "Patient.ndjson.gz").read_bytes()).splitlines()
    assert [written(line)["id"] for line in lines] == expected


def with_value(raw: bytes, **value: object) -> bytes:
    """The observation with another value, and no other."""
    kept = {key: content for key, content in json.loads(raw).items() if not key.startswith("value")}
    return json.dumps({**kept, **value}).encode()


def test_one_odd_value_costs_its_cell_and_is_counted(site: Site) -> None:
    with mock("generic") as served:
        one, other = served.dataset.of_type("Observation")[:2]
        served.dataset.replace(with_value(one.raw, valueQuantity={"value": "q12h"}))
        served.dataset.replace(with_value(other.raw, valueInteger=3.5))
        site.connect(served)
        site.sync()
    done = site.run("export", "--out", "out", "--format", "ndjson,csv")
    assert done.code == 0, done.stderr
    assert "left empty" in done.stdout
    assert "observation.value_quantity 1, observation.value_integer 1" in done.stdout
    files = {file["path"]: file for file in json.loads((site.folder / "out" / "manifest.json").read_text())["files"]}
    assert {name.removesuffix(".csv.gz") for name in files} >= set(builtin_names())
    assert files["observation.csv.gz"]["left_empty"] == {"value_quantity": 1, "value_integer": 1}
    rows = {
        row["key"]: row for row in csv_rows(site.folder / "out" / "observation.csv.gz") if row["part"] == "observation"
    }
    assert [(rows[key]["value_quantity"], rows[key]["value_integer"]) for key in (one.id, other.id)] == [("", "")] * 2
    strict = site.run("export", "--out", "strict", "--format", "csv", "--strict")
    assert strict.code == 5
    assert "view 'observation': column value_" in strict.stderr
    assert "q12h" not in strict.stderr + strict.stdout
    assert not (site.folder / "strict").exists()


def inactive(patient: str) -> Record:
    body = f'{{"resourceType":"Patient","id":"{patient}","active":false}}'.encode()
    return Record("Patient", patient, patient, None, None, hashlib.sha256(body).digest()[:16], body)


def test_an_export_during_an_open_run_shows_the_moment_before_it_and_says_so(site: Site, store_url: str) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync("--types", "Patient")
    before = site.exported()
    changed, gone, *_ = sorted(key[1] for key in before)

    async def while_open() -> None:
        scope = RunScope(connection=name, kind="sync", mode="crawl", selection="everyone", types=())
        async with opened_store(store_url) as store, await store.begin_run(scope) as run:
            news = [inactive(changed), inactive("new")]
            await run.write(Batch(records=news, deletions=[Deletion("Patient", gone)]))
            assert await anyio.to_thread.run_sync(site.exported) == before
            done = await anyio.to_thread.run_sync(site.run, "export", "--out", "out")
            assert "not included: run 2 of site-generic, which has not ended" in done.stdout
            manifest = json.loads((site.folder / "out" / "manifest.json").read_text())
            assert (manifest["runs"], [one["run"] for one in manifest["not_included"]]) == ([1], [2])
            await run.finish(watermark=None)

    anyio.run(while_open)
    after = site.exported()
    assert set(after) == (set(before) | {("Patient", "new")}) - {("Patient", gone)}
    assert after[("Patient", changed)]["active"] is False


def test_a_part_of_the_charts_is_exported_and_changed_columns_are_named_or_refused(site: Site) -> None:
    with mock("generic") as served:
        site.connect(served)
        site.sync()
    out, view = site.folder / "out", site.folder / "mine.json"
    columns = [{"name": "key", "path": "getResourceKey()"}, {"name": "gender", "path": "gender"}]
    part = ["export", "--out", str(out), "--format", "ndjson,csv", "--view", str(view)]
    part += ["--sample", "5", "--where", "Patient.gender.exists()", "--limit", "2"]
    for listed in (columns, columns[:1]):
        view.write_text(json.dumps({"name": "mine", "resource": "Patient", "select": [{"column": listed}]}))
        done = site.run(*part)
        assert done.code == 0, done.stderr
    assert "columns differ from the last export here: mine.csv: gender gone" in done.stdout
    manifest = json.loads((out / "manifest.json").read_text())
    assert max(file["rows"] for file in manifest["files"]) == 2
    view.write_text(view.read_text().replace("getResourceKey()", "active").replace('"key"', '"active"'))
    refused = site.run(*part, "--freeze")
    assert refused.code == 5
    assert "mine.csv: active new; key gone" in refused.stderr
    assert json.loads((out / "manifest.json").read_text()) == manifest
