"""crawl measures `chartferry sync --mode crawl` over 20 connections, at 0 and at 50 ms latency of every answer.

At 0 ms the charts are whole, with at most 100 rows per page: this measures how fast resources reach the store. At 50 ms they are
shortened: this measures how full the connections are kept. Beside both run a bare aiohttp loop with as many workers that requests
the same pages, and the same crawl without a store. The server is `lean_server`, so that the figures measure client and Postgres.
References and attachments, which are separate steps after the searches, are off; at 0 ms a second crawl has them on.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from benchmarks.figures import Figure
from benchmarks.lean_server import lean_ehr
from benchmarks.processes import Measured, measure
from benchmarks.workplace import DataSet, Workplace, copy_in, make_data_set, tell
from mocks.synthetic import generate_patient, shared_resources

RESOURCES_BAR = 20_000.0
IDEAL_BAR = 0.97
CPU_BAR_MS = 1.0
CONCURRENCY = 20
LATENCY_S = 0.05
PAGE_ROWS = 100  # Epic pages may hold 1,000 rows, Cerner's of Observations 200 (vendor-facts 1.6, 2.5)
PATIENTS = 1_600  # 16,000 requests: 40 s at the ideal rate, so that login and the end matter little
VISITS = 4  # the charts are shortened: this measures requests, not bytes
TYPES = (
    "AllergyIntolerance", "Condition", "DiagnosticReport", "DocumentReference", "Encounter", "Immunization",
    "MedicationRequest", "Observation", "Patient", "Procedure",
)  # fmt: skip
_NEXT = re.compile(rb'"relation":"next","url":"([^"]+)"')


def run(place: Workplace) -> list[Figure]:
    """Measure bare loop, crawl and crawl without a store in turns, at both latencies; the figures are medians."""
    whole = place.data()
    tell(f"generating {PATIENTS} short charts")
    short = make_data_set(place.folder / "short", _short_charts())
    return [*_at(place, whole, 0.0), *_at(place, short, LATENCY_S)]


@dataclass
class _Turn:
    """The results of one turn at one latency."""

    bare: float  # requests/s
    sync: Mapping[str, Any]
    sync_cpu_s: float
    whole: Mapping[str, Any] | None  # the report of a crawl that follows references and reads attachments too
    storeless: Mapping[str, float]
    rows_limit: float  # rows/s of a bare COPY
    peak_mb: float


def _at(place: Workplace, data: DataSet, latency_s: float) -> list[Figure]:
    turns: list[_Turn] = []
    with lean_ehr(data.plain, types=TYPES, page_size=PAGE_ROWS, latency_s=latency_s) as ehr:
        base_url, patients = ehr["base_url"], ehr["patient_ids"]
        _, started = sync(place, base_url, patients[:1])  # ten requests: the cost of a start
        for turn in range(place.runs):
            tell(f"crawl at {latency_s * 1000:.0f} ms, turn {turn + 1} of {place.runs}")
            bare = asyncio.run(bare_loop(base_url, patients))
            report, done = sync(place, base_url, patients)
            whole, _ = (None, None) if latency_s else sync(place, base_url, patients, searches_only=False)
            turns.append(_Turn(
                bare, report, done.cpu_s - started.cpu_s, whole, _storeless(place, base_url, patients),
                _rows_limit(place, data), done.peak_mb,
            ))  # fmt: skip
    per_page = f"{ehr['rows'] / ehr['pages']:.0f} rows a page, {1000 * data.megabytes / data.rows:.1f} kB a row"
    if latency_s:
        per_page += f"; served after {1000 * ehr['latency_s']:.1f} ms"
    return list(_figures(turns, latency_s, per_page))


def _figures(turns: Sequence[_Turn], latency_s: float, note: str) -> Iterator[Figure]:
    name = f"crawl at {latency_s * 1000:.0f} ms, {CONCURRENCY} connections"
    requests = [turn.sync["requests"] / turn.sync["seconds"] for turn in turns]
    resources = [received(turn.sync) / turn.sync["seconds"] for turn in turns]
    bare = median(turn.bare for turn in turns)
    loop = "bare aiohttp loop, as many workers"
    retries = sum(turn.sync["retries"] for turn in turns)
    if retries:
        note += f"; {retries} RETRIES"
    if latency_s:
        yield Figure(
            name=name, value=median(requests), unit="requests/s", limit=CONCURRENCY / latency_s, samples=tuple(requests),
            limit_name="semaphore's ideal, concurrency / latency", bar=IDEAL_BAR,
            peak_mb=max(turn.peak_mb for turn in turns), note=note,
        )  # fmt: skip
        yield Figure(name=name, value=median(requests), unit="requests/s", limit=bare, limit_name=loop)
    else:
        yield Figure(
            name=name, value=median(resources), unit="resources/s", limit=median(turn.rows_limit for turn in turns),
            limit_name="bare COPY of the same rows into jsonb", bar=RESOURCES_BAR, bar_on="at least", samples=tuple(resources),
            peak_mb=max(turn.peak_mb for turn in turns), note=note,
        )  # fmt: skip
        yield Figure(
            name=name, value=median(requests), unit="requests/s", limit=bare, limit_name=loop, samples=tuple(requests)
        )
        entire = [received(turn.whole) / turn.whole["seconds"] for turn in turns if turn.whole is not None]
        yield Figure(
            name=f"{name}, references and attachments too", value=median(entire), unit="resources/s", samples=tuple(entire),
            limit=median(resources), limit_name="the searches alone",
        )  # fmt: skip
    cpu = [1000 * turn.sync_cpu_s / turn.sync["requests"] for turn in turns]
    storeless = [1000 * turn.storeless["cpu_s"] / turn.storeless["requests"] for turn in turns]
    yield Figure(
        name=f"{name}, CPU", value=median(cpu), unit="ms/request", bar=CPU_BAR_MS, bar_on="at most", samples=tuple(cpu),
        limit=median(storeless), limit_name="the same crawl without a store",
    )  # fmt: skip


def sync(
    place: Workplace,
    base_url: str,
    patients: Sequence[str],
    *,
    connections: int = CONCURRENCY,
    searches_only: bool = True,
) -> tuple[Mapping[str, Any], Measured]:
    """Crawl these patients into an empty tenant, then drop it; return the run's report and the measured command."""
    tenant = place.tenant()
    profile: dict[str, Any] = {"limits": {"max_concurrency": connections}, "search": {"page_size": PAGE_ROWS}}
    if searches_only:
        profile |= {"references": {"follow": []}, "attachments": {"fetch": False}}
    config = place.configure(tenant, {
        "vendor": "generic", "base_url": base_url, "auth": "none", "mode": "crawl", "types": list(TYPES),
        "cohort": f"file:{cohort(place.folder, patients)}",
        "profile": profile,
    })  # fmt: skip
    try:
        done = place.chartferry(config, "sync", "--json")
    finally:
        place.drop(tenant)
    return done.json["runs"][0], done


