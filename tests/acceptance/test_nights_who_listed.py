"""Histories of several nights: only what listed a row can miss it. The number is that of ../shared/nights."""

from __future__ import annotations

import pytest

from tests.histories.nights import observation, patient
from tests.histories.stage import Stage
from tests.histories.steps import (
    DEVICE,
    OBSERVATION,
    PATIENT,
    Add,
    Ask,
    Change,
    Drop,
    DropPatient,
    Join,
    Leave,
    Levels,
    Merge,
    NoExport,
    Site,
    Unmerge,
    Withhold,
)

CHART = (PATIENT, OBSERVATION)
P1 = Add(PATIENT, "p1", "p1", age_d=300)
P2 = Add(PATIENT, "p2", "p2", age_d=300)
O1 = Add(OBSERVATION, "o1", "p1", age_d=300)
O2 = Add(OBSERVATION, "o2", "p1", age_d=300)
Q1 = Add(OBSERVATION, "q1", "p2", age_d=300)
NOBODYS = (Add(OBSERVATION, "nobody1", None, age_d=300), Add(OBSERVATION, "nobody2", None, age_d=300))
UNWITNESSED = "no listing of this connection can show 2 Observation; they are kept"


@pytest.mark.parametrize("incremental", [False, True], ids=["n1", "n1b"])
def test_n1_a_crawl_never_misses_what_only_a_system_export_can_list(stage: Stage, *, incremental: bool) -> None:
    nights = stage.nights(Site(home=Ask(mode="auto"), levels=("system",), incremental=incremental))
    nights.searches_by_patient(DEVICE)
    nights.happens(P1, O1, *NOBODYS, Add(DEVICE, "d1", None, age_d=300))
    everything = {"Patient/p1", "Observation/o1", "Observation/nobody1", "Observation/nobody2", "Device/d1"}

    exported = nights.sync()
    crawled = nights.sync(faults=(NoExport(),))
    exported_again = nights.sync()
    by_hand = nights.sync(Ask(mode="crawl"))

    for night in (exported, crawled, exported_again, by_hand):
        assert (night.status, night.holes) == ("complete", set())
        assert (night.live, night.dead, night.evidence) == (everything, set(), {})
    assert exported.counts == (5, 0, 0, 0)
    assert any(
        "no listing of this connection can show 1 Device, 2 Observation; they are kept" in n for n in crawled.notes
    )
    # what the crawl knows is its own: the export's watermarks stay, and move only by exports
    assert exported_again.known == exported.known or not incremental
    assert crawled.known != exported.known
    assert nights.end().live == everything


def test_n2_a_row_last_changed_by_a_pull_can_still_be_missed_by_an_export(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask(mode="bulk", types=CHART), levels=("system",), incremental=False))
    nights.happens(P1, P2, O1, O2, Q1)
    everything = nights.at_ehr

    first = nights.sync()
    nights.happens(Change(OBSERVATION, "o1"))
    pulled = nights.sync(Ask("pull:p1"))
    assert (pulled.status, pulled.counts, pulled.live, pulled.known) == ("complete", (0, 1, 2, 0), everything, {})
    second = nights.sync()
    assert (second.status, second.counts, second.live) == ("complete", (0, 0, 5, 0), everything)
    nights.happens(DropPatient("p1"))
    third = nights.sync()

    assert (third.status, third.holes, third.evidence) == ("complete", set(), {})
    assert third.live == {"Patient/p2", "Observation/q1"}
    assert third.dead == {"Patient/p1", "Observation/o1", "Observation/o2"}
    assert third.known.keys() == first.known.keys() == {"Patient", "Observation"}
    assert nights.end().dead == third.dead


def test_n2b_a_patient_last_changed_by_a_pull_can_still_be_missed_by_a_crawl(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask(mode="crawl", types=CHART), incremental=False))
    nights.happens(P1, P2, O1, O2, Q1)
    everything = nights.at_ehr

    nights.sync()
    nights.happens(Change(PATIENT, "p1"), Change(OBSERVATION, "o1"))
    pulled = nights.sync(Ask("pull:p1"))
    assert (pulled.status, pulled.counts, pulled.live) == ("complete", (0, 2, 1, 0), everything)
    nights.sync()
    nights.happens(DropPatient("p1"))
    third = nights.sync()

    assert (third.status, third.holes, third.evidence) == ("complete", set(), {})
    assert third.live == {"Patient/p2", "Observation/q1"}
    assert third.dead == {"Patient/p1", "Observation/o1", "Observation/o2"}
    fourth = nights.sync(since="none")
    assert (fourth.status, fourth.live, fourth.dead) == ("complete", third.live, third.dead)
    assert nights.end().dead == third.dead


