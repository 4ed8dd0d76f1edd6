"""A small FHIR server that a test writes word by word: it serves what `answers` gives for a path, else 404."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

EXPORT = {"name": "export", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/patient-export"}


@dataclass
class Small:
    """What a test gets. `served` is what `Site.connect` wants of a server."""

    base: str = ""
    answer: Callable[[str, dict[str, str]], Any] = lambda path, query: None
    paths: list[str] = field(default_factory=list)

    @property
    def served(self) -> Any:
        return SimpleNamespace(
            vendor="generic", base_url=self.base, ehr=SimpleNamespace(config=SimpleNamespace(open=True)), client_id="c"
        )


def statement(*types: str, export: bool = False, parameters: tuple[str, ...] = ()) -> dict[str, Any]:
    resources = [
        {
            "type": kind,
            "interaction": [{"code": "read"}, {"code": "search-type"}],
            "searchParam": [{"name": name} for name in ("_id" if kind == "Patient" else "patient", *parameters)],
            "operation": [EXPORT] if export and kind == "Patient" else [],
        }
        for kind in types
    ]
    rest = [{"mode": "server", "resource": resources}]
    return {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": rest}


def bundle(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": row} for row in rows], **more}


def row(kind: str, id_: str, patient: str | None = None, **more: Any) -> dict[str, Any]:
    subject = {} if patient is None else {"subject": {"reference": f"Patient/{patient}"}}
    return {"resourceType": kind, "id": id_, **subject, **more}


def lines(*rows: dict[str, Any] | bytes) -> bytes:
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in rows)


@contextlib.contextmanager
def small_server() -> Iterator[Small]:
    """Serve on a port of its own while the block runs. An answer is a body (JSON or bytes), or (status, body, headers)."""
    small = Small()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            form = self.rfile.read(length).decode() if length else ""
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(f"{url.query}&{form}").items()}
            small.paths.append(url.path)
            found = small.answer(url.path.removesuffix("/_search"), query)
            status, body, headers = (
                found if isinstance(found, tuple) else (200 if found is not None else 404, found, {})
            )
            raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/fhir+json",
                "Content-Length": str(len(raw)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_DELETE = do_GET  # noqa: N815 -- http.server's names

        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    small.base = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield small
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
