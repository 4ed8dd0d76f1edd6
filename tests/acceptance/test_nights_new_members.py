"""Histories of patients who are new, gone for a while or withheld: being covered is not being known in every type."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.acceptance.odd_ehr import CHART, OddServer, obs, odd, pats, unjudged
from tests.histories.answers import Answer, _outcome
from tests.histories.nights import Nights
from tests.histories.stage import Stage
from tests.histories.steps import (
    CONDITION,
    OBSERVATION,
    PATIENT,
    Ask,
    Change,
    Drop,
    Join,
    Leave,
    Permit,
    Refuse,
    Site,
    Withhold,
)

GROUP = Ask("group:A", "bulk", CHART)


def no_observations(_server: OddServer, path: list[str], _query: Mapping[str, list[str]]) -> Answer | None:
    return _outcome(404) if path[0] == "file" and path[2] == OBSERVATION else None


def group_of_two(stage: Stage, home: Ask = GROUP) -> Nights:
    """Patients p1 and p2 with an old Observation each; only p1 is in the Group, which has been listed in full."""
    nights = stage.nights(Site(home=home, levels=("group", "patient"), reconcile_every_d=60))
    odd(nights)
    nights.happens(*pats("p1", "p2"), obs("o1", "p1", 0), obs("old", "p2"), Join("A", "p1"))
    return nights


def whole(nights: Nights, ask: Ask | None = None) -> bool:
    night = unjudged(nights, ask)
    return night.status == "complete" and nights.at_ehr <= night.live


@pytest.mark.parametrize("how", ["the server says so", "its file is gone"])
def test_a_member_who_joins_while_a_type_fails_gets_that_type_from_the_next_export(stage: Stage, how: str) -> None:
    nights = group_of_two(stage)
    unjudged(nights)
    nights.happens(Join("A", "p2"))
    if how == "its file is gone":
        nights._server.hook = no_observations  # type: ignore[attr-defined]
    faults = (Refuse(OBSERVATION, 501),) if how == "the server says so" else ()
    assert unjudged(nights, faults=faults).status == "partial"
    nights._server.hook = None  # type: ignore[attr-defined]
    assert whole(nights)


def test_a_member_absent_on_an_incremental_night_is_listed_in_full_when_back(stage: Stage) -> None:
    nights = group_of_two(stage)
    nights.happens(Join("A", "p2"))
    unjudged(nights)
    nights.happens(Leave("A", "p2"), obs("o2", "p1", 0), obs("meanwhile", "p2", 0))
    for number in range(2):
        nights.happens(obs(f"n{number}", "p1", 0))
        assert "Observation/meanwhile" not in unjudged(nights).live
    assert "exported in full" not in "".join(unjudged(nights).notes), "who is out keeps nobody from asking for news"
    nights.happens(Join("A", "p2"))
    assert whole(nights)


@pytest.mark.parametrize("mode", ["crawl", "bulk"])
def test_a_member_who_joins_on_a_night_of_other_types_gets_the_usual_ones_the_next_night(
    stage: Stage, mode: str
) -> None:
    nights = group_of_two(stage, Ask("group:A", mode, CHART))
    unjudged(nights)
    nights.happens(obs("o2", "p1", 0))
    unjudged(nights)
    nights.happens(Join("A", "p2"))
    unjudged(nights, Ask("group:A", mode, (PATIENT, CONDITION)))
    assert whole(nights)


def test_a_patient_new_in_the_store_is_exported_in_full_where_the_store_is_the_cohort(stage: Stage) -> None:
    nights = group_of_two(stage, Ask("store", "bulk", CHART))
    unjudged(nights, Ask("pull:p1", "crawl", CHART))
    unjudged(nights)
    unjudged(nights, Ask("pull:p2", "crawl", (PATIENT,)))
    assert whole(nights)


@pytest.mark.parametrize("who", ["group:A", "all"])
def test_rows_a_patient_gained_while_withheld_arrive_once_permitted(stage: Stage, who: str) -> None:
    nights = group_of_two(stage, Ask(who, "bulk", CHART))
    nights.happens(Join("A", "p2"))
    unjudged(nights)
    secret = [("Patient", "p1"), (OBSERVATION, "o1"), (OBSERVATION, "gained")]
    change: Callable[[type[Withhold | Permit]], None] = lambda to: nights.happens(*(to(*key) for key in secret))  # noqa: E731
    nights.happens(obs("gained", "p1", 0))
    change(Withhold)
    unjudged(nights, since="none")
    nights.happens(obs("o3", "p2", 0))
    news = unjudged(nights)
    assert (news.status, "Observation/o3" in news.live, news.counts[0]) == ("complete", True, 1)
    change(Permit)
    assert whole(nights)


def test_a_member_absent_while_rows_were_withheld_is_listed_in_full_when_back(stage: Stage) -> None:
    nights = group_of_two(stage, Ask("group:A", "bulk", (OBSERVATION,)))
    nights.happens(Join("A", "p2"), obs("secret", "p2", 0))
    unjudged(nights)
    nights.happens(Withhold(OBSERVATION, "secret"))
    unjudged(nights, since="none")
    nights.happens(Leave("A", "p2"), obs("meanwhile", "p2", 0), obs("n1", "p1", 0))
    unjudged(nights)
    nights.happens(obs("n2", "p1", 0))
    assert unjudged(nights).counts[0] == 1
    nights.happens(Join("A", "p2"))
    night = unjudged(nights)
    assert (night.status, "Observation/meanwhile" in night.live) == ("complete", True)


@pytest.mark.parametrize("lasts", [False, True])
def test_a_new_member_unknown_to_the_ehr_is_reported_and_exported_in_full_once_known(stage: Stage, lasts: bool) -> None:
    nights = group_of_two(stage)
    nights.sync()
    nights.happens(Join("A", "p3"), obs("early", "p3", 100), obs("n1", "p1", 0))
    assert (night := nights.sync()).status == "complete"
    assert "does not have, or has merged: 1;" in " ".join(night.notes)
    if lasts:
        nights.happens(obs("n2", "p1", 0))
        assert nights.sync().counts[0] == 1, "nobody else is exported in full for his sake"
        assert "Observation/early" in nights.sync(since="none").live
    else:
        nights.happens(*pats("p3"))
        assert "Observation/early" in nights.sync().live


def test_what_an_export_of_some_elements_read_whole_by_id_is_replaced_by_no_part_when_the_member_is_back(
    stage: Stage,
) -> None:
    nights = group_of_two(stage, GROUP._replace(narrowed="elements"))
    nights.happens(Join("A", "p2"))
    nights.sync()
    nights.happens(Leave("A", "p2"))
    nights.sync()
    whole_row = nights.body("Observation/old")
    assert whole_row["code"], "who left is read by id, and so is the chart"
    nights.happens(Join("A", "p2"))
    nights.sync()
    assert nights.body("Observation/old") == whole_row


def test_what_an_export_of_some_elements_read_as_a_control_is_replaced_by_no_part(stage: Stage) -> None:
    parts = Ask("all", "bulk", CHART, narrowed="elements")
    nights = stage.nights(Site(home=parts, levels=("patient",), reconcile_every_d=1))
    nights.happens(*pats("p1"), obs("o1", "p1"), obs("o2", "p1"))
    nights.sync(parts._replace(narrowed=""))
    nights.happens(Change(PATIENT, "p1"), Drop(OBSERVATION, "o1"))
    for _ in range(4):
        nights.sync()
        assert "name" in nights.body("Patient/p1")


def test_a_chart_is_read_in_rotation_after_its_patient_left_although_the_server_sends_every_patient(
    stage: Stage,
) -> None:
    everybody = Ask("cohort:p1,p2,p3", "crawl", CHART)
    nights = stage.nights(Site(home=everybody, dated=False, batches=False))  # it ignores `_id`
    nights.happens(*pats("p1", "p2", "p3"), obs("o1", "p1"), obs("o2", "p2"))
    nights.sync()
    nights.happens(Change(OBSERVATION, "o1"))
    night = nights.sync(everybody._replace(who="cohort:p2,p3"))
    assert "no listing of this connection can show 1 Observation" in " ".join(night.notes)
    assert nights.body("Observation/o1")["code"] == {"text": "o1 v2"}
