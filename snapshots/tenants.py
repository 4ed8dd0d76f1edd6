"""The tenants of a store: lists, creates, migrates and drops them, and notes their backup. Only the owner of the tables may.

`moving` takes a tenant to another server. `migrate` makes and upgrades one schema, `walls` its roles and policies; `store`
opens one tenant for its actor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from psycopg import AsyncConnection, errors, sql

from snapshots.actor import Actor
from snapshots.audit import seal
from snapshots.audit_event import Action
from snapshots.errors import (
    ConnectionBusyError,
    MissingRightsError,
    SchemaCommentError,
    StoreError,
    StoreUnavailableError,
    store_border,
)
from snapshots.lock_waits import WAIT_S, bounded_locks
from snapshots.migrate import migrate, migrations, version_of
from snapshots.reading import WhatWasRead, note
from snapshots.reports import reports
from snapshots.rights import require_owning
from snapshots.server import running_server
from snapshots.sessions import check_server, connect
from snapshots.sql import load
from snapshots.tenancy import TenantSession, tenant_schema
from snapshots.walls import Walls, find_breaches, find_walls, lock_shared_rights

_SQL = load("tenants")
_BACKUP_KNOWN = 36  # the migration from which on the audit knows backups
_PREFIX = tenant_schema("x")[:-1]


class Tenant(NamedTuple):
    """A tenant of the store."""

    name: str
    version: int  # the newest migration of its schema
    is_current: bool  # its migration is this program's newest, and both walls exist
    size: int  # bytes of tables and indexes
    breaches: tuple[str, ...] = ()  # what somebody has opened in its walls: the statements that close it


class Migrated(NamedTuple):
    """What became of one tenant."""

    name: str
    changed: bool
    error: StoreError | None = None


class Tenants:
    """All tenants of one store, on one session of its owner's; `open_tenants` makes it."""

    def __init__(self, conn: AsyncConnection[Any], actor: Actor, server: str, *, with_login: bool) -> None:
        self.server = server  # its URL
        self.major = conn.info.server_version // 10000
        self._conn = conn
        self._actor = actor
        self._with_login = with_login

    def _session(self, tenant: str) -> TenantSession:
        return TenantSession(conn=self._conn, tenant=tenant, actor=self._actor)

    async def existing(self) -> list[Tenant]:
        """Return the tenants by name."""
        newest = len(migrations())
        found = []
        with store_border("listing tenants"):
            sizes = await (await self._conn.execute(_SQL["sizes"])).fetchall()
        for schema, size in sizes:
            name, breaches = schema.removeprefix(_PREFIX), list[str]()
            try:
                walls = await self._walls(name)
                stands = walls.stand
                with store_border(f"looking at the walls of tenant {name}"):
                    breaches = await find_breaches(self._conn, schema, walls)
            except SchemaCommentError:  # nobody can say which its roles are; `migrate` says why
                stands = False
            with store_border(f"looking at tenant {name}"):
                version = await version_of(self._session(name), schema)
            found.append(Tenant(name, version, version == newest and stands, size, tuple(breaches)))
        return found

    async def migrate(self, names: Collection[str] = ()) -> AsyncIterator[Migrated]:
        """Migrate these tenants, or all, each in its own transaction; yield each when it is done.

        A tenant that fails costs only itself; no other is migrated twice, so the same call continues where one ended.

        Raises:
            StoreError: there is no tenant of that name; none was migrated.
            StoreUnavailableError: the server is gone.
        """
        there = await self.names()
        if unknown := sorted(set(names) - set(there)):
            raise StoreError(f"the store has no tenant {', '.join(unknown)}; there are: {', '.join(there) or 'none'}.")
        for name in names or there:
            try:
                yield Migrated(name, await self._migrated(name))
            except StoreUnavailableError:
                raise
            except StoreError as error:
                yield Migrated(name, changed=False, error=error)

    async def add(self, name: str) -> bool:
        """Make a tenant; return whether anything had to be made.

        Raises:
            StoreError: the name cannot name a schema.
        """
        tenant_schema(name)
        return await self._migrated(name)

    async def without_walls(self, names: Collection[str]) -> list[str]:
        """Return those of these tenants whose walls do not stand. After `migrate`: the login may not create their roles."""
        return [name for name in names if not (await self._walls(name)).stand]

    async def _migrated(self, name: str) -> bool:
        before = await self._state(name)
        await migrate(self._session(name), with_login=self._with_login)
        return before != await self._state(name)

    async def _state(self, name: str) -> tuple[int, Walls]:
        with store_border(f"looking at tenant {name}"):
            return await version_of(self._session(name), tenant_schema(name)), await self._walls(name)

    async def drop(self, name: str) -> list[str]:
        """Delete a tenant: its schema with all that is in it, and its roles. Return roles that something else refers to.

        Raises:
            StoreError: there is no such tenant.
            ConnectionBusyError: a run is in progress, or somebody reads.
            MissingRightsError: the login does not own it.
        """
        schema = await self._required(name)
        session = self._session(name)
        await require_owning(session, "drop")
        walls = await self._walls(name)
        with store_border(f"dropping tenant {name}"):
            async with session.transaction():
                await self._require_idle(name)
                await self._conn.execute(_SQL["bound_wait"])
                try:
                    await self._conn.execute(sql.SQL(_SQL["drop_schema"]).format(schema=sql.Identifier(schema)))
                    await lock_shared_rights(self._conn)
                except errors.LockNotAvailable:
                    raise ConnectionBusyError(
                        f"tenant {name} is in use, and nothing was deleted: an export or another session is reading it. "
                        "Wait until it ends, or stop its process.",
                        run=None,
                    ) from None
                # in the same transaction: only the schema's comment names them
                return [role for role in sorted(walls.existing) if not await self._dropped_role(role)]

    async def note_backup(self, noted: Collection[str] = ()) -> list[str]:
        """Note in the audit of each tenant that is not noted yet that all its charts are read for a backup; return all tenants.

        Raises:
            StoreError: the tables of a tenant are too old for that. It may be noted of others.
        """
        names = await self.names()
        for name in sorted(set(names) - set(noted)):
            await self.note_backup_of(name)
        return names

    async def note_backup_of(self, name: str) -> None:
        """Note in the audit of a tenant that all its charts are read for a backup.

        Raises:
            StoreError: the tenant's tables are too old for that.
        """
        session = self._session(name)
        with store_border(f"noting the backup in the audit of tenant {name}"):
            if await version_of(session, tenant_schema(name)) < _BACKUP_KNOWN:
                raise StoreError(
                    f"the audit of tenant {name} cannot note a backup, because an earlier chartferry wrote its tables: back "
                    "the store up with that one, or run `chartferry tenants migrate` first."
                )
            async with session.transaction():
                connections = [row[0] async for row in await self._conn.execute(_SQL["connections"])]
                await note(session, Action.BACKUP, WhatWasRead(connections=connections, everyone=True))
        await seal(session)

    async def require_whole_dump(self, name: str) -> bool:
        """Raise unless this login's dump of a tenant would have all its rows; return whether policies apply to the login.

        Raises:
            StoreError: there is no such tenant.
            MissingRightsError: the login does not own it, or a policy that is not chartferry's could hide rows from it.
        """
        schema = await self._required(name)
        await require_owning(self._session(name), "export")
        with store_border(f"looking at the policies of tenant {name}"):
            row = await (await self._conn.execute(_SQL["policies"], {"schema": schema})).fetchone()
        is_subject, others = row or (True, [])
        if is_subject and (others or (await self._walls(name)).unguarded):
            named = f" ({', '.join(others)})" if others else ""
            raise MissingRightsError(
                f"policies of tenant {name} that are not chartferry's{named} could hide rows from this login, and nothing was "
                f"exported. Name a superuser, or a login with BYPASSRLS, in store.url; or drop them, and run chartferry tenants "
                f"migrate {name}."
            )
        return bool(is_subject)

    async def names(self) -> list[str]:
        """Return the names of the tenants, in order."""
        with store_border("listing tenants"):
            found = await (await self._conn.execute(_SQL["schemas"])).fetchall()
        return [schema.removeprefix(_PREFIX) for (schema,) in found]

    async def _required(self, name: str) -> str:
        """Return the schema of an existing tenant."""
        schema = tenant_schema(name)
        if name not in await self.names():
            raise StoreError(f"the store has no tenant {name}: `chartferry tenants list` lists them.")
        return schema

    async def _require_idle(self, name: str) -> None:
        """Raise ConnectionBusyError while a run of the tenant is in progress."""
        opened = [row[0] async for row in await self._conn.execute(_SQL["open_runs"])]
        for report in await reports(self._conn, opened):
            if report.status == "running":
                raise ConnectionBusyError(
                    f"run {report.id} of tenant {name} is in progress: wait until it ends, or stop its process.",
                    run=report.id,
                )

    async def _dropped_role(self, role: str) -> bool:
        """Whether a role could be dropped: another database of the server may have rights for it."""
        named = {"role": sql.Identifier(role)}
        try:
            async with self._conn.transaction():
                await self._conn.execute(sql.SQL(_SQL["drop_rights"]).format(**named))
                await self._conn.execute(sql.SQL(_SQL["drop_role"]).format(**named))
        except (errors.DependentObjectsStillExist, errors.InsufficientPrivilege):
            return False
        return True

    async def _walls(self, name: str) -> Walls:
        with store_border(f"looking at tenant {name}"):
            return await find_walls(self._conn, tenant_schema(name))


@asynccontextmanager
async def open_tenants(url: str, actor: Actor, *, lock_wait_s: float = WAIT_S) -> AsyncIterator[Tenants]:
    """Open a store for work on its tenants, as `open_store` does for one of them.

    No statement waits longer than `lock_wait_s` for a lock.

    Raises:
        StoreUnavailableError: there is no server, it refuses us, or it cannot be a store.
    """
    async with running_server(url) as server:
        conn = await connect(server)
        try:
            await check_server(conn, server)
            async with bounded_locks(conn, server, lock_wait_s):
                yield Tenants(conn, actor, server, with_login=server != url)
        finally:
            await conn.close()
