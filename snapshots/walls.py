"""Builds a tenant's two walls, and checks whether they are whole: roles that reach one schema, and row-level security.

Wall one: the tenant's reader and writer own nothing and have rights only in its schema; a login becomes one of them for each
transaction (`tenancy`). Wall two: every table shows rows only in a transaction that is bound to the tenant. A schema's comment
names its roles. `migrate` decides when to build; docs/tenants.md says which wall stops what.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg import AsyncConnection, sql

from snapshots.errors import SchemaCommentError
from snapshots.sql import load
from snapshots.tenancy import OWN_RIGHTS, TenantRoles, TenantSession, tenant_schema

_SQL = load("walls")
_KEY = "chartferry_roles"
_EVENT = "audit_event"
# what the tenant's roles add to the audit, and the statement with the condition on which they may
_ADDED = {"audit_patient": "unsealed_audit_patient", "audit_seal": "unsealed_audit_seal"}
_AUDIT = (_EVENT, *_ADDED)
# the rest the server fills in (the number, the moment, the login), or the owner (through: that events were deleted)
_EVENT_COLUMNS = (
    *("actor", "account", "roles", "origin", "reason", "action"),
    *("connections", "types", "runs", "everyone", "erased", "broke_glass"),
)
_READ_ONLY = (*_AUDIT, "schema_migration", "report_key", "sealing_key", "to_encrypt")  # for the writer as well
_STORED = "resource_stored"  # COPY goes there, and nobody may read it
_VIEWS = ("last_known",)  # of the schema's own
_SCHEMA = tenant_schema("x")[:-1]
_OF_NAME = 40  # of the tenant's, so that with prefix and suffix a role's name has at most 63 bytes


class RoleNames(NamedTuple):
    """The roles of one tenant: to read, to write, and for the embedded server, whose own login may everything, to log in."""

    reader: str
    writer: str
    login: str


@dataclass(frozen=True, kw_only=True)
class Walls:
    """What there is of a tenant's walls, and what this login may do about them."""

    names: RoleNames | None  # None: nothing is written of them
    there: frozenset[str] = frozenset()  # roles that exist and may enter the schema
    ours: frozenset[str] = frozenset()  # roles that this login can become
    existing: frozenset[str] = frozenset()
    unguarded: int = 0  # tables without row-level security, or with another policy than ours
    may_create_roles: bool = False
    is_superuser: bool = False

    @property
    def stand(self) -> bool:
        """Whether both walls are whole."""
        return self.names is not None and {self.names.reader, self.names.writer} <= self.there and not self.unguarded

    @property
    def can_be_built(self) -> bool:
        """Whether this login, if it owns the tables, can build them: it may create roles, or somebody has made them for it."""
        return self.may_create_roles or (self.names is not None and {self.names.reader, self.names.writer} <= self.ours)

    @property
    def roles(self) -> TenantRoles:
        """What this login becomes."""
        if self.names is None:
            return OWN_RIGHTS
        usable = self.there & self.ours
        reader, writer = (name if name in usable else None for name in self.names[:2])
        return TenantRoles(reader, writer)

    @property
    def login(self) -> str | None:
        """The tenant's own login, if it has one."""
        return self.names.login if self.names is not None and self.names.login in self.existing else None


async def find_walls(conn: AsyncConnection[Any], schema: str) -> Walls:
    """Return the existing parts of a tenant's walls. Needs no right except to connect.

    Raises:
        SchemaCommentError: the schema's comment was replaced, so its roles are unknown.
    """
    row = await (await conn.execute(_SQL["may_create_roles"])).fetchone()
    may_create, is_superuser = row or (False, False)
    row = await (await conn.execute(_SQL["comment"], {"schema": schema})).fetchone()
    names = _names_in(schema, row[0] if row else None)
    if names is None:
        return Walls(names=None, may_create_roles=may_create, is_superuser=is_superuser)
    found = await (await conn.execute(_SQL["roles"], {"schema": schema, "names": list(names)})).fetchall()
    ((unguarded,),) = await _about_guards(conn, "unguarded", schema)
    return Walls(
        names=names,
        existing=frozenset(name for name, _, _ in found),
        there=frozenset(name for name, enters, _ in found if enters),
        ours=frozenset(name for name, _, ours in found if ours),
        unguarded=unguarded,
        may_create_roles=may_create,
        is_superuser=is_superuser,
    )


async def find_breaches(conn: AsyncConnection[Any], schema: str, walls: Walls) -> list[str]:
    """Return what somebody has opened in walls that stand: for each breach, the statement that closes it.

    What a site grants to logins of its own is its own decision, and no breach.
    """
    if walls.names is None:
        return []
    rows = await (await conn.execute(_SQL["comments"], {"prefix": _SCHEMA, "schema": schema})).fetchall()
    others: list[str] = []
    for other, comment in rows:
        with suppress(SchemaCommentError):  # of that tenant, whose walls then do not stand
            others += _names_in(other, comment) or ()
    values = {**_granted(schema, walls.names), "names": list(walls.names), "others": others, "login": walls.names.login}
    statement = _statement("breaches", granted=sql.SQL(_SQL["granted"]))
    return [row[0] for row in await (await conn.execute(statement, values)).fetchall()]


def _granted(schema: str, names: RoleNames) -> dict[str, Any]:
    """The values of the query `granted`."""
    return {
        "schema": schema,
        "reader": names.reader,
        "writer": names.writer,
        "event": _EVENT,
        "columns": list(_EVENT_COLUMNS),
        "views": list(_VIEWS),
        "stored": _STORED,
        "audit": list(_AUDIT),
        "read_only": list(_READ_ONLY),
    }


