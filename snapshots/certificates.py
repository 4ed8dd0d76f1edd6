"""Stores certificates: one row per proof, with findings as JSON that names patients only by their hash.

`connectors.fhir.prove.prove` does the comparison; `proof_session` reads what the store holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from psycopg import AsyncConnection

from snapshots.proof import Certificate, Finding, TypeProof
from snapshots.sql import load

_SQL = load("certificates")


async def keep(conn: AsyncConnection[Any], connection: int, certificate: Certificate) -> None:
    """Keep a certificate beside the run that it proves. In a tenant's transaction."""
    body = asdict(certificate)
    for column in ("at", "connection", "run"):
        del body[column]
    values = {"run": certificate.run, "made_at": certificate.at, "body": orjson.dumps(body).decode()}
    await conn.execute(_SQL["save"], {"connection": connection, **values})


async def certificates_of(conn: AsyncConnection[Any], runs: Sequence[int]) -> Mapping[int, list[Certificate]]:
    """Return the certificates of these runs, oldest first. In a tenant's transaction."""
    found: dict[int, list[Certificate]] = defaultdict(list)
    async for run, connection, at, body in await conn.execute(_SQL["of_runs"], {"runs": list(runs)}):
        types = [TypeProof(**one) for one in body.pop("types")]
        findings = [Finding(**one) for one in body.pop("findings")]
        found[run].append(Certificate(at=at, connection=connection, run=run, types=types, findings=findings, **body))
    return found