def test_n3_a_patient_who_leaves_one_group_stays_live_for_the_other_and_is_complete_on_return(stage: Stage) -> None:
    a, b = Ask("group:A", "bulk", CHART), Ask("group:B", "bulk", CHART)
    nights = stage.nights(Site(home=b, levels=("group",)))
    nights.happens(P1, P2, Add(PATIENT, "p3", "p3", age_d=300), O1, O2, Q1)
    nights.happens(Join("A", "p1"), Join("A", "p2"), Join("B", "p1"), Join("B", "p3"))
    everything = nights.at_ehr

    nights.sync(a)
    of_b = nights.sync(b)
    nights.happens(Leave("A", "p1"))
    left = nights.sync(a, since="none")
    assert any("1 no longer in this selection, but still at the EHR" in note for note in left.notes)
    quiet, quieter = nights.sync(b), nights.sync(b)
    assert quiet.known == quieter.known == of_b.known
    nights.happens(Join("A", "p1"))
    back = nights.sync(a)
    assert any("1 patient joined the Group since the last full export" in note for note in back.notes)

    for night in (of_b, left, quiet, quieter, back):
        assert (night.status, night.holes) == ("complete", set())
        assert (night.live, night.dead, night.evidence) == (everything, set(), {})
    nights.end()


def test_n10_a_row_of_another_servers_patient_is_not_in_our_patients_chart_and_survives_a_pull(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask(mode="auto"), levels=("system",), incremental=False))
    foreign = observation("foreign1", "https://other-hospital.example/fhir/Patient/p1")
    nights.put(patient("p1"), observation("o1", "p1"), foreign)
    everything = {"Patient/p1", "Observation/o1", "Observation/foreign1"}

    exported = nights.sync()
    assert nights.chart("p1") == {"Patient/p1", "Observation/o1"}
    pulled = nights.sync(Ask("pull:p1"))
    assert pulled.counts == (0, 0, 2, 0)
    again = nights.sync()

    for night in (exported, pulled, again):
        assert (night.status, night.holes) == ("complete", set())
        assert (night.live, night.dead, night.evidence) == (everything, set(), {})
    nights.end()
    assert nights.chart("p1") == {"Patient/p1", "Observation/o1"}


def test_n34_a_new_export_level_does_not_delete_rows_without_a_patient(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask(mode="auto"), levels=("system",), incremental=False))
    nights.happens(P1, O1, *NOBODYS)
    everything = nights.at_ehr

    by_system = nights.sync()
    nights.happens(Levels(("system", "patient")))
    by_patient, once_more = nights.sync(), nights.sync()

    for night in (by_system, by_patient, once_more):
        assert (night.status, night.holes) == ("complete", set())
        assert (night.live, night.dead, night.evidence) == (everything, set(), {})
    for night in (by_patient, once_more):  # two full runs by the new level
        assert any(UNWITNESSED in note for note in night.notes)
    nights.end()


def test_n35_a_device_fetched_by_reference_is_deleted_by_two_reads_and_not_for_lack_of_mention(
    stage: Stage,
) -> None:
    nights = stage.nights(Site(home=Ask(mode="crawl"), follow=True, incremental=False))
    nights.put(patient("p1"), observation("o1", "p1", device={"reference": "Device/d1"}))
    nights.happens(Add(DEVICE, "d1", None, age_d=300), Add(DEVICE, "d2", None, age_d=300))
    nights.put(observation("o2", "p1", device={"reference": "Device/d2"}))
    chart = {"Patient/p1", "Observation/o1", "Observation/o2"}

    first = nights.sync()
    assert (first.status, first.live) == ("complete", chart | {"Device/d1", "Device/d2"})
    nights.put(observation("o2", "p1", version=2))
    unmentioned = nights.sync()
    assert (unmentioned.status, unmentioned.live, unmentioned.dead) == ("complete", first.live, set())
    nights.happens(Drop(DEVICE, "d1"))
    once = nights.sync()
    assert (once.status, once.holes, once.evidence) == ("partial", {"Device not-found"}, {"Device/d1": "not-found"})
    assert (once.live, once.dead) == (first.live, set())
    twice = nights.sync()

    assert (twice.status, twice.holes, twice.evidence) == ("complete", set(), {})
    assert (twice.live, twice.dead) == (chart | {"Device/d2"}, {"Device/d1"})
    assert nights.end().live == chart | {"Device/d2"}


