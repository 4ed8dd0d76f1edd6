"""lean_server owns a server that costs almost nothing, so that benchmarks measure the client and Postgres.

Every answer is rendered before the first request: pages of searches by patient and type, a bulk manifest and its files, each
plain and gzipped. It speaks correct HTTP/1.1 (keep-alive, Content-Length, gzip on request) and checks nothing: strictness and
faults are for the mocks. As a program (`python -m benchmarks.lean_server`) it reads its settings as a JSON line, prints its
addresses as another, and ends when its input ends.
"""

from __future__ import annotations

import asyncio
import json
import re
import selectors
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from isal import igzip

REPOSITORY = Path(__file__).resolve().parents[1]
BACKLOG = 1024
GROUP = "everyone"
_SHARED = ("Device", "Location", "Medication", "Organization", "Practitioner", "PractitionerRole")
_MEMORY = 64  # number of answers over which the timers' delay is averaged
_SEARCH = re.compile(rb"/fhir/([A-Za-z]+)\?(?:.*&)?(patient|_id)=(?:Patient(?:/|%2F))?([^&]+)")
_NUMBER = re.compile(rb"[?&]page=(\d+)")
_REFERENCE = re.compile(rb'"(?:subject|patient|beneficiary)":\{[^{}]*?"reference":"(?:[^"]*/)?Patient/([^"/]+)"')
_ID = re.compile(rb'"id":"([^"]+)"')
_NAMED = re.compile(rb'"resourceType":"([A-Za-z]+)","id":"([^"]+)"')  # our generator writes both first
_FHIR, _NDJSON = b"application/fhir+json", b"application/fhir+ndjson"

Rendered = tuple[bytes, bytes]  # a whole answer, plain and gzipped


@contextmanager
def lean_ehr(data: Path, **settings: Any) -> Iterator[dict[str, Any]]:
    """Serve the NDJSON files of a folder until the block ends.

    Settings: `latency_s` of every answer; `page_size`, rows per page whatever the client asks for; `types` to render pages for;
    `rows_per_file` and `files`, to offer a bulk export. Yields `base_url`, `patient_ids`, `pages`, `rows`, `files`,
    `file_rows`, and, once the block has ended, the mean `latency_s` that was really achieved.
    """
    command = [sys.executable, "-m", "benchmarks.lean_server"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"data": str(data), **settings}) + "\n")
            process.stdin.flush()
            figures = json.loads(process.stdout.readline())
            yield figures
        finally:
            process.stdin.close()
            figures.update(json.loads(process.stdout.readline()))
            process.wait(30)


def render(status: str, body: bytes, media_type: bytes = _FHIR, *headers: bytes) -> Rendered:
    """Return a whole answer, plain and gzipped."""

    def answer(sent: bytes, *more: bytes) -> bytes:
        lines = [f"HTTP/1.1 {status}".encode(), b"Content-Type: " + media_type, b"Content-Length: %d" % len(sent)]
        return b"\r\n".join([*lines, *headers, *more, b"", sent])

    return answer(body), answer(igzip.compress(body, 1), b"Content-Encoding: gzip", b"Vary: Accept-Encoding")


