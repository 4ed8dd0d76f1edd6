"""Answers that begin, or end, an export in another way than the guide's: what is known of the job is used, and the rest told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from connectors.fhir.run import CohortSource
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.scripted_export import (
    OBSERVATION,
    OUTCOME,
    Answer,
    accepted,
    export_server,
    manifest,
    ndjson,
)

pytestmark = pytest.mark.anyio

TYPES = ("Patient", "Observation")
PATIENT_LEVEL, SYSTEM_LEVEL = "/fhir/Patient/$export", "/fhir/$export"
IN_ORDER: dict[str, Any] = {"bulk.levels": ["patient", "system"]}
NOWHERE = accepted(None)
BUNDLE = {"resourceType": "Bundle", "type": "searchset", "entry": []}
INFORMED = OUTCOME.format(severity="information", code="informational")
AT_ITS_JOB = {"Content-Location": "{origin}/jobs/1"}
TOLD = (
    '{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"processing","diagnostics":"of Jane Roe",'
    '"details":{"coding":[{"code":"59108"}]}}]}'
)


async def test_a_level_that_accepts_without_naming_a_job_is_reported_and_the_next_is_tried(store: KeptRows) -> None:
    async with export_server(pages={PATIENT_LEVEL: [NOWHERE], SYSTEM_LEVEL: [accepted()]}) as server:
        report = await server.sync(store, IN_ORDER, types=TYPES)
        waited = max(server.clock.waits, default=0)
    assert (report.status, report.error) == ("complete", None)
    assert any("Patient/$export: HTTP 202 without a status URL (a job that nobody" in note for note in report.notes)
    assert waited < 300  # for a lost job it would wait until it can be over


async def test_if_no_level_names_a_job_the_run_fails_and_the_next_one_does_not_wait(store: KeptRows) -> None:
    async with export_server(kickoffs=[NOWHERE]) as server:
        report = await server.sync(store, {"bulk.levels": ["patient"]}, types=TYPES)
        server.kickoffs = [accepted()]
        again = await server.sync(store, {"bulk.levels": ["patient"]}, types=TYPES)
        waited = max(server.clock.waits, default=0)
    assert report.status == "failed"
    assert "can be neither followed nor deleted" in (report.error or "")
    assert (again.status, waited < 300) == ("complete", True)


@pytest.mark.parametrize(
    "answer",
    [Answer(200, "", AT_ITS_JOB), Answer(201, "", AT_ITS_JOB), Answer(200, INFORMED, AT_ITS_JOB)],
    ids=["200", "201", "200 with an outcome"],
)
async def test_a_job_named_by_a_200_or_201_is_followed(store: KeptRows, answer: Answer) -> None:
    async with export_server(kickoffs=[answer]) as server:
        report = await server.sync(store, types=TYPES)
    assert (report.status, report.error, len(server.kicked_off)) == ("complete", None, 1)
    assert store.job_deleted() is True


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, BUNDLE, AT_ITS_JOB),
        Answer(200, "", {"Content-Location": "{origin}/fhir/Patient/$export?_type=Patient"}),
        Answer(201, "", {"Location": "{origin}/jobs/1"}),
    ],
    ids=["of the data beside it", "of the request itself", "of what was created"],
)
async def test_a_location_without_a_job_is_not_polled(store: KeptRows, answer: Answer) -> None:
    async with export_server(kickoffs=[answer]) as server:
        report = await server.sync(store, {"bulk.levels": ["patient"]}, types=("Patient",))
        polled = server.sent("/jobs/1")
    assert (report.status, polled, len(server.kicked_off)) == ("failed", [], 1)
    assert "did not start an asynchronous export" in (report.error or "")


@pytest.mark.parametrize("status", [200, 201])
async def test_a_manifest_that_answers_the_kick_off_is_a_finished_export_without_a_job(
    store: KeptRows, status: int
) -> None:
    done = Answer(
        status, manifest("Patient", "Observation").body, {"Content-Location": "{origin}/fhir/Patient/$export"}
    )
    async with export_server(kickoffs=[done]) as server:
        report = await server.sync(store, {"bulk.levels": ["patient"]})
        again = await server.sync(store, {"bulk.levels": ["patient"]}, since="none")
        waited = max(server.clock.waits, default=0)
        kicked, deletions = len(server.kicked_off), [one for one in server.main.seen if one.method == "DELETE"]  # type: ignore[union-attr]
    assert (report.status, report.error, report.notes) == ("complete", None, [])
    assert set(store.live()) == {("Patient", "p1"), ("Observation", "o1")}
    assert (again.status, kicked, deletions, waited) == ("complete", 2, [], 0)
    assert store.job_deleted() is True


async def test_an_expired_link_in_a_manifest_without_a_job_is_a_hole_and_starts_no_other_export(
    store: KeptRows,
) -> None:
    async with export_server(kickoffs=[manifest("Patient", "Observation")]) as server:
        server.files["Observation"] = [Answer(403, "")]
        report = await server.sync(store, {"bulk.levels": ["patient"]})
        kicked = len(server.kicked_off)
    assert (report.status, kicked) == ("partial", 1)
    assert "kept at the server" not in str(report.notes)
    assert set(store.live()) == {("Patient", "p1")}


@pytest.mark.parametrize(
    "further",
    [
        {"link": [{"relation": "next", "url": "{origin}/more"}]},
        {"next": "{origin}/more"},
        {"hasMore": True},
        {"link": "?"},
    ],
    ids=["a link", "a member", "a flag", "unreadable"],
)
async def test_a_manifest_with_further_pages_that_answers_the_kick_off_is_refused(
    store: KeptRows, further: dict[str, Any]
) -> None:
    async with export_server(
        kickoffs=[manifest("Patient", **further)], pages={"/more": [manifest("Observation")]}
    ) as server:
        report = await server.sync(store, {"bulk.levels": ["patient"]})
    assert report.status == "failed"
    assert "a manifest of several pages" in (report.error or "")
    assert store.live() == {}


@pytest.mark.parametrize("body", [{"resourceType": "Task", "output": []}, {"state": "done"}, [], "done"])
async def test_an_answer_to_the_kick_off_without_a_manifest_is_no_export(store: KeptRows, body: Any) -> None:
    async with export_server(kickoffs=[Answer(200, body)]) as server:
        report = await server.sync(store, {"bulk.levels": ["patient"]})
    assert report.status == "failed"
    assert "did not start an asynchronous export" in (report.error or "")


async def test_an_outcome_with_200_to_a_kick_off_is_reported_by_its_codes(store: KeptRows) -> None:
    async with export_server(kickoffs=[Answer(200, TOLD)]) as server:
        report = await server.sync(store, {"bulk.levels": ["patient"]}, types=TYPES)
    assert "HTTP 200 with an OperationOutcome (issue codes processing, 59108)" in (report.error or "")
    assert "Roe" not in (report.error or "")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Answer(200, TOLD), "an OperationOutcome (issue codes processing, 59108)"),
        (Answer(200, BUNDLE), "a Bundle"),
        (Answer(200, {"state": "Jane Roe"}), "something that is not a FHIR resource"),
    ],
    ids=["an outcome", "a Bundle", "no resource"],
)
async def test_json_that_is_no_manifest_at_the_status_url_is_reported_by_its_kind(
    store: KeptRows, answer: Answer, found: str
) -> None:
    async with export_server(polls=[answer]) as server:
        report = await server.sync(store, types=TYPES)
    assert report.status == "failed"
    assert f"the status URL answered 200 with {found}; sync again" in (report.error or "")
    assert "Roe" not in (report.error or "")


@pytest.mark.parametrize("status", [404, 410])
async def test_a_cohorts_lost_job_is_not_mistaken_for_an_unknown_patient(store: KeptRows, status: int) -> None:
    gone = Answer(status, OUTCOME.format(severity="error", code="not-found"))
    async with export_server(polls=[gone]) as server:
        report = await server.sync(
            store, {"bulk.levels": ["patient-list"]}, types=TYPES, cohort=CohortSource(values=("p1", "nobody"))
        )
        looked_up = server.sent("/fhir/Patient/p1") + server.sent("/fhir/Patient?")
    assert (report.status, looked_up, len(server.kicked_off)) == ("failed", [], 1)
    assert "status URL" in (report.error or "")
    assert "the job was deleted or has expired" in (report.error or "")


async def test_an_unfinished_file_is_waited_for_as_long_as_its_server_says(store: KeptRows) -> None:
    async with export_server() as server:
        server.files["Observation"] = [Answer(202, "", {"Retry-After": "20"})] * 12 + [ndjson(OBSERVATION)]
        report = await server.sync(store, types=TYPES)
        waits = [wait for wait in server.clock.waits if wait >= 20]
    assert (report.status, report.holes, len(waits)) == ("complete", [], 12)
    assert ("Observation", "o1") in store.live()


async def test_a_file_that_is_never_ready_is_a_hole_and_the_export_is_kept(store: KeptRows) -> None:
    async with export_server() as server:
        server.files["Observation"] = [Answer(202, "", {"Retry-After": "20"})]
        report = await server.sync(store, types=TYPES)
        (hole,) = report.holes
        server.files["Observation"] = [ndjson(OBSERVATION)]
        again = await server.sync(store, types=TYPES)
    assert report.status == "partial"
    assert "the server is still preparing this file" in hole.reason
    assert again.status == "complete"


async def test_a_count_of_minus_one_is_ignored_and_hides_no_deletion(store: KeptRows) -> None:
    output = [{"type": kind, "url": f"{{origin}}/files/{kind}", "count": -1} for kind in TYPES]
    second = OBSERVATION.replace('"o1"', '"o2"')
    async with export_server(polls=[manifest(output=output)]) as server:
        server.files["Observation"] = [ndjson(OBSERVATION, second)]
        assert (await server.sync(store, types=TYPES)).notes == []
        server.files["Observation"] = [ndjson(OBSERVATION)]
        report = await server.sync(store, types=TYPES)
    assert (report.status, report.deleted) == ("complete", 1)


async def test_an_empty_answer_to_a_poll_or_in_place_of_a_file_is_read_as_empty(store: KeptRows) -> None:
    async with export_server(polls=[Answer(204, ""), Answer(200, ""), manifest(*TYPES)]) as server:
        server.files["Observation"] = [Answer(204, "")]
        report = await server.sync(store, types=TYPES)
    assert (report.status, report.holes) == ("complete", [])
    assert any("does not prove that there is nothing of the type" in note for note in report.notes)


@pytest.mark.parametrize(
    ("version", "is_told"), [("1.0.2", True), ("5.0.0", True), ("4.3.0", False), ("R4", False), ("of Jane Roe", False)]
)
async def test_a_server_of_another_fhir_version_than_r4_is_reported(
    store: KeptRows, version: str, is_told: bool
) -> None:
    async with export_server(capability={"fhirVersion": version}) as server:
        report = await server.sync(store, types=TYPES)
    notes = [note for note in report.notes if "but chartferry reads R4" in note]
    assert [f"speaks FHIR {version}" in note for note in notes] == [True] * is_told
    assert "Roe" not in str(report.notes)


async def test_an_answer_altered_by_a_gateway_is_still_the_answer(store: KeptRows) -> None:
    async with export_server() as server:
        server.files["Observation"] = [Answer(203, ndjson(OBSERVATION).body)]
        report = await server.sync(store, types=TYPES)
    assert (report.status, report.holes) == ("complete", [])
    assert ("Observation", "o1") in store.live()


@pytest.mark.parametrize("expires", ["Thu, 01 Jan 1970 00:00:00 GMT", "0", "-1"])
async def test_an_expires_that_only_forbids_caching_ends_no_link(store: KeptRows, expires: str) -> None:
    listed = replace(manifest(*TYPES), headers={"Expires": expires})
    async with export_server(polls=[listed]) as server:
        report = await server.sync(store, types=TYPES)
        polls = server.sent("/jobs/1", "GET")
    assert (report.status, report.notes, len(polls)) == ("complete", [], 1)
