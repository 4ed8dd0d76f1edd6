"""processes owns running a command as a user would and measuring it from outside: wall time, peak memory, what it printed."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHARTFERRY = Path(sys.executable).parent / "chartferry"
_SAMPLE_S = 0.01


class CommandFailedError(Exception):
    """A measured command did not end with code 0; the message has its last output."""


@dataclass(frozen=True)
class Measured:
    """One command that ended with code 0. Seconds run from before the start of the process until its end."""

    seconds: float
    peak_mb: float
    cpu_s: float
    output: str

    @property
    def json(self) -> Any:
        """Its output parsed as JSON: the last line if it printed several."""
        return json.loads(self.output.strip().splitlines()[-1])


def measure(arguments: Sequence[str], cwd: Path) -> Measured:
    """Run a command to its end and measure it.

    Peak memory is the kernel's high-water mark (VmHWM), read every 10 ms. `ru_maxrss` is unsuitable: it counts the pages of
    this process, which the child shares until its exec. Python caches compiled modules, as it does for users, even if the caller
    has turned that off: compiling ours again takes an eighth of a small sync's CPU.

    Raises:
        CommandFailedError: it did not end with code 0.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begins = time.perf_counter()
        with subprocess.Popen(
            list(arguments), cwd=cwd, env=environment, stdout=out, stderr=err, stdin=subprocess.DEVNULL
        ) as process:
            peak = 0.0
            while process.poll() is None:
                peak = max(peak, _high_water_mb(process.pid))
                time.sleep(_SAMPLE_S)
        seconds = time.perf_counter() - begins
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        out.seek(0)
        if process.returncode:
            err.seek(0)
            last_words = (out.read() + err.read())[-3000:].decode(errors="replace")
            raise CommandFailedError(f"{' '.join(arguments)} ended with {process.returncode}:\n{last_words}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Measured(seconds, peak, cpu, out.read().decode())


def _high_water_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has just ended, or this is no Linux
        return 0.0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
