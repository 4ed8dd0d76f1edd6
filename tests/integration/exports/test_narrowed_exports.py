"""Exports of less than everything: criteria, samples of patients, first rows; and columns that must stay as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exports.delivery.destination import LocalFolder
from exports.errors import DriftError, PlanError
from exports.plan import ExportRequest
from exports.run import ExportResult, export
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.stored_documents import STORED_DOCUMENT
from tests.integration.exports.charts import fill, lines_of, names_in, patient, table_of

pytestmark = pytest.mark.anyio
PATIENTS = [patient(f"p{number}", gender="female" if number % 2 else "male") for number in range(8)]
ROOM = {"resourceType": "Location", "id": "room"}


def observation(id_: str, of: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": id_, "subject": {"reference": f"Patient/{of}"}, **more}


def charts() -> list[dict[str, Any]]:
    """Each patient with a final and a preliminary observation, made in a room; one status is no text."""
    final = [observation(f"f{one['id']}", one["id"], status="final", device=ROOM_REFERENCE) for one in PATIENTS]
    first = [observation(f"v{one['id']}", one["id"], status="preliminary") for one in PATIENTS]
    return [*PATIENTS, *final, *first, ROOM]


ROOM_REFERENCE = {"reference": "Location/room"}


async def run(store: Store, out: Path, **wanted: Any) -> ExportResult:
    async with store.snapshot(Selection()) as snapshot:
        return await export(ExportRequest(out=LocalFolder(out), **wanted), snapshot)


def ids(path: Path) -> list[str]:
    return [line["id"] for line in lines_of(path)]


async def test_a_criterion_narrows_its_own_type_and_leaves_other_types_whole(store: Store, tmp_path: Path) -> None:
    await fill(store, charts())
    both = {"formats": ("ndjson", "csv"), "views": ("patient", "observation")}
    result = await run(store, tmp_path, **both, where=("Observation.status = 'final'", "Observation.subject.exists()"))
    assert ids(tmp_path / "Observation.ndjson.gz") == sorted(f"f{one['id']}" for one in PATIENTS)
    assert len(lines_of(tmp_path / "Patient.ndjson.gz")) == len(PATIENTS)
    assert {row["status"] for row in table_of(tmp_path / "observation.csv.gz")} == {"final"}
    criteria = json.loads((tmp_path / "manifest.json").read_bytes())["request"]["where"]
    paths = ["Observation.status = 'final'", "Observation.subject.exists()"]
    assert criteria == [{"type": "Observation", "paths": paths}]
    assert not result.undecided


async def test_resources_that_a_criterion_cannot_judge_are_omitted_and_counted(store: Store, tmp_path: Path) -> None:
    await fill(store, [observation("a", "p", valueInteger=5), observation("b", "p", valueInteger="five")])
    result = await run(store, tmp_path, where=("Observation.value.ofType(integer) > 3",))
    assert ids(tmp_path / "Observation.ndjson.gz") == ["a"]
    assert result.undecided == {"Observation": 1}


async def test_named_patients_who_are_not_stored_are_counted_in_a_note(store: Store, tmp_path: Path) -> None:
    await fill(store, charts())
    for named, note in [
        (("p1", "p2"), None),
        (("p1", "MRN-7", "MRN-8", "MRN-8"), "the store has no Patient for 2 of the 3 patients named"),
        (("room",), "the store has no Patient for the patient named"),
    ]:
        async with store.snapshot(Selection(patients=named, types=("Observation",))) as snapshot:
            request = ExportRequest(out=LocalFolder(tmp_path), types=("Observation",))
            result = await export(request, snapshot)
        assert [note] == [*[one[: len(note or "")] for one in result.notes], None][:1]


async def test_a_criterion_can_use_the_connection_and_the_moment_of_the_data(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", birthDate="1950-01-01")], "north")
    await fill(store, [patient("b", birthDate="1950-01-01"), patient("c", birthDate="2999-01-01")], "south")
    await run(store, tmp_path, where=("Patient.birthDate < today() and %connection = 'south'",))
    assert ids(tmp_path / "Patient.ndjson.gz") == ["b"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("status = 'final'", "start with a resource type"),
        ("Observation.status =", "expression 1"),
        ("Observation.status", "boolean"),
        ("Observation.statsu = 'final'", "did you mean 'status'"),
        ("Condition.subject.exists()", "nothing of that type is exported"),
        (f"Observation.extension('{STORED_DOCUMENT}').exists()", "only by views"),
    ],
)
async def test_a_criterion_that_never_decides_is_refused(store: Store, tmp_path: Path, path: str, message: str) -> None:
    await fill(store, charts())
    with pytest.raises(PlanError, match=message):
        await run(store, tmp_path / "out", types=("Observation",), where=(path,))
    assert not (tmp_path / "out").exists()


async def test_a_sample_has_the_whole_charts_of_its_patients_and_what_they_refer_to(
    store: Store, tmp_path: Path
) -> None:
    await fill(store, charts())
    await run(store, tmp_path, sample=3)
    chosen = ids(tmp_path / "Patient.ndjson.gz")
    assert len(chosen) == 3
    assert ids(tmp_path / "Observation.ndjson.gz") == sorted(f"{kind}{one}" for one in chosen for kind in "fv")
    assert lines_of(tmp_path / "Location.ndjson.gz") == [ROOM]
    request = json.loads((tmp_path / "manifest.json").read_bytes())["request"]
    assert request["sample"] == {"patients": 3, "seed": 0}
    assert request["patients"] is None


async def test_a_sample_stays_the_same_for_a_seed_and_is_part_of_a_larger_one(store: Store, tmp_path: Path) -> None:
    await fill(store, charts())
    found = {}
    for name, sample, seed in (("first", 3, 0), ("again", 3, 0), ("larger", 5, 0), ("other", 3, 1)):
        await run(store, tmp_path / name, sample=sample, seed=seed)
        found[name] = set(ids(tmp_path / name / "Patient.ndjson.gz"))
    assert found["first"] == found["again"] < found["larger"]
    assert found["other"] != found["first"]


async def test_a_sample_is_drawn_from_the_patients_that_meet_the_criteria(store: Store, tmp_path: Path) -> None:
    await fill(store, charts())
    await run(store, tmp_path, sample=8, where=("Patient.gender = 'female'",))
    assert ids(tmp_path / "Patient.ndjson.gz") == ["p1", "p3", "p5", "p7"]
    assert len(ids(tmp_path / "Observation.ndjson.gz")) == 8


async def test_a_limit_applies_to_each_file_and_to_all_connections_together(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a"), patient("b")], "north")
    await fill(store, [patient("c"), patient("d"), observation("o", "c")], "south")
    result = await run(store, tmp_path, formats=("ndjson", "csv"), views=("patient",), limit=3)
    assert ids(tmp_path / "Patient.ndjson.gz") == ["a", "b", "c"]
    assert [row["key"] for row in table_of(tmp_path / "patient.csv.gz")] == ["a", "b", "c"]
    assert ids(tmp_path / "Observation.ndjson.gz") == ["o"]
    by_name = {file.path: file for file in result.files}
    assert by_name["Patient.ndjson.gz"].rows_by_connection == {"north": 2, "south": 1}


@pytest.mark.parametrize("part", [{"limit": 1}, {"sample": 1}, {"where": ("Patient.id.exists()",)}])
async def test_narrowing_an_export_of_changes_is_refused(store: Store, tmp_path: Path, part: dict[str, Any]) -> None:
    await fill(store, charts())
    async with store.snapshot(Selection(changed_since=1)) as snapshot:
        with pytest.raises(PlanError, match="--changed-since"):
            await export(ExportRequest(out=LocalFolder(tmp_path / "out"), **part), snapshot)


def a_view(tmp_path: Path, *columns: tuple[str, str, str]) -> str:
    file = tmp_path / "mine.json"
    listed = [{"name": name, "path": path, "type": type_} for name, path, type_ in columns]
    file.write_text(json.dumps({"name": "mine", "resource": "Patient", "select": [{"column": listed}]}))
    return str(file)


async def test_columns_that_changed_since_the_last_export_are_reported(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", gender="female")])
    out, key, sex = tmp_path / "out", ("key", "id", "id"), ("sex", "gender", "code")
    first = await run(store, out, views=(a_view(tmp_path, key, sex, ("born", "birthDate", "date")),))
    assert not first.drift
    changed = a_view(tmp_path, ("sex", "gender", "string"), key, ("alive", "active", "boolean"))
    second = await run(store, out, views=(changed,))
    expected = {
        "table": "mine.csv",
        "added": ["alive"],
        "removed": ["born", "born_written"],
        "retyped": ["sex"],
        "moved": True,
    }
    assert json.loads((out / "manifest.json").read_bytes())["drift"] == [expected]
    assert [str(one) for one in second.drift] == [
        "mine.csv: alive new; born, born_written gone; sex of another type; columns in another order"
    ]


async def test_a_frozen_export_with_other_columns_leaves_the_last_one_unchanged(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", gender="female")])
    out, key = tmp_path / "out", ("key", "id", "id")
    frozen = {"freeze": True, "formats": ("csv", "parquet")}
    await run(store, out, views=(a_view(tmp_path, key),), **frozen)
    before = {name: (out / name).read_bytes() for name in names_in(out)}
    with pytest.raises(DriftError, match=r"mine\.csv: sex new"):
        await run(store, out, views=(a_view(tmp_path, key, ("sex", "gender", "code")),), **frozen)
    assert {name: (out / name).read_bytes() for name in names_in(out)} == before
    await run(store, out, views=(a_view(tmp_path, key),), **frozen)
    assert {name: (out / name).read_bytes() for name in names_in(out)} == before


async def test_unreadable_columns_of_the_last_export_do_not_count_as_unchanged(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    out, view = tmp_path / "out", a_view(tmp_path, ("key", "id", "id"))
    await run(store, out, views=(view,))
    (out / "datapackage.json").write_text("{}")
    with pytest.raises(DriftError, match="is unknown"):
        await run(store, out, views=(view,), freeze=True)
    assert any("is unknown" in note for note in (await run(store, out, views=(view,))).notes)
    assert not (await run(store, out, views=(view,), freeze=True)).notes
