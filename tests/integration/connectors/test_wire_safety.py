"""What a hostile or broken server cannot make us do: reach inside, leak, or swell; and what each request carries."""

from __future__ import annotations

import asyncio
import functools
import gzip
import socket
from contextlib import suppress

import pytest

from connectors.core.errors import ConnectorError
from connectors.fhir.errors import TerminalFetchError, TransientFetchError, UnsafeLinkError
from connectors.fhir.transport.call import Token
from tests.integration.connectors.wire import NOW, Endpoint, always, call, client, http, read_to_its_end, wire

pytestmark = pytest.mark.anyio


class Tokens:
    async def token(self, launch=None):
        return Token("SECRET", refresh_at=NOW + 300)

    def invalidate(self, token):
        pass


# -- where links lead


INSIDE = [
    "http://169.254.169.254/latest/meta-data/",
    "http://127.0.0.2:9/",
    "http://localhost:9/",
    "http://2130706434:9/",
    "http://0x7f000002:9/",
    "http://0177.0.0.2:9/",
    "http://127.2:9/",
    "http://[::1]:9/",
    "http://[::ffff:127.0.0.2]:9/",
    "http://[64:ff9b::7f00:2]:9/",
    "http://0:9/",
    "http://10.0.0.1:9/",
    "http://100.64.0.1:9/",
    "http://[fe80::1]:9/",
    "http://[fd00::1]:9/",
    "http://224.0.0.1:9/",
    "http://127.0.0.2.:9/",
    "http://%6c%6f%63alhost:9/",
    "http://\uff11\uff12\uff17.0.0.2:9/",
]


@pytest.mark.parametrize("link", INSIDE)
async def test_a_link_from_the_server_never_reaches_an_internal_address(link, monkeypatch):
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", refuse_to_connect)
    async with client(Endpoint("http://ehr.example/fhir"), retry__max_tries=1) as ehr:
        with pytest.raises((UnsafeLinkError, TransientFetchError)) as raised:
            await ehr.send(call(link, auth=False, purpose="file"))
    assert (
        isinstance(raised.value, UnsafeLinkError)
        or "not found" in str(raised.value)
        or "not valid HTTP" in str(raised.value)
    )


async def refuse_to_connect(*args, **kwargs):
    raise AssertionError("a connection was begun")


@pytest.mark.parametrize("link", ["http://127.0.0.2:9/x", "http://localhost:9/x", "http://10.0.0.1/x"])
async def test_a_redirect_never_reaches_an_internal_address(link):
    async with wire(always(http(307, b"", Location=link))) as server, client(server, tokens=Tokens()) as ehr:
        with pytest.raises(UnsafeLinkError, match=r"^GET /Patient\?name=\{name\}: .* not public"):
            await ehr.send(call(purpose="file"))


def resolves(monkeypatch, *answers):
    """Names resolve to these addresses, one answer a lookup, the last from then on."""
    script = list(answers)
    looked_up = []

    async def getaddrinfo(host, port, **kwargs):
        looked_up.append(host)
        found = script.pop(0) if len(script) > 1 else script[0]
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in found
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return looked_up


async def test_a_name_with_an_internal_address_is_refused_when_connecting(monkeypatch):
    async with wire(always(http())) as inside:
        resolves(monkeypatch, ["127.0.0.1", "::1"])
        async with client(Endpoint("http://8.8.8.8/fhir")) as ehr:
            with pytest.raises(UnsafeLinkError, match=r"not public .*\(evil\.example\)"):
                await ehr.send(call(f"http://evil.example:{inside.port}/x", auth=False, purpose="file"))
    assert inside.seen == []


