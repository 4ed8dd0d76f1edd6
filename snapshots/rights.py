"""Checks the rights of a login in the store's database, and names the missing GRANT.

It queries the catalogue before the work begins, so that a refusal names the statement to run, and no run ends halfway. `sessions`
opens sessions, `migrate` changes the schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from snapshots.errors import MissingRightsError, StoreUnavailableError, store_border
from snapshots.sql import load
from snapshots.tenancy import tenant_schema

_SQL = load("rights")


class Rights(NamedTuple):
    """What a login may do with one tenant's schema; without tables it may do everything."""

    role: str
    database: str
    owner: str | None  # of the schema; None: there is no such schema
    create_schema: bool
    temporary: bool
    usage: bool
    create: bool
    owns_tables: bool
    select: bool
    write: bool
    audit: bool

    @property
    def there(self) -> bool:
        """Whether the schema exists."""
        return self.owner is not None


async def rights_of(conn: AsyncConnection[Any], schema: str) -> Rights:
    """Return what this session's login may do with a schema. Needs no right except to be connected."""
    row = await (await conn.execute(_SQL["rights"], {"schema": schema})).fetchone()
    assert row is not None
    return Rights(*row)


async def require_reading(conn: AsyncConnection[Any], schema: str, found: Rights) -> None:
    """Raise MissingRightsError if the schema exists and may not be read."""
    missing = []
    if found.there and not found.usage:
        missing.append("GRANT USAGE ON SCHEMA {schema} TO {role}")
    if found.there and not found.select:
        missing.append("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
    await _refuse(conn, schema, found, "read", missing)


async def require_auditing(conn: AsyncConnection[Any], tenant: str) -> None:
    """Raise MissingRightsError unless the login may note in the audit what it reads; refuse a standby, which cannot."""
    if _is_standby(conn):
        raise StoreUnavailableError(
            "this server is a read-only standby: who reads patient data is noted in the audit, which a standby cannot do. "
            "Name its primary in store.url. Of several hosts in the URL, target_session_attrs=read-write chooses the primary."
        )
    schema = tenant_schema(tenant)
    with store_border(f"asking what may be done in schema {schema}"):
        found = await rights_of(conn, schema)
    statement = "GRANT SELECT, INSERT ON {schema}.audit_event, {schema}.audit_patient, {schema}.audit_seal TO {role}"
    await _refuse(conn, schema, found, "note in the audit of", [] if found.audit else [statement])


async def require_making(conn: AsyncConnection[Any], schema: str, found: Rights) -> None:
    """Raise MissingRightsError unless the login may create the schema or change its contents; refuse a standby."""
    _refuse_standby(conn)
    missing = []
    if not found.there and not found.create_schema:
        missing.append("GRANT CREATE ON DATABASE {database} TO {role}")
    elif found.there and not found.owns_tables:
        missing.append(f"GRANT {found.owner} TO {{role}}")  # only owners may alter tables; regrole is quoted
    elif found.there and not found.create:
        missing.append("GRANT CREATE ON SCHEMA {schema} TO {role}")
    await _refuse(conn, schema, found, "create or upgrade", missing)


async def require_writing(conn: AsyncConnection[Any], tenant: str) -> None:
    """Raise MissingRightsError unless the login may do what a run and a proof do; refuse a standby."""
    _refuse_standby(conn)
    schema = tenant_schema(tenant)
    with store_border(f"asking what may be done in schema {schema}"):
        found = await rights_of(conn, schema)
    missing = []
    if not found.write:
        missing.append("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}")
    if not found.temporary:
        missing.append("GRANT TEMPORARY ON DATABASE {database} TO {role}")
    await _refuse(conn, schema, found, "write", missing)


async def require_creating(conn: AsyncConnection[Any], tenant: str) -> None:
    """Raise MissingRightsError unless the login may create views in the tenant's schema; refuse a standby."""
    _refuse_standby(conn)
    schema = tenant_schema(tenant)
    with store_border(f"asking what may be done in schema {schema}"):
        found = await rights_of(conn, schema)
    missing = [] if found.create else ["GRANT CREATE ON SCHEMA {schema} TO {role}"]
    await _refuse(conn, schema, found, "create views in", missing)


def _is_standby(conn: AsyncConnection[Any]) -> bool:
    return conn.info.parameter_status("in_hot_standby") == "on"


def _refuse_standby(conn: AsyncConnection[Any]) -> None:
    if _is_standby(conn):
        raise StoreUnavailableError(
            "this server is a read-only standby: list its runs, and name its primary in store.url for everything else. "
            "Of several hosts in the URL, target_session_attrs=read-write chooses the primary."
        )


async def _refuse(conn: AsyncConnection[Any], schema: str, found: Rights, doing: str, missing: Sequence[str]) -> None:
    if not missing:
        return
    names = {"database": found.database, "schema": schema, "role": found.role}
    row = await (await conn.execute(_SQL["quoted"], names)).fetchone()
    quoted = dict(zip(names, row or names.values(), strict=True))
    said = " ".join(f"{statement.format(**quoted)};" for statement in missing)
    raise MissingRightsError(
        f"the login {found.role} may not {doing} schema {schema} of database {found.database}. "
        f"Its owner, or a superuser, must run: {said} (docs/store.md has the roles.)"
    )
