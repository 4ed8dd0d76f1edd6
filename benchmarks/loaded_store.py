"""loaded_store owns a store with the generated data, which both export measurements read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.mock_process import mock_ehr
from benchmarks.workplace import CLIENT_ID, Workplace, tell


@contextmanager
def loaded_store(place: Workplace) -> Iterator[tuple[str, Path]]:
    """Sync the generated data into a new tenant, yield the tenant and its configuration, then drop it."""
    data = place.data()
    tenant = place.tenant()
    tell(f"syncing {data.megabytes:.0f} MB for the exports")
    with mock_ehr(
        vendor="generic", data=data.gz, client_id=CLIENT_ID, jwks=place.jwks, polls=0, retry_after_s=0
    ) as ehr:
        config = place.configure(
            tenant, {"vendor": "generic", "base_url": ehr["base_url"], "mode": "bulk"} | place.login()
        )
        place.chartferry(config, "sync", "--json")
    try:
        yield tenant, config
    finally:
        place.drop(tenant)
