"""When what a run did not see is taken for gone, and when not."""

from __future__ import annotations

import pytest

from snapshots.pool import Store
from snapshots.record import Batch, Quarantined, Unit
from tests.integration.snapshots.stored import failed, full_run, live, record, scope, search, settled

pytestmark = pytest.mark.anyio
P1, P2 = search(patient="p1"), search(patient="p2")
FILE = Unit(key="file:Observation:1:1", kind="file", resource_type="Observation")
PATIENTS = Unit(key="file:Patient:1:1", kind="file", resource_type="Patient")
BOTH = [record("a1", 1, patient="p1"), record("a2", 2, patient="p1"), record("b1", 1, patient="p2")]


async def test_a_complete_listing_of_a_patient_tombstones_what_it_no_longer_has(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), BOTH, [P1, P2])
    report = await full_run(await store.begin_run(scope()), [BOTH[0], BOTH[2]], [P1, P2])
    assert live(store_url) == {"a1", "b1"}
    assert report.deleted == 1


async def test_another_patients_failed_unit_does_not_keep_the_vanished_alive(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), BOTH, [P1, P2])
    report = await full_run(await store.begin_run(scope()), [BOTH[0]], [P1, P2], results=[settled(P1), failed(P2)])
    assert live(store_url) == {"a1", "b1"}
    assert report.status == "partial"


async def test_one_failed_split_of_a_patient_protects_all_of_the_type(store: Store, store_url: str):
    splits = [search(split="category=laboratory"), search(split="category=vital-signs")]
    await full_run(await store.begin_run(scope()), BOTH[:2], splits)
    await full_run(await store.begin_run(scope()), [], splits, results=[settled(splits[0]), failed(splits[1])])
    assert live(store_url) == {"a1", "a2"}


async def test_a_listing_that_is_not_complete_tombstones_nothing(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), BOTH, [P1, P2])
    results = [settled(P1, complete=False), settled(P2, complete=False)]
    await full_run(await store.begin_run(scope()), [], [P1, P2], results=results)
    assert live(store_url) == {"a1", "a2", "b1"}


@pytest.mark.parametrize("since", [{"*": "2024-01-01"}, {"Observation": "2024-01-01"}])
async def test_a_run_asked_for_news_only_tombstones_nothing(store: Store, store_url: str, since: dict[str, str]):
    await full_run(await store.begin_run(scope()), BOTH, [P1, P2])
    await full_run(await store.begin_run(scope(since=since)), [], [P1, P2])
    assert live(store_url) == {"a1", "a2", "b1"}


async def test_a_unit_asked_for_news_only_tombstones_nothing(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), BOTH, [P1, P2])
    await full_run(await store.begin_run(scope()), [], [search(patient="p1", incremental=True)])
    assert live(store_url) == {"a1", "a2", "b1"}


async def test_patients_that_the_run_did_not_ask_for_are_left_alone(store: Store, store_url: str):
    await full_run(await store.begin_run(scope(selection="patients:1")), BOTH, [P1, P2])
    await full_run(await store.begin_run(scope(selection="patients:2")), [], [P1])
    assert live(store_url) == {"b1"}


async def test_a_pull_speaks_for_its_patient_alone(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), BOTH, [P1, P2])
    await full_run(await store.begin_run(scope(kind="pull")), [BOTH[0]], [P1])
    assert live(store_url) == {"a1", "b1"}


async def test_a_bulk_listing_speaks_for_its_selection_and_for_the_patients_it_lists(store: Store, store_url: str):
    everyone = [record("p1", kind="Patient", patient="p1"), record("p2", kind="Patient", patient="p2")]
    group, other = scope(mode="bulk", selection="group:1"), scope(mode="bulk", selection="group:2")
    await full_run(await store.begin_run(group), [*everyone, *BOTH], [PATIENTS, FILE])
    outside = [record("c1", 1, patient="p3"), record("a3", 1, patient="p1")]
    await full_run(await store.begin_run(other), outside, [FILE], results=[settled(FILE, complete=False)])
    # a2 was brought by this group, a3 by another, but its patient is listed; c1's patient is not, so it is no matter of ours
    await full_run(await store.begin_run(group), [*everyone, BOTH[0], BOTH[2]], [PATIENTS, FILE])
    assert live(store_url) == {"p1", "p2", "a1", "b1", "c1"}


