"""Ordinary EHRs, on which nothing is wrong: after the first night each export is one of news, and its report is quiet."""

from __future__ import annotations

import pytest

from tests.acceptance.odd_ehr import CHART, obs, odd, pats, unjudged
from tests.histories.answers import Job, _outcome
from tests.histories.nights import Nights
from tests.histories.stage import Stage
from tests.histories.steps import (
    CONDITION,
    OBSERVATION,
    PATIENT,
    Add,
    Ask,
    Drop,
    Join,
    Leave,
    Merge,
    Permit,
    Restore,
    Sick,
    Site,
    Unmerge,
    Withhold,
)

OBSERVATIONS = (OBSERVATION,)
TWO = (*pats("p1", "p2"), obs("o1", "p1"), Join("A", "p1"), Join("A", "p2"))


def an_ehr(stage: Stage, who: str, types: tuple[str, ...] = CHART) -> Nights:
    nights = stage.nights(Site(home=Ask(who, "bulk", types), levels=("group", "patient"), reconcile_every_d=60))
    odd(nights)
    return nights


NOT_THERE = "new members of the Group whom the server does not have, or has merged: 1;"


def bring_news_alone(nights: Nights, *starts: str) -> None:
    """Play three nights that each bring one new row and nothing else; their notes begin with `starts`."""
    for number in range(3):
        nights.happens(obs(f"news{number}", "p1", 0))
        night = unjudged(nights)
        assert (night.status, night.counts) == ("complete", (1, 0, 0, 0))
        assert len(night.notes) == len(starts)
        assert all(note.startswith(start) for note, start in zip(night.notes, starts, strict=True))


@pytest.mark.parametrize("who", ["group:A", "cohort:p1,p2"])
def test_a_patient_without_rows_forces_no_nightly_full_export_without_patients(stage: Stage, who: str) -> None:
    nights = an_ehr(stage, who, OBSERVATIONS)
    nights.happens(*TWO)
    assert unjudged(nights).status == "complete"
    bring_news_alone(nights)
    nights.happens(obs("first-of-p2", "p2", 0))
    assert "Observation/first-of-p2" in unjudged(nights).live


@pytest.mark.parametrize("who", ["group:A", "cohort:p1,p2"])
def test_a_patient_never_shown_is_a_hole_each_night_and_forces_no_full_export(stage: Stage, who: str) -> None:
    nights = an_ehr(stage, who)
    secret = ((PATIENT, "p2"), (OBSERVATION, "old"))
    nights.happens(*TWO, obs("old", "p2"), *(Withhold(*key) for key in secret))
    unjudged(nights)
    for number in range(2):
        nights.happens(obs(f"news{number}", "p1", 0))
        night = unjudged(nights)
        assert (night.status, night.holes, night.counts) == ("partial", {"Patient cohort restricted"}, (1, 0, 0, 0))
    nights.happens(*(Permit(*key) for key in secret))
    night = unjudged(nights)
    assert (night.status, night.live) == ("complete", nights.at_ehr)


@pytest.mark.parametrize("who", ["group:A", "cohort:p1,p2"])
def test_a_deleted_and_then_withheld_patient_arrives_with_the_whole_chart_once_permitted(
    stage: Stage, who: str
) -> None:
    nights = an_ehr(stage, who)
    nights.happens(*TWO, obs("o2", "p2"))
    unjudged(nights)
    nights.happens(Drop(OBSERVATION, "o2"), Drop(PATIENT, "p2"))
    assert "Patient/p2" in unjudged(nights, since="none").dead
    secret = ((PATIENT, "p2"), (OBSERVATION, "old"))
    nights.happens(Restore(PATIENT, "p2"), obs("old", "p2"), *(Withhold(*key) for key in secret), Join("A", "p2"))
    for number in range(2):
        nights.happens(obs(f"news{number}", "p1", 0))
        assert unjudged(nights).status == "partial"
    nights.happens(*(Permit(*key) for key in secret))
    night = unjudged(nights)
    assert (night.status, night.live) == ("complete", nights.at_ehr)


