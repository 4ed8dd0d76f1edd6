"""Histories that an outside reviewer invented; what must be true was written down before they were played."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.histories import steps as s
from tests.histories.answers import _INCOMPLETE, Answer, Server, _bundle
from tests.histories.nights import Night, Nights, observation, patient
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
    DropPatient,
    Hide,
    Join,
    Leave,
    Levels,
    Lie,
    Misled,
    Patients410,
    Refuse,
    Sick,
    Site,
    Withhold,
)

CHART = (PATIENT, OBSERVATION)


ALL = (PATIENT, OBSERVATION, CONDITION)


SOON = timedelta(seconds=2)


def pats(*ids: str) -> tuple[Add, ...]:
    return tuple(Add(PATIENT, one, one, age_d=300) for one in ids)


def obs(id_: str, of: str | None, age_d: int = 300) -> Add:
    return Add(OBSERVATION, id_, of, age_d=age_d)


def unjudged(nights: Nights, ask: Ask, *, since: str = "auto", faults: tuple[s.Fault, ...] = ()) -> Night:
    """A night whose faults the oracle does not know of, or that only these assertions judge."""
    nights._moment += timedelta(days=1)
    nights._report, nights._dies_at = None, ""
    nights._run_to_end(nights._run(s.Run(ask, since=since, faults=faults)))
    return nights._night()


class _Told(Server):
    """An export that also tells what the test says."""

    errors: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    also: tuple[tuple[str, str, str], ...] = ()  # a group's export gives this too: (group, type, line)
    more_of: tuple[str, str] | None = None  # (type, patient): his search says that more may exist, and shows nothing

    def _search(self, kind: str, query: dict[str, list[str]]) -> Any:
        if self.more_of == (kind, query.get("patient", [""])[0].removeprefix("Patient/")):
            return Answer(200, _bundle([], None, None, [_INCOMPLETE]))
        return super()._search(kind, query)

    def _kick_off(self, path: list[str], query: dict[str, list[str]], body: bytes) -> Any:
        answer = super()._kick_off(path, query, body)
        job = self._jobs[str(len(self._jobs))]
        job.errors.extend(self.errors)
        for group, kind, line in self.also:
            if path[:2] == ["Group", group]:
                job.files.setdefault(kind, []).append(line)
        if self.gone:
            entries = [{"request": {"method": "DELETE", "url": one}} for one in self.gone]
            job.deleted.append(json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}))
        return answer


def tells(nights: Nights) -> _Told:
    server = _Told(nights._ehr)
    nights._server = server  # type: ignore[assignment]
    return server


# an index that is sick for two nights, and more rows than are asked for
def test_existing_rows_beyond_the_cap_of_reads_are_not_deleted_on_the_second_night(stage: Stage) -> None:
    # 300 of 1000 rows are in no index on two nights; each can be read. None may die
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "crawl", CHART), incremental=False))
    nights.happens(*pats("p1", "p2"), AddMany(OBSERVATION, "k", 700, "p1"), AddMany(OBSERVATION, "s", 300, "p1"))
    nights.sync()
    for _ in (2, 3, 4):
        night = nights.sync(faults=(Sick(("Observation/s*",)),))
        assert night.dead == set()
    nights.end()


# a small chart that was lied about by one way, and that the others must bring back by news
@pytest.mark.parametrize("liar", ["crawl", "group", "system"])
def test_a_row_deleted_by_one_selection_is_revived_by_another_ones_changes(stage: Stage, liar: str) -> None:
    asks = {
        "crawl": Ask("cohort:p1,p2", "crawl", CHART),
        "group": Ask("group:A", "bulk", CHART),
        "system": Ask("all", "bulk", CHART),
    }
    for witness in asks.values():
        nights = stage.nights(Site(home=witness, levels=("system", "group"), reconcile_every_d=60))
        nights.happens(*pats("p1", "p2"), *(obs(f"o{n}", "p1") for n in range(5)), obs("q", "p2", 0), obs("r", "p1"))
        nights.happens(Join("A", "p1"), Join("A", "p2"))
        everything = nights.at_ehr
        for ask in asks.values():
            nights.sync(ask)
        lied = nights.sync(asks[liar], since="none", faults=(Lie(("Observation/o*",)),))
        assert (lied.status, len(lied.dead)) == ("complete", 5)
        back = nights.sync(witness)
        assert (back.status, back.live) == ("complete", everything)
        # the third one must know no less for that: what it believes stays right
        for ask in asks.values():
            night = nights.sync(ask)
            assert (night.status, night.live) == ("complete", everything)
        nights.end()


# a level that vanishes for good
def test_rows_listed_only_by_a_vanished_level_are_deleted_once_the_ehr_lacks_them(stage: Stage) -> None:
    # nobody's row, and one of p1 that was deleted before the crawl ever listed it: gone within some runs
    nights = stage.nights(Site(home=Ask("all", "auto", CHART), levels=("system",), incremental=False))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p1"), obs("n1", None), obs("n2", None))
    nights.sync()
    nights.happens(Levels(()), Drop(OBSERVATION, "o2"), Drop(OBSERVATION, "n2"))
    for _ in range(2, 13):
        night = nights.sync()
        assert {"Observation/n1", "Observation/o1"} <= night.live
    assert night.dead == {"Observation/o2", "Observation/n2"}
    assert any("1 Observation" in note and "kept" in note for note in night.notes)
    assert night.status == "complete"


# a group that is empty for a night, and a member whose chart changes meanwhile
@pytest.mark.parametrize("mode", ["crawl", "bulk"])
@pytest.mark.parametrize("since", ["auto", "none"])
def test_a_group_empty_for_one_night_is_complete_the_night_after(stage: Stage, mode: str, since: str) -> None:
    a = Ask("group:A", mode, CHART)
    nights = stage.nights(Site(home=a, levels=("group",), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2"), obs("o3", "p2", 0))
    nights.happens(Join("A", "p1"), Join("A", "p2"))
    nights.sync()
    nights.happens(Leave("A", "p1"), Leave("A", "p2"), obs("late", "p1", 0))
    empty = nights.sync(since=since)
    assert empty.dead == set()
    nights.happens(Drop(OBSERVATION, "o1"))
    still = nights.sync(since=since)
    assert still.dead in (set(), {"Observation/o1"})
    nights.happens(Join("A", "p1"), Join("A", "p2"))
    back = nights.sync()
    assert back.status == "complete" or back.holes == {"Observation not-found"}
    assert nights.at_ehr <= back.live
    for _ in range(5, 8):
        night = nights.sync(since="none")
    assert night.dead == {"Observation/o1"}
    nights.end()


# everything is 410, for three nights, with three patients
@pytest.mark.parametrize("since", ["auto", "none"])
@pytest.mark.parametrize("fault", [All410(), Patients410()], ids=["all", "patients"])
def test_a_server_that_knows_nobody_for_three_nights_deletes_nobody(stage: Stage, fault: s.Fault, since: str) -> None:
    # three patients are no mass: but nothing answered a control (all), or their charts are there (patients)
    nights = stage.nights(Site(home=Ask("cohort:p1,p2,p3", "crawl", CHART), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2", "p3"), obs("o1", "p1"), obs("o2", "p2"), obs("o3", "p3", 0))
    everything = nights.at_ehr
    nights.sync()
    sick = [nights.sync(since=since, faults=(fault,)) for number in (2, 3, 4)]
    well = nights.sync()
    assert (well.status, well.live, well.evidence) == ("complete", everything, {})
    assert "complete" not in {night.status for night in sick}
    assert [night.live for night in sick] == [everything] * 3
    nights.end()


# every Patient redirects to one: a login page, or a merge gone wrong
@pytest.mark.parametrize("count", [3, 30])
@pytest.mark.parametrize("mode", ["crawl", "bulk"])
def test_a_night_on_which_all_patients_redirect_to_one_deletes_nobody(stage: Stage, mode: str, count: int) -> None:
    ids = [f"p{n}" for n in range(count)]
    nights = stage.nights(
        Site(home=Ask(f"cohort:{','.join(ids)}", mode, CHART), levels=("patient",), reconcile_every_d=60)
    )
    nights.happens(*pats(*ids), *(obs(f"o{n}", f"p{n}") for n in range(count)), obs("new", "p0", 0))
    everything = nights.at_ehr
    nights.sync()
    for _ in range(2):
        misled = unjudged(nights, nights._home, since="none", faults=tuple(Misled(one, "p0") for one in ids[1:]))
        assert misled.live == everything
    well = nights.sync()
    assert (well.status, well.live, well.evidence) == ("complete", everything, {})
    nights.end()


# more is deleted than is asked for
def test_three_hundred_real_deletions_of_a_thousand_rows_finally_become_tombstones(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "crawl", CHART), incremental=False))
    nights.happens(*pats("p1", "p2"), AddMany(OBSERVATION, "k", 700, "p1"), AddMany(OBSERVATION, "s", 300, "p1"))
    nights.sync()
    nights.happens(Drop(OBSERVATION, "s*"))
    second = nights.sync()
    assert second.status == "partial"
    third = nights.sync()
    assert (third.status, third.live) == ("complete", nights.at_ehr)


# an index that two ways share never shows a row
def test_a_row_missing_from_every_index_is_a_hole_once_per_way_and_then_a_note(stage: Stage) -> None:
    crawl, bulk = Ask("all", "crawl", CHART), Ask("all", "bulk", CHART)
    nights = stage.nights(Site(home=crawl, levels=("system",), incremental=False))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p1"), obs("o3", "p2"))
    nights.sync(crawl)
    nights.sync(bulk)
    nights.happens(Hide(OBSERVATION, "o1"))
    ends = [nights.sync((crawl, bulk)[n % 2]).status for n in range(8)]
    assert ends[4:] == ["complete"] * 4, ends
    nights.happens(Drop(OBSERVATION, "o1"))
    for n in range(10):
        night = nights.sync((crawl, bulk)[n % 2])
    assert night.dead == {"Observation/o1"}


# a whole group leaves, on a night on which Patients cannot be found
@pytest.mark.parametrize("mode", ["crawl", "bulk"])
def test_forty_departed_patients_whose_reads_answer_404_are_a_mass(stage: Stage, mode: str) -> None:
    ids = [f"p{n}" for n in range(40)]
    a = Ask("group:A", mode, CHART)
    nights = stage.nights(Site(home=a, levels=("group",), reconcile_every_d=60))
    nights.happens(
        *pats("stay", *ids), *(obs(f"o{one}", one) for one in ids), obs("ostay", "stay", 0), Join("A", "stay")
    )
    nights.happens(*(Join("A", one) for one in ids))
    everything = nights.at_ehr
    nights.sync()
    nights.happens(*(Leave("A", one) for one in ids))
    lied = nights.sync(since="none", faults=(Lie(("Patient/p*",)),))
    assert lied.live == everything
    lied = nights.sync(since="none")
    assert lied.live == everything
    nights.happens(*(Join("A", one) for one in ids))
    back = nights.sync()
    assert (back.status, back.live) == ("complete", everything)


# a member who left is deleted, with all that is his
@pytest.mark.parametrize("rows", [3, 30, 250])
@pytest.mark.parametrize("mode", ["crawl", "bulk"])
def test_a_departed_and_then_deleted_patient_is_deleted_row_by_row(stage: Stage, mode: str, rows: int) -> None:
    a = Ask("group:A", mode, CHART)
    nights = stage.nights(Site(home=a, levels=("group",), reconcile_every_d=60))
    nights.happens(
        *pats("p1", "p2"),
        AddMany(OBSERVATION, "m", rows, "p1"),
        AddMany(OBSERVATION, "k", 10, "p2"),
        Join("A", "p1"),
        Join("A", "p2"),
    )
    nights.sync()
    nights.happens(Leave("A", "p1"), DropPatient("p1"))
    for _ in range(8 + rows // 15):
        night = nights.sync(since="none")
    assert (night.status, night.live) == ("complete", nights.at_ehr)


# a sick index for two nights, the second asked by news
@pytest.mark.parametrize("kept", [700, 100], ids=["no-mass", "mass"])
def test_rows_beyond_the_cap_survive_a_second_incremental_night(stage: Stage, kept: int) -> None:
    # 300 rows are in no index on two nights; each can be read. The second night asks p1 in full, since they were doubted
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "crawl", CHART), reconcile_every_d=60))
    nights.happens(
        *pats("p1", "p2"),
        AddMany(OBSERVATION, "k", kept, "p1"),
        AddMany(OBSERVATION, "s", 190 if kept == 700 else 300, "p1"),
    )
    nights.happens(obs("q", "p2", 0))
    everything, sick = nights.at_ehr, (Sick(("Observation/s*",)),)
    nights.sync()
    if kept == 700:  # of several nights' news: more are missed than can be asked for
        nights.happens(AddMany(OBSERVATION, "t", 150, "p1"))
        everything = nights.at_ehr
        nights.sync(since="none")
        sick = (Sick(("Observation/s*", "Observation/t*")),)
        # p1 has a lag
        nights.sync(faults=(Refuse(OBSERVATION, 501, ("p1",)),))
    for number in (2, 3, 4):
        night = unjudged(nights, nights._home, since="none" if number == 2 and kept == 100 else "auto", faults=sick)
        assert night.live == everything
    nights.end()


# a patient who lives by his rows alone
def test_half_of_a_patients_rows_are_a_mass_where_patients_are_not_requested(stage: Stage) -> None:
    home = Ask("cohort:p1,p2,p3", "crawl", (OBSERVATION,))
    nights = stage.nights(Site(home=home, incremental=False))
    nights.happens(
        *pats("p1", "p2", "p3"),
        AddMany(OBSERVATION, "m", 40, "p1"),
        obs("k", "p1"),
        AddMany(OBSERVATION, "n", 100, "p2"),
    )
    first = nights.sync()
    lied = nights.sync(faults=(Lie(("Observation/m*",)),))
    assert (lied.status, lied.live) == ("partial", first.live)


# a patient of whom a type is never told
@pytest.mark.parametrize("how", ["4119", "403", "404"])
def test_a_deleted_row_of_a_patient_with_refused_searches_is_finally_deleted(stage: Stage, how: str) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "crawl", CHART), reconcile_every_d=2))
    server = tells(nights)
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2"), obs("o3", "p1"), Add(OBSERVATION, "q", "p2"))
    nights.sync()
    faults: tuple[s.Fault, ...] = ()
    if how == "4119":
        server.more_of = (OBSERVATION, "p1")
    else:
        faults = (Refuse(OBSERVATION, int(how), ("p1",)),)
    nights.happens(Drop(OBSERVATION, "o1"))
    for _ in range(2, 16):
        night = unjudged(nights, nights._home, since="none", faults=faults)
        assert "Observation/o3" in night.live
    assert night.dead == {"Observation/o1"}


# a Patient in an export who is no member
@pytest.mark.parametrize("reads", [True, False])
def test_a_group_export_does_not_witness_the_chart_of_a_non_member_it_includes(stage: Stage, reads: bool) -> None:
    a, b = Ask("group:A", "bulk", CHART), Ask("group:B", "bulk", CHART)
    nights = stage.nights(Site(home=b, levels=("group",), incremental=False, reads=reads))
    server = tells(nights)
    nights.put(
        patient("p1"),
        patient("p2"),
        patient("p9"),
        observation("o1", "p1"),
        observation("o2", "p2"),
        observation("o9", "p9"),
    )
    nights.happens(Join("A", "p1"), Join("B", "p2"), Join("B", "p9"))
    everything = nights.at_ehr
    server.also = (("A", PATIENT, json.dumps(patient("p9"))),)
    nights.sync(b)
    for _ in range(3):
        night = unjudged(nights, a)
    assert (night.status, night.live, night.evidence) == ("complete", everything, {})


# a pull on a night on which nothing answers
def test_a_pull_answered_only_with_410_deletes_nobody(stage: Stage) -> None:
    home = Ask("all", "crawl", CHART)
    nights = stage.nights(Site(home=home, reconcile_every_d=60))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2", 0))
    everything = nights.at_ehr
    nights.sync()
    pulled = nights.sync(Ask("pull:p1", "crawl", CHART), faults=(All410(),))
    assert pulled.status != "complete"
    well = nights.sync()
    assert (well.status, well.live) == ("complete", everything)
    assert pulled.live == everything


# one night of redirects that nobody believed
@pytest.mark.parametrize("count", [3, 30])
@pytest.mark.parametrize("since", ["auto", "none"])
def test_a_doubted_merge_does_not_change_the_next_nights_requests(stage: Stage, since: str, count: int) -> None:
    ids = [f"p{n}" for n in range(count)]
    nights = stage.nights(Site(home=Ask(f"cohort:{','.join(ids)}", "crawl", CHART), reconcile_every_d=60))
    nights.happens(*pats(*ids), *(obs(f"o{n}", f"p{n}") for n in range(count)), obs("new", "p0", 0))
    nights.sync()
    everything = nights.at_ehr
    misled = unjudged(nights, nights._home, since=since, faults=tuple(Misled(one, "p0") for one in ids[1:]))
    nights.happens(obs("of1", "p1", 0), Drop(OBSERVATION, "o2"))
    well = unjudged(nights, nights._home)
    next_ = unjudged(nights, nights._home)
    assert next_.status == "complete"
    assert nights.at_ehr <= next_.live
    assert misled.live == everything
    assert (well.status, well.evidence) == ("complete", {})
    assert nights.at_ehr <= well.live
    assert nights.state()["alias"] in ([], [(one, one, False) for one in sorted(ids[1:])])
    nights.end()


# how many must vanish for it
@pytest.mark.parametrize("dropped", [190, 196, 200, 210])
def test_full_runs_end_with_any_number_of_missed_rows(stage: Stage, dropped: int) -> None:
    nights = stage.nights(Site(home=Ask("all", "crawl", CHART), incremental=False))
    nights.happens(*pats("p1", "p2"), AddMany(OBSERVATION, "k", 700, "p1"), AddMany(OBSERVATION, "s", dropped, "p1"))
    nights.sync()
    nights.happens(Drop(OBSERVATION, "s*"))
    for _ in (2, 3, 4):
        night = unjudged(nights, nights._home)
    assert (night.status, night.live) == ("complete", nights.at_ehr)


# a member whom the export leaves out
@pytest.mark.parametrize("hidden", [("Patient/p1",), ("Patient/p1", "Observation/o1*")], ids=["patient", "all"])
@pytest.mark.parametrize("readable", [True, False])
def test_a_group_member_missing_from_the_export_is_a_hole(
    stage: Stage, readable: bool, hidden: tuple[str, ...]
) -> None:
    a = Ask("group:A", "bulk", CHART)
    nights = stage.nights(Site(home=a, levels=("group",), readable_groups=readable, reconcile_every_d=60))
    nights.happens(
        *pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2"), obs("q", "p2", 0), Join("A", "p1"), Join("A", "p2")
    )
    nights.sync()
    nights.happens(obs("o1new", "p1", 0))
    second = nights.sync(since="none", faults=(Sick(hidden),))
    third = nights.sync()
    fourth = nights.sync()
    if readable:
        assert "Observation/o1new" in second.live or second.status == "partial"
        assert third.live == nights.at_ehr or third.status == "partial"
        assert fourth.live == nights.at_ehr
    nights.end()


# an export that leaves members out, night after night
@pytest.mark.parametrize("out", [1, 40])
def test_members_missing_from_every_export_prevent_exit_code_0(stage: Stage, out: int) -> None:
    ids = [f"p{n}" for n in range(60)]
    a = Ask("group:A", "bulk", CHART)
    nights = stage.nights(Site(home=a, levels=("group",), reconcile_every_d=2))
    nights.happens(
        *pats(*ids), *(obs(f"o{one}", one) for one in ids), obs("q", "p59", 0), *(Join("A", one) for one in ids)
    )
    first = nights.sync()
    assert first.status == "complete"
    sick = (
        Sick(
            tuple(
                name
                for one in ids[:out]
                for name in (f"Patient/{one}", f"Observation/o{one}", f"Observation/new-{one}-*")
            )
        ),
    )
    for number in range(2, 7):
        nights.happens(*(obs(f"new-{one}-{number}", one, 0) for one in ids[:out]))
        night = unjudged(nights, a, since="none" if number == 2 else "auto", faults=sick)
        assert night.status != "complete" or nights.at_ehr <= night.live


# a permission that is taken away, and more rows than are asked for
def test_three_hundred_newly_withheld_rows_are_kept(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "crawl", CHART), reconcile_every_d=60))
    nights.happens(
        *pats("p1", "p2"), AddMany(OBSERVATION, "k", 100, "p1"), AddMany(OBSERVATION, "s", 300, "p1"), obs("q", "p2", 0)
    )
    everything = nights.at_ehr
    nights.sync()
    nights.happens(*(Withhold(OBSERVATION, f"s{n}") for n in range(300)))
    unjudged(nights, nights._home, since="none")
    for _ in (3, 4):
        night = unjudged(nights, nights._home)
    assert night.live == everything


# nothing answers, and Patients alone are asked for
@pytest.mark.parametrize("since", ["auto", "none"])
def test_a_night_on_which_everything_is_410_is_not_green(stage: Stage, since: str) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2,p3", "crawl", (PATIENT,)), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2", "p3"))
    nights.sync()
    sick = unjudged(nights, nights._home, since=since, faults=(All410(),))
    assert (sick.status, sick.dead) == ("partial", set())


# many of a patient's rows that are withheld, or in no index, for good
@pytest.mark.parametrize("how", [Withhold, Hide])
def test_forty_rows_that_no_list_shows_any_more_are_finally_settled(stage: Stage, how: type) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "crawl", CHART), incremental=False))
    nights.happens(
        *pats("p1", "p2"), AddMany(OBSERVATION, "k", 20, "p1"), AddMany(OBSERVATION, "s", 40, "p1"), obs("q", "p2", 0)
    )
    everything = nights.at_ehr
    nights.sync()
    nights.happens(*(how(OBSERVATION, f"s{n}") for n in range(40)))
    ends = []
    for _ in range(2, 11):
        night = unjudged(nights, nights._home)
        assert night.live == everything
        ends.append(night.status)
    assert ends[-3:] == ["complete"] * 3, ends
