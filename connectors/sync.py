"""The use case: one run of one connection, from discovery to the report. A pull is the same with a cohort of one.

Reads as DESIGN's "Sync" paragraph: lock → capability → log in → plan → units in the ledger → fetch → settle → report. Objects
are built by `cli.wiring`; requests are sent by `transport.client`; rows are written by the store behind `store_port`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

import orjson

from connectors.bulk.download import FileFetcher
from connectors.bulk.export_job import ExportJob
from connectors.capability import Capability, capability_from
from connectors.crawl.cohort import Cohort, CohortFinder
from connectors.crawl.search import SearchFetcher
from connectors.errors import ConnectorError, PlanError, TerminalFetchError, TransientFetchError
from connectors.pipeline import run_units
from connectors.plan import (
    KickOff,
    bulk_level,
    bulk_types,
    choose_mode,
    crawl_since,
    crawl_types,
    directory_units,
    kick_off,
    patient_units,
)
from connectors.profile import Mode, VendorProfile
from connectors.store_port import RunStore
from connectors.transport.call import Call
from connectors.transport.client import EhrClient
from snapshots.record import Batch, BulkJob, Record, RunReport, RunScope, Unit, UnitResult, UnitState

if TYPE_CHECKING:
    from connectors.validation import Validator

# the piece buffer between fetchers and writer: bulk pieces are about 1 MB, crawl pages a few kB to a few MB
_BULK_BUFFER, _CRAWL_BUFFER = 8, 32
_NO_OPERATION = frozenset({404, 405, 501})
_WORKERS_PER_SLOT = 2  # while one worker parses and hands on, another uses its slot: keeps the semaphore full

Readable = Callable[[str], bool]
LogIn = Callable[[tuple[str, ...]], Awaitable[Readable]]
OpenRun = Callable[[RunScope], AbstractAsyncContextManager[RunStore]]


@dataclass(frozen=True, kw_only=True)
class CohortSource:
    """Which patients a crawl is for, as configured: ids, or MRNs of one identifier system."""

    values: tuple[str, ...]
    identifier_system: str | None = None


@dataclass(frozen=True, kw_only=True)
class SyncRequest:
    """One run to do. Everything that a flag may override stands here, already resolved."""

    connection: str
    base_url: str
    profile: VendorProfile
    kind: Literal["sync", "pull"] = "sync"
    mode: Mode = "auto"
    since: str = "auto"  # "auto" | "none" | an instant
    types: tuple[str, ...] = ()
    group: str | None = None
    cohort: CohortSource | None = None
    validate: Literal["off", "sample", "all"] = (
        "off"  # against FHIR R4B; what is not valid is noted, and stored all the same
    )


@dataclass(kw_only=True)
class Progress:
    """How far a run is; the same object is passed at every step."""

    connection: str
    phase: str = "starting"
    units_done: int = 0
    units: int = 0
    records: int = 0
    requests: int = 0
    retries: int = 0


@dataclass(kw_only=True)
class _Run:
    """What the steps of one run share."""

    request: SyncRequest
    client: EhrClient
    store: RunStore
    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]
    on_progress: Callable[[Progress], None]
    progress: Progress
    validator: Validator | None = None
    failed_units: int = 0
    notes: list[str] = field(default_factory=list)

    def inspect(self, records: Sequence[Record]) -> None:
        if self.validator is not None:
            self.validator.inspect(records)

    def show(self, phase: str | None = None) -> None:
        self.progress.phase = phase or self.progress.phase
        self.progress.requests, self.progress.retries = self.client.requests, self.client.retries
        self.on_progress(self.progress)

    def settled(self, results: Sequence[UnitResult], records: int) -> None:
        self.failed_units += sum(result.state is UnitState.FAILED for result in results)
        self.progress.units_done += len(results)
        self.progress.records += records
        self.show()


def run_scope(request: SyncRequest) -> RunScope:
    """What identifies this request among runs: equal scopes list the same things. A cohort is named by its hash."""
    mode = request.profile.mode if request.mode == "auto" else request.mode
    if request.group is not None and (mode == "bulk" or request.cohort is None):
        selection = f"group:{request.group}"
    elif request.cohort is not None:
        text = "\n".join((request.cohort.identifier_system or "", *sorted(request.cohort.values)))
        selection = f"patients:{sha256(text.encode()).hexdigest()[:16]}"
    else:
        selection = "all"
    since = {} if request.since in {"auto", "none"} else {"*": request.since}
    return RunScope(
        connection=request.connection,
        kind=request.kind,
        mode=mode,
        selection=selection,
        types=request.types,
        since=since,
    )


async def sync(
    request: SyncRequest,
    client: EhrClient,
    open_run: OpenRun,
    log_in: LogIn,
    *,
    now: Callable[[], datetime],
    sleep: Callable[[float], Awaitable[None]],
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> RunReport:
    """Do one run, or go on with the one that a crash left, and report it.

    A report always comes back where the EHR was the trouble; what the store raises is let through. `log_in` is given the types
    that scopes are needed for, and gives back which types the token may read.
    """
    async with open_run(run_scope(request)) as store:
        run = _Run(
            request=request,
            client=client,
            store=store,
            now=now,
            sleep=sleep,
            on_progress=on_progress,
            progress=Progress(connection=request.connection),
            validator=_validator(request),
        )
        try:
            watermark = await _fetch_all(run, log_in)
        except ConnectorError as error:
            job = await store.bulk_job()
            if job is not None and not job.deleted and isinstance(error, TransientFetchError):
                return _suspended(run, error)
            return await store.fail(
                reason=str(error), requests=client.requests, retries=client.retries, notes=run.notes
            )
        if run.validator is not None:
            run.notes += run.validator.notes()
        run.show("closing")
        return await store.finish(
            watermark=watermark if request.kind == "sync" else None,
            requests=client.requests,
            retries=client.retries,
            notes=run.notes,
        )


def _validator(request: SyncRequest) -> Validator | None:
    if request.validate == "off":
        return None
    from connectors.validation import Validator  # 0.4 s to import: only for those who ask for it

    return Validator(request.validate)


async def _fetch_all(run: _Run, log_in: LogIn) -> str | None:
    """The steps between the lock and the report; they give the watermark that the run earns."""
    request = run.request
    run.show("asking what the server offers")
    capability = await _capability(run)
    mode = choose_mode(
        request.mode, request.profile, capability, group=request.group, has_cohort=request.cohort is not None
    )
    run.show("logging in")
    readable = await log_in(_types_for_scopes(request, capability, mode))
    since = await _since(run)
    if mode == "crawl":
        return await _crawl(run, capability, readable, since)
    try:
        return await _bulk(run, capability, readable, since)
    except _NoExportHereError as error:
        run.notes.append(f"{error} The declared export does not exist: crawled instead.")
        return await _crawl(run, capability, readable, since)


async def _capability(run: _Run) -> Capability:
    """GET /metadata, which needs no token; a server that will not show it is planned for by the profile alone."""
    call = Call(
        method="GET", url=f"{run.request.base_url}/metadata", template="GET /metadata", purpose="discovery", auth=False
    )
    try:
        reply = await run.client.send(call)
        return capability_from(orjson.loads(reply.body))
    except TerminalFetchError as error:
        run.notes.append(
            f"the server shows no CapabilityStatement (HTTP {error.status}): planned by the vendor profile alone"
        )
    except orjson.JSONDecodeError:
        run.notes.append("the server's CapabilityStatement is not JSON: planned by the vendor profile alone")
    return Capability()


def _types_for_scopes(request: SyncRequest, capability: Capability, mode: Literal["bulk", "crawl"]) -> tuple[str, ...]:
    """The types that the login asks scopes for: what would be asked if everything were granted."""

    def everything(resource_type: str) -> bool:
        return bool(resource_type)

    if request.profile.scope_wildcards and not request.types:
        return ()  # what a server declares is not all that it exports: bulk servers list Patient and Group only
    if mode == "bulk":
        return bulk_types(request.types, request.profile, everything).types
    plan = crawl_types(request.types, request.profile, capability, everything)
    group = ("Group",) if request.group is not None and request.cohort is None else ()
    patient = (
        ("Patient",) if request.cohort is not None and "Patient" not in plan.types else ()
    )  # to check that they exist
    return (*plan.types, *plan.directory, *group, *patient)


async def _since(run: _Run) -> Mapping[str, str]:
    """Per type, or "*" for all, the instant to ask from; empty for a full listing, the only one that can see deletions."""
    request, profile = run.request, run.request.profile
    if request.since == "none" or request.kind == "pull":
        return {}
    if request.since != "auto":
        return {"*": request.since}
    if not profile.incremental:
        return {}
    last = await run.store.last_full_listing()
    if last is None or run.now() - last > timedelta(days=profile.reconcile_every_d):
        return {}
    return await run.store.watermarks()


async def _bulk(run: _Run, capability: Capability, readable: Readable, since: Mapping[str, str]) -> str | None:
    request, store = run.request, run.store
    plan = bulk_types(request.types, request.profile, readable)
    run.notes += plan.notes
    level = bulk_level(request.profile, capability, group=request.group)
    if level is None:
        raise PlanError("The server offers no bulk level that this request can use: try --mode crawl.")
    instant = _bulk_since(since, plan.types) if request.profile.bulk_since else None
    export = ExportJob(run.client, request.base_url, request.profile, store, now=run.now, sleep=run.sleep)
    job = await store.bulk_job()
    if job is None:
        run.show(f"kicking off a {level} export")
        asked = kick_off(request.base_url, level, group=request.group, types=plan.types, since=instant)
        job = await _begin(run, export, asked)
    if not job.manifest_complete:
        job = await export.units(
            job,
            types=plan.types,
            incremental=instant is not None,
            on_progress=lambda text: run.show(f"server prepares the export: {text}"),
        )
    await _download(run, export, job)
    note = await _release(run, export, job)
    if note is not None:
        run.notes.append(note)
    return job.transaction_time or _instant(job.kicked_off_at - timedelta(seconds=request.profile.overlap_s))


class _NoExportHereError(ConnectorError):
    """The mode was ours to choose, and the export that the server declares is not there."""


async def _begin(run: _Run, export: ExportJob, asked: KickOff) -> BulkJob:
    try:
        return await export.begin(asked, lambda text: run.show(f"waiting to kick off: {text}"))
    except TerminalFetchError as error:
        chosen_by_us = run.request.mode == "auto" and run.request.profile.mode == "auto"
        if chosen_by_us and error.status in _NO_OPERATION and asked.level != "group":
            raise _NoExportHereError(str(error)) from error
        raise


async def _release(run: _Run, export: ExportJob, job: BulkJob) -> str | None:
    """Delete the export at the server once every file is stored; never while one is missing (Bulk Data IG, "Delete")."""
    if run.failed_units:
        return f"the export is kept at the server, since {run.failed_units} of its files could not be stored"
    return await export.delete(job)


async def _download(run: _Run, export: ExportJob, job: BulkJob) -> None:
    """Every file; deletions only after all data (Bulk Data IG: a deleted resource is never in `output` too)."""

    async def refresh(unit: Unit) -> str | None:
        return await export.refreshed_url(job, unit)

    files = FileFetcher(run.client, run.request.profile, refresh, sleep=run.sleep, note=run.notes.append)
    pending = await run.store.pending()
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
            buffer=_BULK_BUFFER,
            on_batch=run.settled,
            inspect=run.inspect,
        )


def _bulk_since(since: Mapping[str, str], types: tuple[str, ...]) -> str | None:
    """One instant for one kick-off: the oldest of the types' watermarks; none if a wanted type has no watermark yet."""
    if not since or any(t not in since and "*" not in since for t in types):
        return None  # `last_full_listing` has seen to it that without types the last full listing was without types too
    return min(since.values())


