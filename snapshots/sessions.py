"""Opens sessions with Postgres, sets what the code relies on, and refuses a server that cannot be a store.

A user's server has its own settings, and a pooler may be in front of it. `pool` keeps sessions and lends them. `rights` checks
what a login may do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread
import psycopg
from psycopg import AsyncConnection, conninfo
from psycopg.pq import PGconn, Ping

from snapshots.errors import StoreUnavailableError, describe_server, is_misread, refusal, store_border, why_unparsable
from snapshots.sql import load

_SQL = load("sessions")
# psycopg reports each attempt to connect and each cancelled statement; where nobody set up logging, Python would print that
logging.getLogger("psycopg").addHandler(logging.NullHandler())
OLDEST_SERVER = 15
ENCODING = "UTF8"
# a URL may say otherwise
_DEFAULTS = {"application_name": "chartferry", "connect_timeout": "10", "keepalives_idle": "30"}
# at login, because reading everything else depends on it; a statement sets the rest, because poolers refuse `options`
_PINNED = {"client_encoding": "utf8"}
_MAINTENANCE = "postgres"  # the database that every cluster has
_UNREACHED = "Check host, port and the ssl… parameters in store.url, and that the server is up."
_BY_PING: Mapping[Ping, str] = {
    Ping.OK: (
        "The server is up, but does not serve this login: check user, password (in store.url or ~/.pgpass), database and "
        "target_session_attrs, how many connections the role, the database and the server allow, and pg_hba.conf."
    ),
    Ping.REJECT: "The server is starting, stopping or recovering: run the command again later.",
}
_POOLER_ROUNDS = 3
_POOLER_WAIT_S = 5.0


async def connect(url: str, *, login: str | None = None) -> AsyncConnection[Any]:
    """Open a session in autocommit mode, with every setting that the code relies on; `login` as in `full_conninfo`.

    Raises:
        StoreUnavailableError: no server answers, or it refuses the login; the message names the server, not the password.
    """
    return (await _connect(url, login=login))[0]


def full_conninfo(url: str, *, login: str | None = None) -> str:
    """Return a URL with our defaults, as libpq reads it. `login` takes the place of the URL's, on a server that trusts it.

    Raises:
        StoreUnavailableError: libpq cannot parse it; the message does not quote it.
    """
    try:
        given = conninfo.conninfo_to_dict(url)
        if is_misread(url):  # libpq's message would quote it
            raise psycopg.ProgrammingError
        return conninfo.make_conninfo("", **{**_DEFAULTS, **given, **_PINNED, **({"user": login} if login else {})})
    except psycopg.Error:
        raise StoreUnavailableError(
            f"cannot connect to the store at the given URL: {why_unparsable(url)}. Check store.url."
        ) from None


async def pin(conn: AsyncConnection[Any]) -> None:
    """Set in a session every setting that the code relies on, and keep values of patients out of the server's log."""
    await _set_up(conn)


async def _set_up(conn: AsyncConnection[Any]) -> int:
    """Return the id of the server process that answers."""
    process = await _answering(conn, "pin")
    # an older one, which `check_server` refuses, does not know how
    if conn.info.server_version >= OLDEST_SERVER * 10000:
        await conn.execute(_SQL["log_no_values"], prepare=False)
    return process


async def _connect(url: str, *, login: str | None = None) -> tuple[AsyncConnection[Any], int]:
    """Open a session; return it and the id of the server process that answered first."""
    full = full_conninfo(url, login=login)
    try:
        conn = await AsyncConnection.connect(full, autocommit=True)
    except psycopg.OperationalError as error:
        advice = await _advice(conninfo.conninfo_to_dict(full), error)
        # from None: a traceback would show the frame with the password
        raise StoreUnavailableError(
            f"cannot connect to the store at {describe_server(url)}: {refusal(error)}. {advice}"
        ) from None
    try:
        with store_border("setting up a session"):
            return conn, await _set_up(conn)
    except BaseException:
        await conn.close()
        raise


async def _answering(conn: AsyncConnection[Any], query: str) -> int:
    row = await (await conn.execute(_SQL[query], prepare=False)).fetchone()
    return int(row[0]) if row else 0