async def _about_guards(conn: AsyncConnection[Any], query: str, schema: str) -> list[Any]:
    policy = _statement("policy", tenant=sql.Literal(schema.removeprefix(_SCHEMA)))
    conditions = [_unsealed(schema, name).as_string(conn) for name in _ADDED]
    values = {"schema": schema, "added": list(_ADDED), "conditions": conditions}
    return await (await conn.execute(_statement(query, policy=policy), values)).fetchall()


def _unsealed(schema: str, table: str) -> sql.Composed:
    events, _, seals = (sql.Identifier(schema, name) for name in _AUDIT)
    return _statement(_ADDED[table], events=events, seals=seals)


def _names_in(schema: str, comment: str | None) -> RoleNames | None:
    if comment is None:
        return None
    try:
        return RoleNames(**json.loads(comment)[_KEY])
    except (ValueError, TypeError, KeyError):
        raise SchemaCommentError(
            f"the comment of schema {schema}, which must name the tenant's roles, was replaced. Restore the comment from a "
            "backup. Or let chartferry create new roles, which you then grant to your logins: the owner must run "
            f'COMMENT ON SCHEMA "{schema}" IS NULL; and then: chartferry tenants migrate {schema.removeprefix(_SCHEMA)}'
        ) from None


async def build_walls(session: TenantSession, found: Walls, *, with_login: bool) -> None:
    """Build the tenant's walls, as far as this login can. In a transaction of the tables' owner.

    Existing roles are kept; new ones get new names, because another store on the server may have copied the old names.
    `with_login`: also create a login for the tenant, which needs a server that trusts whoever reaches it.
    """
    conn, schema = session.conn, tenant_schema(session.tenant)
    names = found.names
    if names is None or (found.may_create_roles and not {names.reader, names.writer} <= found.there):
        names, found = (
            await _new_names(conn, session.tenant),
            Walls(names=None, may_create_roles=found.may_create_roles, is_superuser=found.is_superuser),
        )
        comment = json.dumps({_KEY: names._asdict()})
        await conn.execute(_statement("record", schema=sql.Identifier(schema), comment=sql.Literal(comment)))
    await _guard(session)
    if found.may_create_roles:
        await _create_roles(conn, names, found, with_login=with_login)
    elif not {names.reader, names.writer} <= found.ours:
        return
    await _grant(conn, schema, names, with_login=with_login)


async def _new_names(conn: AsyncConnection[Any], tenant: str) -> RoleNames:
    row = await (await conn.execute(_SQL["suffix"])).fetchone()
    assert row is not None
    return RoleNames(*(f"cf_{kind}_{tenant[:_OF_NAME]}_{row[0]}" for kind in "rwl"))


async def _create_roles(conn: AsyncConnection[Any], names: RoleNames, found: Walls, *, with_login: bool) -> None:
    for role in names[:2]:
        if role not in found.existing:
            await conn.execute(_statement("create_role", role=sql.Identifier(role)))
        if not found.is_superuser and role not in found.ours:
            await conn.execute(_statement("grant_role", role=sql.Identifier(role), login=sql.SQL("CURRENT_USER")))
    if with_login and names.login not in found.existing:
        login = sql.Identifier(names.login)
        await conn.execute(_statement("create_login", role=login))
        for role in names[:2]:
            await conn.execute(_statement("grant_role", role=sql.Identifier(role), login=login))


async def _guard(session: TenantSession) -> None:
    """Guard every table of the schema that is not, but for the one that COPY goes to."""
    schema = tenant_schema(session.tenant)
    rows = await _about_guards(session.conn, "tables", schema)
    bare = [name for name, is_partition, is_guarded in rows if not is_partition and not is_guarded]
    tenant = sql.Literal(session.tenant)
    statements = [_statement("guard", table=sql.Identifier(schema, name), tenant=tenant) for name in bare]
    statements += [
        _statement("guard_added", table=sql.Identifier(schema, name), condition=_unsealed(schema, name))
        for name in bare
        if name in _ADDED
    ]
    if statements:
        await session.conn.execute(sql.SQL(";").join(statements))


async def _grant(conn: AsyncConnection[Any], schema: str, names: RoleNames, *, with_login: bool) -> None:
    roles = {"reader": sql.Identifier(names.reader), "writer": sql.Identifier(names.writer)}
    event = sql.Identifier(schema, _EVENT)
    await conn.execute(_statement("enter", schema=sql.Identifier(schema), event=event, **roles))
    statement = _statement("grants", granted=sql.SQL(_SQL["granted"]))
    rows = await (await conn.execute(statement, _granted(schema, names))).fetchall()
    await conn.execute(sql.SQL(";").join(sql.SQL(row[0]) for row in rows))
    await lock_shared_rights(conn)
    row = await (await conn.execute(_SQL["shared_rights"], names._asdict())).fetchone()
    temporary, database, limit = row or (False, "", False)
    if temporary:
        await conn.execute(_statement("grant_temporary", database=sql.Identifier(database), writer=roles["writer"]))
    if limit and with_login:
        await conn.execute(_statement("grant_limit", reader=roles["reader"]))
    if with_login:  # nobody else uses this server; on a shared one its administrator decides (docs/store.md)
        await conn.execute(_statement("revoke_temporary", database=sql.Identifier(database)))


async def lock_shared_rights(conn: AsyncConnection[Any]) -> None:
    """Keep others from changing the rights that all tenants share, until the end of the transaction."""
    await conn.execute(_SQL["lock"])


def _statement(name: str, **parts: sql.Composable) -> sql.Composed:
    return sql.SQL(_SQL[name]).format(**parts)
