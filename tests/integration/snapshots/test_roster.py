"""Whom a selection's watermarks speak for, and what each patient is behind with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snapshots.pool import Store
from snapshots.record import Alias, Batch, Deferral, Deletion, RunReport, Unit, UnitResult
from tests.integration.snapshots.stored import failed, full_run, live, record, scope, search, settled

pytestmark = pytest.mark.anyio
T1, T2, T3 = "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"
P1, P2 = search(patient="p1"), search(patient="p2")
COHORT = scope(selection="cohort")


def news(patient: str, since: str, kind: str = "Observation") -> Unit:
    return search(kind, patient, incremental=True, since=since)


async def crawl(store: Store, instant: str, *results: tuple[Unit, Any], asked: Any = COHORT) -> RunReport:
    """Run these units; each is paired with `settled` or `failed`."""
    ended: list[UnitResult] = [how(unit) for unit, how in results]
    return await full_run(
        await store.begin_run(asked), [], [unit for unit, _ in results], results=ended, watermark=instant
    )


async def state(store: Store) -> tuple[dict, set, dict]:
    async with await store.begin_run(COHORT) as run:
        found = dict(await run.watermarks()), set(await run.roster.covered()), dict(await run.roster.lags())
        await run.fail(reason="only looked", requests=0, retries=0)
        return found


async def test_one_patients_hole_moves_the_watermark_for_the_others_and_leaves_that_patient_where_it_was(store: Store):
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


async def test_a_full_listing_that_failed_for_one_patient_is_owed_to_that_patient_alone(store: Store):
    await crawl(store, T1, (P1, settled), (P2, failed))
    async with await store.begin_run(COHORT) as run:
        assert await run.last_full_listing() is not None
        assert await run.watermarks() == {"Observation": T1}
        assert await run.roster.lags() == {("Observation", "p2"): None}


async def test_a_split_that_failed_is_owed_although_others_settled(store: Store):
    lab, vital = search(split="category=laboratory"), search(split="category=vital-signs")
    await crawl(store, T1, (lab, settled), (vital, failed))
    assert (await state(store))[2] == {("Observation", "p1"): None}


async def test_a_type_of_which_nothing_settled_moves_no_watermark(store: Store):
    await crawl(store, T1, (P1, failed), (P2, failed), (search("Goal"), settled))
    assert (await state(store))[0] == {"Goal": T1}


async def test_a_new_patient_of_whom_only_news_were_asked_still_owes_its_past(store: Store):
    await crawl(store, T1, (P1, settled))
    await crawl(store, T2, (news("p1", T1), settled), (news("p2", T1), settled))
    assert (await state(store))[2] == {("Observation", "p2"): None}


async def test_a_new_patient_owes_the_types_that_its_first_run_did_not_ask_for(store: Store):
    await crawl(store, T1, (P1, settled), (search("Goal"), settled))
    await crawl(store, T2, (news("p1", T1), settled), (P2, settled))
    marks, covered, lags = await state(store)
    assert (marks, covered) == ({"Observation": T2, "Goal": T1}, {"p1", "p2"})
    assert lags == {("Goal", "p2"): None}


async def test_a_patient_that_left_is_off_the_roster_keeps_its_data_and_comes_back_as_new(store: Store, store_url: str):
    brought = [record("a", 1, patient="p1"), record("b", 1, patient="p2")]
    await full_run(await store.begin_run(COHORT), brought, [P1, P2], watermark=T1)
    await full_run(await store.begin_run(COHORT), brought[:1], [P1], watermark=T2)
    assert live(store_url) == {"a", "b"}
    assert (await state(store))[1] == {"p1"}
    await crawl(store, T3, (news("p1", T2), settled), (P2, settled))
    assert (await state(store))[1:] == ({"p1", "p2"}, {})


async def test_pulls_failed_runs_and_other_selections_leave_the_roster_alone(store: Store):
    await crawl(store, T1, (P1, settled))
    async with await store.begin_run(scope(selection="cohort", kind="pull")) as run:
        await run.plan([P2])
        await run.write(Batch(results=[failed(P2)]))
        await run.finish(watermark=None, requests=0, retries=0)
    await crawl(store, T2, (P2, settled), asked=scope(selection="group:1"))
    assert await state(store) == ({"Observation": T1}, {"p1"}, {})


async def test_an_export_leaves_nobody_on_the_roster_since_it_does_not_say_whom_it_covers(store: Store):
    await crawl(store, T1, (P1, settled), (P2, failed))
    file = Unit(key="file:Observation:1", kind="file", resource_type="Observation")
    await crawl(store, T2, (file, settled), asked=scope(selection="cohort", mode="bulk"))
    assert await state(store) == ({"Observation": T2}, set(), {})


async def test_a_watermark_is_held_back_to_what_was_seen(store: Store):
    async with await store.begin_run(COHORT) as run:
        await run.plan([P1, search("Goal")])
        await run.write(Batch(results=[settled(P1), settled(search("Goal"))]))
        run.roster.hold_back({"Observation": T1, "Goal": T3})
        await run.finish(watermark=T2, requests=0, retries=0)
    assert (await state(store))[0] == {"Observation": T1, "Goal": T2}


async def test_a_search_by_category_speaks_for_its_categories_only(store: Store, store_url: str):
    def coded(identity: str, code: str) -> Any:
        coding = f'"category":[{{"coding":[{{"code":"{code}"}}]}}]'
        return record(identity, f'{{"resourceType":"Observation","id":"{identity}",{coding}}}'.encode())

    await full_run(await store.begin_run(COHORT), [coded("lab", "laboratory"), coded("therapy", "therapy")], [P1])
    split = {"split": "category=laboratory,exam"}
    asked = Unit(
        key="search:Observation:p1:", kind="search", resource_type="Observation", patient_id="p1", detail=split
    )
    report = await full_run(await store.begin_run(COHORT), [], [asked])
    assert (live(store_url), report.deleted) == ({"therapy"}, 1)


async def test_a_patient_listing_that_is_not_whole_takes_nobodys_data_for_gone(store: Store, store_url: str):
    everyone = search("Patient", None)
    listed = [record("p1", kind="Patient", patient="p1"), record("p2", kind="Patient", patient="p2")]
    data = [record("a", 1, patient="p1"), record("b", 1, patient="p2")]
    await full_run(await store.begin_run(scope()), [*listed, *data], [everyone, P1, P2])
    await full_run(
        await store.begin_run(scope()), [listed[0], data[0]], [everyone, P1], results=[failed(everyone), settled(P1)]
    )
    assert live(store_url) == {"p1", "p2", "a", "b"}
    await full_run(await store.begin_run(scope()), [listed[0], data[0]], [everyone, P1])
    assert live(store_url) == {"p1", "a"}


async def test_the_chart_of_a_deleted_patient_goes_with_it_unless_a_search_of_it_failed(store: Store, store_url: str):
    patient, goals = search("Patient", "p2"), search("Goal", "p2")
    brought = [record("p2", kind="Patient", patient="p2"), record("b", 1, patient="p2")]
    goal = record("g", 1, kind="Goal", patient="p2")
    await full_run(await store.begin_run(COHORT), [*brought, goal], [patient, P2, goals])
    async with await store.begin_run(COHORT) as run:
        await run.plan([patient, P2, goals])
        ended = [settled(patient, complete=False), settled(P2, complete=False), failed(goals)]
        await run.write(Batch(deletions=[Deletion("Patient", "p2")], results=ended))
        await run.finish(watermark=T1, requests=0, retries=0)
    assert live(store_url) == {"g"}


async def test_what_a_merged_patient_had_and_its_survivor_no_longer_has_is_gone(store: Store, store_url: str):
    await full_run(
        await store.begin_run(COHORT), [record("moved", 1, patient="p1"), record("left", 1, patient="p1")], [P1]
    )
    async with await store.begin_run(COHORT) as run:
        await run.plan([P1, P2])
        ended = [settled(P1, complete=False), settled(P2)]
        alias = Alias("p1", "p2", gone=True)
        await run.write(Batch(records=[record("moved", 2, patient="p2")], results=ended, aliases=[alias]))
        await run.finish(watermark=T1, requests=0, retries=0)
    assert live(store_url) == {"moved"}


async def test_what_is_deferred_is_known_until_its_time(store: Store):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    paused = Deferral("DocumentReference", None, "paused", now + timedelta(hours=5))
    restricted = Deferral("*", "p1", "restricted", now + timedelta(days=30))
    async with await store.begin_run(scope()) as run:
        await run.roster.defer([paused, restricted])
        assert set(await run.roster.deferrals(now)) == {paused, restricted}
        assert await run.roster.deferrals(now + timedelta(days=1)) == [restricted]
        assert await run.roster.deferrals(now + timedelta(days=31)) == []


async def test_aliases_are_kept_and_taken_back(store: Store):
    one, two, ended = Alias("p1", "p2", gone=True), Alias("p3", "p4", gone=False), Alias("p3", "p3", gone=False)
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(aliases=[one, two]))
        assert await run.roster.new_aliases() == [one, two]
    async with await store.begin_run(scope(types=("Goal",))) as run:
        await run.write(Batch(aliases=[one, ended]))
        assert await run.roster.new_aliases() == [ended]
        assert await run.roster.aliases() == [one]


async def test_patients_that_a_batch_did_not_bring_are_known_until_they_are_asked_one_by_one(store: Store):
    detail = {"ids": ["p1", "p2", "p3"]}
    batch = Unit(key="batch:Patient:1", kind="batch", resource_type="Patient", detail=detail)
    one = Unit(key="read:Patient:p3", kind="read", resource_type="Patient", patient_id="p3")
    async with await store.begin_run(scope()) as run:
        await run.plan([batch, one])
        await run.write(Batch(records=[record("p1", kind="Patient", patient="p1")], results=[settled(batch)]))
        assert await run.roster.unanswered() == ["p2"]


async def test_an_interrupted_run_of_another_cohort_is_not_gone_on_with(store: Store):
    async with await store.begin_run(scope(cohort="one")) as run:
        await run.plan([P1])
    async with await store.begin_run(scope(cohort="two")) as other:
        assert (other.id != run.id, other.planned) == (True, False)


async def test_the_report_says_what_became_of_the_cohort(store: Store):
    async with await store.begin_run(scope()) as run:
        await run.roster.describe_cohort({"asked": 3, "not_found": [2]})
        await run.roster.describe_cohort({"new": 1})
        report = await run.finish(watermark=None, requests=0, retries=0)
    assert report.cohort == {"asked": 3, "not_found": [2], "new": 1}
