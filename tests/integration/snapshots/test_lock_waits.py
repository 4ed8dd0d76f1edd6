"""Another session locks a tenant's table: whoever opens the store learns who it is, and does not wait for ever."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from snapshots.errors import StoreLockedError
from snapshots.store import open_store
from snapshots.tenants import open_tenants
from tests.fix_store import TESTER
from tests.integration.snapshots.stored import SCHEMA, make_as_of_version

pytestmark = pytest.mark.anyio

WAIT_S = 1.0


@contextmanager
def locked(url: str, statement: str) -> Iterator[int]:
    """The process of a session that holds the lock of a statement."""
    with psycopg.connect(url, options=f"-c search_path={SCHEMA}") as conn:
        conn.execute(statement)  # type: ignore[call-overload]  # a test's own
        yield conn.info.backend_pid


async def open_briefly(url: str) -> None:
    async with open_store(url, "default", TESTER, lock_wait_s=WAIT_S):
        pass


async def test_opening_a_store_with_a_locked_table_ends_with_an_error_that_names_the_session(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with locked(store_url, "LOCK TABLE schema_migration") as process:
        with caplog.at_level(logging.WARNING), pytest.raises(StoreLockedError) as refused:
            await open_briefly(store_url)
        holder = rf"session {process} of login \S+, in a transaction since \d{{4}}-\d\d-\d\d [0-9:]+ UTC"
        assert re.search(
            rf"pg_terminate_backend.*run the same command again\. It is held by {holder}\.$", str(refused.value)
        )
        assert re.search(rf"waits for a lock that another session holds: {holder}$", caplog.text, re.MULTILINE)
    await open_briefly(store_url)


async def test_work_on_tenants_ends_with_an_error_where_a_table_is_locked(store_url: str) -> None:
    with locked(store_url, "LOCK TABLE run"):
        with pytest.raises(StoreLockedError, match="It is held by session"):
            async with open_tenants(store_url, TESTER, lock_wait_s=WAIT_S) as there:
                await there.existing()
        async with open_tenants(store_url, TESTER, lock_wait_s=WAIT_S) as there:
            await there.add("other")
            done = {one.name: one.error async for one in there.migrate()}
    assert done["other"] is None
    assert isinstance(done["default"], StoreLockedError)


async def test_an_upgrade_that_waits_for_a_reader_ends_with_an_error_and_changes_nothing(store_url: str) -> None:
    make_as_of_version(store_url, 36)
    with locked(store_url, "SELECT FROM run"), pytest.raises(StoreLockedError, match="held by session"):
        await open_briefly(store_url)
    await open_briefly(store_url)
