"""bulk_sync measures `chartferry sync --mode bulk` into an empty store against a bare COPY of the same bytes into a jsonb table.

References and attachments are off in all figures except two, whose limit is the files alone. The mock runs in its own process and
answers the first poll with the manifest, so that the figures measure work, not waiting.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

from benchmarks.figures import Figure
from benchmarks.mock_process import mock_ehr
from benchmarks.processes import Measured
from benchmarks.workplace import CLIENT_ID, DataSet, Workplace, copy_in, tell

BAR = 0.6
BAR_ENTIRE, BAR_ENTIRE_AGAIN = 0.85, 0.8  # for the files alone
SHARED = frozenset({"Group", "Location", "Medication", "Organization", "Practitioner", "PractitionerRole"})


def run(place: Workplace) -> list[Figure]:
    """Measure limit and sync in turns; the figures are medians."""
    data = place.data()
    limits, within, entire, entire_again, whole, again, peaks, note = [], [], [], [], [], [], [], ""
    with mock_ehr(
        vendor="generic", data=data.gz, client_id=CLIENT_ID, jwks=place.jwks, polls=0, retry_after_s=0
    ) as ehr:
        _sync(place, ehr["base_url"])  # not counted: the mock makes its files at the first download, and keeps them
        for turn in range(place.runs):
            tell(f"bulk sync, {data.megabytes:.0f} MB, turn {turn + 1} of {place.runs}")
            with place.table(data) as table:
                begins = time.perf_counter()
                copy_in(place.url, table, data)
                limits.append(data.megabytes / (time.perf_counter() - begins))
            done, second = _sync(place, ehr["base_url"])
            all_first, all_again = _sync(place, ehr["base_url"], whole=True)
            entire.append(data.megabytes / all_first.json["runs"][0]["seconds"])
            entire_again.append(data.megabytes / all_again.json["runs"][0]["seconds"])
            again.append(data.megabytes / second.json["runs"][0]["seconds"])
            report = done.json["runs"][0]
            note = arrived(data, report["resources"])
            within.append(data.megabytes / report["seconds"])
            whole.append(data.megabytes / done.seconds)
            peaks.append(done.peak_mb)
    limit, limit_name = median(limits), "bare COPY of the same bytes into jsonb"
    return [
        Figure(
            name="bulk sync, the run", value=median(within), unit="MB/s", limit=limit, limit_name=limit_name, bar=BAR,
            peak_mb=max(peaks), samples=tuple(within), note=note,
        ),
        Figure(
            name="bulk sync, the run, references and attachments too", value=median(entire), unit="MB/s",
            limit=median(within), limit_name="the files alone", bar=BAR_ENTIRE, samples=tuple(entire),
        ),
        Figure(
            name="bulk sync, the command from start to exit", value=median(whole), unit="MB/s", limit=limit,
            limit_name=limit_name, samples=tuple(whole),
        ),
        Figure(
            name="bulk sync, the run", value=median(within) * data.rows / data.megabytes, unit="rows/s",
            limit=limit * data.rows / data.megabytes, limit_name=limit_name,
        ),
        Figure(
            name="bulk sync again, unchanged, the run", value=median(again), unit="MB/s", limit=limit,
            limit_name=limit_name, samples=tuple(again), note="writes no row",
        ),
        Figure(
            name="bulk sync again, unchanged, references and attachments too", value=median(entire_again), unit="MB/s",
            limit=median(again), limit_name="the files alone, unchanged", bar=BAR_ENTIRE_AGAIN, samples=tuple(entire_again),
        ),
    ]  # fmt: skip


def _sync(place: Workplace, base_url: str, *, whole: bool = False) -> tuple[Measured, Measured]:
    """Sync into an empty tenant, then again without changes; drop the tenant."""
    tenant = place.tenant()
    profile = {} if whole else {"references": {"follow": []}, "attachments": {"fetch": False}}
    connection = {"vendor": "generic", "base_url": base_url, "mode": "bulk", "profile": profile}
    config = place.configure(tenant, connection | place.login())
    try:
        return place.chartferry(config, "sync", "--json"), place.chartferry(config, "sync", "--json")
    finally:
        place.drop(tenant)


def arrived(data: DataSet, received: Mapping[str, int]) -> str:
    """Return what arrived. A group export has the patients' compartments, and only the shared resources that a chart mentions."""
    lost = {
        kind: rows - received.get(kind, 0)
        for kind, rows in data.rows_by_type.items()
        if kind not in SHARED and received.get(kind, 0) != rows
    }
    if lost:
        return f"LOST {sum(lost.values()):,} resources of {', '.join(sorted(lost))}"
    outside = sum(rows - received.get(kind, 0) for kind, rows in data.rows_by_type.items() if kind in SHARED)
    return f"{sum(received.values()):,} resources, all that the group reaches; {outside} shared ones that no chart mentions"
