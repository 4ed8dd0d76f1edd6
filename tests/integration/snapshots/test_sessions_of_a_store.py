"""The pool: sessions come back clean, know their actor for as long as a transaction lasts, and are not lent without end."""

from __future__ import annotations

import pytest

from snapshots.actor import Actor
from snapshots.errors import ConnectionBusyError, StoreUnavailableError
from snapshots.pool import SessionPool
from snapshots.walls import Walls
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import scope

pytestmark = pytest.mark.anyio

ANA = Actor(name="ana", login="svc", roles=("research", "nurse"))
APP = "SELECT current_setting('app.current_tenant_id', true), current_setting('app.current_user_id', true), "
APP += "current_setting('app.current_user_roles', true)"


async def test_a_transaction_knows_tenant_actor_and_roles_and_leaves_none_of_them_behind(store_url: str) -> None:
    async with (
        SessionPool(store_url, "default", ANA, walls=Walls(names=None), most=1) as sessions,
        sessions.session() as session,
    ):
        async with session.transaction():
            inside = await (await session.conn.execute(APP)).fetchone()
        assert inside == ("default", "ana", "research,nurse")
        assert await (await session.conn.execute(APP)).fetchone() == ("", "", "")


async def test_a_returned_session_keeps_no_locks_settings_or_tables(store_url: str) -> None:
    async with SessionPool(store_url, "default", ANA, walls=Walls(names=None), most=1) as sessions:
        async with sessions.session() as session:
            first = session.conn
            await first.execute("SELECT pg_advisory_lock(7)")
            await first.execute("SET search_path = tenant_default; SET statement_timeout = '1h'")
            await first.execute("CREATE TEMPORARY TABLE left_behind AS SELECT 1 AS patient")
        async with sessions.session() as session:
            assert session.conn is first
            found = await session.conn.execute(
                "SELECT to_regclass('left_behind'), to_regclass('resource'), current_setting('statement_timeout'),"
                " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
            )
            assert await found.fetchone() == (None, None, "0", 0)


async def test_a_session_broken_off_in_a_transaction_is_not_lent_again(store_url: str) -> None:
    async with SessionPool(store_url, "default", ANA, walls=Walls(names=None), most=1) as sessions:
        async with sessions.session() as session:
            first = session.conn
            await first.execute("BEGIN")
        async with sessions.session() as session:
            assert session.conn is not first
        assert first.closed


async def test_a_closed_run_releases_its_lock_at_once(store_url: str) -> None:
    async with opened_store(store_url) as store:
        for _ in range(3):
            async with await store.begin_run(scope()):
                with pytest.raises(ConnectionBusyError):
                    await store.begin_run(scope())


async def test_a_request_for_more_sessions_than_exist_is_refused(store_url: str) -> None:
    async with (
        SessionPool(store_url, "default", ANA, walls=Walls(names=None), most=1, wait_s=0.1) as sessions,
        sessions.session(),
    ):
        with pytest.raises(StoreUnavailableError, match=r"provided no session.*this process already uses 1"):
            await sessions.lend()
