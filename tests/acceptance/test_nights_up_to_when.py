"""Histories of several nights: what is settled is not thereby known. The number is that of ../shared/nights."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.histories.nights import observation
from tests.histories.stage import Stage
from tests.histories.steps import CONDITION, OBSERVATION, PATIENT, Add, Ask, Incomplete, Join, Refuse, Site

CHART = (PATIENT, OBSERVATION)
ALL = (PATIENT, OBSERVATION, CONDITION)
P1 = Add(PATIENT, "p1", "p1", age_d=300)
O1 = Add(OBSERVATION, "o1", "p1", age_d=300)
NEW = Add(OBSERVATION, "o1", "p1")
SOON = timedelta(seconds=2)


def test_n5_a_type_not_served_on_the_first_night_is_unknown_and_arrives_once_served(
    stage: Stage,
) -> None:
    nights = stage.nights(Site(home=Ask(mode="crawl")))
    nights.happens(P1, O1, Add(CONDITION, "c1", "p1", age_d=300))

    refused = nights.sync(faults=(Refuse(CONDITION, 404),))
    assert (refused.status, refused.holes) == ("complete", set())
    assert "Condition: not served here: HTTP 404 (1 x)" in refused.notes
    assert refused.live == {"Patient/p1", "Observation/o1"}
    assert refused.known.keys() == {"Patient", "Observation"}
    served, again = nights.sync(), nights.sync()

    for night in (served, again):
        assert (night.status, night.holes, night.evidence) == ("complete", set(), {})
        assert (night.live, night.dead, night.behind) == (nights.at_ehr, set(), set())
        assert night.known.keys() == {"Patient", "Observation", "Condition"}
    nights.end()


def test_n17_an_empty_type_has_no_watermark_so_a_clock_two_hours_behind_hides_nothing(
    stage: Stage,
) -> None:
    site = Site(home=Ask("cohort:p1", "crawl", ALL), skew_s=-7200, date_skewed=False)
    nights = stage.nights(site)
    nights.happens(P1, NEW)

    empty = nights.sync()
    assert (empty.status, empty.live) == ("complete", nights.at_ehr)
    assert empty.known.keys() == {"Patient", "Observation"}
    nights.happens(Add(CONDITION, "c1", "p1"), Add(OBSERVATION, "o2", "p1"))
    second, third = nights.sync(later=SOON), nights.sync(later=SOON)

    for night in (second, third):
        assert (night.status, night.holes) == ("complete", set())
        assert (night.live, night.dead) == (nights.at_ehr, set())
    assert second.known.keys() == {"Patient", "Observation", "Condition"}
    assert max(second.known["Condition"], second.known["Observation"]) < nights.instant
    nights.end()


def test_n31_a_type_not_served_for_three_patients_only_is_a_hole_of_these_three(
    stage: Stage,
) -> None:
    patients = [f"p{number:02}" for number in range(30)]
    three = tuple(patients[:3])
    nights = stage.nights(Site(home=Ask(mode="crawl")))
    nights.happens(*(Add(PATIENT, one, one, age_d=300) for one in patients))
    nights.happens(*(Add(CONDITION, f"c{one}", one, age_d=300) for one in patients), Add(CONDITION, "late", "p29"))

    first = nights.sync(faults=(Refuse(CONDITION, 404, three),))
    assert (first.status, first.holes) == ("partial", {"Condition search not-served"})
    assert first.live == nights.at_ehr - {f"Condition/c{one}" for one in three}
    assert first.behind == {f"Condition {one}" for one in three}
    second, third = nights.sync(), nights.sync()

    assert second.counts[0] == 3
    for night in (second, third):
        assert (night.status, night.holes, night.evidence) == ("complete", set(), {})
        assert (night.live, night.dead, night.behind) == (nights.at_ehr, set(), set())
    nights.end()


def test_n36_a_killed_and_resumed_first_crawl_still_holds_back_the_watermark(
    stage: Stage,
) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl", ALL)))
    nights.happens(P1, NEW, Add(CONDITION, "c1", "p1"))
    newest, between = nights.instant, "2020-06-01T08:00:00Z"

    killed = nights.sync(dies_at=CONDITION)
    assert (killed.status, killed.live, killed.known) == (
        "killed",
        {"Patient/p1", "Observation/o1"},
        {},
    )
    first = nights.sync(later=SOON)
    assert (first.status, first.live) == ("complete", nights.at_ehr)
    assert max(first.known["Observation"], first.known["Condition"]) < newest
    nights.put(observation("late", "p1", at=between))  # written before that night, and indexed after it
    assert newest < between
    second, third = nights.sync(), nights.sync()

    for night in (second, third):
        assert (night.status, night.holes, night.evidence) == ("complete", set(), {})
        assert (night.live, night.dead) == (nights.at_ehr, set())
    nights.end()


def test_n43_withheld_rows_are_a_note_and_leave_the_type_unknown_until_access_is_granted(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl", CHART)))
    nights.happens(P1, O1)

    hidden = nights.sync(faults=(Incomplete(OBSERVATION),))
    assert (hidden.status, hidden.holes, hidden.live) == ("complete", set(), {"Patient/p1"})
    assert any(note.startswith("Observation: the server says that more may exist") for note in hidden.notes)
    assert (hidden.known.keys(), hidden.behind) == ({"Patient"}, {"Observation p1"})
    granted, again = nights.sync(), nights.sync()

    for night in (granted, again):
        assert (night.status, night.holes, night.evidence) == ("complete", set(), {})
        assert (night.live, night.behind) == (nights.at_ehr, set())
        assert night.known.keys() == {"Patient", "Observation"}
    nights.end()


def test_n70_an_unchanged_patient_is_no_hole_of_an_incremental_export(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "bulk", CHART), levels=("patient",)))
    nights.happens(P1, Add(PATIENT, "p2", "p2", age_d=300), O1, Add(OBSERVATION, "q1", "p2", age_d=300))

    first = nights.sync()
    nights.happens(Add(OBSERVATION, "o2", "p1"))
    second = nights.sync()
    assert second.counts == (1, 0, 0, 0)
    third = nights.sync()

    for night in (first, second, third):
        assert (night.status, night.holes, night.behind, night.evidence) == ("complete", set(), set(), {})
    assert second.live == third.live == nights.at_ehr
    # an export's answer about all that was asked moves what is known
    assert first.known["Patient"] < second.known["Patient"] < third.known["Patient"]
    assert first.known["Observation"] < second.known["Observation"] <= third.known["Observation"]
    nights.end()


@pytest.mark.parametrize(("who", "mode"), [("cohort:p2", "crawl"), ("all", "bulk"), ("group:A", "bulk")])
@pytest.mark.parametrize("types", [CHART, ()])
def test_shared_rows_lost_with_an_erased_patient_return_the_next_night(
    stage: Stage, who: str, mode: str, types: tuple[str, ...]
) -> None:
    home = Ask(who, mode, types)
    nights = stage.nights(Site(home=home, levels=("group", "system"), reconcile_every_d=60))
    p2, old, new = (
        Add(PATIENT, "p2", "p2", age_d=300),
        Add(OBSERVATION, "o2", "p2", age_d=300),
        Add(OBSERVATION, "o3", "p2"),
    )
    nights.happens(P1, O1, p2, old, new, Join("A", "p2"))
    nights.put(observation("both", "p2", performer=[{"reference": "Patient/p1"}]))
    nights.sync()
    stage.erase("p1")
    assert "Observation/both" not in nights.chart("p2")
    night = nights.sync()
    assert (night.status, "Observation/both" in night.live) == ("complete", True)
    nights.happens(Add(OBSERVATION, "o4", "p2"))
    assert nights.sync().counts[0] == 1
