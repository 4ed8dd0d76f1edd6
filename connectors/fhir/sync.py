"""The use case: one run of one connection, from discovery to the report. A pull is the same with a cohort of one.

Reads as DESIGN's "Sync" paragraph: lock → capability → log in → plan → units in the ledger → fetch → settle → report. Objects
are built by `cli.wiring`; requests are sent by `transport.client`; rows are written by the store behind `store_port`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

from connectors.core.errors import AuthError, ConnectorError
from connectors.core.run import Progress
from connectors.fhir.auth.login import log_in_as_registered
from connectors.fhir.bulk.levels import NoExportHereError, fetch_at_some_level
from connectors.fhir.capability import Capability
from connectors.fhir.confirmation import confirm_absences
from connectors.fhir.crawl.steps import crawl_knowledge, fetch_by_crawl
from connectors.fhir.errors import TransientFetchError
from connectors.fhir.instants import CLOCKS_DIFFER
from connectors.fhir.linked.attachments import fetch_attachments
from connectors.fhir.linked.notices import Notices
from connectors.fhir.linked.reference_paths import followed_types
from connectors.fhir.linked.references import follow_references, reference_finder
from connectors.fhir.memories import EhrRunStore
from connectors.fhir.metadata import declared
from connectors.fhir.patients.compartment import PATIENT_COMPARTMENT
from connectors.fhir.plan import bulk_types, choose_mode, crawl_types
from connectors.fhir.run import CohortSource, EhrProgress, EhrRun, LogIn, Readable, SyncRequest
from connectors.fhir.transport.client import EhrClient
from snapshots.instants import moment
from snapshots.report import RunReport, RunScope

if TYPE_CHECKING:
    from connectors.fhir.validation import Validator

__all__ = ["CohortSource", "EhrProgress", "SyncRequest", "run_scope", "sync"]

OpenRun = Callable[[RunScope, Callable[[], datetime]], AbstractAsyncContextManager[EhrRunStore]]


def run_scope(request: SyncRequest) -> RunScope:
    """What identifies this request among runs: equal scopes list the same things. A cohort is named by its hash."""
    mode = request.profile.mode if request.mode == "auto" else request.mode
    if request.group is not None and (mode == "bulk" or request.cohort is None):
        selection = f"group:{request.group}"
    elif request.cohort is not None:
        selection = request.cohort.selection(mode)
    else:
        selection = "all"
    selection += request.bulk.selection if mode != "crawl" else ""
    since = {} if request.since in {"auto", "none"} else {"*": request.since}
    return RunScope(
        connection=request.connection,
        kind=request.kind,
        mode=mode,
        selection=selection,
        types=request.types,
        since=since,
        cohort=request.cohort.digest if request.cohort is not None else "",
        everything=request.since == "none" and request.kind == "sync",
        base_url=request.base_url,
        ignored=request.profile.changes.ignored,
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
    """Do one run, or resume the one that a crash left, and report it.

    Trouble with the EHR is in the report; errors of the store propagate. `log_in` takes the types that need scopes, and returns
    which types the token may read.
    """
    validator = _validator(request)
    notices = Notices(
        attached=request.profile.attachments.fetch, inspect=None if validator is None else validator.inspect
    )
    async with open_run(run_scope(request), now) as store:
        run = EhrRun(
            request=request,
            client=client,
            store=store,
            now=now,
            sleep=sleep,
            on_progress=on_progress,
            progress=EhrProgress(connection=request.connection),
            notices=notices,
        )
        run.notes += _left_behind(store)
        await run.keep_notes()
        client.restore(await store.pace.load())
        try:
            earned = await _fetch_all(run, notices, log_in)
        except ConnectorError as error:
            await run.keep_pace()
            job = await store.jobs.current()
            alive = job is not None and job.status_url is not None and not job.deleted
            if alive and isinstance(error, TransientFetchError):
                return _suspended(run, error)
            return await store.fail(reason=str(error), traffic=run.uncounted, notes=run.notes)
        await run.keep_pace()
        if validator is not None:
            run.notes += validator.notes_of(await store.counted())
        run.show("closing")
        return await store.finish(
            watermark=earned.watermark if request.kind == "sync" else None,
            traffic=run.uncounted,
            notes=run.notes,
            overlap=earned.overlap,
        )


def _validator(request: SyncRequest) -> Validator | None:
    if request.validate == "off":
        return None
    from connectors.fhir.validation import Validator  # 0.4 s to import: only for those who ask for it

    return Validator(request.validate)


class _Earned(NamedTuple):
    """How far the run's watermarks may go, and, where dates bound them, how far before the newest."""

    watermark: str | None
    overlap: timedelta | None


