"""Cron runs `chartferry sync` every night."""

from __future__ import annotations

import json

import psycopg
import pytest

from mocks.keys import make_key_pair
from tests.acceptance.conftest import VENDORS
from tests.user_site import Site, key_pair, listed, mock, reachable, written

QUICK = {"epic": pytest.mark.quick, "cerner": pytest.mark.quick}  # one that crawls, and one that exports in bulk


@pytest.mark.parametrize("vendor", [pytest.param(one, marks=QUICK.get(one, ())) for one in VENDORS])
def test_a_first_sync_fetches_everything_that_the_vendors_mode_can_reach(site: Site, vendor: str) -> None:
    with mock(vendor) as served:
        site.connect(served)
        report = site.sync()
        expected = reachable(served)
    run = report["runs"][0]
    assert (report["status"], run["holes"], run["quarantined"]) == ("complete", [], 0)
    assert site.exported() == expected
    assert sum(run["resources"].values()) == run["new"] == len(expected)


def rows_written(store_url: str) -> dict[str, tuple[int, int, int]]:
    """Live counters of Postgres itself: rows inserted, updated, deleted in tables of resources."""
    with psycopg.connect(store_url, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        found = connection.execute(
            "SELECT relname, xmin_sum FROM (SELECT tableoid::regclass::text AS relname, sum(xmin::text::bigint) AS xmin_sum"
            " FROM tenant_default.resource GROUP BY 1 UNION ALL"
            " SELECT 'history', coalesce(sum(xmin::text::bigint), 0) FROM tenant_default.resource_history) t"
        ).fetchall()
    return dict(found)


def test_a_second_sync_over_unchanged_data_writes_no_row(site: Site, vendor: str, store_url: str) -> None:
    with mock(vendor, kickoff_window_s=0) as served:
        site.connect(served)
        site.sync()
        before = rows_written(store_url)
        run = site.sync()["runs"][0]
        expected = listed(served)  # what came by reference is fresh: it is not asked for
    assert rows_written(store_url) == before
    assert (run["status"], run["new"], run["changed"], run["deleted"]) == ("complete", 0, 0, 0)
    assert run["unchanged"] == len(expected)


def history_of(store_url: str, resource_type: str, resource_id: str) -> int:
    with psycopg.connect(store_url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM tenant_default.resource_history WHERE resource_type = %s AND id = %s",
            (resource_type, resource_id),
        ).fetchone()
    assert found is not None
    return int(found[0])


def test_a_changed_resource_makes_one_history_row_and_a_deleted_one_a_tombstone(
    site: Site, vendor: str, store_url: str
) -> None:
    with mock(vendor) as served:
        site.connect(served)
        site.sync()
        changed, deleted = served.dataset.of_type("Immunization")[:2]
        served.dataset.replace(changed.raw.replace(b'"completed"', b'"entered-in-error"', 1))
        served.dataset.delete("Immunization", deleted.id)
        run = site.sync()["runs"][0]
        again = site.sync()["runs"][0]
        expected = reachable(served)
    assert (run["status"], run["new"], run["changed"], run["deleted"]) == ("complete", 0, 1, 1)
    assert (again["changed"], again["deleted"]) == (0, 0)
    assert history_of(store_url, "Immunization", changed.id) == 1
    assert history_of(store_url, "Condition", "no such") == 0
    assert site.exported() == expected


def test_a_bad_page_is_a_named_hole_and_the_next_run_fills_it(site: Site) -> None:
    from mocks.faults import Action, FaultRule, Match

    with mock("epic") as served:
        site.connect(served, profile={"retry.max_tries": 2})
        rule = FaultRule(match=Match(purpose="search", path="/Procedure"), action=Action(status=503, body="html"))
        served.faults.add(rule)
        report = site.sync(code=3)
        run = report["runs"][0]
        assert (report["status"], {hole["type"] for hole in run["holes"]}) == ("partial", {"Procedure"})
        assert not any(patient in str(run["holes"]) for patient in served.patient_ids)
        served.faults.clear()
        assert site.sync()["status"] == "complete"
        assert site.exported() == reachable(served)


def test_a_resource_that_cannot_be_stored_is_a_hole_and_its_neighbours_are_stored(site: Site) -> None:
    with mock("cerner") as served:
        poison = served.dataset.of_type("Condition")[0]
        served.dataset.replace(
            poison.raw.replace(b'"resourceType"', rb'"note":[{"text":"a\u0000b"}],"resourceType"', 1)
        )
        site.connect(served)
        report = site.sync(code=3)
        expected = reachable(served)
    run = report["runs"][0]
    assert (run["quarantined"], [hole["type"] for hole in run["holes"]]) == (1, ["Condition"])
    del expected[("Condition", poison.id)]
    assert site.exported() == expected


@pytest.mark.parametrize(
    "words", [("--types", "Patient,Condition"), ("--types", "Patient,Condition", "--mode", "crawl")]
)
def test_only_the_requested_types_are_fetched(site: Site, words: tuple[str, ...]) -> None:
    with mock("generic") as served:
        site.connect(served)
        site.sync(*words)
        expected = {key: value for key, value in reachable(served).items() if key[0] in {"Patient", "Condition"}}
    assert site.exported() == expected


def test_a_wrong_key_is_refused_with_the_next_step_and_without_quoting_it(site: Site) -> None:
    with mock("epic", jwks=make_key_pair().jwks) as served:
        site.connect(served)
        done = site.run("sync")
    assert done.code == 5
    assert "invalid_client" in done.stdout + done.stderr
    assert key_pair("epic").private["d"] not in done.stdout + done.stderr


def test_a_server_that_is_down_is_a_failed_run_and_not_a_crash(site: Site) -> None:
    with mock("generic") as served:
        site.connect(served, profile={"retry.max_tries": 2})
    done = site.run("sync", "--json")
    assert (done.code, done.json["status"]) == (5, "failed")
    assert "Traceback" not in done.stderr


def test_nothing_that_a_sync_prints_contains_a_patient_or_token(site: Site, vendor: str) -> None:
    with mock(vendor) as served:
        site.connect(served)
        done = site.run("sync", "--json")
        output = done.stdout + done.stderr
        names = [written(row.raw)["name"][0]["family"] for row in served.dataset.of_type("Patient")]
        assert not any(word in output for word in (*served.patient_ids, *names))
    assert "eyJ" not in output
    assert "patient=" not in output


def test_nightly_changes_of_ignored_meta_make_no_versions(site: Site, store_url: str) -> None:
    with mock("generic", patients=2) as served:
        name = site.connect(served, profile={"changes.ignored": ["meta"]})
        site.sync()
        before = rows_written(store_url)["history"]
        for row in served.dataset.of_type("Condition"):
            stamp = {**row.body.get("meta", {}), "versionId": "77", "lastUpdated": "2026-01-01T00:00:00Z"}
            served.dataset.replace(json.dumps({**row.body, "meta": stamp}, default=str).encode())
        run = site.sync()["runs"][0]
        assert (run["status"], run["changed"], run["unchanged"]) == ("complete", 0, sum(run["resources"].values()))
        assert rows_written(store_url)["history"] == before
        assert site.run("prove", name, "--json").json["status"] == "equal"
