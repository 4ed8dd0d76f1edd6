"""Reads what runs did to one patient's chart; `reader` can show the chart as of each of these runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from snapshots.sql import load

_SQL = load("chart_history")


class ChartChange(NamedTuple):
    """What one run did to the chart's resources of one type, in resources."""

    run: int
    began: datetime
    resource_type: str
    new: int
    changed: int
    deleted: int


class ChartHistory(NamedTuple):
    """What runs did to the chart."""

    changes: tuple[ChartChange, ...]  # oldest first
    kept_from: int | None  # what earlier runs did was pruned; None: it is all there


async def chart_history(conn: AsyncConnection[Any], connection: str, patient: str) -> ChartHistory:
    """Return the changes. In a tenant's transaction."""
    values = {"connection": connection, "patient": patient}
    kept = await (await conn.execute(_SQL["kept_from"], values)).fetchone()
    changes = [ChartChange(*row) async for row in await conn.execute(_SQL["chart_history"], values)]
    return ChartHistory(tuple(changes), kept[0] if kept else None)
