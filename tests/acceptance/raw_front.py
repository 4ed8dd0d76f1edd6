"""A front before a mock EHR that writes its answers in unusual ways: what proxies and old servers do to HTTP itself.

The mocks' web server speaks clean HTTP/1.1; here each answer is read whole and written to the socket by a `Wording`.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mocks.serving import Served

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
_MAX_HEAD = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """One answer of the mock, whole."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    number: int  # of the answers since the front was opened, from 1

    def head(self, *more: str, version: str = "HTTP/1.1") -> bytes:
        """Status line and headers, with these lines added."""
        lines = [f"{version} {self.status} {self.reason}", *(f"{name}: {value}" for name, value in self.headers), *more]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


Wording = Callable[[Answer, socket.socket], bool]  # writes the answer; False: the connection ends


def plain(answer: Answer, out: socket.socket) -> bool:
    out.sendall(answer.head(f"Content-Length: {len(answer.body)}") + answer.body)
    return True


def sometimes(wording: Wording, every: int) -> Wording:
    """Each n-th answer so, the others plainly."""
    return lambda answer, out: (wording if answer.number % every == 0 else plain)(answer, out)


def until_closed(answer: Answer, out: socket.socket) -> bool:
    """HTTP/1.0: the body ends where the connection does."""
    out.sendall(answer.head("Connection: close", version="HTTP/1.0") + answer.body)
    return False


def chunks(answer: Answer, out: socket.socket) -> bool:
    """Chunked, in crooked sizes, with an extension and a trailer, as the RFC allows."""
    out.sendall(answer.head("Transfer-Encoding: chunked", "Trailer: X-Checksum"))
    for at in range(0, len(answer.body), 997):
        piece = answer.body[at : at + 997]
        out.sendall(b"%X;name=value\r\n" % len(piece) + piece + b"\r\n")
    out.sendall(b"0\r\nX-Checksum: none\r\n\r\n")
    return True


def chunks_without_end(answer: Answer, out: socket.socket) -> bool:
    """All of the body in chunks, and then the connection closes without the last, empty one."""
    out.sendall(
        answer.head("Transfer-Encoding: chunked")
        + b"%X\r\n" % max(len(answer.body), 1)
        + (answer.body or b" ")
        + b"\r\n"
    )
    return False


def chunks_for_ever(answer: Answer, out: socket.socket) -> bool:
    """The body in a chunk, and then silence while the connection stays."""
    chunks_without_end(answer, out)
    with contextlib.suppress(OSError):
        out.settimeout(30)
        out.recv(1)
    return False


def longer_than_it_is(answer: Answer, out: socket.socket) -> bool:
    """A Content-Length of more than comes."""
    out.sendall(answer.head(f"Content-Length: {len(answer.body) + 100}") + answer.body)
    return False


def shorter_than_it_is(answer: Answer, out: socket.socket) -> bool:
    """A Content-Length of less than comes: the rest stands where the next answer should."""
    out.sendall(answer.head(f"Content-Length: {max(len(answer.body) - 50, 0)}") + answer.body)
    return True


def two_lengths(answer: Answer, out: socket.socket) -> bool:
    """Two Content-Lengths that differ: request smuggling's way in."""
    out.sendall(
        answer.head(f"Content-Length: {len(answer.body)}", f"Content-Length: {len(answer.body) + 7}") + answer.body
    )
    return False


def interim(answer: Answer, out: socket.socket) -> bool:
    """Interim answers before the answer: 100 that nobody asked for, and early hints."""
    out.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    return plain(answer, out)


def flood(answer: Answer, out: socket.socket) -> bool:
    """Headers without end."""
    out.sendall(
        answer.head(*(f"X-Noise-{n}: {'x' * 900}" for n in range(300)), f"Content-Length: {len(answer.body)}")
        + answer.body
    )
    return False


def no_reason(answer: Answer, out: socket.socket) -> bool:
    """A status line without a reason, header names in odd case, spaces where none belong."""
    head = answer.head(f"CONTENT-length:   {len(answer.body)}  ").replace(answer.reason.encode(), b"", 1)
    out.sendall(head + answer.body)
    return True


def trickle(answer: Answer, out: socket.socket) -> bool:
    """One byte, a moment, one byte: never silent for long, and never done."""
    out.sendall(answer.head(f"Content-Length: {len(answer.body)}"))
    with contextlib.suppress(OSError):
        for at in range(len(answer.body)):
            out.sendall(answer.body[at : at + 1])
            time.sleep(0.1)
    return False


def nothing_at_all(answer: Answer, out: socket.socket) -> bool:
    """Not HTTP: a banner of something else on that port."""
    out.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
    return False


class Front(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, upstream: str, wording: Wording) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.upstream = upstream
        self.wording = wording
        self._numbers = 0
        self._lock = threading.Lock()

    def number(self) -> int:
        with self._lock:
            self._numbers += 1
            return self._numbers

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what these tests are about."""


class _Conversation(socketserver.BaseRequestHandler):
    server: Front
    request: socket.socket

    def handle(self) -> None:
        with contextlib.suppress(OSError), self.request.makefile("rb") as source:
            while line := source.readline(_MAX_HEAD):
                method, target, _ = line.decode("latin-1").split()
                headers = http.client.parse_headers(source)
                body = source.read(int(headers.get("Content-Length", 0)))
                answer = self._ask(method, target, headers, body)
                if not self.server.wording(answer, self.request):
                    return

    def _ask(self, method: str, target: str, headers: http.client.HTTPMessage, body: bytes) -> Answer:
        conn = http.client.HTTPConnection(self.server.upstream)
        try:
            conn.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() != "connection":
                    conn.putheader(name, value)
            conn.endheaders(body or None)
            answer = conn.getresponse()
            kept = tuple((name, value) for name, value in answer.getheaders() if name.lower() not in _HOP)
            return Answer(answer.status, answer.reason, kept, answer.read(), self.server.number())
        finally:
            conn.close()


@contextlib.contextmanager
def fronted(served: Served) -> Iterator[tuple[Served, Front]]:
    """Put a front before a running mock, which then names itself by it; it speaks plainly until told otherwise."""
    behind = served.ehr.origin
    front = Front(behind.split("://")[1], plain)
    thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    origin = f"http://127.0.0.1:{front.server_address[1]}"
    served.ehr.set_origins(origin, served.ehr.store_origin)
    try:
        ehr = served.ehr
        yield replace(served, base_url=ehr.base_url, token_url=ehr.token_url, audience=ehr.audience), front
    finally:
        front.shutdown()
        front.server_close()
