"""The errors of snapshots, and nothing else; this module translates psycopg's errors, which stay in `__cause__`.

    StoreError
    ├── StoreUnavailableError     no server to talk to, a refused login, a server that cannot be a store, a lost connection
    ├── MissingRightsError        the login lacks a right; the message has the GRANT
    ├── MigrationError            the schema cannot be migrated to this version
    ├── SchemaCommentError        a tenant's schema has a comment that does not name its roles
    ├── StoreLockedError          another session held a lock for longer than we wait
    ├── ConnectionBusyError       another run of the same connection is in progress
    ├── RunNotFoundError          there is no run with that number
    │   └── HistoryPrunedError    what was there after that run is known no more
    ├── StoreKeyError             the store is encrypted and the keys do not fit, or they are given and it is not
    ├── SealedValueError          an encrypted value was altered or moved, or its key is not there
    ├── UnitConflictError         a unit that the ledger does not know was settled
    └── StoreQueryError           the server refused a statement: a bug in chartferry, or in a view

Messages contain no password and no patient data: they quote only the SQLSTATE, and the primary message of errors that cannot
quote data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import conninfo, pq

# classes of SQLSTATE whose primary message names objects and states, never values (a 22 or 23 may quote data)
_QUOTABLE_CLASSES = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58"})
# these name objects while a statement is parsed, and then have a position in it; while it runs, a cast quotes a value as what
# there is not ('relation "smith" does not exist', 'syntax error in tsquery: "..."')
_QUOTABLE_WHEN_PARSED = frozenset({"0A", "3F", "42", "54"})
_QUOTABLE_STATES = frozenset({"42501", "42P07", "42710"})  # a right that is missing, a name that there is already


class StoreError(Exception):
    """The base of all errors of snapshots."""


class StoreUnavailableError(StoreError):
    """No usable server; the message says which one, what it answered and which setting to check."""


class MissingRightsError(StoreError):
    """The login lacks a right; the message has the GRANT that gives it."""


class MigrationError(StoreError):
    """The schema cannot be migrated to this version of the code."""


class SchemaCommentError(StoreError):
    """A tenant's schema has a comment that is not ours, so its roles are unknown."""


class StoreLockedError(StoreError):
    """Another session held a lock for longer than we wait; the message names it, if it was found."""

    def held_by(self, holder: str) -> StoreLockedError:
        """Return the same error with the session that held the lock."""
        return StoreLockedError(f"{self} It is held by {holder}.")


class ConnectionBusyError(StoreError):
    """Another run of the same connection is in progress. `run` is its number, if it could be read."""

    def __init__(self, message: str, *, run: int | None) -> None:
        super().__init__(message)
        self.run = run


class RunNotFoundError(StoreError):
    """This tenant has no run with that number."""


class HistoryPrunedError(RunNotFoundError):
    """The moment is before the history that is kept."""


class StoreKeyError(StoreError):
    """The configured keys are not those of the store; nothing was written. The message says which key, and what to do."""


class SealedValueError(StoreError):
    """An encrypted value cannot be opened. The message names its type and path, and the resource by a keyed hash."""


class UnitConflictError(StoreError):
    """Units that this run's ledger does not know were settled; the message gives their number, never their keys."""