async def _fetch_all(run: EhrRun, notices: Notices, log_in: LogIn) -> _Earned:
    """The steps between the lock and the report; they give the watermark that the run earns."""
    run.show("reading what the server offers")
    capability = await _capability(run)
    request = run.request
    mode = choose_mode(
        request.mode, request.profile, capability, group=request.group, has_cohort=request.cohort is not None
    )
    if request.logs_in:
        run.show("logging in")
    readable = await _logged_in(run, log_in, *types_for_scopes(request, capability, mode))
    run.notes += await _namesakes(run)
    notices.mentions = reference_finder(run, capability, readable)
    earned = await _fetch_listings(run, mode, capability, readable)
    try:
        if notices.mentions is not None:
            await follow_references(run, capability, readable, notices.mentions.resolver)
        await fetch_attachments(run, readable)
    except AuthError as error:  # charts came in under this login: what is left of the rest is this run's holes
        run.notes.append(f"references and attachments were not fetched: {error}")
    await confirm_absences(run, capability)
    return earned


def _left_behind(store: EhrRunStore) -> list[str]:
    """Say so where nothing of what the last runs left is gone on with, since the EHR has another address now."""
    runs, jobs = store.left_behind
    if not runs and not jobs:
        return []
    what = [f"{jobs} export job{'s' if jobs > 1 else ''}"] if jobs else []
    what += [f"{runs} open run{'s' if runs > 1 else ''}"] if runs else []
    verb = "is" if runs + jobs == 1 else "are"
    return [
        (
            f"base_url has changed since the last run: {' and '.join(what)} of the old address {verb} given up, and this run "
            "starts over; what was stored stays"
        )
    ]


async def _namesakes(run: EhrRun) -> list[str]:
    """Say so where another connection of this store has the same EHR: a connection that was renamed begins from nothing."""
    others = await run.store.knowledge.namesakes()
    if not others:
        return []
    known = ", ".join(others)
    return [
        (
            f"this connection is new to the store, which has {known} at the same base_url: if you renamed it, give it its old "
            "name again; otherwise the store keeps everything twice"
        )
    ]


async def _fetch_listings(
    run: EhrRun, mode: Literal["bulk", "crawl"], capability: Capability, readable: Readable
) -> _Earned:
    granted = tuple(
        t for t in sorted({*PATIENT_COMPARTMENT, *run.request.profile.search.directory_types}) if readable(t)
    )
    if mode == "bulk":
        try:
            watermark = await fetch_at_some_level(
                run, capability, readable, granted, lambda: _since(run, granted, mode)
            )
        except NoExportHereError as error:
            run.notes.append(f"{error} The declared export does not exist: crawled instead.")
        else:
            return _Earned(watermark, None)
    dated = run.request.profile.changes.incremental
    await run.store.knowledge.speak_for(crawl_knowledge(run), granted, notes_dates=dated)
    watermark = await fetch_by_crawl(run, capability, readable, await _since(run, granted, "crawl"))
    profile = run.request.profile
    return _Earned(watermark, timedelta(seconds=profile.changes.overlap_s) if profile.changes.incremental else None)


async def _capability(run: EhrRun) -> Capability:
    """What the server offers. Where it fails on the question, bulk or crawl is settled without it, or the run fails."""
    found = await declared(run.client)
    if found.note:
        run.notes.append(found.note)
    if found.unasked is not None:
        run.request = await _settled(run, found.unasked)
    return found.capability


