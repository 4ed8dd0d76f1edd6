"""Histories in which the EHR no longer reads a type that it still declares: its 404s and 410s say nothing of any row."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.acceptance.odd_ehr import CHART, Hook, obs, odd, pats, unjudged
from tests.histories.answers import Answer, Server, _outcome
from tests.histories.nights import Nights
from tests.histories.stage import Stage
from tests.histories.steps import (
    CONDITION,
    DEVICE,
    OBSERVATION,
    ORGANIZATION,
    PATIENT,
    Add,
    Ask,
    Drop,
    Join,
    Leave,
    Sick,
    Site,
)


def withdrawn(kind: str, status: int) -> Hook:
    """Reads of the type are answered so, whatever is there; searches and exports go on."""

    def hook(server: Server, path: list[str], query: Mapping[str, list[str]]) -> Answer | None:
        return _outcome(status) if path[0] == kind and len(path) == 2 and path[1] != "_search" else None

    return hook


def all_stay_live(nights: Nights, kind: str, rows: int) -> None:
    """Four nights without reads of the type delete nothing, and name its rows."""
    for _ in range(4):
        night = unjudged(nights, since="none")
        assert nights.at_ehr <= night.live
    assert any(f"no listing of this connection can show {rows} {kind}" in note for note in night.notes)


@pytest.mark.parametrize("status", [404, 410, 403])
def test_rows_known_by_reference_alone_stay_live_if_their_type_is_no_longer_read(stage: Stage, status: int) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl"), follow=True))
    nights.happens(*pats("p1"), Add(DEVICE, "d1"), Add(DEVICE, "d2"), obs("kept", "p1"))
    nights.happens(*(Add(OBSERVATION, f"of-{one}", "p1", device=one) for one in ("d1", "d2")))
    unjudged(nights)
    nights.happens(Drop(OBSERVATION, "of-*"))
    odd(nights).hook = withdrawn(DEVICE, status)
    all_stay_live(nights, DEVICE, 2)


@pytest.mark.parametrize("status", [404, 410, 403])
def test_the_chart_of_a_patient_who_left_stays_live_if_its_types_are_no_longer_read(stage: Stage, status: int) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "bulk", (*CHART, CONDITION)), levels=("group",)))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), Add(CONDITION, "c2", "p2"), Join("A", "p1"), Join("A", "p2"))
    unjudged(nights)
    nights.happens(Leave("A", "p2"))
    odd(nights).hook = withdrawn(CONDITION, status)
    all_stay_live(nights, CONDITION, 1)


@pytest.mark.parametrize("status", [404, 410, 403])
@pytest.mark.parametrize("mode", ["crawl", "bulk"])
def test_a_patient_who_left_stays_live_if_patients_are_no_longer_read(stage: Stage, mode: str, status: int) -> None:
    nights = stage.nights(Site(home=Ask("group:A", mode, CHART), levels=("group",)))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), Join("A", "p1"), Join("A", "p2"))
    unjudged(nights)
    nights.happens(Leave("A", "p2"))
    odd(nights).hook = withdrawn(PATIENT, status)
    for _ in range(4):
        night = unjudged(nights, since="none")
        assert nights.at_ehr <= night.live


@pytest.mark.parametrize("status", [404, 410])
def test_a_patient_missing_from_a_batch_stays_live_if_patients_are_no_longer_read(stage: Stage, status: int) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "crawl", CHART)))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"))
    unjudged(nights)
    odd(nights).hook = withdrawn(PATIENT, status)
    for _ in range(4):
        night = unjudged(nights, since="none", faults=(Sick(("Patient/p2",)),))
        assert nights.at_ehr <= night.live


@pytest.mark.parametrize("who", ["cohort:p1", "cohort:p1,p2"])
@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("reads", [True, False])
def test_an_ehr_that_answers_not_found_to_everything_is_not_green_and_deletes_no_named_patients_chart(
    stage: Stage, who: str, status: int, *, reads: bool
) -> None:
    nights = stage.nights(Site(home=Ask(who, "bulk", CHART), levels=("patient",), reads=reads, batches=False))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2"))
    first = unjudged(nights)
    server = odd(nights)
    server.hook = lambda server, path, query: _outcome(status) if path[0] != "metadata" else None
    for _ in range(4):
        night = unjudged(nights, since="none")
        assert (night.status, night.live) == ("partial", first.live)
    server.hook = None
    night = unjudged(nights, since="none")
    assert (night.status, night.live, night.evidence) == ("complete", first.live, {})


def test_one_row_of_a_type_that_can_be_read_is_the_control_of_the_others(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl"), follow=True))
    nights.happens(*pats("p1"), *(Add(DEVICE, one) for one in ("d1", "d2")), obs("kept", "p1"))
    nights.happens(*(Add(OBSERVATION, f"of-{one}", "p1", device=one) for one in ("d1", "d2")))
    unjudged(nights)
    nights.happens(Drop(OBSERVATION, "of-*"), Drop(DEVICE, "d1"))
    first, second = nights.sync(since="none"), nights.sync(since="none")
    assert (first.dead - second.dead, first.evidence) == (set(), {"Device/d1": "not-found"})
    assert (second.dead & {"Device/d1", "Device/d2"}, second.evidence) == ({"Device/d1"}, {})


def test_the_last_row_of_a_type_stays_live_and_named_after_it_was_deleted(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl"), follow=True))
    nights.happens(*pats("p1"), Add(DEVICE, "d1"), Add(OBSERVATION, "of-d1", "p1", device="d1"), obs("o", "p1"))
    nights.happens(Add(ORGANIZATION, "g1"))
    nights.sync()
    nights.happens(Drop(OBSERVATION, "of-d1"), Drop(DEVICE, "d1"))
    for _ in range(3):
        night = nights.sync(since="none")
        assert (night.status, night.live - nights.at_ehr, night.evidence) == ("complete", {"Device/d1"}, {})
    assert any("no listing of this connection can show 1 Device" in note for note in night.notes)


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("who", ["group:A", "unread", "cohort:p1,p2"])
def test_the_chart_of_a_patient_who_left_stays_live_if_nothing_can_be_read(stage: Stage, who: str, status: int) -> None:
    mode = "crawl" if who.startswith("cohort") else "bulk"
    home = Ask("group:A" if who == "unread" else who, mode, CHART)
    nights = stage.nights(Site(home=home, levels=("group",), reads=False, readable_groups=who != "unread"))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2"), Join("A", "p1"), Join("A", "p2"))
    unjudged(nights)
    nights.happens(Leave("A", "p2"))
    odd(nights).hook = withdrawn(PATIENT, status)
    left = Ask("cohort:p1", mode, CHART) if mode == "crawl" else home
    for _ in range(4):
        night = unjudged(nights, left, since="none")
        assert nights.at_ehr <= night.live
    assert any("no listing of this connection can show 1 Observation" in note for note in night.notes)


@pytest.mark.parametrize("status", [404, 410])
def test_a_new_member_is_exported_in_full_if_patients_are_no_longer_read(stage: Stage, status: int) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "bulk", CHART), levels=("group",), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1", 0), obs("old", "p2"), Join("A", "p1"))
    unjudged(nights)
    nights.happens(Join("A", "p2"))
    odd(nights).hook = withdrawn(PATIENT, status)
    night = unjudged(nights)
    assert (night.status, nights.at_ehr - night.live) == ("complete", set())
