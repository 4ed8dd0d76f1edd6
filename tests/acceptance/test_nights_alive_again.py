"""Histories of several nights: what is seen alive is alive, whatever was said before. The number is that of ../shared/nights."""

from __future__ import annotations

from typing import Any

import pytest

from tests.histories.nights import observation, patient
from tests.histories.stage import Stage
from tests.histories.steps import (
    OBSERVATION,
    PATIENT,
    Add,
    Ask,
    Drop,
    DropPatient,
    Join,
    Merge,
    NoExport,
    Restore,
    Site,
    Unmerge,
)

CHART = (PATIENT, OBSERVATION)
BOTH = Ask("cohort:p1,p2", "crawl", CHART)
P1 = Add(PATIENT, "p1", "p1", age_d=300)
P2 = Add(PATIENT, "p2", "p2", age_d=300)
O1 = Add(OBSERVATION, "o1", "p1", age_d=300)
Q1 = Add(OBSERVATION, "q1", "p2", age_d=300)
NEW = Add(OBSERVATION, "q1", "p2")  # takes the watermark past every other row's date
NOT_MERGED = ("p1", "p1", False)


def test_n9_an_unmerged_patient_returns_where_the_store_is_the_cohort(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("store", "crawl", CHART), incremental=False))
    nights.happens(P1, P2, O1, Q1)
    everything = nights.at_ehr

    by_name = nights.sync(BOTH)
    first = nights.sync()
    for night in (by_name, first):
        assert (night.status, night.live) == ("complete", everything)
    nights.happens(Merge("p1", "p2", "redirect"))
    merged = nights.sync()
    assert (merged.status, merged.holes, merged.evidence) == ("complete", set(), {})
    assert (merged.live, merged.dead) == (everything - {"Patient/p1"}, {"Patient/p1"})
    assert nights.state()["alias"] == [("p1", "p2", True)]
    assert nights.body("Observation/o1")["subject"] == {"reference": "Patient/p2"}
    nights.happens(Unmerge("p1"), Add(OBSERVATION, "o3", "p1"))
    apart = nights.sync()

    assert (apart.status, apart.holes, apart.evidence) == ("complete", set(), {})
    assert (apart.live, apart.dead) == (everything | {"Observation/o3"}, set())
    assert nights.state()["alias"] == [NOT_MERGED]
    assert nights.body("Observation/o1")["subject"] == {"reference": "Patient/p1"}
    assert nights.sync().counts == (0, 0, 5, 0)
    nights.end()


@pytest.mark.parametrize("since", ["auto", "none"])
def test_a_former_alias_that_is_a_patient_again_is_a_hole_until_the_export_names_it(stage: Stage, since: str) -> None:
    # no Patients are exported: nothing but his own read tells of him
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "bulk", (OBSERVATION,)), levels=("patient",)))
    nights.happens(P1, P2, O1, Q1)
    nights.sync()
    nights.happens(Merge("p1", "p2", "redirect"))
    nights.sync(since="none")
    assert nights.state()["alias"] == [("p1", "p2", True)]
    nights.happens(Unmerge("p1"), Add(OBSERVATION, "o3", "p1"))
    apart = nights.sync(since=since)
    assert (apart.status, apart.holes) == ("partial", {"Patient cohort failed"})
    assert nights.state()["alias"] == [NOT_MERGED]
    again = nights.sync()
    assert (again.status, again.live) == ("complete", nights.at_ehr - {"Patient/p2"})


def test_a_crawl_without_patient_rows_learns_of_merges_and_their_ends(
    stage: Stage,
) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl", (OBSERVATION,))))
    nights.happens(P1, P2, O1, Q1)
    nights.sync()
    nights.happens(Merge("p1", "p2", "redirect"))
    merged = nights.sync()
    assert (merged.status, nights.state()["alias"]) == ("complete", [("p1", "p2", True)])
    assert merged.live == {"Observation/o1", "Observation/q1"}
    nights.happens(Unmerge("p1"), Add(OBSERVATION, "o3", "p1", age_d=100))
    apart = nights.sync()
    assert (apart.status, nights.state()["alias"]) == ("complete", [NOT_MERGED])
    assert apart.live == {"Observation/o1", "Observation/o3", "Observation/q1", "Patient/p1"}


def test_a_merge_seen_by_a_failed_run_ends_when_the_patient_can_be_read_again(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "bulk"), levels=("patient",)))
    nights.happens(P1, P2)
    nights.sync()
    nights.happens(Merge("p1", "p2", "redirect"))
    assert nights.sync(faults=(NoExport(),)).status == "failed"
    nights.happens(Unmerge("p1"))
    apart = nights.sync()
    assert (apart.status, apart.holes, apart.live) == ("complete", set(), nights.at_ehr)
    assert nights.state()["alias"] == [NOT_MERGED]
    nights.end()


