"""Somebody sets chartferry up where the package index cannot be reached."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


SAID = (
    ({"HTTPS_PROXY": "http://me:hunter2@127.0.0.1:9"}, "The proxy (http://****@127.0.0.1:9) refuses pip"),
    ({"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}, "Cannot reach the package index"),
)


def test_setting_up_without_network_says_so_in_one_line_each_time(tmp_path: Path) -> None:
    for name in ("run", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    kept = {
        key: value for key, value in os.environ.items() if "proxy" not in key.lower() and not key.startswith("PIP_")
    }
    for settings, message in SAID:
        done = subprocess.run(
            ["./run", "setup"], cwd=tmp_path, env={**kept, **settings}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        *progress, last = done.stderr.splitlines()
        assert last.startswith(message)
        assert "Installing the" in progress[-1]
        assert "hunter2" not in done.stderr
