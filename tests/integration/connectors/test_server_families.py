"""Whole runs against servers of well-known families, of which each breaks an assumption that a plain server lets pass."""

from __future__ import annotations

import pytest

from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.runs import run
from tests.user_site import mock, reachable

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("family", ["hapi", "azure"])
@pytest.mark.parametrize("mode", ["crawl", "bulk"])
async def test_a_search_server_is_fetched_completely_in_both_modes(store: KeptRows, family: str, mode: str) -> None:
    with mock("generic", family=family, page_size=7) as served:
        report = await run(served, store, profile={"search.page_size": 7, "bulk.levels": ["patient"]}, mode=mode)
        expected = reachable(served)
        searches = [entry.target for entry in served.log.of("search")]
    assert (report.status, report.error, report.holes) == ("complete", None, [])
    got = store.live()
    assert {key: row for key, row in got.items() if key in expected} == expected
    if mode == "crawl":
        longest = max(len(target) for target in searches)
        assert longest > 4096 if family == "azure" else any("_getpages=" in target for target in searches)


@pytest.mark.parametrize("level", ["system", "patient", "group"])
async def test_an_export_only_server_is_fetched_completely_at_each_level(store: KeptRows, level: str) -> None:
    with mock("generic", family="bulk-data-server") as served:
        group = {"group": served.group_id} if level == "group" else {}
        report = await run(served, store, profile={"bulk.levels": [level]}, **group)
        expected = reachable(served)
    assert (report.status, report.error, report.holes) == ("complete", None, [])
    got = store.live()
    assert {key: row for key, row in got.items() if key in expected} == expected


async def test_hapi_files_are_requested_as_ndjson_and_a_finished_job_needs_no_deletion(store: KeptRows) -> None:
    with mock("generic", family="hapi") as served:
        report = await run(served, store, mode="bulk")
        files, deletions = served.log.of("file"), served.log.of("delete")
    assert (report.status, report.holes) == ("complete", [])
    assert all("ndjson" in entry.headers["accept"] for entry in files)
    assert {entry.status for entry in deletions} <= {404}


async def test_azure_files_are_in_an_object_store_that_never_gets_the_token(store: KeptRows) -> None:
    with mock("generic", family="azure") as served:
        report = await run(served, store, mode="bulk")
        objects = served.log.of("object")
    assert (report.status, report.holes) == ("complete", [])
    assert objects
    assert not any(entry.had_authorization for entry in objects)
