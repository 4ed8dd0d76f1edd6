"""What slows a connection down, stops it, and what is remembered of it; on real sockets, with a clock that only waits move."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

import pytest

from connectors.fhir.errors import (
    BudgetExhaustedError,
    EhrDownError,
    QuietHoursError,
    TerminalFetchError,
    TransientFetchError,
)
from snapshots.traffic import PaceState
from tests.integration.connectors.unhurried_loop import BACKEND
from tests.integration.connectors.wire import NOW, Waits, always, call, client, http, wire

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Time that only waits move."""
    return BACKEND


REFUSED = http(429, b"")


async def gathered(ehr, number, **changes):
    return await asyncio.gather(*(ehr.send(call(**changes)) for _ in range(number)), return_exceptions=True)


class Crowded:
    """Takes `limit` requests at a time and refuses more; `headers` go with each refusal."""

    def __init__(self, limit, **headers):
        self.limit, self.headers = limit, headers
        self.open = self.most = self.refused = 0

    async def __call__(self, request, writer):
        self.open += 1
        try:
            if self.open > self.limit:
                self.refused += 1
                writer.write(http(429, b"", **self.headers))
                return
            await asyncio.sleep(0.002)
            self.most = max(self.most, self.open)
            writer.write(http())
        finally:
            self.open -= 1


# -- pace


async def test_the_pace_adapts_to_a_server_that_allows_less_than_the_profile():
    crowded = Crowded(3)
    async with wire(crowded) as server, client(server, limits__max_concurrency=20, retry__base_s=0.01) as ehr:
        ended = await gathered(ehr, 1500)
        assert {getattr(reply, "status", reply) for reply in ended} == {200}
        assert ehr.pace_state().concurrency <= 5
        assert crowded.refused < 200
        assert ehr.budget.spent == 0
        assert ehr.retries == crowded.refused


async def test_a_healthy_server_keeps_every_place():
    open_now = most = 0
    levels = set()

    async def slow(request, writer):
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.05)
        levels.add(ehr.limits.requests.level)
        writer.write(http())
        open_now -= 1

    async with wire(slow) as server, client(server, limits__max_concurrency=20) as ehr:
        began = asyncio.get_running_loop().time()
        await gathered(ehr, 200)
        assert asyncio.get_running_loop().time() - began < 1.5
    assert (most, levels) == (20, {20})


async def test_refusals_of_files_slow_only_files():
    async with (
        wire(always([REFUSED, REFUSED, http()])) as server,
        client(server, limits__max_concurrency=8, limits__file_concurrency=4) as ehr,
    ):
        await ehr.send(call(purpose="file"))
        assert (ehr.limits.requests.level, ehr.limits.files.level) == (8, 1)


async def test_a_new_run_begins_at_the_last_level_and_within_the_current_ceiling():
    async with wire(always(http())) as server, client(server, limits__max_concurrency=6) as ehr:
        ehr.restore(PaceState(concurrency=3, file_concurrency=50))
        assert (ehr.limits.requests.level, ehr.limits.files.level) == (3, 4)
        await gathered(ehr, 100)
        assert ehr.pace_state().concurrency == 6


async def test_retry_after_pauses_the_whole_connection_and_not_only_its_call():
    asked_to_wait = []
    some, all_of_them, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def waits(seconds):
        asked_to_wait.append(round(seconds))
        some.set()
        if len(asked_to_wait) == 4:
            all_of_them.set()
        await over.wait()

    async with (
        wire(always([http(429, b"", Retry_After="40"), http()])) as server,
        client(server, waits=waits, retry__base_s=0.1, limits__max_concurrency=6) as ehr,
    ):
        refused = asyncio.create_task(ehr.send(call()))
        await some.wait()
        others = [asyncio.create_task(ehr.send(call())) for _ in range(3)]
        await all_of_them.wait()
        assert (asked_to_wait, len(server.seen)) == ([40] * 4, 1)
        over.set()
        assert {reply.status for reply in await asyncio.gather(refused, *others)} == {200}


async def test_an_early_poll_pauses_no_other_request():
    async with (
        wire(always([http(429, b"", Retry_After="40"), http()])) as server,
        client(server, retry__max_tries=1) as ehr,
    ):
        with pytest.raises(TransientFetchError):
            await ehr.send(call(purpose="status"))
        waits = ehr.limits
        await ehr.send(call())
        assert waits.requests.level == waits.requests.pace.ceiling


# -- quota


async def test_a_quota_is_kept_across_runs():
    waits = Waits()
    async with wire(always(http())) as server:
        async with client(server, waits=waits, limits__requests_per_minute=60) as ehr:
            await gathered(ehr, 50)
            left = ehr.pace_state()
        assert 45 < sum(waits.seconds) < 60
        async with client(server, limits__requests_per_minute=60) as ehr:
            ehr.restore(left)
            again = ehr.origin.quota.take(NOW)
        assert again > 40


