"""The store of the integration tier: one database after another, each of which serves many tests (`emptied_database`).

Runs and readers of these tests are in the test's process, which is what makes sessions that last worth having; the commands of
the acceptance tier open their own, on a fresh database each time.
"""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from snapshots.migrate import migrate
from snapshots.sessions import connect
from snapshots.store import Store
from snapshots.tenancy import TenantSession
from snapshots.walls import Walls
from tests.emptied_database import EmptiedDatabase, EmptiedDatabases
from tests.fix_store import OWN, TESTER, database, url_of


@pytest.fixture(scope="session")
def emptied_databases(store_server: str, migrated: str) -> Iterator[EmptiedDatabases]:
    """Lends each test a database for as long as it runs, with the default tenant's schema and nothing in it."""
    databases = EmptiedDatabases(
        lambda number: database(store_server, f"{OWN}_emptied_{number}", f"TEMPLATE {migrated} STRATEGY FILE_COPY")
    )
    yield databases
    databases.close()


@pytest.fixture
def emptied_database(emptied_databases: EmptiedDatabases) -> Iterator[EmptiedDatabase]:
    """This test's database."""
    with emptied_databases.lent() as lent:
        yield lent


@pytest.fixture
def store_url(emptied_database: EmptiedDatabase) -> str:
    """URL of this test's database."""
    return emptied_database.url


@pytest.fixture(scope="session")
def walls(store_server: str, migrated: str) -> Walls:
    """Those of the default tenant, on every database that is made of the template."""

    async def read(url: str) -> Walls:
        async with await connect(url) as conn:
            return await migrate(TenantSession(conn=conn, tenant="default", actor=TESTER), with_login=False)

    return anyio.run(read, url_of(store_server, migrated))


@pytest.fixture
def store(emptied_database: EmptiedDatabase, walls: Walls) -> Store:
    """The default tenant's store on this test's database."""
    return emptied_database.store(TESTER, walls)
