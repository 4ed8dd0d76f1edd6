"""separate_environment owns virtual environments for other people's tools, each made from a lock file with hashes.

Nothing of them is ever in chartferry's own environment.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import CommandFailedError
from benchmarks.workplace import tell

CHECKOUT = Path(__file__).resolve().parents[1]


def separate_environment(name: str) -> Path:
    """Return the environment of `benchmarks/<name>.lock`; make it at the first call, and again if the lock has changed.

    Raises:
        CommandFailedError: the environment could not be made, most likely because there is no network.
    """
    lock = Path(__file__).with_name(f"{name}.lock")
    environment = CHECKOUT / f".venv-{name}"
    stamp = environment / ".installed"
    if stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
        return environment
    tell(f"installing {name} into a separate environment")
    shutil.rmtree(environment, ignore_errors=True)
    _do([sys.executable, "-m", "venv", str(environment)])
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _do([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(lock)])
    stamp.write_bytes(lock.read_bytes())
    return environment


def locked_version(name: str, package: str) -> str:
    """Return a package's version in `benchmarks/<name>.lock`."""
    lines = Path(__file__).with_name(f"{name}.lock").read_text().splitlines()
    return next(line.split("==")[1].split()[0] for line in lines if line.startswith(f"{package}=="))


def _do(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFailedError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