class StoreQueryError(StoreError):
    """The server refused a statement. `sqlstate` is Postgres' five characters (None: it gave none)."""

    def __init__(self, message: str, *, sqlstate: str | None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PARAMETER = re.compile(r"[A-Za-z_]{1,30}")
UNENCODED = "an @ or a / within its password must be written %40 or %2F"


def is_misread(url: str) -> bool:
    """Return whether libpq takes a part of a URL's password for a host, a port or a database, and so would quote it.

    A password ends at the first @, and before any /. Elsewhere libpq needs no @ that is not encoded, but in a parameter.
    """
    authority, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    return authority.count("@") > 1 or "@" in path


def why_unparsable(url: str) -> str:
    """Say why libpq cannot parse a URL. Of the URL it quotes at most names of parameters: libpq's own message may quote more."""
    if is_misread(url):
        return UNENCODED
    if _PERCENT.search(url):
        return "a % that is not part of a code must be written %25"
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    named = {pair.partition("=")[0] for pair in url.partition("?")[2].split("&")}
    unknown = ", ".join(sorted(name for name in named - known if _PARAMETER.fullmatch(name)))
    return f"libpq has no parameter {unknown}" if unknown else "libpq cannot parse it"


def describe_server(url: str) -> str:
    """Name a server for a message: host, port, database and user; never a password.

    Works for URLs and key=value strings; what libpq cannot parse, or misreads, is not quoted at all.
    """
    if is_misread(url):
        return f"the given URL ({UNENCODED})"
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "the given URL (libpq cannot parse it)"
    where = str(parts.get("host") or parts.get("hostaddr") or "the default host")
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"{where}{port}, database {parts.get('dbname') or 'default'}, user {parts.get('user') or 'default'}"


def refusal(error: psycopg.OperationalError) -> str:
    """Return why a server could not be reached: the line of libpq's text with the reason, without its final full stop.

    libpq names host, port, user and database, never a password. Its further lines ask questions or list every address tried.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        lines[0].removeprefix("connection failed: ").removeprefix("connection is bad: ").rstrip(".")
        if lines
        else "no answer"
    )


def _translated(error: psycopg.Error, doing: str) -> StoreError:
    state = error.sqlstate
    parsed = error.diag.statement_position is not None
    quotable = state is not None and (
        state[:2] in _QUOTABLE_CLASSES or state in _QUOTABLE_STATES or (parsed and state[:2] in _QUOTABLE_WHEN_PARSED)
    )
    if state == "53100":
        return StoreUnavailableError(
            f"{doing}: the disk of the store is full ({error.diag.message_primary or state}). Free space where the server "
            'keeps its data (with store.url = "embedded:DIR": in DIR). What was committed is safe; then run the command again.'
        )
    if state is None and isinstance(error, psycopg.OperationalError):
        return StoreUnavailableError(
            f"{doing}: the connection to the server was lost. What was committed is safe; "
            "check that the server is up and run the same command again."
        )
    if state == "55P03":
        return StoreLockedError(
            f"{doing}: waited too long for a lock that another session holds, such as a VACUUM FULL, an index being built, an "
            "upgrade of the store, or a transaction that somebody left open. What was committed is safe. Wait until that session "
            "ends, or end it (SELECT pg_terminate_backend(…)); then run the same command again."
        )
    if state == "57014":
        return StoreQueryError(f"{doing}: the statement exceeded its time limit, and was stopped.", sqlstate=state)
    answer = f"{error.diag.message_primary} (SQLSTATE {state})" if quotable else f"SQLSTATE {state or 'none'}"
    if isinstance(error, psycopg.OperationalError) and state and state[:2] in {"08", "28", "3D", "53", "57", "58"}:
        return StoreUnavailableError(
            f"{doing}: the connection to Postgres failed: {answer}. What was committed is safe; "
            "check that the server is up and run the same command again."
        )
    # a right: before those of a command are checked, and in views that refer to what is not the tenant's
    if state == "42501":
        answer += ". Run this as the login that owns the tables, or `chartferry config check --connect`, which names the GRANT"
    if state in {"42P01", "42703"}:  # a table or a column that is not there
        answer += ". If somebody changed the store's tables, restore a backup (docs/store.md); else this is a bug in chartferry"
    return StoreQueryError(f"{doing}: Postgres refused the statement: {answer}.", sqlstate=state)


@contextmanager
def store_border(doing: str) -> Iterator[None]:
    """Translate psycopg's errors into this folder's; `doing` opens the message ("merging a batch")."""
    try:
        yield
    except psycopg.Error as error:
        raise _translated(error, doing) from error
