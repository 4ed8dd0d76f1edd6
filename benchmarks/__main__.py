"""The bench command: `python -m benchmarks [MEASUREMENT…]` prints one table and writes bench-results/<UTC time>.json.

Exit codes: 0 every bar is met, 1 a bar is missed, 2 a measurement failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import (
    bulk_sync,
    chart_pull,
    crawl,
    csv_export,
    ndjson_export,
    smart_fetch,
    store,
    table_layout,
    tiny_files,
    view_export,
    view_runners,
)
from benchmarks.figures import Figure, print_behaviours, print_figures, write_json
from benchmarks.processes import CommandFailedError
from benchmarks.workplace import Workplace, tell

MEASUREMENTS = {
    "bulk_sync": bulk_sync.run,
    "crawl": crawl.run,
    "files": tiny_files.run,
    "store": store.run,
    "table_layout": table_layout.run,
    "ndjson_export": ndjson_export.run,
    "csv_export": csv_export.run,
    "view_export": view_export.run,
    "view_runners": view_runners.run,
    "chart_pull": chart_pull.run,
    "smart-fetch": smart_fetch.run,
}
QUIET_LOAD = 0.5


def main() -> int:
    """Run the requested measurements, one after the other; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="./run bench", description="Measurements, each beside a limit measured in the same run."
    )
    parser.add_argument(
        "measurements", nargs="*", metavar="MEASUREMENT", help=f"any of {', '.join(MEASUREMENTS)}; default: all"
    )
    parser.add_argument("--megabytes", type=int, default=100, help="size of the generated data (default 100)")
    parser.add_argument(
        "--runs", type=int, default=3, help="how often to repeat each measurement; figures are medians (default 3)"
    )
    parser.add_argument("--results", type=Path, default=Path("bench-results"), help="folder for the JSON")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.measurements if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"unknown measurement {', '.join(unknown)}; allowed: {', '.join(MEASUREMENTS)}")
    load = os.getloadavg()[0]
    if load > QUIET_LOAD:
        tell(f"the machine is busy (load {load:.2f}): figures and limits will both be worse")
    figures: list[Figure] = []
    failed = False
    with (
        tempfile.TemporaryDirectory(prefix="chartferry-bench-", ignore_cleanup_errors=True) as folder,
        Workplace(Path(folder).resolve(), arguments.megabytes, arguments.runs) as place,
    ):
        for name in arguments.measurements or MEASUREMENTS:
            try:
                figures += MEASUREMENTS[name](place)
            except CommandFailedError as exc:
                failed = True
                tell(f"{name} failed: {exc}")
    print_figures(figures)
    if place.behaviours:
        print_behaviours(place.behaviours, "smart-fetch")
    settings = {"megabytes": arguments.megabytes, "runs": arguments.runs, "load_at_start": load}
    tell(f"written to {write_json(figures, place.behaviours, arguments.results, settings)}")
    return 2 if failed else int(any(figure.passed is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
