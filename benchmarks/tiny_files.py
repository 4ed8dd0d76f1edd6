"""tiny_files measures a bulk export of 20,000 files of four rows each, from a server without limits (F30).

Beside it a bare aiohttp loop downloads the same files over as many connections.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any

import aiohttp

from benchmarks.crawl import received
from benchmarks.figures import Figure
from benchmarks.lean_server import GROUP, lean_ehr
from benchmarks.workplace import Workplace, tell

BAR = 400.0
FILES = 20_000
CONCURRENCY = 20


def run(place: Workplace) -> list[Figure]:
    """Measure bare loop and sync in turns; the figures are medians."""
    data = place.data()
    bare, rates, peaks, cpu, notes = [], [], [], [], set()
    rows = max(1, data.rows // FILES)
    with lean_ehr(data.plain, files=data.rows, rows_per_file=rows) as ehr:
        for turn in range(place.runs):
            tell(f"{ehr['files']:,} tiny files, turn {turn + 1} of {place.runs}")
            bare.append(asyncio.run(_bare_loop(ehr["base_url"])))
            tenant = place.tenant()
            config = place.configure(tenant, {
                "vendor": "generic", "base_url": ehr["base_url"], "auth": "none", "mode": "bulk", "group": GROUP,
                "profile": {"limits": {"max_concurrency": CONCURRENCY, "file_concurrency": CONCURRENCY}},
            })  # fmt: skip
            done = place.chartferry(config, "sync", "--json")
            place.drop(tenant)
            report: dict[str, Any] = done.json["runs"][0]
            rates.append(ehr["files"] / report["seconds"])
            cpu.append(1000 * done.cpu_s / ehr["files"])
            peaks.append(done.peak_mb)
            lost = ehr["file_rows"] - received(report)
            notes.add(f"LOST {lost:,} rows" if lost else f"{ehr['files']:,} files of {rows} rows, all stored")
    return [
        Figure(
            name=f"bulk sync of tiny files, {CONCURRENCY} connections", value=median(rates), unit="files/s", limit=median(bare),
            limit_name="bare aiohttp loop, as many workers", bar=BAR, bar_on="at least", peak_mb=max(peaks),
            samples=tuple(rates), note="; ".join(sorted(notes)),
        ),
        Figure(
            name="bulk sync of tiny files, CPU", value=median(cpu), unit="ms/file", samples=tuple(cpu),
            note="start-up included",
        ),
    ]  # fmt: skip


async def _bare_loop(base_url: str) -> float:
    headers = {"Accept": "application/fhir+ndjson"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:
        async with session.get(f"{base_url}/jobs/1") as answer:
            manifest = await answer.json()
        files = iter(manifest["output"])

        async def worker() -> None:
            for file in files:
                async with session.get(file["url"]) as answer:
                    answer.raise_for_status()
                    await answer.read()

        begins = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
        return len(manifest["output"]) / (time.perf_counter() - begins)
