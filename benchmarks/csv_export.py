"""csv_export measures `chartferry export --format csv`, all built-in views, against a bare COPY out of the rows they read.

The bare COPY computes nothing, so it is the limit of reading, not of reading and tabulating. The command's start does not count.
"""

from __future__ import annotations

import shutil
import time
from statistics import median

import orjson

from benchmarks.figures import Figure
from benchmarks.loaded_store import loaded_store
from benchmarks.workplace import Workplace, copy_in, copy_out, tell

BAR = 0.5  # all views in twice the time of the bare COPY


def run(place: Workplace) -> list[Figure]:
    """Measure limit and export in turns; the figures are medians."""
    data, out = place.data(), place.folder / "csv"
    limits, seconds, peaks, rows, size = [], [], [], 0, 0
    with loaded_store(place) as (_, config), place.table(data) as table:
        copy_in(place.url, table, data)
        for turn in range(place.runs):
            tell(f"CSV export, turn {turn + 1} of {place.runs}")
            begins = time.perf_counter()
            limits.append(copy_out(place.url, table) / 1e6 / (time.perf_counter() - begins))
            done = place.chartferry(config, "export", "--out", str(out), "--format", "csv", "--json")
            files = orjson.loads((out / "manifest.json").read_bytes())["files"]
            rows, size = sum(file["rows"] for file in files), sum(file["uncompressed_bytes"] for file in files)
            peaks.append(done.peak_mb)
            shutil.rmtree(out)
            seconds.append(done.json["seconds"])
    took = median(seconds)
    return [
        Figure(
            name="CSV export, all views, the export", value=data.megabytes / took, unit="MB/s", limit=median(limits),
            limit_name="bare COPY of jsonb out", bar=BAR, peak_mb=max(peaks), samples=tuple(seconds),
            note=f"of NDJSON read; {size / 1e6:.0f} MB of CSV",
        ),
        Figure(name="CSV export, all views, the export", value=rows / took, unit="rows/s"),
    ]  # fmt: skip
