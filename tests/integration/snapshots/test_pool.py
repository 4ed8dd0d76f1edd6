"""Opening the store: migrations, tenants, and servers that are not there."""

from __future__ import annotations

import anyio
import pytest

from snapshots.errors import MigrationError, StoreError, StoreUnavailableError
from snapshots.migrate import migrations
from snapshots.pool import Store, open_store
from tests.integration.snapshots.stored import execute, rows

pytestmark = pytest.mark.anyio


async def test_opening_again_applies_no_migration_twice(store: Store, store_url: str):
    before = rows(store_url, "SELECT version, name, applied_at FROM schema_migration")
    async with open_store(store_url):
        pass
    assert rows(store_url, "SELECT version, name, applied_at FROM schema_migration") == before


async def test_many_processes_may_create_a_tenant_at_once(store_url: str):
    async def create() -> None:
        async with open_store(store_url, "crowd"):
            pass

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(create)
    assert rows(store_url, "SELECT count(*) FROM tenant_crowd.schema_migration") == [(len(migrations()),)]


async def test_a_schema_that_is_newer_than_the_code_is_refused(store_url: str):
    execute(store_url, "INSERT INTO schema_migration (version, name) VALUES (9999, 'from the future')")
    with pytest.raises(MigrationError, match=r"at migration 9999.*Upgrade this one"):
        async with open_store(store_url):
            pass


async def test_a_server_that_is_not_there_is_named_without_its_password():
    with pytest.raises(StoreUnavailableError) as caught:
        async with open_store("postgresql://me:hunter2@127.0.0.1:1/x"):
            pass
    assert "127.0.0.1:1, database x, user me" in str(caught.value)
    assert "Connection refused. Check store.url" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@[x", "postgresql://me:p@hunter2@127.0.0.1:1/x"])
async def test_a_url_that_libpq_cannot_read_is_refused_without_quoting_it(url: str):
    with pytest.raises(StoreUnavailableError) as caught:
        async with open_store(url):
            pass
    assert "hunter2" not in str(caught.value)


async def test_a_tenant_that_cannot_name_a_schema_is_refused(store_url: str):
    with pytest.raises(StoreError, match="cannot name a schema"):
        async with open_store(store_url, "Robert'; --"):
            pass


async def test_two_tenants_have_schemas_of_their_own(store_url: str):
    async with open_store(store_url, "mercy-west"):
        pass
    found = rows(store_url, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant%%' ORDER BY 1")
    assert found == [("tenant_default",), ("tenant_mercy-west",)]
