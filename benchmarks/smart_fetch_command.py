"""smart_fetch_command owns smart-fetch as a program: its virtual environment, from `smart-fetch.lock`, and its command lines.

Only benchmarks use it, and never in chartferry's environment. `smart_fetch` measures it; `smart_fetch_faults` observes it under
faults.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import CommandFailedError
from benchmarks.workplace import tell

LOCK = Path(__file__).with_name("smart-fetch.lock")
ENVIRONMENT = Path(__file__).resolve().parents[1] / ".venv-smart-fetch"


def smart_fetch_program() -> Path:
    """Return the path of smart-fetch; make its environment at the first call, and again if the lock has changed.

    Raises:
        CommandFailedError: the environment could not be made, most likely because there is no network.
    """
    stamp = ENVIRONMENT / ".installed"
    program = ENVIRONMENT / "bin" / "smart-fetch"
    if stamp.is_file() and stamp.read_bytes() == LOCK.read_bytes():
        return program
    tell("installing smart-fetch into a separate environment")
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    _do([sys.executable, "-m", "venv", str(ENVIRONMENT)])
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _do([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(LOCK)])
    stamp.write_bytes(LOCK.read_bytes())
    return program


def smart_fetch_version() -> str:
    """Return the version in the lock file."""
    lines = LOCK.read_text().splitlines()
    return next(line.split("==")[1].split()[0] for line in lines if line.startswith("smart-fetch=="))


def smart_fetch(
    verb: str, out: Path, base_url: str, types: Sequence[str], *options: str, compress: bool = True
) -> list[str]:
    """Return the command line of a `smart-fetch crawl` or `bulk`. It must not split searches, so that both send the same ones."""
    return [
        str(smart_fetch_program()), verb, str(out), "--fhir-url", base_url, "--type", ",".join(types), "--no-default-filters",
        *([] if compress else ["--no-compression"]), *options,
    ]  # fmt: skip


def _do(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFailedError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
