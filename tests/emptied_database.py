"""A migrated database that one test after another finds empty, with sessions that know its tables already.

To make a database, to drop it, and to let new sessions learn 150 tables and indexes was half of what Postgres computed for a
test. After each test the rows are deleted and the sequences begin anew. A database that a test has left otherwise (a schema, a
table, a right or a policy is another) is replaced; so is one that many tests have used, since nobody vacuums it. The server and
the template are `fix_store`'s.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import anyio
import psycopg
from psycopg import AsyncConnection, sql
from psycopg_pool import AsyncConnectionPool

from snapshots.actor import Actor
from snapshots.pool import SessionPool, clean
from snapshots.sessions import connect
from snapshots.store import Store
from snapshots.tenancy import TenantSession
from snapshots.walls import Walls

_TENANT = "default"
_SCHEMA = f"tenant_{_TENANT}"
_MOST_USES = 40
_WITHIN_MS = 600_000  # catches what hangs
_END_OTHERS = """
SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE datname = current_database() AND pid <> ALL(%s)
"""
_TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""
_SEQUENCES = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'S'"
# whatever changes an object of the database writes its row of the catalogue anew
_CATALOGUE = sql.SQL(" UNION ALL ").join(
    sql.SQL("SELECT {}, count(*), sum(xmin::text::bigint) FROM {} WHERE {}").format(name, sql.SQL(name), sql.SQL(which))
    for name, which in (
        ("pg_class", "oid >= 16384"),
        ("pg_attribute", "attrelid >= 16384"),
        ("pg_index", "indexrelid >= 16384"),
        ("pg_proc", "oid >= 16384"),
        ("pg_constraint", "oid >= 16384"),
        ("pg_trigger", "oid >= 16384"),
        ("pg_rewrite", "oid >= 16384"),
        ("pg_policy", "true"),
        ("pg_namespace", "nspname !~ '^pg_(toast_)?temp_'"),
        ("pg_default_acl", "true"),
        ("pg_extension", "true"),
        ("pg_db_role_setting", "setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"),
        ("pg_database", "datname = current_database()"),
    )
)


class LastingSessions(SessionPool):
    """The sessions of a store, which stay for the next test. As in the pool, each is cleaned after its use."""

    def __init__(self, url: str, actor: Actor, walls: Walls, free: list[AsyncConnection[Any]]) -> None:
        super().__init__(url, _TENANT, actor, walls=walls, sealer=None, most=1, wait_s=1)
        self._free = free

    async def lend(self) -> TenantSession:
        conn = await self._living() or await connect(self._url, login=self._login)
        return TenantSession(conn=conn, tenant=self._tenant, actor=self._actor, roles=self._roles)

    async def _living(self) -> AsyncConnection[Any] | None:
        while self._free:
            conn = self._free.pop()
            try:
                await AsyncConnectionPool.check_connection(conn)
            except psycopg.Error:
                await conn.close()
            else:
                return conn
        return None

    async def take_back(self, session: TenantSession) -> None:
        conn = session.conn
        with anyio.CancelScope(shield=True):
            await clean(conn)
        if not conn.closed:
            conn.lock = asyncio.Lock()  # the next test has another event loop
            self._free.append(conn)


class EmptiedDatabase:
    """One database; `emptied` after each use says whether it may be used again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.uses = 0
        self._sessions: list[AsyncConnection[Any]] = []
        self._conn = psycopg.connect(url, autocommit=True)
        self._conn.execute("SET session_replication_role = replica")  # neither triggers nor foreign keys are asked
        self._conn.execute(f"SET search_path = {_SCHEMA}")  # type: ignore[call-overload]
        tables = [sql.Identifier(row[0]) for row in self._conn.execute(_TABLES, (_SCHEMA,))]
        self._kept = [
            one for one in tables if self._conn.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(one)).rowcount
        ]
        sequences = [sql.Literal(row[0]) for row in self._conn.execute(_SEQUENCES, (_SCHEMA,))]
        self._emptying = sql.SQL("; ").join(
            [sql.SQL("DELETE FROM {}").format(one) for one in tables if one not in self._kept]
            + [sql.SQL("SELECT setval({}, 1, false)").format(one) for one in sequences]
        )
        self._as_made = self._rest()

    def store(self, actor: Actor, walls: Walls) -> Store:
        """The default tenant's store, whose sessions stay here."""
        return Store(self.url, _TENANT, LastingSessions(self.url, actor, walls, self._sessions))

    def emptied(self) -> bool:
        """Delete what the last test left; whether it is as it was made, then."""
        self.uses += 1
        try:
            ours = [self._conn.info.backend_pid, *(one.info.backend_pid for one in self._sessions)]
            self._conn.execute(_END_OTHERS, (_WITHIN_MS, ours))
            self._conn.execute(self._emptying)
            return self.uses < _MOST_USES and self._rest() == self._as_made
        except psycopg.Error:  # a table that is gone, say
            return False

    def _rest(self) -> list[Any]:
        """All but the rows that a test may write."""
        kept = [self._conn.execute(sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(one)) for one in self._kept]
        return [rows.fetchall() for rows in (*kept, self._conn.execute(_CATALOGUE))]

    def close(self) -> None:
        """End its sessions."""
        self._conn.close()
        for one in self._sessions:
            one.pgconn.finish()  # its event loop has ended


class EmptiedDatabases:
    """Lends one database after another; `make` makes them, by number."""

    def __init__(self, make: Callable[[int], AbstractContextManager[str]]) -> None:
        self._make = make
        self._numbers = itertools.count(1)
        self._current: EmptiedDatabase | None = None
        self._end = ExitStack()

    @contextmanager
    def lent(self) -> Iterator[EmptiedDatabase]:
        """The database for the length of a test."""
        if self._current is None:
            self._current = EmptiedDatabase(self._end.enter_context(self._make(next(self._numbers))))
        yield self._current
        if not self._current.emptied():
            self.close()

    def close(self) -> None:
        """Drop the database."""
        if self._current is not None:
            self._current.close()
            self._current = None
        self._end.close()
