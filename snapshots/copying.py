"""One COPY out of a session, read ahead of its consumer. `copy_stream` chooses it, and puts several in order.

A thread reads, so that the server, the reading and the processing of the rows go on at the same time.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, repeat
from operator import add
from threading import Event
from typing import Any, TypeVar

from psycopg import AsyncConnection, errors, generators, pq, sql, waiting
from psycopg.abc import Buffer, PQGen

from snapshots.stretches import Stretch

CHUNK_BYTES = 256 * 1024
CHUNKS_AHEAD = 8  # read and not yet taken: the memory of each session
_BINARY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_ROW_HEAD = 2 + 4 + 1
_LENGTH = 4
_STOPS_WITHIN_S = 0.1  # of a reading thread that is no longer wanted and gets nothing from the server

T = TypeVar("T")
Opened = Callable[[str, bytes], bytes]  # a resource's id and its JSON, as it may be shown


@dataclass(frozen=True)
class Rows:
    """Whole rows: their bytes, and where each of them ends."""

    data: bytes
    ends: Sequence[int]


class ReadingSession:
    """A session that reads a snapshot, one COPY at a time. While it is `lent`, others beside it may read in it."""

    def __init__(self, conn: AsyncConnection[Any]) -> None:
        self.conn = conn
        self.is_lent = False
        self.stretch: Stretch | None = None  # of ids, by the key, as its settings are now; None: all ids, in any order
        self._at_work: Copying | None = None

    @property
    def is_free(self) -> bool:
        """Whether no COPY is read in it."""
        return self._at_work is None or self._at_work.is_over

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Lend it to others until the end of the block."""
        self.is_lent = True
        try:
            yield
        finally:
            self.is_lent = False
            await self.stop()

    def copy(self, copied: AsyncGenerator[Rows, None], unwanted: Event) -> Copying:
        """Begin to read a COPY; it must be free."""
        self._at_work = Copying(copied, unwanted)
        return self._at_work

    async def stop(self) -> None:
        """End what is read in it; nothing else is disturbed."""
        if self._at_work is not None:
            await self._at_work.stop()


class Sessions:
    """A session, and further ones that share its snapshot."""

    def __init__(self, conn: AsyncConnection[Any], beside: list[ReadingSession] | None = None) -> None:
        self.own = ReadingSession(conn)
        self._all = [] if beside is None else beside
        self._all.append(self.own)

    @asynccontextmanager
    async def beside(self, conn: AsyncConnection[Any]) -> AsyncIterator[Sessions]:
        """Give one more session of this moment as somebody's own, until the end of the block."""
        another = Sessions(conn, self._all)
        try:
            yield another
        finally:
            self._all.remove(another.own)
            await another.own.stop()

    @property
    def are_several(self) -> bool:
        """Whether others may be lent."""
        return len(self._all) > 1

    def free(self) -> list[ReadingSession]:
        """The sessions that may read now, the stream's own first."""
        own = [self.own] if self.own.is_free else []
        return [*own, *(one for one in self._all if one is not self.own and one.is_lent and one.is_free)]


class Copying:
    """A COPY at work: take its rows until there are none, or stop it."""

    def __init__(self, copied: AsyncGenerator[Rows, None], unwanted: Event) -> None:
        self._copied = copied
        self._unwanted = unwanted
        self._room = asyncio.Semaphore(CHUNKS_AHEAD)
        self._ready: asyncio.Queue[Rows | BaseException | None] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._read())

    @property
    def is_over(self) -> bool:
        """Whether all is read, though perhaps not taken."""
        return self._task.done()

    async def _read(self) -> None:
        end: BaseException | None = None
        try:
            # who stops in the middle ends the COPY here and now
            async with aclosing(self._copied) as copied:
                async for rows in copied:
                    await self._room.acquire()
                    if self._unwanted.is_set():
                        end = _UnwantedError()  # a consumer that still takes rows must not see a regular end
                        break
                    self._ready.put_nowait(rows)
        except BaseException as error:  # noqa: BLE001 - of whoever takes the rows
            end = error
        self._ready.put_nowait(end)

    async def taken(self) -> Rows | None:
        """Return the next rows; None at the end. Raises what reading them raised."""
        rows = await self._ready.get()
        if isinstance(rows, BaseException):
            raise rows
        self._room.release()
        if rows is None:
            await asyncio.wait([self._task])
        return rows

    async def stop(self) -> None:
        """Stop reading, and give the session back."""
        self._unwanted.set()
        self._room.release()
        await asyncio.wait([self._task], timeout=2 * _STOPS_WITHIN_S)
        if not self._task.done():  # the server sends that a COPY begins only with its first rows, which may take hours
            self._task.cancel()
        while not self._task.done():
            await asyncio.wait([self._task])


