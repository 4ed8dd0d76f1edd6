"""A FHIR server of bare sockets, unlike any mock: a test hooks in what it gets wrong, and everything else is answered well."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlsplit

import orjson

_PAGE = 10


@dataclass(frozen=True)
class Request:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    base: str


Hook = Callable[[Request], bytes | None]


def answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> bytes:
    """A whole HTTP answer: `body` as JSON, or bytes as they are."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    fields = {"Content-Type": "application/fhir+json", "Content-Length": str(len(raw)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} As It Is\r\n{head}\r\n".encode() + raw


def bundle(rows: list[dict], next_url: str | None = None, total: int | None = None) -> dict:
    """A searchset."""
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": "next", "url": next_url}] if next_url else [],
        "entry": [{"resource": row, "search": {"mode": "match"}} for row in rows],
        **({"total": total} if total is not None else {}),
    }


def small_chart(patients: int = 2, observations: int = 25) -> dict[str, list[dict]]:
    """Patients with Observations and two Conditions each."""
    who = [f"p{n}" for n in range(patients)]
    of = {one: {"subject": {"reference": f"Patient/{one}"}} for one in who}
    return {
        "Patient": [{"resourceType": "Patient", "id": one} for one in who],
        "Observation": [
            {"resourceType": "Observation", "id": f"o-{one}-{n}", **of[one]} for one in who for n in range(observations)
        ],
        "Condition": [{"resourceType": "Condition", "id": f"c-{one}-{n}", **of[one]} for one in who for n in range(2)],
    }


@dataclass
class RawServer:
    """What a test gets: where it is, what it holds, and what was requested."""

    base_url: str = ""
    vendor: str = "generic"
    client_id: str = "client"
    group_id: str = ""
    patient_ids: tuple[str, ...] = ()
    rows: dict[str, list[dict]] = field(default_factory=small_chart)
    hook: Hook = lambda request: None
    requests: list[Request] = field(default_factory=list)
    lists_by_id: str = ""  # the type that it declares to search by `_id`, not by patient

    def keys(self) -> set[tuple[str, str]]:
        """Type and id of everything that it holds."""
        return {(row["resourceType"], row["id"]) for rows in self.rows.values() for row in rows}

    def matches(self, request: Request) -> list[dict]:
        """What a search of one type should find."""
        kind = request.path.strip("/").partition("/")[0]
        patient = request.query.get("patient")
        return [r for r in self.rows.get(kind, []) if patient in (None, r.get("subject", {}).get("reference", "/")[8:])]

    def reply(self, request: Request) -> bytes:
        """The hook's answer, else the right one."""
        self.requests.append(request)
        found = self.hook(request)
        if found is not None:
            return found
        if request.path.endswith("smart-configuration"):
            return answer({"token_endpoint": f"{request.base}/token"})
        if request.path == "/token":
            return answer({"access_token": "t", "token_type": "bearer", "expires_in": 300, "scope": "system/*.read"})
        if request.path == "/metadata":
            return answer(self.statement())
        kind, _, id_ = request.path.strip("/").partition("/")
        if id_:
            one = [row for row in self.rows.get(kind, []) if row["id"] == id_]
            return answer(one[0]) if one else answer({"resourceType": "OperationOutcome", "issue": []}, 404)
        start = int(request.query.get("start", 0))
        rows = self.matches(request)
        kept = "&".join(f"{name}={quote(value)}" for name, value in request.query.items() if name != "start")
        more = f"{request.base}/{kind}?{kept}&start={start + _PAGE}" if start + _PAGE < len(rows) else None
        return answer(bundle(rows[start : start + _PAGE], more, len(rows)))

    def statement(self) -> dict:
        """Its CapabilityStatement."""
        resources = [
            {
                "type": kind,
                "interaction": [{"code": "search-type"}],
                "searchParam": [{"name": "_id" if kind == self.lists_by_id else "patient"}],
            }
            for kind in self.rows
        ]
        return {
            "resourceType": "CapabilityStatement",
            "fhirVersion": "4.0.1",
            "rest": [{"mode": "server", "resource": resources}],
        }


@contextlib.asynccontextmanager
async def raw_server(hook: Callable[[RawServer, Request], bytes | None]) -> AsyncIterator[RawServer]:
    """Serve on a socket of this event loop while the block runs."""
    server = RawServer()
    server.hook = lambda request: hook(server, request)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                method, target, _ = first.split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
                await reader.readexactly(int(headers.get("content-length", 0)))
                url = urlsplit(target)
                query = dict(parse_qsl(url.query))
                writer.write(server.reply(Request(method, url.path, query, headers, server.base_url)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    server.base_url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()


def prescribe(server: RawServer, number: int) -> None:
    """Give patient p1 this many MedicationRequests, each for another Medication: m0, m1, …; these are searched by `_id`."""
    server.lists_by_id = "Medication"
    pills = [f"m{at}" for at in range(number)]
    server.rows["Medication"] = [{"resourceType": "Medication", "id": pill} for pill in pills]
    server.rows["MedicationRequest"] = [
        {
            "resourceType": "MedicationRequest",
            "id": f"r-{pill}",
            "subject": {"reference": "Patient/p1"},
            "medicationReference": {"reference": f"Medication/{pill}"},
        }
        for pill in pills
    ]
