"""What charts refer to, followed against mock EHRs on real sockets into a real store."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from mocks.faults import Action, FaultRule, Match
from mocks.serving import Served
from tests.integration.connectors.chart_lines import resource, to
from tests.integration.connectors.kept_rows import KeptRows, cut_off
from tests.integration.connectors.runs import run
from tests.integration.snapshots.stored import rows
from tests.user_site import mock, reachable

pytestmark = pytest.mark.anyio

LAB = {"category": [{"coding": [{"code": "laboratory"}]}]}


def chart(patient: str = "p1") -> list[bytes]:
    """A chart whose panel's members no search lists (they have no category), and which refer to each other in a circle."""
    who = {"subject": to(f"Patient/{patient}")}
    members = [f"Observation/{patient}-member-{n}" for n in (1, 2)]
    return [
        resource("Patient", patient, generalPractitioner=[to("Practitioner/dr-1")]),
        resource("DiagnosticReport", f"{patient}-report", **who, result=[to(f"Observation/{patient}-panel")]),
        resource("Observation", f"{patient}-panel", **who, **LAB, hasMember=to(*members)),
        resource("Observation", f"{patient}-member-1", **who, hasMember=[to(f"Observation/{patient}-member-2")]),
        resource("Observation", f"{patient}-member-2", **who, hasMember=[to(f"Observation/{patient}-member-1")]),
        resource("Encounter", f"{patient}-visit", **who, episodeOfCare=[to(f"EpisodeOfCare/{patient}-episode")]),
        resource(
            "EpisodeOfCare", f"{patient}-episode", patient=to(f"Patient/{patient}"), careManager=to("Practitioner/dr-2")
        ),
        resource("MedicationRequest", f"{patient}-order", **who, medicationReference=to("Medication/pill")),
    ]


def without_category(identity: str) -> list[bytes]:
    """The chart with one Observation that is not listed either: only the report leads to it."""
    found = [json.loads(line) for line in chart()]
    for one in found:
        if one["id"] == identity:
            del one["category"]
    return [json.dumps(one).encode() for one in found]


SHARED = [
    resource("Medication", "pill", manufacturer=to("Organization/maker")),
    resource("Organization", "maker", partOf=to("Organization/holding")),
    resource("Organization", "holding", partOf=to("Organization/maker")),
    resource("Practitioner", "dr-1"),
    resource("Practitioner", "dr-2"),
    resource("Practitioner", "nobody-mentions-me"),
]


def reads(served: Served, since: int = 0) -> Counter[str]:
    """Paths asked since, Patients aside."""
    requests = [entry for entry in list(served.log)[since:] if entry.purpose in {"read", "search"}]
    return Counter(entry.target.partition("/R4/")[2] or entry.target for entry in requests)


async def test_resources_that_no_search_lists_are_fetched_by_reference_and_circles_end(store: KeptRows) -> None:
    with mock("epic", data=[*chart(), *SHARED]) as served:
        report = await run(served, store)
        expected, requested = reachable(served), reads(served)
    assert (report.status, list(report.holes)) == ("complete", [])
    assert store.live() == expected
    assert ("Observation", "p1-member-2") in expected
    assert ("Organization", "holding") in expected
    assert ("Practitioner", "nobody-mentions-me") not in expected
    assert all(count == 1 for count in requested.values()), "nothing is asked twice"


async def test_a_second_run_repeats_no_reference_and_keeps_what_only_references_reach(store: KeptRows) -> None:
    with mock("epic", data=[*chart(), *SHARED]) as served:
        await run(served, store)
        before = len(served.log)
        report = await run(served, store)
        again, expected = reads(served, before), reachable(served)
    assert (report.status, report.deleted, report.changed, report.new) == ("complete", 0, 0, 0)
    assert store.live() == expected
    assert not [
        path for path in again if path.split("/")[0] in {"Observation", "Medication", "Organization", "Practitioner"}
    ]


