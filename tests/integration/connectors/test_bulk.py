"""Bulk exports against mock servers of four versions of the guide, on real sockets, into a real store."""

from __future__ import annotations

import anyio
import pytest

from config.bulk_options import BulkOptions
from connectors.fhir.sync import CohortSource
from mocks.faults import Action, FaultRule, Match
from snapshots.unit import UnitKind
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.runs import run
from tests.user_site import mock, reachable, source

pytestmark = pytest.mark.anyio


def kickoffs(served):
    return [entry for entry in served.log if entry.purpose == "kickoff"]


# -- forms of the kick-off


@pytest.mark.quick
@pytest.mark.parametrize("version", [1, 2, 3, 4])
async def test_a_server_of_each_version_gets_its_own_form_at_once(store: KeptRows, version: int) -> None:
    with mock("generic", bulk_version=version) as served:
        report = await run(served, store, types=("Patient", "Condition"))
        methods = [entry.method for entry in kickoffs(served)]
    assert (report.status, report.error) == ("complete", None)
    assert methods == ["POST" if version == 4 else "GET"]
    assert {key[0] for key in store.live()} == {"Patient", "Condition"}


async def test_a_post_only_server_without_a_version_is_served_after_one_refusal(store: KeptRows) -> None:
    with mock("generic", bulk_version=4) as served:
        report = await run(
            served, store, profile={"kickoff.method": "GET", "kickoff.lists": "comma"}, types=("Patient", "Goal")
        )
        methods = [entry.method for entry in kickoffs(served)]
    assert (report.status, report.error) == ("complete", None)
    assert methods[0] == "GET"
    assert methods[-1] == "POST"
    assert len(methods) <= 3
    assert {key[0] for key in store.live()} <= {"Patient", "Goal"}


@pytest.mark.parametrize("knob", ["bulk_refuses", "bulk_refuses_unnamed"])
async def test_a_refused_narrowing_parameter_is_omitted_and_reported(store: KeptRows, knob: str) -> None:
    with mock("generic", **{knob: ("_elements", "_until")}) as served:
        options = BulkOptions(elements=("id",), until="2999-01-01T00:00:00Z")
        report = await run(served, store, types=("Patient", "Condition"), bulk=options)
        expected = {key: body for key, body in reachable(served).items() if key[0] in {"Patient", "Condition"}}
    assert (report.status, report.error) == ("complete", None)
    assert "_elements" in " ".join(report.notes)
    assert "_until" in " ".join(report.notes)
    assert store.live() == expected


async def test_a_refused_since_becomes_a_full_export(store: KeptRows) -> None:
    with mock("generic", bulk_refuses=("_since",)) as served:
        report = await run(served, store, since="2026-01-01T00:00:00Z", types=("Patient", "Condition"))
    assert report.status == "complete"
    assert "_since" in " ".join(report.notes)
    assert all(unit.complete_listing for unit in store.units())


async def test_refused_associated_data_is_never_omitted_silently(store: KeptRows) -> None:
    with mock("generic", bulk_refuses=("includeAssociatedData",)) as served:
        options = BulkOptions(include_associated_data=("LatestProvenanceResources",))
        report = await run(served, store, bulk=options)
    assert report.status == "failed"
    assert "includeAssociatedData" in (report.error or "")


async def test_a_filter_fetches_matching_rows_and_deletes_no_others(store: KeptRows) -> None:
    with mock("generic") as served:
        await run(served, store)
        before = store.live()
        options = BulkOptions(type_filters=("Observation?category=laboratory,vital-signs",))
        report = await run(served, store, types=("Patient", "Observation"), bulk=options)
    assert (report.status, report.deleted) == ("complete", 0)
    assert store.live() == before


@pytest.mark.parametrize("comma", ["percent", "backslash"])
async def test_a_comma_within_a_filter_stays_one_filter(store: KeptRows, comma: str) -> None:
    with mock("generic") as served:
        options = BulkOptions(
            type_filters=("Observation?category=laboratory,vital-signs", "Condition?category=nothing")
        )
        await run(
            served,
            store,
            types=("Observation", "Condition"),
            bulk=options,
            profile={"kickoff.type_filter_comma": comma},
        )
        all_observations = {row.id for row in served.dataset.of_type("Observation")}
        wanted = {
            row.id
            for row in served.dataset.of_type("Observation")
            if b'"laboratory"' in row.raw or b'"vital-signs"' in row.raw
        }
    found = {key[1] for key in store.live() if key[0] == "Observation"}
    assert found == wanted
    assert found != all_observations
    assert not any(key[0] == "Condition" for key in store.live())


