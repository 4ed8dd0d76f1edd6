"""Connections to one origin are polite together: it is one server that they ask."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from connectors.fhir.errors import EhrDownError, TransientFetchError
from connectors.fhir.transport.origins import Origins
from snapshots.traffic import PaceState
from tests.integration.connectors.wire import NOW, Endpoint, Waits, always, call, client, http, wire

pytestmark = pytest.mark.anyio


async def two(stack, server, other=None, *, waits=None, **changes):
    """Two connections with different base URLs; of one server, unless there is another."""
    origins = Origins()
    found = []
    for base in (server.base_url, f"{(other or server).origin}/fhir/tenant-b"):
        made = client(Endpoint(base), waits=waits, shared=origins.of(base), **changes)
        found.append(await stack.enter_async_context(made))
    return found


async def test_a_pause_requested_of_one_connection_is_kept_by_the_other():
    waits = Waits()
    script = [http(429, b"", Retry_After="30"), http()]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(wire(always(script)))
        one, two_ = await two(stack, server, waits=waits, retry__base_s=0.001, retry__max_tries=1, retry__floor=0)
        with pytest.raises(TransientFetchError):
            await one.send(call(purpose="search"))
        before = sum(waits.seconds)
        await two_.send(call())
        assert sum(waits.seconds) - before == pytest.approx(30, abs=1)


async def test_a_pause_by_rate_headers_is_kept_by_the_other_connection():
    waits = Waits()
    spent = http(X_RateLimit_Remaining="0", X_RateLimit_Reset="40")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(wire(always([spent, http()])))
        one, two_ = await two(stack, server, waits=waits)
        await one.send(call())
        await two_.send(call())
        assert sum(waits.seconds) == pytest.approx(40, abs=1)


async def test_an_origin_has_the_smallest_quota_of_its_connections():
    waits = Waits()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(wire(always(http())))
        origins = Origins()
        shared = origins.of(server.base_url)
        one = client(server, waits=waits, shared=shared, limits__requests_per_minute=60)
        two_ = client(server, waits=waits, shared=shared)
        async with one, two_:
            for _ in range(60):
                await one.send(call())
                await two_.send(call())
        assert sum(waits.seconds) >= 115  # 120 requests, 60 a minute, of which some at once


async def test_an_outage_found_by_one_connection_stops_the_other():
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(wire(always(http(503, b""))))
        one, two_ = await two(stack, server, limits__breaker_failures=2, retry__max_tries=1)
        for _ in range(2):
            with pytest.raises(TransientFetchError):
                await one.send(call())
        requests = len(server.seen)
        with pytest.raises(EhrDownError):
            await two_.send(call())
        assert len(server.seen) == requests
        assert two_.pace_state().down_until == one.pace_state().down_until is not None


async def test_another_origin_is_another_server():
    async with AsyncExitStack() as stack:
        down = await stack.enter_async_context(wire(always(http(503, b""))))
        up = await stack.enter_async_context(wire(always(http())))
        one, two_ = await two(stack, down, up, limits__breaker_failures=1, retry__max_tries=1)
        with pytest.raises(TransientFetchError):
            await one.send(call())
        await two_.send(call())


async def test_a_former_runs_state_does_not_override_what_this_run_has_seen():
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(wire(always(http())))
        one, two_ = await two(stack, server)
        await one.send(call())
        two_.restore(PaceState(concurrency=2, down_until=NOW + 600, down_reason="the answer was 503", trips=1))
        await one.send(call())
        assert two_.limits.requests.level == 2
        assert one.pace_state().down_until is None


async def test_a_successful_probe_by_one_connection_lets_both_continue():
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(wire(always(http())))
        one, two_ = await two(stack, server)
        left = PaceState(down_until=NOW + 600, down_reason="the answer was 503", trips=1)
        one.restore(left)
        two_.restore(left)
        await one.send(call())
        await two_.send(call())
        assert len(server.seen) == 2


async def test_a_linked_server_being_up_or_down_says_nothing_about_the_ehr():
    async with AsyncExitStack() as stack:
        ehr = await stack.enter_async_context(wire(always([http(), http(503, b""), http()])))
        down = await stack.enter_async_context(wire(always([http(503, b""), http(503, b""), http()])))
        one = await stack.enter_async_context(client(ehr, limits__breaker_failures=1, retry__max_tries=1))
        file = call(url=f"{down.origin}/file", auth=False)
        for _ in range(2):
            with pytest.raises(TransientFetchError):
                await one.send(file)
        await one.send(call())
        with pytest.raises(TransientFetchError):
            await one.send(call())
        with pytest.raises(EhrDownError):
            await one.send(file)  # nobody is asked while the EHR is down
        with pytest.raises(EhrDownError):
            await one.send(call())


async def test_a_link_to_an_unreachable_server_is_tried_a_few_times_and_names_the_setting():
    async with AsyncExitStack() as stack:
        there = http(302, b"", Location="http://127.0.0.1:1/b")
        ehr = await stack.enter_async_context(wire(always([there, there, there, http()])))
        one = await stack.enter_async_context(client(ehr, limits__breaker_failures=1, retry__base_s=0.001))
        for url in ("http://127.0.0.1:1/file?name=SECRET", "file"):
            with pytest.raises(TransientFetchError) as raised:
                await one.send(call(url=url, purpose="file", auth=False))
            assert f'rewrite_origins = {{ "http://127.0.0.1:1" = "{ehr.origin}" }}' in str(raised.value)
            assert "after 3 tries" in str(raised.value)
            assert "SECRET" not in str(raised.value)
        await one.send(call())
