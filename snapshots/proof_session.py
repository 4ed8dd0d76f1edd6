"""The database session of one proof of completeness: reads what the store holds of a patient and type.

A proof holds no lock: a sync may begin at any time, and `run_at_work` reports it. Whose data it reads is in the audit.
`connectors.fhir.prove.prove` does the comparison; `certificates` stores the certificates.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import anyio
from psycopg import AsyncConnection, sql

from snapshots.audit_event import Action
from snapshots.certificates import keep
from snapshots.errors import ConnectionBusyError, store_border
from snapshots.patient import Deferral
from snapshots.proof import Certificate, ProvedRun
from snapshots.reading import WhatWasRead, named_patients, note, patients_of_ids, patients_of_type
from snapshots.reports import patient_hash
from snapshots.reports import reports as run_reports
from snapshots.roster import EVERY_PATIENT
from snapshots.sql import load
from snapshots.tenancy import TenantSession
from snapshots.traffic import PaceState

_SQL = load("certificates")
_REPORTS = load("reports")
_ROSTER = load("roster")
_PACE = load("pace")


class _Whose(NamedTuple):
    """Whose data a question reads, for the audit."""

    key: tuple[str | None, ...]  # noted once in a proof, which asks about many types
    patients: sql.Composable | None
    types: tuple[str, ...] = ()


class ProofSession:
    """One session for the proof of one connection; `Store.proof` makes it. Calls may come from several tasks."""

    def __init__(self, session: TenantSession, connection: str, number: int | None) -> None:
        self._session = session
        self._connection = connection
        self._number = number
        self._turn = anyio.Lock()
        self._noted: set[tuple[str | None, ...]] = set()

    @asynccontextmanager
    async def _asking(
        self, whose: _Whose | None = None, *, writes: bool = False
    ) -> AsyncIterator[AsyncConnection[Any]]:
        """Run a transaction; whose data it reads is noted in it, unless this proof has noted that before."""
        async with self._turn:
            with store_border(f"proving connection {self._connection}"):
                async with self._session.transaction(writes=writes):
                    if whose is not None and whose.key not in self._noted:
                        await self._note(whose)
                    yield self._session.conn
                if whose is not None:
                    self._noted.add(whose.key)

    async def _note(self, whose: _Whose) -> None:
        everyone = whose.patients is None
        patients = [] if whose.patients is None else [whose.patients]
        read = WhatWasRead(connections=[self._connection], types=whose.types, patients=patients, everyone=everyone)
        await note(self._session, Action.LISTING if everyone else Action.PROOF, read)

    def _whose(self, resource_type: str, patient: str | None) -> _Whose:
        if patient is not None:
            return _Whose(("patient", patient), named_patients(self._connection, [patient]))
        return _Whose(("type", resource_type), patients_of_type(self._connection, resource_type), (resource_type,))

    async def _rows(self, query: str, whose: _Whose | None = None, **values: Any) -> list[tuple[Any, ...]]:
        async with self._asking(whose) as conn:
            found = await conn.execute(_SQL[query], {"connection": self._number, **values})
            return await found.fetchall()

    async def newest_sync(self, selection: str) -> ProvedRun | None:
        """Return the sync to prove: the newest finished one of this selection, else of any selection."""
        found = await self._rows("newest_sync", selection=selection)
        if not found:
            return None
        number, started_at, types = found[0]
        async with self._asking() as conn:
            report = (await run_reports(conn, [number]))[0]
        return ProvedRun(
            id=number, started_at=started_at, mode=report.mode, types=tuple(types), holes=len(report.holes)
        )

    async def run_at_work(self) -> int | None:
        """Return the connection's run that is in progress, if there is one."""
        found: int | None = (await self._rows("at_work"))[0][0]
        return found

    async def check_idle(self) -> None:
        """Raise ConnectionBusyError while a run of the connection is in progress: the proof would check half a run."""
        run = await self.run_at_work()
        if run is not None:
            raise ConnectionBusyError(
                f"connection {self._connection}: run {run} is in progress; prove it once it has finished.", run=run
            )

    async def patients(self) -> list[str]:
        """Return the ids of the connection's live patients, in order."""
        return [row[0] for row in await self._rows("patients", _Whose(("everyone",), None))]

    async def types(self) -> frozenset[str]:
        """Return the types of which the store holds a live row that belongs to a patient."""
        return frozenset(row[0] for row in await self._rows("types"))

    async def number(self, resource_type: str, patient: str | None) -> int:
        """Count the live resources of a type in one patient's compartment; for None: all of the type."""
        query = "number_of_type" if patient is None else "number_of_patient"
        whose = self._whose(resource_type, patient)
        return int((await self._rows(query, whose, resource_type=resource_type, patient=patient))[0][0])

    async def held(self, resource_type: str, patient: str | None) -> Mapping[str, str | None]:
        """Return the ids of those resources, each with its lastUpdated as written."""
        query = "held_of_type" if patient is None else "held_of_patient"
        whose = self._whose(resource_type, patient)
        return dict(await self._rows(query, whose, resource_type=resource_type, patient=patient))

    async def by_id(self, resource_type: str, ids: Sequence[str]) -> Mapping[str, tuple[str | None, bool]]:
        """Return what the store knows about these ids, whosever they are: lastUpdated, and whether it is a tombstone."""
        whose = _Whose((resource_type, *ids), patients_of_ids(self._connection, resource_type, ids), (resource_type,))
        found = await self._rows("by_id", whose, resource_type=resource_type, ids=list(ids))
        return {id_: (last_updated, deleted) for id_, last_updated, deleted in found}

    async def holes(self, run: int, patients: Sequence[str]) -> Mapping[tuple[str, str | None], str]:
        """Return why units of the run failed, by type and patient (None: no patient, a file)."""
        found = await self._rows("holes", run=run, patients=list(patients))
        return {(resource_type, patient): reason or "failed" for resource_type, patient, reason in found}

    async def asked(self, run: int) -> frozenset[str]:
        """Return the types that the run requested, except those that the server says it never serves."""
        return frozenset(row[0] for row in await self._rows("asked", run=run))

    async def patient_mark(self, patient: str) -> str:
        """Name a patient as reports do: "patient ~3f2a9c41"."""
        async with self._asking() as conn:
            row = await (await conn.execute(_REPORTS["report_key"])).fetchone()
        return f"patient ~{patient_hash(row[0] if row else UUID(int=0), patient)}"

    async def deferrals(self, now: datetime) -> Sequence[Deferral]:
        """Return what the connection's runs learned not to request, as far as it still holds."""
        async with self._asking() as conn:
            found = await conn.execute(_ROSTER["deferrals"], {"connection": self._number, "now": now})
            return [
                Deferral(kind, None if patient == EVERY_PATIENT else patient, reason, until)
                async for kind, patient, reason, until in found
            ]

    async def pace(self) -> PaceState:
        """Return the pace that the connection's last run or proof left; empty for the first."""
        async with self._asking() as conn:
            row = await (await conn.execute(_PACE["load"], {"connection": self._number})).fetchone()
        names = ("concurrency", "file_concurrency", "down_until", "down_reason", "trips", "quota_free_at")
        return PaceState(**dict(zip(names, row, strict=True))) if row else PaceState()

    async def keep_pace(self, state: PaceState) -> None:
        """Save the pace for the connection's next run."""
        async with self._asking(writes=True) as conn:
            await conn.execute(_PACE["save"], {**asdict(state), "connection": self._number})

    async def save(self, certificate: Certificate) -> None:
        """Store a certificate with the run that it proves."""
        async with self._asking(writes=True) as conn:
            await keep(conn, self._number or 0, certificate)


async def open_proof(session: TenantSession, connection: str) -> ProofSession:
    """Begin a proof on its own session, which the caller must give back."""
    with store_border(f"proving connection {connection}"):
        async with session.transaction():
            row = await (await session.conn.execute(_SQL["connection"], {"connection": connection})).fetchone()
    return ProofSession(session, connection, row[0] if row else None)