@pytest.mark.parametrize(
    "headers",
    [
        {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "30"},
        {"RateLimit": "limit=10, remaining=0, reset=30"},
        {"RateLimit": '"a";r=0;t=30'},
    ],
)
async def test_a_server_with_an_exhausted_quota_is_contacted_again_after_its_reset(headers):
    waits = Waits()
    async with wire(always([http(**headers), http()])) as server, client(server, waits=waits) as ehr:
        await ehr.send(call())
        await ehr.send(call())
        assert waits.seconds == [30]
        assert ehr.retries == 0


async def test_a_distant_reset_is_capped():
    waits = Waits()
    answers = [http(X_RateLimit_Remaining="0", X_RateLimit_Reset="86400"), http()]
    async with wire(always(answers)) as server, client(server, waits=waits, retry__after_cap_s=60) as ehr:
        await ehr.send(call())
        await ehr.send(call())
    assert waits.seconds == [60]


@pytest.mark.parametrize("off_s", [0, 3600, -3600])
async def test_instants_are_read_by_the_servers_own_clock(off_s):
    there = NOW + off_s
    date = formatdate(there, usegmt=True)
    answers = [
        http(503, Retry_After=formatdate(there + 20, usegmt=True), Date=date),
        http(X_RateLimit_Remaining="0", X_RateLimit_Reset=str(int(there) + 30), Date=date),
        http(),
    ]
    waits = Waits()
    async with wire(always(answers)) as server, client(server, waits=waits, retry__base_s=0.01) as ehr:
        await ehr.send(call())
        await ehr.send(call())
    assert [round(seconds) for seconds in waits.seconds] == [20, 30]


async def test_a_running_job_and_an_early_poll_are_no_outage():
    async with (
        wire(always(REFUSED)) as server,
        client(server, retry__max_tries=1, limits__breaker_failures=2, kickoff__busy_means_running=True) as ehr,
    ):
        for purpose in ("kickoff", "status") * 5:
            with pytest.raises(TransientFetchError, match="429"):
                await ehr.send(call(purpose=purpose))
        assert ehr.pace_state().down_until is None


# -- quiet hours (NOW is 08:00 UTC)


async def test_in_quiet_hours_fewer_requests_are_open_at_a_time():
    crowded = Crowded(50)
    async with (
        wire(crowded) as server,
        client(server, limits__quiet_hours="07:00-19:00", limits__quiet_max_concurrency=2) as ehr,
    ):
        await gathered(ehr, 30)
    assert crowded.most == 2


async def test_quiet_hours_without_requests_are_waited_for():
    waits = Waits()
    async with wire(always(http())) as server:
        wanted = {"limits.quiet_hours": "07:00-08:30", "limits.quiet_max_concurrency": 0}
        async with client(server, waits=waits, **wanted) as ehr:
            await ehr.send(call())
            await ehr.send(call())
    assert waits.seconds == [1800]


async def test_quiet_hours_that_last_too_long_are_an_error_that_says_until_when():
    async with (
        wire(always(http())) as server,
        client(server, limits__quiet_hours="07:00-19:00", limits__quiet_max_concurrency=0) as ehr,
    ):
        with pytest.raises(QuietHoursError, match=r"last until 19:00 UTC.*sync again then"):
            await ehr.send(call())
        assert (await gathered(ehr, 3))[0].__class__ is QuietHoursError
    assert server.seen == []


# -- the breaker


async def test_an_ehr_that_is_down_is_not_flooded():
    async with wire(always(http(503))) as server:
        async with client(server, retry__max_tries=2, limits__breaker_failures=4, limits__max_concurrency=1) as ehr:
            ended = [await one(ehr) for _ in range(100)]
        assert len(server.seen) == 8
    assert [type(error) for error in ended[:4]] == [TransientFetchError] * 4
    assert {type(error) for error in ended[4:]} == {EhrDownError}
    text = (
        r"GET /Patient\?name=\{name\}: not sent, because the EHR counts as down until 08:0\d UTC: the answer was 503; "
    )
    with pytest.raises(EhrDownError, match=text):
        raise ended[-1]


async def one(ehr, **changes):
    try:
        return await ehr.send(call(**changes))
    except TransientFetchError as error:
        return error


async def test_retries_stop_when_the_breaker_opens():
    async with (
        wire(always(http(503))) as server,
        client(
            server, retry__max_tries=50, retry__floor=10_000, limits__breaker_failures=1, limits__max_concurrency=4
        ) as ehr,
    ):
        tried = asyncio.create_task(one(ehr))
        ehr.origin.breaker.failed(NOW, "503")
        await tried
        assert len(server.seen) <= 1


