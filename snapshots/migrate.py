"""Migrates a tenant's schema to this version of the code: numbered files, each applied once, all or none.

`migrations/NNNN_name.sql` has the changes; `walls` decides who may see the schema, and is rebuilt after each.
"""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources
from typing import Any, LiteralString, NamedTuple

from psycopg import AsyncConnection, sql

from snapshots.errors import MigrationError, store_border
from snapshots.rights import Rights, require_making, require_reading, rights_of
from snapshots.sql import load
from snapshots.tenancy import OWN_RIGHTS, TenantSession, tenant_schema
from snapshots.walls import Walls, build_walls, find_walls

_SQL = load("migrate")
_FILE = re.compile(r"(\d{4})_(\w+)\.sql")


class Migration(NamedTuple):
    """One numbered step of the schema."""

    version: int
    name: str
    statements: LiteralString


def migrations() -> list[Migration]:
    """Return this code's migrations, in order.

    Raises:
        MigrationError: the numbers do not run 1, 2, 3, …
    """
    files = resources.files("snapshots.migrations").iterdir()
    found = sorted(
        Migration(int(match[1]), match[2], file.read_text(encoding="utf-8"))
        for file in files
        if (match := _FILE.fullmatch(file.name))
    )
    if [one.version for one in found] != list(range(1, len(found) + 1)):
        raise MigrationError(
            f"migrations must be numbered 1 to {len(found)} without gaps: found {[one.version for one in found]}."
        )
    return found


async def migrate(session: TenantSession, *, with_login: bool = False) -> Walls:
    """Create the tenant's schema or bring it up to date, with its walls. Safe from several processes at once.

    Return the walls as they are afterwards. `with_login`: the tenant gets its own login (the embedded server).

    Raises:
        MigrationError: the schema is newer than this code.
        MissingRightsError: the login may not read or upgrade the schema.
        StoreError: the server refused.
    """
    known = migrations()
    conn, schema = session.conn, tenant_schema(session.tenant)
    with store_border(f"preparing schema {schema}"):
        walls = await find_walls(conn, schema)
        session = replace(session, roles=walls.roles)
        found = await rights_of(conn, schema, session.roles)
        if not _lacks(walls, found, with_login):
            await require_reading(session, found)
            if found.there and await version_of(session, schema) == len(known):
                return walls
        await require_making(session, found)
        session = replace(session, roles=OWN_RIGHTS)
        async with session.transaction():
            await conn.execute(_SQL["lock"], {"schema": schema})
            if not (await rights_of(conn, schema)).there:  # IF NOT EXISTS would require the right to create anyway
                await conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            if not await _has_record(conn, schema):
                await conn.execute(_SQL["create_record"])
            version = await _newest(conn)
            if version > len(known):
                raise MigrationError(
                    f"schema {schema} is at migration {version}, but this chartferry knows only {len(known)}: a newer one has "
                    "upgraded it. Upgrade this one."
                )
            for step in known[version:]:
                await conn.execute(step.statements)
                await conn.execute(_SQL["record"], {"version": step.version, "name": step.name})
            await build_walls(session, await find_walls(conn, schema), with_login=with_login)
        return await find_walls(conn, schema)


def _lacks(walls: Walls, found: Rights, with_login: bool) -> bool:
    """Whether this login could build a missing wall, or one of the tenant's roles lacks a right."""
    stands = walls.stand and (walls.login is not None or not with_login) and found.as_granted
    return not stands and walls.can_be_built and found.owns_tables


async def _has_record(conn: AsyncConnection[Any], schema: str) -> bool:
    row = await (await conn.execute(_SQL["has_record"], {"schema": schema})).fetchone()
    return bool(row and row[0])


async def _newest(conn: AsyncConnection[Any]) -> int:
    row = await (await conn.execute(_SQL["version"])).fetchone()
    return int(row[0]) if row else 0


async def version_of(session: TenantSession, schema: str) -> int:
    """Return the newest migration of a tenant's schema; 0: none yet. Almost every start finds it up to date."""
    async with session.transaction():
        return await _newest(session.conn) if await _has_record(session.conn, schema) else 0
