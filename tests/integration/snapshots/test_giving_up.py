"""Open runs and export jobs that are given up: by hand, or since their EHR has another address now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from snapshots.errors import ConnectionBusyError, RunNotFoundError
from snapshots.export_job import BulkJob
from snapshots.report import RunScope
from snapshots.store import Store
from snapshots.traffic import PaceState, Traffic

pytestmark = pytest.mark.anyio

HERE = "http://127.0.0.1:4001/fhir"
THERE = "http://127.0.0.1:4002/fhir"
SCOPE = RunScope(connection="site", kind="sync", mode="bulk", selection="all", types=(), base_url=HERE)
JOB = BulkJob(
    status_url=f"{HERE}/jobs/1", kicked_off_at=datetime.now(UTC), request="GET /$export", asked={"incremental": False}
)


async def _interrupted(store: Store, job: BulkJob | None = JOB) -> int:
    async with await store.begin_run(SCOPE) as run:
        if job is not None:
            await run.jobs.save(job)
        return run.id


async def _failed(store: Store, job: BulkJob = JOB) -> int:
    async with await store.begin_run(SCOPE) as run:
        await run.jobs.save(job)
        await run.fail(reason="the EHR went away")
        return run.id


async def test_a_changed_base_url_begins_a_new_run_without_the_old_job(store: Store) -> None:
    old = await _interrupted(store)
    async with await store.begin_run(replace(SCOPE, base_url=THERE)) as run:
        assert run.id != old
        assert await run.jobs.current() is None
        assert await run.jobs.earlier() == []
        assert run.left_behind == (1, 1)
    assert (await store.run(old)).error == "given up: base_url has changed since"


async def test_a_job_that_a_closed_run_left_at_the_old_address_is_dropped_too(store: Store) -> None:
    await _failed(store)
    async with await store.begin_run(replace(SCOPE, base_url=THERE)) as run:
        assert await run.jobs.earlier() == []
        assert run.left_behind == (0, 1)


async def test_an_outage_at_the_old_address_does_not_apply_to_the_new_one(store: Store) -> None:
    async with await store.begin_run(SCOPE) as run:
        await run.pace.save(PaceState(concurrency=3, down_until=4e9, down_reason="503", trips=2), Traffic())
    async with await store.begin_run(replace(SCOPE, base_url=THERE)) as run:
        assert await run.pace.load() == PaceState(concurrency=3)


@pytest.mark.parametrize("spelled", ["http://127.0.0.1:4001/fhir/", "HTTP://127.0.0.1:4001/fhir"])
async def test_the_same_address_in_another_spelling_continues_the_job(store: Store, spelled: str) -> None:
    old = await _interrupted(store)
    async with await store.begin_run(replace(SCOPE, base_url=spelled)) as run:
        assert run.id == old
        assert run.left_behind == (0, 0)


async def test_a_discarded_run_is_closed_and_the_next_one_frees_its_job_at_the_server(store: Store) -> None:
    old = await _interrupted(store)
    discarded = await store.discard(old)
    assert (discarded.run_closed, discarded.job) == (True, "left to the next run")
    assert (await store.run(old)).status == "failed"
    async with await store.begin_run(SCOPE) as run:
        assert run.id != old
        assert [one.run for one in await run.jobs.earlier()] == [old]


async def test_a_lost_kick_off_is_not_waited_for_after_its_run_is_discarded(store: Store) -> None:
    old = await _interrupted(store, replace(JOB, status_url=None))
    assert (await store.discard(old)).job == "dropped"
    async with await store.begin_run(SCOPE) as run:
        assert await run.jobs.earlier() == []


async def test_discarding_a_closed_run_drops_the_job_that_it_left(store: Store) -> None:
    old = await _failed(store)
    discarded = await store.discard(old)
    assert (discarded.run_closed, discarded.job) == (False, "dropped")
    async with await store.begin_run(SCOPE) as run:
        assert await run.jobs.earlier() == []


async def test_an_ended_run_without_a_job_has_nothing_to_discard(store: Store) -> None:
    async with await store.begin_run(SCOPE) as run:
        await run.finish(watermark=None)
    discarded = await store.discard(run.id)
    assert (discarded.run_closed, discarded.job) == (False, None)


async def test_a_run_at_work_cannot_be_discarded_and_an_unknown_one_is_not_found(store: Store) -> None:
    async with await store.begin_run(SCOPE) as run:
        with pytest.raises(ConnectionBusyError, match=f"run {run.id}"):
            await store.discard(run.id)
    with pytest.raises(RunNotFoundError):
        await store.discard(4711)
