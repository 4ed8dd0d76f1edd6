"""An engineer pulls one patient's chart."""

from __future__ import annotations

import gzip
import json

import pytest

from mocks.faults import Action, FaultRule, Match
from tests.acceptance.small_server import small_server
from tests.user_site import REFERRED, Site, by_key, mentions, mock, reachable


def chart_of(expected: dict, patient: str) -> dict:
    def patient_of(resource: dict) -> str | None:
        for name in ("subject", "patient", "beneficiary"):
            reference = resource.get(name, {}).get("reference", "")
            if reference.startswith("Patient/"):
                return str(reference.removeprefix("Patient/"))
        return None

    found = {key: r for key, r in expected.items() if key == ("Patient", patient) or patient_of(r) == patient}
    fresh = list(found.values())
    while fresh:  # and what it mentions that is nobody's: Medication, Practitioner, …
        wanted = {key for resource in fresh for key in mentions(resource)} & expected.keys() - found.keys()
        fresh = [expected[key] for key in wanted if key[0] in REFERRED and patient_of(expected[key]) is None]
        found |= {key: expected[key] for key in wanted if expected[key] in fresh}
    return found


def test_a_pull_writes_one_patients_whole_chart_to_one_file_and_requests_nobody_else(site: Site, vendor: str) -> None:
    with mock(vendor) as served:
        name = site.connect(served)
        patient, *others = served.patient_ids
        done = site.run("pull", name, patient, "--out", "chart.ndjson.gz")
        assert done.code == 0, done.stderr
        expected = chart_of(reachable(served), patient)
        targets = " ".join(entry.target for entry in list(served.log))
    pulled = by_key(gzip.decompress((site.folder / "chart.ndjson.gz").read_bytes()).splitlines())
    assert pulled == expected
    assert not any(other in targets for other in others)
    assert patient not in done.stdout + done.stderr


def test_a_stored_chart_is_delivered_without_a_request_to_the_ehr(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        patient = served.patient_ids[0]
        expected = chart_of(reachable(served), patient)
    done = site.run("pull", name, patient, "--stored", "--format", "bundle", "--out", "-")
    assert done.code == 0, done.stderr
    bundle = json.loads(done.stdout)
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "collection")
    assert {(e["resource"]["resourceType"], e["resource"]["id"]) for e in bundle["entry"]} == set(expected)


@pytest.mark.parametrize("vendor", ["epic", "cerner", "generic", "va"])
def test_an_unknown_patient_is_reported_in_one_line(site: Site, vendor: str) -> None:
    with mock(vendor) as served:
        name = site.connect(served)
        done = site.run("pull", name, "nobody-here", "--out", "chart.ndjson.gz")
        as_json = site.run("pull", name, "nobody-here", "--out", "chart.ndjson.gz", "--json")
    assert (done.code, as_json.code, json.loads(as_json.stdout)["status"]) == (4, 4, "nothing")
    assert "nobody-here" not in done.stdout + done.stderr + as_json.stdout + as_json.stderr
    lines = [
        line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("hole", "note", f"{name}: the"))
    ]
    assert lines == [f"{name}: the EHR does not know this patient; check the id (a FHIR id, not an MRN)"]
    listed = site.run("runs").stdout.split()
    assert listed[:3] == ["connection", "run", "kind"]
    assert listed.count("pull") == 2
    (last, *_) = site.run("runs", "--json").json["runs"]
    assert f"check the patient's id, then `chartferry pull {name} -`" in site.run("runs", str(last["id"])).stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("",), 2, "a word is empty"),
        (("p1", "--out", "charts/"), 5, "it is a folder"),
        (("Patient/",), 2, "the id is empty"),
        (("p1", "--out", "nowhere/chart.ndjson"), 5, "there is no folder nowhere"),
        (("p1", "--out", "."), 5, "it is a folder"),
    ],
)
def test_a_pull_without_a_patient_or_writable_file_sends_no_request(
    site: Site, words: tuple[str, ...], code: int, says: str
) -> None:
    with small_server() as small:
        done = site.run("pull", site.connect(small.served), *words)
        assert small.paths == []
    assert (done.code, says in done.stderr) == (code, True), done.stderr


def test_a_patient_no_longer_known_to_the_ehr_is_delivered_as_stored_with_the_hole(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        patient = served.patient_ids[0]
        assert site.run("pull", name, patient, "--out", "chart.ndjson.gz").code == 0
        gone = Action(status=404, body="operation-outcome")
        served.faults.add(FaultRule(match=Match(path=f"Patient/{patient}"), action=gone))
        done = site.run("pull", name, patient, "--out", "again.ndjson.gz")
    assert done.code == 3
    assert "does not know this patient" in done.stdout + done.stderr
    assert (site.folder / "again.ndjson.gz").exists()


def test_relative_references_in_a_bundle_lead_to_its_entries(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served, base_url=served.base_url + "/")
        patient = served.patient_ids[0]
        done = site.run("pull", name, patient, "--format", "bundle", "--out", "chart.json")
        stored = site.run("pull", name, patient, "--format", "bundle", "--out", "again.json", "--stored")
    assert (done.code, stored.code) == (0, 0)
    entries = json.loads((site.folder / "chart.json").read_text())["entry"]
    kinds = {(entry["resource"]["resourceType"], entry["resource"]["id"]): entry["fullUrl"] for entry in entries}
    assert kinds == {key: f"{served.base_url}/{key[0]}/{key[1]}" for key in kinds}
    subjects = {entry["resource"]["subject"]["reference"] for entry in entries if "subject" in entry["resource"]}
    assert subjects == {f"Patient/{patient}"}
    assert f"{served.base_url}/Patient/{patient}" in kinds.values()
    assert (site.folder / "again.json").read_bytes() == (site.folder / "chart.json").read_bytes()


def test_a_pull_moves_no_watermark_and_makes_no_tombstone(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        everything = reachable(served)
        assert site.run("pull", name, served.patient_ids[0], "--out", "chart.ndjson.gz").code == 0
    assert site.exported() == everything