async def _crawl(run: _Run, capability: Capability, readable: Readable, since: Mapping[str, str]) -> str | None:
    request, profile = run.request, run.request.profile
    plan = crawl_types(request.types, profile, capability, readable)
    run.notes += plan.notes
    if not run.store.planned:
        by_type = _crawl_since(since, (*plan.types, *plan.directory), capability, profile)
        whole = [t for t in plan.types if t not in by_type] if since else []
        if whole:
            run.notes.append(f"listed whole, since this server takes no date for them: {', '.join(whole)}")
        finder = CohortFinder(run.client, request.base_url, profile)
        run.show("finding the patients")
        cohort, listing = await _cohort(run, finder)
        listed = listing.unit if listing else None
        types = tuple(t for t in plan.types if not (listed and t == "Patient"))
        units = [
            *([listed] if listed else []),
            *directory_units(() if request.kind == "pull" else plan.directory, profile, by_type),
            *patient_units(
                cohort.patients,
                types,
                profile,
                capability,
                by_type,
                named=bool(request.types),
                check_patients=request.cohort is not None,
            ),
        ]
        run.notes += cohort.notes
        await run.store.plan([*units, *_unresolved(cohort)])
        results = [*([listing.result] if listing else []), *_unresolved_results(cohort)]
        await run.store.write(Batch(results=results))
    pending = await run.store.pending()
    run.progress.units = len(pending)
    run.show("fetching charts")
    search = SearchFetcher(run.client, request.base_url, profile)
    await run_units(
        [unit for unit in pending if unit.kind != "cohort"],
        search.fetch,
        run.store,
        workers=profile.max_concurrency * _WORKERS_PER_SLOT,
        buffer=_CRAWL_BUFFER,
        on_batch=run.settled,
        inspect=run.inspect,
    )
    run.notes += search.notes()
    return _instant(run.store.started_at - timedelta(seconds=profile.overlap_s))