async def test_a_name_that_moves_to_an_internal_address_is_refused_from_then_on(monkeypatch):
    """DNS rebinding: what counts is the address that is connected to, whatever a look before said."""
    async with wire(always(http(Connection="close"))) as inside:
        resolves(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
        reached = []

        async def connect(sock, address):
            reached.append(address[0])
            raise ConnectionRefusedError

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
        async with client(Endpoint("http://8.8.4.4/fhir"), retry__max_tries=1) as ehr:
            with pytest.raises(TransientFetchError):
                await ehr.send(call(f"http://evil.example:{inside.port}/x", auth=False, purpose="file"))
            with pytest.raises(UnsafeLinkError):
                await ehr.send(call(f"http://evil.example:{inside.port + 1}/x", auth=False, purpose="file"))
    assert reached == ["8.8.8.8"]


async def test_the_configured_host_and_its_object_store_may_be_internal(monkeypatch):
    async with wire(always(http())) as store, wire(always(http())) as server:
        resolves(monkeypatch, ["127.0.0.1"])
        async with client(Endpoint(f"http://ehr.lan:{server.port}/fhir"), links__private_hosts=("files.lan",)) as ehr:
            await ehr.send(call())
            await ehr.send(call(f"http://ehr.lan:{store.port}/f", auth=False, purpose="file"))
            await ehr.send(call(f"http://files.lan:{store.port}/f", auth=False, purpose="file"))
            with pytest.raises(UnsafeLinkError):
                await ehr.send(call(f"http://other.lan:{store.port}/f", auth=False, purpose="file"))
    assert len(store.seen) == 2


async def test_literal_internal_addresses_are_refused_even_through_a_proxy():
    async with wire(always(http())) as proxy:
        endpoint = Endpoint("http://ehr.example/fhir", proxy=f"http://127.0.0.1:{proxy.port}")
        async with client(endpoint) as ehr:
            await ehr.send(call())
            for link in ("http://169.254.169.254/x", "http://localhost/x", "http://0x7f.1/x"):
                with pytest.raises(UnsafeLinkError):
                    await ehr.send(call(link, auth=False, purpose="file"))
    assert [request.target for request in proxy.seen] == ["http://ehr.example/fhir/Patient?name=SECRET"]


@pytest.mark.parametrize(
    "host", ["a" * 70 + ".example", "a..b", ".", "256.1.1.1", "0177.0.0.1", "a%20b", "[fe80::1%25eth0]", "xn--a"]
)
@pytest.mark.parametrize("port", ["", ":9", ":0", ":65536", ":x"])
async def test_an_invalid_host_costs_only_its_own_call(host, port):
    async with client(Endpoint("http://ehr.example/fhir"), retry__max_tries=1) as ehr:
        with pytest.raises((UnsafeLinkError, TransientFetchError)):
            await ehr.send(call(f"http://{host}{port}/x", auth=False, purpose="file"))


# -- who sees the token

FOREIGN = (
    "{other}/fhir/Patient?page=2",  # an absolute reference or `next` elsewhere
    "//127.0.0.1:{port}/fhir",
    "http://127.0.0.1:{own}@127.0.0.1:{port}/fhir",
    "http://127.0.0.1:{own}%40127.0.0.1:{port}/fhir",
    "http://127.0.0.1:{port}\\@127.0.0.1:{own}/fhir",
    "http://127.0.0.1:{own}\\.evil.example/fhir",
    "http://127.0.0.1:{port}#@127.0.0.1:{own}/fhir",
    "http://127.0.0.1:{port}?@127.0.0.1:{own}/fhir",
    "http:\\\\127.0.0.1:{port}/fhir",
    "http:/127.0.0.1:{port}/fhir",
    "http:127.0.0.1:{port}/fhir",
    "\thttp://127.0.0.1:{port}/fhir",
    "http://127.0.0.1:{port}\t/fhir",
    "ht\ntp://127.0.0.1:{port}/fhir",
    "HTTP://127.0.0.1:{port}/fhir",
    "http://127.0.0.1.:{own}/fhir",
    "http://127.0.0.1%2e:{own}/fhir",
    "http://\uff11\uff12\uff17.0.0.1:{port}/fhir",
    "http://127\u30020.0.1:{port}/fhir",
    "https://127.0.0.1:{own}/fhir",
    "ftp://127.0.0.1:{own}/fhir",
    "javascript:alert(1)",
)


@pytest.mark.parametrize("link", FOREIGN)
async def test_no_spelling_of_a_link_sends_the_token_elsewhere(link):
    async with (
        wire(always(http())) as other,
        wire(always(http())) as server,
        client(server, tokens=Tokens(), retry__max_tries=1) as ehr,
    ):
        url = link.format(other=other.origin, port=other.port, own=server.port)
        with suppress(ConnectorError):
            await ehr.send(call(url))
    assert all("authorization" not in request.headers for request in other.seen)
    assert other.seen == []


async def test_a_redirect_to_plain_http_is_refused():
    """Under an https base a redirect, a `next` and a file that are plain http are refused: see test_links for each spelling."""
    async with wire(always(http())) as other, client(Endpoint("https://ehr.example/fhir"), tokens=Tokens()) as ehr:
        with pytest.raises(UnsafeLinkError, match="plain http"):
            await ehr.send(call(f"{other.origin}/next"))
        with pytest.raises(UnsafeLinkError, match="plain http"):
            await ehr.send(call(f"{other.origin}/file", auth=False, purpose="file"))
    assert other.seen == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_sends_token_client_id_or_call_headers_to_another_origin(status):
    async with wire(always(http())) as other, wire(always(b"")) as server:
        server.answer = always(http(status, b"", Location=f"{other.origin}/bucket?X-Amz-Signature=x"))
        async with client(server, tokens=Tokens(), http__client_id_header="Epic-Client-ID") as ehr:
            headers = {"Prefer": "respond-async", "X-Site": "7", "Range": "bytes=5-"}
            await ehr.send(call(purpose="file", accept="application/fhir+ndjson", headers=headers))
    assert set(other.seen[0].headers) == {"host", "user-agent", "accept", "accept-encoding", "range"}


async def test_a_redirect_back_from_another_origin_gets_no_token():
    async with wire(always(b"")) as other, wire(always(b"")) as server:
        other.answer = always(http(302, b"", Location=f"{server.origin}/back"))
        server.answer = always([http(302, b"", Location=f"{other.origin}/away"), http()])
        async with client(server, tokens=Tokens()) as ehr:
            await ehr.send(call(purpose="file"))
    assert ["authorization" in request.headers for request in server.seen] == [True, False]


# -- what each request carries

COMMON = {"host", "user-agent", "accept", "accept-encoding"}


@pytest.mark.parametrize(
    ("purpose", "auth", "headers", "body", "expected"),
    [
        ("discovery", False, {}, None, COMMON),
        ("search", True, {}, None, COMMON | {"authorization", "epic-client-id"}),
        ("read", True, {}, None, COMMON | {"authorization", "epic-client-id"}),
        ("kickoff", True, {"Prefer": "respond-async"}, None, COMMON | {"authorization", "epic-client-id", "prefer"}),
        ("status", True, {}, None, COMMON | {"authorization", "epic-client-id"}),
        ("delete", True, {}, None, COMMON | {"authorization", "epic-client-id"}),
        ("file", True, {}, None, COMMON | {"authorization", "epic-client-id"}),
        ("file", False, {}, None, COMMON),
        (
            "search",
            True,
            {"Content-Type": "application/x-www-form-urlencoded"},
            b"a=1",
            COMMON | {"authorization", "epic-client-id", "content-type", "content-length"},
        ),
    ],
)
async def test_a_request_has_exactly_these_headers(purpose, auth, headers, body, expected):
    async with (
        wire(always(http(Set_Cookie="s=1; Path=/"))) as server,
        client(server, tokens=Tokens(), http__client_id_header="Epic-Client-ID") as ehr,
    ):
        for _ in range(2):
            method = "POST" if body else "GET"
            await ehr.send(call(purpose=purpose, auth=auth, headers=headers, body=body, method=method))
    assert [set(request.headers) for request in server.seen] == [expected, expected]
    assert server.seen[0].headers["user-agent"].count("/") == 1


async def test_a_login_has_exactly_these_headers():
    async with (
        wire(always(http())) as server,
        client(server, tokens=Tokens(), http__client_id_header="Epic-Client-ID") as ehr,
    ):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        await ehr.once(
            call(
                "token",
                method="POST",
                purpose="token",
                accept="application/json",
                headers=headers,
                body=b"x",
                auth=False,
            )
        )
    assert set(server.seen[0].headers) == COMMON | {"content-type", "content-length"}


# -- what swells


@functools.cache
def zeros():
    return gzip.compress(b"0" * (100 << 20))


@pytest.mark.parametrize("form", ["once", "twice", "members"])
@pytest.mark.parametrize("coding", ["gzip", None])
async def test_a_decompression_bomb_is_a_clear_error_and_is_not_retried(form, coding):
    body = {"once": zeros(), "twice": gzip.compress(zeros()), "members": zeros() * 5}[form]
    async with wire(always(http(body=body, Content_Encoding=coding))) as server, client(server) as ehr:
        with pytest.raises(TerminalFetchError, match=r"unpacks to hundreds of times its size.*administrators"):
            await ehr.send(call())
        with pytest.raises(TerminalFetchError, match="unpacks to hundreds of times its size"):
            await read_to_its_end(ehr)
        assert len(server.seen) == 2
        assert ehr.retries == 0


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 X\r\nX-Long: " + b"x" * 100_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 X\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + b"Content-Length: 2\r\n\r\n{}",
    ],
    ids=["one long", "very many"],
)
async def test_the_size_of_headers_is_bounded(head):
    async def too_much(request, writer):
        writer.write(head)
        return False

    async with wire(too_much) as server, client(server, retry__max_tries=2) as ehr:
        with pytest.raises(TransientFetchError, match="not valid HTTP"):
            await ehr.send(call())


@pytest.mark.parametrize(
    "more",
    [b"".join(b"X-%d: y\r\n" % n for n in range(900)), b"X-Long: " + b"x" * 60_000 + b"\r\n"],
    ids=["900 headers", "60 KB"],
)
async def test_many_or_long_headers_of_a_gateway_are_read(more):
    async def answer(request, writer):
        writer.write(b"HTTP/1.1 200 X\r\n" + more + b"Content-Length: 2\r\n\r\n{}")
        return True

    async with wire(answer) as server, client(server, retry__max_tries=1) as ehr:
        assert (await ehr.send(call())).body == b"{}"
