"""More cases that fell once, by the number of their folder in the shared ones: of crawls, their documents and keys."""

from __future__ import annotations

import csv
import gzip
import json
from base64 import b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.acceptance.small_server import bundle, row, small_server, statement
from tests.user_site import Site

PATIENTS = (row("Patient", "p1"), row("Patient", "p2"))


def test_case_03_a_chart_includes_every_row_that_names_the_patient_anywhere(site: Site) -> None:
    patient = {"reference": "Patient/p1"}
    chart = {
        "Account": row("Account", "a1", subject=[patient]),
        "Appointment": row("Appointment", "ap1", participant=[{"actor": patient}]),
        "Communication": row("Communication", "co1", "p1"),
        "Condition": row("Condition", "c1", subject={"identifier": {"system": "urn:example:mrn", "value": "7"}}),
        "Provenance": row("Provenance", "pv1", target=[patient]),
        "ResearchSubject": row("ResearchSubject", "rs1", individual=patient),
    }

    def answer(path: str, query: dict[str, str]) -> Any:
        if path == "/metadata":
            return statement("Patient", *chart)
        if path[1:] in chart:
            return bundle(*[chart[path[1:]]] if query.get("patient") == "p1" else [])
        return {"/Patient/p1": PATIENTS[0], "/Patient": bundle(*PATIENTS)}.get(path)

    with small_server() as small:
        small.answer = answer
        name = site.connect(small.served)
        pulled = site.run("pull", name, "p1", "--out", "chart.ndjson")
        site.sync()
    lines = (site.folder / "chart.ndjson").read_text().splitlines()
    assert (pulled.code, [json.loads(line)["resourceType"] for line in lines]) == (0, ["Patient", *chart])
    (site.folder / "p1.csv").write_text("p1")
    assert {kind for kind, _ in site.exported("--patients", "p1.csv")} == {"Patient", *chart}


def test_case_04_a_value_that_no_column_can_hold_costs_its_cell_and_is_never_rounded(site: Site) -> None:
    odd = (
        row("Observation", "o1", "p1", valueQuantity={"value": "q12h"}),
        row("Observation", "o2", "p1", valueInteger=3.5),
    )
    answers = {
        "/metadata": statement("Patient", "Observation"),
        "/Patient": bundle(*PATIENTS),
        "/Observation": bundle(*odd),
    }
    with small_server() as small:
        small.answer = lambda path, query: answers.get(path)
        site.connect(small.served, cohort=None)
        site.run("sync")
    done = site.run("export", "--out", "out", "--json")
    files = {file["path"]: file for file in done.json["files"]}
    with gzip.open(site.folder / "out" / "observation.csv.gz", "rt", newline="") as file:
        cells = {cell for line in csv.DictReader(file) for name, cell in line.items() if name.startswith("value_")}
    assert done.code == 0
    assert sum(files["observation.csv.gz"]["left_empty"].values()) >= 1
    assert not cells & {"q12h", "4", "3"}
    assert {"patient.csv.gz", "procedure.csv.gz"} <= set(files)
    assert site.run("export", "--out", "strict", "--strict").code != 0


def test_case_07_a_list_of_patients_whose_session_expires_restarts_and_is_complete(site: Site) -> None:
    expired: list[bool] = []

    def answer(path: str, query: dict[str, str]) -> Any:
        if path == "/metadata":
            return statement("Patient", "Condition")
        if path == "/Condition":
            return bundle(row("Condition", f"c-{query['patient']}", query["patient"]))
        if path == "/Patient" and "page" not in query:
            return bundle(PATIENTS[0], link=[{"relation": "next", "url": f"{small.base}/Patient?page={len(expired)}"}])
        if path == "/Patient" and not expired:
            expired.append(True)
            return 410, {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "not-found"}]}, {}
        return bundle(PATIENTS[1]) if path == "/Patient" else None

    with small_server() as small:
        small.answer = answer
        site.connect(small.served)
        run = site.sync()["runs"][0]
    assert (run["status"], run["patients"], run["holes"]) == ("complete", 2, [])
    assert len(site.exported()) == 4


def test_case_12_attachments_with_invalid_content_types_are_fetched_and_noted(site: Site) -> None:
    claimed = ("ASCII Text", "pdf", "", None)

    def answer(path: str, query: dict[str, str]) -> Any:
        if path == "/metadata":
            return statement("Patient", "DocumentReference")
        if path == "/Patient":
            return bundle(PATIENTS[0])
        if path == "/DocumentReference":
            typed = [{} if one is None else {"contentType": one} for one in claimed]
            notes = [
                row("DocumentReference", f"d{n}", "p1", content=[{"attachment": {"url": f"Binary/b{n}", **one}}])
                for n, one in enumerate(typed)
            ]
            return bundle(*notes)
        if path.startswith("/Binary/"):
            return row("Binary", path[8:], contentType="text/plain", data=b64encode(path.encode()).decode())
        return None

    with small_server() as small:
        small.answer = answer
        site.connect(small.served)
        run = site.sync()["runs"][0]
        requested = sorted(one for one in small.paths if one.startswith("/Binary/"))
    assert run["status"] == "complete"
    assert requested == [f"/Binary/b{n}" for n in range(4)]
    assert "attachments: 4 in all: 1 stored, 3 stored (its content type is not a media type)" in run["notes"]


@pytest.mark.parametrize("written", ["with literal line ends", "in base64"])
def test_case_13_a_key_in_one_line_of_the_environment_is_read(
    site: Site, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    one_line = b64encode(key).decode() if written == "in base64" else key.decode().replace("\n", "\\n")
    monkeypatch.setenv("A_KEY_IN_ONE_LINE", one_line)
    with small_server() as small:
        site.connect(small.served, client_id="c", key="env:A_KEY_IN_ONE_LINE")
        checked = site.run("config", "check")
    assert (checked.code, "all is well" in checked.stdout) == (0, True)