async def test_a_dangling_reference_is_reported_by_each_run_without_being_requested_again(
    store: KeptRows,
) -> None:
    with mock("epic", data=[*chart(), *(one for one in SHARED if b'"dr-1"' not in one)]) as served:
        for _ in range(2):
            before = len(served.log)
            report = await run(served, store)
            assert "Practitioner: 1 mentioned and not there" in report.notes
    assert not [path for path in reads(served, before) if path.startswith("Practitioner/")]


async def test_referenced_resources_are_requested_again_once_they_are_no_longer_fresh(store: KeptRows) -> None:
    with mock("epic", data=[*chart(), *SHARED]) as served:
        await run(served, store)
        served.dataset.replace(resource("Medication", "pill", status="inactive"))
        report = await run(served, store, profile={"references.fresh_d": 0})
        expected = reachable(served)
    assert (report.status, report.changed) == ("complete", 1)
    assert store.live()["Medication", "pill"] == expected["Medication", "pill"]


async def test_a_member_that_nothing_mentions_any_more_is_kept(store: KeptRows) -> None:
    with mock("epic", data=[*chart(), *SHARED]) as served:
        await run(served, store)
        served.dataset.replace(resource("Observation", "p1-panel", subject=to("Patient/p1"), **LAB))
        before = store.live()
        report = await run(served, store)
        assert reachable(served).keys() < before.keys()
    assert (report.status, report.deleted) == ("complete", 0)
    assert store.live().keys() == before.keys()


@pytest.mark.parametrize("types", [("Patient", "Observation"), ("Observation", "Encounter")])
async def test_a_run_that_did_not_see_who_mentions_a_member_keeps_it(store: KeptRows, types: tuple[str, ...]) -> None:
    with mock("epic", data=[*without_category("p1-panel"), *SHARED]) as served:
        await run(served, store)
        report = await run(served, store, types=types)
        assert ("Observation", "p1-panel") in store.live()
    assert (report.status, report.deleted) == ("complete", 0)


async def test_a_member_survives_the_night_that_its_report_could_not_be_listed(store: KeptRows) -> None:
    with mock("epic", data=[*without_category("p1-panel"), *SHARED]) as served:
        await run(served, store)
        rule = FaultRule(
            match=Match(purpose="search", path="/DiagnosticReport"), action=Action(status=422, body="operation-outcome")
        )
        served.faults.add(rule)
        report = await run(served, store)
    assert (report.status, report.deleted) == ("partial", 0)
    assert {("Observation", "p1-panel"), ("Observation", "p1-member-1")} <= set(store.live())


async def test_a_failed_reference_is_a_hole_and_the_next_run_requests_it_in_any_case(store: KeptRows) -> None:
    with mock("epic", data=[*chart(), *SHARED]) as served:
        rule = FaultRule(match=Match(purpose="read", path="/Medication"), action=Action(status=503, body="html"))
        served.faults.add(rule)
        report = await run(served, store, profile={"retry.max_tries": 2})
        assert (report.status, [hole.resource_type for hole in report.holes]) == ("partial", ["Medication"])
        assert "pill" not in repr(report)
        served.faults.clear()
        before = len(served.log)
        report = await run(served, store)
        assert [path for path in reads(served, before) if path.startswith("Medication/")] == ["Medication/pill"]
        expected = reachable(served)
    assert report.status == "complete"
    assert store.live() == expected


async def test_missing_or_restricted_references_are_noted_and_not_requested_every_night(store: KeptRows) -> None:
    lost = resource("MedicationRequest", "o2", subject=to("Patient/p1"), medicationReference=to("Medication/lost"))
    with mock("epic", data=[*chart(), *SHARED, lost]) as served:
        rule = FaultRule(
            match=Match(purpose="read", path="/Practitioner/dr-1"), action=Action(status=403, body="operation-outcome")
        )
        served.faults.add(rule)
        report = await run(served, store)
        notes = " ".join(report.notes)
        before = len(served.log)
        again = await run(served, store)
        requested = reads(served, before)
    assert (report.status, again.status) == ("complete", "complete")
    assert "Medication: 1 mentioned and not there" in notes
    assert "Practitioner: 1 mentioned and restricted" in notes
    assert not {"dr-1", "dr-2", "lost", "p1"} & set(notes.replace(":", " ").split())
    assert not [path for path in requested if path.startswith(("Medication/", "Practitioner/"))]