async def test_a_filter_for_an_unrequested_type_is_refused_before_anything_is_sent(store: KeptRows) -> None:
    with mock("generic") as served:
        options = BulkOptions(type_filters=("Goal?status=active",))
        report = await run(served, store, types=("Patient",), bulk=options)
        assert not kickoffs(served)
    assert "Add Goal there" in (report.error or "")


async def test_named_patients_excluded_by_a_patient_filter_are_no_holes(store: KeptRows) -> None:
    with mock("generic") as served:
        everybody = CohortSource(values=tuple(served.patient_ids))
        options = BulkOptions(type_filters=("Patient?category=nothing",))
        report = await run(
            served, store, mode="bulk", group=None, cohort=everybody, types=("Patient", "Observation"), bulk=options
        )
    assert (report.status, report.holes) == ("complete", [])
    assert {key[0] for key in store.live()} == {"Observation"}


async def test_an_export_until_an_instant_moves_the_watermark_to_that_instant(store: KeptRows) -> None:
    until = "2024-01-01T00:00:00Z"
    with mock("generic") as served:
        report = await run(served, store, types=("Patient", "Condition"), bulk=BulkOptions(until=until))
    assert report.status in {"complete", "nothing"}
    assert set(store.watermarks().values()) <= {until}
    assert not any(unit.complete_listing for unit in store.units())


async def test_partial_resources_never_overwrite_whole_ones_and_delete_nothing(store: KeptRows) -> None:
    with mock("generic") as served:
        await run(served, store)
        before = store.live()
        report = await run(served, store, types=("Patient", "Condition"), bulk=BulkOptions(elements=("id",)))
    assert (report.status, report.changed, report.deleted) == ("complete", 0, 0)
    assert store.live() == before


async def test_partial_resources_that_are_new_are_stored_until_they_arrive_whole(store: KeptRows) -> None:
    with mock("generic") as served:
        await run(served, store, types=("Patient",), bulk=BulkOptions(elements=("id",)))
        assert all("SUBSETTED" in str(body["meta"]) for body in store.live().values())
        await run(served, store, types=("Patient",))
        expected = {key: body for key, body in reachable(served).items() if key[0] == "Patient"}
    assert store.live() == expected


async def test_blocks_by_patient_are_stored_line_by_line_without_their_headers(store: KeptRows) -> None:
    with mock("generic", rows_per_file=30) as served:
        report = await run(served, store, bulk=BulkOptions(organize_by="Patient"))
        expected = reachable(served)
    assert (report.status, report.holes) == ("complete", [])
    assert store.live() == expected


async def test_a_cohort_is_exported_by_naming_its_patients_and_nobody_else(store: KeptRows) -> None:
    with mock("cerner") as served:
        chosen = served.patient_ids[:2]
        report = await run(served, store, mode="bulk", group=None, cohort=CohortSource(values=tuple(chosen)))
        (kickoff,) = kickoffs(served)
    assert (report.status, report.holes) == ("complete", [])
    assert (kickoff.method, kickoff.template) == ("POST", "/Patient/$export")
    assert {key[1] for key in store.live() if key[0] == "Patient"} == set(chosen)


async def test_a_named_patient_missing_from_the_export_is_a_hole(store: KeptRows) -> None:
    with mock("cerner") as served:
        cohort = CohortSource(values=tuple(served.patient_ids[:2]))
        absent = served.patient_ids[1]
        of_patient = served.dataset.of_patient
        served.ehr.dataset.of_patient = lambda kind, who: (
            [] if (kind, who) == ("Patient", absent) else of_patient(kind, who)
        )
        report = await run(served, store, mode="bulk", group=None, cohort=cohort)
    assert report.status == "partial"
    assert [(hole.resource_type, hole.reason) for hole in report.holes] == [
        ("Patient", "the export has no Patient with this id")
    ]


# -- resumption and ambiguity


@pytest.mark.parametrize("action", [Action(status=503, body="html"), Action(drop=True), Action(wrong_content=True)])
async def test_a_kick_off_whose_answer_was_lost_is_not_sent_again_until_its_time_has_passed(
    store: KeptRows, action: Action
) -> None:
    with mock("generic") as served:
        served.faults.add(FaultRule(match=Match(purpose="kickoff"), nth=1, action=action))
        first = await run(served, store)
        assert (first.status, len(kickoffs(served))) == ("failed", 1)
        assert "kickoff.again_s" in (first.error or "")
        second = await run(served, store)
        expected = reachable(served)
        assert len(kickoffs(served)) == 2
    assert second.status == "complete"
    assert "never answered" in " ".join(second.notes)
    assert store.live() == expected


