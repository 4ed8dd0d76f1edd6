"""One run against the mock EHRs on real sockets, into a real store."""

from __future__ import annotations

import pytest

from connectors.fhir.sync import CohortSource
from mocks.faults import Action, FaultRule, Match
from tests.integration.connectors.kept_rows import KeptRows, kept_rows
from tests.integration.connectors.runs import run
from tests.user_site import key_pair, mock, reachable, written

pytestmark = pytest.mark.anyio

ALL_VENDORS = ("epic", "cerner", "allscripts", "va", "generic")


@pytest.mark.parametrize("vendor", ALL_VENDORS)
async def test_each_vendors_mode_fetches_everything_reachable_unchanged(store: KeptRows, vendor: str) -> None:
    with mock(vendor) as served:
        report = await run(served, store)
        expected = reachable(served)
    assert (report.status, report.error, report.holes) == ("complete", None, [])
    assert store.live() == expected


@pytest.mark.parametrize(
    ("knobs", "kind"), [({"bulk_levels": ()}, "search"), ({"search": False}, "file"), ({}, "file")]
)
async def test_a_generic_server_chooses_bulk_or_crawl_from_what_it_declares(
    store: KeptRows, knobs: dict, kind: str
) -> None:
    with mock("generic", **knobs) as served:
        report = await run(served, store)
    assert report.status == "complete"
    assert kind in {unit.kind for unit in store.units()}


async def test_a_crawl_and_an_export_of_the_same_patients_fetch_the_same_rows(store: KeptRows, store_url: str) -> None:
    async with kept_rows(store_url, "exported") as exported:
        with mock("generic") as served:
            await run(served, store, mode="crawl")
            await run(served, exported, profile={"bulk.levels": ["system"]})
            of_patients = {*served.dataset.patient_types, "Patient"}
    assert {k: v for k, v in store.live().items() if k[0] in of_patients} == {
        k: v for k, v in exported.live().items() if k[0] in of_patients
    }


@pytest.mark.parametrize("vendor", ["epic", "cerner"])
async def test_a_permanently_failing_file_or_page_is_a_hole_and_the_rest_is_stored(
    store: KeptRows, vendor: str
) -> None:
    purpose, path = ("search", "/Immunization") if vendor == "epic" else ("file", None)
    with mock(vendor, rows_per_file=50) as served:
        rule = FaultRule(
            match=Match(purpose=purpose, path=path), nth=1, action=Action(status=422, body="operation-outcome")
        )
        served.faults.add(rule)
        report = await run(served, store)
    assert report.status == "partial"
    assert len(report.holes) == 1
    assert sum(unit.state == "settled" for unit in store.units()) > 3


@pytest.mark.parametrize(
    "action",
    [
        Action(status=503, body="html"),
        Action(cut_after_bytes=300),
        Action(drop=True),
        Action(wrong_content=True),
        Action(status=429),
    ],
)
@pytest.mark.parametrize("vendor", ["epic", "allscripts", "generic"])
async def test_passing_faults_cost_a_retry_and_nothing_else(store: KeptRows, vendor: str, action: Action) -> None:
    with mock(vendor, rows_per_file=100) as served:
        for purpose in ("search", "read", "file"):
            served.faults.add(FaultRule(match=Match(purpose=purpose), every=9, action=action))
        report = await run(served, store, profile={"retry.floor": 500})
        expected = reachable(served)
    assert (report.status, report.holes) == ("complete", [])
    assert store.live() == expected
    assert report.retries > 0


async def test_a_next_link_that_is_refused_restarts_that_search(store: KeptRows) -> None:
    with mock("epic", page_size=20) as served:
        rule = FaultRule(
            match=Match(path="sessionID"),
            nth=2,
            action=Action(status=400, body="operation-outcome", issue_code="invalid"),
        )
        served.faults.add(rule)
        report = await run(served, store)
        expected = reachable(served)
    assert report.status == "complete"
    assert store.live() == expected


async def test_only_a_connection_with_a_login_is_reported_to_log_in(store: KeptRows) -> None:
    shown: list[str] = []
    with mock("epic") as served:
        await run(served, store, on_progress=lambda now: shown.append(now.phase), logs_in=False, types=("Patient",))
        assert "logging in" not in shown
        await run(served, store, on_progress=lambda now: shown.append(now.phase), types=("Patient",))
    assert "logging in" in shown


