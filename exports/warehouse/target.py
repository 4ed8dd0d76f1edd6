"""The tables of a warehouse: created, extended and filled over one session of another Postgres, in one transaction.

`load` decides what is loaded into them, and when. Only tables that chartferry has created are touched: their comments, which are
JSON, say so, and say what they hold. Errors of that Postgres are reported by SQLSTATE alone, because their texts may quote a row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict
from itertools import chain
from typing import Any

import psycopg
from psycopg import AsyncConnection, conninfo, pq
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from exports.errors import PlanError, WarehouseError
from exports.formats.table_columns import Kind, TableColumn
from exports.snapshot_port import RowChunks
from exports.warehouse.warehouse_port import TableContents, TableState
from snapshots.errors import UNENCODED, describe_server, is_misread, refusal

_OURS = "chartferry"
_SECRET = b"*"  # how libpq marks an option that is not to be shown
_LONGEST_NAME = 63  # bytes: Postgres cuts longer names off
# Postgres documentation, 5.6 System Columns
_SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
_DEFAULTS = {"application_name": "chartferry", "connect_timeout": "10", "client_encoding": "utf8"}
_TYPES: dict[Kind, str] = {
    "text": "text",
    "boolean": "boolean",
    "integer": "integer",
    "long": "bigint",
    "number": "numeric",  # which keeps the digits as written
    "date": "date",
    "moment": "timestamp with time zone",
    "list": "jsonb",
}


def has_password(url: str) -> bool:
    """Return whether a URL or key=value string of libpq's contains a password: the login's, or that of a key.

    Raises:
        PlanError: libpq cannot parse it, or misreads it.
    """
    if is_misread(url):
        raise PlanError(f"the database's URL is ambiguous: {UNENCODED}")
    given = None
    with suppress(psycopg.ProgrammingError):  # refused below, and not from it: its text may quote what was given
        given = conninfo.conninfo_to_dict(url)
    if given is None:
        raise PlanError(
            'the database is neither a URL such as postgresql://user@host/db nor "service=NAME" of pg_service.conf'
        )
    return any(one.keyword.decode() in given for one in pq.Conninfo.get_defaults() if one.dispchar == _SECRET)


class PostgresSchema:
    """A schema of another Postgres, with a table for each view; `url` is libpq's, and may contain a password."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._schema = schema

    def check(self, tables: Mapping[str, Sequence[TableColumn]]) -> None:
        """Refuse names that Postgres would cut off, and columns that every table of its own has."""
        columns = {one.name for one in chain(*tables.values())}
        if cut := [name for name in (self._schema, *tables, *sorted(columns)) if len(name.encode()) > _LONGEST_NAME]:
            raise PlanError(f"Postgres cuts names off after {_LONGEST_NAME} bytes; shorten {', '.join(cut)}")
        if taken := sorted(columns & _SYSTEM_COLUMNS):
            raise PlanError(f"every table of Postgres has columns named {', '.join(taken)} already; rename the view's")

    def opened(self) -> AbstractAsyncContextManager[Target]:
        """Open the schema; all is one transaction."""
        return opened_target(self._url, self._schema)


@asynccontextmanager
async def opened_target(url: str, schema: str) -> AsyncIterator[Target]:
    """Connect, and lock the schema against other loads; commit at the end of the block, or leave everything as it was.

    Raises:
        WarehouseError: no server answers, it refuses, another load is in progress, or a statement fails.
    """
    where = f"the warehouse at {describe_server(url)}"
    if is_misread(url):  # libpq's message would quote it
        raise WarehouseError(f"cannot connect to {where}")
    try:
        conn = await AsyncConnection.connect(_with_defaults(url))
    except psycopg.OperationalError as error:
        # from None: a traceback would show the frame with the password
        raise WarehouseError(f"cannot connect to {where}: {refusal(error)}") from None
    except psycopg.ProgrammingError:
        raise WarehouseError("cannot connect to the warehouse: libpq cannot parse its URL") from None
    with _without_text(where):
        async with conn:
            lock = SQL("SELECT pg_try_advisory_xact_lock(hashtextextended({}, 0))").format(Literal(f"{_OURS}:{schema}"))
            if await (await conn.execute(lock)).fetchone() != (True,):
                raise WarehouseError(f"another export is loading the schema {schema} of {where}; wait until it ends")
            yield Target(conn, schema, where)


