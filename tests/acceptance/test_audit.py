"""A security officer asks who saw a patient, whether anybody tampered with the answer, and takes it away as FHIR."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import psycopg

from tests.user_site import Site, mock


def test_the_audit_says_who_saw_a_patient_and_is_verified_and_exported(site: Site, store_url: str) -> None:
    began = datetime.now(UTC).isoformat()
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        patient, other = served.patient_ids[:2]
    site.exported("--as", "ana", "--reason", "study 12")
    assert site.run("pull", name, "-", "--stored", "--out", "-", stdin=patient).code == 0
    assert site.run("snapshots", name, "-", stdin=patient).code == 0

    command = ("audit", "--patient", "-", "--from", began, "--json")
    reads = site.run(*command, stdin=patient).json["reads"]
    assert [(one["actor"] == "ana", one["action"], one["reason"]) for one in reads] == [
        (True, "export", "study 12"),
        (False, "pull", None),
        (False, "snapshots", None),
    ]
    assert reads[0]["account"] == reads[1]["actor"]
    assert [one["action"] for one in site.run(*command, stdin=other).json["reads"]] == ["export"]
    shown = site.run("audit", "--patient", "-", stdin=patient)
    assert (shown.code, "study 12" in shown.stdout, patient in shown.stdout) == (0, True, False)
    assert site.run("audit", "--patient", "-", "--to", began, stdin=patient).code == 4

    whole = site.run("audit", "verify", "--json").json
    assert (whole["faults"], whole["unsealed"]) == ([], 0)
    taken = site.run("audit", "export", "--out", "-")
    events = [json.loads(line) for line in taken.stdout.splitlines()]
    named = {"reference": f"Patient/{patient}", "display": f"of connection {name}"}
    of_patient = [each for each in events if any(one.get("what") == named for one in each["entity"])]
    assert {each["resourceType"] for each in events} == {"AuditEvent"}
    assert len(of_patient) >= 3

    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute("UPDATE tenant_default.audit_event SET actor = 'nobody' WHERE actor = 'ana'")
    found = site.run("audit", "verify", "--head", whole["head"])
    assert (found.code, "an event was altered" in found.stderr) == (3, True)


def test_a_required_reason_is_required_before_anything_is_read(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
    config = site.folder / "chartferry.toml"
    config.write_text(config.read_text() + "\n[audit]\nrequire_reason = true\n")
    refused = site.run("export", "--out", "out")
    assert (refused.code, "add --reason" in refused.stderr, (site.folder / "out").exists()) == (2, True, False)
    assert site.run("pull", name, "-", "--stored", stdin="x").code == 2
    assert site.run("export", "--out", "out", "--reason", "study 12").code == 0
