"""Histories of several nights: one word is not enough. The number is that of ../shared/nights."""

from __future__ import annotations

import json

import pytest

from tests.histories.nights import observation, patient
from tests.histories.stage import Stage
from tests.histories.steps import (
    CONDITION,
    OBSERVATION,
    PATIENT,
    Add,
    AddMany,
    All410,
    Ask,
    Drop,
    Hide,
    Join,
    Lie,
    Patients410,
    Site,
    Withhold,
)

CHART = (PATIENT, OBSERVATION)
EXPORT = Site(home=Ask(mode="bulk", types=CHART), levels=("system",), incremental=False)
P1 = Add(PATIENT, "p1", "p1", age_d=300)


# a row that is still listed is a control that can be read: then only the mass speaks against belief
STILL_LISTED = pytest.mark.parametrize("still_listed", [False, True], ids=["nothing", "one-row-still"])


def _rows(prefix: str, numbers: range) -> set[str]:
    return {f"{prefix}{number}" for number in numbers}


@STILL_LISTED
def test_n7_a_group_whose_rows_all_vanish_in_one_night_is_only_doubted(stage: Stage, *, still_listed: bool) -> None:
    a, b = Ask("group:A", "bulk", CHART), Ask("group:B", "bulk", CHART)
    nights = stage.nights(Site(home=a, levels=("group",), incremental=False))
    nights.happens(Add(PATIENT, "a1", "a1", age_d=300), Add(PATIENT, "b1", "b1", age_d=300))
    nights.happens(AddMany(OBSERVATION, "a", 100, "a1"), AddMany(OBSERVATION, "b", 900, "b1"))
    nights.happens(Join("A", "a1"), Join("B", "b1"))
    if still_listed:
        nights.happens(Add(OBSERVATION, "still", "a1", age_d=300))
    everything = nights.at_ehr

    nights.sync(a)
    assert nights.sync(b).live == everything
    sick = nights.sync(a, faults=(Lie(("Observation/a*",)),))
    assert (sick.status, sick.holes) == ("partial", {"Observation doubted"})
    assert (sick.live, sick.dead) == (everything, set())
    assert sick.evidence == dict.fromkeys(_rows("Observation/a", range(100)), "doubted")
    assert sick.behind == {"Observation a1"}
    well = nights.sync(a)

    assert (well.status, well.live, well.evidence, well.behind) == ("complete", everything, {}, set())
    nights.end()


def test_n8_rows_that_vanish_on_a_later_night_are_doubted_separately_during_another_types_hole(
    stage: Stage,
) -> None:
    nights = stage.nights(EXPORT._replace(home=Ask(mode="bulk")))
    nights.happens(Add(PATIENT, "a1", "a1", age_d=300), AddMany(OBSERVATION, "a", 60, "a1"))
    nights.exports_also(Condition="{not json")
    everything = nights.at_ehr
    lasting = {"Condition file failed"}

    first = nights.sync()
    some = nights.sync(faults=(Lie(tuple(_rows("Observation/a", range(40)))),))
    assert some.holes == lasting | {"Observation doubted"}
    assert some.evidence == dict.fromkeys(_rows("Observation/a", range(40)), "doubted")
    third, fourth = nights.sync(), nights.sync()
    for night in (first, third, fourth):
        assert (night.holes, night.evidence, night.behind) == (lasting, {}, set())
    others = nights.sync(faults=(Lie(tuple(_rows("Observation/a", range(20, 60)))),))
    assert others.holes == lasting | {"Observation doubted"}
    assert others.evidence == dict.fromkeys(_rows("Observation/a", range(20, 60)), "doubted")

    for night in (first, some, third, fourth, others):
        assert (night.status, night.live, night.dead) == ("partial", everything, set())
        assert night.known.keys() == {"Patient", "Observation"}  # never Condition
    nights.exports_also()
    nights.happens(Add(CONDITION, "c1", "a1", age_d=300))
    assert nights.end().known.keys() == {"Patient", "Observation", "Condition"}


@pytest.mark.parametrize("how", ["in no index", "withheld"])
def test_rows_found_by_their_last_read_count_towards_a_mass_like_others(stage: Stage, how: str) -> None:
    nights = stage.nights(EXPORT)
    nights.happens(P1, AddMany(OBSERVATION, "a", 40, "p1"))
    everything = nights.at_ehr
    nights.sync()
    lacking = [Withhold(OBSERVATION, f"a{n}") if how == "withheld" else Hide(OBSERVATION, f"a{n}") for n in range(15)]
    nights.happens(*lacking)
    answered = nights.sync()
    state = "withheld" if how == "withheld" else "contradicted"
    assert answered.evidence == dict.fromkeys(_rows("Observation/a", range(15)), state)
    lie = nights.sync(faults=(Lie(tuple(_rows("Observation/a", range(30)))),))

    assert (lie.status, lie.holes, lie.live, lie.dead) == ("partial", {"Observation doubted"}, everything, set())
    assert lie.evidence == dict.fromkeys(_rows("Observation/a", range(30)), "doubted")


