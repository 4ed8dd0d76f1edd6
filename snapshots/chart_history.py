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


async def chart_history(conn: AsyncConnection[Any], connection: str, patient: str) -> list[ChartChange]:
    """Return the changes, oldest first. In a tenant's transaction."""
    found = await conn.execute(_SQL["chart_history"], {"connection": connection, "patient": patient})
    return [ChartChange(*row) async for row in found]
