"""A vendor is one data file and one mock manner: a toy vendor is added to a copy of the house, served and synced."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("config", "snapshots", "connectors", "exports", "cli", "mocks", "cron")
PROFILE = '''"""Toy Health: an R4 server that takes ten patients at a time."""

from __future__ import annotations

from connectors.fhir.profile import LimitsProfile, ReferencesProfile, SearchProfile, VendorProfile

TOY = VendorProfile(
    name="toy",
    label="Toy Health",
    mode="crawl",
    limits=LimitsProfile(max_concurrency=2),
    search=SearchProfile(types=("Patient", "Observation"), lists_patients=True),
    references=ReferencesProfile(id_batch=10),
)
'''
MANNER = '''"""Toy Health as a mock: a plain R4 server under a name of its own."""

from __future__ import annotations

from dataclasses import replace

from mocks.manners.generic import GENERIC

TOY = replace(GENERIC, vendor="toy")
'''
COMMAND = [sys.executable, "-c", "from cli.main import main; main()"]


def house_with_a_toy_vendor(folder: Path) -> dict[str, str]:
    """Copy the house, add the two files; gives the environment in which Python imports the copy."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "connectors/fhir/vendors/toy.py").write_text(PROFILE)
    (folder / "mocks/manners/toy.py").write_text(MANNER)
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": ""}


@contextmanager
def served(folder: Path, environ: dict[str, str]) -> Iterator[str]:
    words = ["mock", "serve", "--vendor", "toy", "--patients", "2"]
    with subprocess.Popen([*COMMAND, *words], cwd=folder, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield "".join(iter(process.stdout.readline, "\n"))
        process.send_signal(signal.SIGINT)


def test_a_vendor_that_is_one_data_file_and_one_manner_is_served_and_synced(tmp_path: Path, store_url: str) -> None:
    folder = tmp_path / "house"
    environ = house_with_a_toy_vendor(folder)
    with served(folder, environ) as printed:
        assert 'vendor = "toy"' in printed
        (folder / "chartferry.toml").write_text(f'[store]\nurl = "{store_url}"\n\n{printed}')
        done = subprocess.run(
            [*COMMAND, "sync", "--json"], cwd=folder, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (report,) = json.loads(done.stdout)["runs"]
    assert report["patients"] == 2
    assert {"Patient", "Observation"} <= set(report["resources"])
