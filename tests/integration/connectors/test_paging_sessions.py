"""Everything that is searched is paged alike: sessions that expire begin again, and what breaks off costs what did not come."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from connectors.fhir.run import CohortSource
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.raw_server import (
    RawServer,
    Request,
    answer,
    bundle,
    prescribe,
    raw_server,
    small_chart,
)
from tests.integration.connectors.runs import run

pytestmark = pytest.mark.anyio
Fault = Callable[[RawServer, Request], bytes | None]
SMALL = {"retry.max_tries": 2, "retry.base_s": 0.01}


def on_page_two(kind: str, status: int, times: int) -> Fault:
    """The second page of everybody's rows of a type answers a status, some times."""
    left = [times]

    def fault(server: RawServer, request: Request) -> bytes | None:
        if request.path == f"/{kind}" and request.query.get("start") == "10" and left[0]:
            left[0] -= 1
            return answer({"resourceType": "OperationOutcome", "issue": [{"code": "not-found"}]}, status)
        return None

    return fault


@pytest.mark.parametrize("status", [404, 410])
async def test_a_list_of_patients_whose_session_expires_restarts_and_is_complete(store: KeptRows, status: int) -> None:
    async with raw_server(on_page_two("Patient", status, times=2)) as server:
        server.rows = small_chart(patients=25, observations=1)
        report = await run(server, store, mode="crawl")
        held = server.keys()
    assert (report.status, report.patients, set(store.live())) == ("complete", 25, held)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            410,
            "kept expiring (its own `next` link was answered 410); if it lives on one of several machines that only a cookie",
        ),
        (503, "503"),
        (500, "500"),
        (403, "403"),
    ],
)
async def test_an_interrupted_list_of_patients_is_a_hole_and_the_listed_ones_are_crawled(
    store: KeptRows, status: int, reason: str
) -> None:
    async with raw_server(on_page_two("Patient", status, times=99)) as server:
        server.rows = small_chart(patients=25, observations=1)
        report = await run(server, store, SMALL, mode="crawl")
        held = server.keys()
        listed = {row["id"] for row in server.rows["Patient"][:10]}
    assert (report.status, [hole.resource_type for hole in report.holes]) == ("partial", ["Patient"])
    assert reason in report.holes[0].reason
    live = set(store.live())
    assert {id_ for kind, id_ in live if kind == "Patient"} == listed
    assert live == {(kind, id_) for kind, id_ in held if id_ in listed or any(f"-{one}-" in id_ for one in listed)}


async def test_a_list_of_patients_that_leads_elsewhere_is_a_hole_and_the_listed_ones_are_crawled(
    store: KeptRows,
) -> None:
    def led_away(server: RawServer, request: Request) -> bytes | None:
        rows = server.rows["Patient"]
        return answer(bundle(rows[:10], "http://elsewhere.example/Patient?p=2")) if request.path == "/Patient" else None

    async with raw_server(led_away) as server:
        server.rows = small_chart(patients=12, observations=1)
        report = await run(server, store, SMALL, mode="crawl")
    assert (report.status, len(report.holes), report.patients) == ("partial", 1, 10)


async def test_an_empty_list_of_patients_fails_the_run_with_the_reason(store: KeptRows) -> None:
    def refuses(server: RawServer, request: Request) -> bytes | None:
        return answer({"resourceType": "OperationOutcome", "issue": []}, 403) if request.path == "/Patient" else None

    async with raw_server(refuses) as server:
        report = await run(server, store, SMALL, mode="crawl")
    assert report.status == "failed"
    assert "GET /Patient: the answer was 403" in (report.error or "")


async def test_a_list_of_patients_that_shifts_while_it_is_read_is_read_again(store: KeptRows) -> None:
    gone: list[str] = []

    def shifting(server: RawServer, request: Request) -> bytes | None:
        if request.path == "/Patient" and request.query.get("start") == "10" and not gone:
            gone.append(server.rows["Patient"].pop(0)["id"])
        return None

    async with raw_server(shifting) as server:
        server.rows = small_chart(patients=25, observations=1)
        await run(server, store, mode="crawl")
        people = {row["id"] for row in server.rows["Patient"]}
    assert people <= {id_ for kind, id_ in store.live() if kind == "Patient"}


def numbered(server: RawServer) -> None:
    for patient in server.rows["Patient"]:
        patient["identifier"] = [{"system": "urn:mrn", "value": patient["id"]}]


def found_on_page_two(status: int, times: int) -> Fault:
    left = [times]

    def fault(server: RawServer, request: Request) -> bytes | None:
        if request.path != "/Patient" or "identifier" not in request.query:
            return None
        known = [row for row in server.rows["Patient"] if request.query["identifier"] == f"urn:mrn|{row['id']}"]
        if not request.query["identifier"].endswith("|p0"):
            return answer(bundle(known))
        if "page" not in request.query:
            return answer(bundle([], f"{request.base}/Patient?identifier={request.query['identifier']}&page=2"))
        if left[0]:
            left[0] -= 1
            return answer({"resourceType": "OperationOutcome", "issue": []}, status)
        return answer(bundle(known))

    return fault


@pytest.mark.parametrize(("times", "status"), [(1, "complete"), (99, "partial")])
async def test_a_record_number_whose_session_expires_is_looked_up_again(
    store: KeptRows, times: int, status: str
) -> None:
    async with raw_server(found_on_page_two(410, times)) as server:
        numbered(server)
        cohort = CohortSource(values=("p0", "p1"), identifier_system="urn:mrn", lines=(1, 2))
        report = await run(server, store, SMALL, mode="crawl", cohort=cohort)
    assert (report.status, report.cohort.get("not_looked_up")) == (status, None if times == 1 else [1])


async def test_a_record_number_answered_with_an_error_counts_as_not_looked_up(store: KeptRows) -> None:
    issue = {"severity": "error", "code": "exception"}

    def an_error(server: RawServer, request: Request) -> bytes | None:
        identifier = request.query.get("identifier")
        if identifier == "urn:mrn|p0":
            return answer(bundle([{"resourceType": "OperationOutcome", "issue": [issue]}]))
        return answer(bundle(server.rows["Patient"][1:])) if identifier else None

    async with raw_server(an_error) as server:
        numbered(server)
        cohort = CohortSource(values=("p0", "p1"), identifier_system="urn:mrn", lines=(1, 2))
        report = await run(server, store, SMALL, mode="crawl", cohort=cohort)
    assert (report.status, report.cohort.get("not_looked_up")) == ("partial", [1])


@pytest.mark.parametrize("fault", [410, 404])
async def test_a_list_of_references_whose_session_expires_restarts(store: KeptRows, fault: int) -> None:
    expired: list[bool] = []

    def lists(server: RawServer, request: Request) -> bytes | None:
        if request.path != "/Medication" or "_id" not in request.query:
            return answer(bundle([])) if request.path == "/Medication" else None
        rows = [row for row in server.rows["Medication"] if row["id"] in request.query["_id"].split(",")]
        if "start" not in request.query:
            return answer(bundle(rows[:2], f"{request.base}/Medication?_id={request.query['_id']}&start=2"))
        if not expired:
            expired.append(True)
            return answer({"resourceType": "OperationOutcome", "issue": []}, fault)
        return answer(bundle(rows[2:]))

    async with raw_server(lists) as server:
        prescribe(server, 4)
        report = await run(server, store, mode="crawl")
        held = server.keys()
        lists_asked = [one for one in server.requests if "_id" in one.query]
    assert (report.status, held - set(store.live()), len(lists_asked)) == ("complete", set(), 4)
