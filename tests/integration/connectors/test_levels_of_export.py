"""An export that was asked for is tried, level by level, whatever the server declares of itself."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.fhir.run import CohortSource
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.scripted_export import Answer, ExportServer, accepted, export_server, outcome

pytestmark = pytest.mark.anyio

PATIENT_LEVEL, SYSTEM_LEVEL = "/fhir/Patient/$export", "/fhir/$export"
IN_ORDER: dict[str, Any] = {"bulk.levels": ["group", "patient", "system", "patient-list"]}
DECLARES_NOTHING = {"rest": [{"mode": "server", "resource": [{"type": "Patient"}]}]}


def levels(server: ExportServer) -> list[str]:
    """The paths of the kick-offs, each once, in order."""
    return list(dict.fromkeys(seen.target.partition("?")[0] for seen in server.kicked_off))


async def test_a_requested_export_is_tried_even_if_the_server_declares_none(store: KeptRows) -> None:
    async with export_server(capability=DECLARES_NOTHING) as server:
        report = await server.sync(store, IN_ORDER)
    assert (report.status, report.error) == ("complete", None)
    assert levels(server) == [PATIENT_LEVEL]


async def test_a_requested_export_is_tried_even_without_a_capability_statement(store: KeptRows) -> None:
    async with export_server(pages={"/fhir/metadata": [Answer(403)]}) as server:
        report = await server.sync(store, IN_ORDER)
    assert (report.status, report.error) == ("complete", None)


@pytest.mark.parametrize(
    "refusal",
    [
        Answer(404),
        Answer(501),
        Answer(403),
        outcome(400, "not-supported"),
        outcome(405, "not-supported"),
        outcome(422, "processing"),
        Answer(200, {"resourceType": "Bundle", "type": "searchset"}),
    ],
    ids=lambda refusal: str(refusal.status),
)
async def test_a_refused_level_is_reported_and_followed_by_the_profiles_next_one(
    store: KeptRows, refusal: Answer
) -> None:
    async with export_server(pages={PATIENT_LEVEL: [refusal], SYSTEM_LEVEL: [accepted()]}) as server:
        report = await server.sync(store, IN_ORDER)
        assert levels(server) == [PATIENT_LEVEL, SYSTEM_LEVEL]
        assert (report.status, report.error) == ("complete", None)
        refused = f"HTTP {refusal.status}" + (" without an export job" if refusal.status == 200 else "")
        assert any("Patient/$export" in note and refused in note for note in report.notes)
        again = await server.sync(store, IN_ORDER)
    assert again.status == "complete"
    assert again.deleted == 0


async def test_a_refusal_of_every_level_names_each_with_its_status(store: KeptRows) -> None:
    pages = {PATIENT_LEVEL: [outcome(403, "forbidden")], SYSTEM_LEVEL: [Answer(404)]}
    async with export_server(capability=DECLARES_NOTHING, pages=pages) as server:
        report = await server.sync(store, IN_ORDER)
    assert report.status == "failed"
    assert report.error is not None
    assert "/Patient/$export: HTTP 403" in report.error
    assert "/$export: HTTP 404" in report.error
    assert "/Group/{group}/$export: not tried" in report.error
    assert "--mode crawl" in report.error


async def test_an_export_of_named_patients_never_becomes_one_of_everyone(store: KeptRows) -> None:
    pages = {PATIENT_LEVEL: [outcome(400, "not-supported")], SYSTEM_LEVEL: [accepted()]}
    async with export_server(capability=DECLARES_NOTHING, pages=pages) as server:
        report = await server.sync(store, IN_ORDER, cohort=CohortSource(values=("p1",)))
    assert levels(server) == [PATIENT_LEVEL]
    assert all(seen.method == "POST" for seen in server.kicked_off)
    assert report.status == "failed"


async def test_an_export_in_progress_continues_at_its_own_level(store: KeptRows) -> None:
    pages = {PATIENT_LEVEL: [Answer(404)], SYSTEM_LEVEL: [accepted()]}
    async with export_server(pages=pages) as server:
        good, server.polls = server.polls, [Answer(503)]
        assert (await server.sync(store, {**IN_ORDER, "retry.max_tries": 1})).status == "failed"
        server.polls = good
        report = await server.sync(store, IN_ORDER)
        assert levels(server) == [PATIENT_LEVEL, SYSTEM_LEVEL]
        assert len(server.sent(SYSTEM_LEVEL)) == 1
        assert report.status == "complete"
        # by the same way as a run in one go: what the next one lists it may also miss
        server.files["Observation"] = [Answer(200, "", content_type="application/fhir+ndjson")]
        again = await server.sync(store, IN_ORDER)
    assert again.status in {"complete", "partial"}


async def test_a_status_that_may_have_started_a_job_is_not_followed_by_another_level(store: KeptRows) -> None:
    async with export_server(pages={PATIENT_LEVEL: [Answer(500)], SYSTEM_LEVEL: [accepted()]}) as server:
        report = await server.sync(store, IN_ORDER)
    assert levels(server) == [PATIENT_LEVEL]
    assert report.status == "failed"


async def test_without_a_requested_mode_every_declared_level_is_tried_before_a_crawl(store: KeptRows) -> None:
    async with export_server(pages={PATIENT_LEVEL: [Answer(404)], SYSTEM_LEVEL: [accepted()]}) as server:
        server.capability = {
            "rest": [
                {
                    "mode": "server",
                    "operation": [{"name": "export"}],
                    "resource": [{"type": "Patient", "operation": [{"name": "export"}]}],
                }
            ]
        }
        report = await server.sync(store, IN_ORDER, mode="auto")
    assert levels(server) == [PATIENT_LEVEL, SYSTEM_LEVEL]
    assert (report.status, report.error) == ("complete", None)
