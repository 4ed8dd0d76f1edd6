"""Who sees the token, what is asked again and how often, and how much at a time; on real sockets."""

from __future__ import annotations

import asyncio
import random
from urllib.parse import parse_qs

import orjson
import pytest
from joserfc import jwk, jwt

from connectors.core.errors import AuthError
from connectors.fhir.auth.credentials import Credentials
from connectors.fhir.auth.login import log_in
from connectors.fhir.auth.token_source import StaticBearer
from connectors.fhir.errors import (
    BudgetExhaustedError,
    DiscoveryError,
    ProtocolError,
    TerminalFetchError,
    TransientFetchError,
    UnsafeLinkError,
)
from connectors.fhir.transport.call import Token
from tests.integration.connectors.unhurried_loop import BACKEND
from tests.integration.connectors.wire import NOW, Waits, always, call, client, http, wire

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Time that only waits move."""
    return BACKEND


KEY = jwk.ECKey.generate_key("P-384", {"kid": "k1"})
SMART = Credentials(auth="smart", client_id="c1", key=orjson.dumps(KEY.as_dict(private=True)).decode())
HTML = http(body=b"<html><body>Request Rejected</body></html>", content_type="text/html")


class FixedTokens:
    """Tokens t1, t2, …: a new one after each refusal."""

    def __init__(self):
        self.number = 1
        self.launches = []

    async def token(self, launch=None):
        self.launches.append(launch)
        return Token(f"t{self.number}", refresh_at=NOW + 300)

    def invalidate(self, token):
        if token.value == f"t{self.number}":
            self.number += 1


def only(token):
    """Answer 401 to every other token."""

    async def reply(request, writer):
        good = request.headers.get("authorization") == f"Bearer {token}"
        writer.write(http() if good else http(401, b'""', WWW_Authenticate='Bearer error="invalid_token"'))

    return reply


# -- the token


async def test_a_refused_token_is_renewed_once_and_the_replay_counts_as_no_retry():
    async with wire(only("t2")) as server, client(server, tokens=FixedTokens()) as ehr:
        assert (await ehr.send(call(launch="1012V3"))).status == 200
        assert [request.headers["authorization"] for request in server.seen] == ["Bearer t1", "Bearer t2"]
        assert len({request.peer for request in server.seen}) == 1
        assert (ehr.requests, ehr.retries) == (2, 0)
        assert ehr.tokens.launches == ["1012V3", "1012V3"]


async def test_a_second_refusal_is_final():
    async with wire(only("never")) as server, client(server, tokens=FixedTokens()) as ehr:
        with pytest.raises(AuthError, match="401, even to a new token"):
            await ehr.send(call())
        assert len(server.seen) == 2


async def test_a_refused_configured_token_is_not_resent_but_used_for_other_requests():
    async def reply(request, writer):
        writer.write(http(401, b"") if "closed" in request.target else http())

    async with wire(reply) as server, client(server, tokens=StaticBearer("fixed")) as ehr:
        with pytest.raises(AuthError, match="bearer_token"):
            await ehr.send(call("/closed"))
        assert (await ehr.send(call())).status == 200
        assert len(server.seen) == 2


async def test_a_401_without_a_login_says_that_none_is_configured():
    async with wire(only("t1")) as server, client(server) as ehr:
        with pytest.raises(AuthError, match="this connection has no login"):
            await ehr.send(call())


async def test_a_stream_renews_a_refused_token_too():
    async with wire(only("t2")) as server, client(server, tokens=FixedTokens()) as ehr:
        assert (await streamed(ehr)).status == 200


async def streamed(ehr):
    """Read a file of two bytes to its end."""
    async with ehr.stream(call(purpose="file")) as reply:
        assert [chunk async for chunk in reply.chunks] == [b"{}"]
    return reply


async def test_a_redirect_to_another_origin_goes_without_token_and_client_id():
    async with wire(always(http())) as store, wire(always(b"")) as server:
        target = f"{store.origin}/bucket/f.ndjson?X-Amz-Signature=%2F%2B|"
        server.answer = always(http(307, b"", Location=target))
        async with client(server, tokens=FixedTokens(), http__client_id_header="Epic-Client-ID") as ehr:
            assert (await streamed(ehr)).url == target
    assert server.seen[0].headers["authorization"] == "Bearer t1"
    assert store.seen[0].target == "/bucket/f.ndjson?X-Amz-Signature=%2F%2B|"
    assert {"authorization", "epic-client-id"}.isdisjoint(store.seen[0].headers)


async def test_a_401_from_another_origin_after_a_redirect_is_no_login_problem():
    async with wire(always(http(401, b""))) as store, wire(always(b"")) as server:
        server.answer = always(http(307, b"", Location=store.origin))
        async with client(server, tokens=FixedTokens()) as ehr:
            with pytest.raises(TerminalFetchError) as raised:
                await ehr.send(call(purpose="file"))
    assert raised.value.status == 401
    assert (len(server.seen), len(store.seen)) == (1, 1)


async def test_a_redirect_within_the_origin_keeps_the_token():
    async with wire(always([http(302, b"moved", Location="/fhir/Patient/2?x=%2C"), http()])) as server:
        async with client(server, tokens=FixedTokens()) as ehr:
            await ehr.send(call("Patient/1"))
        assert server.seen[1].target == "/fhir/Patient/2?x=%2C"
        assert server.seen[1].headers["authorization"] == "Bearer t1"


async def test_see_other_turns_a_post_into_a_get():
    async with wire(always([http(303, b"", Location="/fhir/done"), http()])) as server, client(server) as ehr:
        await ehr.send(call("Patient/_search", method="POST", body=b"name=x"))
        assert [(request.method, request.body) for request in server.seen] == [("POST", b"name=x"), ("GET", b"")]


async def test_a_body_is_never_sent_on_to_another_origin():
    async with wire(always(http())) as other, wire(always(b"")) as server:
        server.answer = always(http(307, b"", Location=other.origin))
        async with client(server) as ehr:
            with pytest.raises(UnsafeLinkError, match="leads to another origin"):
                await ehr.send(call("Patient/_search", method="POST", body=b"name=x"))
    assert other.seen == []


async def test_endless_redirects_are_abandoned():
    async with wire(always(http(302, b"", Location="/fhir/again"))) as server, client(server) as ehr:
        with pytest.raises(ProtocolError, match="more than 5 redirects"):
            await ehr.send(call())
        assert len(server.seen) == 6


async def test_a_call_that_needs_the_token_is_refused_at_any_other_origin():
    async with (
        wire(always(http())) as other,
        wire(always(http())) as server,
        client(server, tokens=FixedTokens()) as ehr,
    ):
        with pytest.raises(UnsafeLinkError, match=f'put "{other.origin}" into profile.bulk.file_hosts'):
            await ehr.send(call(f"{other.origin}/fhir/Patient/1"))
        await ehr.send(call(f"{other.origin}/f", purpose="file", auth=False))
        await ehr.send(call(f"{other.origin}/f", purpose="file", token_origins=frozenset({other.origin + "/"})))
    assert ["authorization" in request.headers for request in other.seen] == [False, True]


async def test_a_place_is_released_however_a_call_ends():
    script = [http(401), http(302, Location="ftp://x/"), http(404), HTML, b"", http(body=b"x")[:-1], http()]

    async def reply(request, writer):
        answer = script.pop(0)
        writer.write(answer)
        return answer not in (b"", http(body=b"x")[:-1])

    async with wire(reply) as server, client(server, limits__max_concurrency=1, retry__max_tries=1) as ehr:
        for _ in range(6):
            with pytest.raises((AuthError, UnsafeLinkError, TerminalFetchError, TransientFetchError)):
                await ehr.send(call())
        assert (await ehr.send(call())).status == 200


# -- asking again


async def test_waits_grow_at_random_below_their_cap_and_respect_retry_after():
    answers = [http(503), http(429, Retry_After="7"), http(503), http(503, Retry_After="86400"), http()]
    waits = Waits()
    async with wire(always(answers)) as server, client(server, waits=waits, retry__base_s=1, retry__cap_s=3) as ehr:
        await ehr.send(call())
        assert (ehr.requests, ehr.retries) == (5, 4)
    first, second, third, fourth = waits.seconds
    assert 0 <= first <= 1
    assert 7 <= second <= 7 + 2
    assert 0 <= third <= 3
    assert 300 <= fourth <= 303


async def test_exhausted_retries_give_an_error_with_template_status_and_codes():
    body = b'{"resourceType":"OperationOutcome","issue":[{"code":"transient","diagnostics":"Jane Doe"}]}'
    async with wire(always(http(503, body))) as server, client(server, retry__max_tries=3) as ehr:
        with pytest.raises(TransientFetchError) as raised:
            await ehr.send(call())
    assert len(server.seen) == 3
    assert (raised.value.status, raised.value.codes) == (503, ("transient",))
    assert str(raised.value) == (
        "GET /Patient?name={name}: the answer was 503 (issue codes transient) after 3 tries; "
        "the EHR is down or overloaded; run again later"
    )


async def test_a_web_page_with_200_is_retried_but_not_for_long():
    async with wire(always([HTML, http()])) as server, client(server) as ehr:
        assert (await ehr.send(call())).status == 200
        server.answer = always(HTML)
        with pytest.raises(TransientFetchError, match="a web page instead of FHIR after 5 tries"):
            async with ehr.stream(call(purpose="file", accept="application/fhir+ndjson")):
                pytest.fail("a web page was handed out as a file")


async def test_a_refusal_is_not_retried():
    async with wire(always(http(404, b"<html>404</html>", "text/html"))) as server, client(server) as ehr:
        with pytest.raises(TerminalFetchError) as raised:
            await ehr.send(call())
    assert (raised.value.status, len(server.seen)) == (404, 1)


async def test_an_empty_retry_budget_stops_retries():
    async with wire(always(http(503))) as server:
        async with client(
            server, retry__max_tries=50, retry__share=0.5, retry__floor=3, limits__breaker_failures=99
        ) as ehr:
            ended = await asyncio.gather(*(ehr.send(call()) for _ in range(20)), return_exceptions=True)
            assert all(isinstance(error, TransientFetchError) for error in ended)
            assert any(isinstance(error, BudgetExhaustedError) for error in ended)
            assert ehr.retries <= 0.5 * 20 + 3
        assert len(server.seen) == ehr.requests == 20 + ehr.retries


# -- how much at a time


async def test_no_more_requests_are_open_at_a_time_than_the_profile_allows():
    open_now, most = 0, 0

    async def slow(request, writer):
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.01)
        writer.write(http(body=b"x" * 10))
        open_now -= 1

    async with wire(slow) as server, client(server, limits__max_concurrency=4, limits__file_concurrency=2) as ehr:
        await asyncio.gather(*(ehr.send(call(accept="text/plain")) for _ in range(40)))
        assert most == 4
        most = 0
        await asyncio.gather(*(ehr.send(call(accept="text/plain", purpose="file")) for _ in range(10)))
        assert most == 2


async def test_a_place_covers_the_body_and_not_the_wait_before_the_next_try():
    arrived = asyncio.Event()
    may_end = asyncio.Event()

    async def waits(seconds):
        arrived.set()
        await may_end.wait()

    async with (
        wire(always([http(503), http()])) as server,
        client(server, waits=waits, limits__max_concurrency=1) as ehr,
    ):
        waiting = asyncio.create_task(ehr.send(call()))
        await arrived.wait()
        async with ehr.stream(call(purpose="file")) as reply:
            may_end.set()
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert [chunk async for chunk in reply.chunks] == [b"{}"]
        assert (await waiting).status == 200


async def test_a_cancelled_call_releases_its_place():
    async with wire(always(http())) as server, client(server, limits__max_concurrency=1) as ehr:
        arrived = asyncio.Event()

        async def stalls(request, writer):
            arrived.set()
            await asyncio.sleep(30)

        server.answer = stalls
        task = asyncio.create_task(ehr.send(call()))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.answer = always(http())
        assert (await ehr.send(call())).status == 200


# -- logging in


class Ehr:
    """Discovery, a token endpoint that verifies, and data behind the newest token only."""

    def __init__(self, smart=None, metadata=None):
        self.smart = smart
        self.metadata = metadata
        self.logins = 0
        self.revoked = set()

    async def __call__(self, request, writer):
        await asyncio.sleep(0)
        if request.target.endswith("/.well-known/smart-configuration"):
            writer.write(
                http(404, b"<html>", "text/html") if self.smart is None else http(body=orjson.dumps(self.smart))
            )
        elif request.target.endswith("/metadata"):
            writer.write(http(404) if self.metadata is None else http(body=orjson.dumps(self.metadata)))
        elif request.target == "/oauth2/token":
            form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
            jwt.decode(form["client_assertion"], KEY, algorithms=["ES384"])
            self.logins += 1
            grant = {
                "access_token": f"t{self.logins}",
                "token_type": "bearer",
                "expires_in": "300",
                "scope": form["scope"],
            }
            writer.write(http(body=orjson.dumps(grant)))
        else:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            writer.write(http() if token and token not in self.revoked else http(401, b'""'))


async def logged_in(ehr, types=("Patient",), credentials=SMART):
    return await log_in(ehr, credentials, types, clock=lambda: NOW, sleep=Waits(), rng=random.Random(1))


OAUTH_URIS = {
    "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
    "extension": [{"url": "authorize", "valueUri": "x"}, {"url": "token", "valueUri": "/oauth2/token"}],
}


@pytest.mark.parametrize(
    ("smart", "metadata"),
    [
        ({"token_endpoint": "/oauth2/token"}, None),
        ({"token_endpoint": "../oauth2/token", "capabilities": None, "token_endpoint_auth_methods": "odd"}, None),
        (None, {"rest": [{"security": {"extension": [{"url": "other"}, OAUTH_URIS]}}]}),
        (["not an object"], {"rest": [{}, {"security": {"extension": [OAUTH_URIS]}}]}),
    ],
)
async def test_the_token_endpoint_is_found_where_servers_put_it(smart, metadata):
    ehr_server = Ehr(smart, metadata)
    async with wire(ehr_server) as server, client(server) as ehr:
        login = await logged_in(ehr)
        assert login.discovery.token_url == f"{server.origin}/oauth2/token"
        assert login.readable("Patient")
        assert not login.readable("Condition")
        assert (await ehr.send(call())).status == 200
    assert "authorization" not in server.seen[0].headers


async def test_the_profiles_token_url_wins_over_whatever_is_advertised():
    async with wire(Ehr({"token_endpoint": "https://wrong.example/token"})) as server:
        token_url = f"{server.origin}/oauth2/token"
        async with client(server, login__token_url=token_url) as ehr:
            assert (await logged_in(ehr)).discovery.token_url == token_url


async def test_a_v2_only_server_gets_v2_scopes():
    smart = {"token_endpoint": "/oauth2/token", "capabilities": ["permission-v2"]}
    async with wire(Ehr(smart)) as server, client(server) as ehr:
        await logged_in(ehr, types=())
        body = next(request.body for request in server.seen if request.method == "POST")
        assert parse_qs(body.decode())["scope"] == ["system/*.rs"]


@pytest.mark.parametrize(
    ("smart", "metadata", "answers"),
    [
        (None, {"rest": "odd"}, "the first answered 404, the second answered 200, without a token endpoint"),
        ({}, {"rest": "odd"}, "both answered 200, without a token endpoint"),
        ({"token_endpoint": ""}, None, "the first answered 200, without a token endpoint, the second answered 404"),
        (
            {"token_endpoint": 5},
            [],
            "the first answered 200, without a token endpoint, the second answered 200, but without a JSON object",
        ),
        (None, None, "both answered 404"),
    ],
)
async def test_a_server_without_a_token_endpoint_is_reported_with_its_answer_and_the_setting(smart, metadata, answers):
    async with wire(Ehr(smart, metadata)) as server, client(server) as ehr:
        with pytest.raises(DiscoveryError, match=f"{answers}; .* set profile.login.token_url"):
            await logged_in(ehr)


async def test_a_server_that_is_down_is_no_discovery_error():
    async with wire(always(http(503))) as server, client(server, retry__max_tries=2) as ehr:
        with pytest.raises(TransientFetchError):
            await logged_in(ehr)


async def test_an_unsafe_token_endpoint_is_refused():
    async with wire(Ehr({"token_endpoint": "ftp://ehr.example/token"})) as server, client(server) as ehr:
        with pytest.raises(DiscoveryError, match="not safe"):
            await logged_in(ehr)


async def test_a_redirecting_token_endpoint_never_sees_the_assertion_elsewhere():
    async with wire(always(http())) as other, wire(always(b"")) as server:
        server.answer = always(http(307, b"", Location=other.origin))
        async with client(server, login__token_url=f"{server.origin}/oauth2/token") as ehr:
            with pytest.raises(AuthError, match="status 307"):
                await logged_in(ehr)
    assert [request.method for request in other.seen] == ["GET"]  # discovery, which holds no secret


async def test_twenty_calls_whose_token_is_revoked_share_one_new_login():
    ehr_server = Ehr({"token_endpoint": "/oauth2/token"})
    async with wire(ehr_server) as server, client(server, limits__max_concurrency=20) as ehr:
        await logged_in(ehr)
        ehr_server.revoked.add("t1")
        replies = await asyncio.gather(*(ehr.send(call()) for _ in range(20)))
        assert {reply.status for reply in replies} == {200}
        assert ehr_server.logins == 2


async def test_an_open_server_and_a_configured_bearer_need_no_discovery():
    async with wire(always(http())) as server, client(server) as ehr:
        await logged_in(ehr, credentials=Credentials(auth="none"))
        await ehr.send(call())
        await logged_in(ehr, credentials=Credentials(auth="bearer", bearer_token="fixed\n"))
        await ehr.send(call())
        assert [request.headers.get("authorization") for request in server.seen] == [None, "Bearer fixed"]


async def test_an_unsafe_link_is_refused_by_the_name_of_its_call():
    async with wire(always(http())) as server, client(server, tokens=FixedTokens()) as ehr:
        with pytest.raises(UnsafeLinkError, match=r"^GET /Patient\?name=\{name\}: a link contains a user name"):
            await ehr.send(call(f"http://SECRET@127.0.0.1:{server.port}/fhir"))
    assert server.seen == []
