"""Copies the rows of queries out, as bytes in chunks, with a count of them. `reader` says what they select, `copying` reads.

Sessions that have nothing to do read stretches of ids ahead. Neither the rows nor the ends of the chunks
depend on that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from threading import Event

from psycopg import sql

from snapshots.copying import CHUNK_BYTES, Copying, Opened, ReadingSession, Rows, Sessions, copied_rows
from snapshots.errors import store_border
from snapshots.sql import load
from snapshots.stretches import WHOLE, Stretch, stretches

_SQL = load("reader")
MOST_AHEAD = 3  # COPYs of a stream that have begun, or wait to be taken
# Rows of NDJSON, and of tables: a stretch should fit into what a session may read ahead; and a view is planned again for each,
# which takes up to 20 ms
LINES_A_STRETCH = 2048
ROWS_A_STRETCH = 8192


async def narrow(session: ReadingSession, stretch: Stretch | None) -> None:
    """Let a session read a stretch of ids, by the key; None: all ids, in any order."""
    if session.stretch != stretch:
        sort = "on" if stretch is None else "off"
        await session.conn.execute(_SQL["by_key"], {"sort": sort, **asdict(stretch or WHOLE)})
        session.stretch = stretch


@dataclass(frozen=True)
class _Piece:
    """What one COPY returns: the rows of a query, or of a stretch of its ids."""

    query: int
    stretch: Stretch
    ends_query: bool


class CopyStream:
    """The rows of several queries, copied out one after the other, in chunks of about 256 kB; read it once.

    They become CSV with one header. `of_json`: each query returns one jsonb column, which is copied in binary and read as NDJSON;
    Postgres then neither quotes nor escapes, and sends 1.5 times as fast. `rows` counts the rows returned so far, without the
    header. `limit`: at most so many rows; the queries must not have a LIMIT. `opened`: each query returns the id before the
    jsonb, and this function decrypts the row.

    `by_key`: the queries are ordered by id and contain the condition `of_stretch`. It has, for each of them, a query of the ids
    at which its stretches begin. `sessions`: the stream's own session, and others while they are lent.
    """

    def __init__(
        self,
        sessions: Sessions,
        queries: Sequence[sql.Composable],
        *,
        of_json: bool = False,
        opened: Opened | None = None,
        by_key: Sequence[sql.Composable] | None = None,
        limit: int | None = None,
    ) -> None:
        self._sessions = sessions
        self._queries = queries
        self._of_json = of_json
        self._opened = opened
        self._by_key = by_key
        self._limit = limit
        self._header_to_come = self._header_is_next = not of_json  # of the first COPY, in the first chunk
        self._waiting: list[memoryview] = []  # rows for the next chunk
        self._waiting_bytes = self._waiting_rows = 0
        self.rows = 0
        self.rows_by_query: list[int] = []  # for queries that were read to their end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with store_border("reading a snapshot"):
            pieces = deque(await self._pieces())
            ahead: deque[tuple[_Piece, Copying]] = deque()
            try:
                while pieces or ahead:
                    self._begin(pieces, ahead)
                    piece, copying = ahead[0]
                    if (rows := await copying.taken()) is not None:
                        for chunk in self._chunks(rows):
                            yield chunk
                        continue
                    ahead.popleft()
                    if piece.ends_query:
                        if self._waiting:
                            yield self._chunk()
                        self.rows_by_query.append(self.rows - sum(self.rows_by_query))
            finally:
                for _, copying in ahead:
                    await copying.stop()

    async def _pieces(self) -> list[_Piece]:
        if not self._sessions.are_several or not self._by_key or self._limit is not None:
            return [_Piece(query, WHOLE, True) for query in range(len(self._queries))]
        pieces = []
        for query, cuts in enumerate(self._by_key):
            found = await self._sessions.own.conn.execute(sql.Composed([cuts]))
            cut = stretches(row[0] for row in await found.fetchall())
            pieces += [_Piece(query, one, one is cut[-1]) for one in cut]
        return pieces

    def _begin(self, pieces: deque[_Piece], ahead: deque[tuple[_Piece, Copying]]) -> None:
        """Let each session that is free read the next piece, as far as what waits to be taken is bounded."""
        most = MOST_AHEAD if self._limit is None else 1  # the next may give as many as the former left
        for session in self._sessions.free()[: most - len(ahead)]:
            if pieces:
                piece = pieces.popleft()
                ahead.append((piece, self._copying(session, piece)))

    def _copying(self, session: ReadingSession, piece: _Piece) -> Copying:
        unwanted = Event()
        statement = self._statement(self._queries[piece.query])
        return session.copy(self._copied(session, statement, piece.stretch, unwanted), unwanted)

    def _statement(self, query: sql.Composable) -> sql.Composable:
        """Return the COPY of a query, with as many rows as may still come."""
        if self._limit is not None:
            query = sql.SQL(_SQL["first_rows"]).format(query=query, rows=sql.Literal(max(self._limit - self.rows, 0)))
        if self._of_json:
            return sql.SQL(_SQL["copy_json"]).format(query=query)
        header, self._header_to_come = sql.Literal(self._header_to_come), False
        return sql.SQL(_SQL["copy_csv"]).format(query=query, header=header)

    async def _copied(
        self, session: ReadingSession, statement: sql.Composable, stretch: Stretch, unwanted: Event
    ) -> AsyncGenerator[Rows, None]:
        await narrow(session, None if self._by_key is None else stretch)
        copied = copied_rows(session.conn, statement, unwanted, of_json=self._of_json, opened=self._opened)
        async with aclosing(copied) as copied:
            async for rows in copied:
                yield rows

    def _chunks(self, rows: Rows) -> Iterator[bytes]:
        """Return the rows in chunks whose ends depend on the rows' sizes alone; the rest waits."""
        data = memoryview(rows.data)
        at = row = 0
        while (last := bisect_left(rows.ends, at + CHUNK_BYTES - self._waiting_bytes, row)) < len(rows.ends):
            self._add(data[at : rows.ends[last]], last + 1 - row)
            yield self._chunk()
            at, row = rows.ends[last], last + 1
        self._add(data[at:], len(rows.ends) - row)

    def _add(self, data: memoryview, rows: int) -> None:
        if data:
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._waiting_rows += rows

    def _chunk(self) -> bytes:
        chunk = b"".join(self._waiting)
        self.rows += self._waiting_rows - self._header_is_next
        self._header_is_next = False
        self._waiting, self._waiting_bytes, self._waiting_rows = [], 0, 0
        return chunk
