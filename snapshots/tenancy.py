"""Tenants as schemas, and the one place where a transaction is bound to its tenant.

Every statement of the store runs in `tenant_transaction`. This module sets, per transaction, what separates tenants: the search
path now, a role and row-level security later.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from snapshots.errors import StoreError
from snapshots.sql import load

_SQL = load("tenancy")
# Postgres cuts names at 63 bytes: two long tenants must not share a schema
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,54}")


def tenant_schema(tenant: str) -> str:
    """Return the schema of a tenant, `tenant_<name>`.

    Raises:
        StoreError: the name is not 1-55 of a-z, 0-9, _ and -, beginning with a letter.
    """
    if _NAME.fullmatch(tenant) is None:
        raise StoreError(
            f"the tenant name {tenant!r} cannot name a schema: expected a letter, then up to 54 of a-z, 0-9, _ and -."
        )
    return f"tenant_{tenant}"


@asynccontextmanager
async def tenant_transaction(conn: AsyncConnection[Any], tenant: str) -> AsyncIterator[None]:
    """Run a transaction that sees only the tenant's schema; commit at the end, roll back on an error."""
    async with conn.transaction():
        await conn.execute(_SQL["bind"], {"search_path": f'"{tenant_schema(tenant)}"', "tenant": tenant}, prepare=True)
        yield