def received(report: Mapping[str, Any]) -> int:
    """Return the number of resources that a run received."""
    return sum(report["resources"].values())


def _storeless(place: Workplace, base_url: str, patients: Sequence[str]) -> Mapping[str, float]:
    named = str(cohort(place.folder, patients))
    command = [sys.executable, "-m", "benchmarks.fetch_only", base_url, named, str(CONCURRENCY), *TYPES]
    figures: Mapping[str, float] = json.loads(measure(command, Path(__file__).parents[1]).output)
    return figures


def _rows_limit(place: Workplace, data: DataSet) -> float:
    with place.table(data) as table:
        begins = time.perf_counter()
        copy_in(place.url, table, data)
        return data.rows / (time.perf_counter() - begins)


def _short_charts(seed: int = 43) -> Iterator[dict[str, Any]]:
    """Yield patients with their first visits only: entries refer only to earlier ones, so a chart's beginning is complete."""
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


def cohort(folder: Path, patients: Sequence[str]) -> Path:
    """Write the patients' ids in a form that chartferry and smart-fetch read."""
    path = folder / f"cohort-{len(patients)}.csv"
    path.write_text("\n".join(chain(["id"], patients)) + "\n")
    return path


async def bare_loop(base_url: str, patients: Sequence[str]) -> float:
    """Request every page of every search, keep nothing; return requests/s."""
    urls = iter([
        f"{base_url}/Patient/{patient}" if kind == "Patient" else f"{base_url}/{kind}?patient={patient}&_count={PAGE_ROWS}"
        for patient in patients
        for kind in TYPES
    ])  # fmt: skip
    done = 0
    headers = {"Accept": "application/fhir+json"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:

        async def worker() -> None:
            nonlocal done
            for first in urls:
                url: str | None = first
                while url:
                    async with session.get(url) as answer:
                        answer.raise_for_status()
                        body = await answer.read()
                    done += 1
                    found = _NEXT.search(body[:500])
                    url = found[1].decode() if found else None

        begins = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
        return done / (time.perf_counter() - begins)
