"""chart_pull reproduces the figures that led to this architecture: one chart of about 5 MB, fetched in three ways.

Baseline: page after page of the server's size, uncompressed, one request at a time, through a rate-limited EHR: about 15 s. Then
`chartferry pull` through the same EHR, and `chartferry pull --stored`, which delivers the snapshot without contacting an EHR.
"""

from __future__ import annotations

import time
from statistics import median

import httpx
import orjson

from benchmarks.figures import Figure
from benchmarks.mock_process import mock_ehr
from benchmarks.workplace import Workplace, make_data_set, tell
from mocks.synthetic import generate_chart

CHART_MB = 5.0
PAGE = 50  # rows, if the client does not ask for more
LATENCY_S = 0.1  # of every answer
BANDWIDTH = 1_000_000.0  # bytes/s of the whole EHR: 5 s for the chart, the rest of the 15 s is latency
SECONDS_BAR = 1.0
KILOBYTES_BAR = 500.0
TYPES = (
    "AllergyIntolerance", "CarePlan", "CareTeam", "Condition", "Device", "DiagnosticReport", "DocumentReference", "Encounter",
    "Goal", "Immunization", "MedicationRequest", "Observation", "Patient", "Procedure",
)  # fmt: skip


def run(place: Workplace) -> list[Figure]:
    """Measure the baseline once, pull and delivery several times; the figures are medians."""
    data = make_data_set(place.folder / "chart", generate_chart(seed=7, megabytes=CHART_MB))
    pulls, pull_peaks, in_a_pull = [], [], 0
    ehr_config = {"open": True, "latency_s": LATENCY_S, "bandwidth_bytes_s": BANDWIDTH, "page_size": PAGE}
    with mock_ehr(vendor="generic", data=data.gz, **ehr_config) as ehr:
        patient = ehr["patient_ids"][0]
        tell(f"sequential uncompressed pull of a chart of {data.megabytes:.1f} MB")
        baseline, requests, received = sequential_pull(ehr["base_url"], patient)
        for turn in range(place.runs):
            tell(f"chartferry pull, turn {turn + 1} of {place.runs}")
            tenant = place.tenant()
            config = place.configure(tenant, {
                "vendor": "generic", "base_url": ehr["base_url"], "auth": "none", "types": list(TYPES),
            })  # fmt: skip
            out = place.folder / f"pulled-{turn}.ndjson.gz"
            done = place.chartferry(config, "pull", "ehr", patient, "--out", str(out), "--json")
            in_a_pull = done.json["run"]["requests"]
            pulls.append(done.seconds)
            pull_peaks.append(done.peak_mb)
    deliveries, sizes, peaks = [], [], []
    for turn in range(place.runs * 3):
        tell(f"delivery of the stored chart, turn {turn + 1} of {place.runs * 3}")
        out = place.folder / f"delivered-{turn}.ndjson.gz"
        done = place.chartferry(config, "pull", "ehr", patient, "--stored", "--out", str(out))
        deliveries.append(done.seconds)
        sizes.append(out.stat().st_size / 1000)
        peaks.append(done.peak_mb)
    return [
        Figure(
            name=f"chart of {CHART_MB:.0f} MB: sequential, uncompressed", value=baseline, unit="s",
            note=f"{requests} requests, {received / 1e6:.1f} MB; EHR of {LATENCY_S * 1000:.0f} ms and {BANDWIDTH / 1e6:.0f} MB/s",
        ),
        Figure(
            name="chart: chartferry pull, same EHR", value=median(pulls), unit="s", limit=baseline,
            limit_name="sequential, uncompressed", samples=tuple(pulls), peak_mb=max(pull_peaks),
            note=f"{baseline / median(pulls):.1f} times as fast, {in_a_pull} requests",
        ),
        Figure(
            name="chart: delivery of the stored snapshot", value=median(deliveries), unit="s", limit=baseline,
            limit_name="sequential, uncompressed", bar=SECONDS_BAR, bar_on="at most",
            samples=tuple(deliveries), peak_mb=max(peaks),
            note=f"{baseline / median(deliveries):.0f} times as fast, process start to file",
        ),
        Figure(
            name="chart: size of the delivered file", value=median(sizes), unit="kB", limit=data.bytes / 1000,
            limit_name="plain NDJSON", bar=KILOBYTES_BAR, bar_on="at most",
        ),
    ]  # fmt: skip


def sequential_pull(base_url: str, patient: str) -> tuple[float, int, int]:
    """Fetch the chart as a simple script would; return seconds, requests and body bytes."""
    begins, requests, size = time.perf_counter(), 0, 0
    headers = {"Accept": "application/fhir+json", "Accept-Encoding": "identity"}
    with httpx.Client(headers=headers, timeout=60) as client:
        for kind in TYPES:
            name = "_id" if kind == "Patient" else "patient"
            url: str | None = f"{base_url}/{kind}?{name}={patient}"
            while url is not None:
                answer = client.get(url).raise_for_status()
                requests += 1
                size += len(answer.content)
                links = orjson.loads(answer.content).get("link", ())
                url = next((link["url"] for link in links if link["relation"] == "next"), None)
    return time.perf_counter() - begins, requests, size
