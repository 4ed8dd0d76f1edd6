"""Whole syncs of servers that can take less than was meant, or are gone: into a real store, from mocks on real sockets."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from config.connections import Connection
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.vendors import profile_for
from mocks.faults import Action, FaultRule, Match
from mocks.serving import Served
from snapshots.store import Store
from tests.fix_store import opened_store
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.runs import run
from tests.user_site import mock, reachable

pytestmark = pytest.mark.anyio

DOWN = FaultRule(action=Action(status=503))


@pytest.fixture
async def plain(store_url: str, anyio_backend: str) -> AsyncIterator[Store]:
    async with opened_store(store_url) as opened:
        yield opened


def assert_all_is_there(kept: KeptRows, served: Served) -> None:
    """As written; what resources refer to comes on top."""
    live = kept.live()
    assert {key: live.get(key) for key in reachable(served)} == reachable(served)


@pytest.mark.parametrize(
    "knobs",
    [
        {"max_concurrency": 3, "latency_s": 0.005},
        {"max_requests_per_s": 200.0},
        {"max_concurrency": 2, "latency_s": 0.005, "throttle_retry_after": "1"},
    ],
)
async def test_a_server_with_a_limit_is_synced_completely_without_spending_the_budget(
    kept: KeptRows, knobs: dict[str, Any]
) -> None:
    with mock("generic", bulk_levels=(), **knobs) as served:
        report = await run(served, kept, {"limits.max_concurrency": 10, "retry.base_s": 0.5})
        assert (report.status, report.holes) == ("complete", [])
        assert_all_is_there(kept, served)
    assert report.retries_spent == 0
    assert report.retries_left is not None
    assert report.retries_left >= 100


@pytest.mark.parametrize("style", ["x", "ratelimit", "fields"])
async def test_a_gateway_that_declares_its_quota_never_has_to_refuse(style: str) -> None:
    with mock("va", open=True, quota=20, quota_window_s=0.5, rate_limit_headers=style) as served:
        connection = Connection(name="site", vendor="va", base_url=served.base_url, auth="none")
        rng = random.Random(1)
        async with EhrClient(connection, profile_for("va"), clock=time.time, sleep=asyncio.sleep, rng=rng) as client:
            read = Call("GET", "Location/loc-1", "GET /Location/{id}", "read", auth=False, ok=frozenset({200, 404}))
            await asyncio.gather(*(client.send(read) for _ in range(45)))
        assert served.log.total == 45
        assert client.retries == 0


async def test_the_pace_of_a_run_is_remembered(kept: KeptRows) -> None:
    with mock("generic", bulk_levels=(), max_concurrency=2, latency_s=0.005) as served:
        first = await run(served, kept, {"limits.max_concurrency": 20})
        again = await run(served, kept, {"limits.max_concurrency": 20})
    assert first.retries > again.retries
    assert again.status == "complete"


async def test_an_ehr_that_goes_down_leaves_named_holes_and_is_probed_once_until_it_is_back(
    kept: KeptRows, plain: Store
) -> None:
    with mock("generic", bulk_levels=()) as served:
        rule = FaultRule(match=Match(purpose="search"), first=20, action=Action(status=503))
        served.faults.add(rule)
        profile = {"retry.max_tries": 3, "limits.breaker_open_s": 3000}
        report = await run(served, kept, profile)
        assert report.status == "partial"
        assert report.down_until is not None
        assert any(f"down until {report.down_until:%H:%M} UTC (the answer was 503)" in note for note in report.notes)
        assert any("not sent, because the EHR counts as down until" in hole.reason for hole in report.holes)
        assert report.requests < 20 + 3 * 40
        assert [one.connection for one in await plain.down()] == ["site"]

        served.faults.clear()
        served.faults.add(DOWN)
        served.log.clear()
        failed = await run(served, kept, profile)
        assert (failed.status, served.log.total) == ("failed", 1)
        assert failed.down_until is not None

        served.faults.clear()
        healed = await run(served, kept, profile)
        assert (healed.status, healed.down_until) == ("complete", None)
        assert await plain.down() == []
        assert_all_is_there(kept, served)


async def test_a_server_that_only_refuses_ends_the_run(kept: KeptRows) -> None:
    with mock("generic", bulk_levels=()) as served:
        served.faults.add(FaultRule(match=Match(purpose="search"), first=5, action=Action(status=429)))
        report = await run(served, kept, {"limits.breaker_open_s": 3000})
    assert report.status == "partial"
    assert report.requests < 400


async def test_quiet_hours_without_requests_end_the_run_with_the_next_step(kept: KeptRows) -> None:
    with mock("generic") as served:
        profile = {"limits.quiet_hours": "00:00-00:00", "limits.quiet_max_concurrency": 0, "limits.quiet_wait_s": 0}
        report = await run(served, kept, profile)
        assert served.log.total == 0
    assert report.status == "failed"
    assert "profile.limits.quiet_max_concurrency" in (report.error or "")


async def test_storms_over_a_thousand_tiny_files_need_no_operator(kept: KeptRows) -> None:
    with mock("cerner", patients=2, rows_per_file=1, link_life_s=600, polls=0) as served:
        served.faults.add(FaultRule(match=Match(purpose="file"), probability=0.015, action=Action(status=502)))
        for first in range(20, 1000, 100):
            storm = FaultRule(match=Match(purpose="file"), first=first, last=first + 20, action=Action(status=429))
            served.faults.add(storm)
        report = await run(served, kept)
        assert (report.status, report.holes) == ("complete", [])
        assert_all_is_there(kept, served)
    assert report.retries_spent < 50
