"""Cookies: none unless they are wanted, and then the EHR's own only, kept to its origin and its connection."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.integration.connectors.wire import Endpoint, Wire, always, call, client, http, wire

pytestmark = pytest.mark.anyio

STICKY = "SERVERID=app-2|Zx+/=; Path=/; HttpOnly"


class Balanced:
    """A server of two machines: a page is there only for who brings the cookie of the machine that made it."""

    async def __call__(self, seen, writer):
        if "cookie" not in seen.headers:
            writer.write(http(200 if seen.target.endswith("first") else 410, Set_Cookie=STICKY))
        else:
            writer.write(http())


async def test_a_session_bound_to_one_machine_is_kept_by_cookies() -> None:
    async with wire(Balanced()) as server, client(server, http__cookies=True) as ehr:
        await ehr.send(call("Patient?first"))
        await ehr.send(call("Patient?second"))
        assert [seen.headers.get("cookie") for seen in server.seen] == [None, "SERVERID=app-2|Zx+/="]


async def test_without_the_setting_no_cookie_is_ever_sent() -> None:
    async with wire(always(http(Set_Cookie=STICKY))) as server, client(server) as ehr:
        for _ in range(3):
            await ehr.send(call())
        assert not any("cookie" in seen.headers for seen in server.seen)


async def test_cookies_of_a_redirect_and_of_a_refusal_are_kept_too() -> None:
    script = [
        http(302, b"", Location="/fhir/there", Set_Cookie="a=1"),
        http(503, b"", Set_Cookie="b=2", Retry_After="0"),
        http(),
    ]
    async with wire(always(script)) as server, client(server, http__cookies=True, retry__base_s=0.01) as ehr:
        await ehr.send(call())
        assert server.seen[1].headers["cookie"] == "a=1"
        assert set(server.seen[2].headers["cookie"].split("; ")) == {"a=1", "b=2"}


async def test_a_cookie_is_sent_to_its_path_until_it_is_withdrawn() -> None:
    script = [
        http(Set_Cookie="a=1; Path=/fhir/Patient"),
        http(),
        http(Set_Cookie="a=; Path=/fhir/Patient; Max-Age=0"),
        http(),
    ]
    async with wire(always(script)) as server, client(server, http__cookies=True) as ehr:
        for url in ("Patient?x", "Observation?x", "Patient?x", "Patient?x"):
            await ehr.send(call(url))
        assert [seen.headers.get("cookie") for seen in server.seen] == [None, None, "a=1", None]


async def test_cookies_are_sent_to_and_accepted_from_the_ehrs_origin_only() -> None:
    """Another port of the same host is another origin, though cookies know no ports."""
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(wire(always(http(Set_Cookie="theirs=1; Path=/"))))
        server = await stack.enter_async_context(wire(always(http(Set_Cookie="ours=1; Path=/; Domain=127.0.0.1"))))
        ehr = await stack.enter_async_context(client(server, http__cookies=True))
        file = {"purpose": "file", "accept": "application/fhir+ndjson", "auth": False}
        await ehr.send(call())
        await ehr.send(call(f"{other.origin}/files/1", **file))
        await ehr.send(call(f"{other.origin}/files/2", **file))
        await ehr.send(call())
        assert not any("cookie" in seen.headers for seen in other.seen)
        assert "theirs" not in server.seen[-1].headers.get("cookie", "")


async def test_each_connection_has_its_own_cookie_jar() -> None:
    async with wire(always(http(Set_Cookie=STICKY))) as server:
        async with client(Endpoint(server.base_url), http__cookies=True) as first:
            await first.send(call())
        async with client(Endpoint(server.base_url), http__cookies=True) as second:
            await second.send(call())
        assert not any("cookie" in seen.headers for seen in server.seen)


async def test_endless_new_cookies_do_not_fill_the_memory() -> None:
    async def answer(seen, writer):
        writer.write(http(Set_Cookie=f"c{len(running.seen)}=1; Path=/"))

    running: Wire
    async with wire(answer) as running, client(running, http__cookies=True) as ehr:
        for _ in range(120):
            await ehr.send(call())
        assert max(seen.headers.get("cookie", "").count("=") for seen in running.seen) <= 50