async def test_silence_and_web_pages_open_the_breaker_and_answers_of_the_ehr_do_not():
    html = http(body=b"<html><body>Request Rejected</body></html>", content_type="text/html")
    oops = http(500, b'{"resourceType":"OperationOutcome","issue":[{"code":"exception"}]}')
    for answer, is_open in [(html, True), (http(500, b""), True), (oops, False), (http(404), False), (REFUSED, True)]:
        async with (
            wire(always(answer)) as server,
            client(server, retry__max_tries=1, limits__breaker_failures=3, limits__max_concurrency=1) as ehr,
        ):
            for _ in range(3):
                with pytest.raises((TransientFetchError, TerminalFetchError)):
                    await ehr.send(call())
            assert (ehr.pace_state().down_until is not None) == is_open
    async with client(server, retry__max_tries=1, limits__breaker_failures=3) as ehr:  # the socket is closed
        await gathered(ehr, 3)
        assert ehr.pace_state().down_until is not None


async def test_after_the_open_time_one_probe_decides_for_all():
    waits = Waits()
    async with (
        wire(always(http(503))) as server,
        client(server, waits=waits, retry__max_tries=1, limits__breaker_failures=1, limits__breaker_open_s=60) as ehr,
    ):
        await one(ehr)
        waits.seconds.append(61)
        await gathered(ehr, 20)
        assert len(server.seen) == 2
        assert ehr.pace_state().trips == 2
        waits.seconds.append(121)
        server.answer = always(http())
        ended = await gathered(ehr, 20)
        assert {reply.status for reply in ended} == {200}
        assert ehr.pace_state().down_until is None


async def test_the_next_run_probes_once_and_continues_if_the_ehr_answers():
    left = PaceState(down_until=NOW + 200, trips=1, down_reason="the answer was 503")
    async with wire(always(http(503))) as server:
        async with client(server, retry__max_tries=9) as ehr:
            ehr.restore(left)
            await gathered(ehr, 10)
            assert len(server.seen) == 1
        server.answer = always(http())
        async with client(server, retry__max_tries=9) as ehr:
            ehr.restore(left)
            assert {reply.status for reply in await gathered(ehr, 10)} == {200}


async def test_an_unanswered_login_opens_the_breaker():
    class Unreachable:
        logins = 0

        async def token(self, launch=None):
            self.logins += 1
            raise TransientFetchError("logging in: nobody")

        def invalidate(self, token):
            raise AssertionError

    tokens = Unreachable()
    async with wire(always(http())) as server, client(server, tokens=tokens, limits__breaker_failures=3) as ehr:
        ended = [await one(ehr) for _ in range(20)]
        assert tokens.logins == 3
        assert isinstance(ended[-1], EhrDownError)


async def test_a_cancelled_probe_is_left_to_the_next_request():
    stalled = asyncio.Event()

    async def stalls(request, writer):
        stalled.set()
        await asyncio.sleep(30)

    async with wire(stalls) as server, client(server) as ehr:
        ehr.restore(PaceState(down_until=NOW + 200, trips=1))
        probe = asyncio.create_task(ehr.send(call()))
        await stalled.wait()
        waiting = asyncio.create_task(ehr.send(call()))
        await asyncio.sleep(0)
        server.answer = always(http())
        probe.cancel()
        assert (await waiting).status == 200


# -- storms


async def test_a_server_that_only_refuses_ends_in_errors_and_is_left_alone():
    async with wire(always(REFUSED)) as server:
        async with client(server, limits__max_concurrency=4, retry__floor=50, limits__breaker_open_s=3600) as ehr:
            calls = iter(range(2000))
            ended = []

            async def work():
                ended.extend([await one(ehr) for _ in calls])

            await asyncio.gather(*(work() for _ in range(8)))
            assert len(ended) == 2000
            assert all(isinstance(error, TransientFetchError) for error in ended)
            assert any(isinstance(error, BudgetExhaustedError) for error in ended)
            assert ehr.limits.requests.level == 1
        assert len(server.seen) < 150


async def test_floods_of_refusals_leave_the_budget_to_true_failures():
    number = 0

    async def stormy(request, writer):
        nonlocal number
        number += 1
        refuses = number % 400 < 60
        writer.write(REFUSED if refuses else http(503) if number % 100 == 99 else http())

    async with wire(stormy) as server, client(server, limits__file_concurrency=4, retry__base_s=0.01) as ehr:
        ended = await gathered(ehr, 4000, purpose="file")
        assert {getattr(reply, "status", reply) for reply in ended} == {200}
        assert ehr.budget.spent < 0.02 * 4000
        assert len(server.seen) == ehr.requests == 4000 + ehr.retries


async def test_first_attempts_are_made_with_an_empty_budget_while_the_ehr_answers():
    answers = [http(503) if number % 3 else http() for number in range(300)]
    async with wire(always(answers)) as server:
        async with client(server, retry__share=0, retry__floor=5, limits__max_concurrency=1) as ehr:
            ended = [await one(ehr) for _ in range(200)]
        good = [reply for reply in ended if not isinstance(reply, Exception)]
        assert len(good) > 60
        assert isinstance(ended[-1], BudgetExhaustedError) or isinstance(ended[-2], BudgetExhaustedError)
        assert len(server.seen) == 205
