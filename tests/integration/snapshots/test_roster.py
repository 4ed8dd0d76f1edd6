"""Whom a selection's watermarks speak for, and what each patient is behind with."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snapshots.patient import Alias, Deferral
from snapshots.record import Batch
from snapshots.report import RunReport
from snapshots.store import Store
from snapshots.unit import Ending, Unit, UnitKind, UnitResult, UnitState
from snapshots.witness import Way, WayScope
from tests.integration.snapshots.stored import (
    GROUP,
    failed,
    file,
    full_run,
    live,
    person,
    read,
    record,
    scope,
    search,
    settled,
    weighed,
)

pytestmark = pytest.mark.anyio
T1, T2, T3 = "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"
P1, P2 = search(patient="p1"), search(patient="p2")
COHORT = scope(selection="cohort")


def news(patient: str, since: str, kind: str = "Observation") -> Unit:
    return search(kind, patient, incremental=True, since=since)


async def crawl(store: Store, instant: str, *results: tuple[Unit, Any], requested: Any = COHORT) -> RunReport:
    """Run these units; each is paired with `settled` or `failed`, and fetches a row if it settles."""
    ended: list[UnitResult] = [how(unit) for unit, how in results]
    brought = [
        record(f"{unit.resource_type}-{unit.patient_id}", kind=unit.resource_type, patient=unit.patient_id)
        for (unit, _), result in zip(results, ended, strict=True)
        if result.state is UnitState.SETTLED
    ]
    ended = [replace(one, records=1) if one.state is UnitState.SETTLED else one for one in ended]
    return await full_run(
        await store.begin_run(requested), brought, [unit for unit, _ in results], results=ended, watermark=instant
    )


async def state(store: Store) -> tuple[dict, set, dict]:
    async with await store.begin_run(COHORT) as run:
        found = dict(await run.knowledge.watermarks()), set(await run.roster.covered()), dict(await run.roster.lags())
        await run.fail(reason="only looked")
        return found


async def test_one_patients_hole_holds_back_only_that_patient(store: Store):
    await crawl(store, T1, (P1, settled), (P2, settled))
    report = await crawl(store, T2, (news("p1", T1), settled), (news("p2", T1), failed))
    assert (report.status, len(report.holes)) == ("partial", 1)
    assert await state(store) == ({"Observation": T2}, {"p1", "p2"}, {("Observation", "p2"): T1})


async def test_a_patient_that_fails_again_keeps_its_older_instant_until_it_catches_up(store: Store):
    await crawl(store, T1, (P1, settled), (P2, settled))
    await crawl(store, T2, (news("p1", T1), settled), (news("p2", T1), failed))
    await crawl(store, T3, (news("p1", T2), settled), (news("p2", T1), failed))
    assert (await state(store))[2] == {("Observation", "p2"): T1}
    await crawl(store, T3, (news("p1", T3), settled), (news("p2", T1), settled))
    assert (await state(store))[2] == {}


async def test_a_full_listing_that_failed_for_one_patient_is_repeated_for_that_patient_alone(store: Store):
    await crawl(store, T1, (P1, settled), (P2, failed))
    async with await store.begin_run(COHORT) as run:
        assert await run.knowledge.last_full_listing([]) is not None
        assert await run.knowledge.watermarks() == {"Observation": T1}
        assert await run.roster.lags() == {("Observation", "p2"): None}


async def test_a_failed_split_lags_although_others_settled(store: Store):
    lab, vital = search(split="category=laboratory"), search(split="category=vital-signs")
    await crawl(store, T1, (lab, settled), (vital, failed))
    assert (await state(store))[2] == {("Observation", "p1"): None}


async def test_a_type_without_settled_units_moves_no_watermark(store: Store):
    await crawl(store, T1, (P1, failed), (P2, failed), (search("Goal"), settled))
    assert (await state(store))[0] == {"Goal": T1}


async def test_a_new_patient_fetched_only_incrementally_still_lags(store: Store):
    await crawl(store, T1, (P1, settled))
    await crawl(store, T2, (news("p1", T1), settled), (news("p2", T1), settled))
    assert (await state(store))[2] == {("Observation", "p2"): None}


async def test_a_new_patient_lags_in_types_that_its_first_run_did_not_request(store: Store):
    await crawl(store, T1, (P1, settled), (search("Goal"), settled))
    await crawl(store, T2, (news("p1", T1), settled), (P2, settled))
    marks, covered, lags = await state(store)
    assert (marks, covered) == ({"Observation": T2, "Goal": T1}, {"p1", "p2"})
    assert lags == {("Goal", "p2"): None}


async def test_a_patient_that_left_is_off_the_roster_keeps_its_data_and_comes_back_as_new(store: Store, store_url: str):
    people = [person("p1"), person("p2")]
    brought = [record("a", 1, patient="p1"), record("b", 1, patient="p2")]
    await weighed(store, [*people, *brought], [read("p1"), read("p2"), P1, P2], requested=COHORT, watermark=T1)
    again = [people[0], brought[0]]
    report = await weighed(store, again, [read("p1"), P1], requested=COHORT, answers={"p2": people[1]}, watermark=T2)
    assert (report.status, live(store_url)) == ("complete", {"p1", "p2", "a", "b"})
    assert (await state(store))[1] == {"p1"}
    both = [(news("p1", T2), settled), (P2, settled)]
    await crawl(store, T3, *both)
    assert (await state(store))[1] == {"p1", "p2"}


async def test_pulls_failed_runs_and_other_selections_leave_the_roster_alone(store: Store):
    await crawl(store, T1, (P1, settled))
    async with await store.begin_run(scope(selection="cohort", kind="pull")) as run:
        await run.plan([P2])
        await run.write(Batch(results=[failed(P2)]))
        await run.finish(watermark=None)
    await crawl(store, T2, (P2, settled), requested=scope(selection="group:1"))
    assert await state(store) == ({"Observation": T1}, {"p1"}, {})


async def test_a_full_export_of_members_puts_its_patients_on_the_roster(store: Store):
    group = scope(selection="cohort", mode="bulk")
    everyone = [person("p1", way=GROUP), person("p2", way=GROUP)]
    await full_run(await store.begin_run(group), everyone, [file("Patient")], watermark=T1)
    assert await state(store) == ({"Patient": T1}, {"p1", "p2"}, {})


async def test_an_export_of_members_without_patients_covers_those_with_rows(store: Store):
    brought = [record("a", 1, way=GROUP), record("m", 1, kind="Medication", patient=None, way=GROUP)]
    export = scope(selection="cohort", mode="bulk")
    await full_run(await store.begin_run(export), brought, [file(), file("Medication")], watermark=T1)
    assert (await state(store))[1] == {"p1"}


async def test_an_export_of_everything_adds_nobody_to_the_roster_and_clears_every_lag(
    store: Store,
):
    await crawl(store, T1, (P1, settled), (P2, failed))
    everything = file(way=Way("export system", WayScope.EVERYTHING))
    await crawl(store, T2, (everything, settled), requested=scope(selection="cohort", mode="bulk"))
    assert await state(store) == ({"Observation": T2}, {"p1", "p2"}, {})


@pytest.mark.parametrize(
    "how",
    [
        lambda unit: settled(unit, complete=False, ending=Ending.NOT_FOUND),
        lambda unit: settled(unit, complete=False, ending=Ending.RESTRICTED),
        lambda unit: settled(unit, complete=False, ending=Ending.PAUSED),
        lambda unit: settled(unit, complete=False, ending=Ending.PARTIAL, records=1),
        lambda unit: settled(unit, complete=False, ending=Ending.NOT_SERVED),
        lambda unit: failed(unit, ending=Ending.RESTRICTED),
        settled,
    ],
    ids=["404", "403", "not today", "partial", "not served", "failed", "empty, of nobody who is known to live"],
)
async def test_a_request_unanswered_for_one_patient_is_a_lag_of_only_that_patient(store: Store, how: Any):
    brought = [person("p1"), record("a", 1)]
    units = [read("p1"), P1, P2]
    ended = [settled(units[0], records=1), settled(P1, records=1), how(P2)]
    await full_run(await store.begin_run(COHORT), brought, units, results=ended, watermark=T1)
    marks, covered, lags = await state(store)
    assert marks["Observation"] == T1
    assert (covered, lags) == ({"p1", "p2"}, {("Observation", "p2"): None})


@pytest.mark.parametrize("ending", [Ending.LISTED, Ending.GONE])
async def test_a_living_patient_without_rows_has_caught_up(store: Store, ending: Ending):
    units = [read("p1"), P1]
    ended = [settled(units[0], records=1), settled(P1, ending=ending)]
    await full_run(await store.begin_run(COHORT), [person("p1")], units, results=ended, watermark=T1)
    assert (await state(store))[2] == {}


@pytest.mark.parametrize("ending", [Ending.NOT_FOUND, Ending.MERGED])
async def test_a_search_that_denies_a_known_patient_is_a_hole_and_leaves_a_lag(store: Store, ending: Ending):
    units = [read("p1"), P1]
    ended = [settled(units[0], records=1), settled(P1, ending=ending)]
    report = await full_run(await store.begin_run(COHORT), [person("p1")], units, results=ended, watermark=T1)
    assert (report.status, (await state(store))[2]) == ("partial", {("Observation", "p1"): None})


async def test_a_type_refused_for_one_patient_only_is_that_patients_hole(store: Store):
    ended = [settled(P1, records=1), settled(P2, complete=False, ending=Ending.NOT_SERVED)]
    report = await full_run(await store.begin_run(COHORT), [record("a", 1)], [P1, P2], results=ended, watermark=T1)
    assert report.status == "partial"
    assert ["answered for others" in hole.reason for hole in report.holes] == [True]


async def test_a_type_served_for_nobody_is_no_hole_and_has_no_watermark(store: Store):
    ended = [settled(one, complete=False, ending=Ending.NOT_SERVED) for one in (P1, P2)]
    report = await full_run(await store.begin_run(COHORT), [], [P1, P2], results=ended, watermark=T1)
    assert (report.status, (await state(store))[0]) == ("complete", {})


async def test_deferrals_are_known_until_their_time(store: Store):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    paused = Deferral("DocumentReference", None, "paused", now + timedelta(hours=5))
    restricted = Deferral("*", "p1", "restricted", now + timedelta(days=30))
    async with await store.begin_run(scope()) as run:
        await run.roster.defer([paused, restricted])
        assert set(await run.roster.deferrals(now)) == {paused, restricted}
        assert await run.roster.deferrals(now + timedelta(days=1)) == [restricted]
        assert await run.roster.deferrals(now + timedelta(days=31)) == []


async def test_aliases_are_kept_and_withdrawn(store: Store):
    one, two, ended = Alias("p1", "p2", gone=True), Alias("p3", "p4", gone=False), Alias("p3", "p3", gone=False)
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(aliases=[one, two]))
        assert await run.roster.new_aliases() == [one, two]
    async with await store.begin_run(scope(types=("Goal",))) as run:
        await run.write(Batch(aliases=[one, ended]))
        assert await run.roster.new_aliases() == [ended]
        assert await run.roster.aliases() == [one]


async def test_patients_missing_from_a_batch_are_remembered_until_requested_one_by_one(store: Store):
    batch = Unit(key="batch:Patient:1", kind=UnitKind.BATCH, resource_type="Patient", ids=("p1", "p2", "p3"))
    one = Unit(key="read:Patient:p3", kind=UnitKind.READ, resource_type="Patient", patient_id="p3")
    async with await store.begin_run(scope()) as run:
        await run.plan([batch, one])
        await run.write(Batch(records=[record("p1", kind="Patient", patient="p1")], results=[settled(batch)]))
        assert await run.roster.unanswered() == ["p2"]


async def test_an_interrupted_run_of_another_cohort_is_not_resumed(store: Store):
    async with await store.begin_run(scope(cohort="one")) as run:
        await run.plan([P1])
    async with await store.begin_run(scope(cohort="two")) as other:
        assert (other.id != run.id, other.planned) == (True, False)


async def test_the_report_accounts_for_the_cohort(store: Store):
    async with await store.begin_run(scope()) as run:
        await run.roster.describe_cohort({"asked": 3, "not_found": [2]})
        await run.roster.describe_cohort({"new": 1})
        report = await run.finish(watermark=None)
    assert report.cohort == {"asked": 3, "not_found": [2], "new": 1}
