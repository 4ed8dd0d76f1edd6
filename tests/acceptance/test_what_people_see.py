"""What somebody at a terminal, or with a log, sees of plans, runs and proofs."""

from __future__ import annotations

import signal
from urllib.parse import unquote

import psycopg

from mocks.faults import Action, FaultRule, Match
from mocks.keys import make_key_pair
from mocks.mock_config import MockConfig
from mocks.serving import serve
from tests.user_site import Site, key_pair, mock, until


def test_a_plan_shows_the_since_of_the_next_sync_and_says_that_it_fetches_nothing(site: Site) -> None:
    with mock("cerner") as cerner, mock("epic") as epic:
        site.connect(cerner, "bulky", profile={"changes.incremental": True})
        site.connect(epic, "crawly", profile={"changes.incremental": True})
        first = site.run("sync", "--plan")
        assert first.stdout.count("everything, without _since") == 2
        site.sync()
        bulk, crawl = site.run("sync", "--plan", "--json").json["plans"]
        shown = site.run("sync", "--plan")
        kicked_off = len(cerner.log.of("kickoff"))
        site.sync()
        sent = cerner.log.of("kickoff")[kicked_off].target
    assert unquote(sent).partition("_since=")[2].partition("&")[0] == bulk["since"]["*"]
    assert crawl["since"]
    assert next(iter(crawl["since"].values())) in shown.stdout
    for word in ("fetching", "kicking off", "downloading"):
        assert word not in first.stderr + shown.stderr


def test_a_run_says_why_it_failed_and_what_to_do_next(site: Site) -> None:
    with serve(MockConfig(vendor="cerner", patients=1, jwks=make_key_pair().jwks)) as served:
        name = site.connect(served)
        failed = site.sync(code=5)["runs"][0]["id"]
    shown = site.run("runs", str(failed)).stdout
    assert f"failed   {name}: " in shown
    assert f"next     fix the cause, then `chartferry sync {name}`" in shown


def test_an_interrupted_runs_clock_stops_and_it_says_how_to_continue(site: Site) -> None:
    with serve(MockConfig(vendor="epic", patients=3, jwks=key_pair("epic").jwks, latency_s=0.05)) as served:
        site.connect(served)
        process = site.start("sync")
        until(lambda: served.log.of("search"), process)
        process.send_signal(signal.SIGINT)
        process.communicate()
        planned = site.run("sync", "--plan")
        (plan,) = site.run("sync", "--plan", "--json").json["plans"]
    assert f"run {plan['open_run']['run']}, which began" in planned.stdout
    assert "the next sync resumes it; " in planned.stdout
    assert plan["open_run"]["fate"] == "resumed"
    assert 0 < sum(plan["open_run"]["left"].values()) <= plan["open_run"]["units"]
    with psycopg.connect(site._store_url, autocommit=True) as conn:
        conn.execute("UPDATE tenant_default.run SET started_at = started_at - interval '9 hours'")
        conn.execute("UPDATE tenant_default.unit SET ended_at = ended_at - interval '9 hours'")
        conn.execute("UPDATE tenant_default.pace SET saved_at = saved_at - interval '9 hours'")
    (run,) = site.run("runs", "--json").json["runs"]
    assert (run["status"], run["seconds"] < 3600) == ("interrupted", True)
    shown = site.run("runs", str(run["id"])).stdout
    assert "with the options that it had, resumes it" in shown
    assert f"chartferry runs discard {run['id']}" in shown


def test_a_proof_shows_notable_types_and_the_others_only_on_request(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        quiet = site.run("prove", name).stdout
        whole = site.run("prove", name, "--all").stdout
        with psycopg.connect(site._store_url, autocommit=True) as conn:
            conn.execute("DELETE FROM tenant_default.resource WHERE resource_type = 'Condition'")
        lacking = site.run("prove", name).stdout
    assert "Observation" not in quiet
    assert "equal" in quiet
    assert "Observation" in whole
    assert "Condition" in lacking
    assert "Observation" not in lacking


def test_waits_for_answers_and_pauses_are_shown_while_they_last(site: Site) -> None:
    silent = FaultRule(match=Match(purpose="search"), nth=1, action=Action(delay_s=4))
    pause = FaultRule(match=Match(purpose="discovery"), nth=1, action=Action(status=503, headers={"Retry-After": "4"}))
    config = MockConfig(vendor="epic", patients=1, jwks=key_pair("epic").jwks, faults=(silent, pause))
    with serve(config) as served:
        site.connect(served, profile={"limits.max_concurrency": 1})
        shown = site.run("sync").stderr
    waits = [line.partition("waiting: ")[2].rpartition(", ")[0] for line in shown.splitlines() if "waiting: " in line]
    assert set(waits) == {"the EHR refused the request, or did not answer it yet; trying again", "the EHR's answer"}
