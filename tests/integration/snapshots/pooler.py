"""A pooler before Postgres, as pgbouncer is one: it lends a server process for a session, or for the length of a transaction.

It speaks just enough of the protocol (Postgres documentation, "Message Formats"). Which process is lent: the one given back last.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from psycopg import conninfo

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_TLS_OR_GSS = {80877103, 80877104}


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


async def _startup(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(struct.unpack("!i", size)[0] - 4)


class _Pool:
    def __init__(self, socket: str, *, lends: bool, most: int, says: Mapping[str, str]) -> None:
        self._says = says
        self._socket = socket
        self._lends = lends
        self._spare: list[Streams] = []
        self._places = asyncio.Semaphore(most)
        self._welcome: list[
            tuple[bytes, bytes]
        ] = []  # the parameters that Postgres sends to the first login; later ones get the same
        self._numbers = itertools.count(900_000_000)
        self._sessions: set[asyncio.Task[None]] = set()
        self._open: list[asyncio.StreamWriter] = []

    async def _borrow(self, startup: bytes) -> Streams:
        await self._places.acquire()
        return self._spare.pop() if self._spare else await self._new(startup)

    async def _new(self, startup: bytes) -> Streams:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        self._open.append(writer)
        writer.write(startup)
        messages = [await _message(reader)]
        while messages[-1][0] != b"Z":
            messages.append(await _message(reader))
        self._welcome = self._welcome or messages
        return reader, writer

    def _give_back(self, server: Streams) -> None:
        if self._lends:
            self._spare.append(server)
        else:
            server[1].close()
        self._places.release()

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        startup = await _startup(reader)
        while struct.unpack("!i", startup[4:8])[0] in _TLS_OR_GSS:
            writer.write(b"N")
            startup = await _startup(reader)
        if not self._welcome:
            self._give_back(await self._borrow(startup))
        number = struct.pack("!i", next(self._numbers))  # its own, where Postgres tells the process's
        for kind, message in self._welcome:
            writer.write(message[:5] + number + message[9:] if kind == b"K" else self._said(kind, message))
        return startup

    def _said(self, kind: bytes, message: bytes) -> bytes:
        name = message[5:].split(b"\0")[0].decode()
        if kind != b"S" or name not in self._says:
            return message
        body = f"{name}\0{self._says[name]}\0".encode()
        return kind + struct.pack("!i", len(body) + 4) + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server: Streams | None = None
        self._open.append(writer)
        if task := asyncio.current_task():
            self._sessions.add(task)
        try:
            startup = await self._log_in(reader, writer)
            while (query := await _message(reader))[0] != b"X":
                server = server or await self._borrow(startup)
                server[1].write(query[1])
                if query[0] not in {b"Q", b"S"}:
                    continue
                kind, message = b"", b""
                while kind != b"Z":
                    kind, message = await _message(server[0])
                    writer.write(message)
                if self._lends and message.endswith(b"I"):  # idle, in no transaction
                    self._give_back(server)
                    server = None
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            if server is not None:
                self._give_back(server)
            writer.close()

    async def close(self) -> None:
        for task in self._sessions:
            task.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        for writer in self._open:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def pooler(
    url: str, *, lends: bool, most: int = 20, says: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[str]:
    """The URL of a database behind a pooler of at most this many server processes; `lends`: by transaction.

    `says`: parameters of the server (ParameterStatus) that the pooler replaces.
    """
    parts = conninfo.conninfo_to_dict(url)
    pool = _Pool(f"{parts['host']}/.s.PGSQL.{parts.get('port', 5432)}", lends=lends, most=most, says=says)
    with tempfile.TemporaryDirectory(prefix="cf-") as folder:
        server = await asyncio.start_unix_server(pool.serve, Path(folder) / ".s.PGSQL.5432")
        async with server:
            try:
                yield f"postgresql://{parts['user']}@/{parts['dbname']}?host={quote(folder, safe='')}"
            finally:
                await pool.close()