async def test_a_stale_job_of_ours_behind_a_429_is_deleted_and_the_export_begins(store: KeptRows) -> None:
    with mock("cerner", polls=1000) as served:
        served.faults.add(FaultRule(match=Match(purpose="status"), action=Action(status=503, body="html")))
        # left at the server, running
        await run(served, store, profile={"retry.max_tries": 2}, types=("Patient", "Condition"))
        served.faults.clear()
        served.ehr.config.__dict__["polls"] = 1
        report = await run(served, store, types=("Patient", "Observation"))  # another scope: the old run is given up
        statuses = [entry.status for entry in kickoffs(served)]
        deletions = sum(entry.purpose == "delete" for entry in served.log)
    assert report.status == "complete"
    assert statuses == [202, 429, 202]
    assert deletions == 2


async def test_an_export_that_was_not_deleted_is_deleted_by_the_next_run(store: KeptRows) -> None:
    with mock("generic") as served:
        served.faults.add(FaultRule(match=Match(purpose="delete"), action=Action(status=500, body="operation-outcome")))
        first = await run(served, store, profile={"retry.max_tries": 2})
        assert first.status == "complete"
        assert "next run tries again" in " ".join(first.notes)
        assert len(served.ehr.jobs) == 1
        served.faults.clear()
        second = await run(served, store)
        assert (second.status, len(served.ehr.jobs)) == ("complete", 0)


async def test_a_group_exported_too_recently_fails_at_once_and_says_when(store: KeptRows) -> None:
    with mock("epic") as served:
        wanted = {"mode": "bulk", "group": served.group_id, "cohort": None}
        assert (await run(served, store, **wanted)).status == "complete"
        second = await run(served, store, **wanted)
        assert [entry.status for entry in kickoffs(served)] == [202, 400]
    assert second.status == "failed"
    assert "24 h after our last export" in (second.error or "")


async def test_a_409_for_the_same_export_is_resolved_by_deleting_our_job(store: KeptRows) -> None:
    with mock("cerner", soarian=True) as served:
        served.faults.add(FaultRule(match=Match(purpose="delete"), last=1, action=Action(status=403)))
        assert (await run(served, store)).status == "complete"
        second = await run(served, store)
        assert second.status == "complete"


async def test_patient_is_requested_with_another_type_where_the_vendor_refuses_it_alone(store: KeptRows) -> None:
    with mock("epic") as served:
        report = await run(served, store, mode="bulk", group=served.group_id, cohort=None, types=("Patient",))
    assert report.status == "complete"
    assert "AllergyIntolerance was requested as well" in " ".join(report.notes)


# -- manifests


async def test_files_are_fetched_while_the_server_still_works(store: KeptRows) -> None:
    with mock(
        "generic", bulk_version=3, rows_per_file=40, files_per_manifest=2, partial_manifests=True, polls=3
    ) as served:
        report = await run(served, store)
        expected = reachable(served)
        order = [entry.purpose for entry in served.log if entry.purpose in {"status", "file"}]
    assert (report.status, report.holes) == ("complete", [])
    assert store.live() == expected
    assert "file" in order[: len(order) - order[::-1].index("status")]


@pytest.mark.parametrize("vendor", ["generic", "cerner"])
async def test_a_manifest_of_many_pages_is_followed_to_its_end(store: KeptRows, vendor: str) -> None:
    with mock(vendor, rows_per_file=20, files_per_manifest=1, max_parallel_files=None) as served:
        report = await run(served, store)
        expected = reachable(served)
    assert (report.status, report.holes) == ("complete", [])
    assert store.live() == expected


async def test_expired_links_are_renewed_once_for_all_files(store: KeptRows) -> None:
    with mock("generic", rows_per_file=20, manifest_life_s=600) as served:
        rule = FaultRule(match=Match(purpose="file"), first=3, last=4, action=Action(status=403))
        served.faults.add(rule)
        report = await run(served, store)
        expected = reachable(served)
        manifests = sum(entry.purpose == "status" and entry.status == 200 for entry in served.log)
        files = sum(entry.purpose == "file" for entry in served.log)
    assert (report.status, report.holes) == ("complete", [])
    assert store.live() == expected
    assert manifests <= 3
    assert files > 20


async def test_links_about_to_expire_are_renewed_before_use(store: KeptRows) -> None:
    with mock(
        "generic", rows_per_file=20, manifest_life_s=29
    ) as served:  # less than the margin by a second: as long as can be
        report = await run(served, store)
        expected = reachable(served)
        refused = sum(entry.status == 403 for entry in served.log)
    assert (report.status, refused) == ("complete", 0)
    assert "the server keeps the export's files only until" in " ".join(report.notes)
    assert store.live() == expected


async def test_a_separate_job_status_is_read(store: KeptRows) -> None:
    with mock("generic", separate_status=True, polls=2) as served:
        report = await run(served, store, profile={"bulk.separate_status": True})
        expected = reachable(served)
    assert report.status == "complete"
    assert store.live() == expected