async def copied_rows(
    conn: AsyncConnection[Any], statement: sql.Composable, unwanted: Event, *, of_json: bool, opened: Opened | None
) -> AsyncGenerator[Rows, None]:
    """Yield the rows of a COPY, about CHUNK_BYTES at a time, lines of JSON each with a line feed; `unwanted` ends it."""
    first = True
    async with conn.cursor() as cursor, cursor.copy(sql.Composed([statement])):
        copy = _Messages(conn)
        while messages := await _in_thread(conn, copy.gather(), unwanted):
            if not of_json:
                yield _joined(messages, b"")
            elif opened is None:
                yield _joined(_json_texts(messages, first=first), b"\n")
            else:
                yield _joined([opened(*_key_and_json(one)) for one in _rows(messages, first=first)], b"\n")
            first = False


def _joined(rows: Sequence[Buffer], end: bytes) -> Rows:
    lengths = map(add, map(len, rows), repeat(len(end)))
    return Rows(end.join((*rows, b"")) if rows else b"", array("Q", accumulate(lengths)))


async def _in_thread(conn: AsyncConnection[Any], reading: PQGen[T], unwanted: Event) -> T:
    """Read in a thread, and meanwhile leave the loop to others: it would turn for every 8 kB that the server sends.

    That takes twice the CPU of reading them (35,000 resources: 0.35 s in place of 0.2). If the caller is cancelled, the session
    is its own again when this ends.
    """
    done = asyncio.get_running_loop().run_in_executor(
        None, waiting.wait, _until(unwanted, reading), conn.pgconn.socket, _STOPS_WITHIN_S
    )
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        unwanted.set()
        while not done.done():
            with suppress(asyncio.CancelledError):  # of a further cancellation: a thread still has the session
                await asyncio.wait([done])
        done.exception()  # else asyncio tells of one that nobody has seen
        raise


def _until(unwanted: Event, reading: PQGen[T]) -> PQGen[T]:
    """Go on reading until it is done; raise if the server sends nothing and it is not wanted any more."""
    try:
        waits_for = next(reading)
        while True:
            ready = yield waits_for
            if unwanted.is_set() and not ready:
                raise _UnwantedError
            waits_for = reading.send(ready)
    except StopIteration as end:
        found: T = end.value
        return found


class _UnwantedError(Exception):
    """Ends a reading that is no longer wanted."""


class _Messages:
    """The messages of a COPY TO, one per row, without psycopg's calls of Python for each: a third of reading small resources."""

    def __init__(self, conn: AsyncConnection[Any]) -> None:
        self._pgconn = conn.pgconn
        self._encoding = conn.info.encoding
        self._is_over = False

    def gather(self) -> PQGen[list[Buffer]]:
        """Read until a chunk is full; nothing at the end."""
        rows: list[Buffer] = []
        size = 0
        while size < CHUNK_BYTES and not self._is_over:
            length, row = self._pgconn.get_copy_data(1)
            if length > 0:
                rows.append(row)
                size += length
            elif length == 0:
                while not (yield waiting.Wait.R):
                    continue
                self._pgconn.consume_input()
            else:
                self._is_over = True
                for result in (yield from generators.fetch_many(self._pgconn)):
                    if result.status != pq.ExecStatus.COMMAND_OK:
                        raise errors.error_from_result(result, encoding=self._encoding)
        return rows


def _json_texts(messages: list[Buffer], *, first: bool) -> list[Buffer]:
    """Return the texts in a binary COPY of one jsonb column.

    A message is a row: 2 bytes number of columns, 4 bytes length, 1 byte version of jsonb, the text. The header comes before the
    first row, and the last message is the trailer (Postgres documentation, COPY, "Binary Format").
    """
    return [message[_ROW_HEAD:] for message in _rows(messages, first=first)]


def _rows(messages: list[Buffer], *, first: bool) -> list[Buffer]:
    if first:
        messages[0] = messages[0][len(_BINARY_HEADER) :]
    return [message for message in messages if len(message) > _ROW_HEAD]


def _key_and_json(message: Buffer) -> tuple[str, bytes]:
    """Return the two columns of a row: a text, and a jsonb, each with its length before it."""
    row = bytes(message)
    start = 2 + _LENGTH
    end = start + int.from_bytes(row[2:start], "big")
    return row[start:end].decode(), row[end + _LENGTH + 1 :]
