"""What a run makes of rows that it missed: whom to ask for by id, and what is believed when the run ends.

Only a way that listed a row before can miss it, and one word is not enough (docs/completeness.md has the decision table). Asking
is left to `connectors.fhir.confirmation`; watermarks, rosters and the run's state to `closing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from snapshots.run_session import OpenScope, RunSession
from snapshots.sql import load
from snapshots.witness import AbsentRow, Way, WayScope

_SQL = load("evidence")
_CLOSING = load("closing")
PATIENT = "Patient"

# A way that has lost half of what it lists tells of a broken EHR, a token that sees less or a changed filter more often than of
# deletions: another full listing must say so too. Below MASS rows a half is soon reached by chance.
MASS = 20
_CONTROLS = 2  # listed rows of a type that are read to see whether reads can be believed: one may have gone meanwhile


def is_mass(gone: int, there: int) -> bool:
    """Whether so much of what a way lists has vanished at once that one listing is not believed."""
    return gone >= MASS and gone * 2 >= there


class Whole(NamedTuple):
    """A type that a run has listed whole."""

    resource_type: str
    way: int
    way_of_none: int | None
    scope: WayScope


@dataclass
class Masses:
    """What has vanished in such number that it is not believed at once: of a way's type, and of a living patient's type."""

    ways: list[tuple[str, int | None]] = field(default_factory=list)
    patients: list[tuple[str, str]] = field(default_factory=list)

    @property
    def columns(self) -> dict[str, list[Any]]:
        """As parameters."""
        return {
            "mass_types": [resource_type for resource_type, _ in self.ways],
            "mass_ways": [way for _, way in self.ways],
            "mass_patient_types": [resource_type for resource_type, _ in self.patients],
            "mass_patients": [patient for _, patient in self.patients],
        }


async def masses(conn: AsyncConnection[Any], own: Mapping[str, Any]) -> Masses:
    """Find what has newly vanished in number. What was doubted before is no news, and counts for no mass."""
    found = Masses()
    if not await _missed_any(conn, own):
        return found
    async for resource_type, way, missed, listed, stored in await conn.execute(_SQL["groups"], own):
        if is_mass(missed, stored if way is None else listed + missed):
            found.ways.append((resource_type, way))
    async for resource_type, patient, missed, stored in await conn.execute(
        _SQL["patient_groups"], {**own, "mass": MASS}
    ):
        if is_mass(missed, stored):
            found.patients.append((resource_type, patient))
    return found


async def _missed_any(conn: AsyncConnection[Any], own: Mapping[str, Any]) -> bool:
    """Whether there is anything to judge: on most nights not, and the statements below cost 5 ms of planning each."""
    row = await (await conn.execute(_SQL["has_absence"], own)).fetchone()
    return row is None or bool(row[0])


async def whole_listings(conn: AsyncConnection[Any], own: Mapping[str, Any]) -> list[Whole]:
    """Give the types that the run has listed whole, in files or directory listings."""
    row = await (await conn.execute(_SQL["blocked"], own)).fetchone()
    blocked = row is None or bool(row[0])
    found = await conn.execute(_SQL["whole"], {**own, "blocked": blocked})
    return [Whole(kind, way, of_none, WayScope(scope)) async for kind, way, of_none, scope in found]


async def controlled_types(conn: AsyncConnection[Any], own: Mapping[str, Any]) -> list[str]:
    """Give the types of which a listed row could be read in this run."""
    return [row[0] async for row in await conn.execute(_SQL["controlled"], own)]


class StoredEvidence:
    """What one open run missed; the real `connectors.fhir.memories.Evidence`. Every call is one transaction."""

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._conn = session.conn
        self._compared = False

    async def _compare(self, own: Mapping[str, Any]) -> None:
        """Find what this run's listings have not brought, once; what comes later, readers leave out."""
        if not self._compared:
            await self._conn.execute(_SQL["drop_unreceived"])
            await self._conn.execute(_SQL["compare"], own)

    async def note_departed(self, way: Way) -> None:
        """Note patients whom the selection covered and this run did not list or ask for: each is read once.

        `way` is the one by which a crawl asks for Patients one by one.
        """
        async with self._session.transaction("comparing patients") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            whole = await whole_listings(self._conn, own)
            for one in whole:
                if one.resource_type == PATIENT and one.scope is WayScope.MEMBERS:
                    await self._conn.execute(_SQL["note_departed_members"], {**own, "way": one.way})
            row = await (await self._conn.execute(_SQL["patient_way"], {**own, "name": way.name})).fetchone()
            if row is not None:
                await self._conn.execute(_SQL["note_departed_of_cohort"], {**own, "way": row[0]})
                await self._conn.execute(_SQL["strike_off_unread"], own)

    async def note_missed(self) -> None:
        """Note every row that a way has listed before and that its complete listing in this run no longer had."""
        async with self._session.transaction("comparing listings") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            whole = await whole_listings(self._conn, own)
            if whole:
                await self._compare(own)
            patients_listed = any(
                one.resource_type == PATIENT and one.scope is WayScope.MEMBERS for one in whole
            ) or await self._asked_for_patients(own)
            row = await (await self._conn.execute(_SQL["group_read"], own)).fetchone()
            group_read = row is not None and bool(row[0])
            for one in whole:
                values = {**own, "resource_type": one.resource_type, "way": one.way, "group_read": group_read}
                if one.scope is WayScope.EVERYTHING:
                    await self._conn.execute(_SQL["note_missed_everything"], values)
                elif one.scope is WayScope.MEMBERS and one.resource_type != PATIENT:
                    await self._conn.execute(
                        _SQL["note_missed_members"], {**values, "patients_listed": patients_listed}
                    )
                if one.way_of_none is not None:
                    await self._conn.execute(_SQL["note_missed_everything"], {**values, "way": one.way_of_none})
            await self._conn.execute(_SQL["note_missed_of_patients"], own)
        self._compared = bool(whole)

    async def _asked_for_patients(self, own: Mapping[str, Any]) -> bool:
        row = await (await self._conn.execute(_SQL["asked_for_patients"], own)).fetchone()
        return row is not None and bool(row[0])

    async def due(self, readable: Sequence[str] | None, limit: int) -> list[AbsentRow]:
        """Give missed rows to be asked for by id, at most `limit`, Patients first; none that belong to a mass."""
        async with self._session.transaction("reading what was missed") as own:
            if not await _missed_any(self._conn, own):
                return []
            await self._conn.execute(_CLOSING["plan_freely"])
            found = await masses(self._conn, own)
            wanted = None if readable is None else list(readable)
            values = {**own, **found.columns, "readable": wanted, "limit": limit}
            return [AbsentRow(*row) async for row in await self._conn.execute(_SQL["due"], values)]

    async def not_found_types(self) -> list[str]:
        """Give the types of which this run has been told that something is not there."""
        async with self._session.transaction("reading what was missed") as own:
            return [row[0] async for row in await self._conn.execute(_SQL["not_found_types"], own)]

    async def controls(self, types: Sequence[str]) -> list[AbsentRow]:
        """Give rows of these types that this run has listed, to be read as well."""
        async with self._session.transaction("reading what was listed") as own:
            values = {**own, "types": list(types), "each": _CONTROLS}
            return [AbsentRow(*row) async for row in await self._conn.execute(_SQL["controls"], values)]

    async def note_asked(self, rows: Sequence[AbsentRow]) -> None:
        """Note that units ask for these rows."""
        values = {"types": [row.resource_type for row in rows], "ids": [row.id for row in rows]}
        async with self._session.transaction("noting what is asked") as own:
            await self._conn.execute(_SQL["note_asked"], {**own, **values})

    async def note_listings(self, at: datetime) -> None:
        """Note by which ways this run has listed types in full, in place of the selection's earlier full runs.

        An export of nothing leaves all as it was.
        """
        async with self._session.transaction("noting full listings") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            row = await (await self._conn.execute(_SQL["lists"], own)).fetchone()
            if row is None or not row[0]:
                return
            whole = await whole_listings(self._conn, own)
            pairs = [(one.resource_type, one.way) for one in whole]
            pairs += [(one.resource_type, one.way_of_none) for one in whole if one.way_of_none is not None]
            values = {**own, "types": [kind for kind, _ in pairs], "ways": [way for _, way in pairs], "at": at}
            await self._conn.execute(_SQL["retire_listings"], values)
            await self._conn.execute(_SQL["note_listings"], values)

    async def rotate(
        self, readable: Sequence[str] | None, limit: int, *, at: datetime, period: timedelta, fresh: timedelta
    ) -> Mapping[str, int]:
        """Note some rows that no listing of the period could have, to be asked for too; give how many there are, by type.

        A listing that no run has repeated for longer than `period` witnesses nothing any more; what a reference brought is known
        for as long as it is `fresh`.
        """
        async with self._session.transaction("finding unwitnessed rows") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            await self._compare(own)
            wanted = None if readable is None else list(readable)
            values = {**own, "at": at, "period": period, "fresh": fresh, "readable": wanted, "limit": limit}
            await self._conn.execute(_SQL["unwitnessed"], values)
            counts = {row[0]: row[1] async for row in await self._conn.execute(_SQL["count_unwitnessed"])}
            some = await (await self._conn.execute(_SQL["rotate"], values)).fetchall()
            if some:
                resource_type, id_ = some[-1]
                await self._conn.execute(_SQL["note_rotation"], {**own, "resource_type": resource_type, "id": id_})
            return counts


