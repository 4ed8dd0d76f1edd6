"""Shorthand of these tests: records, scopes, and a look into the tables."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import orjson
import psycopg

from snapshots.ledger import OpenRun
from snapshots.record import Batch, Record, RunReport, RunScope, Unit, UnitResult, UnitState

SCHEMA = "tenant_default"


def record(
    identity: str,
    content: object = None,
    *,
    kind: str = "Observation",
    patient: str | None = "p1",
    updated: str | None = None,
    unit: str | None = None,
) -> Record:
    """A record; `content` is a body as bytes, or a value put under "value"."""
    document = {"resourceType": kind, "id": identity, "value": content}
    body = content if isinstance(content, bytes) else orjson.dumps(document)
    return Record(kind, identity, patient, None, updated, blake2b(body, digest_size=16).digest(), body, unit)


def scope(**changes: Any) -> RunScope:
    given: dict[str, Any] = {"connection": "mercy", "kind": "sync", "mode": "crawl", "selection": "all", "types": ()}
    return RunScope(**{**given, **changes})


def search(kind: str = "Observation", patient: str | None = "p1", split: str = "", **detail: Any) -> Unit:
    key = f"search:{kind}:{patient or 'all'}:{split}"
    return Unit(key=key, kind="search", resource_type=kind, patient_id=patient, detail=detail)


def settled(unit: Unit, *, complete: bool = True, records: int = 0) -> UnitResult:
    return UnitResult(key=unit.key, state=UnitState.SETTLED, complete_listing=complete, records=records)


def failed(unit: Unit, reason: str = "HTTP 500") -> UnitResult:
    return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason)


async def full_run(
    run: OpenRun,
    records: list[Record],
    units: list[Unit],
    *,
    results: list[UnitResult] | None = None,
    watermark: str | None = None,
) -> RunReport:
    """Plan, write everything in one batch, finish and close."""
    async with run:
        await run.plan(units)
        ended = [settled(unit) for unit in units] if results is None else results
        await run.write(Batch(records=records, results=ended))
        return await run.finish(watermark=watermark, requests=1, retries=0)


def rows(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Look into the default tenant's tables."""
    with psycopg.connect(url, autocommit=True, options=f"-c search_path={SCHEMA}") as conn:
        return conn.execute(query, values).fetchall()


def execute(url: str, statement: str) -> None:
    """Change the default tenant's tables behind the store's back."""
    with psycopg.connect(url, autocommit=True, options=f"-c search_path={SCHEMA}") as conn:
        conn.execute(statement)


def live(url: str) -> set[str]:
    return {row[0] for row in rows(url, "SELECT id FROM resource WHERE deleted_at IS NULL")}
