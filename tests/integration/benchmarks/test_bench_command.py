"""The bench runs as documented on a small amount of data; its bars are for quiet machines and are not checked here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def test_the_bench_prints_syncs_and_exports_beside_their_limits(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks", "bulk_sync", "ndjson_export", "csv_export",
            "--megabytes", "1", "--runs", "1", "--results", str(tmp_path),
        ],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    (result,) = tmp_path.glob("*.json")
    figures = json.loads(result.read_bytes())["figures"]
    assert all(figure["value"] > 0 for figure in figures)
    assert {figure["unit"] for figure in figures if figure["limit"]} == {"MB/s", "rows/s"}
    assert "all that the group reaches" in figures[0]["note"]