def _crawl_since(
    since: Mapping[str, str], types: tuple[str, ...], capability: Capability, profile: VendorProfile
) -> Mapping[str, str]:
    wanted = dict.fromkeys(types, since["*"]) if "*" in since else since
    return crawl_since(types, profile, capability, wanted)


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """The listing that found the patients gave whole Patients too: a unit that is done before the plan is written."""

    unit: Unit
    result: UnitResult


async def _cohort(run: _Run, finder: CohortFinder) -> tuple[Cohort, _Listing | None]:
    """The patients, and the listing that found them if there was one."""
    request = run.request
    if request.cohort is not None:
        if request.cohort.identifier_system is not None:
            return await finder.by_identifier(request.cohort.identifier_system, request.cohort.values), None
        return Cohort(patients=request.cohort.values), None
    if request.group is not None:
        return await finder.of_group(request.group), None
    if not request.profile.lists_patients:
        raise PlanError(
            f'{request.profile.label} lists no patients: name them with `cohort = "file:…"`, --patients FILE, or a `group`.'
        )
    patients: dict[str, None] = {}
    unreadable = 0
    async for page in finder.everyone():
        patients.update((record.id, None) for record in page.records if record.resource_type == "Patient")
        unreadable += len(page.quarantined)
        run.inspect(page.records)
        await run.store.write(Batch(records=page.records, quarantined=page.quarantined))
        run.settled((), len(page.records))
    detail = {"path": "Patient", "template": "GET /Patient", "split": "", "incremental": False}
    unit = Unit(key="search:Patient:all", kind="search", resource_type="Patient", detail=detail)
    if unreadable:
        reason = f"{unreadable} entries could not be read: see quarantine"
        result = UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason, records=len(patients))
    else:
        result = UnitResult(key=unit.key, state=UnitState.SETTLED, complete_listing=True, records=len(patients))
    return Cohort(patients=tuple(patients)), _Listing(unit=unit, result=result)


def _unresolved(cohort: Cohort) -> list[Unit]:
    """Cohort entries that named no patient are one hole: what they stand for was not fetched."""
    return [Unit(key="cohort:unresolved", kind="cohort", resource_type="Patient")] if cohort.unresolved else []


def _unresolved_results(cohort: Cohort) -> list[UnitResult]:
    reason = f"{cohort.unresolved} cohort entries named no patient, or several: see the run's notes"
    return [UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason) for unit in _unresolved(cohort)]


def _suspended(run: _Run, error: TransientFetchError) -> RunReport:
    """The EHR went away while its export job lives: the run stays open, and the next sync goes on with the job."""
    return RunReport(
        id=run.store.id,
        connection=run.request.connection,
        status="failed",
        mode="bulk",
        resources={},
        patients=0,
        new=0,
        changed=0,
        unchanged=0,
        deleted=0,
        quarantined=0,
        holes=(),
        notes=tuple(run.notes),
        requests=run.client.requests,
        retries=run.client.retries,
        seconds=(run.now() - run.store.started_at).total_seconds(),
        error=f"{error} The export job is kept: the next sync of this connection goes on with it.",
    )


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
