"""Finds a patient in what only the tenant's keys open: values and quarantined input. `erasure` finds all else by SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection

from snapshots.sealed_values import TOKEN, Sealer
from snapshots.sealing import opened_input
from snapshots.sql import load

_SQL = load("erasure")
_AT_ONCE = 500  # rows in memory
_DOCUMENT = b"/data"  # base64, in which a plain store finds nothing either


async def find_sealed(conn: AsyncConnection[Any], values: Mapping[str, Any], sealer: Sealer) -> None:
    """Add the resources of the connection in which an encrypted value refers to the patient to those that are erased.

    A narrative does, or an extension. It decrypts every value of the connection but documents. Raises SealedValueError.
    """
    trace = re.compile(str(values["trace"]))
    found: set[tuple[str, str]] = set()
    async with conn.cursor(name="sealed") as cursor:
        await cursor.execute(_SQL["sealed"], values)
        while rows := await cursor.fetchmany(_AT_ONCE):
            for kind, id_, body in rows:
                for token in TOKEN.finditer(body.encode()):
                    if not token[3].endswith(_DOCUMENT) and trace.search(sealer.unseal(token[0], kind)[0].decode()):
                        found.add((kind, id_))
    if found:
        types, ids = zip(*sorted(found), strict=True)
        await conn.execute(_SQL["add_keys"], {"types": list(types), "ids": list(ids)})


async def forget_input(conn: AsyncConnection[Any], values: Mapping[str, Any], sealer: Sealer) -> int:
    """Delete quarantined input of the connection that names the patient; return how many rows. Raises SealedValueError."""
    named = re.compile(str(values["named"]))
    runs, digests = [], []
    async with conn.cursor(name="input") as cursor:
        await cursor.execute(_SQL["sealed_input"], values)
        while rows := await cursor.fetchmany(_AT_ONCE):
            for run, digest, source, raw in rows:
                if named.search(opened_input(bytes(raw), source, sealer).decode("latin-1")):
                    runs.append(run)
                    digests.append(digest)
    if not runs:
        return 0
    return (await conn.execute(_SQL["forget_input"], {"runs": runs, "digests": digests})).rowcount
