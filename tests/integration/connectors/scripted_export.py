"""An export server of bare sockets that answers as a test scripts it, and whole runs against it, into a real store.

Judged is what arrives on the wire: every request as it came, in order. Waits of the client take no time and are kept.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from connectors.core.waits import Wait
from connectors.fhir.sync import SyncRequest
from connectors.fhir.vendors import profile_for
from snapshots.report import RunReport
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.runs import Clock, signing, whole_run
from tests.integration.connectors.wire import Seen, Wire, http, wire
from tests.profiles import grouped

PATIENT = '{"resourceType":"Patient","id":"p1"}'
OBSERVATION = '{"resourceType":"Observation","id":"o1","subject":{"reference":"Patient/p1"}}'
OUTCOME = '{{"resourceType":"OperationOutcome","issue":[{{"severity":"{severity}","code":"{code}"}}]}}'


@dataclass(frozen=True)
class Answer:
    """One answer; `{origin}` and `{elsewhere}` in body and headers become the servers' own."""

    status: int = 200
    body: str | bytes | dict = ""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    content_type: str | None = "application/fhir+json"
    cut: int | None = None  # close the connection after so many bytes of the body


def ndjson(*lines: str, **rest: Any) -> Answer:
    return Answer(body="".join(f"{line}\n" for line in lines), content_type="application/fhir+ndjson", **rest)


def outcome(status: int, code: str, severity: str = "error", **headers: str) -> Answer:
    return Answer(status, OUTCOME.format(severity=severity, code=code), headers)


def accepted(location: str | None = "{origin}/jobs/1", **headers: str | None) -> Answer:
    return Answer(202, "", {"Content-Location": location, **headers})


def busy(**headers: str) -> Answer:
    return Answer(202, "", headers)


def manifest(*types: str, requires: Any = True, files: str = "{origin}/files", **more: Any) -> Answer:
    """A manifest with one file a type, at `files`/<type>."""
    body: dict[str, Any] = {
        "transactionTime": "2026-03-01T00:00:00Z",
        "request": "{origin}/fhir/Patient/$export",
        "requiresAccessToken": requires,
        "output": [{"type": kind, "url": f"{files}/{kind}"} for kind in types],
        "error": [],
        **more,
    }
    return Answer(200, {k: v for k, v in body.items() if v is not None}, content_type="application/json")


