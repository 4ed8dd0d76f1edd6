"""Histories in which a run is killed and goes on: what the killed process heard is told, though it is not asked for again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from tests.acceptance.odd_ehr import CHART, obs, odd, pats, unjudged
from tests.histories.answers import Answer, Job, Server, _bundle, _outcome
from tests.histories.nights import observation
from tests.histories.stage import Stage
from tests.histories.steps import OBSERVATION, PATIENT, Ask, Join, Kill, Leave, Site


def test_what_a_file_showed_before_the_run_was_killed_is_told_by_the_run_that_goes_on(stage: Stage) -> None:
    def mixed(job: Job) -> Job:
        return job._replace(files={**job.files, PATIENT: [*job.files[PATIENT], *job.files[OBSERVATION]]})

    nights = stage.nights(Site(home=Ask("all", "bulk", CHART), levels=("patient",)))
    server = odd(nights)
    nights.happens(*pats("p1"), obs("o1", "p1"))
    server.exported_as = mixed
    asked: list[str] = []

    def dies_when_all_is_stored(server: Server, path: list[str], query: Mapping[str, list[str]]) -> Answer | None:
        asked.append(path[0])
        if asked.count("job") > 1:  # to delete the export
            nights.die()
        return None

    server.hook = dies_when_all_is_stored
    assert unjudged(nights).status == "killed"
    server.hook = None
    note = "Patient: the file has other types than the manifest names, stored as what they are: Observation (1 x)"
    assert note in unjudged(nights).notes


def test_what_the_group_said_of_its_members_is_told_by_the_run_that_goes_on(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("group:A", types=CHART)))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), Join("A", "p1"))
    unjudged(nights)
    nights.happens(Join("A", "p2"))
    assert nights.sync(dies_at=OBSERVATION).status == "killed"
    assert "patients new to this selection, listed in full: 1" in nights.sync(later=timedelta(hours=1)).notes


def test_who_has_left_the_group_by_the_time_that_a_killed_run_goes_on_is_no_hole_of_it(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "bulk", CHART), levels=("group",)))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), Join("A", "p1"), Join("A", "p2"))
    assert unjudged(nights, kill=Kill("request", 3)).status == "killed"  # the Group was read, the export not begun
    nights.happens(Leave("A", "p2"))
    night = unjudged(nights, later=timedelta(hours=1))
    assert (night.status, night.holes) == ("complete", set())


def test_what_was_counted_in_resources_that_came_before_is_told_by_the_run_that_goes_on(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1"), follow=True, validate=True))
    nights.happens(*pats("p1"))
    far = {"reference": "https://elsewhere.example/fhir/Device/1"}
    nights.put(observation("o1", "p1", device=far, issued="Doe, Jane"), observation("o2", "p1"))
    assert unjudged(nights, kill=Kill("written", 3)).status == "killed"
    notes = nights.sync(later=timedelta(hours=1)).notes
    assert "references to other servers, never followed: 1" in notes
    (invalid,) = [note for note in notes if "Observation checked are not valid" in note]
    assert invalid.startswith("1 of 2 ")


def test_types_that_were_asked_for_in_vain_before_are_told_of_by_the_run_that_goes_on(stage: Stage) -> None:
    vain = [f"{one}Request" for one in ("Device", "Medication", "Service")]
    vain += [
        "CarePlan",
        "CareTeam",
        "Claim",
        "Consent",
        "Coverage",
        "Encounter",
        "Flag",
        "Goal",
        "Immunization",
        "Media",
    ]

    def declares(server: Server, path: list[str], query: Mapping[str, list[str]]) -> Answer | None:
        if path == ["metadata"]:
            said = server._capability()
            param = {"name": "patient", "type": "reference"}
            said["rest"][0]["resource"] += [{"type": one, "searchParam": [param]} for one in vain]
            return Answer(200, said)
        return Answer(200, _bundle([], 0, None, [])) if path[0] in vain else None

    nights = stage.nights(Site(home=Ask("cohort:p1")))
    server = odd(nights)
    nights.happens(*pats("p1"), obs("o1", "p1"))
    server.hook = declares
    assert unjudged(nights, kill=Kill("written", 2)).status == "killed"
    night = unjudged(nights, later=timedelta(hours=1))
    assert any("types requested for each patient" in note for note in night.notes), night


def test_a_search_for_patients_by_their_ids_that_was_refused_is_told(stage: Stage) -> None:
    def refused(server: Server, path: list[str], query: Mapping[str, list[str]]) -> Answer | None:
        return _outcome(410) if path == [PATIENT] and "_id" in query else None

    nights = stage.nights(Site(home=Ask("group:A", types=CHART), batches=True))
    server = odd(nights)
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), Join("A", "p1"), Join("A", "p2"))
    server.hook = refused
    night = unjudged(nights)
    assert (night.status, night.live) == ("complete", nights.at_ehr)
    assert "Patient: a search for some of them by their ids failed: read one by one (1 x)" in night.notes
