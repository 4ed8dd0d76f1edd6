"""Finds a patient in what only the tenant's keys open: values and quarantined input. `erasure` finds all else by SQL.

What no key opens, since it is damaged or its key is not configured, cannot be searched: it is named, and left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection

from snapshots.errors import SealedValueError
from snapshots.sealed_values import Place, Sealer
from snapshots.sealing import opened_input, values_of
from snapshots.sql import load

_SQL = load("erasure")
_AT_ONCE = 20  # rows in memory: some have documents of megabytes
_DOCUMENT = "/data"  # base64, in which a plain store finds nothing either


async def find_sealed(conn: AsyncConnection[Any], values: Mapping[str, Any], sealer: Sealer) -> list[str]:
    """Add the resources of the connection in which an encrypted value refers to the patient to those that are erased.

    A narrative does, or an extension. It decrypts every value of the connection but documents, and those of resources that are
    erased anyway. Return the values that cannot be searched, of resources that stay.
    """
    trace = re.compile(str(values["trace"]))
    found, unread = set[tuple[str, str]](), dict[Place, str]()
    async with conn.cursor(name="sealed") as cursor:
        await cursor.execute(_SQL["sealed"], values)
        while rows := await cursor.fetchmany(_AT_ONCE):
            for kind, id_, body in rows:
                for pointer, opened in values_of(body.encode(), kind, sealer):
                    if pointer.endswith(_DOCUMENT):
                        continue
                    try:
                        plain = opened().decode()
                    except SealedValueError:
                        place = Place(kind, id_, pointer)
                        unread[place] = _name(place, sealer)
                        continue
                    if trace.search(plain):
                        found.add((kind, id_))
    if found:
        types, ids = zip(*sorted(found), strict=True)
        await conn.execute(_SQL["add_keys"], {"types": list(types), "ids": list(ids)})
    return [name for place, name in unread.items() if (place.kind, place.id) not in found]


async def forget_input(conn: AsyncConnection[Any], values: Mapping[str, Any], sealer: Sealer) -> tuple[int, list[str]]:
    """Delete quarantined input of the connection that names the patient; return how many rows, and what cannot be searched."""
    named = re.compile(str(values["named_in_latin1"]))
    runs, digests, unread = [], [], []
    async with conn.cursor(name="input") as cursor:
        await cursor.execute(_SQL["sealed_input"], values)
        while rows := await cursor.fetchmany(_AT_ONCE):
            for run, digest, source, raw in rows:
                try:
                    plain = opened_input(bytes(raw), source, sealer).decode("latin-1")
                except SealedValueError:
                    unread.append(_name(Place("quarantine", bytes(digest).hex(), ""), sealer))
                    continue
                if named.search(plain):
                    runs.append(run)
                    digests.append(digest)
    deleted = (await conn.execute(_SQL["forget_input"], {"runs": runs, "digests": digests})).rowcount if runs else 0
    return deleted, unread


def _name(place: Place, sealer: Sealer) -> str:
    return sealer.name_of(place).rstrip(",")
