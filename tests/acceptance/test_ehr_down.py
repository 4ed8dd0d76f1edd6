"""An EHR that is away: what a user sees of it, what the next syncs ask, and how it heals."""

from __future__ import annotations

from typing import Any

import pytest

from mocks.faults import Action, FaultRule, Match
from tests.acceptance.small_server import Small, bundle, row, small_server, statement
from tests.user_site import Site, mock, reachable


def test_an_ehr_that_goes_down_is_reported_everywhere_probed_once_and_caught_up_later(site: Site) -> None:
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


def test_quiet_hours_without_requests_name_the_setting(site: Site) -> None:
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


class Shy:
    """A server of one patient that fails on /metadata while `fails`; its smart-configuration, if any, says where to log in."""

    def __init__(self, small: Small, *, smart: bool = True) -> None:
        self.fails = True
        self._smart = {"token_endpoint": f"{small.base}/token"} if smart else None
        small.answer = self.answer

    def answer(self, path: str, query: dict[str, str]) -> Any:
        token = {"access_token": "x", "token_type": "bearer", "expires_in": 300}
        if path == "/metadata":
            return (503, b"", {}) if self.fails else statement("Patient", "Goal")
        login = {"/.well-known/smart-configuration": self._smart, "/token": token}
        rows = {"/Patient": bundle(row("Patient", "p1")), "/Goal": bundle(row("Goal", "g1", "p1"))}
        return login.get(path) or rows.get(path) or {"/Patient/p1": row("Patient", "p1")}.get(path)


LOGIN = {"client_id": "c", "client_secret": "env:A_SECRET"}


def test_failing_metadata_is_reported_and_the_run_continues_like_the_last_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    with small_server() as small:
        shy = Shy(small)
        site.connect(small.served, types=["Patient", "Goal"], **LOGIN)
        first = site.sync(code=5)["runs"][0]
        shy.fails = False
        site.sync()
        shy.fails = True
        run = site.sync()["runs"][0]
        checked = site.run("config", "check", "--connect")
    assert '`mode = "crawl"`' in first["error"]
    assert (run["status"], run["mode"], run["deleted"]) == ("complete", "crawl", 0)
    assert any("CapabilityStatement could not be fetched (HTTP 503" in note for note in run["notes"])
    assert (checked.code, "warn" in checked.stdout) == (0, True)
    assert len(site.exported()) == 2


def test_a_login_that_needs_failing_metadata_names_the_setting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    with small_server() as small:
        Shy(small, smart=False)
        site.connect(small.served, "lost", mode="crawl", **LOGIN)
        lost = site.sync("lost", code=5)["runs"][0]
        token = {"login.token_url": f"{small.base}/token"}
        site.connect(small.served, "told", mode="crawl", types=["Patient", "Goal"], profile=token, **LOGIN)
        run = site.sync("told")["runs"][0]
    assert "where to log in is not known" in lost["error"]
    assert "profile.login.token_url" in lost["error"]
    assert run["status"] == "complete"
