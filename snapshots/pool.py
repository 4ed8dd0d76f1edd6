"""The sessions of one opened store: a pool that opens them when they are wanted, and takes them back clean.

psycopg_pool keeps, checks and limits them. `sessions` says what a session of ours must have; `tenancy` binds its transactions
to a tenant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
import psycopg
from psycopg import AsyncConnection, pq
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from snapshots.actor import Actor
from snapshots.errors import StoreUnavailableError, describe_server
from snapshots.sealed_values import Sealer
from snapshots.sessions import connect, full_conninfo, pin
from snapshots.sql import load
from snapshots.tenancy import OWN_RIGHTS, TenantRoles, TenantSession
from snapshots.walls import Walls

_SQL = load("sessions")
MOST_SESSIONS = 32
WAIT_S = 10.0


class SessionPool:
    """Up to `most` sessions of one tenant's store, for one actor; a caller waits up to `wait_s` for one.

    Use as an async context manager, which closes them all at its end.
    """

    def __init__(
        self,
        url: str,
        tenant: str,
        actor: Actor,
        *,
        walls: Walls,
        sealer: Sealer | None = None,
        most: int = MOST_SESSIONS,
        wait_s: float = WAIT_S,
    ) -> None:
        self._url = url
        self._tenant = tenant
        self._actor = actor
        self._roles = walls.roles
        self._login = walls.login
        self._sealer = sealer
        self._most = most
        self._wait_s = wait_s
        self._pool = AsyncConnectionPool[AsyncConnection[Any]](
            full_conninfo(url, login=walls.login),
            connection_class=AsyncConnection[Any],
            kwargs={"autocommit": True},
            min_size=0,
            max_size=most,
            open=False,
            configure=pin,
            check=AsyncConnectionPool.check_connection,
            timeout=wait_s,
            name="store",
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._pool.close()

    async def lend(self) -> TenantSession:
        """Lend a session until `take_back`: for a run, whose lock lives in it.

        Raises:
            StoreUnavailableError: the server gives no session, or all of this store are lent.
        """
        try:
            conn = await self._pool.getconn()
        except PoolTimeout:
            await (await connect(self._url)).close()  # says why, if the server is the reason
            raise StoreUnavailableError(
                f"the store at {describe_server(self._url)} provided no session for {self._wait_s:.0f} s: this process "
                f"already uses {self._most}, or the server has no more. Run fewer connections at a time."
            ) from None
        return self._bound(conn, self._roles)

    def _bound(self, conn: AsyncConnection[Any], roles: TenantRoles = OWN_RIGHTS) -> TenantSession:
        return TenantSession(conn=conn, tenant=self._tenant, actor=self._actor, roles=roles, sealer=self._sealer)

    async def take_back(self, session: TenantSession) -> None:
        """Take a session back, without what its user left in it: locks, settings, temporary tables, an open transaction."""
        with anyio.CancelScope(shield=True):
            await clean(session.conn)
            await self._pool.putconn(session.conn)  # one that is closed is replaced when it is wanted

    @asynccontextmanager
    async def session(self) -> AsyncIterator[TenantSession]:
        """Lend a session for the length of a block."""
        session = await self.lend()
        try:
            yield session
        finally:
            await self.take_back(session)

    @asynccontextmanager
    async def session_beside(self) -> AsyncIterator[TenantSession]:
        """Open a further session for the length of a block, for a caller that can do without: it waits for nobody.

        Raises:
            StoreUnavailableError: the server gives none at this moment.
        """
        conn = await connect(self._url, login=self._login)
        try:
            yield self._bound(conn, self._roles)
        finally:
            with anyio.CancelScope(shield=True):
                await conn.close()

    @asynccontextmanager
    async def owner_session(self) -> AsyncIterator[TenantSession]:
        """Open a session of the store's owner, behind no wall: for what the tenant's own roles may not do."""
        conn = await connect(self._url)
        try:
            yield self._bound(conn)
        finally:
            with anyio.CancelScope(shield=True):
                await conn.close()


async def clean(conn: AsyncConnection[Any]) -> None:
    """Make a session as good as new, or close it."""
    try:
        if conn.pgconn.transaction_status == pq.TransactionStatus.IDLE:  # else it was broken off in the middle, or lost
            await conn.execute(_SQL["discard"])
            await pin(conn)
            return
    except psycopg.Error:
        pass
    await conn.close()
