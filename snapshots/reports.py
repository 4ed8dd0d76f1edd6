"""Builds the `RunReport` of a run from the ledger: of a finished run, or of an open one so far.

Patients appear as keyed hashes: an engineer with the database can find the patient, a reader of the report cannot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from snapshots.certificates import certificates_of
from snapshots.report import Claim, Hole, RunReport
from snapshots.sql import load
from snapshots.unit import Ending, UnitKind

_SQL = load("reports")
_HASH_DIGITS = 8


def patient_hash(secret: UUID, patient_id: str) -> str:
    """Return the 8 hexadecimal digits that name a patient in this tenant's reports."""
    return blake2b(patient_id.encode(), key=secret.bytes, digest_size=_HASH_DIGITS // 2).hexdigest()


def hole_scope(secret: UUID, unit: Mapping[str, Any]) -> str:
    """Name what a unit would have fetched: "patient ~3f2a9c41, category=laboratory", "Observation file 3", "read 2".

    `unit` is a row of `holes`. Its kind is of `UnitKind`, or one that an earlier chartferry had; `nth` counts the run's units of
    this kind.
    """
    kind, patient_id, nth = unit["kind"], unit["patient_id"], unit["nth"]
    if kind == UnitKind.ATTACHMENT:
        document = f"document {nth}"
        return (
            document if unit["of_chart"] is None else f"patient ~{patient_hash(secret, unit['of_chart'])}, {document}"
        )
    if patient_id is None:
        return unit["template"] or f"{kind} {nth}"
    named = f"patient ~{patient_hash(secret, patient_id)}"
    return f"{named}, {unit['split']}" if unit["split"] else named


async def recent_runs(conn: AsyncConnection[Any], *, limit: int, connection: str | None) -> list[int]:
    """Return the numbers of the newest runs, newest first. In a tenant's transaction."""
    found = await conn.execute(_SQL["recent"], {"limit": limit, "connection": connection})
    return [row[0] async for row in found]


async def patient_ids(conn: AsyncConnection[Any], connection: str) -> list[str]:
    """Return the ids of a connection's live patients, in order. In a tenant's transaction."""
    found = await conn.execute(_SQL["patient_ids"], {"connection": connection})
    return [row[0] async for row in found]


async def reports(conn: AsyncConnection[Any], runs: Sequence[int]) -> list[RunReport]:
    """Return the reports of these runs, newest first; unknown numbers are left out. In a tenant's transaction."""
    wanted = {"runs": list(runs)}
    holes = await _holes(conn, wanted)
    resources: dict[int, dict[str, int]] = defaultdict(dict)
    totals: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    async for run, resource_type, *counts in await conn.execute(_SQL["counts"], wanted):
        totals[run] = [total + count for total, count in zip(totals[run], counts, strict=True)]
        if received := sum(counts[:3]):
            resources[run][resource_type] = received
    certificates = await certificates_of(conn, runs)
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SQL["runs"], wanted)
        found = await cursor.fetchall()
    return [
        RunReport(
            **{
                **row,
                "seconds": round(max(row["seconds"], 0.0), 3),
                "claims": tuple(Claim(**claim) for claim in row["claims"]),
                **dict(zip(("new", "changed", "unchanged", "deleted"), totals[row["id"]], strict=True)),
            },
            resources=resources[row["id"]],
            holes=holes[row["id"]],
            certificates=certificates.get(row["id"], ()),
        )
        for row in found
    ]


async def _holes(conn: AsyncConnection[Any], wanted: dict[str, list[int]]) -> dict[int, list[Hole]]:
    row = await (await conn.execute(_SQL["report_key"])).fetchone()
    secret: UUID = row[0] if row else UUID(int=0)
    holes: dict[int, list[Hole]] = defaultdict(list)
    async with conn.cursor(row_factory=dict_row) as cursor:
        async for unit in await cursor.execute(_SQL["holes"], wanted):
            holes[unit["run"]].append(
                Hole(
                    resource_type=unit["resource_type"],
                    scope=hole_scope(secret, unit),
                    reason=unit["reason"] or "no reason was given",
                    ending=Ending(unit["ending"] or Ending.FAILED),
                )
            )
    return holes