def test_an_unreadable_group_forces_no_nightly_full_export_but_one_once_it_is_readable(
    stage: Stage,
) -> None:
    nights = an_ehr(stage, "group:A")
    server = odd(nights)
    server.hook = lambda server, path, query: _outcome(503, "transient") if path == ["Group", "A"] else None
    nights.happens(*TWO)
    unjudged(nights)
    for number in range(2):
        nights.happens(obs(f"news{number}", "p1", 0))
        night = unjudged(nights)
        assert (night.status, night.counts) == ("complete", (1, 0, 0, 0))
        assert any(note.startswith("the Group's members cannot be read") for note in night.notes)
    nights.happens(Leave("A", "p2"), obs("meanwhile", "p2", 0), obs("of-p1", "p1", 0))
    unjudged(nights)
    server.hook = None
    nights.happens(Join("A", "p2"))
    night = unjudged(nights)
    assert (night.status, night.live) == ("complete", nights.at_ehr)
    assert any(note.startswith("the Group's members can be read again") for note in night.notes)
    nights.happens(obs("last", "p1", 0))
    assert unjudged(nights).counts == (1, 0, 0, 0)


@pytest.mark.parametrize("others", [(), ("p3",)])
def test_an_export_whose_named_patients_are_all_gone_succeeds_and_hides_no_deleted_row(
    stage: Stage, others: tuple[str, ...]
) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "bulk", CHART), levels=("patient",), reads=True))
    server = odd(nights)
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2"))
    unjudged(nights)
    for one in others:
        nights.happens(*pats(one), obs(f"of-{one}", one))
        unjudged(nights, Ask(f"cohort:{one}", "bulk", CHART))
    nights.happens(Drop(OBSERVATION, "o1"), Drop(OBSERVATION, "o2"), Drop(PATIENT, "p1"), Drop(PATIENT, "p2"))
    server.refuses_dead = True
    night = unjudged(nights)
    if others:
        assert (night.status, night.live) == ("complete", nights.at_ehr)
    else:
        assert (night.status, night.holes) == ("partial", {"Patient doubted", "Observation doubted"})


@pytest.mark.parametrize("who", ["group:A", "cohort:p1,p2"])
def test_an_unreadable_patient_without_rows_does_not_count_as_known(stage: Stage, who: str) -> None:
    nights = an_ehr(stage, who, OBSERVATIONS)
    nights.happens(*TWO, obs("old", "p2"), Withhold(PATIENT, "p2"), Withhold(OBSERVATION, "old"))
    unjudged(nights)
    nights.happens(Permit(PATIENT, "p2"), Permit(OBSERVATION, "old"))
    assert "Observation/old" in unjudged(nights).live


def test_a_group_member_unknown_to_the_ehr_forces_no_nightly_full_export(stage: Stage) -> None:
    nights = an_ehr(stage, "group:A")
    nights.happens(*TWO, Join("A", "p9"))
    assert unjudged(nights).status == "complete"
    bring_news_alone(nights, NOT_THERE)
    nights.happens(*pats("p9"), obs("old", "p9"))
    assert {"Patient/p9", "Observation/old"} <= unjudged(nights).live


def test_a_group_member_merged_into_another_is_no_hole_and_forces_no_nightly_full_export(
    stage: Stage,
) -> None:
    nights = an_ehr(stage, "group:A")
    nights.happens(*TWO, Merge("p2", "p1", "redirect"))
    nights._ehr.groups["A"] = ["p1", "p2"]
    assert unjudged(nights).status == "complete"
    bring_news_alone(nights, NOT_THERE)
    nights.happens(Unmerge("p2"))
    assert "Patient/p2" in unjudged(nights).live


