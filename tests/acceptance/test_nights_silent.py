"""Histories in which the EHR is silent about a type, a patient or a row, or says it in another place: silence is no absence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance.odd_ehr import CHART, Hook, obs, odd, pats, unjudged, whole, without
from tests.histories.answers import BASE, Answer, Job, Server, _bundle, _issue, _outcome
from tests.histories.nights import observation
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
    DropPatient,
    Join,
    Leave,
    Merge,
    Permit,
    Refuse,
    Sick,
    Site,
    Unmerge,
    Withhold,
)


def searched_by(patients: Callable[[], Mapping[str, list[dict[str, Any]]]]) -> Hook:
    """Observations that searches by patient bring beside those that name the patient, by patient."""

    def hook(server: Server, path: list[str], query: Mapping[str, list[str]]) -> Answer | None:
        if path != [OBSERVATION] or "patient" not in query:
            return None
        patient = query["patient"][0].removeprefix("Patient/")
        own = [row for row in server._ehr.of_type(OBSERVATION) if row.patient == patient and server._ehr.listed(row)]
        found = [*map(server._ehr.body, own), *patients().get(patient, ())]
        return Answer(200, _bundle(found, len(found), None, []))

    return hook


def declaring(server: Server, *left_out: str) -> Hook:
    whole = server._capability()
    kept = [one for one in whole["rest"][0]["resource"] if one["type"] not in left_out]
    found = Answer(200, {**whole, "rest": [{**whole["rest"][0], "resource": kept}]})
    return lambda server, path, query: found if path == ["metadata"] else None


# types
def test_a_type_first_seen_in_an_incremental_export_makes_the_next_one_full(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("all", "bulk"), levels=("patient",), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats("p1"), obs("o1", "p1", 0), Add(CONDITION, "old", "p1", age_d=300))
    server.exported_as = without(CONDITION)
    unjudged(nights)
    server.exported_as = staticmethod(lambda job: job)
    nights.happens(Add(CONDITION, "new", "p1"))
    night = unjudged(nights)
    assert CONDITION not in night.known
    assert any(note.startswith("Condition: listed for the first time") for note in night.notes)
    assert whole(nights)
    nights.happens(obs("o2", "p1", 0))
    assert unjudged(nights).counts[2] < 4, "from then on news are asked for again"


@pytest.mark.parametrize("since", ["auto", "none"])
def test_a_crawled_type_that_is_undeclared_for_a_night_is_reported(stage: Stage, since: str) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl"), reconcile_every_d=60))
    server = odd(nights)
    rows = (Add(CONDITION, "c1", "p1"), Add(ORGANIZATION, "g1"))
    nights.happens(*pats("p1"), obs("o1", "p1", 0), *rows)
    unjudged(nights)
    server.hook = declaring(server, CONDITION, ORGANIZATION)
    nights.happens(Add(CONDITION, "c2", "p1"), Add(ORGANIZATION, "g2"))
    assert any(
        note.startswith("Condition, Organization: listed before") for note in unjudged(nights, since=since).notes
    )
    server.hook = None
    assert whole(nights)


@pytest.mark.parametrize(("severity", "code"), [("warning", "4119"), ("information", "incomplete")])
def test_a_file_that_says_there_may_be_more_leaves_its_type_unknown(stage: Stage, severity: str, code: str) -> None:
    nights = stage.nights(Site(home=Ask("all", "bulk", CHART), levels=("patient",), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats("p1"), obs("o1", "p1", 0), obs("o2", "p1"))
    line = json.dumps(_issue(severity, code, vendor_code=code))

    def in_part(job: Job) -> Job:
        told = [one for one in job.files[OBSERVATION] if '"o2"' not in one]
        return job._replace(files={**job.files, OBSERVATION: [*told, line]})

    server.exported_as = in_part
    night = unjudged(nights)
    assert OBSERVATION not in night.known
    assert any("there may be more than it has" in note for note in night.notes)
    server.exported_as = staticmethod(lambda job: job)
    assert whole(nights)


@pytest.mark.parametrize("kept", [(ORGANIZATION,), (ORGANIZATION, CONDITION)])
def test_a_full_export_without_the_requested_patients_proves_nothing_of_missing_types(
    stage: Stage, kept: tuple[str, ...]
) -> None:
    asked = (*CHART, CONDITION, ORGANIZATION)
    nights = stage.nights(Site(home=Ask("all", "bulk", asked), levels=("system",)))
    server = odd(nights)
    nights.happens(*pats("p1"), obs("o1", "p1"), Add(CONDITION, "c1", "p1"), Add(ORGANIZATION, "g1"))
    server.exported_as = without(*{*asked}.difference(kept))
    night = unjudged(nights)
    assert (night.status, set(night.known)) == ("partial", set(kept))
    assert night.holes == {f"{kind} no-file failed" for kind in asked if kind not in kept}
    server.exported_as = staticmethod(lambda job: job)
    assert whole(nights)


def test_rows_beside_a_group_export_that_brings_no_patients_any_more_are_read_after_the_period(stage: Stage) -> None:
    home = Ask("group:A", "bulk", (*CHART, CONDITION))
    nights = stage.nights(Site(home=home, levels=("group",), readable_groups=False))
    nights.happens(*pats("p1"), obs("o1", "p1"), Add(CONDITION, "c1", "p1"), Join("A", "p1"))
    nights.sync()
    nights.happens(DropPatient("p1"), obs("o2", "p1"))  # whose chart goes on
    for _ in range(10):
        night = nights.sync(since="none")
        assert (night.status, "Patient no-file failed" in night.holes) == ("partial", True)
    # of Patients and Conditions no other row can be read, so that nobody can tell whether theirs are gone
    assert (night.live, night.dead) == ({"Observation/o2", "Condition/c1", "Patient/p1"}, {"Observation/o1"})
    assert any(note.startswith("no listing of this connection can show 1 Condition, 1 Patient") for note in night.notes)


def test_an_export_that_brings_no_patients_for_weeks_deletes_no_row_that_can_be_read(stage: Stage) -> None:
    home = Ask("group:A", "bulk", (*CHART, CONDITION))
    nights = stage.nights(Site(home=home, levels=("group",), readable_groups=False))
    nights.happens(*pats("p1", "p2"), *(obs(f"o{n}", "p1") for n in range(4)), Add(CONDITION, "c1", "p1"))
    nights.happens(Join("A", "p1"), Join("A", "p2"))
    nights.sync()
    nights.happens(Drop(CONDITION, "c1"))
    for _ in range(12):
        night = nights.sync(since="none", faults=(Sick(("Patient/*", "Condition/*", "Observation/o1")),))
        assert nights.at_ehr <= night.live
    assert night.status == "partial"
    nights.end()


def test_rows_of_a_patient_who_left_an_unreadable_group_stay_live_if_neither_patients_nor_rows_are_read(
    stage: Stage,
) -> None:
    home = Ask("group:A", "bulk", (OBSERVATION,))
    nights = stage.nights(Site(home=home, levels=("group",), readable_groups=False, reads=False))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2"), Join("A", "p1"), Join("A", "p2"))
    nights.sync()
    nights.happens(Leave("A", "p2"))
    first, second, third = (nights.sync(since="none") for _ in range(3))
    assert (first.status, first.evidence, second.status) == ("partial", {"Observation/o2": "doubted"}, "complete")
    assert (third.status, third.dead, third.live) == ("complete", set(), {"Observation/o1", "Observation/o2"})
    assert any("no listing of this connection can show 1 Observation" in note for note in third.notes)


def test_a_search_that_returns_only_another_type_is_a_hole_each_night(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl", CHART), reconcile_every_d=60))
    found = Answer(200, _bundle([{"resourceType": "List", "id": "l1", "status": "current"}], None, None, []))
    server = odd(nights)
    server.hook = lambda server, path, query: found if path == [OBSERVATION] else None
    nights.happens(*pats("p1"), obs("o1", "p1", 0))
    first, second = unjudged(nights), unjudged(nights)
    assert (first.status, first.holes) == ("partial", {"Observation search failed"})
    assert (second.status, second.holes) == (first.status, first.holes)
    server.hook = None
    assert whole(nights)


# patients
def test_a_named_patient_without_rows_in_an_export_without_patients_is_read(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p9", "bulk", (OBSERVATION,)), levels=("patient",)))
    nights.happens(*pats("p1"), obs("o1", "p1", 0))
    night = unjudged(nights)
    assert (night.status, night.holes) == ("partial", {"Patient cohort not-found"})


@pytest.mark.parametrize("how", ["in no index", "withheld"])
def test_a_new_group_member_without_rows_in_the_export_is_a_hole(stage: Stage, how: str) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "bulk", CHART), levels=("group",), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1", 0), obs("o2", "p2"), Join("A", "p1"))
    unjudged(nights)
    nights.happens(Join("A", "p2"))
    secret = [(PATIENT, "p2"), (OBSERVATION, "o2")] if how == "withheld" else []
    nights.happens(*(Withhold(*key) for key in secret))
    sick = (Sick(("Patient/p2", "Observation/o2")),) if how == "in no index" else ()
    night = unjudged(nights, faults=sick)
    assert night.holes == {f"Patient cohort {'restricted' if secret else 'failed'}"}
    nights.happens(*(Permit(*key) for key in secret))
    assert whole(nights)


@pytest.mark.parametrize("types", [(OBSERVATION,), CHART], ids=["observations alone", "with patients"])
def test_group_members_unknown_to_the_server_are_reported_by_a_full_export(
    stage: Stage, types: tuple[str, ...]
) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "bulk", types), levels=("group",), reconcile_every_d=60))
    nights.happens(*pats("p1"), obs("o1", "p1", 0), Join("A", "p1"), Join("A", "p8"), Join("A", "p9"))
    night = unjudged(nights)
    assert (night.status, night.holes) == ("complete", set())
    (told,) = [note for note in night.notes if "whom the server does not have" in note]
    assert told.startswith("Patient: a member of the Group")
    assert told.endswith("(2 x)")


def test_an_empty_export_claims_nothing_even_if_a_member_is_read(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "bulk", CHART), levels=("group",)))
    nights.happens(*pats("p1"), obs("o1", "p1"), Join("A", "p1"), Join("A", "nobody"))
    assert nights.sync().status == "complete"
    nights.happens(Drop(OBSERVATION, "o1"), Withhold(PATIENT, "p1"))
    night = nights.sync(since="none")
    assert (night.status, night.dead) == ("nothing", set())
    assert any("a member of the Group whom the server does not have" in note for note in night.notes)


def test_an_empty_export_of_named_patients_claims_nothing_and_reads_rows_of_deleted_ones(
    stage: Stage,
) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "bulk", (OBSERVATION,)), levels=("patient",), gone=410))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"))
    assert nights.sync().status == "complete"
    nights.happens(Drop(OBSERVATION, "o1"))
    night = nights.sync(since="none")
    assert (night.status, night.live, night.dead) == ("nothing", {"Observation/o1"}, set())
    nights.happens(DropPatient("p1"))
    first, second, third = (nights.sync(since="none") for _ in range(3))
    assert (first.status, first.evidence) == ("partial", {"Observation/o1": "doubted"})
    assert (second.status, second.dead, third.status) == ("nothing", {"Observation/o1"}, "nothing")


def test_a_member_absent_while_the_group_is_unreadable_is_complete_when_back(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "bulk", CHART), levels=("group",), reconcile_every_d=60))
    server = odd(nights)
    nights.happens(*pats("p1", "p2"), obs("o1", "p1", 0), obs("o2", "p2"), Join("A", "p1"), Join("A", "p2"))
    unjudged(nights)
    nights.happens(Leave("A", "p2"), obs("meanwhile", "p2", 0), obs("o3", "p1", 0))
    server.hook = lambda server, path, query: _outcome(503, "transient") if path == ["Group", "A"] else None
    night = unjudged(nights)
    assert (night.status, "Observation/o3" in night.live) == ("complete", True)
    server.hook = None
    nights.happens(Join("A", "p2"), obs("o4", "p1", 0))
    assert whole(nights)


def test_an_export_refused_for_a_merged_patients_former_id_names_only_the_survivor(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2,p3", "bulk", CHART), levels=("patient",), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2", "p3"), *(obs(f"o{n}", f"p{n}") for n in (1, 2, 3)))
    odd(nights).refuses_formers = True
    unjudged(nights)
    nights.happens(Merge("p1", "p2", "redirect"))
    night = unjudged(nights, since="none")
    assert (night.status, night.live, night.dead) == ("complete", nights.at_ehr, {"Patient/p1"})
    nights.happens(Unmerge("p1"))
    unjudged(nights, since="none")
    assert whole(nights, since="none")


def test_rows_filed_under_a_merged_patients_former_id_follow_an_export_of_named_patients(
    stage: Stage,
) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "bulk", CHART), levels=("patient",), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"))
    nights.sync()
    nights.happens(Merge("p1", "p2", "redirect"))
    assert nights.sync(since="none").status == "complete"
    nights.happens(obs("o2", "p1", 0), obs("o3", "p1"))
    news = nights.sync()
    assert (news.status, news.counts) == ("complete", (1, 0, 0, 0))  # o3 has an old date: news cannot tell of it
    full = nights.sync(since="none")
    assert (full.status, full.live) == ("complete", nights.at_ehr)
    nights.happens(Drop(OBSERVATION, "o2"))
    last = nights.sync(since="none")
    assert (last.status, last.live, last.dead) == ("complete", nights.at_ehr, {"Observation/o2", "Patient/p1"})
    nights.end()


def test_an_export_that_is_refused_for_a_parameter_still_names_a_merged_patient_by_both_ids(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "bulk", CHART), levels=("patient",), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"))
    unjudged(nights)
    odd(nights).refused_parameter = "_since"
    nights.happens(Merge("p1", "p2", "redirect"))
    assert unjudged(nights).status == "complete"
    nights.happens(obs("o2", "p1", 0))
    night = unjudged(nights)
    assert (night.status, night.live) == ("complete", nights.at_ehr)


@pytest.mark.parametrize(("who", "mode"), [("all", "bulk"), ("cohort:p1,p2,p3", "bulk"), ("cohort:p1,p3", "crawl")])
def test_a_patient_merged_into_a_withheld_one_is_merged(stage: Stage, who: str, mode: str) -> None:
    nights = stage.nights(Site(home=Ask(who, mode, CHART), levels=("system", "patient"), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2", "p3"), *(obs(f"o{n}", f"p{n}") for n in (1, 3)))
    nights.sync()
    nights.happens(Withhold(PATIENT, "p2"), Merge("p1", "p2", "redirect"))
    night = nights.sync(since="none")
    assert "Patient/p1" in night.dead
    # the refusal is the survivor's: a hole where he is asked for
    assert night.holes == (set() if who == "all" else {f"Patient {'cohort' if mode == 'bulk' else 'read'} restricted"})
    nights.happens(Permit(PATIENT, "p2"))
    nights.end()


@pytest.mark.parametrize("answer", ["unknown", "a redirect"])
def test_a_search_that_denies_an_existing_patient_is_a_hole(stage: Stage, answer: str) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "crawl", CHART), reconcile_every_d=60))
    led = Answer(302, b"", {"Location": f"{BASE}/Patient/p2"})
    found = led if answer == "a redirect" else Answer(400, _issue("error", "not-found", vendor_code="4100"))
    server = odd(nights)
    server.hook = lambda server, path, query: (
        found if path == [OBSERVATION] and query.get("patient") == ["p1"] else None
    )
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p2", 0))
    night = unjudged(nights)
    assert (night.status, night.holes, night.behind) == ("partial", {"Observation search failed"}, {"Observation p1"})
    server.hook = None
    assert whole(nights)


@pytest.mark.parametrize("who", ["cohort:p1,p2,p3,p4", "store"])
def test_an_export_of_named_patients_names_unmerged_patients_again(stage: Stage, who: str) -> None:
    home = Ask(who, "bulk", CHART)
    nights = stage.nights(Site(home=home, levels=("patient",), reconcile_every_d=60))
    nights.happens(*pats("p1", "p2", "p3", "p4"), *(obs(f"o{n}", f"p{n}") for n in range(1, 5)), obs("q", "p4", 0))
    unjudged(nights, Ask("all", "bulk", CHART))
    unjudged(nights)
    nights.happens(Merge("p1", "p3", "redirect"), Merge("p2", "p4", "redirect"))
    merged = unjudged(nights, since="none")
    assert merged.dead == {"Patient/p1", "Patient/p2"}
    nights.happens(Unmerge("p1"), Unmerge("p2"))
    night = unjudged(nights, since="none")
    assert nights.at_ehr <= night.live or night.holes == {"Patient cohort failed"}
    assert whole(nights)
    nights.end()


def test_rows_that_a_withheld_patient_gained_arrive_once_permitted_or_are_reported(stage: Stage) -> None:
    ids = [f"p{n:03}" for n in range(130)]
    nights = stage.nights(Site(home=Ask("all", "bulk", CHART), levels=("patient",), reconcile_every_d=60))
    nights.happens(*pats(*ids), obs("q", ids[-1], 0))
    unjudged(nights)
    last = ids[53]  # of more than are read in one run
    nights.happens(
        obs("gained", last, 0), Withhold(OBSERVATION, "gained"), *(Withhold(PATIENT, one) for one in ids[:54])
    )
    unjudged(nights, since="none")
    nights.happens(Permit(PATIENT, last), Permit(OBSERVATION, "gained"))
    for number in range(8):
        nights.happens(obs(f"q{number}", ids[-1], 0))
        night = unjudged(nights)
        came = "Observation/gained" in night.live
        assert came or any("withheld rows were read" in note for note in night.notes)
    assert came


def test_three_restricted_patients_at_the_head_of_a_cohort_do_not_close_the_type_for_others(stage: Stage) -> None:
    ids = [f"p{n}" for n in range(8)]
    nights = stage.nights(Site(home=Ask(f"cohort:{','.join(ids)}", "crawl", CHART), reconcile_every_d=60))
    nights.happens(*pats(*ids), *(obs(f"o{one}", one, 0) for one in ids))
    restricted = (Refuse(OBSERVATION, 403, tuple(ids[:3])),)
    for number in range(4):
        nights.happens(obs(f"n{number}", ids[-1], 0))
        night = unjudged(nights, faults=restricted)
        assert night.holes == {"Observation search restricted"}
    assert nights.at_ehr - night.live == {"Observation/op0", "Observation/op1", "Observation/op2"}
    assert night.behind == {"Observation p0", "Observation p1", "Observation p2"}


# rows
def test_a_deleted_row_of_a_patient_whose_search_returns_foreign_rows_is_finally_deleted(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "crawl", CHART), incremental=False))
    foreign = observation("foreign", "p3")
    odd(nights).hook = searched_by(lambda: {"p1": [foreign]})
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), obs("o2", "p1"), obs("o3", "p2"))
    unjudged(nights)
    nights.happens(Drop(OBSERVATION, "o1"))
    first = unjudged(nights)
    assert (first.dead, first.holes) == (set(), {"Observation not-found"})
    assert unjudged(nights).dead == {"Observation/o1"}


def test_an_ownerless_row_no_longer_belongs_to_a_patient_whose_search_lacks_its_new_content(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "crawl", CHART), incremental=False))
    versions: dict[str, int] = {}

    def brought() -> dict[str, list[dict[str, Any]]]:
        version = max(versions.values())
        at = f"2020-01-0{version}T00:00:00Z"
        row = observation("x", None, version, at, subject={"identifier": {"value": f"m{version}"}})
        return {patient: [row] for patient, of in versions.items() if of == version}

    odd(nights).hook = searched_by(brought)
    nights.happens(*pats("p1", "p2"))
    for version, patients in enumerate((("p1",), ("p2",), ("p1", "p2"), ("p1",)), start=1):
        versions.update(dict.fromkeys(patients, version))
        unjudged(nights)
        whose = {patient for patient in ("p1", "p2") if "Observation/x" in nights.chart(patient)}
        assert whose == set(patients)


@pytest.mark.parametrize("reads", [True, False])
def test_a_row_no_longer_mentioned_by_a_group_export_is_kept_if_nothing_can_be_read(
    stage: Stage, *, reads: bool
) -> None:
    home = Ask("group:A", "bulk", (*CHART, ORGANIZATION))
    nights = stage.nights(Site(home=home, levels=("group",), incremental=False, reads=reads))
    mentioned = ["g1", "g2"]
    server = odd(nights)

    def beside(job: Job) -> Job:
        rows = [json.dumps(server._ehr.body(server._ehr.rows[ORGANIZATION, one])) for one in mentioned]
        return job._replace(files={**job.files, ORGANIZATION: rows})

    server.exported_as = beside
    nights.happens(*pats("p1"), obs("o1", "p1"), *(Add(ORGANIZATION, one) for one in mentioned), Join("A", "p1"))
    unjudged(nights)
    mentioned.remove("g1")
    for _ in range(4):
        night = unjudged(nights)
        assert (night.status, night.live) == ("complete", nights.at_ehr)
    assert any("no listing of this connection can show 1 Organization" in note for note in night.notes)


def test_another_ehr_at_a_connections_new_address_is_listed_in_full(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "crawl", CHART), reconcile_every_d=60))
    nights.happens(*pats("p1"), obs("o1", "p1", 0), Join("A", "p1"))
    unjudged(nights)
    nights.happens(obs("old", "p1"))
    nights.base_url = "http://other.example/fhir"
    assert whole(nights)
    assert whole(nights)


def test_resources_missing_from_a_restricted_list_of_references_are_read(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1", "crawl"), follow=True))
    ids = [f"d{n}" for n in range(6)]
    nights.happens(*pats("p1"), *(Add(DEVICE, one) for one in ids), Withhold(DEVICE, "d5"))
    nights.happens(*(Add(OBSERVATION, f"of-{one}", "p1", device=one) for one in ids))
    outcome = {"resource": _issue("warning", "forbidden", vendor_code="4130"), "search": {"mode": "outcome"}}

    def hook(server: Server, path: list[str], query: Mapping[str, list[str]]) -> Answer | None:
        if path != [DEVICE] or "_id" not in query:
            return None
        found = [
            server._ehr.body(server._ehr.rows[DEVICE, one]) for one in query["_id"][0].split(",")[:2] if one != "d5"
        ]
        return Answer(200, _bundle(found, None, None, [outcome]))

    odd(nights).hook = hook
    night = unjudged(nights, later=timedelta(hours=1))
    assert (night.status, nights.at_ehr - night.live) == ("complete", {"Device/d5"})
    assert "Device: 1 mentioned and restricted by the server for this client" in night.notes


def test_changes_of_a_deleted_patient_miss_nothing_because_another_chart_was_listed(stage: Stage) -> None:
    types = (OBSERVATION,)
    nights = stage.nights(Site(home=Ask("cohort:p1,p2", "crawl", types), reads=False))
    for number in (1, 2, 3, 4):
        nights.happens(Add(PATIENT, f"p{number}", f"p{number}", age_d=300))
        nights.happens(Add(OBSERVATION, f"o{number}", f"p{number}", age_d=300))
    nights.sync()
    nights.happens(DropPatient("p2"))  # and his chart stays
    for who in ("cohort:p1,p2,p3", "cohort:p1,p2,p3,p4"):  # who is new is listed in full
        night = nights.sync(Ask(who, "crawl", types))
        assert (night.dead, night.evidence) == (set(), {})
    assert night.live == {f"Observation/o{number}" for number in (1, 2, 3, 4)}
