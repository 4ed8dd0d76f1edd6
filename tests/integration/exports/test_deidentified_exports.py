"""Exports of a real store by the profile `safe-harbor`: what lands in the folder, and what the manifest says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exports.delivery.destination import LocalFolder
from exports.errors import PlanError
from exports.plan import ExportRequest
from exports.run import ExportResult, export
from exports.safe_harbor.deidentify import Deidentifier, SafeHarbor
from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.exports.charts import fill, lines_of, names_in, patient

pytestmark = pytest.mark.anyio
PROFILE = SafeHarbor(b"k" * 32, 2026)


async def exported(store: Store, out: Path, selection: Selection | None = None, **wanted: Any) -> ExportResult:
    wanted = {"formats": ("ndjson",), "safe_harbor": PROFILE, **wanted}
    async with store.snapshot(selection or Selection()) as snapshot:
        return await export(ExportRequest(out=LocalFolder(out), **wanted), snapshot)


async def test_a_deidentified_export_has_what_is_allowed_and_says_what_was_dropped(
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
    told = json.dumps([patients, one, manifest])
    assert not [word for word in ("Quill", "zebra", "Larch", "1980-", "2024-05", '"p1"', "kkkk") if word in told]


async def test_nobody_without_the_key_can_tell_which_patients_a_sample_has(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient(f"p{at}") for at in range(40)])
    await exported(store, tmp_path / "as they are", sample=10, safe_harbor=None)
    await exported(store, tmp_path / "one", sample=10)
    await exported(store, tmp_path / "again", sample=10)
    keyed = Deidentifier(PROFILE).keyed
    by_ids = {keyed("Patient", one["id"]) for one in lines_of(tmp_path / "as they are" / "Patient.ndjson.gz")}
    drawn = [{one["id"] for one in lines_of(tmp_path / name / "Patient.ndjson.gz")} for name in ("one", "again")]
    assert drawn[0] == drawn[1] != by_ids
    assert len(drawn[0]) == 10


async def test_the_profile_refuses_what_would_tell_more(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"formats": ("ndjson", "csv")}, "writes NDJSON only"),
        ({"formats": (), "views": ("patient",)}, "writes NDJSON only"),
        ({"where": ("Patient.name.family = 'Quill'",)}, "leave it out"),
        ({"limit": 1}, "use --sample"),
        ({"types": ("DocumentReference",)}, "lets no DocumentReference out"),
        ({"safe_harbor": SafeHarbor(b"short", 2026)}, "fewer than 32 bytes"),
    )
    for wanted, why in refused:
        with pytest.raises(PlanError, match=why):
            await exported(store, tmp_path / "out", **wanted)
    with pytest.raises(PlanError, match="no --changed-since"):
        await exported(store, tmp_path / "out", Selection(changed_since=1))
    await fill(store, [patient("a")], connection="also")
    with pytest.raises(PlanError, match=r"the store has also, site: .* --connection"):
        await exported(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