class Judged(NamedTuple):
    """What became of what a run missed."""

    buried: Mapping[str, int]  # tombstones by type
    notes: Sequence[str]


async def judge(conn: AsyncConnection[Any], closing: OpenScope, own: Mapping[str, Any], at: datetime) -> Judged:
    """Decide what is believed of each missed row, and write it down. The caller holds the transaction."""
    if not await _missed_any(conn, own):
        return Judged({}, ())
    values = {
        **own,
        "controlled": await controlled_types(conn, own),
        "pull": closing.scope.kind == "pull",
        "at": at,
    }
    await conn.execute(_SQL["judge"], values)
    await conn.execute(_SQL["reconsider"], own)
    found = await masses(conn, own)
    if found.ways or found.patients:
        await conn.execute(_SQL["disbelieve"], {**own, **found.columns})
    buried = {row[0]: row[1] async for row in await conn.execute(_SQL["bury"], values)}
    fates: dict[str, dict[str, int]] = {}
    async for resource_type, fate, count in await conn.execute(_SQL["fates"], own):
        fates.setdefault(fate, {})[resource_type] = count
    for step in ("forget", "remember", "unmerge_doubted", "unlist", "strike_off"):
        await conn.execute(_SQL[step], own)
    for fate, reason in _HOLES.items():
        for resource_type, count in fates.get(fate, {}).items():
            hole = {"key": f"doubt:{fate}:{resource_type}", "resource_type": resource_type, "at": at}
            await conn.execute(_SQL["doubt"], {**own, **hole, "reason": reason.format(count=f"{count:,}")})
    notes = [
        text.format(count=f"{count:,}", type=resource_type)
        for fate, text in _NOTES.items()
        for resource_type, count in fates.get(fate, {}).items()
    ]
    return Judged(buried, notes)


