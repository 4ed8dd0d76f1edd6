"""The steps of a run that fetches by bulk export: kick-off, manifest, files, deletion at the server.

Each piece has a module of its own (`export_since`, `start`, `export_job`, `download`, `silent_types`); this one puts them in
order. State is in the store: a resumed run continues with the job and the files that it finds there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import timedelta

from connectors.core.drain import fetch_pending
from connectors.fhir.bulk.deletion import delete_export
from connectors.fhir.bulk.download import FileFetcher
from connectors.fhir.bulk.export_job import ExportJob
from connectors.fhir.bulk.export_since import export_since
from connectors.fhir.bulk.file_links import FileLinks
from connectors.fhir.bulk.kick_off import ExportParameters, check, first_form, proofs_from, wants_partial, with_company
from connectors.fhir.bulk.named_patients import (
    NobodyThereError,
    check_patients,
    known_patients,
    named_patients,
)
from connectors.fhir.bulk.silent_types import first_met, settle_silent_types, vanished
from connectors.fhir.bulk.start import Begun, ExportStart
from connectors.fhir.capability import Capability
from connectors.fhir.instants import CLOCKS_DIFFER
from connectors.fhir.plan import bulk_types
from connectors.fhir.profile import BulkLevel
from connectors.fhir.run import EhrRun, Readable
from connectors.fhir.unit_details import DoubtDetail
from snapshots.export_job import BulkJob
from snapshots.instants import instant, moment
from snapshots.unit import Unit, UnitKind, unit_key


async def fetch_by_bulk(
    run: EhrRun,
    capability: Capability,
    readable: Readable,
    since: Mapping[str, str],
    level: BulkLevel,
    *,
    notes: Sequence[str] = (),
) -> str | None:
    """Export at this level, download and store; return the new watermark: the server's transaction time.

    None: none of the named patients exists any more. `notes` is noted if the server accepts the kick-off.

    Raises:
        ExportRefusedError: the server does not export so; no job has begun.
        RequestError: the job failed; or, transient, the server stayed away and the job may still live.
    """
    store = run.store
    job, answer = await store.jobs.current(), None
    if job is None or job.is_unanswered:
        parameters, merged = await _parameters(run, capability, readable, since, level)
        begun = await _begun(run, capability, parameters, notes, merged)
        if begun is None:
            return None
        job, answer = begun
    proved = proofs_from(job)
    store.knowledge.request_since({"*": proved.since or ""} if proved.incremental else {})
    run.is_full = not proved.incremental
    sleep = run.sleeper("the EHR is preparing the export")
    export = ExportJob(run.client, store, now=run.now, sleep=sleep)
    links = FileLinks(export, job, now=run.now)
    files = FileFetcher(run.client, links, sleep=run.sleeper("a truncated file is fetched again"))
    if answer is not None:
        job = links.job = await export.take_manifest(job, answer)
    while not job.manifest_complete:
        run.show("waiting for the export")
        job = await export.advance(job, lambda text: run.show(f"the server is preparing the export: {text}"))
        links.job = job
        if not job.manifest_complete:
            await _download(run, files, links, {UnitKind.FILE})
    await _heed_clock(run, job)
    await _note_nothing(run)
    await _download(run, files, links, {UnitKind.FILE})
    await settle_silent_types(run, capability, job)
    # deletions only after all data: a deleted resource is never in `output` too (Bulk Data IG)
    await _download(run, files, links, {UnitKind.DELETED_FILE, UnitKind.ERROR_FILE})
    # error files that are holes are here, and the server need not keep them
    run.failed_units -= files.verdicts.lost
    await check_patients(run, capability, proofs_from(job))
    run.notes += [*await vanished(run, job), *await first_met(run, job)]
    await _release(run, job)
    return _watermark(run, job)


async def _parameters(
    run: EhrRun, capability: Capability, readable: Readable, since: Mapping[str, str], level: BulkLevel
) -> tuple[ExportParameters, AbstractSet[str]]:
    """Return what to request, and which of the named patients are merged into others."""
    request, profile, bulk = run.request, run.request.profile, run.request.bulk
    plan = bulk_types(request.types, profile, readable)
    run.notes += [note for note in plan.notes if note not in run.notes]
    named = await named_patients(run, level)
    unmerged = tuple(one for one in named.patients if one not in named.merged)
    parameters = ExportParameters(
        level=level,
        group=request.group if level == "group" else None,
        patients=named.patients,
        types=with_company(plan.types, profile),
        since=await export_since(run, capability, level, since, types=plan.types, patients=unmerged),
        until=bulk.until,
        type_filters=bulk.type_filters,
        elements=bulk.elements,
        include=bulk.include_associated_data,
        organize_by=bulk.organize_by,
        partial=wants_partial(profile, capability),
    )
    if parameters.types != plan.types:
        note = f"{profile.label} refuses {', '.join(plan.types)} alone: {profile.bulk.companion} was requested as well"
        run.notes += [note] if note not in run.notes else []
    check(parameters, profile)
    return parameters, named.merged


async def _begun(
    run: EhrRun,
    capability: Capability,
    parameters: ExportParameters,
    notes: Sequence[str],
    dispensable: AbstractSet[str],
) -> Begun | None:
    """Kick off, and note `notes` if the server accepts it; None: none of the named patients exists any more.

    `dispensable` patients are not named to a server that refuses the export with them.
    """
    run.show(f"kicking off a {parameters.level} export")
    profile = run.request.profile
    start = ExportStart(
        run.client,
        run.store.jobs,
        now=run.now,
        sleep=run.sleep,
        note=run.notes.append,
        on_progress=lambda text: run.show(f"waiting to kick off: {text}"),
        known=lambda patients: known_patients(run, capability, patients, full=parameters.since is None),
    )
    await run.keep_notes()  # a resumed run finds the job, and repeats none of these steps
    try:
        begun = await start.begin(parameters, first_form(profile, capability, parameters), dispensable=dispensable)
    except NobodyThereError as error:
        run.notes.append(str(error))
        return None
    run.notes += notes
    await run.keep_notes()
    return begun


async def _download(run: EhrRun, files: FileFetcher, links: FileLinks, kinds: Collection[UnitKind]) -> None:
    """Fetch every file of these kinds that is known by now, some thousands at a time: a manifest may be larger than memory."""

    def warn(number: int) -> None:
        warning = links.warning(number)
        if warning is not None and warning not in run.notes:
            run.notes.append(warning)

    await fetch_pending(
        run,
        kinds,
        files.fetch,
        doing="downloading files",
        workers=run.request.profile.limits.file_concurrency,
        notice=run.notices.listed,
        let_in=lambda: False,
        on_pending=warn,
    )


async def _note_nothing(run: EhrRun) -> None:
    if not await run.store.jobs.planned_types((UnitKind.FILE, UnitKind.DELETED_FILE, UnitKind.ERROR_FILE)):
        group = (
            ". The Group may be empty, or consist of patients whom this client may not see: check its members at the EHR, and "
            "the connection's `group`"
        )
        run.notes.append(
            "the export's manifest lists no file: the server says that nothing matched; nothing counts as deleted"
            + (group if run.request.group is not None and run.is_full else "")
        )


async def _heed_clock(run: EhrRun, job: BulkJob) -> None:
    """Make a hole of an incremental export that is dated before its own `_since`: the EHR's clock has been set back.

    No incremental export has the rows that were written since and dated before that instant. The next export is a full one.
    """
    proofs = proofs_from(job)
    since, made_at = moment(proofs.since), moment(job.transaction_time)
    if not proofs.incremental or since is None or made_at is None or made_at >= since - CLOCKS_DIFFER:
        return
    doubt = "its transactionTime lies before the `_since` of the request: the EHR's clock was set back; sync again"
    unit = Unit(
        key=unit_key("manifest", "clock"),
        kind=UnitKind.ERROR_FILE,
        resource_type="*",
        template="the manifest's transactionTime",
        detail=DoubtDetail(doubt=doubt, more=True).packed,
    )
    await run.store.plan([unit])
    await run.store.knowledge.forget()


async def _release(run: EhrRun, job: BulkJob) -> None:
    """Delete the export at the server once every file is stored; never while one is missing (Bulk Data IG, "Delete").

    What earlier runs left there goes with it: this export has what they were kept for.
    """
    if run.failed_units:
        if not job.deleted:
            run.notes.append(
                f"the export is kept at the server, because {run.failed_units} of its files could not be stored"
            )
        return
    jobs, profile = run.store.jobs, run.request.profile
    await jobs.save(job)  # a commit that is on the disk, and with it every batch before it
    if not profile.bulk.delete_job:
        return
    refused = None if job.status_url is None else await delete_export(run.client, profile, job.status_url)
    if refused is None:
        await jobs.save(replace(job, deleted=True))
    else:
        run.notes.append(f"the finished export could not be deleted at the server; the next run tries again: {refused}")
    for one in await jobs.earlier():
        if one.job.status_url is not None and await delete_export(run.client, profile, one.job.status_url) is None:
            await jobs.settle_earlier(one.run)


def _watermark(run: EhrRun, job: BulkJob) -> str:
    """The server's transaction time, or `_until` where that lies before it; without both, our kick-off less the overlap."""
    earned = job.transaction_time
    if earned is None:
        earned = instant(job.kicked_off_at - timedelta(seconds=run.request.profile.changes.overlap_s))
        run.notes.append(
            "the manifest's transactionTime is missing, unreadable or ahead of the clocks: the next sync requests changes "
            f"since the kick-off, less {run.request.profile.changes.overlap_s:.0f} s (profile.changes.overlap_s)"
        )
    until = proofs_from(job).until
    if until is None:
        return earned
    bound, reached = moment(until), moment(earned)
    return earned if bound is not None and reached is not None and reached < bound else until
