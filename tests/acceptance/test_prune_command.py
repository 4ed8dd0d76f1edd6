"""An operator deletes what was kept long enough."""

from __future__ import annotations

import json

import psycopg

from tests.user_site import Site, mock


def test_pruning_first_counts_and_then_deletes_old_versions_whose_moments_are_then_refused(
    site: Site, store_url: str
) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        row = served.dataset.of_type("Condition")[0]
        served.dataset.replace(json.dumps({**row.body, "recordedDate": "2001-01-01"}, default=str).encode())
        site.sync()
    pruning = ("prune", "--history", "2y", "--quarantine", "90d", "--runs", "1y")
    assert site.run(*pruning).code == 4
    with psycopg.connect(store_url) as conn:
        conn.execute("UPDATE tenant_default.run SET finished_at = finished_at - interval '3 years'")
    looked = site.run(*pruning, "--dry-run", "--json").json
    units = looked["rows"].pop("unit")
    assert (looked["rows"], looked["kept_from"], looked["dry_run"]) == ({"resource_history": 1}, {name: 2}, True)
    assert site.run("runs", "1", "--json").json["runs"][0]["units_pruned"] is False
    done = site.run(*pruning)
    assert f"unit {units}" in " ".join(done.stdout.split())
    assert "the units of run 1 were pruned" in site.run("runs", "1").stdout
    assert (done.code, f"{name}: the first moment that can be read is run 2\n" in done.stdout) == (0, True)
    refused = site.run("diff", name, "1", "2")
    assert (refused.code, refused.stdout) == (2, "")
    assert "its history before run 2 was pruned" in refused.stderr
    patient = row.body["subject"]["reference"].removeprefix("Patient/")
    assert "what runs before 2 changed was pruned" in site.run("snapshots", name, patient).stdout
    assert site.run("pull", name, patient, "--stored", "--as-of", "2", "--out", "-").code == 0


def test_an_age_is_a_number_of_days_or_years(site: Site) -> None:
    for age in ("2", "2m", "-1d", "0d", "9999y"):
        assert site.run("prune", "--history", age).code == 2
    assert "--history AGE, --runs AGE, --quarantine AGE" in site.run("prune").stderr
