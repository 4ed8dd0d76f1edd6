"""Checks the rights of a login in the store's database, and names the missing GRANT.

It queries the catalogue before the work begins, so that a refusal names the statement to run, and no run ends halfway. `sessions`
opens sessions, `migrate` changes the schema, `walls` makes the tenant's roles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, NoReturn

from psycopg import AsyncConnection

from snapshots.errors import MissingRightsError, StoreUnavailableError, store_border
from snapshots.sql import load
from snapshots.tenancy import OWN_RIGHTS, TenantRoles, TenantSession, tenant_schema
from snapshots.walls import RoleNames, find_walls

_SQL = load("rights")
_MOST_NAMED = 3


class Rights(NamedTuple):
    """What a login, and the roles that it becomes, may do with one tenant's schema; without tables everything."""

    login: str
    database: str
    owner: str | None  # of the schema; None: there is no such schema
    create_schema: bool
    temporary: bool
    usage: bool
    create: bool
    owns_schema: bool
    owns_tables: bool  # all that there are
    select: bool
    write: bool
    audit: bool

    @property
    def as_granted(self) -> bool:
        """Whether nobody has revoked a right on the schema and its tables."""
        return self.usage and self.select and self.write and self.audit

    @property
    def there(self) -> bool:
        """Whether the schema exists."""
        return self.owner is not None


async def rights_of(conn: AsyncConnection[Any], schema: str, roles: TenantRoles = OWN_RIGHTS) -> Rights:
    """Return what this session may do with a schema. Needs no right except to be connected."""
    row = await (await conn.execute(_SQL["rights"], {"schema": schema, **roles._asdict()})).fetchone()
    assert row is not None
    return Rights(*row)


async def _rights_of_session(session: TenantSession) -> tuple[str, Rights]:
    schema = tenant_schema(session.tenant)
    with store_border(f"checking rights in schema {schema}"):
        return schema, await rights_of(session.conn, schema, session.roles)


async def require_reading(session: TenantSession, found: Rights) -> None:
    """Raise MissingRightsError if the schema exists and may not be read."""
    if found.there and not (found.usage and found.select):
        await _refuse_without_role(session, found, "read", "reader")


async def require_auditing(session: TenantSession) -> None:
    """Raise MissingRightsError unless the session may note in the audit what it reads; refuse a standby, which cannot."""
    if _is_standby(session.conn):
        raise StoreUnavailableError(
            "this server is a read-only standby: each read of patient data is noted in the audit, and a standby cannot write "
            "that. "
            "Name its primary in store.url. Of several hosts in the URL, target_session_attrs=read-write chooses the primary."
        )
    _, found = await _rights_of_session(session)
    if not found.audit:
        await _refuse_without_role(session, found, "note in the audit of", "reader")


async def require_making(session: TenantSession, found: Rights) -> None:
    """Raise MissingRightsError unless the login may create the schema or change its contents; refuse a standby."""
    _refuse_standby(session.conn)
    missing = []
    if not found.there and not found.create_schema:
        missing.append("GRANT CREATE ON DATABASE {database} TO {login}")
    elif found.there and not found.owns_tables:
        # no GRANT of the owner's role: it would give a login that reads everything, of all tenants
        await _refuse_others_tables(session, found, "upgrade")
        raise MissingRightsError(
            f"schema {tenant_schema(session.tenant)} of database {found.database} was written by an earlier chartferry, and "
            f"only its owner, {found.owner}, may upgrade it. As that login, run: chartferry tenants migrate {session.tenant}"
        )
    elif found.there and not found.owns_schema:
        # the walls are noted in the schema's comment, which only its owner may write
        missing.append("ALTER SCHEMA {schema} OWNER TO {login}")
    elif found.there and not found.create:
        missing.append("GRANT CREATE ON SCHEMA {schema} TO {login}")
    await _refuse(session, found, "create or upgrade", missing)


async def require_writing(session: TenantSession) -> None:
    """Raise MissingRightsError unless the session may do what a run and a proof do; refuse a standby."""
    _refuse_standby(session.conn)
    _, found = await _rights_of_session(session)
    if not found.write:
        await _refuse_without_role(session, found, "write", "writer")
    if not found.temporary:
        role = await _role_to_grant(session, "writer")
        statement = "GRANT {role} TO {login}" if role else "GRANT TEMPORARY ON DATABASE {database} TO {writer}"
        await _refuse(session, found, "write", [statement], role=role)


