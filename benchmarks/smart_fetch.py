"""smart_fetch measures chartferry beside smart-fetch, on the same server and in turns: one bulk export, one crawl, six faults.

Each is timed as a user would time it, from the start of the command to its end. smart-fetch writes files; chartferry stores in
Postgres, with comparison, keys and history. `lean_server` serves both. smart-fetch's five connections cannot be changed, so both
crawl with five.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median

from benchmarks import smart_fetch_faults
from benchmarks.crawl import PAGE_ROWS, TYPES, cohort, received, sync
from benchmarks.figures import Figure
from benchmarks.lean_server import GROUP, lean_ehr
from benchmarks.processes import Measured, measure
from benchmarks.smart_fetch_command import smart_fetch, smart_fetch_program, smart_fetch_version
from benchmarks.workplace import Workplace, tell

CONNECTIONS = 5
ROWS_PER_FILE = 5_000

# all that `smart-fetch bulk --type` accepts (1.0.3); both fetch these
THEIR_TYPES = frozenset({
    "AllergyIntolerance", "Condition", "Device", "DiagnosticReport", "DocumentReference", "Encounter", "EpisodeOfCare",
    "Immunization", "MedicationDispense", "MedicationRequest", "Observation", "Patient", "Procedure",
    "ServiceRequest", "Specimen",
})  # fmt: skip


def run(place: Workplace) -> list[Figure]:
    """Measure both in turns; the figures are medians. The workplace keeps what both do under faults."""
    smart_fetch_program()
    figures = [*_bulk(place), *_crawl(place)]
    place.behaviours += smart_fetch_faults.run(place)
    return figures


def _bulk(place: Workplace) -> list[Figure]:
    data = place.data()
    ours: list[float] = []
    packed: list[float] = []
    plain: list[float] = []
    with lean_ehr(data.plain, files=10**6, rows_per_file=ROWS_PER_FILE) as ehr:
        types = sorted(THEIR_TYPES & data.rows_by_type.keys())
        count = ehr["file_rows"]  # the server sends every file whatever is requested: the same to both
        for turn in range(place.runs):
            tell(f"bulk beside smart-fetch, turn {turn + 1} of {place.runs}")
            for rates, compress in ((packed, True), (plain, False)):
                done = _theirs(place, "bulk", ehr["base_url"], types, "--group", GROUP, compress=compress)
                rates.append(count / done.seconds)
            tenant = place.tenant()
            config = place.configure(tenant, {
                "vendor": "generic", "base_url": ehr["base_url"], "auth": "none", "mode": "bulk", "group": GROUP,
                "types": types, "profile": {"references": {"follow": []}, "attachments": {"fetch": False}},
            })  # fmt: skip
            done = place.chartferry(config, "sync", "--json")
            place.drop(tenant)
            assert received(done.json["runs"][0]) == count
            ours.append(count / done.seconds)
    name = "bulk, start to end"
    return [
        _beside(name, ours, packed, "as it comes: gzip files"),
        _beside(name, ours, plain, "--no-compression", bar=None),
    ]


def _crawl(place: Workplace) -> list[Figure]:
    data = place.data()
    ours, theirs = [], []
    with lean_ehr(data.plain, types=TYPES, page_size=PAGE_ROWS) as ehr:
        ids = str(cohort(place.folder, ehr["patient_ids"]))
        for turn in range(place.runs):
            tell(f"crawl beside smart-fetch, turn {turn + 1} of {place.runs}")
            done = _theirs(place, "crawl", ehr["base_url"], TYPES, "--id-file", ids, compress=False)
            theirs.append(ehr["rows"] / done.seconds)
            report, done = sync(place, ehr["base_url"], ehr["patient_ids"], connections=CONNECTIONS)
            assert received(report) == ehr["rows"]
            ours.append(ehr["rows"] / done.seconds)
    return [_beside(f"crawl, {CONNECTIONS} connections, start to end", ours, theirs, "--no-compression", bar=2.0)]


def _theirs(
    place: Workplace, verb: str, base_url: str, types: tuple[str, ...] | list[str], *options: str, compress: bool
) -> Measured:
    out: Path = place.folder / "smart-fetch"
    shutil.rmtree(out, ignore_errors=True)
    return measure(smart_fetch(verb, out, base_url, types, *options, compress=compress), place.folder)


def _beside(name: str, ours: list[float], theirs: list[float], how: str, bar: float | None = 1.0) -> Figure:
    return Figure(
        name=name, value=median(ours), unit="resources/s", limit=median(theirs),
        limit_name=f"smart-fetch {smart_fetch_version()}, {how}", bar=bar, samples=tuple(ours),
    )  # fmt: skip
