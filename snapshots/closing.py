"""How a run ends: tombstones for what vanished, watermarks, status. One transaction, after all data has committed.

What was received and how units ended is the ledger's; what the report says of it is `reports`'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from psycopg import AsyncConnection, Rollback

from snapshots.ingest import is_older
from snapshots.roster import end_of_crawl
from snapshots.run_session import OpenScope
from snapshots.sql import load

_SQL = load("closing")
_LEDGER = load("ledger")
_ROSTER = load("roster")
_CATEGORY = "category="
EVERYONE = "all"  # the selection of a crawl that lists every patient itself
ALL_TYPES = "*"  # a unit that belongs to no one type; a `since` that holds for every type

# A listing that has lost half of what is stored tells of a broken EHR, a token that sees less or a changed filter more
# often than of deletions: it must be said twice before it is believed. Below MASS rows a half is soon reached by chance.
MASS = 20

NOTHING_HELD_BACK: Mapping[str, str] = MappingProxyType({})


class _TypeEnd(NamedTuple):
    """How the units of one type ended."""

    resource_type: str
    settled: bool  # but for patients of whom a lag will tell
    listed: bool
    some_listed: bool
    as_a_whole: bool
    doubtful: bool
    splits: list[str | None] | None

    @property
    def categories(self) -> list[str] | None:
        """The categories that searches were narrowed to; None: at least one was not, or not by category."""
        codes = [split[len(_CATEGORY) :] for split in self.splits or () if split and split.startswith(_CATEGORY)]
        if not codes or len(codes) < len(self.splits or ()):
            return None
        return [one.rpartition("|")[2] for code in codes for one in code.split(",")]


class _Departed(NamedTuple):
    """Patients that are no patients of their own any more: deleted, or led to a survivor."""

    ended: list[str]
    formers: list[str]
    survivors: list[str]


def run_status(*, settled: int, failed: int, quarantined: int) -> str:
    """Decide a run's status from how its units ended: only a run without hole and without quarantine is complete."""
    if not settled and not failed:
        return "nothing" if not quarantined else "failed"
    if not failed and not quarantined:
        return "complete"
    return "partial" if settled else "failed"


def is_mass(gone: int, there: int) -> bool:
    """Whether so much of a type has vanished at once that one listing is not believed."""
    return gone >= MASS and gone * 2 >= there


def since_of(since: Mapping[str, str], resource_type: str) -> str | None:
    """Give the instant that a type was asked from; None: it was listed in full."""
    return since.get(resource_type) or since.get(ALL_TYPES) or None


def movable(since: str | None, watermark: str | None) -> bool:
    """Whether a type that was asked from `since` may move its watermark: not if that leaves a gap behind it."""
    return since is None or (watermark is not None and (since == watermark or is_older(since, watermark)))


async def close_run(
    conn: AsyncConnection[Any],
    closing: OpenScope,
    *,
    watermark: str | None,
    requests: int,
    retries: int,
    notes: Sequence[str],
    held_back: Mapping[str, str] = NOTHING_HELD_BACK,
) -> None:
    """Tombstone, move watermarks and lags, decide the status. The caller holds the transaction.

    A type's watermark moves no further than `held_back` says.
    """
    run = {"run": closing.run}
    await conn.execute(_SQL["plan_freely"])
    await conn.execute(_SQL["close_pending"], run)
    ends = [_TypeEnd(*row) async for row in await conn.execute(_SQL["types"], run)]
    await _tombstone(conn, closing, ends)
    patients = await _number(conn, "patients", {**run, "connection": closing.connection})
    settled, failed, quarantined = await _endings(conn, closing.run)
    status = run_status(settled=settled, failed=failed, quarantined=quarantined)
    if watermark is not None:
        await _move_watermarks(conn, closing, ends, watermark, held_back, without_holes=status == "complete")
        await end_of_crawl(conn, closing)
    full = status in {"complete", "partial"} and not closing.scope.since and any(end.some_listed for end in ends)
    await _close(
        conn,
        closing.run,
        status=status,
        requests=requests,
        retries=retries,
        notes=notes,
        patients=patients,
        full_listing=full and not await _number(conn, "leaves_a_gap", run),
    )


async def fail_run(
    conn: AsyncConnection[Any], closing: OpenScope, *, reason: str, requests: int, retries: int, notes: Sequence[str]
) -> None:
    """Close a run as failed; nothing is tombstoned, no watermark moves. The caller holds the transaction."""
    patients = await _number(conn, "patients", {"run": closing.run, "connection": closing.connection})
    await _close(
        conn,
        closing.run,
        status="failed",
        requests=requests,
        retries=retries,
        notes=notes,
        patients=patients,
        full_listing=False,
        error=reason,
    )


