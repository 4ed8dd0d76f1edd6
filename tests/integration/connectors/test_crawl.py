"""Crawls night after night: who is asked for what since when, what a server cannot or will not give, who was merged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from connectors.fhir.run import CohortSource
from mocks.faults import Action, FaultRule, Match
from mocks.mock_config import MockConfig
from mocks.serving import Served, serve
from tests.fix_ehr import small_data
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.nights import Nights
from tests.user_site import key_pair

pytestmark = pytest.mark.anyio
DAY = timedelta(days=1)
PATIENTS = ("pat-1", "pat-2", "pat-3")


def row(kind: str, identity: str, patient: str, at: str = "2026-01-01T00:00:00Z", **rest: Any) -> bytes:
    body = {"resourceType": kind, "id": identity, "meta": {"lastUpdated": at, "versionId": "1"}, **rest}
    if kind != "Patient":
        body["subject"] = {"reference": f"Patient/{patient}"}
    return json.dumps(body).encode()


def people(*names: str) -> list[bytes]:
    return [row("Patient", name, name) for name in names or PATIENTS]


def hours(patient: str, kind: str = "Observation", count: int = 30) -> list[bytes]:
    """Resources an hour apart."""
    return [
        row(kind, f"{kind[:3]}-{patient}-{n}", patient, f"2026-02-{1 + n // 24:02}T{n % 24:02}:00:00Z")
        for n in range(count)
    ]


@contextmanager
def ehr(vendor: str, data: list[bytes] | None = None, **knobs: Any) -> Iterator[Served]:
    with serve(
        MockConfig(vendor=vendor, data=data or small_data(observations=8), jwks=key_pair(vendor).jwks, **knobs)  # type: ignore[arg-type]
    ) as served:
        yield served


def source(served: Served, *types: str, but: frozenset[str] = frozenset()) -> set[tuple[str, str]]:
    return {(kind, one.id) for kind in types for one in served.dataset.of_type(kind) if f"{kind}/{one.id}" not in but}


def here(kept: KeptRows, *types: str) -> set[tuple[str, str]]:
    return {key for key in kept.live() if key[0] in types}


# -- poison, too large, too slow


@pytest.mark.quick
async def test_a_poison_record_costs_itself_and_everything_else_of_its_patient_arrives(kept: KeptRows) -> None:
    data = [*people(), *(one for p in PATIENTS for kind in ("Observation", "Condition") for one in hours(p, kind))]
    poison = frozenset({"Observation/Obs-pat-2-7", "Condition/Con-pat-2-0", "Condition/Con-pat-2-29"})
    types = ("Patient", "Observation", "Condition")
    with ehr("cerner", data, poison=poison) as served:
        nights = Nights(served, kept)
        report = await nights.sync(*PATIENTS, types=types)
        assert here(kept, *types) == source(served, *types, but=poison)
        assert (report.status, report.quarantined) == ("partial", 2)
        assert sorted((hole.resource_type, hole.reason.partition(" of")[0]) for hole in report.holes) == [
            ("Condition", "the server cannot produce 2 records"),
            ("Observation", "the server cannot produce a record"),
        ]
        assert len(nights.targets("Observation", "pat-2")) < 100
        object.__setattr__(served.ehr.config, "poison", frozenset())
        healed = await nights.sync(*PATIENTS, types=types)
        assert (healed.status, here(kept, *types)) == ("complete", source(served, *types))


async def test_without_windows_everything_before_the_poison_record_arrives(kept: KeptRows) -> None:
    data = [*people("pat-1"), *(row("Goal", f"goal-{n}", "pat-1") for n in range(9))]
    with ehr("va", data, poison=frozenset({"Goal/goal-5"})) as served:
        report = await Nights(served, kept).sync("pat-1", types=("Patient", "Goal"))
        assert here(kept, "Goal") == {("Goal", f"goal-{n}") for n in range(5)}
        assert [hole.resource_type for hole in report.holes] == ["Goal"]


async def test_a_result_that_is_too_large_is_requested_in_parts_and_is_complete(kept: KeptRows) -> None:
    data = [*people("pat-1"), *hours("pat-1", count=40)]
    with ehr("allscripts", data, max_rows=10) as served:
        report = await Nights(served, kept).sync("pat-1", types=("Patient", "Observation"))
        assert (report.status, here(kept, "Observation")) == ("complete", source(served, "Observation"))


async def test_a_page_that_takes_too_long_is_requested_smaller(kept: KeptRows) -> None:
    data = [*people("pat-1"), *hours("pat-1", count=40)]
    with ehr("va", data, row_cost_s=0.02, gateway_timeout_s=0.3) as served:
        nights = Nights(served, kept)
        report = await nights.sync("pat-1", types=("Patient", "Observation"))
        assert (report.status, here(kept, "Observation")) == ("complete", source(served, "Observation"))
        assert any("_count=6" in target for target in nights.targets("Observation"))


# -- what is not asked


async def test_documents_deferred_to_tomorrow_are_not_requested_before_and_fetched_then(kept: KeptRows) -> None:
    with ehr("epic", daily_documents=1) as served:
        nights = Nights(served, kept, limits__time_zone="America/Chicago", limits__max_concurrency=1)
        nights.clock.moment = nights.clock.moment.replace(hour=15)
        types = ("Patient", "DocumentReference")
        first = await nights.sync(*PATIENTS, types=types)
        assert {hole.resource_type for hole in first.holes} == {"DocumentReference"}
        assert "paused until" in first.holes[0].reason
        assert len(nights.targets("DocumentReference")) <= 3
        second = await nights.sync(*PATIENTS, types=types, later=timedelta(hours=1))
        assert (nights.targets("DocumentReference"), len(second.holes)) == ([], 3)
        object.__setattr__(served.ehr.config, "daily_documents", None)
        third = await nights.sync(*PATIENTS, types=types, later=DAY)
        assert (third.status, here(kept, "DocumentReference")) == ("complete", source(served, "DocumentReference"))


async def test_break_the_glass_charts_are_requested_once_and_then_only_after_some_days_or_by_hand(
    kept: KeptRows,
) -> None:
    with ehr("epic", restricted={"Observation/pat-2": "4130"}) as served:
        nights = Nights(served, kept)
        types = ("Patient", "Observation")
        report = await nights.sync(*PATIENTS, types=types)
        assert len(nights.targets("Observation", "pat-2")) == 1
        assert {hole.reason.partition(" (")[0] for hole in report.holes} == {"restricted by the server for this client"}
        assert len(report.holes) == 6
        again = await nights.sync(*PATIENTS, types=types, later=DAY)
        assert (nights.targets("Observation", "pat-2"), again.status, len(again.holes)) == ([], "partial", 6)
        await nights.sync(*PATIENTS, types=types, since="none")
        assert len(nights.targets("Observation", "pat-2")) == 1
        object.__setattr__(served.ehr.config, "restricted", {})
        healed = await nights.sync(*PATIENTS, types=types, later=31 * DAY)
        assert (healed.status, here(kept, *types)) == ("complete", source(served, *types))


async def test_a_restricted_patient_is_left_alone_in_every_type(kept: KeptRows) -> None:
    types = ("Patient", "Observation", "Condition", "Procedure", "Encounter", "Immunization")
    with ehr("epic", restricted={"*/pat-2": "4131"}) as served:
        nights = Nights(served, kept, limits__max_concurrency=1)
        report = await nights.sync(*PATIENTS, types=types)
        assert sum(len(nights.targets(kind, "pat-2")) for kind in types[1:]) <= 2
        assert {hole.resource_type for hole in report.holes} == set(types[1:])


async def test_a_type_forbidden_for_the_app_is_not_requested_for_every_patient(kept: KeptRows) -> None:
    everyone = [f"pat-{n}" for n in range(1, 21)]
    data = [*people(*everyone), *(row("Goal", f"g-{p}", p) for p in everyone)]
    with ehr("cerner", data) as served:
        served.faults.add(FaultRule(match=Match(path="/Goal"), action=Action(status=403)))
        nights = Nights(served, kept, limits__max_concurrency=1)
        report = await nights.sync(*everyone, types=("Patient", "Goal"))
        assert len(nights.targets("Goal")) <= 9, "three, and ever fewer of the others"
        assert len(report.holes) == 20
        served.faults.clear()
        assert (await nights.sync(*everyone, types=("Patient", "Goal"))).status == "complete"


# -- since


async def test_a_failed_patient_is_fetched_from_its_lag_and_the_others_incrementally(kept: KeptRows) -> None:
    types = ("Patient", "Observation")
    with ehr("cerner") as served:
        nights = Nights(served, kept, changes__incremental=True)
        await nights.sync(*PATIENTS, types=types)
        served.faults.add(FaultRule(match=Match(path="Observation.*pat-2"), action=Action(status=422)))
        for _ in range(2):
            broken = await nights.sync(*PATIENTS, types=types)
            assert (broken.status, len(broken.holes)) == ("partial", 1)
            assert all("_lastUpdated=ge" in target for target in nights.targets("Observation"))
        served.faults.clear()
        served.dataset.replace(row("Observation", "missed", "pat-2", "2026-05-01T00:00:00Z"))
        healed = await nights.sync(*PATIENTS, types=types)
        assert "pat-2" in nights.targets("Observation")[0]
        assert (healed.status, here(kept, *types)) == ("complete", source(served, *types))


async def test_a_new_patient_is_listed_in_full_and_nobody_else_is(kept: KeptRows) -> None:
    types = ("Patient", "Observation")
    with ehr("cerner") as served:
        nights = Nights(served, kept, changes__incremental=True)
        await nights.sync("pat-1", "pat-2", types=types)
        report = await nights.sync("pat-2", "pat-3", types=types)
        assert not any("_lastUpdated" in target for target in nights.targets("Observation", "pat-3"))
        assert all("_lastUpdated" in target for target in nights.targets("Observation", "pat-2"))
        assert nights.targets("Observation", "pat-1") == []
        assert here(kept, *types) == source(served, *types)
        assert report.cohort == {"asked": 2, "patients": 2, "new": 1, "removed": 1, "merged": 0}


async def test_the_first_crawl_after_incremental_is_switched_on_lists_all_because_no_date_held_the_watermark_back(
    kept: KeptRows,
) -> None:
    types = ("Patient", "Observation")
    with ehr("cerner", [*people("pat-1"), *hours("pat-1")]) as served:
        await Nights(served, kept, changes__incremental=False).sync("pat-1", types=types)
        served.dataset.replace(
            row("Observation", "late", "pat-1", "2026-02-03T00:00:00Z")
        )  # dated by a clock that is far behind
        nights = Nights(served, kept, changes__incremental=True)
        await nights.sync("pat-1", types=types)
        assert here(kept, *types) == source(served, *types)
        served.dataset.replace(row("Observation", "later", "pat-1", "2026-02-03T01:00:00Z"))
        await nights.sync("pat-1", types=types)
        assert "_lastUpdated=ge2026-02-02T23" in nights.targets("Observation")[-1].replace("%3A", ":")
        assert here(kept, *types) == source(served, *types)


async def test_epic_is_searched_by_creation_date_and_a_full_listing_finds_changes(kept: KeptRows) -> None:
    def lab(identity: str, issued: str, value: int) -> bytes:
        coded = [{"coding": [{"code": "laboratory"}]}]
        return row("Observation", identity, "pat-1", issued=issued, category=coded, valueInteger=value)

    types = ("Patient", "Observation", "Procedure")
    data = [*people("pat-1"), lab("old", "2026-01-01T00:00:00Z", 1), lab("far", "2099-01-01T00:00:00Z", 1)]
    with ehr("epic", data) as served:
        nights = Nights(served, kept, changes__incremental=True, changes__reconcile_every_d=7)
        await nights.sync("pat-1", types=types)
        assert kept.watermarks()["Observation"] == "2025-12-31T00:00:00Z"  # newest seen but for the future, less a day
        served.dataset.replace(lab("old", "2025-06-01T00:00:00Z", 2))
        served.dataset.replace(lab("new", "2026-03-01T00:00:00Z", 1))
        await nights.sync("pat-1", types=types)
        targets = nights.targets("Observation")
        assert all("issued=ge2025-12-31T00:00:00Z" in target for target in targets)
        assert not any("issued" in target for target in nights.targets("Procedure"))
        assert here(kept, "Observation") == source(served, "Observation")
        assert kept.live()["Observation", "old"]["valueInteger"] == ("number", "1")
        await nights.sync("pat-1", types=types, later=8 * DAY)
        assert kept.live()["Observation", "old"]["valueInteger"] == ("number", "2")


async def test_an_ignored_filter_is_noted_and_nothing_is_dropped_or_assumed_gone(kept: KeptRows) -> None:
    types = ("Patient", "Observation")
    with ehr("cerner", ignored_params=frozenset({"_lastUpdated"})) as served:
        nights = Nights(served, kept, changes__incremental=True)
        await nights.sync(*PATIENTS, types=types)
        report = await nights.sync(*PATIENTS, types=types)
        assert any("ignored a filter" in note for note in report.notes)
        assert here(kept, *types) == source(served, *types)


async def test_a_refused_filter_is_omitted_and_everything_is_listed(kept: KeptRows) -> None:
    types = ("Patient", "Observation")
    with ehr("cerner", refused_params=frozenset({"_lastUpdated"})) as served:
        nights = Nights(served, kept, changes__incremental=True)
        await nights.sync(*PATIENTS, types=types)
        served.dataset.replace(row("Observation", "new", "pat-1"))
        report = await nights.sync(*PATIENTS, types=types)
        assert (report.status, here(kept, *types)) == ("complete", source(served, *types))
        assert any("refused the date filter" in note for note in report.notes)


# -- who


async def test_a_merged_patient_is_an_alias_of_the_survivor_whose_whole_chart_is_fetched(kept: KeptRows) -> None:
    types = ("Patient", "Observation", "Procedure")
    with ehr("epic") as served:
        nights = Nights(served, kept)
        await nights.sync("pat-1", "pat-2", types=types)
        for one in served.dataset.of_patient("Observation", "pat-1")[:4]:
            served.dataset.replace(one.raw.replace(b"Patient/pat-1", b"Patient/pat-3"))
        for one in [
            *served.dataset.of_patient("Observation", "pat-1"), *served.dataset.of_patient("Procedure", "pat-1")
        ]:  # fmt: skip
            served.dataset.delete(one.type, one.id)
        served.dataset.delete("Patient", "pat-1")
        object.__setattr__(served.ehr.config, "merged", {"pat-1": "pat-3"})
        report = await nights.sync("pat-1", "pat-2", types=types)
        assert (report.status, report.holes) == ("complete", [])
        assert here(kept, *types) == source(served, *types)
        await nights.sync("pat-1", "pat-2", types=types)
        assert nights.targets("Observation", "pat-1") == []
        assert len(nights.targets("Observation", "pat-3")) == 6
        assert here(kept, *types) == source(served, *types)


async def test_a_former_id_that_leads_nowhere_any_more_is_searched_itself(kept: KeptRows) -> None:
    types = ("Patient", "Procedure")
    with ehr("epic", [*people("pat-1", "pat-3"), row("Procedure", "one", "pat-3")]) as served:
        nights = Nights(served, kept)
        await nights.sync("pat-1", "pat-3", types=types)
        object.__setattr__(served.ehr.config, "merged", {"pat-1": "pat-3"})
        for _ in range(2):
            await nights.sync("pat-1", "pat-3", types=types)
        assert nights.targets("Procedure", "pat-1") == []
        object.__setattr__(served.ehr.config, "merged", {})
        served.dataset.delete("Patient", "pat-1")
        report = await nights.sync("pat-1", "pat-3", types=types)
        assert (report.status, len(nights.targets("Procedure", "pat-1"))) == ("complete", 1)


async def test_a_replaced_patient_leads_to_its_survivor(kept: KeptRows) -> None:
    link = [{"other": {"reference": "Patient/pat-3"}, "type": "replaced-by"}]
    types = ("Patient", "Observation")
    with ehr("cerner") as served:
        served.dataset.replace(row("Patient", "pat-1", "pat-1", link=link))
        nights = Nights(served, kept, changes__incremental=True)
        await nights.sync("pat-2", types=types)
        report = await nights.sync("pat-1", "pat-2", types=types)
        assert report.status == "complete"
        assert here(kept, *types) == source(served, *types)
        assert not any("_lastUpdated" in target for target in nights.targets("Observation", "pat-3"))


async def test_a_survivor_whom_the_server_does_not_know_is_a_hole_only_when_the_merge_is_new_or_the_cohort_names_it(
    kept: KeptRows,
) -> None:
    link = [{"other": {"reference": "Patient/absent"}, "type": "replaced-by"}]
    types = ("Patient", "Observation")
    with ehr("cerner", [row("Patient", "pat-1", "pat-1", link=link), *people("pat-2"), *hours("pat-1")]) as served:
        nights = Nights(served, kept)
        first = await nights.sync("pat-1", "pat-2", types=types)
        second = await nights.sync("pat-1", "pat-2", types=types)
        named = await nights.sync("pat-1", "pat-2", "absent", types=types)
        assert [one.status for one in (first, second, named)] == ["partial", "complete", "partial"]
        served.dataset.replace(row("Patient", "absent", "absent"))
        served.dataset.replace(row("Observation", "back", "absent"))
        back = await nights.sync("pat-1", "pat-2", types=types)
        assert back.status == "complete"
        assert here(kept, *types) == source(served, *types)


async def test_a_deleted_patient_is_a_tombstone_with_all_of_its_chart(kept: KeptRows) -> None:
    types = ("Patient", "Observation")
    with ehr("epic") as served:
        nights = Nights(served, kept)
        await nights.sync("pat-1", "pat-2", types=types)
        for one in served.dataset.of_patient("Observation", "pat-1"):
            served.dataset.delete("Observation", one.id)
        served.dataset.delete("Patient", "pat-1")
        await nights.sync("pat-1", "pat-2", types=types)
        assert {key[1].split("-")[1] for key in here(kept, *types)} == {"2"}


async def test_patients_are_requested_by_fifties_and_those_missing_from_a_batch_alone(kept: KeptRows) -> None:
    everyone = [f"pat-{n}" for n in range(1, 61)]
    with ehr("cerner", people(*everyone), poison=frozenset({"Patient/pat-9"})) as served:
        nights = Nights(served, kept)
        report = await nights.sync(*everyone, "nobody", types=("Patient",))
        assert len(here(kept, "Patient")) == 59
        assert len(report.holes) == 2
        assert len(nights.targets("Patient")) < 20


async def test_a_long_search_goes_by_post(kept: KeptRows) -> None:
    everyone = [f"patient-{'x' * 40}-{n}" for n in range(50)]
    with ehr("generic", people(*everyone)) as served:
        nights = Nights(served, kept)
        assert (await nights.sync(*everyone, types=("Patient",))).status == "complete"
        assert [entry.method for entry in served.log.of("search", "Patient")] == ["POST", "GET", "GET"]  # its pages


async def test_the_cohort_may_be_the_stored_patients(kept: KeptRows) -> None:
    with ehr("epic") as served:
        nights = Nights(served, kept)
        await nights.sync("pat-1", "pat-3", types=("Patient",))
        await nights.sync(types=("Patient", "Observation"), cohort=CohortSource(stored=True))
        assert {key[1].split("-")[1] for key in here(kept, "Observation")} == {"1", "3"}


async def test_medical_record_numbers_are_reported_by_their_line(kept: KeptRows) -> None:
    twice = [
        row("Patient", f"pat-{n}", "", identifier=[{"system": "urn:mrn", "value": value}])
        for n, value in enumerate(("A", "B", "B", "C"))
    ]
    with ehr("cerner", twice) as served:
        served.faults.add(FaultRule(match=Match(path="%7CC$"), action=Action(status=503)))
        cohort = CohortSource(values=("A", "nobody", "B", "C"), identifier_system="urn:mrn", lines=(2, 3, 5, 8))
        report = await Nights(served, kept).sync(types=("Patient",), cohort=cohort)
    numbers = {"not_found": [3], "found_twice": [5], "not_looked_up": [8]}
    assert report.cohort == {"asked": 4, **numbers, "patients": 1, "new": 1, "removed": 0, "merged": 0}
    assert "cohort entries not found: line 3" in report.notes
    (unanswered,) = [note for note in report.notes if "not looked up: line 8" in note]
    assert "(the first: GET /Patient?identifier=…: the answer was 503" in unanswered
    assert report.status == "partial"


async def test_redacted_placeholders_are_noted_and_hidden_rows_are_not_assumed_gone(kept: KeptRows) -> None:
    types = ("Patient", "Observation")
    with ehr("allscripts") as served:
        nights = Nights(served, kept)
        await nights.sync(*PATIENTS, types=types)
        object.__setattr__(served.ehr.config, "redact_every", 3)
        served.dataset.delete("Observation", "obs-1-1")
        report = await nights.sync(*PATIENTS, types=types)
        assert any("redacted placeholders" in note for note in report.notes)
        assert ("Observation", "obs-1-1") in kept.live()
