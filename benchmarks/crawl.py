"""crawl measures `chartferry sync --mode crawl` over 20 connections, at 0 and at 50 ms latency of every answer.

At 50 ms the limit is the semaphore's ideal, concurrency / latency. At 0 ms it is what a bare aiohttp loop of as many workers
gets from the same mock for the same searches, in the same run; at 50 ms that loop is shown too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import chain, takewhile
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from benchmarks.figures import Figure
from benchmarks.mock_process import mock_ehr
from benchmarks.workplace import DataSet, Workplace, make_data_set, tell
from mocks.synthetic import generate_patient, shared_resources

BAR = 0.95
CONCURRENCY = 20
LATENCY_S = 0.05
PATIENTS = 800  # 8,000 requests: 20 s at the ideal rate, so that login and tail weigh little
VISITS = 4  # the charts are cut short: requests are measured here, not bytes
TYPES = (
    "AllergyIntolerance", "Condition", "DiagnosticReport", "DocumentReference", "Encounter", "Immunization",
    "MedicationRequest", "Observation", "Patient", "Procedure",
)  # fmt: skip


def run(place: Workplace) -> list[Figure]:
    """Measure bare loop and crawl in turns at both latencies; the figures are medians."""
    tell(f"generating {PATIENTS} short charts")
    data = make_data_set(place.folder / "short", _short_charts())
    return [*_at(place, data, 0.0), *_at(place, data, LATENCY_S)]


def _at(place: Workplace, data: DataSet, latency_s: float) -> list[Figure]:
    bare, requests, resources, peaks, retries = [], [], [], [], 0
    with mock_ehr(vendor="generic", data=data.gz, open=True, latency_s=latency_s) as ehr:
        cohort = _cohort(place.folder, ehr["patient_ids"])
        for turn in range(place.runs):
            tell(f"crawl at {latency_s * 1000:.0f} ms, turn {turn + 1} of {place.runs}")
            bare.append(asyncio.run(_bare_loop(ehr["base_url"], ehr["patient_ids"])))
            tenant = place.tenant()
            config = place.configure(tenant, {
                "vendor": "generic", "base_url": ehr["base_url"], "auth": "none", "mode": "crawl", "types": list(TYPES),
                "cohort": f"file:{cohort}", "profile": {"max_concurrency": CONCURRENCY, "page_size": 500},
            })  # fmt: skip
            done = place.chartferry(config, "sync", "--json")
            report = done.json["runs"][0]
            requests.append(report["requests"] / report["seconds"])
            resources.append(sum(report["resources"].values()) / report["seconds"])
            retries += report["retries"]
            peaks.append(done.peak_mb)
            place.drop(tenant)
    name = f"crawl at {latency_s * 1000:.0f} ms, {CONCURRENCY} connections"
    loop = "bare aiohttp loop, as many workers"
    ideal = CONCURRENCY / latency_s if latency_s else None
    rate = Figure(
        name=name, value=median(requests), unit="requests/s", limit=ideal or median(bare), samples=tuple(requests),
        limit_name="semaphore's ideal, concurrency / latency" if ideal else loop, bar=BAR if ideal else None,
        peak_mb=max(peaks), note=f"{retries} retries" if retries else "",
    )  # fmt: skip
    figures = [rate, Figure(name=name, value=median(resources), unit="resources/s", samples=tuple(resources))]
    if ideal:
        figures.insert(
            1, Figure(name=name, value=median(requests), unit="requests/s", limit=median(bare), limit_name=loop)
        )
    return figures


def _short_charts(seed: int = 43) -> Iterator[dict[str, Any]]:
    """Yield patients with their first visits only: an entry refers to earlier ones, so a chart's beginning is whole."""
    hospital = shared_resources(seed)
    yield from hospital
    for number in range(PATIENTS):
        visits = 0

        def wanted(resource: dict[str, Any]) -> bool:
            nonlocal visits
            if resource["resourceType"] == "Encounter":
                visits += 1
            return visits <= VISITS

        yield from takewhile(wanted, generate_patient(number, seed, hospital=hospital))


def _cohort(folder: Path, patients: list[str]) -> Path:
    path = folder / "cohort.csv"
    path.write_text("\n".join(chain(["id"], patients)) + "\n")
    return path


async def _bare_loop(base_url: str, patients: list[str]) -> float:
    urls = iter([
        f"{base_url}/Patient?_id={patient}" if kind == "Patient" else f"{base_url}/{kind}?patient={patient}&_count=500"
        for patient in patients
        for kind in TYPES
    ])  # fmt: skip
    done = 0
    headers = {"Accept": "application/fhir+json"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:

        async def worker() -> None:
            nonlocal done
            for url in urls:
                async with session.get(url) as answer:
                    answer.raise_for_status()
                    await answer.read()
                    done += 1

        begins = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
        return done / (time.perf_counter() - begins)
