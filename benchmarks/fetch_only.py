"""fetch_only owns the crawl without a store: the same client, fetcher and pipeline, but the batches are discarded.

As a program (`python -m benchmarks.fetch_only BASE_URL COHORT_FILE CONNECTIONS TYPE…`) it prints one JSON line: requests,
resources, seconds, and the CPU seconds of the crawl itself. The additional time of `chartferry sync` is the cost of storing.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from config.connections import Connection
from connectors.core.pipeline import run_units
from connectors.fhir.memories import EhrRunStore
from connectors.fhir.search.gathering import PageGatherer
from connectors.fhir.search.search import SearchFetcher
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.unit_details import SearchDetail
from connectors.fhir.vendors import profile_for
from snapshots.record import Batch
from snapshots.unit import Unit, UnitKind, unit_key


class _Nowhere:
    """Counts the rows that would be written."""

    records = 0

    async def write(self, batch: Batch) -> int:
        self.records += len(batch.records)
        return 0


def _units(patients: Sequence[str], types: Sequence[str]) -> Iterator[Unit]:
    for patient in patients:
        for kind in types:
            read = kind == "Patient"
            path = f"Patient/{patient}" if read else f"{kind}?patient={patient}&_count=500"
            yield Unit(
                key=unit_key(kind, patient),
                kind=UnitKind.READ if read else "search",
                resource_type=kind,
                patient_id=patient,
                template=f"GET /{kind}",
                detail=SearchDetail(path=path, expected=True).packed,
            )


async def _crawl(base_url: str, patients: Sequence[str], connections: int, types: Sequence[str]) -> dict[str, float]:
    connection = Connection(name="bench", vendor="generic", base_url=base_url, auth="none")
    profile = profile_for("generic", {"limits": {"max_concurrency": connections}, "search": {"page_size": 500}})
    store, units = _Nowhere(), list(_units(patients, types))
    async with EhrClient(connection, profile, clock=time.time, sleep=asyncio.sleep, rng=random.Random()) as client:
        search = SearchFetcher(PageGatherer(client))
        cpu, begins = time.process_time(), time.perf_counter()
        await run_units(units, search.fetch, cast("EhrRunStore", store), workers=2 * connections)
        return {
            "requests": client.requests,
            "resources": store.records,
            "seconds": time.perf_counter() - begins,
            "cpu_s": time.process_time() - cpu,
        }


def main() -> None:
    """Crawl, and print the result."""
    base_url, cohort, connections, *types = sys.argv[1:]
    patients = Path(cohort).read_text().split()[1:]
    sys.stdout.write(json.dumps(asyncio.run(_crawl(base_url, patients, int(connections), types))) + "\n")


if __name__ == "__main__":
    main()