async def test_a_type_that_is_closed_to_this_client_is_left_alone_after_a_few_refusals(store: KeptRows) -> None:
    orders = [
        resource("MedicationRequest", f"o{n}", subject=to("Patient/p1"), medicationReference=to(f"Medication/m{n}"))
        for n in range(60)
    ]
    with mock("epic", data=[*chart(), *orders, *(resource("Medication", f"m{n}") for n in range(60))]) as served:
        rule = FaultRule(
            match=Match(purpose="read", path="/Medication"), action=Action(status=403, body="operation-outcome")
        )
        served.faults.add(rule)
        report = await run(served, store, profile={"limits.max_concurrency": 1})
        requested = sum(path.startswith("Medication/") for path in reads(served))
    assert report.status == "complete"
    assert requested <= 10, "three, and of the other 57 the first, second, fourth, eighth … 32nd"


async def test_a_run_killed_while_following_references_continues_and_requests_nothing_twice(store: KeptRows) -> None:
    pills = [resource("Medication", f"m{n}") for n in range(6)]
    who = {"subject": to("Patient/p1")}
    orders = [
        resource("MedicationRequest", f"o{n}", **who, medicationReference=to(f"Medication/m{n}")) for n in range(6)
    ]
    with mock("va", data=[*chart(), *SHARED, *orders, *pills]) as served:
        served.faults.add(FaultRule(match=Match(path="Medication/m"), first=4, last=6, action=Action(stall=True)))
        stored: set[str] = set()

        def three_are_stored() -> bool:
            stored.update(id_ for kind, id_ in store.live() if kind == "Medication" and id_ != "pill")
            return len(stored) == 3

        await cut_off(run(served, store), three_are_stored)
        before = len(served.log)
        served.faults.clear()
        report = await run(served, store)
        expected, requested = reachable(served), reads(served, before)
    assert report.status == "complete"
    assert store.live() == expected
    assert max(requested.values()) == 1
    assert not any(f"Medication/{pill}" in path for pill in stored for path in requested)


async def test_batches_are_lists_of_ids_where_the_server_accepts_them(store: KeptRows) -> None:
    orders = [
        resource("MedicationRequest", f"o{n}", subject=to("Patient/p1"), medicationReference=to(f"Medication/m{n:03}"))
        for n in range(120)
    ]
    data = [*chart(), *orders, *(resource("Medication", f"m{n:03}") for n in range(120)), *SHARED]
    with mock("generic", data=data, bulk_levels=()) as served:
        report = await run(served, store, profile={"search.directory_types": []})
        searches = [entry for entry in served.log if entry.resource_type == "Medication"]
        expected = reachable(served)
    assert report.status == "complete"
    assert store.live() == expected
    assert len(searches) == 3 + 3 + 2  # lists of 50, 50 and 21, in the pages of twenty that this server gives


async def test_one_refused_id_does_not_cost_its_batch(store: KeptRows) -> None:
    orders = [
        resource("MedicationRequest", f"o{n}", subject=to("Patient/p1"), medicationReference=to(f"Medication/m{n}"))
        for n in range(8)
    ]
    data = [*chart(), *orders, *(resource("Medication", f"m{n}") for n in range(8)), *SHARED]
    with mock("generic", data=data, bulk_levels=()) as served:
        rule = FaultRule(match=Match(purpose="search", path="m5"), action=Action(status=422, body="operation-outcome"))
        served.faults.add(rule)
        report = await run(served, store, profile={"search.directory_types": []})
        expected = reachable(served)
    assert report.status == "complete"
    assert store.live() == expected