def test_n14_a_patient_gone_for_one_night_returns_with_the_whole_chart(stage: Stage) -> None:
    nights = stage.nights(Site(home=BOTH, gone=410))
    nights.happens(P1, P2, O1, Add(OBSERVATION, "o2", "p1", age_d=300), NEW)
    everything = nights.at_ehr

    first = nights.sync()
    nights.happens(DropPatient("p1"))
    gone = nights.sync()
    assert (gone.status, gone.holes, gone.evidence) == ("complete", set(), {})
    # the chart is not taken along: an empty index proves nothing, and p1 is asked in full from now on
    assert (gone.live, gone.dead) == (everything - {"Patient/p1"}, {"Patient/p1"})
    assert gone.known == first.known
    assert gone.behind == {"Patient p1", "Observation p1"}
    nights.happens(Restore(PATIENT, "p1", dated=False))
    back = nights.sync()

    assert (back.status, back.holes, back.evidence) == ("complete", set(), {})
    assert (back.live, back.dead) == (everything, set())
    assert "Observation p1" not in back.behind
    again = nights.sync()
    assert (again.status, again.live, again.dead) == ("complete", everything, set())
    nights.end()


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"incremental": True}, id="n30"),
        pytest.param({"incremental": False}, id="n30b"),
        pytest.param({"incremental": False, "batches": False}, id="n30c"),
    ],
)
def test_n30_a_merge_by_redirect_named_by_the_survivor_ends_when_the_former_patient_is_read_again(
    stage: Stage, settings: dict[str, Any]
) -> None:
    nights = stage.nights(Site(home=BOTH, **settings))
    nights.happens(P1, P2, O1, Add(OBSERVATION, "o3", "p1", age_d=300), NEW)
    everything = nights.at_ehr

    assert nights.sync().live == everything
    nights.happens(Drop(OBSERVATION, "o3"), Merge("p1", "p2", "redirect"))
    nights.alter(PATIENT, "p2", link=("replaces", "p1"))
    merged = nights.sync()
    assert (merged.status, merged.holes, merged.evidence) == ("complete", set(), {})
    assert (merged.live, merged.dead) == (
        {"Patient/p2", "Observation/o1", "Observation/q1"},
        {"Patient/p1", "Observation/o3"},
    )
    assert nights.state()["alias"] == [("p1", "p2", True)]
    nights.happens(Unmerge("p1", dated=False), Restore(OBSERVATION, "o3", dated=False))
    nights.alter(PATIENT, "p2", link=None)
    apart = nights.sync()

    assert (apart.status, apart.holes, apart.evidence) == ("complete", set(), {})
    assert (apart.live, apart.dead) == (everything, set())
    assert nights.body("Observation/o1")["subject"] == {"reference": "Patient/p1"}
    again = nights.sync()
    assert (again.status, again.live) == ("complete", everything)
    assert "Observation p1" not in again.behind
    assert nights.state()["alias"] == [NOT_MERGED]
    nights.end()


def test_n61_a_crawl_of_everyone_ends_a_merge_seen_by_a_pull(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask(mode="crawl", types=CHART), incremental=False))
    nights.happens(P1, P2, O1, Q1)
    everything = nights.at_ehr

    assert nights.sync().live == everything
    nights.happens(Merge("p1", "p2", "redirect"))
    pulled = nights.sync(Ask("pull:p1"))
    merged = nights.sync()
    for night in (pulled, merged):
        assert (night.status, night.holes, night.evidence) == ("complete", set(), {})
        assert (night.live, night.dead) == (everything - {"Patient/p1"}, {"Patient/p1"})
    assert nights.state()["alias"] == [("p1", "p2", True)]
    nights.happens(Unmerge("p1", dated=False), Add(OBSERVATION, "o5", "p1", age_d=300))
    apart, in_full = nights.sync(), nights.sync(since="none")

    for night in (apart, in_full):
        assert (night.status, night.holes, night.evidence) == ("complete", set(), {})
        assert (night.live, night.dead) == (everything | {"Observation/o5"}, set())
    assert nights.state()["alias"] == [NOT_MERGED]
    nights.end()


def test_n72_a_row_that_is_deleted_recreated_redated_and_moved_matches_the_ehr_each_night(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask(mode="bulk", types=CHART), levels=("system",), incremental=False))
    o1 = observation("o1", "p1")
    nights.put(patient("p1"), patient("p2"), o1, observation("o2", "p1"))
    everything = nights.at_ehr

    assert nights.sync().counts == (4, 0, 0, 0)
    nights.happens(Drop(OBSERVATION, "o1"))
    deleted = nights.sync()
    assert (deleted.status, deleted.counts) == ("complete", (0, 0, 3, 1))
    assert (deleted.live, deleted.dead) == (everything - {"Observation/o1"}, {"Observation/o1"})
    nights.put(o1)
    same_again = nights.sync()
    assert (same_again.counts, same_again.live, same_again.dead) == ((0, 1, 3, 0), everything, set())
    nights.put(observation("o1", "p1", version=9, at="2020-01-02T00:00:00Z"))
    meta_alone = nights.sync()
    assert (meta_alone.counts, meta_alone.live) == ((0, 1, 3, 0), everything)
    moved = observation("o1", "p2", version=9, at="2019-01-02T00:00:00Z")
    nights.put(moved)
    of_another = nights.sync()
    assert (of_another.counts, of_another.live) == ((0, 1, 3, 0), everything)
    assert nights.body("Observation/o1") == moved
    assert nights.chart("p2") == {"Patient/p2", "Observation/o1"}
    quiet = nights.sync()

    assert (quiet.counts, quiet.live) == ((0, 0, 4, 0), everything)
    for night in (deleted, same_again, meta_alone, of_another, quiet):
        assert (night.status, night.holes, night.evidence) == ("complete", set(), {})
    nights.end()


def test_rows_of_a_deleted_patient_who_is_still_in_the_group_are_found(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "crawl", CHART), incremental=False))
    nights.happens(P1, P2, Q1, Join("A", "p1"), Join("A", "p2"))
    nights.sync()
    nights.happens(DropPatient("p1"))
    assert nights.sync().dead == {"Patient/p1"}
    nights.happens(O1)
    assert nights.sync().live == {"Patient/p2", "Observation/q1", "Observation/o1"}
