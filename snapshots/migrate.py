"""Migrates a tenant's schema to this version of the code: numbered files, each applied once, all or none.

`migrations/NNNN_name.sql` has the changes; `tenancy` decides who may see the schema.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, LiteralString, NamedTuple

from psycopg import AsyncConnection, sql

from snapshots.errors import MigrationError, store_border
from snapshots.rights import require_making, require_reading, rights_of
from snapshots.sql import load
from snapshots.tenancy import TenantSession, tenant_schema

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


async def migrate(session: TenantSession) -> int:
    """Create the tenant's schema or bring it up to date; give its version. Safe from several processes at once.

    Raises:
        MigrationError: the schema is newer than this code.
        MissingRightsError: the login may not read the schema, or may not upgrade it.
        StoreError: the server refused.
    """
    known = migrations()
    conn, schema = session.conn, tenant_schema(session.tenant)
    with store_border(f"preparing schema {schema}"):
        found = await rights_of(conn, schema)
        await require_reading(conn, schema, found)
        if found.there and await _version(session, schema) == len(known):
            return len(known)
        await require_making(conn, schema, found)
        async with session.transaction():
            await conn.execute(_SQL["lock"], {"schema": schema})
            if not (await rights_of(conn, schema)).there:  # IF NOT EXISTS would require the right to create anyway
                await conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            if not await _has_record(conn, schema):
                await conn.execute(_SQL["create_record"])
            version = await _newest(conn)
            if version > len(known):
                raise MigrationError(
                    f"schema {schema} is at migration {version}, this chartferry knows {len(known)}: "
                    "a newer chartferry has upgraded it. Upgrade this one."
                )
            for step in known[version:]:
                await conn.execute(step.statements)
                await conn.execute(_SQL["record"], {"version": step.version, "name": step.name})
    return len(known)


async def _has_record(conn: AsyncConnection[Any], schema: str) -> bool:
    row = await (await conn.execute(_SQL["has_record"], {"schema": schema})).fetchone()
    return bool(row and row[0])


async def _newest(conn: AsyncConnection[Any]) -> int:
    row = await (await conn.execute(_SQL["version"])).fetchone()
    return int(row[0]) if row else 0


async def _version(session: TenantSession, schema: str) -> int:
    """Check without a lock first: almost every start finds the schema up to date."""
    async with session.transaction():
        return await _newest(session.conn) if await _has_record(session.conn, schema) else 0