class Answers:
    """Every possible answer, rendered."""

    def __init__(self, base_url: str, data: Path, settings: dict[str, Any]) -> None:
        self.base_url = base_url
        self.pages: dict[tuple[bytes, bytes, int], Rendered] = {}
        self.exact: dict[bytes, Rendered] = {}
        self.patient_ids: list[str] = []
        self.rows = self.file_rows = 0
        self.files: list[dict[str, Any]] = []
        self._by_id: dict[tuple[bytes, bytes], bytes] = {}
        types = list(settings.get("types", ()))
        for resource_type in types:
            self._render_pages(resource_type, data / f"{resource_type}.ndjson", settings["page_size"])
        for file in data.glob("*.ndjson"):
            self._render_reads(file)
        if settings.get("files"):
            self._render_files(data, settings["files"], settings["rows_per_file"])
        declared = types or sorted(file.stem for file in data.glob("*.ndjson"))
        self.exact[b"/fhir/metadata"] = render("200 OK", json.dumps(_capability(declared)).encode())
        self._empty = render("200 OK", self._bundle([], b""))
        self._unknown = render(
            "404 Not Found", b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"not-found"}]}'
        )
        self._accepted = render("202 Accepted", b"", _FHIR, f"Content-Location: {base_url}/jobs/1".encode())
        self._deleted = render("202 Accepted", b"")
        self._status = render("200 OK", json.dumps(self._manifest()).encode(), b"application/json")

    def _render_pages(self, resource_type: str, file: Path, page_size: int) -> None:
        by_patient: defaultdict[bytes, list[bytes]] = defaultdict(list)
        with file.open("rb") as lines:
            for line in lines:
                found = _ID.search(line) if resource_type == "Patient" else _REFERENCE.search(line)
                if found:
                    by_patient[found[1]].append(line.rstrip())
        if resource_type == "Patient":
            self.patient_ids = [name.decode() for name in by_patient]
        kind = resource_type.encode()
        for patient, rows in by_patient.items():
            self.rows += len(rows)
            chunks = iter(rows)
            number = 1
            while chunk := list(islice(chunks, page_size)):
                more = number * page_size < len(rows)
                link = (
                    f"{self.base_url}/{resource_type}?patient={patient.decode()}&page={number + 1}".encode()
                    if more
                    else b""
                )
                self.pages[kind, patient, number] = render("200 OK", self._bundle(chunk, link))
                number += 1

    def _render_reads(self, file: Path) -> None:
        """Render what can be requested by id, one or many: the Patients, and the few resources that all charts refer to."""
        rows = file.read_bytes().splitlines() if file.stem in {"Patient", *_SHARED} else []
        for row in rows:
            found = _ID.search(row)
            assert found is not None
            kind = file.stem.encode()
            self._by_id[kind, found[1]] = row
            self.exact[b"/fhir/%s/%s" % (kind, found[1])] = render("200 OK", row)

    def _render_files(self, data: Path, files: int, rows_per_file: int) -> None:
        for file in sorted(data.glob("*.ndjson")):
            with file.open("rb") as lines:
                while len(self.files) < files and (chunk := list(islice(lines, rows_per_file))):
                    path = f"/fhir/files/{len(self.files) + 1}"
                    self.exact[path.encode()] = render("200 OK", b"".join(chunk), _NDJSON)
                    self.file_rows += len(chunk)
                    url = self.base_url.removesuffix("/fhir") + path
                    self.files.append({"type": file.stem, "url": url, "count": len(chunk)})

    def _manifest(self) -> dict[str, Any]:
        return {
            "transactionTime": "2026-01-01T00:00:00Z", "request": f"{self.base_url}/Group/{GROUP}/$export",
            "requiresAccessToken": False, "output": self.files, "error": [],
        }  # fmt: skip

    def to(self, method: bytes, target: bytes) -> Rendered:
        """Return the answer to one request."""
        found = self.exact.get(target)
        if found is not None:
            return found
        if b"$export" in target:
            return self._accepted
        if target.startswith(b"/fhir/jobs/"):
            return self._deleted if method == b"DELETE" else self._status
        search = _SEARCH.match(target)
        if search is None:
            return self._unknown
        if search[2] == b"_id":
            ids = search[3].replace(b"%2C", b",").split(b",")
            rows = [self._by_id[search[1], one] for one in ids if (search[1], one) in self._by_id]
            return render("200 OK", self._bundle(rows, b""))
        number = _NUMBER.search(target)
        return self.pages.get((search[1], search[3], int(number[1]) if number else 1), self._empty)

    def _bundle(self, rows: list[bytes], next_url: bytes) -> bytes:
        link = b'"link":[{"relation":"next","url":"%s"}],' % next_url if next_url else b""
        entries = b",".join(map(self._entry, rows))
        return b'{"resourceType":"Bundle","type":"searchset",%s"entry":[%s]}' % (link, entries)

    def _entry(self, row: bytes) -> bytes:
        """Return an entry as Epic writes it, with its own link."""
        found = _NAMED.search(row)
        assert found is not None
        url = b"%s/%s/%s" % (self.base_url.encode(), found[1], found[2])
        return b'{"link":[{"relation":"self","url":"%s"}],"fullUrl":"%s","resource":%s,"search":{"mode":"match"}}' % (
            url,
            url,
            row,
        )


def _capability(types: list[str]) -> dict[str, Any]:
    export = {"name": "export", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/group-export"}
    resources: list[dict[str, Any]] = [
        {
            "type": kind, "interaction": [{"code": "read"}, {"code": "search-type"}],
            "searchParam": [{"name": "_id" if kind == "Patient" else "patient", "type": "token"}],
        }
        for kind in types
    ]  # fmt: skip
    resources.append({"type": "Group", "interaction": [{"code": "read"}], "operation": [export]})
    return {
        "resourceType": "CapabilityStatement",
        "fhirVersion": "4.0.1",
        "rest": [{"mode": "server", "resource": resources}],
    }


class Delay:
    """Latency that is right on average: timers fire 0.2 to 0.5 ms late on a virtual machine, so this sets them earlier."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.served = 0
        self.total_s = 0.0
        self._late_s = 0.0
        self._loop = asyncio.get_running_loop()

    def later(self, write: Callable[[bytes], None], answer: bytes) -> None:
        """Write the answer once its latency has passed, counted from now."""
        begins = self._loop.time()

        def due() -> None:
            took = self._loop.time() - begins
            self.served += 1
            self.total_s += took
            self._late_s += (took - self.latency_s) / _MEMORY
            write(answer)

        self._loop.call_at(begins + self.latency_s - self._late_s, due)


class LeanConnection(asyncio.Protocol):
    """One connection to a client that sends a request, then waits for its answer."""

    def __init__(self, answers: Answers, delay: Delay) -> None:
        self._answers = answers
        self._delay = delay
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport for the answers."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request whose head is complete; none has a body."""
        self._held = self._held + data if self._held else data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head, self._held = self._held[:end], self._held[end + 4 :]
            method, target, _ = head.split(b" ", 2)
            lower = head.lower()
            answer = self._answers.to(method, target)[b"gzip" in lower]
            if self._delay.latency_s:
                self._delay.later(self._write, answer)
            else:
                self._write(answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _listen() -> socket.socket:
    # name the protocol: asyncio turns Nagle's algorithm off only on sockets that declare TCP
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener


async def _serve(settings: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    listener = _listen()
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/fhir"
    answers = Answers(base_url, Path(settings["data"]), settings)
    delay = Delay(settings.get("latency_s", 0.0))
    server = await loop.create_server(lambda: LeanConnection(answers, delay), sock=listener)
    where = {
        "base_url": base_url, "patient_ids": answers.patient_ids, "pages": len(answers.pages), "rows": answers.rows,
        "files": len(answers.files), "file_rows": answers.file_rows,
    }  # fmt: skip
    sys.stdout.write(json.dumps(where) + "\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    sys.stdout.write(json.dumps({"latency_s": delay.total_s / delay.served if delay.served else 0.0}) + "\n")


def main() -> None:
    """Serve with the settings in the first line of input until the input ends."""
    settings = json.loads(sys.stdin.readline())
    # epoll's timeout is rounded up to whole milliseconds, select's is not: an answer is 50.0 ms late, not 50.5
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(_serve(settings))


if __name__ == "__main__":
    main()
