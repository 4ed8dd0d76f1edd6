"""Servers that nobody has listed: what they keep back is named as a hole, and never passes for a chart that is whole."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

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


def of_p1(request: Request, kind: str = "Observation") -> bool:
    return request.path == f"/{kind}" and request.query.get("patient") == "p1"


def no_way_on(server: RawServer, request: Request) -> bytes | None:
    rows = server.matches(request)
    return answer(bundle(rows[:10], total=len(rows))) if of_p1(request) else None


def entries_without_resource(server: RawServer, request: Request) -> bytes | None:
    found = bundle(server.matches(request))
    for entry in found["entry"][::5]:
        del entry["resource"]
    return answer(found) if of_p1(request) else None


def an_error_among_the_entries(server: RawServer, request: Request) -> bytes | None:
    issue = {"severity": "error", "code": "exception"}
    outcome = {"resource": {"resourceType": "OperationOutcome", "issue": [issue]}, "search": {"mode": "outcome"}}
    return (
        answer({"resourceType": "Bundle", "type": "searchset", "total": 0, "entry": [outcome]})
        if of_p1(request)
        else None
    )


def an_outcome_that_says_nothing(server: RawServer, request: Request) -> bytes | None:
    found = bundle(server.matches(request)[:10])
    found["entry"].append({"resource": {"resourceType": "OperationOutcome", "id": "x", "issue": "all is lost"}})
    return answer(found) if of_p1(request) else None


def an_entry_that_is_none(server: RawServer, request: Request) -> bytes | None:
    found = bundle(server.matches(request)[:10])
    found["entry"].append("Observation/o-p1-11")
    return answer(found) if of_p1(request) else None


def another_type_alone(server: RawServer, request: Request) -> bytes | None:
    return answer(bundle([{"resourceType": "List", "id": "l1", "status": "current"}])) if of_p1(request) else None


def another_type_among_the_matches(server: RawServer, request: Request) -> bytes | None:
    if not of_p1(request):
        return None
    found = bundle(server.matches(request))
    found["entry"][3]["resource"] = {"resourceType": "List", "id": "l1", "status": "current"}
    return answer(found)


def a_type_that_fhir_does_not_have(server: RawServer, request: Request) -> bytes | None:
    if not of_p1(request):
        return None
    found = bundle(server.matches(request))
    for entry, name in zip(found["entry"], ("", "OBSERVATION"), strict=False):
        entry["resource"] = {**entry["resource"], "resourceType": name}
    return answer(found)


def a_next_page_without_a_link(server: RawServer, request: Request) -> bytes | None:
    found = {**bundle(server.matches(request)[:10]), "next": f"{request.base}/Observation?patient=p1&start=10"}
    return answer(found) if of_p1(request) else None


def links_that_are_none(server: RawServer, request: Request) -> bytes | None:
    return answer({**bundle(server.matches(request)[:10]), "link": "next"}) if of_p1(request) else None


def pages_without_end(server: RawServer, request: Request) -> bytes | None:
    link = f"{request.base}/Observation?patient=p1&n={len(server.requests)}"
    return answer(bundle(server.matches(request)[:10], link)) if of_p1(request) else None


def empty_pages_without_end(server: RawServer, request: Request) -> bytes | None:
    return (
        answer(bundle([], f"{request.base}/Observation?patient=p1&n={len(server.requests)}"))
        if of_p1(request)
        else None
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (no_way_on, "15 more"),
        (entries_without_resource, "without a resource"),
        (an_error_among_the_entries, "could not produce all of it (exception)"),
        (an_outcome_that_says_nothing, "not a readable OperationOutcome"),
        (an_entry_that_is_none, "not a JSON object with a resource"),
        (another_type_alone, "only resources of other types came"),
        (another_type_among_the_matches, "1 entry of other types came, not marked as included"),
        (a_type_that_fhir_does_not_have, "no usable resourceType"),
        (a_next_page_without_a_link, "its links cannot be read"),
        (links_that_are_none, "its links cannot be read"),
        (pages_without_end, "the same resources"),
        (empty_pages_without_end, "page after page has nothing"),
    ],
)
async def test_rows_withheld_by_a_search_are_a_hole_of_only_its_patient(store: KeptRows, fault, reason: str) -> None:
    async with raw_server(fault) as server:
        report = await run(server, store, mode="crawl")
        held = server.keys()
    assert (report.status, len(report.holes)) == ("partial", 1)
    assert (report.holes[0].resource_type, reason in str(report.holes[0].reason)) == ("Observation", True)
    missing = held - set(store.live())
    assert all(kind == "Observation" and "-p1-" in id_ for kind, id_ in missing)


@pytest.mark.parametrize(("search", "holes"), [({"mode": "match"}, 1), ({}, 1), ({"mode": "include"}, 0)])
async def test_another_type_in_the_place_of_a_listed_patient_is_a_hole(store: KeptRows, search, holes: int) -> None:
    def fault(server: RawServer, request: Request) -> bytes | None:
        if request.path != "/Patient":
            return None
        found = bundle(server.rows["Patient"])
        listed = {"resource": {"resourceType": "Organization", "id": "org1"}, "search": search}
        return answer({**found, "total": len(found["entry"]), "entry": [*found["entry"], listed]})

    async with raw_server(fault) as server:
        report = await run(server, store, mode="crawl", cohort=None)
    assert [hole.resource_type for hole in report.holes] == ["Patient"] * holes
    assert ("Organization", "org1") in store.live()


@pytest.mark.parametrize("way", ["map", "links", "header"])
async def test_a_next_page_named_in_another_place_is_read(store: KeptRows, way: str) -> None:
    def fault(server: RawServer, request: Request) -> bytes | None:
        if not of_p1(request) or "start" in request.query:
            return None
        found, url = bundle(server.matches(request)[:10]), f"{request.base}/Observation?patient=p1&start=10"
        del found["link"]
        members = {"map": {"link": {"next": url}}, "links": {"links": [{"relation": "next", "url": url}]}}.get(way, {})
        return answer(found | members, headers={"Link": f'<{url}>; rel="next"'} if way == "header" else {})

    async with raw_server(fault) as server:
        report = await run(server, store, mode="crawl")
        held = server.keys()
    assert (report.status, set(store.live())) == ("complete", held)


async def test_a_listing_that_declares_itself_incomplete_proves_no_deletion(store: KeptRows) -> None:
    later: list[bool] = []

    def fault(server: RawServer, request: Request) -> bytes | None:
        if not later or not of_p1(request):
            return None
        issue = {"severity": "warning", "code": "incomplete"}
        outcome = {"resource": {"resourceType": "OperationOutcome", "issue": [issue]}, "search": {"mode": "outcome"}}
        return answer({"resourceType": "Bundle", "type": "searchset", "total": 0, "entry": [outcome]})

    async with raw_server(fault) as server:
        await run(server, store, mode="crawl")
        later.append(True)
        reports = [await run(server, store, mode="crawl") for _ in range(3)]
        held = server.keys()
    assert [report.deleted for report in reports] == [0, 0, 0]
    assert set(store.live()) == held
    assert any("incomplete" in note for note in reports[-1].notes)


def next_link(url: object) -> Callable[[dict], None]:
    def change(found: dict) -> None:
        found["link"] = [{"relation": "next", "url": url}]

    return change


def without_next(found: dict) -> None:
    found["link"] = []


def without_anything(found: dict) -> None:
    del found["link"], found["entry"]


@pytest.mark.parametrize("change", [without_next, without_anything, next_link(None), next_link("")])
@pytest.mark.parametrize("kind", ["Observation", "Patient"])
async def test_a_later_page_that_loses_its_next_link_proves_no_deletion(store: KeptRows, kind: str, change) -> None:
    broken: list[bool] = []

    def fault(server: RawServer, request: Request) -> bytes | None:
        wanted = request.path == f"/{kind}" and (kind == "Patient" or request.query.get("patient") == "p1")
        if not broken or not wanted or request.query.get("start") != "10":
            return None
        rows = server.matches(request)
        found = bundle(rows[10:20], "/x", len(rows))
        change(found)
        return answer(found)

    async with raw_server(fault) as server:
        server.rows = small_chart(patients=25, observations=25) if kind == "Patient" else small_chart()
        await run(server, store, mode="crawl")
        broken.append(True)
        report = await run(server, store, mode="crawl")
        held = server.keys()
    assert (report.status, report.deleted, [hole.resource_type for hole in report.holes]) == ("partial", 0, [kind])
    assert set(store.live()) == held


def only_the_first(rows: list[dict]) -> dict:
    return bundle(rows[:1])


def only_some_of_a_total(rows: list[dict]) -> dict:
    return bundle(rows[:4], total=len(rows))


def only_some_with_a_warning(rows: list[dict]) -> dict:
    issue = {"severity": "warning", "code": "incomplete"}
    return bundle([*rows[:4], {"resourceType": "OperationOutcome", "issue": [issue]}])


def a_refusal_with_status_200(rows: list[dict]) -> dict:
    return {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "too-costly"}]}


@pytest.mark.parametrize(
    ("cut", "most"),
    [(only_the_first, 15), (only_some_of_a_total, 6), (only_some_with_a_warning, 6), (a_refusal_with_status_200, 26)],
)
async def test_a_partly_answered_list_of_references_proves_nothing_missing(
    store: KeptRows, cut: Callable[[list[dict]], dict], most: int
) -> None:
    def lists(server: RawServer, request: Request) -> bytes | None:
        if request.path == "/Medication":
            wanted = request.query.get("_id", "").split(",")
            found = [row for row in server.rows["Medication"] if row["id"] in wanted]
            return answer(cut(found) if "_id" in request.query else bundle([]))
        return None

    async with raw_server(lists) as server:
        prescribe(server, 13)
        server.rows["Medication"].pop()  # the last request is for a Medication that is not there
        report = await run(server, store, mode="crawl")
        held = server.keys()
        reads = sum(one.path.startswith("/Medication/") or one.path == "/Medication" for one in server.requests)
    assert (report.status, held - set(store.live())) == ("complete", set())
    assert "Medication: 1 mentioned and not there" in report.notes
    assert reads <= most


async def test_a_resource_marked_as_an_outcome_is_stored(store: KeptRows) -> None:
    def marked(server: RawServer, request: Request) -> bytes | None:
        found = bundle(server.matches(request))
        for entry in found["entry"]:
            entry["search"]["mode"] = "outcome"
        return answer(found) if of_p1(request, "Condition") else None

    async with raw_server(marked) as server:
        report = await run(server, store, mode="crawl")
        held = server.keys()
    assert (report.status, set(store.live())) == ("complete", held)


async def test_a_search_that_shifts_while_it_is_read_is_read_again(store: KeptRows) -> None:
    """By offsets, a row that goes pulls another over the edge of a page that has been read."""
    gone: list[str] = []

    def shifting(server: RawServer, request: Request) -> bytes | None:
        if of_p1(request) and request.query.get("start") == "10" and not gone:
            first = next(row for row in server.rows["Observation"] if "-p1-" in row["id"])
            server.rows["Observation"].remove(first)
            gone.append(first["id"])
        return None

    async with raw_server(shifting) as server:
        report = await run(server, store, mode="crawl")
        held = server.keys()
    assert (report.status, gone) == ("complete", ["o-p1-0"])
    assert held - set(store.live()) == set()


async def test_a_list_without_patients_is_complete_and_reported(store: KeptRows) -> None:
    async with raw_server(lambda _, request: answer(bundle([])) if request.path == "/Patient" else None) as server:
        report = await run(server, store, mode="crawl")
    assert (report.status, list(report.holes)) == ("complete", [])
    assert ["the server's list of patients is empty" in note for note in report.notes] == [True]


async def test_a_list_that_lacks_every_stored_patient_is_reported(store: KeptRows) -> None:
    forgets: list[bool] = []

    def index(server: RawServer, request: Request) -> bytes | None:
        return (
            answer({"resourceType": "Bundle", "type": "searchset"}) if forgets and request.path == "/Patient" else None
        )

    async with raw_server(index) as server:
        await run(server, store, mode="crawl")
        forgets.append(True)
        report = await run(server, store, mode="crawl")
        held = server.keys()
    assert ["only stored patients (2) were requested" in note for note in report.notes] == [True]
    assert set(store.live()) == held


async def test_invalid_types_are_not_requested(store: KeptRows) -> None:
    def odd(server: RawServer, request: Request) -> bytes | None:
        if request.path != "/metadata":
            return None
        statement = server.statement()
        params = {"interaction": [{"code": "search-type"}], "searchParam": [{"name": "patient"}]}
        statement["rest"][0]["resource"] += [
            {"type": one, **params} for one in ("../../admin", "A b", "Condition?x=", None)
        ]
        return answer(statement)

    async with raw_server(odd) as server:
        report = await run(server, store, mode="crawl")
        paths = {request.path for request in server.requests}
    assert report.status == "complete"
    assert not [path for path in paths if ".." in path or " " in path or "%" in path]


@pytest.mark.parametrize("quantity", [9, "9", 9.0])
async def test_group_members_that_name_no_patient_are_a_hole_and_the_others_are_fetched(
    store: KeptRows, quantity: object
) -> None:
    entities = [
        {"reference": "Patient/p0"},
        {"reference": "Group/more"},
        {"identifier": {"value": "7"}},
        {"reference": "urn:uuid:1"},
    ]
    group = {"resourceType": "Group", "id": "g", "quantity": quantity, "member": [{"entity": one} for one in entities]}

    def grouped(server: RawServer, request: Request) -> bytes | None:
        return answer(group) if request.path == "/Group/g" else None

    async with raw_server(grouped) as server:
        report = await run(server, store, mode="crawl", group="g")
    assert (report.status, [hole.resource_type for hole in report.holes]) == ("partial", ["Patient"])
    assert "8 members of the Group could not be read, or named no patient" in report.holes[0].reason
    assert {
        f"members of the Group {what}" for what in ("not told: 5", "without a reference to a patient of this EHR: 3")
    } <= set(report.notes)
    assert ("Patient", "p0") in store.live()


async def test_group_members_other_than_patients_have_no_chart_and_are_no_hole(store: KeptRows) -> None:
    references = (
        "Patient/p0",
        "Device/d",
        "Practitioner/d/_history/2",
        "PractitionerRole/r",
        "Medication/m",
        "Substance/s",
    )
    group = {"resourceType": "Group", "id": "g", "member": [{"entity": {"reference": one}} for one in references]}

    def grouped(server: RawServer, request: Request) -> bytes | None:
        return answer(group) if request.path == "/Group/g" else None

    async with raw_server(grouped) as server:
        report = await run(server, store, mode="crawl", group="g")
    assert (report.status, list(report.holes)) == ("complete", [])
    assert "members of the Group that are devices, practitioners or the like, and have no chart: 5" in report.notes


@pytest.mark.parametrize("stranger", [None, "Patient/p1", {"entity": None}, {"entity": "Patient/p1", "inactive": None}])
async def test_an_unreadable_group_member_costs_only_itself_and_is_a_hole(store: KeptRows, stranger: object) -> None:
    members = [stranger, {"entity": {"reference": "Patient/p0"}, "inactive": "false"}]

    def grouped(server: RawServer, request: Request) -> bytes | None:
        return answer({"resourceType": "Group", "id": "g", "member": members}) if request.path == "/Group/g" else None

    async with raw_server(grouped) as server:
        report = await run(server, store, mode="crawl", group="g")
    assert (report.status, len(report.holes), ("Patient", "p0") in store.live()) == ("partial", 1, True)


@pytest.mark.parametrize(
    "found", [{"resourceType": "OperationOutcome", "issue": []}, [], {"resourceType": "Group", "member": 7}]
)
async def test_an_invalid_group_is_not_a_group_without_members(store: KeptRows, found: object) -> None:
    def grouped(server: RawServer, request: Request) -> bytes | None:
        return answer(found) if request.path == "/Group/g" else None

    async with raw_server(grouped) as server:
        report = await run(server, store, mode="crawl", group="g")
    assert report.status == "failed"
    assert "not a Group with members" in (report.error or "")


@pytest.mark.parametrize("link", [[None], [{"relation": "further", "url": "x"}], {"relation": "more", "url": "x"}])
@pytest.mark.parametrize("kind", ["Observation", "Patient"])
async def test_unintelligible_links_prove_no_deletion_and_are_reported(
    store: KeptRows, kind: str, link: object
) -> None:
    odd: list[bool] = []

    def fault(server: RawServer, request: Request) -> bytes | None:
        wanted = request.path == f"/{kind}" and (kind == "Patient" or request.query.get("patient") == "p1")
        return answer({**bundle(server.matches(request)[:1]), "link": link}) if odd and wanted else None

    async with raw_server(fault) as server:
        server.rows = small_chart(patients=2, observations=2)
        await run(server, store, mode="crawl")
        before = set(store.live())
        odd.append(True)
        report = await run(server, store, mode="crawl")
    assert (report.status, report.deleted) == ("complete", 0)
    assert set(store.live()) == before
    assert any(note.startswith(kind) and "could not be understood" in note for note in report.notes)


async def test_malformed_types_in_a_capability_statement_are_reported_and_the_others_planned(
    store: KeptRows,
) -> None:
    def odd(server: RawServer, request: Request) -> bytes | None:
        if request.path != "/metadata":
            return None
        statement = server.statement()
        statement["rest"][0]["resource"] += [None, "Condition", {"type": None}]
        return answer(statement)

    async with raw_server(odd) as server:
        report = await run(server, store, mode="crawl")
        assert set(store.live()) == server.keys()
    assert any("3 parts that could not be read" in note for note in report.notes)


@pytest.mark.parametrize("kind", ["Observation", "Condition"])
async def test_a_search_permanently_answered_401_is_a_hole_of_only_its_patient(store: KeptRows, kind: str) -> None:
    def closed(server: RawServer, request: Request) -> bytes | None:
        return answer(b"", 401) if of_p1(request, kind) else None

    async with raw_server(closed) as server:
        report = await run(server, store, mode="crawl")
        held = server.keys()
    assert (report.status, [hole.resource_type for hole in report.holes]) == ("partial", [kind])
    assert all(missing == kind and "-p1-" in id_ for missing, id_ in held - set(store.live()))


@pytest.mark.parametrize("way", ["/Patient/p1", "/Patient"])
async def test_an_answer_about_another_patient_is_no_merge_unless_it_says_so(store: KeptRows, way: str) -> None:
    broken: list[bool] = []
    whole = CohortSource(values=("p0", "p1"))

    def mixed_up(server: RawServer, request: Request) -> bytes | None:
        if request.path == "/metadata":
            statement = server.statement()
            if way == "/Patient":
                statement["rest"][0]["resource"][0]["searchParam"] = [{"name": "_id"}]
            return answer(statement)
        if broken and request.path == "/Patient/p1":
            return answer(server.rows["Patient"][0])
        if broken and request.path == "/Patient" and request.query.get("_id") == "p1":
            return answer(bundle(server.rows["Patient"][:1]))
        return None

    async with raw_server(mixed_up) as server:
        await run(server, store, {"references.id_batch": 1}, mode="crawl", cohort=whole)
        broken.append(True)
        report = await run(server, store, {"references.id_batch": 1}, mode="crawl", cohort=whole)
        held = server.keys()
    assert (report.status, report.deleted) == ("partial", 0)
    assert ["another Patient than" in str(hole.reason) for hole in report.holes] == [True]
    assert set(store.live()) == held


async def test_a_record_number_that_finds_a_patient_without_it_is_not_believed(store: KeptRows) -> None:
    def ignores_identifier(server: RawServer, request: Request) -> bytes | None:
        if request.path == "/Patient" and "identifier" in request.query:
            known = [row for row in server.rows["Patient"] if request.query["identifier"] == f"urn:mrn|{row['id']}"]
            return answer(bundle(known or server.rows["Patient"][1:]))
        return None

    async with raw_server(ignores_identifier) as server:
        for patient in server.rows["Patient"]:
            patient["identifier"] = [{"value": "x"}, {"system": "urn:mrn", "value": patient["id"]}]
        cohort = CohortSource(values=("p0", "nobody"), identifier_system="urn:mrn", lines=(1, 2))
        report = await run(server, store, mode="crawl", cohort=cohort)
    assert (report.status, {id_ for kind, id_ in store.live() if kind == "Patient"}) == ("partial", {"p0"})
    assert report.cohort["not_verified"] == [2]
    assert "cohort entries answered with a patient who does not have that identifier: line 2" in report.notes


@pytest.mark.parametrize(("off", "margin"), [(-3600, 3900), (3600, 300), (-2, 300)])
async def test_a_type_without_dates_is_searched_for_changes_since_a_time_of_the_servers_clock(
    store: KeptRows, off: int, margin: int
) -> None:
    began = datetime.now(UTC)

    def dated(server: RawServer, request: Request) -> bytes | None:
        if request.path != "/metadata":
            return None
        statement = server.statement()
        for one in statement["rest"][0]["resource"]:
            one["searchParam"].append({"name": "_lastUpdated"})
        return answer(
            statement, headers={"Date": format_datetime(datetime.now(UTC) + timedelta(seconds=off), usegmt=True)}
        )

    async with raw_server(dated) as server:
        for row in server.rows["Condition"]:
            row.pop("meta", None)
        assert (await run(server, store, {"changes.incremental": True}, mode="crawl")).status == "complete"
    mark = datetime.fromisoformat(store.watermarks()["Condition"])
    assert abs(began - timedelta(seconds=margin) - mark) < timedelta(seconds=30)


def a_page(request: Request) -> bytes:
    return answer(b"<html></html>", headers={"Content-Type": "text/html"})


def a_refusal(request: Request) -> bytes:
    return answer({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "required"}]}, 500)


def another_type(request: Request) -> bytes:
    return answer({"resourceType": "Patient", "id": "p1"})


def a_way_elsewhere(request: Request) -> bytes:
    return answer(b"", 302, {"Location": "http://127.0.0.1:1/x"})


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("bad", [a_page, a_refusal, another_type, a_way_elsewhere])
async def test_an_unreadable_reference_costs_itself_and_not_the_rest_of_its_batch(
    store: KeptRows, bad: Callable[[Request], bytes], lists: bool
) -> None:
    def fault(server: RawServer, request: Request) -> bytes | None:
        if request.path == "/Medication":  # a list of ids is refused, or answered with nobody
            return a_refusal(request) if "_id" in request.query and not lists else answer(bundle([]))
        return bad(request) if request.path == "/Medication/m1" else None

    async with raw_server(fault) as server:
        prescribe(server, 6)
        report = await run(server, store, {"retry.max_tries": 2}, mode="crawl")
        held = server.keys()
    assert (report.status, [hole.resource_type for hole in report.holes]) == ("partial", ["Medication"])
    assert held - set(store.live()) == {("Medication", "m1")}
