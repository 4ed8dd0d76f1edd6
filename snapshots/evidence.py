"""Collects what an open run knows of rows that are not there: which its listings missed, and which to request by id.

Only a way that listed a row before can miss it (docs/completeness.md). `connectors.fhir.confirmation` sends the requests;
`judgement` reads what was collected when the run ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from snapshots.fates import MASS, PATIENT, is_mass
from snapshots.run_session import RunSession
from snapshots.sql import load
from snapshots.witness import AbsentRow, Way, WayScope

_SQL = load("evidence")
_CLOSING = load("closing")
# listed rows of a type that are read to check whether reads can be believed: one may have been deleted meanwhile
_CONTROLS = 2


class WholeType(NamedTuple):
    """A type that a run has listed completely."""

    resource_type: str
    way: int
    way_of_none: int | None
    scope: WayScope


@dataclass
class Masses:
    """The masses: types of a way, or of a living patient, of which too much has vanished to be believed at once."""

    ways: list[tuple[str, int | None]] = field(default_factory=list)
    patients: list[tuple[str, str]] = field(default_factory=list)

    @property
    def columns(self) -> dict[str, list[Any]]:
        """Return them as parameters."""
        return {
            "mass_types": [resource_type for resource_type, _ in self.ways],
            "mass_ways": [way for _, way in self.ways],
            "mass_patient_types": [resource_type for resource_type, _ in self.patients],
            "mass_patients": [patient for _, patient in self.patients],
        }


async def masses(conn: AsyncConnection[Any], own: Mapping[str, Any]) -> Masses:
    """Find the new masses. Rows that were doubted or not found before are not new, and count for no mass."""
    found = Masses()
    if not await missed_any(conn, own):
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


async def missed_any(conn: AsyncConnection[Any], own: Mapping[str, Any]) -> bool:
    """Whether there is anything to judge. Most runs have nothing, and the statements below cost 5 ms of planning each."""
    row = await (await conn.execute(_SQL["has_absence"], own)).fetchone()
    return row is None or bool(row[0])


def _lists_members(whole: Sequence[WholeType]) -> bool:
    return any(one.resource_type == PATIENT and one.scope is WayScope.MEMBERS for one in whole)


async def whole_listings(conn: AsyncConnection[Any], own: Mapping[str, Any]) -> list[WholeType]:
    """Return the types that the run has listed completely, in files or directory listings."""
    row = await (await conn.execute(_SQL["blocked"], own)).fetchone()
    blocked = row is None or bool(row[0])
    found = await conn.execute(_SQL["whole"], {**own, "blocked": blocked})
    return [WholeType(kind, way, of_none, WayScope(scope)) async for kind, way, of_none, scope in found]


class StoredEvidence:
    """What one open run missed; the real `connectors.fhir.memories.Evidence`. Every call is one transaction."""

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._conn = session.conn
        self._compared = False

    async def _compare(self, own: Mapping[str, Any]) -> None:
        """Find, once, the rows that this run's listings lack; readers leave out those that come later."""
        if not self._compared:
            await self._conn.execute(_SQL["drop_unreceived"])
            await self._conn.execute(_SQL["only_hash"], {"only": True})
            await self._conn.execute(_SQL["compare"], own)
            await self._conn.execute(_SQL["only_hash"], {"only": False})

    async def note_departed(self, way: Way) -> None:
        """Note patients whom the selection covered but this run neither listed nor requested: each is read once.

        `way` is the way in which a crawl fetches Patients one by one.
        """
        async with self._session.transaction("comparing patients") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            whole = await whole_listings(self._conn, own)
            for one in whole:
                if one.resource_type == PATIENT and one.scope is WayScope.MEMBERS:
                    await self._conn.execute(_SQL["note_departed_members"], {**own, "way": one.way})
            if any(one.scope is WayScope.MEMBERS for one in whole):
                asked = {"requested_patients": await self._requested_patients(own)}
                await self._conn.execute(_SQL["strike_off_unexported"], {**own, **asked})
            row = await (await self._conn.execute(_SQL["patient_way"], {**own, "name": way.name})).fetchone()
            if row is not None:
                await self._conn.execute(_SQL["note_departed_of_cohort"], {**own, "way": row[0]})
                await self._conn.execute(_SQL["strike_off_unread"], own)

    async def note_missed(self) -> None:
        """Note every row that a way has listed before and that its complete listing in this run lacked."""
        async with self._session.transaction("comparing listings") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            whole = await whole_listings(self._conn, own)
            if whole:
                await self._compare(own)
            patients_listed = _lists_members(whole) or await self._requested_patients(own)
            group_read = await self._read_group(own)
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
            if not self._session.open.requests_news:
                await self._conn.execute(_SQL["note_missed_of_nobody"], own)
        self._compared = bool(whole)

    async def _requested_patients(self, own: Mapping[str, Any]) -> bool:
        row = await (await self._conn.execute(_SQL["requested_patients"], own)).fetchone()
        return row is not None and bool(row[0])

    async def _read_group(self, own: Mapping[str, Any]) -> bool:
        row = await (await self._conn.execute(_SQL["group_read"], own)).fetchone()
        return row is not None and bool(row[0])

    async def due(self, readable: Sequence[str] | None, limit: int) -> list[AbsentRow]:
        """Return missed rows to request by id, at most `limit`, Patients first; none that belong to a mass."""
        async with self._session.transaction("reading what was missed") as own:
            if not await missed_any(self._conn, own):
                return []
            await self._conn.execute(_CLOSING["plan_freely"])
            found = await masses(self._conn, own)
            wanted = None if readable is None else list(readable)
            if wanted is not None:
                await self._conn.execute(_SQL["note_unreadable"], {**own, "readable": wanted})
            values = {**own, **found.columns, "readable": wanted, "limit": limit}
            return [AbsentRow(*row) async for row in await self._conn.execute(_SQL["due"], values)]

    async def not_found_types(self) -> list[str]:
        """Return the types of which the EHR has told this run that a resource does not exist."""
        async with self._session.transaction("reading what was missed") as own:
            return [row[0] async for row in await self._conn.execute(_SQL["not_found_types"], own)]

    async def controls(self, types: Sequence[str]) -> list[AbsentRow]:
        """Return rows of these types that this run has listed, to be read as controls."""
        async with self._session.transaction("reading what was listed") as own:
            values = {**own, "types": list(types), "each": _CONTROLS}
            return [AbsentRow(*row) async for row in await self._conn.execute(_SQL["controls"], values)]

    async def note_requested(self, rows: Sequence[AbsentRow]) -> None:
        """Note that units request these rows."""
        values = {"types": [row.resource_type for row in rows], "ids": [row.id for row in rows]}
        async with self._session.transaction("noting what is asked") as own:
            await self._conn.execute(_SQL["note_requested"], {**own, **values})

    async def withheld(self, patients: Sequence[str] | None, limit: int) -> Sequence[AbsentRow]:
        """Return some rows that earlier runs found withheld from this client, Patients first; None: of any patient."""
        wanted = None if patients is None else list(patients)
        async with self._session.transaction("reading what is withheld") as own:
            values = {**own, "patients": wanted, "limit": limit}
            return [AbsentRow(*row) async for row in await self._conn.execute(_SQL["withheld"], values)]

    async def note_listings(self, at: datetime) -> None:
        """Note the ways by which this run has listed types in full; they replace those of the selection's earlier full runs.

        An export of nothing changes nothing. Nor does one of members of whom nobody knows who they are: the Group could not be
        read, and Patients were requested and not listed whole.
        """
        async with self._session.transaction("noting full listings") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            row = await (await self._conn.execute(_SQL["lists"], own)).fetchone()
            if row is None or not row[0]:
                return
            whole = await whole_listings(self._conn, own)
            known = _lists_members(whole) or await self._read_group(own) or not await self._requested_patients(own)
            pairs = [(one.resource_type, one.way) for one in whole if known or one.scope is not WayScope.MEMBERS]
            pairs += [(one.resource_type, one.way_of_none) for one in whole if one.way_of_none is not None]
            values = {**own, "types": [kind for kind, _ in pairs], "ways": [way for _, way in pairs], "at": at}
            await self._conn.execute(_SQL["retire_listings"], values)
            await self._conn.execute(_SQL["note_listings"], values)

    async def rotate(
        self, readable: Sequence[str] | None, limit: int, *, at: datetime, period: timedelta, fresh: timedelta
    ) -> Mapping[str, int]:
        """Mark some unwitnessed rows to be read by id too, and return their number by type.

        A listing that no run has repeated within `period` is no longer a witness. A row fetched by reference counts as known
        while it is `fresh`.
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