async def _settled(run: EhrRun, unasked: TransientFetchError) -> SyncRequest:
    """Return the request with a mode: its own, the profile's, or that of the selection's last run.

    Raises:
        TransientFetchError: none of them has one, and a guess could fetch everything in the wrong way.
    """
    request = run.request
    by_patient = request.cohort is not None and request.group is None
    if request.mode != "auto" or request.profile.mode != "auto" or by_patient:
        return request
    last = await run.store.knowledge.last_mode()
    if last is None:
        raise TransientFetchError(
            f"{unasked}. Without it nobody can tell whether to export in bulk or to crawl, and no earlier run did: set "
            '`mode = "crawl"` or `mode = "bulk"` in the connection, or sync again later.',
            status=unasked.status,
            codes=unasked.codes,
        )
    run.notes.append(f"fetched by {last}, as in the last run of this selection")
    return replace(request, mode=last)


async def _logged_in(run: EhrRun, log_in: LogIn, needed: tuple[str, ...], referred: tuple[str, ...]) -> Readable:
    """Log in, and note which types the app is not registered for."""
    readable, refused = await log_in_as_registered(log_in, needed, referred)
    if refused:
        run.notes.append(
            f"the login grants no scopes for what charts refer to ({', '.join(sorted(set(refused)))}): add them to the app's "
            "registration, or set the connection's scopes"
        )
    return readable


def types_for_scopes(
    request: SyncRequest, capability: Capability, mode: Literal["bulk", "crawl"]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The types that the login asks scopes for, and those that charts refer to; none at all where a wildcard covers them."""

    def everything(resource_type: str) -> bool:
        return bool(resource_type)

    if request.profile.login.scope_wildcards and not request.types:
        return (), ()  # what a server declares is not all that it exports: bulk servers list Patient and Group only
    referred = followed_types(request.types, request.profile, capability, everything)
    if request.profile.attachments.fetch and ("Binary" in capability.search_params or not capability.search_params):
        referred = (*referred, "Binary")
    if mode == "bulk":
        exported = bulk_types(request.types, request.profile, everything).types
        return (exported, tuple(t for t in referred if t not in exported)) if exported else ((), ())
    plan = crawl_types(request.types, request.profile, capability, everything)
    group = ("Group",) if request.group is not None and request.cohort is None else ()
    # of a cohort each Patient is read, if only to see that there is one
    named = request.cohort is not None or request.group is not None
    patient = ("Patient",) if named and "Patient" not in plan.types else ()
    needed = (*plan.types, *plan.directory, *group, *patient)
    return needed, tuple(t for t in referred if t not in needed)


async def _since(run: EhrRun, granted: Sequence[str], mode: Literal["bulk", "crawl"]) -> Mapping[str, str]:
    """Per type, or "*" for all, the instant to ask from; empty for a full listing, the only one that can see deletions."""
    request, profile = run.request, run.request.profile
    if request.since == "none" or request.kind == "pull":
        return {}
    if request.since != "auto":
        return {"*": request.since}
    if not profile.changes.incremental:
        return {}
    last = await run.store.knowledge.last_full_listing(granted)
    if last is None or run.now() - last > timedelta(days=profile.changes.reconcile_every_d):
        return {}
    watermarks = await run.store.knowledge.watermarks(held_back=mode == "crawl")
    # what was known up to an instant that has not come was dated by a clock that was wrong, or set back: news since would be none
    latest = run.now() + timedelta(seconds=run.client.ahead_s - run.client.behind_s) + CLOCKS_DIFFER
    if any(found is not None and found > latest for found in map(moment, watermarks.values())):
        run.notes.append("an earlier run is dated ahead of the clocks, or the EHR's clock was set back: listed in full")
        return {}
    return watermarks


def _suspended(run: EhrRun, error: TransientFetchError) -> RunReport:
    """The EHR went away while its export job lives: the run stays open, and the next sync goes on with the job."""
    return RunReport(
        id=run.store.id,
        connection=run.request.connection,
        kind=run.request.kind,
        status="failed",
        mode="bulk",
        notes=tuple(run.notes),
        requests=run.client.requests,
        retries=run.client.retries,
        retries_spent=run.traffic.spent,
        retries_left=run.traffic.left,
        down_until=run.down_until,
        seconds=(run.now() - run.store.started_at - run.store.idle).total_seconds(),
        error=f"{str(error).rstrip('.')}. The export job is kept: the next sync of this connection resumes it.",
    )
