"""An engineer looks at the past of one chart: which runs changed it, and what it was after each."""

from __future__ import annotations

import json

from tests.user_site import Site, mock


def test_each_run_that_changed_a_chart_is_listed_and_reads_back(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        row = served.dataset.of_type("Condition")[0]
        patient = row.body["subject"]["reference"].removeprefix("Patient/")
        first = [site.run("pull", name, patient, "--stored", "--out", "-").stdout]
        site.sync()  # changes nothing
        served.dataset.replace(json.dumps({**row.body, "recordedDate": "2001-01-01"}, default=str).encode())
        site.sync()
        served.dataset.delete("Condition", row.id)
        site.sync()
    done = site.run("snapshots", name, patient, "--json")
    assert done.code == 0, done.stderr
    brought, changed, deleted = done.json["snapshots"]
    assert [one["run"] for one in (brought, changed, deleted)] == [1, 3, 4]
    assert brought["types"]["Patient"] == {"new": 1, "changed": 0, "deleted": 0}
    assert changed["types"] == {"Condition": {"new": 0, "changed": 1, "deleted": 0}}
    assert deleted["types"] == {"Condition": {"new": 0, "changed": 0, "deleted": 1}}
    past = ("pull", name, patient, "--stored", "--out", "-", "--as-of")
    assert [site.run(*past, "1").stdout, site.run(*past, "2").stdout] == first * 2
    assert '"2001-01-01"' in site.run(*past, "3").stdout
    assert '"2001-01-01"' not in site.run(*past, "4").stdout


def test_a_patient_without_rows_has_no_snapshots_and_is_not_named(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
    done = site.run("snapshots", name, "nobody-17")
    assert (done.code, "nobody-17" in done.stdout + done.stderr) == (4, False)


def test_a_moment_before_the_first_run_is_refused_because_the_store_was_empty(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
    done = site.run("pull", name, served.patient_ids[0], "--stored", "--out", "-", "--as-of", "2020-01-01T00:00:00Z")
    assert done.code == 4
    assert "at that moment the store had nothing about this patient" in done.stderr


def test_earlier_moments_are_read_from_the_store_alone(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        assert "add --stored" in site.run("pull", name, "p", "--as-of", "1").stderr