def test_n38_two_connections_with_the_same_ids_keep_their_rows_side_by_side(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask(mode="bulk", types=CHART), levels=("system",), incremental=False))
    nights.happens(P1, O1, O2)
    before, after = {"Patient/p1", "Observation/o1", "Observation/o2"}, {"Patient/p1", "Observation/o1"}

    one, two = nights.sync(connection="one"), nights.sync(connection="two")
    assert (one.counts, two.counts) == ((3, 0, 0, 0), (3, 0, 0, 0))
    assert any("has one at the same base_url" in note for note in two.notes)
    nights.happens(Drop(OBSERVATION, "o2"), Change(OBSERVATION, "o1"))
    of_one = nights.sync(connection="one")
    assert (of_one.status, of_one.counts) == ("complete", (0, 1, 1, 1))
    assert (nights.live_of("one"), nights.live_of("two")) == (after, before)
    of_two = nights.sync(connection="two")

    assert (of_two.status, of_two.counts, of_two.evidence) == ("complete", (0, 1, 1, 1), {})
    assert (nights.live_of("one"), nights.live_of("two")) == (after, after)


@pytest.mark.parametrize("who", ["group:A", "cohort:p1"])
def test_a_row_of_a_patient_no_longer_exported_is_deleted_without_exported_patients(stage: Stage, who: str) -> None:
    nights = stage.nights(Site(home=Ask(who, "bulk", (OBSERVATION,)), levels=("group", "patient")))
    nights.happens(P1, P2, O1, Q1, Add(OBSERVATION, "q2", "p2", age_d=300), Join("A", "p1"), Join("A", "p2"))
    nights.sync()
    if who != "group:A":  # whom a merge names, until it is undone
        nights.happens(Merge("p1", "p2", "redirect"))
        for _ in (2, 3):
            nights.sync(since="none")
        nights.happens(Unmerge("p1"))
        nights.sync(since="none")
    assert "Observation/q1" in nights.sync().live
    nights.happens(Leave("A", "p2"))
    left = nights.sync(since="none")
    assert (left.status, left.evidence) == ("complete", {})
    nights.happens(Drop(OBSERVATION, "q1"))
    once, twice = nights.sync(since="none"), nights.sync(since="none")
    assert (once.status, once.evidence, "Observation/q1" in once.live) == (
        "partial",
        {"Observation/q1": "not-found"},
        True,
    )
    assert (twice.status, twice.dead, set(twice.known)) == ("complete", {"Observation/q1"}, {OBSERVATION})


@pytest.mark.parametrize(
    ("who", "nights_shown"), [("group:A", 0), ("cohort:p1,p2", 0), ("cohort:p1,p2", 1), ("unread", 1)]
)
@pytest.mark.parametrize("further", [(), (O2,)])
def test_a_deleted_row_is_deleted_even_if_an_export_withholds_its_patient(
    stage: Stage, who: str, nights_shown: int, further: tuple[Add, ...]
) -> None:
    home = Ask("group:A" if who == "unread" else who, "bulk", CHART)
    nights = stage.nights(Site(home=home, levels=("group", "patient"), readable_groups=who != "unread"))
    nights.happens(P1, P2, O1, Q1, *further, Join("A", "p1"), Join("A", "p2"))
    for _ in range(nights_shown):
        nights.sync()
    nights.happens(Withhold(PATIENT, "p1"))
    nights.sync(since="none")
    nights.happens(Drop(OBSERVATION, "o1"))
    assert nights.sync(since="none").dead == {"Observation/o1"}