class Target:
    """One schema of a warehouse, within a transaction."""

    at_once = True

    def __init__(self, conn: AsyncConnection[Any], schema: str, where: str) -> None:
        self.deleted: Counter[str] = Counter()
        self._conn = conn
        self._schema = schema
        self._where = where

    def __str__(self) -> str:
        return f"{self._where}, schema {self._schema}"

    async def state(self, table: str) -> TableState | None:
        """Return the table, or another object of its name; None if there is none."""
        query = SQL(
            "SELECT c.relkind = 'r', obj_description(c.oid, 'pg_class'), a.attname, format_type(a.atttypid, a.atttypmod)"
            " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
            " WHERE n.nspname = {} AND c.relname = {} ORDER BY a.attnum"
        ).format(Literal(self._schema), Literal(table))
        with _without_text(self._where):
            rows = await (await self._conn.execute(query)).fetchall()
        if not rows:
            return None
        is_table, comment = rows[0][:2]
        columns = {name: type_ for _, _, name, type_ in rows if name is not None}
        held = _held(comment) if is_table else None
        return TableState(columns, held, is_ours=held is not None)

    def types(self, columns: Sequence[TableColumn]) -> dict[str, str]:
        """Return Postgres' types."""
        return {one.name: _TYPES[one.kind] for one in columns}

    async def make(self, table: str, columns: Sequence[TableColumn], key: Sequence[str]) -> None:
        """Make a table, and its schema if that is missing; with an index on `key`, if there is one."""
        made = SQL(", ").join(SQL("{} {}").format(Identifier(one.name), SQL(_TYPES[one.kind])) for one in columns)
        await self._run(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(self._schema)))
        await self._run(SQL("CREATE TABLE {} ({})").format(self._name(table), made))
        if key:
            names = SQL(", ").join(map(Identifier, key))
            await self._run(SQL("CREATE INDEX ON {} ({})").format(self._name(table), names))

    async def extend(self, table: str, columns: Sequence[TableColumn]) -> None:
        """Add columns to a table; views on it stay."""
        for one in columns:
            added = SQL("ALTER TABLE {} ADD COLUMN {} {}")
            await self._run(added.format(self._name(table), Identifier(one.name), SQL(_TYPES[one.kind])))

    async def empty(self, table: str) -> None:
        """Delete all rows: others read the former ones until the commit; TRUNCATE would not let them."""
        self.deleted[table] += await self._run(SQL("DELETE FROM {}").format(self._name(table)))

    async def note_keys(self, type_: str, keys: AsyncIterator[bytes]) -> None:
        """Note, in lines of CSV with a header (connection, id), which resources of a type are to be replaced or are gone."""
        await self._run(
            SQL("CREATE TEMP TABLE IF NOT EXISTS cf_gone (type text, connection text, id text) ON COMMIT DROP")
        )
        await self._run(SQL("ALTER TABLE cf_gone ALTER COLUMN type SET DEFAULT {}").format(Literal(type_)))
        await self._copy(SQL("cf_gone (connection, id)"), keys)

    async def note_removed(self, keys: RowChunks, connections: Sequence[str]) -> None:
        """Note the resources that are gone: lines of JSON with `type` and `id`, of one connection after the other."""
        await self._run(
            SQL("CREATE TEMP TABLE IF NOT EXISTS cf_gone (type text, connection text, id text) ON COMMIT DROP")
        )
        with _without_text(self._where):
            async with (
                self._conn.cursor() as cursor,
                cursor.copy("COPY cf_gone (type, connection, id) FROM STDIN") as copy,
            ):
                async for chunk in keys:
                    connection = connections[len(keys.rows_by_query)]
                    for line in chunk.splitlines():
                        one = json.loads(line)
                        await copy.write_row((one["type"], connection, one["id"]))

    async def forget(self, table: str, type_: str, connection: str, key: str) -> None:
        """Delete the rows of the noted resources of a type, by the columns with the connection and the key."""
        query = SQL(
            "DELETE FROM {} AS t USING (SELECT DISTINCT connection, id FROM cf_gone WHERE type = {}) AS g "
            "WHERE t.{} = g.connection AND t.{} = g.id"
        )
        found = query.format(self._name(table), Literal(type_), Identifier(connection), Identifier(key))
        self.deleted[table] += await self._run(found)

    async def fill(self, table: str, columns: Sequence[TableColumn], rows: AsyncIterator[bytes]) -> None:
        """Add rows: CSV with a header, an unquoted empty field is null."""
        names = SQL(", ").join(Identifier(one.name) for one in columns)
        await self._copy(SQL("{} ({})").format(self._name(table), names), rows)

    async def note_held(self, table: str, held: TableContents) -> None:
        """Write into the table's comment what it holds."""
        comment = json.dumps({_OURS: asdict(held)})
        await self._run(SQL("COMMENT ON TABLE {} IS {}").format(self._name(table), Literal(comment)))

    def _name(self, table: str) -> Composable:
        return Identifier(self._schema, table)

    async def _run(self, statement: Composable) -> int:
        with _without_text(self._where):
            return (await self._conn.execute(Composed([statement]))).rowcount

    async def _copy(self, into: Composable, rows: AsyncIterator[bytes]) -> None:
        statement = SQL("COPY {} FROM STDIN (FORMAT csv, HEADER true)").format(into)
        with _without_text(self._where):
            async with self._conn.cursor() as cursor, cursor.copy(Composed([statement])) as copy:
                async for chunk in rows:
                    await copy.write(chunk)


def _with_defaults(url: str) -> str:
    given = conninfo.conninfo_to_dict(url)
    return conninfo.make_conninfo(url, **{key: value for key, value in _DEFAULTS.items() if key not in given})


def _held(comment: str | None) -> TableContents | None:
    try:
        return TableContents(**json.loads(comment or "")[_OURS])
    except (ValueError, KeyError, TypeError):
        return None  # somebody else's table


@contextmanager
def _without_text(where: str) -> Iterator[None]:
    """Turn an error of the warehouse's Postgres into ours, without its text."""
    try:
        yield
    except psycopg.Error as error:
        state = f"SQLSTATE {error.sqlstate}, {type(error).__name__}" if error.sqlstate else "the connection was lost"
        raise WarehouseError(f"{where} refused or failed ({state}); nothing was changed there") from None