async def test_a_patient_who_left_the_group_goes_with_the_chart(store: Store, store_url: str):
    group = scope(mode="bulk", selection="group:1")
    everyone = [record("p1", kind="Patient", patient="p1"), record("p2", kind="Patient", patient="p2")]
    await full_run(await store.begin_run(group), [*everyone, *BOTH], [PATIENTS, FILE])
    await full_run(await store.begin_run(group), [everyone[0], *BOTH[:2]], [PATIENTS, FILE])
    assert live(store_url) == {"p1", "a1", "a2"}


async def test_one_failed_file_protects_the_whole_type(store: Store, store_url: str):
    second = Unit(key="file:Observation:1:2", kind="file", resource_type="Observation")
    await full_run(await store.begin_run(scope(mode="bulk")), BOTH, [FILE, second])
    results = [settled(FILE), failed(second)]
    await full_run(await store.begin_run(scope(mode="bulk")), [], [FILE, second], results=results)
    assert live(store_url) == {"a1", "a2", "b1"}


async def test_a_unit_that_nobody_settled_is_a_hole_and_protects_its_type(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), BOTH, [P1, P2])
    report = await full_run(await store.begin_run(scope()), [], [P1, P2], results=[])
    assert live(store_url) == {"a1", "a2", "b1"}
    assert [hole.reason for hole in report.holes] == ["not attempted", "not attempted"]


async def test_quarantine_that_no_unit_answers_for_protects_the_type(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), BOTH, [P1, P2])
    async with await store.begin_run(scope()) as run:
        await run.plan([P1, P2])
        line = Quarantined(None, "search page 2, entry 5", "not JSON", b"{")
        await run.write(Batch(records=BOTH[1:], quarantined=[line], results=[settled(P1), settled(P2)]))
        report = await run.finish(watermark="2024-01-01T00:00:00Z", requests=0, retries=0)
    assert live(store_url) == {"a1", "a2", "b1"}
    assert (report.status, report.quarantined) == ("partial", 1)
    async with await store.begin_run(scope()) as run:
        assert await run.watermarks() == {}


async def test_a_failed_run_tombstones_nothing(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), BOTH, [P1, P2])
    async with await store.begin_run(scope()) as run:
        await run.plan([P1, P2])
        await run.write(Batch(results=[settled(P1), settled(P2)]))
        report = await run.fail(reason="login refused", requests=2, retries=0)
    assert live(store_url) == {"a1", "a2", "b1"}
    assert (report.status, report.error) == ("failed", "login refused")


MANY = [record(f"m{number}", number, patient=f"p{1 + number % 2}") for number in range(30)]


async def test_a_listing_that_has_lost_most_of_a_type_is_believed_when_it_says_so_twice(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), MANY, [P1, P2])
    doubted = await full_run(await store.begin_run(scope()), MANY[:2], [P1, P2])
    assert len(live(store_url)) == 30
    assert (doubted.status, doubted.deleted) == ("partial", 0)
    assert [(hole.resource_type, "28 of 30" in hole.reason) for hole in doubted.holes] == [("Observation", True)]
    believed = await full_run(await store.begin_run(scope()), MANY[:2], [P1, P2])
    assert (believed.status, believed.deleted, len(live(store_url))) == ("complete", 28, 2)


async def test_a_doubted_listing_makes_the_next_run_a_full_one(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), MANY, [P1, P2])
    await full_run(await store.begin_run(scope()), MANY[:2], [P1, P2])
    async with await store.begin_run(scope()) as run:
        assert await run.last_full_listing() is None


async def test_what_came_back_after_a_doubt_must_vanish_twice_again(store: Store, store_url: str):
    for night in (MANY, MANY[:2], MANY):
        await full_run(await store.begin_run(scope()), night, [P1, P2])
    report = await full_run(await store.begin_run(scope()), MANY[:2], [P1, P2])
    assert (report.status, len(live(store_url))) == ("partial", 30)


@pytest.mark.parametrize(("gone", "ended"), [(21, ("complete", 21)), (22, ("partial", 0))])
async def test_a_little_less_than_half_of_a_type_may_vanish_at_once(
    store: Store, store_url: str, gone: int, ended: tuple[str, int]
):
    forty_four = [record(f"m{number}", number, patient=f"p{1 + number % 2}") for number in range(44)]
    await full_run(await store.begin_run(scope()), forty_four, [P1, P2])
    report = await full_run(await store.begin_run(scope()), forty_four[gone:], [P1, P2])
    assert (report.status, report.deleted) == ended


async def test_half_of_what_is_few_may_vanish_at_once(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), MANY, [P1, P2])
    report = await full_run(await store.begin_run(scope()), MANY[:15], [P1, P2])
    assert (report.status, report.deleted) == ("complete", 15)
