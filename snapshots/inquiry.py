"""Checks that the store exists and that we may use it: step by step, with what was found and what to do. Writes nothing.

An embedded store needs its directory; a server needs a login, a version, an encoding and the right to make schemas.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from psycopg import AsyncConnection

from snapshots.actor import Actor
from snapshots.errors import MissingRightsError, StoreError, StoreKeyError, describe_server, store_border
from snapshots.migrate import migrations, version_of
from snapshots.rights import Rights, require_making, require_reading, require_writing, rights_of
from snapshots.sealed_values import Keyring
from snapshots.sealing_keys import require_fitting
from snapshots.sessions import ENCODING, check_server, connect, settings_that_log
from snapshots.store_url import embedded_directory, store_exists
from snapshots.tenancy import TenantSession, tenant_schema
from snapshots.walls import Walls, find_breaches, find_walls

_HUNDRED = 100


class StoreStep(NamedTuple):
    """The result of one step."""

    name: str  # "login" | "server" | "log" | "rights" | "walls" | "keys" | "directory"
    verdict: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


async def inquire_store(url: str, tenants: list[str], keyring: Keyring | None = None) -> list[StoreStep]:
    """Return the steps of a store; the last is a "fail" if they ended early. `keyring`: the configured keys."""
    directory = embedded_directory(url)
    if directory is not None:
        return [_directory(directory, is_there=store_exists(url))]
    steps: list[StoreStep] = []
    name = "login"
    try:
        conn = await connect(url)
        try:
            steps.append(StoreStep(name, "ok", describe_server(url)))
            name = "server"
            await check_server(conn, url)
            version = conn.info.server_version
            steps.append(StoreStep(name, "ok", f"Postgres {version // 10000}.{version % _HUNDRED}, {ENCODING}"))
            name = "log"
            steps.append(await _log(conn))
            name = "rights"
            for tenant in tenants:
                steps.extend(await _rights(conn, tenant))
                steps.extend(await _keys(conn, tenant, keyring))
        finally:
            await conn.close()
    except MissingRightsError as error:
        steps.append(StoreStep(name, "fail", "this login lacks a right", str(error)))
    except StoreError as error:
        steps.append(StoreStep(name, "fail", str(error)))
    return steps


async def _log(conn: AsyncConnection[Any]) -> StoreStep:
    with store_border("checking what the server logs"):
        found = await settings_that_log(conn)
    if not found:
        return StoreStep("log", "ok", "errors leave no values of patients in the server's log")
    return StoreStep(
        "log",
        "warn",
        "if a statement fails, patients' values may reach the server's log",
        f'a superuser must run: GRANT SET ON PARAMETER {", ".join(found)} TO "{conn.info.user}"; or protect that log like charts',
    )


async def _rights(conn: AsyncConnection[Any], tenant: str) -> list[StoreStep]:
    """Raise MissingRightsError, with the GRANT, if a right is missing."""
    schema = tenant_schema(tenant)
    with store_border("checking what this login may do"):
        walls = await find_walls(conn, schema)
        session = TenantSession(conn=conn, tenant=tenant, actor=Actor(name="config check"), roles=walls.roles)
        found = await rights_of(conn, schema, session.roles)
        if not found.there or (
            found.owns_tables and not found.owns_schema
        ):  # a foreign schema without tables of chartferry
            await require_making(session, found)
            summary = f"{found.login} may read and write; the first sync creates {schema}"
        else:
            await require_reading(session, found)
            await require_writing(session)
            summary = f"{found.login} may read and write {schema}"
        breaches = await find_breaches(conn, schema, walls)
    return [StoreStep("rights", "ok", summary), _walls(schema, walls, found, breaches)]


async def _keys(conn: AsyncConnection[Any], tenant: str, keyring: Keyring | None) -> list[StoreStep]:
    """Whether the keys fit; unknown for a schema that must first be created or upgraded."""
    schema = tenant_schema(tenant)
    with store_border("checking whether the keys fit"):
        roles = (await find_walls(conn, schema)).roles
        session = TenantSession(conn=conn, tenant=tenant, actor=Actor(name="config check"), roles=roles)
        if await version_of(session, schema) != len(migrations()):
            return []
        try:
            is_encrypted = await require_fitting(session, keyring)
        except StoreKeyError as error:
            return [StoreStep("keys", "fail", str(error))]
    if is_encrypted:
        return [StoreStep("keys", "ok", f"{schema} is encrypted, and the keys fit")]
    return [StoreStep("keys", "ok", f"{schema} has no charts yet: they will be encrypted")] if keyring else []


def _walls(schema: str, walls: Walls, found: Rights, breaches: Sequence[str]) -> StoreStep:
    if breaches:
        return StoreStep(
            "walls",
            "warn",
            f"{schema}: somebody has opened them",
            f"the owner, or a superuser, must run: {'; '.join(breaches)}",
        )
    if walls.stand and walls.names is not None:
        if None not in walls.roles:
            return StoreStep(
                "walls", "ok", f"{schema}: it reads as {walls.names.reader}, and writes as {walls.names.writer}"
            )
        return StoreStep("walls", "ok", f"{schema}: they stand; {found.login} uses its own rights where it has no role")
    if walls.can_be_built:
        return StoreStep("walls", "ok", f"the owner's first command builds those of {schema}")
    summary = f"{schema} is separated from other tenants only by chartferry's own statements"
    if walls.names is None:
        advice = (
            f"{found.login} may not create roles: sync once, which creates the schema; then this check prints the statements "
            "that a superuser must run"
        )
        return StoreStep("walls", "warn", summary, advice)
    reader, writer = walls.names[:2]
    made = "".join(f'CREATE ROLE "{role}" NOINHERIT; ' for role in (reader, writer) if role not in walls.existing)
    granted = (
        f'GRANT "{reader}", "{writer}" TO "{found.login}"; GRANT TEMPORARY ON DATABASE "{found.database}" TO "{writer}"'
    )
    advice = f"a superuser must run: {made}{granted}; then the owner must run any command"
    return StoreStep("walls", "warn", summary, advice)


def _directory(directory: Path, *, is_there: bool) -> StoreStep:
    nearest = next(each for each in (directory, *directory.resolve().parents) if each.exists())
    if not os.access(nearest, os.W_OK | os.X_OK) or not nearest.is_dir():
        advice = 'choose another folder with store.url = "embedded:DIR"'
        return StoreStep("directory", "fail", f"{nearest} cannot be written by this user", advice)
    return StoreStep(
        "directory", "ok", f"embedded Postgres in {directory}" + ("" if is_there else ", created by the first sync")
    )
