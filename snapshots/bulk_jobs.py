"""The export jobs of a connection, this run's and those that earlier runs left there: `connectors.fhir.memories.BulkJobs`.

The ledger has a job's files (units); `connectors.fhir.bulk` decides what to ask the server, and when.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from snapshots.export_job import BulkJob, EarlierJob
from snapshots.instants import moment
from snapshots.run_session import RunSession
from snapshots.sql import load
from snapshots.unit import Unit, UnitKind

_SQL = load("bulk_jobs")
# replicas may be a night behind; a clock that is years behind must not make all data look old
_OLDEST_EXPORT = timedelta(days=3)


class StoredBulkJobs:
    """The jobs of one open run's connection. Every call is one transaction, which is on the disk when the call returns."""

    def __init__(self, session: RunSession) -> None:
        self._session = session

    async def current(self) -> BulkJob | None:
        """Return the run's job: kicked off, or about to be."""
        async with self._session.transaction("reading the bulk job") as own:
            row = await (await self._session.conn.execute(_SQL["current"], own)).fetchone()
        return None if row is None else _job(row)

    async def save(self, job: BulkJob) -> None:
        """Insert or update the run's job."""
        opened = self._session.open
        opened.as_of = evidence_of(job)
        async with self._session.transaction("saving the bulk job") as own:
            await self._session.conn.execute(_SQL["date_evidence"], {**own, "as_of": opened.as_of})
            values = {**vars(job), "asked": Jsonb(dict(job.asked)), "pages": list(job.pages), "run": own["run"]}
            await self._session.conn.execute(_SQL["save"], values)

    async def forget(self) -> None:
        """Delete the intent: the server refused the kick-off, so there is no job."""
        async with self._session.transaction("forgetting the bulk job") as own:
            await self._session.conn.execute(_SQL["forget"], own)

    async def earlier(self) -> list[EarlierJob]:
        """Return the jobs of earlier runs that were never deleted at the server, newest first."""
        async with self._session.transaction("reading earlier bulk jobs") as own:
            found = await self._session.conn.execute(_SQL["earlier"], own)
            return [EarlierJob(run=row[0], job=_job(row[1:-1]), stored=row[-1]) async for row in found]

    async def settle_earlier(self, run: int) -> None:
        """Note that an earlier run's job is gone from the server."""
        async with self._session.transaction("noting a deleted bulk job") as own:
            await self._session.conn.execute(_SQL["settle_earlier"], {**own, "earlier": run})

    async def last_kicked_off(self) -> datetime | None:
        """Return when this connection last kicked off an export of the same selection."""
        async with self._session.transaction("reading earlier bulk jobs") as own:
            row = await (await self._session.conn.execute(_SQL["last_kicked_off"], own)).fetchone()
        return row[0] if row else None

    async def patients_without_data(self, patients: Sequence[str]) -> list[str]:
        """Return the patients whose Patient this run has not received."""
        async with self._session.transaction("comparing patients") as own:
            found = await self._session.conn.execute(_SQL["patients_without_data"], {**own, "patients": list(patients)})
            return [row[0] async for row in found]

    async def patients_without_rows(self, patients: Sequence[str]) -> list[str]:
        """Return the patients of whose charts this run has received nothing."""
        async with self._session.transaction("comparing patients") as own:
            found = await self._session.conn.execute(_SQL["patients_without_rows"], {**own, "patients": list(patients)})
            return [row[0] async for row in found]

    async def never_stored(self, patients: Sequence[str]) -> list[str]:
        """Return those of these patients of whose charts no run has stored anything."""
        async with self._session.transaction("comparing patients") as own:
            found = await self._session.conn.execute(_SQL["never_stored"], {**own, "patients": list(patients)})
            return [row[0] async for row in found]

    async def planned_types(self, kinds: Sequence[UnitKind]) -> list[str]:
        """Return the types of the run's units of these kinds."""
        async with self._session.transaction("reading the ledger") as own:
            found = await self._session.conn.execute(
                _SQL["planned_types"], {**own, "kinds": [kind.value for kind in kinds]}
            )
            return [row[0] async for row in found]

    async def received_types(self) -> list[str]:
        """Return the types of which the run's files have brought something."""
        async with self._session.transaction("reading what came") as own:
            return [row[0] async for row in await self._session.conn.execute(_SQL["received_types"], own)]

    async def planned_files(self, page: int) -> list[Unit]:
        """Return the files of one manifest page that are units of the run, in the order in which they were planned."""
        async with self._session.transaction("reading the ledger") as own:
            found = await self._session.conn.execute(_SQL["planned_files"], {**own, "page": page})
            return [
                Unit(key=key, kind=kind, resource_type=resource_type, template=template, detail=detail, page=of_page)
                async for key, kind, resource_type, template, detail, of_page in found
            ]

    async def vanished_types(self) -> list[str]:
        """Return the types that had files in earlier exports of this selection, but have none in this one."""
        async with self._session.transaction("comparing types") as own:
            return [row[0] async for row in await self._session.conn.execute(_SQL["vanished"], own)]


def evidence_of(job: BulkJob) -> datetime | None:
    """Return the instant up to which an export knows the EHR, by its clock; None: not stated, or too far back to be believed."""
    found = moment(job.transaction_time, zoned=True)
    if found is None or found < job.kicked_off_at - _OLDEST_EXPORT:
        return None
    return found


def _job(row: Sequence[Any]) -> BulkJob:
    names = (
        "status_url", "kicked_off_at", "request", "transaction_time", "manifest_complete", "deleted", "asked", "elements",
        "progress", "next_poll_at", "expires_at",
    )  # fmt: skip
    return BulkJob(**dict(zip(names, row[:-1], strict=True)), pages=tuple(row[-1]))
