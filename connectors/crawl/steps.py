"""The steps of a run that fetches by search: find the patients, plan a unit a patient and type, fetch them all.

Each piece knows its own trade (`cohort`, `search`); here they are put in order. A resumed run finds its units in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain

from connectors.capability import Capability
from connectors.crawl.cohort import Cohort, CohortFinder
from connectors.crawl.search import SearchFetcher
from connectors.errors import ConnectorError, PlanError
from connectors.pipeline import run_units
from connectors.plan import crawl_since, crawl_types, directory_units, patient_units
from connectors.profile import VendorProfile
from connectors.run import Readable, Run, instant
from snapshots.record import Batch, Unit, UnitResult, UnitState

SEARCH_KINDS = ("search", "read")
_BUFFER = 32  # pieces between the fetchers and the writer: a page each, a few kB to a few MB
_UNITS_AT_ONCE = 5_000  # of the ledger in memory
_WORKERS_PER_SLOT = 2  # while one worker parses and hands on, another uses its slot: keeps the semaphore full


async def fetch_by_crawl(run: Run, capability: Capability, readable: Readable, since: Mapping[str, str]) -> str | None:
    """Find the patients, fetch their charts and store them; gives the watermark that this earns: the run's begin less overlap.

    Raises:
        PlanError: it is not said which patients, and the server lists none.
        FetchError: the patients could not be found out. A unit that fails is a hole, and raises nothing.
    """
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
        units = chain(
            [listed] if listed else [],
            _unresolved(cohort),
            directory_units(() if request.kind == "pull" else plan.directory, profile, by_type),
            patient_units(
                cohort.patients,
                types,
                profile,
                capability,
                by_type,
                expected={*request.types, *await run.store.received_types()},
                check_patients=request.cohort is not None,
            ),
        )
        run.notes += cohort.notes
        run.progress.units = await run.store.plan(units)
        results = [*([listing.result] if listing else []), *_unresolved_results(cohort)]
        await run.store.write(Batch(results=results))
        run.settled(results, 0)
    await _fetch(run)
    return instant(run.store.started_at - timedelta(seconds=profile.overlap_s))


async def _fetch(run: Run) -> None:
    """Every unit that is pending, some thousands at a time: a ledger may be larger than memory."""
    search = SearchFetcher(run.client, run.request.base_url, run.request.profile)
    before: list[Unit] = []
    while pending := await run.store.pending(_UNITS_AT_ONCE, SEARCH_KINDS):
        if pending == before:
            raise ConnectorError("The store does not settle what was fetched: the same units are pending again.")
        run.progress.units = max(run.progress.units, run.progress.units_done + len(pending))
        run.show("fetching charts")
        await run_units(
            pending,
            search.fetch,
            run.store,
            workers=run.request.profile.max_concurrency * _WORKERS_PER_SLOT,
            buffer=_BUFFER,
            on_batch=run.settled,
            inspect=run.inspect,
        )
        before = pending
    run.notes += search.notes()


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


async def _cohort(run: Run, finder: CohortFinder) -> tuple[Cohort, _Listing | None]:
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