def test_n15_a_resource_with_two_contents_in_an_export_writes_nothing_on_an_unchanged_night(
    stage: Stage,
) -> None:
    nights = stage.nights(EXPORT)
    nights.put(patient("p1"), observation("o1", "p1"))
    nights.exports_also(Observation=json.dumps(observation("o1", "p1", note=[{"text": "only here"}])))

    first = nights.sync()
    assert (first.counts, first.live) == ((2, 0, 0, 0), {"Patient/p1", "Observation/o1"})
    before = nights.state()
    for _ in range(3):
        night = nights.sync()
        assert (night.status, night.counts, night.live) == ("complete", (0, 0, 2, 0), first.live)
        assert nights.state() == before
    nights.end()
    assert nights.state()["resource_history"] == []


def test_n22_two_contents_far_apart_in_an_export_write_nothing_on_an_unchanged_night(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # far apart means: not in one transaction
    monkeypatch.setattr("connectors.fhir.bulk.download._PIECE_BYTES", 2_000)
    monkeypatch.setattr("connectors.core.pipeline.BATCH_RECORDS", 1)
    nights = stage.nights(EXPORT)
    nights.put(patient("p1"), observation("a1", "p1"))
    nights.happens(AddMany(OBSERVATION, "x", 60, "p1"))
    nights.exports_also(Observation=json.dumps(observation("a1", "p1", note=[{"text": "only here"}])))

    first = nights.sync()
    assert (first.status, first.counts[0], first.live) == ("complete", 62, nights.at_ehr)
    before = nights.state()
    for _ in range(3):
        night = nights.sync()
        assert (night.status, night.counts, night.live) == ("complete", (0, 0, 62, 0), first.live)
        assert nights.state() == before
    nights.end()


def test_n32_a_row_that_slips_between_two_pages_is_read_and_kept_and_the_listing_is_incomplete(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl", CHART), page=4, totals=False))
    rows = [Add(OBSERVATION, f"o{number}", "p1", age_d=300) for number in range(7)]
    nights.happens(P1, *rows, Add(OBSERVATION, "o7", "p1"))
    before = nights.at_ehr

    first = nights.sync()
    slipped = nights.sync(since="none", during=((4, Drop(OBSERVATION, "o0")),))
    assert (slipped.status, slipped.holes) == ("partial", {"Observation contradicted"})
    assert (slipped.live, slipped.dead) == (before, set())
    assert slipped.evidence == {"Observation/o4": "contradicted"}
    assert (slipped.known["Observation"], slipped.behind) == (first.known["Observation"], {"Observation p1"})
    third = nights.sync()
    assert (third.status, third.holes, third.evidence) == ("complete", set(), {})
    assert (third.live, third.dead) == (before - {"Observation/o0"}, {"Observation/o0"})
    fourth = nights.sync()

    assert (fourth.status, fourth.live, fourth.behind) == ("complete", third.live, set())
    nights.end()


def test_n37_a_night_on_which_every_patient_is_410_deletes_nobody(stage: Stage) -> None:
    patients = [f"p{number}" for number in range(40)]
    nights = stage.nights(Site(home=Ask(f"cohort:{','.join(patients)}", "crawl", CHART)))
    nights.happens(*(Add(PATIENT, one, one, age_d=300) for one in patients))
    nights.happens(*(Add(OBSERVATION, f"o{n}", f"p{n % 40}", age_d=300 if n else 0) for n in range(120)))
    everything = nights.at_ehr
    doubted = dict.fromkeys(_rows("Patient/p", range(40)), "doubted")

    first = nights.sync()
    gone = nights.sync(faults=(Patients410(),))
    assert (gone.status, gone.holes, gone.evidence) == ("partial", {"Patient doubted"}, doubted)
    assert gone.known == first.known
    third, fourth = nights.sync(), nights.sync()
    for night in (third, fourth):
        assert (night.status, night.holes, night.evidence) == ("complete", set(), {})
    all_gone = nights.sync(faults=(All410(),))
    assert all_gone.status == "partial"
    assert all_gone.holes == {"Patient doubted", "Observation search failed"}
    assert all_gone.evidence == doubted
    assert (all_gone.known, {f"Observation {one}" for one in patients} - all_gone.behind) == (fourth.known, set())

    for night in (first, gone, third, fourth, all_gone):
        assert (night.live, night.dead) == (everything, set())
    nights.end()


@STILL_LISTED
def test_n71_an_index_that_shows_nothing_of_a_small_cohort_is_only_doubted(stage: Stage, *, still_listed: bool) -> None:
    few = ",".join(f"p{number}" for number in range(25))
    cohort = Ask(f"cohort:{few}", "crawl", CHART)
    nights = stage.nights(EXPORT)
    nights.happens(*(Add(PATIENT, f"p{n}", f"p{n}", age_d=300) for n in range(100)))
    nights.happens(*(Add(OBSERVATION, f"o{n}", f"p{n % 100}", age_d=300) for n in range(400)))
    if still_listed:
        nights.happens(Add(OBSERVATION, "still", "p0", age_d=300))
    everything = nights.at_ehr

    assert nights.sync().live == everything
    assert nights.sync(cohort).counts == (0, 0, 125 + still_listed, 0)
    sick = nights.sync(cohort, faults=(Lie(("Observation/o*",)),))
    assert (sick.status, sick.holes) == ("partial", {"Observation doubted"})
    assert (sick.live, sick.dead) == (everything, set())
    assert sick.evidence == {f"Observation/o{n}": "doubted" for n in range(400) if n % 100 < 25}
    assert sick.behind == {f"Observation p{n}" for n in range(25)}
    nights.end()
