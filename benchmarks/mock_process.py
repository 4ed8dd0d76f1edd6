"""mock_process owns running one mock EHR in a process of its own, so that its CPU and memory are not the client's.

As a program (`python -m benchmarks.mock_process`) it reads a MockConfig as JSON from its first line of input, prints where it
serves as a JSON line, and ends when its input does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mocks.mock_config import MockConfig
from mocks.serving import serve

REPOSITORY = Path(__file__).resolve().parents[1]


@contextmanager
def mock_ehr(**config: Any) -> Iterator[dict[str, Any]]:
    """Serve a mock EHR until the block ends; give `base_url`, `group_ids` and `patient_ids`. `config` is as MockConfig's."""
    command = [sys.executable, "-m", "benchmarks.mock_process"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(config, default=str) + "\n")
            process.stdin.flush()
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(30)


def main() -> None:
    """Serve what the first line of input asks for until the input ends."""
    config = json.loads(sys.stdin.readline())
    config["data"] = Path(config["data"])
    for name in ("groups", "bulk_levels"):
        if name in config:
            config[name] = tuple(config[name])
    with serve(MockConfig(**config)) as served:
        where = {
            "base_url": served.base_url,
            "group_ids": list(served.group_ids),
            "patient_ids": list(served.patient_ids),
        }
        sys.stdout.write(json.dumps(where) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