@dataclass
class ExportServer:
    """What the server answers: each list in turn, its last entry for ever. Files by path below /files."""

    kickoffs: list[Answer] = field(default_factory=lambda: [accepted()])
    polls: list[Answer] = field(default_factory=lambda: [manifest("Patient", "Observation")])
    deletions: list[Answer] = field(default_factory=lambda: [Answer(202)])
    files: dict[str, list[Answer]] = field(
        default_factory=lambda: {"Patient": [ndjson(PATIENT)], "Observation": [ndjson(OBSERVATION)]}
    )
    pages: dict[str, list[Answer]] = field(default_factory=dict)  # other paths below the origin
    tokens: list[Answer] = field(default_factory=list)
    smart: dict[str, Any] = field(default_factory=dict)
    capability: dict[str, Any] = field(default_factory=dict)
    main: Wire | None = None
    elsewhere: Wire | None = None
    held_up: list[Wait | None] = field(default_factory=list)  # what the client says of each wait while it lasts
    shown: list[str] = field(default_factory=list)
    before: Callable[[Seen], None] = lambda seen: None
    granted: int = 0
    clock: Clock = field(default_factory=Clock)

    def sent(self, path: str, method: str | None = None) -> list[Seen]:
        """Requests whose target begins with `path`, in the order of arrival."""
        assert self.main is not None
        return [s for s in self.main.seen if s.target.startswith(path) and method in (None, s.method)]

    @property
    def kicked_off(self) -> list[Seen]:
        """The kick-offs that arrived."""
        assert self.main is not None
        return [s for s in self.main.seen if "$export" in s.target]

    async def answer(self, seen: Seen, writer: Any) -> bool | None:
        """Write the answer to one request."""
        self.before(seen)
        return self._write(self._choose(seen), writer)

    def _choose(self, seen: Seen) -> Answer:
        path = seen.target.partition("?")[0]
        if path in self.pages:
            return _next(self.pages[path])
        if path.endswith("/smart-configuration"):
            found = {"token_endpoint": "{origin}/token", "capabilities": ["permission-v1"], **self.smart}
            return Answer(200, found, content_type="application/json")
        if path.endswith("/metadata"):
            return Answer(200, self._statement())
        if path == "/token":
            return self._token()
        if "$export" in path:
            return _next(self.kickoffs)
        if path.startswith("/jobs/"):
            return _next(self.deletions if seen.method == "DELETE" else self.polls)
        if path.startswith("/files/"):
            return _next(self.files[path.removeprefix("/files/")])
        return self._read(*path.split("/")[-2:])

    def _read(self, kind: str, identity: str) -> Answer:
        """What stands in the type's file now can be read by its id."""
        for answer in self.files.get(kind, [])[:1]:
            text = gzip.decompress(answer.body) if answer.body[:2] == b"\x1f\x8b" else answer.body
            for line in (text.decode() if isinstance(text, bytes) else str(text)).splitlines():
                if f'"id":"{identity}"' in line.replace('": "', '":"'):
                    return Answer(200, line)
        return Answer(404, "")

    def _token(self) -> Answer:
        if self.tokens:
            return self.tokens.pop(0)
        self.granted += 1
        body = {"access_token": f"token-{self.granted}", "token_type": "bearer", "expires_in": 300}
        return Answer(200, body, {"Date": formatdate(self.clock.seconds(), usegmt=True)})

    def _statement(self) -> dict[str, Any]:
        operation = [{"name": "export", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export"}]
        resources: list[dict[str, Any]] = [{"type": kind, "operation": operation} for kind in ("Patient", "Group")]
        resources.append({"type": "Observation", "interaction": [{"code": "read"}]})
        rest = [{"mode": "server", "resource": resources, "operation": operation}]
        return {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": rest, **self.capability}

    def _write(self, answer: Answer, writer: Any) -> bool | None:
        body = answer.body if isinstance(answer.body, bytes) else self._placed(answer.body).encode()
        headers = {k.replace("-", "_"): v and self._placed(v) for k, v in answer.headers.items()}
        raw = http(answer.status, body, answer.content_type, **headers)
        if answer.cut is None:
            writer.write(raw)
            return None
        writer.write(raw[: len(raw) - len(body) + answer.cut])
        return False

    def _placed(self, value: str | dict) -> str:
        assert self.main is not None
        text = value if isinstance(value, str) else json.dumps(value)
        other = self.elsewhere.origin if self.elsewhere else ""
        return text.replace("{origin}", self.main.origin).replace("{elsewhere}", other)

    async def sync(self, store: KeptRows, profile: dict[str, Any] | None = None, **settings: Any) -> RunReport:
        """One bulk run, as the command does it; its waits pass at once."""
        assert self.main is not None
        chosen = profile_for(
            "generic", grouped({"bulk.levels": ["patient", "group"], "retry.base_s": 0.01, **(profile or {})})
        )
        base_url = self.main.base_url
        request = SyncRequest(connection="site", base_url=base_url, profile=chosen, **{"mode": "bulk", **settings})
        return await whole_run(
            request,
            signing("generic", "client-1", scopes=("system/*.read",)),
            store,
            self.clock,
            before_wait=lambda client: self.held_up.append(client.waits.current()),
            on_progress=lambda progress: self.shown.append(progress.phase),
        )


def _next(script: list[Answer]) -> Answer:
    return script.pop(0) if len(script) > 1 else script[0]


@asynccontextmanager
async def export_server(**script: Any) -> AsyncIterator[ExportServer]:
    """A scripted server, and a second origin beside it that answers by the same script."""
    server = ExportServer(**script)
    async with wire(server.answer) as main, wire(server.answer) as elsewhere:
        server.main, server.elsewhere = main, elsewhere
        yield server


def bearer(seen: Seen) -> str | None:
    """The token that a request carried."""
    return seen.headers.get("authorization", "").removeprefix("Bearer ") or None