async def _close(
    conn: AsyncConnection[Any],
    run: int,
    *,
    status: str,
    requests: int,
    retries: int,
    notes: Sequence[str],
    patients: int,
    full_listing: bool,
    error: str | None = None,
) -> None:
    values = {
        "run": run,
        "status": status,
        "requests": requests,
        "retries": retries,
        "notes": list(notes),
        "patients": patients,
        "full_listing": full_listing,
        "error": error,
    }
    await conn.execute(_LEDGER["forget_seen"], {"runs": [run]})
    await conn.execute(_SQL["close"], values)


async def _tombstone(conn: AsyncConnection[Any], closing: OpenScope, ends: Sequence[_TypeEnd]) -> None:
    """Only for types that were listed in full, and for patients that are gone; a pull speaks for its own patient alone."""
    departed = await _departed(conn, closing)
    everyone = any(end.resource_type == "Patient" and end.as_a_whole and end.listed for end in ends)
    doubts: dict[str, str] = {}
    for end in ends:
        if end.resource_type == ALL_TYPES or end.doubtful or not (end.some_listed or departed.ended):
            continue
        if since_of(closing.scope.since, end.resource_type) is not None:
            continue
        whole = end.as_a_whole or (everyone and closing.scope.selection == EVERYONE)
        values = {
            "run": closing.run,
            "connection": closing.connection,
            "selection": closing.scope.selection,
            "resource_type": end.resource_type,
            "whole": whole and end.listed and closing.scope.kind != "pull",
            "categories": end.categories,
            **departed._asdict(),
        }
        gone, doubt = await _vanished(conn, values)
        if doubt is not None:
            doubts[end.resource_type] = doubt
        elif gone:
            counted = {"run": closing.run, "types": [end.resource_type], "deleted": [gone]}
            await conn.execute(_LEDGER["count"], {**counted, "new": [0], "changed": [0], "unchanged": [0]})
    for resource_type, reason in doubts.items():  # after the loop: a hole would cast doubt on the other types' listings
        await conn.execute(_SQL["doubt"], {"run": closing.run, "resource_type": resource_type, "reason": reason})


async def _vanished(conn: AsyncConnection[Any], values: Mapping[str, Any]) -> tuple[int, str | None]:
    """Tombstone one type, unless so much vanished at once that the EHR must say so twice; give how much is gone, or why not."""
    doubt = None
    async with conn.transaction() as trial:
        row = await (await conn.execute(_SQL["tombstone"], values)).fetchone()
        gone, unexplained = row or (0, 0)
        if unexplained >= MASS:
            there = gone + await _number(conn, "live", values)
            if is_mass(unexplained, there) and not await _number(conn, "doubted_before", values):
                gone = 0
                doubt = (
                    f"{unexplained} of {there} stored were listed no more: kept as they are until another full listing says "
                    "so too; sync again"
                )
                raise Rollback(trial)
    return gone, doubt


async def _departed(conn: AsyncConnection[Any], closing: OpenScope) -> _Departed:
    own = {"run": closing.run, "connection": closing.connection}
    ended = [row[0] async for row in await conn.execute(_ROSTER["ended_patients"], own)]
    led = [row async for row in await conn.execute(_ROSTER["led_to_survivors"], own)]
    return _Departed(ended, [former for former, _ in led], [survivor for _, survivor in led])


async def _move_watermarks(
    conn: AsyncConnection[Any],
    closing: OpenScope,
    ends: Sequence[_TypeEnd],
    watermark: str,
    held_back: Mapping[str, str],
    *,
    without_holes: bool,
) -> None:
    if await _number(conn, "blocks_all", {"run": closing.run}):
        return
    own = {"connection": closing.connection, "selection": closing.scope.selection}
    before = {row[0]: row[1] async for row in await conn.execute(_LEDGER["watermarks"], own)}
    complete = {end.resource_type for end in ends if end.settled and not end.doubtful} - {ALL_TYPES}
    if without_holes and ends:  # a type that was asked for and of which there is nothing has no unit in a bulk run
        complete |= set(closing.scope.types)
    types = sorted(one for one in complete if movable(since_of(closing.scope.since, one), before.get(one)))
    instants = [held_back[one] if is_older(held_back.get(one), watermark) else watermark for one in types]
    await conn.execute(_SQL["move_watermark"], {**own, "types": types, "instants": instants, "run": closing.run})


async def _number(conn: AsyncConnection[Any], query: str, values: Mapping[str, Any]) -> int:
    row = await (await conn.execute(_SQL[query], values)).fetchone()
    return int(row[0]) if row else 0


async def _endings(conn: AsyncConnection[Any], run: int) -> tuple[int, int, int]:
    row = await (await conn.execute(_SQL["endings"], {"run": run})).fetchone()
    return row or (0, 0, 0)
