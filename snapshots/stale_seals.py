"""Rows that are not encrypted as they would be today: with an older key, or with plain elements that a path now names.

`rotation` finds them in all tables. A run re-encrypts those that it is about to compare; otherwise the same content with
its keys in another order would count as new.
"""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection

from snapshots.errors import SealedValueError
from snapshots.sealed_values import Sealer
from snapshots.sealing import resealed_row
from snapshots.sql import load

_SQL = load("ingest")


def patterns(sealer: Sealer) -> dict[str, str | None]:
    r"""Return regular expressions for what such a row has; `further` finds all that may.

    It is of JSON with resources of these types: a rival's text can have letters as \u0072.
    """
    types = f'"resourceType"\\s*:\\s*"({"|".join(sealer.further)})"|\\\\u' if sealer.further else None
    return {"older": f"~sealed:1:(?!{sealer.current}:)", "further": types}


async def seal_stale(conn: AsyncConnection[Any], keys: dict[str, Any], sealer: Sealer) -> None:
    """Re-encrypt live resources with these types and ids; what no key opens stays as it is. In the run's transaction."""
    types, ids, bodies = [], [], []
    async for kind, id_, text in await conn.execute(_SQL["stale"], {**keys, **patterns(sealer)}):
        given = text.encode()
        try:
            sealed = resealed_row(given, kind, id_, sealer)
        except SealedValueError:
            continue
        if sealed != given:
            types.append(kind)
            ids.append(id_)
            bodies.append(sealed.decode())
    if bodies:
        await conn.execute(_SQL["seal_stale"], {**keys, "types": types, "ids": ids, "bodies": bodies})