async def require_owning(session: TenantSession, doing: str) -> None:
    """Raise MissingRightsError unless the session's login owns the tenant's tables; refuse a standby."""
    _refuse_standby(session.conn)
    schema, found = await _rights_of_session(session)
    if not found.owns_tables:  # no GRANT of the owner's role, as in `require_making`
        await _refuse_others_tables(session, found, doing)
        raise MissingRightsError(
            f"the login {found.login} may not {doing} schema {schema} of database {found.database}: only its owner, "
            f"{found.owner}, may. Run this again as that login (docs/store.md has the roles)."
        )


async def _refuse_others_tables(session: TenantSession, found: Rights, doing: str) -> None:
    """Raise MissingRightsError if the login owns the schema, and others own tables in it."""
    if not found.owns_schema:
        return
    schema = tenant_schema(session.tenant)
    with store_border(f"checking rights in schema {schema}"):
        rows = await (await session.conn.execute(_SQL["tables_of_others"], {"schema": schema})).fetchall()
    named = ", ".join(f"{table} (of {owner})" for table, owner in rows[:_MOST_NAMED])
    more = "" if len(rows) <= _MOST_NAMED else f" and {len(rows) - _MOST_NAMED} more"
    raise MissingRightsError(
        f"the login {found.login} may not {doing} schema {schema} of database {found.database}, because other roles own tables "
        f"in it: {named}{more}. Let a superuser move these to another schema, or run ALTER TABLE … OWNER TO {found.login}."
    )


async def require_creating(session: TenantSession) -> None:
    """Raise MissingRightsError unless the login may create views in the tenant's schema; refuse a standby."""
    _refuse_standby(session.conn)
    _, found = await _rights_of_session(session)
    missing = [] if found.create else ["GRANT CREATE ON SCHEMA {schema} TO {login}"]
    await _refuse(session, found, "create views in", missing)


def _is_standby(conn: AsyncConnection[Any]) -> bool:
    return conn.info.parameter_status("in_hot_standby") == "on"


def _refuse_standby(conn: AsyncConnection[Any]) -> None:
    if _is_standby(conn):
        raise StoreUnavailableError(
            "this server is a read-only standby: list its runs, and name its primary in store.url for everything else. "
            "Of several hosts in the URL, target_session_attrs=read-write chooses the primary."
        )


async def _role_to_grant(session: TenantSession, which: Literal["reader", "writer"]) -> str | None:
    """The tenant's roles, if its walls exist and this login is not one of them."""
    if getattr(session.roles, which) is not None:
        return None
    walls = await find_walls(session.conn, tenant_schema(session.tenant))
    names: RoleNames | None = walls.names if walls.stand else None
    return None if names is None else getattr(names, which)


async def _refuse_without_role(
    session: TenantSession, found: Rights, doing: str, which: Literal["reader", "writer"]
) -> NoReturn:
    """Raise MissingRightsError that names the tenant's role to grant, or who makes it.

    It names no rights on tables: on all of them, partitions would be among them, where no policy holds.
    """
    role = await _role_to_grant(session, which)
    await _refuse(session, found, doing, ["GRANT {role} TO {login}"] if role else [], role=role)
    raise MissingRightsError(
        f"the login {found.login} may not {doing} schema {tenant_schema(session.tenant)} of database {found.database}, and the "
        f"tenant's roles, which have the rights for it, do not exist. Its owner, {found.owner}, must run: chartferry tenants "
        f"migrate {session.tenant}; if that login may not create roles, `chartferry config check --connect` names what a "
        "superuser must run first. Then run this again: it names the role to grant (docs/store.md)."
    )


async def _refuse(
    session: TenantSession,
    found: Rights,
    doing: str,
    missing: Sequence[str],
    *,
    role: str | None = None,
) -> None:
    """Raise MissingRightsError if anything is missing. `role`: the tenant's that a statement grants."""
    if not missing:
        return
    schema = tenant_schema(session.tenant)
    names = {
        "database": found.database,
        "schema": schema,
        "login": found.login,
        "writer": session.roles.writer or found.login,
        **({"role": role} if role else {}),
    }
    row = await (await session.conn.execute(_SQL["quoted"], {"names": list(names.values())})).fetchone()
    quoted = dict(zip(names, row[0] if row else names.values(), strict=True))
    statements = " ".join(f"{statement.format(**quoted)};" for statement in missing)
    raise MissingRightsError(
        f"the login {found.login} may not {doing} schema {schema} of database {found.database}. "
        f"Its owner, or a superuser, must run: {statements} (docs/store.md has the roles.)"
    )
