"""What a run leaves for the connection's next one, and what a killed process leaves of its count."""

from __future__ import annotations

import pytest

from snapshots import pace as pace_module
from snapshots.record import Batch
from snapshots.report import RunScope
from snapshots.store import Store
from snapshots.traffic import PaceState, Traffic

pytestmark = pytest.mark.anyio

SCOPE = RunScope(connection="site", kind="sync", mode="crawl", selection="all", types=())
STATE = PaceState(
    concurrency=3, file_concurrency=2, down_until=4e9, down_reason="the answer was 503", trips=2, quota_free_at=1.5e9
)


async def test_a_connection_that_never_ran_has_no_pace(store: Store) -> None:
    async with await store.begin_run(SCOPE) as run:
        assert await run.pace.load() == PaceState()
    assert await store.down() == []


async def kept(store: Store, name: str, base_url: str, state: PaceState) -> None:
    scope = RunScope(connection=name, kind="sync", mode="crawl", selection="all", types=(), base_url=base_url)
    async with await store.begin_run(scope) as run:
        await run.pace.save(state, Traffic())
        await run.finish(watermark=None)


async def found(store: Store, name: str, base_url: str) -> PaceState:
    scope = RunScope(connection=name, kind="sync", mode="crawl", selection="all", types=(), base_url=base_url)
    async with await store.begin_run(scope) as run:
        return await run.pace.load()


async def test_connections_to_one_origin_share_quota_and_breaker_but_not_their_level(store: Store) -> None:
    await kept(store, "one", "https://EHR.example.org:443/r4/tenant-a", STATE)
    near = await found(store, "two", "https://ehr.example.org/r4/tenant-b")
    assert near == PaceState(down_until=4e9, down_reason="the answer was 503", trips=2, quota_free_at=1.5e9)
    assert await store.pace("two") == near
    assert await found(store, "three", "https://ehr.example.org:8443/r4") == PaceState()
    assert await found(store, "four", "https://other.example.org/r4") == PaceState()


async def test_the_newest_run_of_an_origin_decides_whether_it_is_up(store: Store) -> None:
    url = "https://ehr.example.org/r4"
    await kept(store, "one", url, STATE)
    await kept(store, "two", f"{url}/b", PaceState(concurrency=9, quota_free_at=1.0e9))
    assert await found(store, "one", url) == PaceState(concurrency=3, file_concurrency=2, quota_free_at=1.5e9)
    await kept(store, "one", url, STATE)
    assert (await found(store, "two", f"{url}/b")).down_until == 4e9
    assert (await found(store, "two", f"{url}/b")).concurrency == 9


async def test_the_pace_is_remembered_for_the_next_run_of_the_same_connection_only(store: Store) -> None:
    async with await store.begin_run(SCOPE) as run:
        await run.pace.save(PaceState(concurrency=7), Traffic())
        await run.pace.save(STATE, Traffic())
        await run.finish(watermark=None)
    async with await store.begin_run(SCOPE) as run:
        assert await run.pace.load() == STATE
    assert await store.pace("site") == STATE
    assert await store.pace("other") == PaceState()
    other = RunScope(connection="other", kind="sync", mode="crawl", selection="all", types=())
    async with await store.begin_run(other) as run:
        assert await run.pace.load() == PaceState()
    assert [(one.connection, one.until.timestamp(), one.reason) for one in await store.down()] == [
        ("site", 4e9, "the answer was 503")
    ]


async def test_the_report_has_the_budget_and_the_end_of_the_outage(store: Store) -> None:
    async with await store.begin_run(SCOPE) as run:
        await run.pace.save(STATE, Traffic(requests=40, retries=9, spent=5, left=95))
        assert run.pace.counted == Traffic(requests=40, retries=9, spent=5, left=95)
        report = await run.fail(reason="down", traffic=Traffic(requests=2, retries=1))
    assert (report.requests, report.retries) == (42, 10)
    assert (report.retries_spent, report.retries_left) == (5, 95)
    assert report.down_until is not None
    assert report.down_until.timestamp() == 4e9
    assert (await store.run(report.id)).down_until == report.down_until


async def test_a_killed_process_leaves_its_count_with_its_batches(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace_module, "SAVE_EVERY_S", 0.0)
    async with await store.begin_run(SCOPE) as run:
        for requests in (10, 25):
            run.pace.note(PaceState(concurrency=4), Traffic(requests=requests, retries=3, spent=2, left=7))
            await run.write(Batch())
    async with await store.begin_run(SCOPE) as again:
        assert again.id == run.id
        assert (await again.pace.load()).concurrency == 4
        await again.pace.save(PaceState(), Traffic(requests=5, retries=1, spent=1, left=9))
        report = await again.finish(watermark=None)
    assert (report.requests, report.retries, report.retries_spent, report.retries_left) == (30, 4, 3, 9)


async def test_batches_in_quick_succession_do_not_each_store_the_pace(store: Store) -> None:
    async with await store.begin_run(SCOPE) as run:
        run.pace.note(PaceState(concurrency=4), Traffic(requests=10))
        await run.write(Batch())
        assert run.pace.counted == Traffic()
