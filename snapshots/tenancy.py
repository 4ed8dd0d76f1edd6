"""Tenants as schemas, and the one place where a transaction is bound to its tenant and its actor.

Every statement of the store runs in `TenantSession.transaction`. It sets, per transaction and gone with it, what separates
tenants and says who acts. `walls` makes the roles.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg import AsyncConnection, sql

from snapshots.actor import Actor
from snapshots.errors import StoreError
from snapshots.sealed_values import Sealer
from snapshots.sql import load

_SQL = load("tenancy")
# Postgres cuts names at 63 bytes: two long tenants must not share a schema
_NO_ROLE = "none"  # SET ROLE NONE
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


class TenantRoles(NamedTuple):
    """The tenant's roles that a login becomes for a transaction; None: it cannot, and acts with its own rights."""

    reader: str | None = None
    writer: str | None = None


OWN_RIGHTS = TenantRoles()


@dataclass(frozen=True, kw_only=True)
class TenantSession:
    """One session of a tenant's store and the actor who uses it. Its calls come from one task at a time."""

    conn: AsyncConnection[Any]
    tenant: str
    actor: Actor
    roles: TenantRoles = OWN_RIGHTS
    sealer: Sealer | None = None  # None: the store is not encrypted

    @asynccontextmanager
    async def transaction(
        self, *, writes: bool = False, repeatable_read: bool = False, moment: str | None = None
    ) -> AsyncIterator[None]:
        """Run a transaction that reaches only the tenant's schema; commit at the end, roll back on an error.

        `writes`: as the tenant's writer, not as its reader. `repeatable_read`: all its statements see the moment of the first;
        with `moment`, that of another transaction, which exported it and is still open.
        """
        async with self.conn.transaction():
            if repeatable_read:
                await self.conn.execute(_SQL["repeatable_read"])
            if moment is not None:
                await self.conn.execute(sql.SQL(_SQL["moment"]).format(moment=sql.Literal(moment)))
            values = {
                "role": (self.roles.writer if writes else self.roles.reader) or _NO_ROLE,
                "search_path": f'"{tenant_schema(self.tenant)}"',
                "tenant": self.tenant,
                "user": self.actor.name,
                "roles": ",".join(self.actor.roles),
            }
            await self.conn.execute(_SQL["bind"], values, prepare=True)
            yield
