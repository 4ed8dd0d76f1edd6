"""A real Postgres for tests: one embedded server per test process, one fresh, migrated database per test.

The server belongs to this process alone (a short directory of its own, removed at the end), so test processes never meet.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import anyio
import psycopg
import pytest
from psycopg import conninfo, sql

from snapshots.embedded import embedded_postgres
from snapshots.pool import Store, open_store

_TEMPLATE = "migrated"
_numbers = itertools.count(1)


def _url(server: str, database: str) -> str:
    parts = conninfo.conninfo_to_dict(server)
    return f"postgresql://{parts['user']}@/{database}?host={quote(str(parts['host']), safe='')}"


@pytest.fixture(scope="session")
def store_server() -> Iterator[str]:
    """URL of an embedded server whose database `migrated` has the default tenant's schema."""
    directory = Path(tempfile.mkdtemp(prefix="cf-"))
    try:
        with embedded_postgres(directory) as server:
            with psycopg.connect(server, autocommit=True) as conn:
                # nothing here outlives the tests; without waiting for the disk a database is made in half the time
                conn.execute("ALTER SYSTEM SET fsync = off")
                conn.execute("SELECT pg_reload_conf()")
                conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))

            async def prepare() -> None:
                async with open_store(_url(server, _TEMPLATE)):
                    pass

            anyio.run(prepare)
            yield server
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def store_url(store_server: str) -> Iterator[str]:
    """URL of a database of this test's own, with the default tenant's schema and nothing in it."""
    database = f"test_{next(_numbers)}"
    with psycopg.connect(store_server, autocommit=True) as conn:
        name, template = sql.Identifier(database), sql.Identifier(_TEMPLATE)
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, template))
        yield _url(store_server, database)
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
async def store(store_url: str, anyio_backend: str) -> AsyncIterator[Store]:
    """The default tenant's store on a database of this test's own."""
    async with open_store(store_url) as opened:
        yield opened