async def test_a_resumed_export_continues_its_job_and_requests_no_file_twice(store: KeptRows) -> None:
    with mock("cerner", rows_per_file=100, max_parallel_files=None) as served:
        served.faults.add(FaultRule(match=Match(purpose="status"), action=Action(status=503, body="html")))
        first = await run(served, store, profile={"retry.max_tries": 2})
        assert (first.status, "kept" in (first.error or "")) == ("failed", True)
        served.faults.clear()
        second = await run(served, store)
        expected = reachable(served)
        kickoffs = sum(entry.purpose == "kickoff" for entry in served.log)
    assert (second.status, kickoffs) == ("complete", 1)
    assert store.live() == expected
    assert store.job_deleted() is True


async def test_the_token_never_reaches_the_object_store(store: KeptRows) -> None:
    with mock("cerner") as served:
        await run(served, store)
        hops = [entry for entry in served.log if entry.purpose == "object"]
    assert hops
    assert not any(entry.had_authorization for entry in hops)


async def test_no_more_requests_are_in_flight_than_the_profile_allows(store: KeptRows) -> None:
    with mock("epic", latency_s=0.01) as served:
        await run(served, store, profile={"limits.max_concurrency": 3})
        assert served.log.max_concurrency == 3


async def test_a_refused_login_is_a_failed_run_with_the_reason(store: KeptRows) -> None:
    with mock("epic", jwks=key_pair("va").jwks) as served:
        report = await run(served, store)
    assert report.status == "failed"
    assert "invalid_client" in (report.error or "")


async def test_a_cohort_of_mrns_is_looked_up_and_unknown_ones_are_holes(store: KeptRows) -> None:
    with mock("generic", bulk_levels=()) as served:
        identifier = written(served.dataset.of_type("Patient")[0].raw)["identifier"][0]
        cohort = CohortSource(values=(identifier["value"], "no-such-mrn"), identifier_system=identifier["system"])
        report = await run(served, store, cohort=cohort)
        expected = served.dataset.of_type("Patient")[0].id
    assert report.status == "partial"
    assert [key[1] for key in store.live() if key[0] == "Patient"] == [expected]
    assert "no-such-mrn" not in repr(report)


async def test_a_bulk_exports_cohort_of_mrns_is_reported_by_the_files_lines(store: KeptRows) -> None:
    with mock("generic") as served:
        identifier = written(served.dataset.of_type("Patient")[0].raw)["identifier"][0]
        values = (identifier["value"], "no-such-mrn")
        cohort = CohortSource(values=values, identifier_system=identifier["system"], lines=(3, 7))
        report = await run(served, store, cohort=cohort, mode="bulk")
    assert "cohort entries not found: line 7" in report.notes


async def test_only_changes_are_requested_where_the_profile_is_incremental(store: KeptRows) -> None:
    with mock("cerner") as served:
        await run(served, store, types=("Patient", "Condition"))
        before = set(store.watermarks().values())
        served.log.clear()
        report = await run(served, store, profile={"changes.incremental": True}, types=("Patient", "Condition"))
        target = next(entry.target for entry in served.log if entry.purpose == "kickoff")
    assert len(before) == 1
    assert f"_since={before.pop()}" in target
    assert not any(unit.complete_listing for unit in store.units())
    assert report.status in {"complete", "nothing"}


async def test_a_requested_type_without_a_file_is_an_empty_listing(store: KeptRows) -> None:
    with mock("cerner") as served:
        for row in served.dataset.of_type("AllergyIntolerance"):
            served.dataset.delete("AllergyIntolerance", row.id)
        report = await run(served, store)
    assert report.status == "complete"
    assert ("no-file", "AllergyIntolerance", "settled", True) in store.units()


async def test_without_named_types_the_login_requests_everything_the_client_may_have(store: KeptRows) -> None:
    """A bulk server's CapabilityStatement lists Patient and Group only; what it exports is more."""
    with mock("generic", search=False) as served:
        report = await run(served, store)
        expected = reachable(served)
    assert report.status == "complete"
    assert store.live() == expected


async def test_an_app_registered_only_for_charts_still_gets_them(store: KeptRows) -> None:
    """What charts refer to needs scopes of its own; a server that refuses the whole request for one must not stop the sync."""
    with mock("cerner", unregistered_types=("Binary", "Medication")) as served:
        report = await run(served, store)
    assert report.status == "complete", report.error
    assert "what charts refer to (Medication)" in " ".join(report.notes)
    assert {"Patient", "Observation", "Condition"} <= {key[0] for key in store.live()}


