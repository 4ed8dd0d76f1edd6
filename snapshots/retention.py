"""Deletes what is old enough: replaced versions, quarantined input, and units. Never the present, a tombstone, or a run.

Each run's part is one transaction with its event in the audit, so an interrupted call loses nothing, and the next one continues.
The first run whose history is kept is noted before anything is deleted; from then on `opening` refuses every earlier moment. The
audit is pruned separately (`audit`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import LiteralString, NamedTuple

from snapshots.audit import seal
from snapshots.audit_event import Action
from snapshots.errors import store_border
from snapshots.reading import WhatWasRead, note
from snapshots.rights import require_owning
from snapshots.sql import load
from snapshots.tenancy import TenantSession

_SQL = load("retention")
_DUE = _SQL["due"]
_DUE_QUARANTINE = _DUE.replace("%(before)s", "%(quarantine)s::timestamptz")


class _Part(NamedTuple):
    """A kind of rows: which runs have some that are old, and how they are counted and deleted, table by table."""

    tables: tuple[str, ...]
    runs: LiteralString
    counted: LiteralString
    deleted: LiteralString


_HISTORY = _Part(
    ("resource_history", "member_history", "attachment_use_history", "attachment"),
    _SQL["replaced_by"].replace("{due}", _DUE),
    _SQL["count_replaced"],
    _SQL["delete_replaced"],
)
_QUARANTINE = _Part(
    ("quarantine",), _SQL["quarantined_by"].replace("{due}", _DUE), _SQL["count_quarantine"], _SQL["delete_quarantine"]
)
_UNITS = _Part(
    ("unit",),
    _SQL["asked_by"].replace("{due}", _DUE).replace("{due_quarantine}", _DUE_QUARANTINE),
    _SQL["count_units"],
    _SQL["delete_units"],
)


class Pruned(NamedTuple):
    """What was deleted, or would be."""

    rows: Mapping[str, int]  # by table, those without any left out
    kept_from: Mapping[str, int]  # by connection whose kept history has become shorter: the first run that can be read


async def prune(
    session: TenantSession,
    *,
    history: datetime | None,
    quarantine: datetime | None,
    runs: datetime | None,
    dry_run: bool = False,
) -> Pruned:
    """Delete what no moment since `history` needs, and of runs that had ended by then quarantined input and units.

    None: nothing of it. The session is the owner's. `Store.prune` says what it raises.
    """
    rows, kept_from = Counter[str](), {}
    with store_border("pruning the store"):
        await require_owning(session, "prune")
        if history is not None:
            kept_from = await _keep_from(session, history, dry_run=dry_run)
            rows += await _of_runs(session, _HISTORY, history, dry_run=dry_run)
        if quarantine is not None:
            rows += await _of_runs(session, _QUARANTINE, quarantine, dry_run=dry_run)
        if runs is not None:
            rows += await _of_runs(session, _UNITS, runs, quarantine=quarantine, dry_run=dry_run)
    await seal(session)
    return Pruned(dict(sorted(rows.items())), kept_from)


async def _keep_from(session: TenantSession, before: datetime, *, dry_run: bool) -> dict[str, int]:
    async with session.transaction():
        query = _SQL["newest_before"].replace("{due}", _DUE)
        found = await (await session.conn.execute(query, {"before": before})).fetchall()
        for connection, _, run in () if dry_run else found:
            await session.conn.execute(_SQL["keep_from"], {"connection": connection, "run": run})
    return {name: run for _, name, run in found}


async def _of_runs(
    session: TenantSession, part: _Part, before: datetime, *, quarantine: datetime | None = None, dry_run: bool
) -> Counter[str]:
    """Delete, or count, run by run; return the number of rows by table. `quarantine`: as of `prune`, which deletes that first."""
    total = Counter[str]()
    async with session.transaction():
        values = {"before": before, "quarantine": quarantine}
        found = await (await session.conn.execute(part.runs, values)).fetchall()
    for run, connection in found:
        async with session.transaction():
            query = part.counted if dry_run else part.deleted
            counts = await (await session.conn.execute(query, {"run": run})).fetchone()
            deleted = Counter({table: count for table, count in zip(part.tables, counts or (), strict=True) if count})
            if deleted and not dry_run:
                await note(session, Action.PRUNE, WhatWasRead(connections=[connection], runs=[run]), erased=deleted)
        total += deleted
    return total
