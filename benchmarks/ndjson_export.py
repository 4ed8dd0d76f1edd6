"""ndjson_export measures `chartferry export --format ndjson` of the whole store against a bare COPY out of the same rows.

The bar is for the export by itself; the whole command, with its start, is a figure beside it.
"""

from __future__ import annotations

import shutil
import time
from statistics import median

from benchmarks.figures import Figure
from benchmarks.loaded_store import loaded_store
from benchmarks.workplace import Workplace, copy_in, copy_out, gunzipped_size, tell

BAR = 0.9


def run(place: Workplace) -> list[Figure]:
    """Measure limit and export in turns; the figures are medians."""
    data, out = place.data(), place.folder / "ndjson"
    limits, within, whole, peaks, ratio = [], [], [], [], 0.0
    with loaded_store(place) as (_, config), place.table(data) as table:
        copy_in(place.url, table, data)
        for turn in range(place.runs):
            tell(f"NDJSON export, turn {turn + 1} of {place.runs}")
            begins = time.perf_counter()
            limits.append(copy_out(place.url, table) / 1e6 / (time.perf_counter() - begins))
            done = place.chartferry(config, "export", "--out", str(out), "--format", "ndjson", "--json")
            files = list(out.glob("*.ndjson.gz"))
            size = sum(map(gunzipped_size, files)) / 1e6
            ratio = size * 1e6 / sum(path.stat().st_size for path in files)
            shutil.rmtree(out)
            within.append(size / done.json["seconds"])
            whole.append(size / done.seconds)
            peaks.append(done.peak_mb)
    limit, limit_name = median(limits), "bare COPY of jsonb out"
    return [
        Figure(
            name="NDJSON export, the export", value=median(within), unit="MB/s", limit=limit,
            limit_name=limit_name, bar=BAR, peak_mb=max(peaks), samples=tuple(within),
            note=f"gzip {ratio:.1f}x",
        ),
        Figure(
            name="NDJSON export, the command from start to exit", value=median(whole), unit="MB/s", limit=limit,
            limit_name=limit_name, samples=tuple(whole),
        ),
    ]  # fmt: skip
