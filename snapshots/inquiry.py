"""Is the store there, and may we use it? One step after another, each with what was found and what to do. Writes nothing.

An embedded store needs its directory; a server a login, a version, an encoding and the right to make schemas.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

from snapshots.errors import StoreError, describe_server, store_border
from snapshots.pool import OLDEST_SERVER, connect, embedded_directory, store_exists
from snapshots.sql import load
from snapshots.tenancy import tenant_schema

_SQL = load("pool")
_HUNDRED = 100


class StoreStep(NamedTuple):
    """One thing that was tried."""

    name: str  # "login" | "version" | "encoding" | "rights" | "directory"
    verdict: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


async def inquire_store(url: str, tenants: list[str]) -> list[StoreStep]:
    """Give the steps of a store; the last is a "fail" where it ended early."""
    directory = embedded_directory(url)
    if directory is not None:
        return [_directory(directory, is_there=store_exists(url))]
    try:
        conn = await connect(url)
    except StoreError as error:
        return [StoreStep("login", "fail", str(error))]
    try:
        with store_border("asking the store what we may"):
            row = await (
                await conn.execute(_SQL["standing"], {"schemas": [tenant_schema(tenant) for tenant in tenants]})
            ).fetchone()
    except StoreError as error:
        return [StoreStep("login", "fail", str(error))]
    finally:
        await conn.close()
    assert row is not None
    version, user, database, encoding, may_create, missing, closed = row
    return [
        StoreStep("login", "ok", f"{describe_server(url)}"),
        StoreStep("version", "ok", f"Postgres {version // 10000}.{version % _HUNDRED}")
        if version // 10000 >= OLDEST_SERVER
        else StoreStep(
            "version",
            "fail",
            f"Postgres {version // 10000}",
            f'upgrade it to {OLDEST_SERVER} or newer, or use "embedded"',
        ),
        StoreStep("encoding", "ok", encoding)
        if encoding == "UTF8"
        else StoreStep(
            "encoding", "fail", f"{encoding} cannot hold FHIR", "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        ),
        _rights(user, database, may_create, missing, closed),
    ]


def _rights(user: str, database: str, may_create: bool, missing: list[str], closed: list[str]) -> StoreStep:
    if closed:
        grants = "; ".join(f'GRANT USAGE, CREATE ON SCHEMA {schema} TO "{user}"' for schema in closed)
        return StoreStep(
            "rights", "fail", f"{user} may not use {', '.join(closed)}", f"as the schema's owner: {grants}"
        )
    if missing and not may_create:
        advice = f'as the database\'s owner: GRANT CREATE ON DATABASE "{database}" TO "{user}"'
        return StoreStep("rights", "fail", f"{user} may not make the schema {missing[0]}", advice)
    made = f"; will make {', '.join(missing)}" if missing else ""
    return StoreStep("rights", "ok", f"{user} may read and write{made}")


def _directory(directory: Path, *, is_there: bool) -> StoreStep:
    nearest = next(each for each in (directory, *directory.resolve().parents) if each.exists())
    if not os.access(nearest, os.W_OK | os.X_OK) or not nearest.is_dir():
        advice = 'choose another folder with store.url = "embedded:DIR"'
        return StoreStep("directory", "fail", f"{nearest} cannot be written by this user", advice)
    return StoreStep(
        "directory", "ok", f"embedded Postgres in {directory}" + ("" if is_there else ", made by the first sync")
    )
