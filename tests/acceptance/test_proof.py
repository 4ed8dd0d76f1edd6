"""After a sync the EHR is asked what it has, and the store is shown to hold it; or what it lacks is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import anyio
import psycopg
import pytest

from mocks.serving import Served
from snapshots.report import RunScope
from snapshots.store import Store
from tests.user_site import Site, mock, until


def prove(site: Site, name: str, *words: str, code: int) -> dict:
    done = site.run("prove", name, "--json", *words)
    assert done.code == code, f"exit {done.code}\n{done.stdout}\n{done.stderr}"
    return done.json["certificate"]


def of_type(certificate: dict, resource_type: str) -> dict:
    return next(one for one in certificate["types"] if one["type"] == resource_type)


def in_store(site: Site, statement: str) -> int:
    with psycopg.connect(site._store_url, autocommit=True) as conn:
        conn.execute("SET search_path = tenant_default")
        return conn.execute(statement).rowcount


def patient_of(served: Served, resource_type: str) -> tuple[str, str]:
    row = next(row for row in served.dataset.of_type(resource_type) if row.patient is not None)
    return row.id, str(row.patient)


def test_after_a_sync_every_vendors_ehr_is_proved_equal(site: Site, vendor: str) -> None:
    with mock(vendor) as served:
        name = site.connect(served)
        site.sync()
        certificate = prove(site, name, "--all", code=0)
    assert certificate["verdict"] == "equal", json.dumps(certificate, indent=1)
    assert certificate["patients"] == certificate["of_patients"] == len(served.patient_ids)
    proved = {one["type"]: one for one in certificate["types"]}
    assert proved["Observation"]["equal"] == len(served.patient_ids)
    assert proved["Observation"]["stored"] == proved["Observation"]["at_ehr"] > 0
    assert not any(one["fewer"] or one["missing"] or one["unanswered"] for one in certificate["types"])
    # counted only where the vendor's count can be trusted
    assert proved["Observation"]["method"] == {"epic": "ids", "cerner": "ids"}.get(vendor, "count")


def test_rows_lost_from_the_store_are_missing_and_change_the_exit_code(site: Site, vendor: str) -> None:
    with mock(vendor) as served:
        name = site.connect(served)
        site.sync()
        lost, patient = patient_of(served, "Condition")
        assert in_store(site, f"DELETE FROM resource WHERE resource_type = 'Condition' AND id = '{lost}'") == 1
        done = site.run("prove", name, "--all")
        certificate = prove(site, name, "--all", code=3)
    assert done.code == 3
    assert "NOT equal" in done.stdout
    finding = next(one for one in certificate["findings"] if one["verdict"] == "fewer")
    assert finding["type"] == "Condition"
    assert finding["at_ehr"] == finding["stored"] + 1
    assert "1 missing in the store" in finding["reason"]
    assert of_type(certificate, "Condition")["missing"] == 1
    for text in (done.stdout + done.stderr, json.dumps(certificate)):
        assert lost not in text
        assert patient not in text
    assert finding["scope"] in site.run("runs", str(certificate["run"])).stdout


def test_a_patient_entirely_lost_from_the_store_is_missing(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        in_store(site, f"DELETE FROM resource WHERE patient_id = '{served.patient_ids[0]}'")
        certificate = prove(site, name, code=3)
    finding = next(one for one in certificate["findings"] if one["type"] == "Patient")
    assert (finding["scope"], finding["verdict"]) == ("everyone", "fewer")


def test_a_cohort_patient_lost_from_the_store_is_missing(site: Site) -> None:
    with mock("epic") as served:
        name = site.connect(served)
        site.sync()
        in_store(site, f"DELETE FROM resource WHERE patient_id = '{served.patient_ids[0]}'")
        certificate = prove(site, name, "--all", code=3)
    assert of_type(certificate, "Patient")["fewer"] == 1


def test_rows_that_the_ehr_wrote_after_the_sync_are_missing_and_reported_as_new(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        row = served.dataset.of_type("Condition")[0]
        later = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        served.dataset.replace({**row.body, "id": "written-later", "meta": {"lastUpdated": later}})
        certificate = prove(site, name, "--all", code=3)
        finding = next(one for one in certificate["findings"] if one["verdict"] == "fewer")
        assert "changed since" in finding["reason"]
        site.sync()
        assert prove(site, name, "--all", code=0)["verdict"] == "equal"


def test_rows_that_the_ehr_deleted_after_the_sync_count_as_more_and_fail_nothing(site: Site, vendor: str) -> None:
    with mock(vendor) as served:
        name = site.connect(served)
        site.sync()
        gone, _ = patient_of(served, "Condition")
        served.dataset.delete("Condition", gone)
        certificate = prove(site, name, "--all", code=0)
    assert certificate["verdict"] == "more"
    assert "no longer at the EHR" in next(one["reason"] for one in certificate["findings"] if one["verdict"] == "more")


@pytest.mark.parametrize("unserved", ["/Condition/", "/metadata"])
def test_a_404_is_no_deletion_where_reads_are_not_served_or_declared(site: Site, unserved: str) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        gone, _ = patient_of(served, "Condition")
        served.dataset.delete("Condition", gone)
        served.faults.add({"match": {"path": unserved}, "action": {"status": 404}})
        certificate = prove(site, name, "--all", "--types", "Condition", code=0)
    assert certificate["verdict"] == "more"
    reasons = [one["reason"] for one in certificate["findings"]]
    assert any("reads do not show" in one for one in reasons)
    assert not any("no longer at the EHR" in one for one in reasons)


@pytest.mark.parametrize("body", ["operation-outcome", "html"])
def test_a_read_answered_with_something_else_does_not_prove_a_row_exists(site: Site, body: str) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        gone, _ = patient_of(served, "Condition")
        served.dataset.delete("Condition", gone)
        served.faults.add({"match": {"path": "/Condition/"}, "action": {"status": 200, "body": body}})
        certificate = prove(site, name, "--all", "--types", "Condition", code=0)
    assert certificate["verdict"] == "more"
    reasons = [one["reason"] for one in certificate["findings"]]
    assert any("not checked" in one for one in reasons)
    assert not any("still at the EHR" in one for one in reasons)


def test_a_row_counts_for_every_patient_who_is_a_member_of_it(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        id_, _ = patient_of(served, "Condition")
        # as a patient's search brings a row that names nobody
        in_store(
            site,
            "INSERT INTO member SELECT connection, resource_type, id, patient_id, true, 1 FROM resource "
            f"WHERE resource_type = 'Condition' AND id = '{id_}'",
        )
        in_store(site, f"UPDATE resource SET patient_id = NULL WHERE resource_type = 'Condition' AND id = '{id_}'")
        certificate = prove(site, name, "--all", code=0)
    assert certificate["verdict"] == "equal"
    assert {one["method"] for one in certificate["types"] if one["type"] == "Condition"} == {"count"}


def test_rows_reached_only_by_reference_do_not_count_as_more(site: Site) -> None:
    with mock("epic") as served:
        row = next(r for r in served.dataset.of_type("Observation") if r.patient is not None)
        member = {**row.body, "id": "member-1", "category": [{"coding": [{"code": "activity"}]}]}
        served.dataset.replace(member)
        name = site.connect(served)
        site.sync()
        in_store(
            site,
            "INSERT INTO resource (first_run, last_changed_run, connection, resource_type, id, patient_id, content_hash, body) "
            f"SELECT 1, 1, 1, 'Observation', 'member-1', '{row.patient}', '\\x00', '{{}}' "
            "WHERE NOT EXISTS (SELECT FROM resource WHERE id = 'member-1')",
        )
        certificate = prove(site, name, "--all", "--types", "Observation", code=0)
    assert certificate["verdict"] == "equal"
    assert any("beyond what this search lists" in one["reason"] for one in certificate["findings"])


def test_a_wrong_count_is_checked_by_reading_the_pages(site: Site) -> None:
    with mock("epic") as served:
        # the plain total is the size of the page: asked for it where there is more, it lies
        site.connect(served, "lied-to", profile={"completeness.count_query": "_count=1"})
        site.sync("lied-to")
        certificate = prove(site, "lied-to", "--all", "--types", "Encounter", code=0)
    assert certificate["verdict"] == "equal"
    assert of_type(certificate, "Encounter")["method"] == "count + ids"
    assert any("count is 1, but" in one["reason"] for one in certificate["findings"])


def test_a_stored_type_that_the_server_now_refuses_is_not_proved(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        served.faults.add({"match": {"purpose": "search", "path": "/Condition"}, "action": {"status": 403}})
        certificate = prove(site, name, "--all", code=3)
    refused = of_type(certificate, "Condition")
    assert certificate["verdict"] == "unanswered"
    assert (refused["unanswered"], refused["equal"], refused["fewer"]) == (len(served.patient_ids), 0, 0)


def test_questions_unanswered_for_some_patients_are_named_in_the_verdict(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        one = served.patient_ids[0]
        served.faults.add({"match": {"purpose": "search", "path": f"/Condition.*{one}"}, "action": {"status": 403}})
        done = site.run("prove", name, "--all")
        certificate = prove(site, name, "--all", code=0)
    assert done.code == 0
    patients = len(served.patient_ids)
    assert f"equal as far as could be asked (1 of {patients} questions of Condition could not)" in done.stdout
    assert "proved equal" not in done.stdout
    assert certificate["could_not_be_asked"] == 1


def test_a_type_that_was_never_served_fails_nothing(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served, mode="crawl")
        served.faults.add({"match": {"purpose": "search", "path": "/Condition"}, "action": {"status": 404}})
        site.sync()
        certificate = prove(site, name, "--all", code=0)
    assert of_type(certificate, "Condition")["not_asked"] == len(served.patient_ids)


def test_a_hole_that_still_cannot_be_fetched_is_not_proved(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served, mode="crawl")
        one = served.patient_ids[0]
        served.faults.add({"match": {"purpose": "search", "path": f"/Condition.*{one}"}, "action": {"status": 403}})
        site.sync(code=3)
        certificate = prove(site, name, "--all", code=3)
    assert certificate["verdict"] == "unanswered"
    assert of_type(certificate, "Condition")["unanswered"] == 1


def test_a_count_above_the_pages_and_the_store_is_not_equal(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        row = next(r for r in served.dataset.of_type("Condition") if r.patient is not None)
        listed = len([r for r in served.dataset.of_type("Condition") if r.patient == row.patient])
        counted = len(served.dataset.of_type("Condition"))
        served.faults.add(
            {
                "match": {"purpose": "search", "path": f"/Condition.*{row.patient}.*_summary=count"},
                "action": {"ignore": ["patient"]},
            }
        )
        certificate = prove(site, name, "--all", "--types", "Condition", code=3)
    finding = next(one for one in certificate["findings"] if one["verdict"] == "fewer")
    assert f"the server's count is {counted:,}, but its pages list {listed:,}" in finding["reason"]
    assert of_type(certificate, "Condition")["missing"] == counted - listed


def test_cohort_entries_that_name_nobody_are_not_proved_and_reported_by_line(site: Site) -> None:
    with mock("epic") as served:
        name = site.connect(served)
        site.sync()
        cohort = site.folder / f"{name}.csv"
        cohort.write_text(cohort.read_text() + "\nnobody-1\n")
        certificate = prove(site, name, "--all", code=3)
    finding = next(one for one in certificate["findings"] if one["verdict"] == "unanswered")
    assert finding["type"] == "Patient"
    assert "does not know this patient" in finding["reason"]


def test_patients_are_counted_once(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        certificate = prove(site, name, "--all", code=0)
    assert of_type(certificate, "Patient")["at_ehr"] == len(served.patient_ids)


def test_a_proof_does_not_request_what_the_ehr_deferred(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        put_off = "(connection, resource_type, patient_id, reason, until) VALUES (1, 'Condition', '', 'paused', now() + '1 h')"
        in_store(site, f"INSERT INTO deferral {put_off}")
        served.log.clear()
        certificate = prove(site, name, "--all", "--types", "Condition,Encounter", code=3)
        assert served.log.of("search", "Condition") == []
    assert of_type(certificate, "Condition")["unanswered"] == len(served.patient_ids)
    assert of_type(certificate, "Encounter")["equal"] == len(served.patient_ids)


def test_an_ehr_that_does_not_answer_proves_nothing(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served, profile={"retry.max_tries": 2})
        site.sync()
        served.faults.add({"match": {"purpose": "search", "path": "/Condition"}, "action": {"status": 503}})
        certificate = prove(site, name, "--all", code=3)
    assert certificate["verdict"] == "unanswered"


def test_a_server_without_search_has_nothing_to_compare(site: Site) -> None:
    with mock("generic", search=False) as served:
        name = site.connect(served)
        site.sync()
        certificate = prove(site, name, "--all", "--types", "Observation,Condition", code=4)
    assert certificate["verdict"] == "not asked"


def test_a_sample_asks_about_its_patients_only_and_states_its_seed(site: Site) -> None:
    with mock("epic", patients=6) as served:
        name = site.connect(served)
        site.sync()
        served.log.clear()
        first = prove(site, name, "--sample", "2", code=0)
        targets = " ".join(entry.target for entry in list(served.log))
        again = prove(site, name, "--sample", "2", "--seed", str(first["seed"]), code=0)
    assert (first["patients"], first["of_patients"], first["seed"]) == (2, 6, first["run"])
    assert sum(patient in targets for patient in served.patient_ids) == 2
    assert [one["at_ehr"] for one in again["types"]] == [one["at_ehr"] for one in first["types"]]


def test_the_certificate_is_in_the_runs_report(site: Site) -> None:
    with mock("cerner") as served:
        name = site.connect(served)
        site.sync()
        certificate = prove(site, name, code=0)
    report = json.loads(site.run("runs", str(certificate["run"]), "--json").stdout)["runs"][0]
    assert report["certificates"] == [certificate]
    assert "equal as far as could be asked" in site.run("runs", str(certificate["run"])).stdout


def test_a_proof_of_a_connection_never_synced_is_refused_with_the_next_step(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        done = site.run("prove", name)
    assert done.code == 2
    assert "chartferry sync" in done.stderr


@pytest.mark.anyio
async def test_an_active_run_is_not_proved(site: Site, store: Store, anyio_backend: str) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        scope = RunScope(connection=name, kind="sync", mode="crawl", selection="all", types=())
        async with await store.begin_run(scope):
            done = site.run("prove", name)
    assert done.code == 6
    assert "is in progress" in done.stderr


@pytest.mark.anyio
async def test_a_proof_gives_way_to_a_sync_that_begins(site: Site, store: Store, anyio_backend: str) -> None:
    with mock("generic", patients=6, latency_s=0.1) as served:
        name = site.connect(served, profile={"limits.max_concurrency": 1})
        site.sync("--types", "Patient,Condition")
        served.log.clear()
        proof = site.start("prove", name, "--all", "--json")
        await anyio.to_thread.run_sync(until, lambda: len(served.log.of("search")) >= 3, proof)
        scope = RunScope(connection=name, kind="sync", mode="crawl", selection="all", types=())
        async with await store.begin_run(scope):
            out, err = proof.communicate()
    assert proof.returncode == 6, err
    certificate = json.loads(out)["certificate"]
    assert certificate["gave_way"]
    assert any("the proof stopped for it" in note for note in certificate["notes"])
