"""Somebody who has never seen chartferry runs the demo, twice."""

from __future__ import annotations

import contextlib
import gzip
import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.demo import print_next
from cli.exit_codes import ExitCode
from config.settings import Settings
from tests.user_site import CHARTFERRY, Done, in_process


def run(folder: Path, *words: str) -> Done:
    with contextlib.chdir(folder):
        return in_process(*words)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the embedded server's own account can reach (for root, pytest closes its folders to all others)."""
    with tempfile.TemporaryDirectory(prefix="cf-") as folder:
        yield Path(folder)


def judge(home: Path, answer: dict, what: str) -> None:
    assert [run_["connection"].split("-")[1] for run_ in answer["runs"]] == ["epic", "cerner", "allscripts", "va"]
    for each in answer["runs"]:
        assert (each["status"], each["patients"]) == ("complete", 2)
        assert each[what] == sum(each["resources"].values())
    for file in answer["export"]["files"]:
        content = (home / answer["export"]["out"] / file["path"]).read_bytes()
        content = gzip.decompress(content) if file["path"].endswith(".gz") else content
        assert len(content) == file["uncompressed_bytes"]
    assert {"Patient.ndjson.gz", "patient.csv.gz"} <= {file["path"] for file in answer["export"]["files"]}


def test_the_demo_syncs_four_vendors_and_a_second_one_finds_nothing_new(home: Path) -> None:
    command = [CHARTFERRY, "demo", "--patients", "2", "--json"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    judge(home, json.loads(done.stdout), "new")
    again = run(home, "demo", "--patients", "2", "--json")
    assert again.code == 0, again.stderr
    judge(home, again.json, "unchanged")


def test_a_demo_interrupted_while_syncing_shows_its_whole_summary_when_run_again(
    home: Path,
) -> None:
    command = [CHARTFERRY, "demo", "--patients", "4", "--dir", "here"]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "kicking off" in line or "server is preparing" in line:
                process.send_signal(signal.SIGINT)
                break
        process.communicate()
        assert process.returncode == 130
    done = run(home, "demo", "--patients", "2", "--dir", "here")
    assert done.code == 0, done.stdout + done.stderr
    for word in (
        "epic",
        "cerner",
        "allscripts",
        "va",
        "retries",
        "Observation",
        "here/export/patient.csv.gz",
        "on disk",
        "Look around",
    ):
        assert word in done.stdout
    assert run(home, "runs", "--config", "here/chartferry.toml").code == 0
    assert {path.name for path in home.iterdir()} == {"here"}


def test_a_failed_demo_says_how_to_continue_and_does_not_suggest_looking_around(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(source=tmp_path / "chartferry.toml")
    print_next(tmp_path, settings, "3 s", ExitCode.FAILED)
    out = capsys.readouterr().out
    assert "Look around" not in out
    assert "Run it again" in out
    assert "runs --config" in out
