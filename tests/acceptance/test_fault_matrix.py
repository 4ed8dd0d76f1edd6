"""Every fault of the catalogue, on a real socket, in a whole sync: what it costs that night, and that the next one heals it.

The cases are data, in `fault_cases`; docs/faults.md tells them to a reader. What needs two processes is here.
"""

from __future__ import annotations

import pytest

from tests.acceptance.fault_cases import CASES
from tests.acceptance.faulted import BUSY, COMPLETE, FAILED, PROFILE, Case, faulted, live, rule
from tests.user_site import Site, in_process, mock, reachable, until


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_fault_costs_only_what_it_must_and_the_next_run_heals_it(case: Case, site: Site, store_url: str) -> None:
    with faulted(case, site, store_url) as night:
        if case.good_night_before:
            assert night.sync().code == 0
        night.strike()
        first = night.sync()
        night.judge_faulted(first)
        struck = night.served.faults.hits
        assert struck or not case.rules, "the fault did not strike"
        night.end()
        night.judge_healed(night.sync(*case.advice))


def test_f49_a_second_worker_is_turned_away_and_begins_no_second_export(site: Site, store_url: str) -> None:
    with mock("cerner", polls=30, patients=2) as served:
        site.connect(served)
        first = site.start("sync", "--json")
        until(lambda: served.log.of("kickoff"), first)
        second = in_process("sync", "--json", "--config", str(site.folder / "chartferry.toml"))
        output, _ = first.communicate()
        kickoffs = sum(entry.purpose == "kickoff" for entry in served.log)
        expected = reachable(served)
    assert (second.code, first.returncode, kickoffs) == (BUSY, 0, 1), output
    assert "busy" in second.stdout
    stored = live(store_url)
    assert {key: stored.get(key) for key in expected} == expected


def test_f7_a_job_of_our_own_that_an_earlier_run_left_is_found_and_deleted(site: Site, store_url: str) -> None:
    words = ("--config", str(site.folder / "chartferry.toml"))
    with mock("cerner", polls=1, patients=2) as served:
        site.connect(served, profile={**PROFILE, "retry.max_tries": 2})
        served.faults.add(rule("status", action={"status": 503, "body": "html"}))
        assert in_process("sync", "--json", *words).code == FAILED
        served.faults.clear()
        served.log.clear()
        other = in_process("sync", "--json", "--types", "Patient,Condition", *words)
        deletions = sum(entry.purpose == "delete" for entry in served.log)
        assert (other.code, deletions) == (COMPLETE, 2), other.stdout
        assert in_process("sync", "--json", *words).code == COMPLETE
        expected = reachable(served)
    stored = live(store_url)
    assert {key: stored.get(key) for key in expected} == expected
