"""A cohort sent to Patient/$export: whom the server does not know costs himself, and the others are exported."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config.bulk_options import BulkOptions
from connectors.fhir.run import CohortSource
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.scripted_export import (
    OBSERVATION,
    PATIENT,
    Answer,
    ExportServer,
    accepted,
    export_server,
    manifest,
    ndjson,
    outcome,
)

pytestmark = pytest.mark.anyio
BY_NAME = {"bulk.levels": ["patient-list"]}


def named(server: ExportServer) -> list[list[str]]:
    """The patients that each kick-off named."""
    return [
        [
            one["valueReference"]["reference"].removeprefix("Patient/")
            for one in json.loads(seen.body)["parameter"]
            if one["name"] == "patient"
        ]
        for seen in server.kicked_off
    ]


def cohort(*patients: str, **more: Any) -> dict[str, Any]:
    return {"cohort": CohortSource(values=patients), "types": ("Patient", "Observation"), **more}


@pytest.mark.parametrize(
    "refusal",
    [
        outcome(404, "processing"),
        Answer(404, "<html>not found</html>", content_type="text/html"),
        outcome(410, "deleted"),
        outcome(400, "not-found"),
        outcome(422, "processing"),
    ],
    ids=["404", "404 html", "410", "400 not-found", "422"],
)
async def test_a_cohort_with_an_unknown_patient_exports_the_others_and_the_unknown_one_is_a_hole(
    store: KeptRows, refusal: Answer
) -> None:
    async with export_server(kickoffs=[refusal, accepted()]) as server:
        if refusal.status == 422:  # it may be the form, which is tried first
            server.kickoffs[:0] = [refusal] * 2
        report = await server.sync(store, {**BY_NAME, "retry.base_s": 0.01}, **cohort("p1", "nobody"))
        requested = named(server)
    assert (report.status, [(hole.resource_type, hole.reason) for hole in report.holes]) == (
        "partial",
        [("Patient", "not exported: the server does not know this patient: check the id, or the cohort")],
    )
    assert (requested[0], requested[-1]) == (["p1", "nobody"], ["p1"])
    assert set(store.live()) == {("Patient", "p1"), ("Observation", "o1")}
    assert "patients that the server does not know, left out of the export: 1" in report.notes
    assert store.job_deleted() is True
    assert "nobody" not in repr(report)


async def test_a_deleted_patient_is_a_tombstone_and_the_others_are_exported(
    store: KeptRows,
) -> None:
    second = '{"resourceType":"Patient","id":"p2"}'
    async with export_server() as server:
        server.files["Patient"] = [ndjson(PATIENT, second)]
        first = await server.sync(store, BY_NAME, **cohort("p1", "p2"))
        assert (first.status, ("Patient", "p2") in store.live()) == ("complete", True)
        server.files["Patient"] = [ndjson(PATIENT)]
        server.pages["/fhir/Patient/p2"] = [outcome(410, "deleted")]
        server.kickoffs = [outcome(410, "deleted"), accepted()]
        report = await server.sync(store, BY_NAME, **cohort("p1", "p2"))
    assert (report.status, list(report.holes)) == ("complete", [])
    assert set(store.live()) == {("Patient", "p1"), ("Observation", "o1")}


async def test_an_unknown_patient_is_not_named_again_but_a_merged_patients_former_id_is(
    store: KeptRows,
) -> None:
    async with export_server() as server:
        server.pages["/fhir/Patient/p2"] = [Answer(302, "", {"Location": "{origin}/fhir/Patient/p1"})]
        await server.sync(store, BY_NAME, **cohort("p1", "p2"))
        before = len(server.kicked_off)
        server.kickoffs = [outcome(400, "invalid"), outcome(404, "not-found"), outcome(400, "invalid"), accepted()]
        report = await server.sync(store, BY_NAME, **cohort("p1", "p2", "nobody"))
        requested = named(server)[before:]
    assert requested == [["p1", "p2", "nobody"], ["p1", "nobody"], ["p1"], ["p1", "p2"]]
    assert report.status == "partial"


async def test_a_survivor_whom_the_server_does_not_know_is_left_out_of_the_export_without_a_hole(
    store: KeptRows,
) -> None:
    link = '{"resourceType":"Patient","id":"p1","link":[{"other":{"reference":"Patient/absent"},"type":"replaced-by"}]}'
    async with export_server() as server:
        server.pages["/fhir/Patient/p1"] = [Answer(200, link)]
        server.files["Patient"] = [ndjson()]
        await server.sync(store, BY_NAME, **cohort("p1"))  # the export does not have p1, whose read shows the merge
        server.files["Patient"] = [ndjson(link)]
        before = len(server.kicked_off)
        server.kickoffs = [outcome(404, "not-found"), accepted()]
        report = await server.sync(store, BY_NAME, **cohort("p1"))
        assert named(server)[before:] == [["p1", "absent"], ["p1"]]
        assert (report.status, list(report.holes)) == ("complete", [])
        server.kickoffs = [accepted()]  # a server may pass over whom it does not know
        report = await server.sync(store, BY_NAME, **cohort("p1"))
        assert (report.status, list(report.holes)) == ("complete", [])
        report = await server.sync(store, BY_NAME, **cohort("p1", "absent"))
    assert report.status == "partial"


async def test_a_survivor_found_after_a_refusal_is_named_in_each_further_form_of_the_request_too(
    store: KeptRows,
) -> None:
    asked = cohort("p1", "p2", "p3", types=("Observation",), bulk=BulkOptions(organize_by="Patient"))
    async with export_server() as server:
        server.pages["/fhir/Patient/p2"] = [Answer(302, "", {"Location": "{origin}/fhir/Patient/p1"})]
        for one in ("p1", "p3", "p9"):
            server.pages[f"/fhir/Patient/{one}"] = [Answer(200, PATIENT.replace("p1", one))]
        await server.sync(store, BY_NAME, **asked)
        before = len(server.kicked_off)
        server.pages["/fhir/Patient/p3"] = [Answer(302, "", {"Location": "{origin}/fhir/Patient/p9"})]
        server.kickoffs = [outcome(400, "invalid"), outcome(404, "not-found"), outcome(400, "invalid"), accepted()]
        await server.sync(store, BY_NAME, **asked)
        requested = named(server)[before:]
    assert requested == [["p1", "p2", "p3"], ["p1", "p3"], ["p1", "p9"], ["p1", "p2", "p9"]]


@pytest.mark.parametrize("former_rows", [False, True], ids=["rows name the new id", "rows still name the former id"])
async def test_a_cohorts_only_patient_who_was_merged_into_one_never_stored_is_exported_under_the_new_id(
    store: KeptRows, former_rows: bool
) -> None:
    async with export_server() as server:
        await server.sync(store, BY_NAME, **cohort("p1"))
        merge_away(server, former_rows=former_rows)
        for status in ("partial" if former_rows else "complete", "complete"):
            server.kickoffs = [outcome(404, "not-found"), accepted()]
            report = await server.sync(store, BY_NAME, **cohort("p1"))
            assert (report.status, named(server)[-1]) == (status, ["p9"])
    assert ("Patient", "p9") in store.live()


async def test_an_export_of_news_names_who_a_patient_was_merged_into_only_the_next_time_and_then_in_full(
    store: KeptRows,
) -> None:
    news = {**BY_NAME, "changes.incremental": True}
    async with export_server() as server:
        await server.sync(store, news, **cohort("p1"))
        merge_away(server, former_rows=False)
        server.kickoffs = [outcome(404, "not-found")]
        report = await server.sync(store, news, **cohort("p1"))
        reason = "not exported: merged into another patient, whom the next export names: sync again"
        assert reason in [hole.reason for hole in report.holes]
        server.kickoffs = [accepted()]
        await server.sync(store, news, **cohort("p1"))
        assert (sorted(named(server)[-1]), b"_since" in server.kicked_off[-1].body) == (["p1", "p9"], False)
    assert ("Patient", "p9") in store.live()
    assert ("Patient", "p1") not in store.live()


def merge_away(server: ExportServer, *, former_rows: bool) -> None:
    """Merge p1 into p9."""
    survivor = '{"resourceType":"Patient","id":"p9"}'
    server.pages |= {
        "/fhir/Patient/p1": [Answer(302, "", {"Location": "{origin}/fhir/Patient/p9"})],
        "/fhir/Patient/p9": [Answer(200, survivor)],
    }
    rows = OBSERVATION if former_rows else OBSERVATION.replace("Patient/p1", "Patient/p9")
    server.files = {"Patient": [ndjson(survivor)], "Observation": [ndjson(rows)]}


async def test_a_stored_cohorts_deleted_patient_who_is_back_is_a_hole_of_an_export_without_patients_and_then_named_in_full(
    store: KeptRows,
) -> None:
    news = {**BY_NAME, "changes.incremental": True}
    second = PATIENT.replace("p1", "p2")
    async with export_server() as server:
        for one in ("p1", "p2"):
            server.pages[f"/fhir/Patient/{one}"] = [Answer(200, PATIENT.replace("p1", one))]
        server.files["Patient"] = [ndjson(PATIENT, second)]
        await server.sync(store, news, **cohort("p1", "p2"))
        server.pages["/fhir/Patient/p2"] = [outcome(410, "deleted")]
        server.files["Patient"] = [ndjson(PATIENT)]
        await server.sync(store, news, since="none", **cohort("p1", "p2"))
        assert ("Patient", "p2") not in store.live()
        server.pages["/fhir/Patient/p2"] = [Answer(200, second)]
        server.polls = [manifest("Observation")]
        asked = {"types": ("Observation",), "cohort": CohortSource(stored=True)}
        before = len(server.kicked_off)
        ends = [(await server.sync(store, news, **asked)).status for _ in range(2)]
        sent = [(who, b"_since" in seen.body) for who, seen in zip(named(server), server.kicked_off, strict=True)]
    assert ends == ["partial", "complete"]
    assert sent[before:] == [(["p1"], False), (["p1", "p2"], False)]


async def test_a_cohort_of_only_unknown_patients_fails_and_says_so(store: KeptRows) -> None:
    async with export_server(kickoffs=[outcome(404, "processing")]) as server:
        report = await server.sync(store, BY_NAME, **cohort("nobody", "none"))
    assert report.status == "failed"
    assert "names no patient that this EHR knows" in (report.error or "")


async def test_a_refusal_for_known_patients_is_reported_as_a_refused_export(store: KeptRows) -> None:
    async with export_server(kickoffs=[outcome(404, "processing")]) as server:
        report = await server.sync(store, BY_NAME, **cohort("p1"))
        kicked_off = len(server.kicked_off)
    assert (report.status, kicked_off) == ("failed", 1)
    assert "refused with HTTP 404" in (report.error or "")
    assert "The server does not say that any of the 1 named patients is unknown" in (report.error or "")
    assert "--mode crawl" in (report.error or "")


async def test_a_patient_that_cannot_be_looked_up_does_not_count_as_unknown(store: KeptRows) -> None:
    async with export_server(kickoffs=[outcome(404, "processing")]) as server:
        server.pages["/fhir/Patient/p1"] = [outcome(403, "forbidden")]
        report = await server.sync(store, BY_NAME, **cohort("p1"))
    assert report.status == "failed"
    assert "refused with HTTP 404" in (report.error or "")


async def test_many_named_patients_are_looked_up_in_lists_and_missing_ones_alone(store: KeptRows) -> None:
    people = [f"p{n}" for n in range(20)]

    async with export_server(kickoffs=[outcome(404, "processing"), accepted()]) as server:
        entries = [{"resource": {"resourceType": "Patient", "id": one}} for one in people if one != "p7"]
        server.pages["/fhir/Patient"] = [Answer(200, {"resourceType": "Bundle", "type": "searchset", "entry": entries})]
        server.files["Patient"] = [ndjson(*(json.dumps(entry["resource"]) for entry in entries))]
        server.files["Observation"] = [ndjson(OBSERVATION.replace("p1", "p2"))]
        server.polls = [manifest("Patient", "Observation")]
        report = await server.sync(store, BY_NAME, **cohort(*people))
        requested, reads = named(server), server.sent("/fhir/Patient/p")
    assert (report.status, len(report.holes)) == ("partial", 1)
    assert requested[1] == [one for one in people if one != "p7"]
    assert [seen.target for seen in reads] == ["/fhir/Patient/p7"]
