"""Histories in which an export leaves a type out: a search tells a type without rows from one that is not exported."""

from __future__ import annotations

import pytest

from tests.acceptance.odd_ehr import CHART, obs, odd, pats, unjudged, whole, without
from tests.histories.answers import Answer, _bundle, _issue, _outcome
from tests.histories.stage import Stage
from tests.histories.steps import CONDITION, Add, Ask, Join, Site


def test_a_requested_type_without_a_file_is_a_hole_while_a_search_finds_it_in_an_exported_chart(stage: Stage) -> None:
    asked = (*CHART, CONDITION)
    nights = stage.nights(Site(home=Ask("all", "bulk", asked), levels=("patient",), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats("p1"), obs("o1", "p1"), Add(CONDITION, "c1", "p1", age_d=300))
    server.exported_as = without(CONDITION)
    for night in (unjudged(nights), unjudged(nights)):
        assert (night.status, night.holes) == ("partial", {f"{CONDITION} no-file failed"})
        assert CONDITION not in night.known
    server.exported_as = staticmethod(lambda job: job)
    assert whole(nights)


def test_a_requested_type_without_a_file_is_empty_if_a_search_finds_only_the_charts_of_others(stage: Stage) -> None:
    asked = (*CHART, CONDITION)
    site = Site(home=Ask("group:A", "bulk", asked), levels=("group",), reconcile_every_d=60)
    nights = stage.nights(site)
    odd(nights)
    nights.happens(*pats("p1", "p2"), Join("A", "p1"), obs("o1", "p1"), Add(CONDITION, "c2", "p2", age_d=300))
    night = unjudged(nights)
    assert (night.status, night.holes) == ("complete", set())
    assert CONDITION in night.known


def test_a_requested_type_whose_first_rows_are_news_makes_the_next_export_full(stage: Stage) -> None:
    asked = (*CHART, CONDITION)
    nights = stage.nights(Site(home=Ask("all", "bulk", asked), levels=("patient",), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats("p1"), obs("o1", "p1"), Add(CONDITION, "old", "p1", age_d=300))
    refused = _outcome(403, "forbidden")
    server.hook = lambda server, path, query: refused if path == [CONDITION] else None
    server.exported_as = without(CONDITION)
    assert unjudged(nights).status == "complete"
    server.exported_as = staticmethod(lambda job: job)
    nights.happens(Add(CONDITION, "new", "p1"))
    assert any(note.startswith("Condition: listed for the first time") for note in unjudged(nights).notes)
    assert whole(nights)


NO_BUNDLE = Answer(200, [])
INCOMPLETE = {"resource": _issue("warning", "incomplete"), "search": {"mode": "outcome"}}
MORE_MAY_EXIST = Answer(200, _bundle([], None, None, [INCOMPLETE]))


@pytest.mark.parametrize(
    "answer", [_outcome(503, "transient"), NO_BUNDLE, MORE_MAY_EXIST], ids=["503", "no Bundle", "more may exist"]
)
def test_a_requested_type_without_a_file_is_unknown_if_the_search_for_it_is_not_answered(
    stage: Stage, answer: Answer
) -> None:
    nights = stage.nights(Site(home=Ask("all", "bulk", (*CHART, CONDITION)), levels=("patient",), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats("p1"), obs("o1", "p1"), Add(CONDITION, "c1", "p1", age_d=300))
    server.exported_as = without(CONDITION)
    server.hook = lambda server, path, query: answer if path == [CONDITION] else None
    night = unjudged(nights)
    assert CONDITION not in night.known
    assert any("did not answer a search" in note for note in night.notes)
    server.exported_as, server.hook = staticmethod(lambda job: job), None
    assert whole(nights)