async def test_a_deletion_in_the_manifest_becomes_a_tombstone(store: KeptRows) -> None:
    with mock("generic", deleted_file=True) as served:
        await run(served, store, types=("Patient", "Condition"))
        gone = served.dataset.of_type("Condition")[0]
        served.dataset.delete("Condition", gone.id)
        report = await run(served, store, since="2999-01-01T00:00:00Z", types=("Patient", "Condition"))
    assert report.deleted == 1
    assert ("Condition", gone.id) not in store.live()


async def test_polls_that_are_too_early_are_slowed_down(store: KeptRows) -> None:
    with mock("generic", polls=4) as served:
        too_soon = Action(status=429, headers={"Retry-After": "5"}, body="operation-outcome", issue_code="throttled")
        served.faults.add(FaultRule(match=Match(purpose="status"), first=2, last=4, action=too_soon))
        report = await run(served, store)
    assert report.status == "complete"


async def test_a_type_missing_entirely_from_an_export_of_all_types_is_reported(store: KeptRows) -> None:
    with mock("generic") as served:
        await run(served, store)
        for row in served.dataset.of_type("AllergyIntolerance"):
            served.dataset.delete(row.type, row.id)
        report = await run(served, store)
    assert "earlier exports had AllergyIntolerance" in " ".join(report.notes)


# -- files


async def test_a_truncated_file_continues_where_it_was_cut_if_the_server_can(store: KeptRows) -> None:
    with mock("generic", ranges=True) as served:
        served.faults.add(FaultRule(match=Match(purpose="file"), every=2, action=Action(cut_after_bytes=700)))
        report = await run(served, store, types=("Patient", "Condition", "Observation"))
        expected = {k: v for k, v in reachable(served).items() if k[0] in {"Patient", "Condition", "Observation"}}
    assert (report.status, report.holes) == ("complete", [])
    assert store.live() == expected
    assert "resumed where it stopped" in " ".join(report.notes)


async def test_a_run_killed_within_a_file_continues_within_it(store: KeptRows) -> None:
    knobs = {"ranges": True, "plain_files": True, "bandwidth_bytes_s": 4e6, "patients": 40, "rows_per_file": 100_000}
    with mock("generic", **knobs) as served:

        async def kill_once_something_is_stored(scope: anyio.CancelScope) -> None:
            while not store.live():  # noqa: ASYNC110  rows of another process' database
                await anyio.sleep(0.01)
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill_once_something_is_stored, tasks.cancel_scope)
            await run(served, store, types=("Observation",))
        before = len(store.live())
        report = await run(served, store, types=("Observation",))
        expected = source(served, ["Observation"])
        requests = [entry for entry in served.log if entry.purpose == "file"]
    assert 0 < before < len(expected)
    assert (report.status, report.holes, len(kickoffs(served))) == ("complete", [], 1)
    assert store.live() == expected
    assert [entry.status for entry in requests] == [200, 206]
    assert "resumed where it stopped" in " ".join(report.notes)


async def test_a_run_killed_before_the_kick_offs_answer_knows_that_a_job_may_exist(store: KeptRows) -> None:
    with mock("generic") as served:
        served.faults.add(FaultRule(match=Match(purpose="kickoff"), nth=1, action=Action(stall=True)))

        async def kill_once_it_is_asked(scope: anyio.CancelScope) -> None:
            while not kickoffs(served):  # noqa: ASYNC110  the log of another thread's server
                await anyio.sleep(0.01)
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill_once_it_is_asked, tasks.cancel_scope)
            await run(served, store)
        report = await run(served, store)
        expected = reachable(served)
    assert report.status == "complete"
    assert "never answered" in " ".join(report.notes)
    assert store.live() == expected


async def test_a_storm_of_refusals_and_failures_over_2000_files_needs_no_operator(store: KeptRows) -> None:
    with mock("generic", patients=8, rows_per_file=2) as served:
        for first in (200, 800, 1500):  # 40 refusals on end, thrice; and 1 % of true failures all along
            served.faults.add(
                FaultRule(match=Match(purpose="file"), first=first, last=first + 40, action=Action(status=429))
            )
        served.faults.add(FaultRule(match=Match(purpose="file"), probability=0.03, action=Action(status=429)))
        served.faults.add(
            FaultRule(match=Match(purpose="file"), probability=0.01, action=Action(status=502, body="html"))
        )
        report = await run(served, store, profile={"retry.floor": 40, "retry.share": 0.05})
        expected = reachable(served)
    assert len([unit for unit in store.units() if unit.kind == UnitKind.FILE]) > 1800
    assert (report.status, report.holes) == ("complete", [])
    assert report.retries > 120
    assert store.live() == expected
