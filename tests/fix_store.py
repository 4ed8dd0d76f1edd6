"""A real Postgres for tests: one server per test process, one fresh, migrated database per test.

The server is embedded, and belongs to this process alone. Or it is the one that CHARTFERRY_TEST_POSTGRES names, by the URL of a
superuser: then only its databases are this process's own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.parse import quote, urlencode

import anyio
import psycopg
import pytest
from psycopg import conninfo, sql

from snapshots.actor import Actor
from snapshots.sealed_values import Keyring
from snapshots.store import Store, open_store
from tests.passing_postgres import passing_postgres

OUTSIDE = "CHARTFERRY_TEST_POSTGRES"
OWN = f"cf_{os.getpid()}"  # test processes may share an outside server
_TEMPLATE = f"{OWN}_migrated"
_numbers = itertools.count(1)

TESTER = Actor(name="tester", origin="a test")


@asynccontextmanager
async def opened_store(
    url: str, tenant: str = "default", actor: Actor = TESTER, *, keyring: Keyring | None = None, encrypts: bool = False
) -> AsyncIterator[Store]:
    """The store of a tenant, opened for a tester unless somebody else is named."""
    async with open_store(url, tenant, actor, keyring=keyring, encrypts=encrypts) as store:
        yield store


def url_of(server: str, database: str, **changes: str) -> str:
    """The URL of another database of a server; `changes` for another user, say."""
    parts = {**conninfo.conninfo_to_dict(server), **changes, "dbname": database}
    user, password = parts.pop("user"), parts.pop("password", None)
    login = quote(str(user), safe="") + (f":{quote(str(password), safe='')}" if password else "")
    return f"postgresql://{login}@/{quote(str(parts.pop('dbname')))}?{urlencode(parts, quote_via=quote)}"


@contextmanager
def database(server: str, name: str, how: str = "") -> Iterator[str]:
    """The URL of a database that lasts as long as the block; `how` ends the CREATE DATABASE."""
    made = sql.Identifier(name)
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {} {}").format(made, sql.SQL(how)))  # type: ignore[arg-type]  # a test's own
        try:
            yield url_of(server, name)
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(made))


def _roles(server: str) -> set[str]:
    """The roles of tenants: they are the server's, and outlive a database."""
    with psycopg.connect(server) as conn:
        return {row[0] for row in conn.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'cf\\_%'")}


@contextmanager
def _server() -> Iterator[str]:
    if outside := os.environ.get(OUTSIDE):
        before = _roles(outside)
        yield outside
        with psycopg.connect(outside, autocommit=True) as conn:
            for role in _roles(outside) - before:
                with suppress(
                    psycopg.errors.DependentObjectsStillExist, psycopg.errors.UndefinedObject
                ):  # another process's
                    conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
        return
    with passing_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def store_server() -> Iterator[str]:
    """URL of a server, and of a database of this process's own there."""
    with _server() as url, database(url, OWN) as own:
        yield own


@pytest.fixture(scope="session")
def migrated(store_server: str) -> Iterator[str]:
    """Name of a database with the default tenant's schema and nothing in it, to make others of."""

    async def prepare(url: str) -> None:
        async with opened_store(url):
            pass

    with database(store_server, _TEMPLATE) as url:
        anyio.run(prepare, url)
        yield _TEMPLATE


@pytest.fixture
def fresh_url(store_server: str, migrated: str) -> Iterator[str]:
    """URL of a new database, with the default tenant's schema and nothing in it."""
    with database(store_server, f"{OWN}_{next(_numbers)}", f"TEMPLATE {migrated} STRATEGY FILE_COPY") as url:
        yield url


@pytest.fixture
def store_url(fresh_url: str) -> str:
    """URL of this test's database."""
    return fresh_url


@pytest.fixture
async def store(store_url: str, anyio_backend: str) -> AsyncIterator[Store]:
    """The default tenant's store on this test's database."""
    async with opened_store(store_url) as ready:
        yield ready
