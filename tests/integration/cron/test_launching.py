"""The launcher with real processes, locks and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).resolve().parents[3] / "cron" / "launch.py"
# says that it is there, then ends as told: on SIGTERM with 42 ("polite"), or never ("stubborn")
WAITER = """
import signal, sys, time
signal.signal(signal.SIGTERM, (lambda *_: sys.exit(42)) if sys.argv[1] == "polite" else signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def line(tmp_path: Path, *options: str, command: list[str]) -> list[str]:
    return [sys.executable, "-P", str(LAUNCHER), "--lock", str(tmp_path / "one.lock"), *options, "--", *command]


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", code, *args]


@pytest.mark.parametrize("code", [0, 3, 5])
def test_the_exit_code_of_the_command_is_passed_on(tmp_path: Path, code: int) -> None:
    done = subprocess.run(line(tmp_path, command=python(f"raise SystemExit({code})")), check=False)
    assert done.returncode == code


def test_death_by_signal_is_128_and_its_number(tmp_path: Path) -> None:
    killed = python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run(line(tmp_path, command=killed), check=False).returncode == 137


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    done = subprocess.run(line(tmp_path, command=["no-such-program"]), capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "no-such-program" in done.stderr


def test_the_command_does_not_see_pythonpath_and_writes_for_its_owner_only(tmp_path: Path) -> None:
    code = "import os, pathlib; print('PYTHONPATH' in os.environ); pathlib.Path('f').touch()"
    done = subprocess.run(
        line(tmp_path, command=python(code)),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "False\n"
    assert (tmp_path / "f").stat().st_mode & 0o077 == 0


def test_a_second_start_of_the_same_line_ends_busy_and_a_later_one_runs(tmp_path: Path) -> None:
    with subprocess.Popen(line(tmp_path, command=python(WAITER, "polite")), stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"ready\n"
        second = subprocess.run(line(tmp_path, command=python("")), capture_output=True, text=True, check=False)
        assert second.returncode == 6
        assert "still running" in second.stderr
        first.send_signal(signal.SIGTERM)  # passed on: the command ends as it wishes
        assert first.wait() == 42
    assert subprocess.run(line(tmp_path, command=python("")), check=False).returncode == 0


def test_the_lock_lasts_as_long_as_the_command_when_the_launcher_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(line(tmp_path, command=python(WAITER, "polite")), stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        first.kill()
        first.wait()
        again = line(tmp_path, command=python(""))
        assert subprocess.run(again, check=False, capture_output=True).returncode == 6
        os.kill(int(children[0]), signal.SIGTERM)
        assert first.stdout.read() == b""  # end of file: the command has ended
    assert subprocess.run(again, check=False).returncode == 0


@pytest.mark.parametrize("manner", ["polite", "stubborn"])
def test_after_the_deadline_the_command_is_ended_whatever_it_says(tmp_path: Path, manner: str) -> None:
    command = line(tmp_path, "--deadline", "0.4s", "--grace", "0.3s", command=python(WAITER, manner))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 124
    assert "deadline of 0.4 s" in done.stderr


def test_a_failed_command_leaves_its_words_in_the_log_and_one_line_for_the_mail(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "cron.log"
    failing = python("import sys; print('out'); sys.stdout.flush(); sys.exit('what was found')", "patient-7")
    for _ in range(2):  # appended
        done = subprocess.run(
            line(tmp_path, "--log", str(log), command=failing), capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stdout == ""
        assert str(log) in done.stderr
        assert "patient-7" not in done.stderr
    assert log.read_text() == "out\nwhat was found\n" * 2
    assert log.stat().st_mode & 0o077 == 0
    quiet = line(tmp_path, "--log", str(log), command=python("print('well')"))
    assert subprocess.run(quiet, capture_output=True, text=True, check=True).stderr == ""


def test_locks_are_kept_in_a_folder_of_their_owner(tmp_path: Path) -> None:
    command = [sys.executable, "-P", str(LAUNCHER), "--", *python("")]
    subprocess.run(command, env={**os.environ, "XDG_STATE_HOME": str(tmp_path)}, check=True)
    assert (tmp_path / "chartferry" / "locks").stat().st_mode & 0o777 == 0o700
