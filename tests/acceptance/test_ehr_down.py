"""An EHR that is away: what a user sees of it, what the next syncs ask, and how it heals."""

from __future__ import annotations

from mocks.faults import Action, FaultRule, Match
from tests.user_site import Site, mock, reachable


def test_an_ehr_that_goes_away_is_told_everywhere_asked_once_and_healed(site: Site) -> None:
    with mock("generic", bulk_levels=()) as served:
        site.connect(
            served,
            name="mercy",
            profile={"retry.max_tries": 2, "limits.breaker_failures": 4, "limits.breaker_open_s": 3000},
        )
        away = FaultRule(match=Match(purpose="search"), first=15, action=Action(status=503))
        served.faults.add(away)
        run = site.sync(code=3)["runs"][0]
        assert run["retry_budget"]["spent"] > 0
        assert run["retry_budget"]["left"] > 0
        assert run["down_until"] is not None
        assert any("until" in note and "the answer was 503" in note for note in run["notes"])
        assert run["requests"] < 80

        shown = site.run("runs")
        assert "down     mercy: until " in shown.stdout
        listed = site.run("runs", "--json").json
        assert [(one["connection"], one["reason"]) for one in listed["down"]] == [("mercy", "the answer was 503")]
        assert listed["runs"][0]["down_until"] == run["down_until"]

        served.faults.clear()
        served.faults.add(FaultRule(action=Action(status=503)))
        served.log.clear()
        failed = site.sync(code=5)["runs"][0]
        assert served.log.total == 1
        assert "the answer was 503" in failed["error"]

        served.faults.clear()
        assert site.sync()["runs"][0]["down_until"] is None
        assert "down     " not in site.run("runs").stdout
        live = site.exported()
        assert {key: live.get(key) for key in reachable(served)} == reachable(served)


def test_quiet_hours_that_allow_nothing_say_what_to_set(site: Site) -> None:
    with mock("generic") as served:
        quiet = {"limits.quiet_hours": "00:00-00:00", "limits.quiet_max_concurrency": 0, "limits.quiet_wait_s": 0}
        site.connect(served, profile=quiet)
        run = site.sync(code=5)["runs"][0]
        assert served.log.total == 0
    assert "quiet_hours = 00:00-00:00 (UTC)" in run["error"]
    assert "profile.limits.quiet_max_concurrency" in run["error"]


def test_a_time_zone_that_does_not_exist_is_a_configuration_error(site: Site) -> None:
    with mock("generic") as served:
        site.connect(
            served, name="mercy", profile={"limits.quiet_hours": "07:00-19:00", "limits.time_zone": "Mars/Olympus"}
        )
    done = site.run("config", "check")
    assert done.code == 2
    assert "time_zone" in done.stdout + done.stderr
