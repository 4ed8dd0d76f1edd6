"""Judges, when a run ends, the rows that it missed or heard of, in three stages.

The store says in which circumstances they are, `fates` (pure) decides what is believed of each circumstance, and the store does
what follows: tombstones, open questions, ways that no longer list a row, holes. `evidence` collects; `closing` moves watermarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from snapshots.evidence import masses, missed_any
from snapshots.fates import Circumstance, Open, decided, told
from snapshots.sql import load
from snapshots.witness import Said

_SQL = load("judgement")
_EFFECTS = ("forget", "remember", "unmerge_doubted", "unlist", "strike_off")


class Judged(NamedTuple):
    """The verdict about the rows that a run missed."""

    buried: Mapping[str, int]  # tombstones by type
    notes: Sequence[str]


async def judge(conn: AsyncConnection[Any], own: Mapping[str, Any], *, is_pull: bool, at: datetime) -> Judged:
    """Decide what to believe about each missed row, and store it. The caller holds the transaction."""
    if not await missed_any(conn, own):
        return Judged({}, ())
    circumstances = await _circumstances(conn, own)
    fates = decided(circumstances, is_pull=is_pull)
    await conn.execute(_SQL["note_fates"], {**own, "fates": list(fates)})
    buried = {row[0]: row[1] async for row in await conn.execute(_SQL["bury"], {**own, "at": at})}
    for effect in _EFFECTS:
        await conn.execute(_SQL[effect], own)
    holes, notes = told(circumstances, fates)
    for hole in holes:
        await conn.execute(
            _SQL["doubt"],
            {**own, "key": hole.key, "resource_type": hole.resource_type, "reason": hole.reason, "at": at},
        )
    return Judged(buried, notes)


async def _circumstances(conn: AsyncConnection[Any], own: Mapping[str, Any]) -> list[Circumstance]:
    """Find in which circumstances rows are: a few dozen, however many rows were missed."""
    found = await masses(conn, own)
    controlled = [row[0] async for row in await conn.execute(_SQL["controlled"], own)]
    await conn.execute(_SQL["circumstances"], {**own, **found.columns, "controlled": controlled})
    return [_circumstance(Circumstance(*row)) async for row in await conn.execute(_SQL["alike"])]


def _circumstance(read: Circumstance) -> Circumstance:
    return read._replace(said=read.said and Said(read.said), before=read.before and Open(read.before))


async def lower(conn: AsyncConnection[Any], own: Mapping[str, Any], *, full: bool) -> None:
    """Withdraw what selections know about patients and types that this run has put in doubt. The caller holds the transaction."""
    await conn.execute(_SQL["lower"], {**own, "full": full})


async def empty(conn: AsyncConnection[Any], runs: Sequence[int]) -> None:
    """Forget the statements that these runs received. The caller holds the transaction."""
    await conn.execute(_SQL["empty"], {"runs": list(runs)})
