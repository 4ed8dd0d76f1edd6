"""Somebody connects chartferry for the first time: init, config check, a mock EHR, sync, runs, export, pull."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mocks.mock_config import MockConfig
from mocks.serving import serve
from tests.user_site import CHARTFERRY, Done, Site, in_process, key_pair, until


def run(folder: Path, *words: str) -> Done:
    with contextlib.chdir(folder):
        return in_process(*words)


@contextlib.contextmanager
def mock(folder: Path, *words: str) -> Iterator[str]:
    """Serve a mock with the command; yield the configuration that it prints."""
    command = [CHARTFERRY, "mock", "serve", *words]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = list(iter(process.stdout.readline, "\n"))
        yield "".join(lines)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0


@pytest.mark.parametrize("vendor", ["epic", "cerner", "allscripts", "va", "generic"])
def test_the_configuration_that_a_mock_prints_syncs(tmp_path: Path, store_url: str, vendor: str) -> None:
    with mock(tmp_path, "--vendor", vendor, "--patients", "1") as printed:
        config = tmp_path / "chartferry.toml"
        config.write_text(f'[store]\nurl = "{store_url}"\n\n{printed}')
        checked = run(tmp_path, "config", "check")
        assert (checked.code, checked.stderr) == (0, "")
        done = run(tmp_path, "sync", "--json")
        assert done.code == 0, done.stdout + done.stderr
        (report,) = json.loads(done.stdout)["runs"]
        assert report["patients"] == 1
        shown = run(tmp_path, "runs", str(report["id"]), "--json")
        assert json.loads(shown.stdout)["runs"] == [report]
    for file in (tmp_path / "mock-keys").iterdir():
        assert file.stat().st_mode & 0o077 == 0


def test_a_plan_shows_the_requests_and_stores_nothing(site: Site) -> None:
    jwks = key_pair("epic").jwks
    with (
        serve(MockConfig(vendor="epic", patients=2, jwks=jwks)) as epic,
        serve(MockConfig(vendor="cerner", patients=2, jwks=key_pair("cerner").jwks)) as cerner,
    ):
        site.connect(epic)
        site.connect(cerner)
        done = site.run("sync", "--plan", "--json")
        assert done.code == 0, done.stderr
        crawl, bulk = done.json["plans"]
        assert (crawl["mode"], crawl["patients"], crawl["units"]["Patient"]) == ("crawl", 2, 2)
        assert (bulk["mode"], bulk["request"]) == ("bulk", "GET /Group/{group}/$export")
        assert not [*epic.log.of("search"), *epic.log.of("read"), *cerner.log.of("kickoff")]
    assert site.run("runs", "--json").json["runs"] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sync_says_how_to_continue_and_the_next_one_does(
    site: Site, number: signal.Signals, code: int
) -> None:
    config = MockConfig(vendor="epic", patients=3, jwks=key_pair("epic").jwks, latency_s=0.05)
    with serve(config) as served:
        name = site.connect(served)
        process = site.start("sync", "--json")
        until(lambda: served.log.of("search"), process)
        process.send_signal(number)
        out, err = process.communicate()
        assert process.returncode == code, err
        assert "run the same command again" in err
        assert json.loads(out)["exit_code"] == code
        first = site.run("runs", "--json").json["runs"][0]["id"]
        (report,) = site.sync(name)["runs"]
        assert (report["id"], report["status"]) == (first, "complete")


def test_a_stopped_proof_changes_nothing_and_says_so(site: Site) -> None:
    config = MockConfig(vendor="epic", patients=3, jwks=key_pair("epic").jwks, latency_s=0.05)
    with serve(config) as served:
        name = site.connect(served)
        site.sync(name)
        searches = len(served.log.of("search"))
        process = site.start("prove", name, "--json")
        until(lambda: len(served.log.of("search")) > searches, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert "stopped by SIGINT; nothing was changed: run the same command again" in err
    assert json.loads(out)["exit_code"] == 130
    (run_,) = site.run("runs", "--json").json["runs"]
    assert (run_["status"], run_["certificates"]) == ("complete", [])


def test_a_second_sync_of_a_busy_connection_names_the_active_run(site: Site) -> None:
    config = MockConfig(vendor="epic", patients=3, jwks=key_pair("epic").jwks, latency_s=1)
    with serve(config) as served:
        site.connect(served)
        process = site.start("sync")
        until(lambda: served.log.of("search"), process)
        answer = site.sync(code=6)
        assert "run 1" in answer["errors"][0]["error"]
        process.send_signal(signal.SIGTERM)
        process.communicate()


def test_one_connection_that_fails_does_not_stop_the_others(site: Site) -> None:
    with serve(MockConfig(vendor="generic", patients=1, open=True)) as served:
        good = site.connect(served, "good")
        bad = site.connect(served, "bad", base_url="http://127.0.0.1:9/fhir", profile={"retry.max_tries": 1})
        answer = site.sync(code=5)
        assert {run_["connection"]: run_["status"] for run_ in answer["runs"]} == {good: "complete", bad: "failed"}
        assert answer["status"] == "failed"


def test_data_of_several_tenants_never_mixes(site: Site) -> None:
    with serve(MockConfig(vendor="generic", patients=1, open=True)) as served:
        site.connect(served, "north", tenant="north")
        site.connect(served, "south", tenant="south")
        site.sync("north")
        assert "name one with --tenant" in site.run("runs").stderr
        assert len(site.run("runs", "--tenant", "north", "--json").json["runs"]) == 1
        assert site.run("runs", "--tenant", "south", "--json").json["runs"] == []
        assert site.exported("--tenant", "south") == {}
        assert site.exported("--tenant", "north")