def test_empty_incremental_files_force_no_full_export(stage: Stage) -> None:
    nights = an_ehr(stage, "group:A", ())
    whole: list[bool] = []

    def emptied(job: Job) -> Job:
        whole.append(PATIENT in job.files)
        return job if whole[-1] else job._replace(files={CONDITION: [], **job.files})

    odd(nights).exported_as = emptied
    nights.happens(*TWO)
    for number in range(4):
        unjudged(nights)
        nights.happens(obs(f"news{number}", "p1", 0))
    assert whole == [True, False, False, False]
    nights.happens(Add(CONDITION, "c1", "p1"))
    assert any(note.startswith("Condition: listed for the first time") for note in unjudged(nights).notes)


def test_a_night_without_changes_casts_no_doubt_on_the_group(stage: Stage) -> None:
    nights = an_ehr(stage, "group:A")
    nights.happens(*TWO)
    unjudged(nights)
    for _ in range(2):
        night = unjudged(nights)
        assert (night.status, night.counts) == ("complete", (0, 0, 0, 0))
        assert not any("check its members" in note for note in night.notes)


def test_a_night_without_changes_casts_no_doubt_on_rows_of_a_deleted_patient(stage: Stage) -> None:
    nights = an_ehr(stage, "cohort:p1,p2")
    nights.happens(*TWO)
    unjudged(nights)
    nights.happens(Drop(PATIENT, "p2"))
    unjudged(nights, since="none")
    nights.happens(obs("late", "p2"))
    unjudged(nights, since="none")
    for _ in range(2):
        night = unjudged(nights)
        assert (night.status, night.evidence, night.live) == ("complete", {}, nights.at_ehr)


@pytest.mark.parametrize("who", ["group:A", "all"])
def test_deletions_repeated_in_every_incremental_export_force_no_full_export(stage: Stage, who: str) -> None:
    home = Ask(who, "bulk", CHART)
    nights = stage.nights(Site(home=home, levels=("group", "patient"), reconcile_every_d=60, tells_deletions=True))
    nights.happens(*TWO, *(obs(f"d{number}", "p2") for number in range(3)))
    assert unjudged(nights).status == "complete"
    for number in range(3):
        nights.happens(obs(f"news{number}", "p1", 0), Drop(OBSERVATION, f"d{number}"))
        night = unjudged(nights)
        assert (night.status, night.counts) == ("complete", (1, 0, 0, 1))
    nights.end()


@pytest.mark.parametrize("gone", [Drop(PATIENT, "p2"), Merge("p2", "p1", "redirect")], ids=["deleted", "merged"])
@pytest.mark.parametrize("who", ["group:A", "cohort:p1,p2", "all"])
def test_a_patient_missing_while_rows_of_the_chart_still_arrive_is_a_hole_for_one_night(
    stage: Stage, who: str, gone: Drop | Merge
) -> None:
    nights = an_ehr(stage, who)
    nights.happens(*TWO, obs("o2", "p2"))
    unjudged(nights)
    nights.happens(gone, obs("late", "p2"))
    first = unjudged(nights, since="none")
    assert (first.status, first.holes) == ("partial", {"Patient doubted"})
    again = unjudged(nights, since="none")
    assert (again.status, again.evidence) == ("complete", {"Patient/p2": "doubted"})
    assert any(note.startswith("Patient: 1 row not found when requested, or merged") for note in again.notes)
    quiet = unjudged(nights)
    assert (quiet.status, quiet.counts) == ("complete", (0, 0, 0, 0))
    nights.happens(Restore(PATIENT, "p2") if isinstance(gone, Drop) else Unmerge("p2"))
    back = unjudged(nights)
    assert (back.status, back.evidence, back.live) == ("complete", {}, nights.at_ehr)


def test_a_named_patient_missing_from_an_export_is_a_hole_and_has_not_left(stage: Stage) -> None:
    nights = an_ehr(stage, "cohort:p1,p2")
    nights.happens(*TWO, obs("o2", "p2"))
    unjudged(nights)
    for _ in range(2):
        night = nights.sync(since="none", faults=(Sick(("Patient/p2",)),))
        assert "Patient contradicted" in night.holes
        assert not any("no longer in this selection" in note or "no listing" in note for note in night.notes)
    assert nights.sync().status == "complete"
