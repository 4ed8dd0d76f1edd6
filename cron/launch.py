"""Runs one scheduled command: one at a time, within a deadline, in a clean environment; passes its exit code on.

Uses only the standard library, so that it starts even if chartferry's environment is broken, and can say so. The command itself
decides what to do, and whether a second run of the same connection may begin (the store has a lock too).

    python3 -P cron/launch.py --deadline 6h --log FILE -- chartferry sync

No file name and no message contains the command's arguments, because one of them may be a patient's id.
Exit codes: the command's own; 6 the line is still running; 124 deadline passed; 127 command not found; 128+n signal n.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

EXIT_BUSY = 6  # the same code as `chartferry`'s own "busy"
EXIT_NO_FILE = 5  # the same code as `chartferry`'s own "failed"
EXIT_DEADLINE = 124  # as timeout(1)
EXIT_NOT_FOUND = 127  # as sh(1)
SIGNAL_BASE = 128
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
DROPPED = re.compile(r"^(PYTHON\w*|__PYVENV_LAUNCHER__|VIRTUAL_ENV)$")


def seconds(text: str) -> float:
    """Read "90", "45s", "30m", "6h" or "1d" as seconds; ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not found:
        raise ValueError(text)
    return float(found[1]) * UNITS[found[2]]


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without PYTHONPATH, PYTHON* and virtualenv leftovers: the command finds its own modules.

    A folder on PYTHONPATH that holds another `config/` or `cli/` would otherwise shadow ours.
    """
    kept = {name: value for name, value in environ.items() if not DROPPED.match(name)}
    return {"LANG": "C.UTF-8", **kept}


def find_command(name: str, environ: Mapping[str, str]) -> str | None:
    """Return the program's path: beside this interpreter, in the checkout's .venv, or on PATH (cron's PATH is short)."""
    if "/" in name:
        return name if os.access(name, os.X_OK) else None
    beside = [Path(sys.executable).parent, Path(__file__).resolve().parents[1] / ".venv" / "bin"]
    path = os.pathsep.join([*map(str, beside), environ.get("PATH", os.defpath)])
    return shutil.which(name, path=path)


def lock_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of lock files: the user's state directory, which survives a reboot and needs no root."""
    state = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "/tmp")) / ".local" / "state")  # noqa: S108
    return Path(state) / "chartferry" / "locks"


def lock_name(command: Sequence[str]) -> str:
    """Return a file name made of the command and a hash of its whole line; only equal lines share a name."""
    line = "\0".join([Path(command[0]).name, *command[1:]])
    return f"{'-'.join(_spoken(command))}-{hashlib.sha256(line.encode()).hexdigest()[:16]}.lock"


def _spoken(command: Sequence[str]) -> list[str]:
    """Return the parts of a command that may appear in messages: its program and, if it is a plain word, its subcommand."""
    program = re.sub(r"[^\w.-]+", "-", Path(command[0]).name)
    return [program, *(word for word in command[1:2] if re.fullmatch(r"[a-z]{2,12}", word))]


def take_lock(path: Path) -> int | None:
    """Return the descriptor of an exclusive lock, or None when another process holds it.

    The command inherits the descriptor, so that the lock lasts as long as the command even if the launcher is killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def run(
    command: Sequence[str],
    *,
    lock: int,
    environ: Mapping[str, str],
    deadline: float | None,
    grace: float,
    log: int | None = None,
) -> int:
    """Run the command until it ends, its deadline passes, or we get a signal (passed on); SIGTERM first, SIGKILL after `grace`.

    Its output goes to the descriptor `log`, or else to our own output.
    """
    child = subprocess.Popen(  # noqa: S603
        command, env=dict(environ), pass_fds=(lock,), start_new_session=True, stdout=log, stderr=log
    )
    passed_on: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        passed_on.append(number)
        _signal_group(child, signal.SIGKILL if len(passed_on) > 1 else number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        code = child.wait(deadline)
    except subprocess.TimeoutExpired:
        _say(f"the deadline of {deadline:g} s has passed: SIGTERM, and SIGKILL in {grace:g} s")
        _signal_group(child, signal.SIGTERM)
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            _signal_group(child, signal.SIGKILL)
            child.wait()
        return EXIT_DEADLINE
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else SIGNAL_BASE - code


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    if child.poll() is None:
        os.killpg(child.pid, number)


def _say(text: str) -> None:
    sys.stderr.write(f"launch: {text}\n")
    sys.stderr.flush()


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="launch.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--deadline", type=seconds, help="end the command after this long: 90, 45s, 30m, 6h")
    parser.add_argument("--grace", type=seconds, default=60.0, help="from SIGTERM to SIGKILL (default 60s)")
    parser.add_argument("--lock", type=Path, help="lock file (default: one per command line, in the state directory)")
    parser.add_argument("--log", type=Path, help="append the command's output here; a line on stderr if it fails")
    parser.add_argument("command", nargs="+", help="after --: the command and its arguments")
    wanted, unknown = parser.parse_known_args(argv)
    if unknown:  # argparse would quote them
        parser.error("unknown launcher option; put -- before the command")
    return wanted


def main(argv: Sequence[str] | None = None) -> int:
    """Run one line of the crontab; the module's docstring explains the exit codes."""
    wanted = _arguments(sys.argv[1:] if argv is None else argv)
    environ = clean_environment(os.environ)
    program = find_command(wanted.command[0], environ)
    if program is None:
        _say(f"no program {wanted.command[0]!r} beside this Python, in .venv/bin or on PATH; run `./run setup` once")
        return EXIT_NOT_FOUND
    os.umask(0o077)
    path = wanted.lock or lock_folder(environ) / lock_name(wanted.command)
    try:
        lock = take_lock(path)
        if wanted.lock is None:
            path.parent.chmod(0o700)
        log = None if wanted.log is None else _opened_log(wanted.log)
    except OSError as exc:
        _say(f"{exc.filename or path} cannot be used: {exc.strerror}; nothing started")
        return EXIT_NO_FILE
    if lock is None:
        _say(f"the same line is still running (it holds {path}); nothing started")
        return EXIT_BUSY
    command = [program, *wanted.command[1:]]
    code = run(command, lock=lock, environ=environ, deadline=wanted.deadline, grace=wanted.grace, log=log)
    if code and wanted.log is not None:
        _say(f"{' '.join(_spoken(wanted.command))} ended with exit code {code}; its output is in {wanted.log}")
    return code


def _opened_log(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


if __name__ == "__main__":
    sys.exit(main())
