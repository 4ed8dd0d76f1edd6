"""Histories in which a run is killed and goes on: what the killed process heard is told, though it is not asked for again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from tests.acceptance.odd_ehr import CHART, obs, odd, pats, unjudged
from tests.histories.answers import Answer, Job, Server, _outcome
from tests.histories.stage import Stage
from tests.histories.steps import OBSERVATION, PATIENT, Ask, Join, Site


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
