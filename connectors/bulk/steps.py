"""The steps of a run that fetches by bulk export: kick-off, manifest, files, deletion at the server.

Each piece knows its own trade (`export_job`, `download`); here they are put in order. State is the store's: a resumed run goes on
with the job and the files that it finds there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from connectors.bulk.download import FileFetcher
from connectors.bulk.export_job import ExportJob
from connectors.capability import Capability
from connectors.errors import ConnectorError, PlanError, TerminalFetchError
from connectors.pipeline import run_units
from connectors.plan import SINCE, KickOff, bulk_level, bulk_types, kick_off
from connectors.run import Readable, Run, instant
from snapshots.record import Batch, BulkJob, Unit, UnitResult, UnitState

_BUFFER = 8  # pieces between the fetchers and the writer, of about 1 MB each
FILE_KINDS = ("file", "no-file", "deleted-file", "error-file")
_NO_OPERATION = frozenset({404, 405, 501})


async def fetch_by_bulk(run: Run, capability: Capability, readable: Readable, since: Mapping[str, str]) -> str | None:
    """Export, download and store; gives the watermark that this earns: the server's transaction time.

    Raises:
        PlanError: no level fits the request.
        NoExportHereError: the declared export does not exist, and crawling was as good a choice.
        FetchError: the job failed; or, transient, the server stayed away and the job may still live.
    """
    request, store = run.request, run.store
    plan = bulk_types(request.types, request.profile, readable)
    run.notes += plan.notes
    level = bulk_level(request.profile, capability, group=request.group)
    if level is None:
        raise PlanError("The server offers no bulk level that this request can use: try --mode crawl.")
    asked_from = _bulk_since(since, plan.types) if request.profile.bulk_since else None
    export = ExportJob(run.client, request.base_url, request.profile, store, now=run.now, sleep=run.sleep)
    job = await store.jobs.current()
    if job is None:
        run.show(f"kicking off a {level} export")
        asked = kick_off(request.base_url, level, group=request.group, types=plan.types, since=asked_from)
        job = await _begin(run, export, asked)
    if not job.manifest_complete:
        job = await export.units(
            job,
            types=plan.types,
            incremental=SINCE in job.request,  # as it was kicked off: a resumed run may by now decide otherwise
            on_progress=lambda text: run.show(f"server prepares the export: {text}"),
        )
    await _download(run, export, job)
    note = await _release(run, export, job)
    if note is not None:
        run.notes.append(note)
    return job.transaction_time or instant(job.kicked_off_at - timedelta(seconds=request.profile.overlap_s))


class NoExportHereError(ConnectorError):
    """The mode was ours to choose, and the export that the server declares is not there."""


async def _begin(run: Run, export: ExportJob, asked: KickOff) -> BulkJob:
    try:
        return await export.begin(asked, lambda text: run.show(f"waiting to kick off: {text}"))
    except TerminalFetchError as error:
        chosen_by_us = run.request.mode == "auto" and run.request.profile.mode == "auto"
        if chosen_by_us and error.status in _NO_OPERATION and asked.level != "group":
            raise NoExportHereError(str(error)) from error
        raise


async def _release(run: Run, export: ExportJob, job: BulkJob) -> str | None:
    """Delete the export at the server once every file is stored; never while one is missing (Bulk Data IG, "Delete")."""
    if run.failed_units:
        return f"the export is kept at the server, since {run.failed_units} of its files could not be stored"
    await run.store.jobs.save(job)  # a commit that is on the disk, and with it every batch before it
    return await export.delete(job)


async def _download(run: Run, export: ExportJob, job: BulkJob) -> None:
    """Every file; deletions only after all data (Bulk Data IG: a deleted resource is never in `output` too)."""

    async def refresh(unit: Unit) -> str | None:
        return await export.refreshed_url(job, unit)

    files = FileFetcher(run.client, run.request.profile, refresh, sleep=run.sleep, note=run.notes.append)
    pending = await run.store.pending(kinds=FILE_KINDS)
    run.progress.units = len(pending)
    run.show("downloading files")
    nothing = [
        UnitResult(key=unit.key, state=UnitState.SETTLED, complete_listing=not unit.detail["incremental"])
        for unit in pending
        if unit.kind == "no-file"
    ]
    if nothing:
        await run.store.write(Batch(results=nothing))
        run.settled(nothing, 0)
    for kinds in ({"file"}, {"deleted-file", "error-file"}):
        await run_units(
            [unit for unit in pending if unit.kind in kinds],
            files.fetch,
            run.store,
            workers=run.request.profile.file_concurrency,
            buffer=_BUFFER,
            on_batch=run.settled,
            inspect=run.inspect,
        )


def _bulk_since(since: Mapping[str, str], types: tuple[str, ...]) -> str | None:
    """One instant for one kick-off: the oldest of the types' watermarks; none if a wanted type has no watermark yet."""
    if not since or any(t not in since and "*" not in since for t in types):
        return None  # `last_full_listing` has seen to it that without types the last full listing was without types too
    return min(since.values())
