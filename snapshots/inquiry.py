"""Checks that the store exists and that we may use it: step by step, with what was found and what to do. Writes nothing.

An embedded store needs its directory; a server needs a login, a version, an encoding and the right to make schemas.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

from psycopg import AsyncConnection

from snapshots.errors import MissingRightsError, StoreError, describe_server, store_border
from snapshots.rights import require_making, require_reading, require_writing, rights_of
from snapshots.sessions import ENCODING, check_server, connect
from snapshots.store_url import embedded_directory, store_exists
from snapshots.tenancy import tenant_schema

_HUNDRED = 100


class StoreStep(NamedTuple):
    """The result of one step."""

    name: str  # "login" | "server" | "rights" | "directory"
    verdict: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


async def inquire_store(url: str, tenants: list[str]) -> list[StoreStep]:
    """Return the steps of a store; the last is a "fail" if they ended early."""
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
            name = "rights"
            steps.extend([await _rights(conn, tenant) for tenant in tenants])
        finally:
            await conn.close()
    except MissingRightsError as error:
        steps.append(StoreStep(name, "fail", "this login may not do what is needed", str(error)))
    except StoreError as error:
        steps.append(StoreStep(name, "fail", str(error)))
    return steps


async def _rights(conn: AsyncConnection[Any], tenant: str) -> StoreStep:
    """Raise MissingRightsError, with the GRANT, if a right is missing."""
    schema = tenant_schema(tenant)
    with store_border("asking what this login may do"):
        found = await rights_of(conn, schema)
        if not found.there:
            await require_making(conn, schema, found)
            return StoreStep("rights", "ok", f"{found.role} may read and write; the first sync makes {schema}")
        await require_reading(conn, schema, found)
        await require_writing(conn, tenant)
    return StoreStep("rights", "ok", f"{found.role} may read and write {schema}")


def _directory(directory: Path, *, is_there: bool) -> StoreStep:
    nearest = next(each for each in (directory, *directory.resolve().parents) if each.exists())
    if not os.access(nearest, os.W_OK | os.X_OK) or not nearest.is_dir():
        advice = 'choose another folder with store.url = "embedded:DIR"'
        return StoreStep("directory", "fail", f"{nearest} cannot be written by this user", advice)
    return StoreStep(
        "directory", "ok", f"embedded Postgres in {directory}" + ("" if is_there else ", made by the first sync")
    )