async def test_a_partial_grant_is_reported_in_the_notes(store: KeptRows) -> None:
    with mock("generic", search=False) as served:
        report = await run(served, store, scopes=("system/Patient.read", "system/Condition.read"))
    assert {key[0] for key in store.live()} == {"Patient", "Condition"}
    assert "cover only: Condition, Patient" in " ".join(report.notes)


async def test_a_named_type_that_the_server_does_not_serve_is_a_hole(store: KeptRows) -> None:
    with mock("generic", bulk_levels=()) as served:
        report = await run(served, store, types=("Patient", "Observatoin"))
    assert report.status == "partial"
    assert {hole.resource_type for hole in report.holes} == {"Observatoin"}


async def test_an_unknown_patient_is_a_hole_even_if_patients_are_not_requested(
    store: KeptRows,
) -> None:
    with mock("generic") as served:
        report = await run(
            served, store, types=("Condition",), cohort=CohortSource(values=("nobody", served.patient_ids[0]))
        )
    assert [hole.resource_type for hole in report.holes] == ["Patient"]
    assert {key[0] for key in store.live()} == {"Condition"}
    of_patients = [unit.complete_listing for unit in store.units() if unit.resource_type == "Patient"]
    assert of_patients
    assert not any(of_patients)


async def test_an_export_of_nobody_proves_no_deletion(store: KeptRows) -> None:
    with mock("cerner") as served:
        for row in [row for kind in served.dataset.types for row in served.dataset.of_type(kind)]:
            served.dataset.delete(row.type, row.id)
        await run(served, store)
    assert not any(unit.complete_listing for unit in store.units())


async def test_an_export_with_a_file_missing_is_kept_at_the_server(store: KeptRows) -> None:
    with mock("cerner") as served:
        served.faults.add(
            FaultRule(match=Match(purpose="file"), nth=1, action=Action(status=422, body="operation-outcome"))
        )
        report = await run(served, store)
        deletions = sum(entry.purpose == "delete" for entry in served.log)
    assert (report.status, deletions) == ("partial", 0)
    assert "kept at the server" in " ".join(report.notes)


async def test_a_declared_but_missing_export_is_replaced_by_a_crawl(store: KeptRows) -> None:
    with mock("generic") as served:
        rule = FaultRule(match=Match(purpose="kickoff"), action=Action(status=501, body="operation-outcome"))
        served.faults.add(rule)
        report = await run(served, store)
        expected = reachable(served)
    assert report.status == "complete"
    assert expected.items() <= store.live().items()
    assert "crawled instead" in " ".join(report.notes)


async def test_a_group_on_a_server_without_export_is_crawled_by_its_members(store: KeptRows) -> None:
    with mock("generic", bulk_levels=()) as served:
        report = await run(served, store, group=served.group_id)
        expected = reachable(served)
    assert report.status == "complete"
    assert expected.items() <= store.live().items()


async def test_a_missing_search_is_a_note_until_the_server_has_sent_such_a_type(store: KeptRows) -> None:
    rule = FaultRule(match=Match(path="/Procedure"), action=Action(status=404, body="operation-outcome"))
    with mock("generic", bulk_levels=()) as served:
        served.faults.add(rule)
        report = await run(served, store)
        assert (report.status, "Procedure: not served here: HTTP 404" in " ".join(report.notes)) == ("complete", True)
        served.faults.clear()
        await run(served, store)
        served.faults.add(rule)
        report = await run(served, store)
    assert report.status == "partial"
    assert {hole.resource_type for hole in report.holes} == {"Procedure"}


async def test_a_resumed_export_of_changes_never_counts_as_a_full_listing(store: KeptRows) -> None:
    with mock("cerner") as served:
        await run(served, store, types=("Condition",))
        changed = served.dataset.of_type("Condition")[0]
        served.dataset.replace({**changed.body, "meta": {"versionId": "2", "lastUpdated": "2999-01-01T00:00:00Z"}})
        served.faults.add(FaultRule(match=Match(purpose="status"), action=Action(status=503, body="html")))
        await run(served, store, profile={"changes.incremental": True, "retry.max_tries": 2}, types=("Condition",))
        served.faults.clear()
        due = {"changes.incremental": True, "changes.reconcile_every_d": 0}  # by now a full listing would be due
        report = await run(served, store, profile=due, types=("Condition",))
    assert report.status == "complete"
    assert store.units()
    assert not any(unit.complete_listing for unit in store.units())
