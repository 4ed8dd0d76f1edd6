"""Stores the patients that a selection covers, and their lags, deferrals and merges.

A selection's watermark of a type applies to the patients on its roster; for a patient who is behind, a lag says since when to
request. Both move only when a run ends (`end_of_crawl`, called by `closing` in its transaction). `connectors.fhir` decides what
to do with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from snapshots.patient import Alias, Deferral, StoredPatient
from snapshots.run_session import OpenScope, RunSession
from snapshots.sql import load

_SQL = load("roster")
EVERY_PATIENT = ""


class RunRoster:
    """The roster of one open run's selection; the real `connectors.fhir.memories.Roster`. Every call is one transaction."""

    def __init__(self, session: RunSession) -> None:
        self._session = session

    async def covered(self) -> frozenset[str]:
        """Return the patients that the selection's watermarks cover."""
        async with self._session.transaction("reading the roster") as own:
            return frozenset([row[0] async for row in await self._session.conn.execute(_SQL["covered"], own)])

    async def lags(self) -> Mapping[tuple[str, str], str | None]:
        """Return, by (type, patient), up to when lagging patients are complete; None: not at all."""
        async with self._session.transaction("reading the roster") as own:
            found = await self._session.conn.execute(_SQL["lags"], own)
            return {(kind, patient): instant async for kind, patient, instant in found}

    async def behind(self) -> frozenset[str]:
        """Return the patients who have a lag for another reason than that rows of theirs are withheld."""
        async with self._session.transaction("reading the roster") as own:
            return frozenset([row[0] async for row in await self._session.conn.execute(_SQL["behind"], own)])

    async def deferrals(self, now: datetime) -> Sequence[Deferral]:
        """Return what must not be requested yet."""
        async with self._session.transaction("reading deferrals") as own:
            await self._session.conn.execute(_SQL["forget_deferrals"], {**own, "now": now})
            found = await self._session.conn.execute(_SQL["deferrals"], {**own, "now": now})
            return [
                Deferral(kind, None if patient == EVERY_PATIENT else patient, reason, until)
                async for kind, patient, reason, until in found
            ]

    async def defer(self, deferrals: Sequence[Deferral]) -> None:
        """Note what must not be requested before a time."""
        if not deferrals:
            return
        values = {
            "types": [one.resource_type for one in deferrals],
            "patients": [one.patient_id or EVERY_PATIENT for one in deferrals],
            "reasons": [one.reason for one in deferrals],
            "untils": [one.until for one in deferrals],
        }
        async with self._session.transaction("noting deferrals") as own:
            await self._session.conn.execute(_SQL["defer"], {**own, **values})

    async def aliases(self) -> Sequence[Alias]:
        """Return the merges that any run of the connection found."""
        async with self._session.transaction("reading aliases") as own:
            return [Alias(*row) async for row in await self._session.conn.execute(_SQL["aliases"], own)]

    async def new_aliases(self) -> Sequence[Alias]:
        """Return the merges that this run was the first to find; an id that is its own alias is no longer merged."""
        async with self._session.transaction("reading aliases") as own:
            return [Alias(*row) async for row in await self._session.conn.execute(_SQL["new_aliases"], own)]

    async def unanswered(self) -> Sequence[str]:
        """Return the patients who are missing from settled batches and have no separate unit yet."""
        async with self._session.transaction("reading the ledger") as own:
            return [row[0] async for row in await self._session.conn.execute(_SQL["unanswered"], own)]

    async def stored_patients(self) -> Sequence[StoredPatient]:
        """Return the connection's patients, tombstones included, in order."""
        async with self._session.transaction("reading patients") as own:
            found = await self._session.conn.execute(_SQL["stored_patients"], own)
            return [StoredPatient(*row) async for row in found]

    async def revived(self) -> Sequence[str]:
        """Return the patients whose Patient this run has revived."""
        async with self._session.transaction("reading patients") as own:
            return [row[0] async for row in await self._session.conn.execute(_SQL["revived"], own)]

    async def led_nowhere(self) -> Sequence[str]:
        """Return the merged patients whom this run requested, and whose former ids no longer lead to anybody."""
        async with self._session.transaction("reading aliases") as own:
            return [row[0] async for row in await self._session.conn.execute(_SQL["led_nowhere"], own)]

    async def knew_members(self) -> bool:
        """Return whether the selection's last full listing knew from the Group itself who is in it."""
        return await self._is("knew_members")

    async def missed_members(self) -> bool:
        """Return whether a run of news since then did not know it."""
        return await self._is("missed_members")

    async def _is(self, query: str) -> bool:
        async with self._session.transaction("reading the roster") as own:
            row = await (await self._session.conn.execute(_SQL[query], own)).fetchone()
        return row is not None and bool(row[0])

    async def unmet_members(self) -> Sequence[str]:
        """Return the members of the exported Group without a stored Patient, in order."""
        async with self._session.transaction("reading members") as own:
            return [row[0] async for row in await self._session.conn.execute(_SQL["unmet_members"], own)]

    async def uncovered_members(self) -> Sequence[str]:
        """Return the members of the exported Group who are not on the roster, in order."""
        async with self._session.transaction("reading members") as own:
            return [row[0] async for row in await self._session.conn.execute(_SQL["uncovered_members"], own)]

    async def note_members(self, patients: Sequence[str]) -> None:
        """Note the members of the exported Group, as the Group itself lists them."""
        async with self._session.transaction("noting members") as own:
            await self._session.conn.execute(_SQL["note_members"], {**own, "patients": list(patients)})

    async def describe_cohort(self, cohort: Mapping[str, Any]) -> None:
        """Add to the report's description of the cohort: counts and line numbers, never a value."""
        async with self._session.transaction("describing the cohort") as own:
            await self._session.conn.execute(_SQL["describe_cohort"], {**own, "cohort": Jsonb(dict(cohort))})


async def formers(conn: AsyncConnection[Any], opened: OpenScope) -> frozenset[str]:
    """Return the ids of Patients that lead to another Patient. The caller holds the transaction."""
    return frozenset([row[0] async for row in await conn.execute(_SQL["formers"], opened.own)])


async def note_aliases(conn: AsyncConnection[Any], opened: OpenScope, aliases: Sequence[Alias]) -> None:
    """Note merges that a run found. The caller holds the transaction."""
    values = {
        "run": opened.run,
        "connection": opened.connection,
        "formers": [one.former_id for one in aliases],
        "survivors": [one.surviving_id for one in aliases],
        "gone": [one.gone for one in aliases],
    }
    await conn.execute(_SQL["save_aliases"], values)


async def end_of_crawl(conn: AsyncConnection[Any], own: Mapping[str, Any]) -> None:
    """Update roster and lags by the endings of the run's units. The caller holds the transaction, and moved watermarks before."""
    for step in ("end_links", "note_lags", "note_received_patients", "note_whole_types", "note_unasked", "call_roll"):
        await conn.execute(_SQL[step], own)


async def end_of_export(
    conn: AsyncConnection[Any], own: Mapping[str, Any], *, types: Sequence[str], full: bool
) -> None:
    """Update roster and lags after an export: a full one knows these types; one of news covers the last full one's patients."""
    if not full:
        await conn.execute(_SQL["note_leavers"], own)
        return
    row = await (await conn.execute(_SQL["members_by_type"], own)).fetchone()
    if row is not None and row[0]:
        await conn.execute(_SQL["call_roll_of_export"], {**own, "of_types": row[0]})
    listed = {**own, "types": list(types)}
    for step in ("catch_up", "note_new_members", "note_withheld"):
        await conn.execute(_SQL[step], listed)
