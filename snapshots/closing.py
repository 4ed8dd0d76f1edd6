"""Ends a run: decides about missed rows, moves watermarks, sets the status. One transaction, after all data have committed.

`judgement` knows what to believe of what was missed, `roster` keeps rosters and lags, the ledger has what was received and how
units ended, `reports` writes the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from snapshots import judgement
from snapshots.ingest import IngestState, Intake, settle_rivals
from snapshots.instants import instant, is_older, moment
from snapshots.report import Claim
from snapshots.roster import end_of_crawl, end_of_export
from snapshots.run_session import OpenScope
from snapshots.sql import load
from snapshots.traffic import Traffic

_SQL = load("closing")
_LEDGER = load("ledger")
_KNOWLEDGE = load("knowledge")
_ROSTER = load("roster")
# this many types with the same remark share a note: a server without a CapabilityStatement refuses sixty in the same words
_MANY_TYPES = 4
ALL_TYPES = "*"  # a unit of no single type; a `since` for every type


class _TypeEnd(NamedTuple):
    """How the units of one type ended."""

    resource_type: str
    listed: bool  # as requested, except for patients who get a lag
    in_full: bool
    named: bool  # by the source, which need not have any resource of it
    no_ehr: bool  # all are parts of what another source lists, which may have no types
    doubtful: bool


@dataclass(frozen=True, kw_only=True)
class Earned:
    """What a sync's watermarks may move to; a pull earns nothing."""

    watermark: str  # the instant up to which the run listed, as FHIR has it
    # stay at least this far before the newest date that came; None: dates do not limit it
    overlap: timedelta | None = None


def run_status(*, settled: int, failed: int, quarantined: int, refused: int = 0, news: bool = False) -> str:
    """Decide a run's status from its units' endings: only a run without holes and without quarantine is complete.

    A run without units found nothing at all. For an incremental run (`news`) that is a normal answer, even if every unit that
    `failed` is a patient that the EHR `refused` to show.
    """
    if not settled and not failed:
        return ("complete" if news else "nothing") if not quarantined else "failed"
    if not failed and not quarantined:
        return "complete"
    return "partial" if settled or (news and failed == refused) else "failed"


def since_of(since: Mapping[str, str], resource_type: str) -> str | None:
    """Return the instant since which a type was requested; None: it was listed in full."""
    return since.get(resource_type) or since.get(ALL_TYPES) or None


def movable(since: str | None, watermark: str | None) -> bool:
    """Whether a type that was requested since `since` may move its watermark: not if that would leave a gap."""
    return since is None or (watermark is not None and (since == watermark or is_older(since, watermark)))


def reached(earned: Earned, before: str | None, newest: Sequence[str] | None) -> str:
    """Return a type's new watermark: at most its newest date less the overlap, because an index may be behind its EHR.

    If only news were requested and nothing with a date came, it stays; it never moves back.
    """
    if earned.overlap is None:
        return earned.watermark
    held_back = before
    dates = [found for text in newest or () if (found := moment(text, zoned=True)) is not None]
    if dates:
        text = instant(max(dates) - earned.overlap)
        held_back = text if before is None or is_older(before, text) else before
    return held_back if held_back is not None and is_older(held_back, earned.watermark) else earned.watermark


async def close_run(
    conn: AsyncConnection[Any],
    closing: OpenScope,
    state: IngestState,
    *,
    earned: Earned | None,
    at: datetime,
    traffic: Traffic,
    notes: Sequence[str],
) -> None:
    """Judge what was missed, move watermarks and lags, decide the status. The caller holds the transaction."""
    own = closing.own
    await conn.execute(_SQL["plan_freely"])
    await conn.execute(_SQL["close_pending"], {**own, "at": at})
    for step in ("serve_all_alike", "know_all_alike"):
        await conn.execute(_SQL[step], own)
    await count(conn, closing.run, await settle_rivals(conn, state))
    judged = await judgement.judge(conn, own, is_pull=closing.scope.kind == "pull", at=at)
    buried = Intake()
    for resource_type, number in judged.buried.items():
        buried.of(resource_type).deleted = number
    await count(conn, closing.run, buried)
    news = bool(closing.scope.since) or await _is(conn, "requests_news", own) or closing.requests_news
    if earned is not None and not closing.scope.types and not news:
        for row in await (await conn.execute(_SQL["unlisted"], own)).fetchall():
            await conn.execute(_SQL["note_unlisted"], {**own, "resource_type": row[0], "at": at})
    ends = [_TypeEnd(*row) async for row in await conn.execute(_SQL["types"], own)]
    patients = await _number(conn, "patients", own)
    status, full = await _status(conn, closing.run, news=news)
    moved: Mapping[str, str] = {}
    if earned is not None:
        moved = await _move_watermarks(conn, closing, ends, earned)
        row = await (await conn.execute(_ROSTER["asks_patients"], own)).fetchone()
        if row is not None and row[0]:
            await end_of_crawl(conn, own)
        else:
            await end_of_export(conn, own, types=sorted(moved), full=full)
    await judgement.lower(conn, own, full=full)
    claims = await _claims(conn, own, moved)
    values = {
        "run": closing.run,
        "status": status,
        "requests": traffic.requests,
        "retries": traffic.retries,
        "patients": patients,
        "full_listing": full and any(end.in_full for end in ends) and not await _is(conn, "leaves_a_gap", own),
        "error": None,
        "claims": Jsonb([asdict(claim) for claim in claims]),
        "at": at,
    }
    await _close(conn, closing.run, values, [*notes, *judged.notes])