async def test_references_to_other_servers_are_counted_and_never_requested(store: KeptRows) -> None:
    with mock("generic", data=[]) as other:
        far = resource(
            "MedicationRequest",
            "far",
            subject=to("Patient/p1"),
            medicationReference=to(f"{other.base_url}/Medication/pill"),
            requester={"identifier": {"value": "12"}},
            recorder=to("#contained"),
        )
        with mock("epic", data=[*chart(), *SHARED, far]) as served:
            report = await run(served, store)
        assert len(other.log) == 0
    assert report.status == "complete"
    assert "references to other servers, never followed: 1" in report.notes


async def test_a_pull_follows_its_own_references_and_nobody_elses(store: KeptRows) -> None:
    from connectors.fhir.sync import CohortSource

    with mock("epic", data=[*chart("p1"), *chart("p2"), *SHARED]) as served:
        report = await run(served, store, kind="pull", cohort=CohortSource(values=("p2",)))
    assert report.status == "complete"
    assert {("Medication", "pill"), ("Practitioner", "dr-1"), ("Observation", "p2-member-2")} <= set(store.live())
    assert not [key for key in store.live() if key[1].startswith("p1")]


async def test_without_follow_no_reference_is_followed_and_earlier_rows_are_kept(store: KeptRows) -> None:
    with mock("epic", data=[*chart(), *SHARED]) as served:
        await run(served, store)
        before = store.live()
        report = await run(served, store, profile={"references.follow": []})
    assert (report.status, report.deleted) == ("complete", 0)
    assert store.live() == before


async def test_the_table_of_references_holds_each_once_with_how_it_was_answered(
    store: KeptRows, store_url: str
) -> None:
    with mock("epic", data=[*chart(), *SHARED]) as served:
        await run(served, store)
    found = rows(store_url, "SELECT resource_type, id, depth, state FROM referenced ORDER BY 1, 2")
    assert ("Observation", "p1-member-1", 1, "found") in found
    assert ("Organization", "maker", 2, "found") in found
    assert ("Organization", "holding", 3, "found") in found


@pytest.mark.parametrize("seed", range(4))
async def test_any_graph_of_references_is_followed_to_its_end_with_one_request_each(store: KeptRows, seed: int) -> None:
    rng = random.Random(seed)
    nodes = [f"Organization/o{n}" for n in range(40)] + [f"Location/l{n}" for n in range(20)]
    web = [
        resource("Organization", f"o{n}", **({"partOf": to(rng.choice(nodes[:40]))} if rng.random() < 0.8 else {}))
        for n in range(40)
    ] + [
        resource(
            "Location",
            f"l{n}",
            managingOrganization=to(rng.choice(nodes[:40])),
            partOf=to(rng.choice([*nodes[40:], "Location/lost"])),
        )
        for n in range(20)
    ]
    visits = [
        resource("Encounter", f"e{n}", subject=to("Patient/p1"), location=[{"location": to(rng.choice(nodes[40:]))}])
        for n in range(3)
    ]
    with mock("epic", data=[resource("Patient", "p1"), *visits, *web]) as served:
        report = await run(served, store, profile={"references.depth": 100})
        expected, requested = reachable(served), reads(served)
    assert report.status == "complete"
    assert store.live() == expected
    assert max(requested.values()) == 1


async def test_an_endless_graph_of_references_is_left_after_a_fixed_number_of_steps(store: KeptRows) -> None:
    chain = [resource("Location", f"l{n}", partOf=to(f"Location/l{n + 1}")) for n in range(40)]
    visit = resource("Encounter", "e", subject=to("Patient/p1"), location=[{"location": to("Location/l0")}])
    with mock("epic", data=[resource("Patient", "p1"), visit, *chain]) as served:
        report = await run(served, store, profile={"references.depth": 5})
    assert "references were followed for only 5 steps" in report.notes
    assert sum(kind == "Location" for kind, _ in store.live()) == 5