async def _advice(full: dict[str, Any], error: psycopg.OperationalError) -> str:
    """Return what to do about a refused login. libpq gives no SQLSTATE, so ask the server, in the database that all have."""
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return _UNREACHED
    usual = _BY_PING.get(await anyio.to_thread.run_sync(_pinged, conninfo.make_conninfo("", **full)), _UNREACHED)
    database = full.get("dbname")
    if database in {None, _MAINTENANCE}:
        return usual
    try:
        elsewhere = conninfo.make_conninfo("", **{**full, "dbname": _MAINTENANCE})
        async with await AsyncConnection.connect(elsewhere, autocommit=True) as conn:
            row = await (await conn.execute(_SQL["database"], {"database": database})).fetchone()
            if row is None:
                made = await (await conn.execute(_SQL["create_database"], {"database": database})).fetchone()
                return f"There is no such database. A role that may create one must run: {made[0] if made else ''};"
            return usual if row[0] else f"Its owner, or a superuser, must run: {row[1]};"
    except psycopg.Error:
        return usual


def _pinged(full: str) -> Ping:
    return Ping(PGconn.ping(full.encode()))


async def settings_that_log(conn: AsyncConnection[Any]) -> list[str]:
    """Return the settings that let values of patients of this session into the server's log, and that its login may not set."""
    row = await (await conn.execute(_SQL["logs_values"])).fetchone()
    return list(row[0] or ()) if row else []


async def check_server(conn: AsyncConnection[Any], url: str, *, wait_s: float = _POOLER_WAIT_S) -> None:
    """Refuse a server that cannot be a store: too old, an encoding that cannot hold FHIR, a pooler that shares sessions.

    `wait_s` is how long a pooler may take to provide a second session.

    Raises:
        StoreUnavailableError: the message says what is needed.
    """
    where = f"the store at {describe_server(url)}"
    major = conn.info.server_version // 10000
    if major < OLDEST_SERVER:
        raise StoreUnavailableError(
            f"{where} is Postgres {major}; chartferry needs {OLDEST_SERVER} or newer. "
            'Upgrade it, or set store.url = "embedded".'
        )
    encoding = conn.info.parameter_status("server_encoding")
    if encoding != ENCODING:
        raise StoreUnavailableError(
            f"{where} has the encoding {encoding}, which cannot hold FHIR, because FHIR is Unicode. Name a {ENCODING} "
            f"database in store.url; to create one: CREATE DATABASE charts ENCODING '{ENCODING}' TEMPLATE template0 "
            "(docs/store.md)."
        )
    if await _pooled(conn, url, wait_s):
        raise StoreUnavailableError(
            f"{where} is behind a pooler that gives a session to other clients between transactions (pgbouncer: pool_mode = "
            "transaction or statement). chartferry needs its own sessions: its locks, settings and prepared "
            "statements live in them. Set pool_mode = session for this database, or name the server itself in store.url "
            "(docs/store.md)."
        )


async def _pooled(conn: AsyncConnection[Any], url: str, wait_s: float) -> bool:
    """Whether a pooler lends this session's server process to other clients while the session lasts.

    A pooler shows itself by its own number for the session (BackendKeyData), which is not the process id. pgbouncer in session
    mode does that as well, but there a second session never gets the first one's process, and the first keeps its own.
    """
    with store_border("asking who answers"):
        try:
            first = await _answering(conn, "backend")
            if conn.info.backend_pid == first:
                return False
            with anyio.move_on_after(wait_s):
                return await _changes_hands(conn, url, first)
        except psycopg.errors.ProtocolViolation:  # pgbouncer's refusal of a transaction in statement mode
            return True
    raise StoreUnavailableError(
        f"the store at {describe_server(url)} is behind a pooler that provides one session and makes a second one wait: "
        "chartferry needs several at a time. Raise its pool_size (docs/store.md)."
    )


async def _changes_hands(conn: AsyncConnection[Any], url: str, first: int) -> bool:
    for _ in range(_POOLER_ROUNDS):
        other, met = await _connect(url)
        try:
            if met == first:
                return True
            # keeps its process, so that the first session must get another one if it ever let go
            async with other.transaction():
                if await _answering(other, "backend") == first or await _answering(conn, "backend") != first:
                    return True
        finally:
            await other.close()
    return False
