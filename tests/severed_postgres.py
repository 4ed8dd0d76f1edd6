"""A relay before a Postgres that cuts every connection once a command has sent so many statements; then nobody gets through.

Statements are what the client sends as Query or Execute, and the ends of a COPY (PostgreSQL documentation, "Message Formats").
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from psycopg import conninfo

_STATEMENTS = frozenset(b"QEc")
_STARTUP = 3 << 16  # the protocol's version, in the packet that opens a session; others ask for encryption first


class Relay:
    """Counts statements from `allow` on, and lets no more than that through."""

    def __init__(self, server: str) -> None:
        parts = conninfo.conninfo_to_dict(server)
        self._server = f"{parts['host']}/.s.PGSQL.{parts.get('port', 5432)}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._left = 0
        self._open: set[socket.socket] = set()
        self.url = f"postgresql://{quote(str(parts['user']))}@127.0.0.1:{self._listener.getsockname()[1]}/{quote(str(parts['dbname']))}"
        threading.Thread(target=self._listen, daemon=True).start()

    def allow(self, statements: int) -> None:
        """Let this many statements through, then cut all connections."""
        with self._lock:
            self._left = statements

    @property
    def was_cut(self) -> bool:
        """Whether the connections were cut since `allow`."""
        return self._left <= 0

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
        self._cut()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.was_cut:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                with self._lock:
                    self._open |= {client, server}
                for run in (self._requests, self._answers):
                    threading.Thread(target=run, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:  # the start of a session has no letter before its length
                packet = _packet(client)
                server.sendall(packet)
                if struct.unpack(">i", packet[4:8])[0] == _STARTUP:
                    break
            while True:
                letter = _exactly(client, 1)
                packet = _packet(client)
                if letter[0] in _STATEMENTS and not self._may_pass():
                    self._cut()
                    return
                server.sendall(letter + packet)
        _close(client, server)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
        _close(client, server)

    def _may_pass(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left > 0

    def _cut(self) -> None:
        with self._lock:
            cut, self._open = self._open, set()
        _close(*cut)


@contextmanager
def severable(server: str) -> Iterator[Relay]:
    """A relay before the server's socket, as long as the block lasts."""
    relay = Relay(server)
    try:
        yield relay
    finally:
        relay.close()


def _packet(client: socket.socket) -> bytes:
    length = _exactly(client, 4)
    return length + _exactly(client, struct.unpack(">i", length)[0] - 4)


def _exactly(client: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = client.recv(count - len(found))
        if not part:
            raise EOFError
        found += part
    return found


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
