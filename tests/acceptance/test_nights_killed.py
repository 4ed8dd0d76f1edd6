"""Histories in which a run is killed and goes on: what the killed process heard is told, though it is not asked for again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from tests.acceptance.odd_ehr import CHART, obs, odd, pats, unjudged
from tests.histories.answers import Answer, Job, Server, _bundle, _outcome
from tests.histories.nights import observation
from tests.histories.stage import Stage
from tests.histories.steps import OBSERVATION, PATIENT, Ask, Join, Kill, Leave, Site


def test_findings_in_a_file_before_a_kill_are_reported_by_the_resumed_run(stage: Stage) -> None:
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


def test_the_groups_members_before_a_kill_are_known_to_the_resumed_run(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("group:A", types=CHART)))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), Join("A", "p1"))
    unjudged(nights)
    nights.happens(Join("A", "p2"))
    assert nights.sync(dies_at=OBSERVATION).status == "killed"
    assert "patients new to this selection, listed in full: 1" in nights.sync(later=timedelta(hours=1)).notes


def test_a_patient_who_left_the_group_before_a_run_resumed_is_no_hole(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("group:A", "bulk", CHART), levels=("group",)))
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), Join("A", "p1"), Join("A", "p2"))
    assert unjudged(nights, kill=Kill("request", 3)).status == "killed"  # the Group was read, the export not begun
    nights.happens(Leave("A", "p2"))
    night = unjudged(nights, later=timedelta(hours=1))
    assert (night.status, night.holes) == ("complete", set())


def test_counts_from_before_a_kill_are_reported_by_the_resumed_run(stage: Stage) -> None:
    nights = stage.nights(Site(home=Ask("cohort:p1"), follow=True, validate=True))
    nights.happens(*pats("p1"))
    far = {"reference": "https://elsewhere.example/fhir/Device/1"}
    nights.put(observation("o1", "p1", device=far, issued="Doe, Jane"), observation("o2", "p1"))
    assert unjudged(nights, kill=Kill("written", 3)).status == "killed"
    notes = nights.sync(later=timedelta(hours=1)).notes
    assert "references to other servers, never followed: 1" in notes
    (invalid,) = [note for note in notes if "Observation checked are not valid" in note]
    assert invalid.startswith("1 of 2 ")


def test_useless_searches_before_a_kill_are_reported_by_the_resumed_run(stage: Stage) -> None:
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


def test_a_refused_search_for_patients_by_id_is_reported(stage: Stage) -> None:
    def refused(server: Server, path: list[str], query: Mapping[str, list[str]]) -> Answer | None:
        return _outcome(410) if path == [PATIENT] and "_id" in query else None

    nights = stage.nights(Site(home=Ask("group:A", types=CHART), batches=True))
    server = odd(nights)
    nights.happens(*pats("p1", "p2"), obs("o1", "p1"), Join("A", "p1"), Join("A", "p2"))
    server.hook = refused
    night = unjudged(nights)
    assert (night.status, night.live) == ("complete", nights.at_ehr)
    assert "Patient: a search for some of them by their ids failed: read one by one (1 x)" in night.notes
