"""A server of bare sockets that answers with exactly the bytes a test gives it, and the client that talks to it.

No HTTP library stands in between: cut bodies, stalls and odd headers leave as they are written.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.client import EhrClient
from tests.profiles import grouped

NOW = 1_800_000_000.0


@dataclass(frozen=True)
class Seen:
    """One request as it arrived: `target` is the request line's, byte for byte."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    peer: int  # the client's port: tells connections apart


@dataclass
class Wire:
    """One running server. `answer(seen, writer)` writes the whole answer; returning False closes the connection."""

    answer: object
    seen: list[Seen] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"

    @property
    def origin(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def base_url(self):
        return f"{self.origin}/fhir"

    async def serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *rest = head.rstrip("\r\n").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, target, _ = line.split(" ", 2)
                request = Seen(method, target, headers, body, writer.get_extra_info("peername")[1])
                self.seen.append(request)
                if await self.answer(request, writer) is False:
                    break
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


@asynccontextmanager
async def wire(answer, *, tls=None):
    """A server on a free port of the loopback, in this event loop."""
    running = Wire(answer, scheme="http" if tls is None else "https")
    tasks = set()

    async def connected(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            await running.serve(reader, writer)
        except asyncio.CancelledError:
            writer.close()
        finally:
            tasks.discard(asyncio.current_task())

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def http(status=200, body=b"{}", content_type="application/fhir+json", **headers):
    """The bytes of a whole answer; header names take `_` for `-`, a value None leaves the header out."""
    fields = {"Content-Type": content_type, "Content-Length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def always(answer):
    """Answer every request with these bytes, or with these in turn and the last one from then on."""
    script = list(answer) if isinstance(answer, list) else [answer]

    async def reply(request, writer):
        writer.write(script.pop(0) if len(script) > 1 else script[0])

    return reply


@dataclass(frozen=True)
class Endpoint:
    """A connection's wire settings."""

    base_url: str
    client_id: str | None = "c1"
    ca_bundle: Path | None = None
    client_cert: Path | None = None
    client_cert_key: Path | None = None
    proxy: str | None = None


class Waits:
    """A sleep that does not wait, remembers, and lets the client's clock move on."""

    def __init__(self):
        self.seconds = []

    def clock(self):
        return NOW + sum(self.seconds)

    async def __call__(self, seconds):
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def client(server_or_endpoint, *, tokens=None, waits=None, shared=None, **changes):
    """An EhrClient whose waits take no time."""
    endpoint = server_or_endpoint
    if isinstance(endpoint, Wire):
        endpoint = Endpoint(endpoint.base_url)
    profile = VendorProfile(name="x", label="X", **grouped(changes))
    waits = waits or Waits()
    return EhrClient(
        endpoint,
        profile,
        tokens,
        clock=getattr(waits, "clock", lambda: NOW),
        sleep=waits,
        rng=random.Random(1),
        shared=shared,
    )


def call(url="Patient?name=SECRET", **changes):
    """A search, unless told otherwise."""
    wanted = {"method": "GET", "template": "GET /Patient?name={name}", "purpose": "search"} | changes
    return Call(url=url, **wanted)


async def read_to_its_end(ehr):
    """The body of a file."""
    async with ehr.stream(call(purpose="file", accept="application/fhir+ndjson")) as reply:
        return b"".join([chunk async for chunk in reply.chunks])