async def fail_run(
    conn: AsyncConnection[Any],
    closing: OpenScope,
    *,
    reason: str,
    at: datetime,
    traffic: Traffic,
    notes: Sequence[str],
) -> None:
    """Close a run as failed; nothing is tombstoned, no watermark moves. The caller holds the transaction."""
    await judgement.lower(conn, closing.own, full=False)
    values = {
        "run": closing.run,
        "status": "failed",
        "requests": traffic.requests,
        "retries": traffic.retries,
        "patients": await _number(conn, "patients", closing.own),
        "full_listing": False,
        "error": reason,
        "claims": Jsonb([]),
        "at": at,
    }
    await _close(conn, closing.run, values, notes)


def remark_notes(remarks: Iterable[tuple[str, str, int]]) -> list[str]:
    """Return the notes for what units had to remark: (type, remark, units). One remark of many types is a single note. Pure."""
    found: dict[str, dict[str, int]] = {}
    for kind, remark, units in remarks:
        found.setdefault(remark, {})[kind] = units
    notes: list[str] = []
    for remark, units_of in found.items():
        together = [list(units_of)] if len(units_of) >= _MANY_TYPES else [[kind] for kind in units_of]
        for kinds in together:
            named = "" if kinds == [ALL_TYPES] else f"{', '.join(kinds)}: "
            notes.append(f"{named}{remark} ({sum(units_of[kind] for kind in kinds)} x)")
    return sorted(notes)


async def _close(conn: AsyncConnection[Any], run: int, values: Mapping[str, Any], notes: Sequence[str]) -> None:
    remarks = [row async for row in await conn.execute(_SQL["remarks"], {"run": run})]
    await conn.execute(_LEDGER["keep_notes"], {"run": run, "notes": [*notes, *remark_notes(remarks)]})
    await conn.execute(_LEDGER["forget_seen"], {"runs": [run]})
    await judgement.empty(conn, [run])
    for step in ("write_runs", "end_alone", "order_ended"):
        await conn.execute(_LEDGER[step])
    await conn.execute(_SQL["close"], values)


async def count(conn: AsyncConnection[Any], run: int, intake: Intake) -> None:
    """Add to what a run received. The caller holds the transaction."""
    if not intake.counts:
        return
    counts = intake.counts.values()
    values = {
        "run": run,
        "types": list(intake.counts),
        "new": [one.new for one in counts],
        "changed": [one.changed for one in counts],
        "unchanged": [one.unchanged for one in counts],
        "deleted": [one.deleted for one in counts],
    }
    await conn.execute(_LEDGER["count"], values, prepare=True)


async def _move_watermarks(
    conn: AsyncConnection[Any], closing: OpenScope, ends: Sequence[_TypeEnd], earned: Earned
) -> Mapping[str, str]:
    """Move the watermark of each type that was listed as requested; return the new watermarks.

    A type without any resource has none, unless the source named it: then the source itself gives the instant.
    """
    if await _is(conn, "blocks_all", closing.own):
        return {}
    before = {
        row[0]: row[1]
        async for row in await conn.execute(_KNOWLEDGE["watermarks"], {**closing.own, "held_back": False})
    }
    listed = {end.resource_type for end in ends if end.listed and not end.doubtful}
    listed -= {ALL_TYPES} - {end.resource_type for end in ends if end.no_ehr}
    named = {end.resource_type for end in ends if end.named}
    stored = await conn.execute(_SQL["stored_types"], {**closing.own, "types": list(listed - named)})
    complete = listed & named | {row[0] async for row in stored}
    newest = {row[0]: row[1] async for row in await conn.execute(_SQL["newest"], closing.own)}
    types = sorted(
        one
        for one in complete
        if movable(since_of(closing.scope.since, one), before.get(one))
        and (one in before or since_of(closing.marks, one) is None)  # news are no beginning of knowledge
    )
    moved = {}
    for one in types:
        requests_news = one in closing.marks
        moved[one] = reached(earned, before.get(one) if requests_news else None, newest.get(one))
    values = {**closing.own, "types": types, "instants": list(moved.values())}
    await conn.execute(_SQL["move_watermark"], values)
    return moved


async def _claims(conn: AsyncConnection[Any], own: Mapping[str, Any], moved: Mapping[str, str]) -> list[Claim]:
    found = await conn.execute(_SQL["claims"], own)
    return [
        Claim(way=way, resource_type=kind, patients=patients or None, up_to=moved.get(kind or ALL_TYPES), full=full)
        async for way, kind, patients, full in found
    ]


async def _is(conn: AsyncConnection[Any], query: str, values: Mapping[str, Any]) -> bool:
    row = await (await conn.execute(_SQL[query], values)).fetchone()
    return row is not None and bool(row[0])


async def _number(conn: AsyncConnection[Any], query: str, values: Mapping[str, Any]) -> int:
    row = await (await conn.execute(_SQL[query], values)).fetchone()
    return int(row[0]) if row else 0


async def _status(conn: AsyncConnection[Any], run: int, *, news: bool) -> tuple[str, bool]:
    """Return how the run ends, and whether it is a full listing."""
    row = await (await conn.execute(_SQL["endings"], {"run": run})).fetchone()
    listed, settled, failed, refused, quarantined = row or (0, 0, 0, 0, 0)
    if not listed and not failed:
        settled = 0  # an export of nothing stays one even if rows were read besides
    status = run_status(settled=settled, failed=failed, quarantined=quarantined, refused=refused, news=news)
    return status, listed > 0 and status in {"complete", "partial"} and not news