_HOLES = {
    "doubted": "{count} stored were not listed, and nothing says for sure that they are gone: kept as they are until another "
    "full listing says so too; sync again",
    "contrary": "{count} came and were said to be deleted in one run: kept as they are; sync again",
    "not-found": "{count} that no listing can show were not there when asked for: kept until a second run finds the same; "
    "sync again",
    "contradicted": "{count} stored were not listed, and are there when asked for: the listing is not whole; sync again",
}
_NOTES = {
    "withheld": "{type}: {count} that were listed before are withheld from this client now (HTTP 403): kept as they are",
    "left": "{type}: {count} no longer of this selection, and still at the EHR: their charts stay as they are",
    "dropped": "{type}: {count} can be read, and the search or export that listed them before does not any more: read from time "
    "to time from now on",
}


async def lower(conn: AsyncConnection[Any], own: Mapping[str, Any], *, full: bool) -> None:
    """Take back what selections know of patients and types that this run has shaken. The caller holds the transaction."""
    await conn.execute(_SQL["lower"], {**own, "full": full})


async def empty(conn: AsyncConnection[Any], runs: Sequence[int]) -> None:
    """Forget what was heard within these runs. The caller holds the transaction."""
    await conn.execute(_SQL["empty"], {"runs": list(runs)})
