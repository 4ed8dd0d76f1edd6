"""Histories that a second outside reviewer invented: servers that say one thing in many words, or give no answer at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest

from tests.acceptance.odd_ehr import CHART, obs, odd, pats, unjudged
from tests.histories import steps as s
from tests.histories.answers import Answer, Job, Server, _bundle, _issue, _outcome, _within
from tests.histories.nights import observation
from tests.histories.rows import fhir_instant
from tests.histories.stage import Stage
from tests.histories.steps import (
    CONDITION,
    OBSERVATION,
    Add,
    AddMany,
    Ask,
    Drop,
    DropPatient,
    Join,
    Lie,
    Merge,
    Permit,
    Sick,
    Site,
    Withhold,
)


def deleting(*urls: str) -> Callable[[Job], Job]:
    """An export whose `deleted` list names these."""
    entries = [{"request": {"method": "DELETE", "url": one}} for one in urls]
    line = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    return lambda job: job._replace(deleted=[*job.deleted, line])


# a list of deletions that is too long to be true
@pytest.mark.parametrize("heard", [True, False], ids=["a row of the patient came", "nothing of him came"])
def test_a_deleted_list_that_names_all_rows_of_a_living_patient_is_only_doubted(stage: Stage, *, heard: bool) -> None:
    home = Ask("all", "bulk", (*CHART, CONDITION))
    nights = stage.nights(Site(home=home, levels=("system", "patient"), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats("p1", "p2"), AddMany(OBSERVATION, "a", 60, "p1"), AddMany(OBSERVATION, "b", 200, "p2"))
    nights.happens(Add(CONDITION, "k", "p2", age_d=30))  # the type's first rows would make the next export a full one
    nights.sync()
    nights.happens(Add(CONDITION, "c", "p1" if heard else "p2", age_d=0))
    server.exported_as = deleting(*(f"Observation/a{n}" for n in range(60)))
    night = unjudged(nights)
    assert (night.dead, night.holes) == (set(), {"Observation doubted"})
    server.exported_as = staticmethod(lambda job: job)
    nights.end()


def test_a_deleted_list_that_names_all_rows_of_a_small_group_is_only_doubted(stage: Stage) -> None:
    # held against the connection's 500 rows it would be no mass
    ids = [f"a{n}" for n in range(10)]
    rows = [f"o{one}x{n}" for one in ids for n in range(10)]
    a, b = Ask("group:A", "bulk", CHART), Ask("group:B", "bulk", CHART)
    nights = stage.nights(Site(home=a, levels=("group",), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats(*ids, "big"), *(obs(row, row[1:].partition("x")[0]) for row in rows))
    nights.happens(AddMany(OBSERVATION, "b", 400, "big"), *(Join("A", one) for one in ids), Join("B", "big"))
    nights.sync(a)
    nights.sync(b)
    server.exported_as = deleting(*(f"Observation/{row}" for row in rows))
    night = unjudged(nights, a)
    assert (night.dead, night.holes) == (set(), {"Observation doubted"})
    server.exported_as = staticmethod(lambda job: job)
    well = unjudged(nights, a)
    assert (well.status, well.live, well.evidence) == ("complete", nights.at_ehr, {})


# more is missed than can be asked for
def test_missed_rows_are_read_even_if_many_of_another_type_are_missed(stage: Stage) -> None:
    home = Ask("cohort:p1,p2", "crawl", (*CHART, CONDITION))
    nights = stage.nights(Site(home=home, incremental=False))
    nights.happens(*pats("p1", "p2"), AddMany(CONDITION, "k", 700, "p1"), AddMany(CONDITION, "s", 500, "p1"))
    nights.happens(*(obs(f"z{n}", "p2") for n in range(12)))
    nights.sync()
    nights.happens(Drop(CONDITION, "s*"))  # which takes all reads of two nights
    for _ in (2, 3, 4):
        night = nights.sync(faults=(Sick(tuple(f"Observation/z{n}" for n in range(5))),))
        assert nights.at_ehr <= night.live
    nights.end()


def test_missed_rows_are_read_even_if_many_patients_have_left_the_cohort(stage: Stage) -> None:
    ids = [f"q{n}" for n in range(450)]
    home = Ask("cohort:p1", "crawl", CHART)
    nights = stage.nights(Site(home=home, incremental=False))
    nights.happens(*pats("p1", *ids), *(obs(f"z{n}", "p1") for n in range(12)))
    nights.sync(Ask(f"cohort:{','.join(['p1', *ids])}", "crawl", CHART))
    for _ in (2, 3, 4):
        night = nights.sync(faults=(Sick(tuple(f"Observation/z{n}" for n in range(5))),))
        assert nights.at_ehr <= night.live


# reads that give no answer
@pytest.mark.parametrize("answer", ["500", "503", "400", "a log-in page", "another row"])
def test_an_unreadable_row_is_not_deleted_by_a_second_listing(stage: Stage, answer: str) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl", CHART), incremental=False))
    server = odd(nights)
    nights.happens(*pats("p1"), *(obs(f"o{n}", "p1") for n in range(8)))
    nights.sync()

    def read(server: Server, path: list[str], query: Mapping[str, list[str]]) -> Answer | None:
        if path not in ([OBSERVATION, "o0"], [OBSERVATION, "o1"]):
            return None
        if answer.isdigit():
            return _outcome(int(answer), "exception")
        if answer == "another row":
            return Answer(200, server._ehr.body(server._ehr.rows[OBSERVATION, "o7"]))
        return Answer(200, b"<html>log in</html>", {"Content-Type": "text/html"})

    server.hook = read
    for _ in (2, 3):
        night = unjudged(nights, faults=(Sick(("Observation/o0", "Observation/o1")),))
        assert (night.dead, night.holes) == (set(), {"Observation doubted"})
    server.hook = None
    nights.end()


def test_two_listings_still_settle_a_row_where_no_row_of_its_type_can_be_read(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl", CHART), incremental=False))
    server = odd(nights)
    nights.happens(*pats("p1"), *(obs(f"o{n}", "p1") for n in range(8)))
    nights.sync()
    nights.happens(Drop(OBSERVATION, "o0"))
    server.hook = lambda server, path, query: _outcome(405, "not-supported") if path[:-1] == [OBSERVATION] else None
    assert unjudged(nights).dead == set()
    night = unjudged(nights)
    assert (night.status, night.dead) == ("complete", {"Observation/o0"})


@pytest.mark.parametrize("at", range(3, 9))
def test_a_doubted_row_whose_read_was_killed_is_read_again(stage: Stage, at: int) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl", CHART), incremental=False))
    server = odd(nights)
    nights.happens(*pats("p1"), *(obs(f"o{n}", "p1") for n in range(8)))
    nights.sync()
    sick = (Sick(("Observation/o0",)),)
    server.hook = lambda server, path, query: _outcome(503) if path == [OBSERVATION, "o0"] else None
    assert unjudged(nights, faults=sick).holes == {"Observation doubted"}
    server.hook = None
    unjudged(nights, faults=sick, kill=s.Kill("request", at))
    night = unjudged(nights, faults=sick, later=timedelta(minutes=5))
    assert night.dead == set()
    nights.end()


# a row that is two patients'
def test_a_deletion_makes_selections_of_its_other_patients_list_in_full(stage: Stage) -> None:
    first, second = Ask("cohort:p1", "crawl", CHART), Ask("group:B", "crawl", CHART)
    nights = stage.nights(Site(home=first, reconcile_every_d=60))
    server = odd(nights)

    def by_either(server: Server, path: list[str], query: Mapping[str, list[str]]) -> Answer | None:
        if path != [OBSERVATION] or "patient" not in query:
            return None
        name = f'"Patient/{query["patient"][0].removeprefix("Patient/")}"'
        rows = [row for row in server._ehr.of_type(OBSERVATION) if server._ehr.listed(row)]
        rows = [row for row in rows if name in json.dumps(server._ehr.body(row))]
        rows = [row for row in rows if all(_within(row.at, one) for one in query.get("_lastUpdated", ()))]
        return server._page(OBSERVATION, dict(query), sorted(rows, key=lambda row: row.id))

    server.hook = by_either
    nights.happens(*pats("p1", "p2"), obs("k1", "p1", 0), obs("k2", "p2", 0), Join("B", "p2"))
    nights.put(observation("both", "p1", performer=[{"reference": "Patient/p2"}]))
    unjudged(nights, first)
    unjudged(nights, second)
    lied = unjudged(nights, first, since="none", faults=(Lie(("Observation/both",)),))
    assert lied.dead == {"Observation/both"}
    back = unjudged(nights, second)
    assert (back.status, back.live) == ("complete", nights.at_ehr)


# an export of yesterday
def test_a_deleted_list_older_than_a_pulled_row_is_checked_by_a_read(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("all", "bulk", CHART), levels=("system", "patient"), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats("p1", "p2"), *(obs(f"o{n}", "p1") for n in range(5)), obs("k", "p2", 0))
    nights.sync()
    nights.happens(s.Change(OBSERVATION, "o0"))
    nights.sync(Ask("pull:p1", "crawl", CHART))

    def yesterday(job: Job) -> Job:
        told_of = deleting("Observation/o0", "Observation/o1")(job)
        return told_of._replace(files={}, time=fhir_instant(nights._ehr.now() - timedelta(hours=26)))

    server.exported_as = yesterday
    night = unjudged(nights, later=timedelta(hours=2))
    assert night.dead == {"Observation/o1"}  # of which nothing newer is known
    server.exported_as = staticmethod(lambda job: job)
    nights.end()


# an export that says itself that there may be more
@pytest.mark.parametrize("severity", ["error", "warning"])
def test_an_export_that_may_be_incomplete_moves_no_watermark(stage: Stage, severity: str) -> None:
    home = Ask("all", "bulk", (*CHART, CONDITION))
    nights = stage.nights(Site(home=home, levels=("system",), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats("p1", "p2"), obs("o", "p1"), Add(CONDITION, "c", "p1", age_d=30))

    def without_conditions(job: Job) -> Job:
        line = json.dumps(_issue(severity, "suppressed", vendor_code="4119"))
        return job._replace(files={t: rows for t, rows in job.files.items() if t != CONDITION}, errors=[line])

    server.exported_as = without_conditions
    hidden = Answer(200, _bundle([], 0, None, []))  # in searches, too
    server.hook = lambda server, path, query: hidden if path == [CONDITION] else None
    night = unjudged(nights)
    assert (night.status, night.known) == ("complete", {})
    server.exported_as, server.hook = staticmethod(lambda job: job), None
    after = unjudged(nights)
    assert (after.status, after.live) == ("complete", nights.at_ehr)


@pytest.mark.parametrize("before", ["nothing", "the whole"])
def test_an_export_without_the_requested_patients_is_incomplete(stage: Stage, before: str) -> None:
    home = Ask("group:A", "bulk", (*CHART, CONDITION))
    nights = stage.nights(Site(home=home, levels=("group",), incremental=False))
    server = odd(nights)
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2"), Join("A", "p1"), Join("A", "p2"))
    if before == "the whole":
        unjudged(nights)
    nights.happens(s.DropPatient("p2"))
    server.exported_as = lambda job: job._replace(files={t: rows for t, rows in job.files.items() if t != s.PATIENT})
    night = unjudged(nights)
    assert night.status == "partial"
    assert {"Patient no-file failed", "Condition no-file failed"} <= night.holes
    server.exported_as = staticmethod(lambda job: job)
    after = unjudged(nights)
    assert (after.status, after.live) == ("complete", nights.at_ehr)


def test_a_type_without_a_file_is_missed_even_if_the_export_has_issues(stage: Stage) -> None:
    home = Ask("all", "bulk", (*CHART, CONDITION))
    nights = stage.nights(Site(home=home, levels=("system",), incremental=False))
    server = odd(nights)
    nights.happens(*pats("p1", "p2"), obs("o", "p1"), Add(CONDITION, "c", "p1", age_d=30))
    unjudged(nights)
    nights.happens(Drop(CONDITION, "c"))
    line = json.dumps(_issue("information", "informational", "nothing to tell"))
    server.exported_as = lambda job: job._replace(errors=[line])
    night = unjudged(nights)
    assert (night.status, night.evidence) == (
        "partial",
        {"Condition/c": "doubted"},
    )  # no row of the type is left as a control
    assert unjudged(nights).dead == {"Condition/c"}


# a clock that was wrong
@pytest.mark.parametrize("days", [2, 30])
def test_changes_are_not_requested_since_a_future_instant(stage: Stage, days: int) -> None:
    nights = stage.nights(Site(home=Ask("all", "bulk", CHART), levels=("system", "patient"), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1", 0))
    nights.sync()
    right = nights._ehr.site
    nights._ehr.site = right._replace(skew_s=days * 86_400)
    nights.happens(obs("ahead", "p1", 0))
    unjudged(nights)
    nights._ehr.site = right
    nights.happens(obs("new", "p1", 0), s.Change(OBSERVATION, "o1"))
    night = unjudged(nights)
    assert (night.status, night.live) == ("complete", nights.at_ehr)
    assert any("ahead of the clocks" in note for note in night.notes)
    nights.happens(obs("newer", "p2", 0))
    after = unjudged(nights)
    assert (after.status, after.live) == ("complete", nights.at_ehr)
    assert after.counts[2] <= 1  # news alone, and what is dated ahead


# numbers and links in other words
@pytest.mark.parametrize("total", ["5", 5.0])
def test_a_total_in_another_format_still_shows_that_rows_are_missing(stage: Stage, total: object) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl", CHART), incremental=False, reads=False))
    server = odd(nights)
    nights.happens(*pats("p1"), *(obs(f"o{n}", "p1") for n in range(5)))
    nights.sync()
    none = {"resourceType": "Bundle", "type": "searchset", "total": total, "entry": []}
    server.hook = lambda server, path, query: Answer(200, none) if path == [OBSERVATION] else None
    for _ in (2, 3):
        night = unjudged(nights)
        assert (night.status, night.dead) == ("partial", set())


# Groups that do not say who is in them
GROUP = {"resourceType": "Group", "id": "A", "type": "person", "actual": True}


@pytest.mark.parametrize("member", [False, "", 0, "none"])
def test_unreadable_members_are_not_an_empty_group(stage: Stage, member: object) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "crawl", CHART), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats("p1"), obs("o1", "p1", 0), Join("A", "p1"))
    nights.sync()
    server.hook = lambda server, path, query: Answer(200, {**GROUP, "member": member}) if path[0] == "Group" else None
    assert unjudged(nights).status == "failed"
    server.hook = None
    nights.end()


def test_an_incremental_export_reports_a_group_without_stated_members(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "bulk", CHART), levels=("group",), reconcile_every_d=60))
    server = odd(nights)
    server.hook = lambda server, path, query: Answer(200, GROUP) if path == ["Group", "A"] else None
    nights.happens(*pats("p1", "p2"), obs("o1", "p1", 0), obs("o2", "p2", 200), Join("A", "p1"))
    unjudged(nights)
    nights.happens(Join("A", "p2"))
    night = unjudged(nights)
    assert nights.at_ehr <= night.live or any("joined it since" in note for note in night.notes)


# what comes in part
@pytest.mark.parametrize("before", ["nothing", "the whole", "a tombstone"])
def test_a_crawl_that_gets_a_partial_resource_is_incomplete(stage: Stage, before: str) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl", CHART), incremental=False))
    odd(nights)
    nights.happens(*pats("p1"), obs("k", "p1"))
    if before != "nothing":
        nights.put(observation("o1", "p1", 1))
    unjudged(nights)
    if before == "a tombstone":
        nights.happens(Drop(OBSERVATION, "o1"))
        assert unjudged(nights).dead == {"Observation/o1"}
        nights._ehr.dropped.clear()
    part = observation("o1", "p1", 2, nights.instant)
    nights.put({**part, "meta": {**part["meta"], "tag": [{"code": "SUBSETTED"}]}})
    night = unjudged(nights)
    assert (night.status, night.holes) == ("partial", {"Observation search failed"})
    assert ("Observation/o1" in night.live) == (before == "the whole")
    nights.put(observation("o1", "p1", 3, nights.instant))
    nights.end()


# named patients who are not there any more
@pytest.mark.parametrize("gone", [404, 410])
@pytest.mark.parametrize("cohort", ["p1", "p1,p2"])
def test_an_export_of_named_patients_becomes_complete_after_one_is_deleted(
    stage: Stage, cohort: str, gone: int
) -> None:
    home = Ask(f"cohort:{cohort}", "bulk", CHART)
    nights = stage.nights(Site(home=home, levels=("patient",), reconcile_every_d=60, gone=gone))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2"))
    unjudged(nights)
    nights.happens(DropPatient("p1"))
    for _ in (2, 3, 4):
        night = unjudged(nights, since="none")
    assert (night.status, night.holes) == ("complete", set())
    # of one who is alone nothing shows what the answer about his Patient means
    assert night.dead == {"Observation/o1"} | ({"Patient/p1"} if "p2" in cohort else set())


@pytest.mark.parametrize("cohort", ["p1", "p1,p2"])
def test_an_export_of_named_patients_follows_one_who_is_merged(stage: Stage, cohort: str) -> None:
    home = Ask(f"cohort:{cohort}", "bulk", CHART)
    nights = stage.nights(Site(home=home, levels=("patient",), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2"))
    unjudged(nights)
    nights.happens(Merge("p1", "p2", "redirect"))
    first = unjudged(nights, since="none")
    assert (first.status, first.dead) == ("complete" if "p2" in cohort else "failed", {"Patient/p1"})
    night = unjudged(nights, since="none")
    assert (night.status, night.live) == ("complete", nights.at_ehr)


@pytest.mark.parametrize("gone", [404, 410])
def test_a_crawl_of_one_patient_becomes_complete_after_the_patient_is_deleted(stage: Stage, gone: int) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl", CHART), incremental=False, gone=gone))
    nights.happens(*pats("p1"), obs("o1", "p1"))
    unjudged(nights)
    nights.happens(DropPatient("p1"))
    for _ in (2, 3, 4):
        night = unjudged(nights)
    assert (night.status, night.dead) == ("complete", {"Observation/o1"})
    assert any("no answer shows whether they still exist" in note for note in night.notes)


# a clock that is set back
@pytest.mark.parametrize(("mode", "says_date"), [("bulk", True), ("bulk", False), ("crawl", True)])
def test_nothing_is_lost_when_the_clock_of_the_ehr_is_set_back(stage: Stage, mode: str, *, says_date: bool) -> None:
    nights = stage.nights(
        Site(home=Ask("cohort:p1", mode, CHART), levels=("patient",), reconcile_every_d=60, date_skewed=says_date)
    )
    nights.happens(*pats("p1"), obs("o1", "p1", 0))
    unjudged(nights)
    nights.happens(obs("o2", "p1", 0))
    unjudged(nights, later=timedelta(hours=1))
    nights._ehr.site = nights._ehr.site._replace(skew_s=-50 * 3600)
    nights.happens(obs("new", "p1", 0))
    night = unjudged(nights, later=timedelta(minutes=30))
    assert (night.status, nights.at_ehr <= night.live) == (("complete", True) if says_date else ("partial", False))
    nights.happens(obs("more", "p1", 0))
    night = unjudged(nights)
    assert (night.status, night.live) == ("complete", nights.at_ehr)


# a type that nobody answers for
def test_a_type_no_longer_exported_or_declared_is_no_longer_known(stage: Stage) -> None:
    home = Ask("all", "bulk", (*CHART, CONDITION))
    nights = stage.nights(Site(home=home, levels=("patient",), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats("p1"), obs("o1", "p1", 0), Add(CONDITION, "c1", "p1", age_d=0))
    unjudged(nights)
    whole = server._capability()
    resources = [one for one in whole["rest"][0]["resource"] if one["type"] != CONDITION]
    without = {**whole, "rest": [{**whole["rest"][0], "resource": resources}]}
    server.hook = lambda server, path, query: Answer(200, without) if path == ["metadata"] else None
    server.exported_as = lambda job: job._replace(files={t: f for t, f in job.files.items() if t != CONDITION})
    for n in (2, 3):
        nights.happens(obs(f"o{n}", "p1", 0), Add(CONDITION, f"c{n}", "p1", age_d=0))
        night = unjudged(nights)
        assert any("nor declared by the server" in note for note in night.notes)
    server.hook, server.exported_as = None, staticmethod(lambda job: job)
    nights.happens(obs("o4", "p1", 0))
    night = unjudged(nights)
    assert (night.status, night.live) == ("complete", nights.at_ehr)


# rows that are withheld for a while
@pytest.mark.parametrize(("who", "mode"), [("cohort:p1,p2", "crawl"), ("all", "bulk")])
def test_rows_withheld_without_notice_arrive_once_permitted(stage: Stage, who: str, mode: str) -> None:
    nights = stage.nights(Site(home=Ask(who, mode, CHART), levels=("patient",), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2", 0), obs("o3", "p1"))
    unjudged(nights)
    nights.happens(obs("unseen", "p1", 0), Withhold(OBSERVATION, "o1"), Withhold(OBSERVATION, "unseen"))
    assert unjudged(nights, since="none").evidence == {"Observation/o1": "withheld"}
    nights.happens(obs("o4", "p2", 0))
    news = unjudged(nights)
    assert (news.status, mode == "crawl" or news.counts == (1, 0, 0, 0)) == (
        "complete",
        True,
    )  # no full export for what may not be seen
    nights.happens(Permit(OBSERVATION, "o1"), Permit(OBSERVATION, "unseen"), obs("o5", "p2", 0))
    night = unjudged(nights)
    assert (night.status, night.live) == ("complete", nights.at_ehr)
