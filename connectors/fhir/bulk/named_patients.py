"""The named patients of an export: who they are, whom the server does not know, and who did not come.

Each is a unit of its own, so that one who is missing is a hole. How they are written into the kick-off is `kick_off`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import anyio

from connectors.core.errors import AuthError, FetchError, PlanError
from connectors.core.pipeline import Fetched
from connectors.fhir.capability import Capability
from connectors.fhir.cohort.finder import CohortFinder
from connectors.fhir.profile import BulkLevel
from connectors.fhir.run import EhrRun
from connectors.fhir.search.gathering import PageGatherer
from connectors.fhir.search.search import SearchFetcher
from connectors.fhir.search.since import FULL
from connectors.fhir.search.units import UnitPlan
from snapshots.record import Batch
from snapshots.unit import Ending, Unit, UnitResult, UnitState, unit_key
from snapshots.witness import Deletion, Said

_UNKNOWN = frozenset({Ending.NOT_FOUND, Ending.GONE})
_NOBODY = "The cohort names no patient that this EHR knows: check its ids, or its cohort_system."


async def named_patients(run: EhrRun, level: BulkLevel) -> tuple[str, ...]:
    """The patients to name, each a unit: that one was not exported at all shows at the end.

    Raises:
        PlanError: there is none.
    """
    cohort = run.request.cohort
    if level != "patient-list" or cohort is None:
        return ()
    patients, unresolved = cohort.values, 0
    if cohort.stored:
        patients = tuple(one.id for one in await run.store.roster.stored_patients() if one.has_chart)
    if cohort.identifier_system is not None:
        finder = CohortFinder(run.client, run.request.base_url, run.request.profile)
        found = await finder.by_identifier(cohort.identifier_system, cohort.values)
        run.notes += found.notes
        patients, unresolved = found.patients, found.unresolved
    if not patients:
        raise PlanError(_NOBODY)
    keys = [_key(patient) for patient in patients] + ([unit_key("cohort", "unresolved")] if unresolved else [])
    await run.store.plan(
        Unit(key=key, kind="cohort", resource_type="Patient", patient_id=patient)
        for key, patient in zip(keys, (*patients, None), strict=False)
    )
    return patients


async def known_patients(run: EhrRun, capability: Capability, patients: Sequence[str]) -> tuple[str, ...]:
    """Whom of these the server knows, after it has refused them all; the others are holes, found as a crawl finds them.

    Who cannot be asked about is kept: only a clear word says that somebody is not there.

    Raises:
        PlanError: it knows nobody.
    """
    run.show("looking for the patients that the server does not know")
    unknown: dict[str, UnitResult] = {}
    limit = anyio.CapacityLimiter(run.request.profile.limits.max_concurrency)
    plan = UnitPlan(("Patient",), run.request.profile, capability, FULL)
    search = SearchFetcher(PageGatherer(run.client, run.request.base_url, run.request.profile, capability=capability))

    async def ask(unit: Unit) -> None:
        came: set[str] = set()

        async def take(fetched: Fetched) -> None:
            came.update(record.id for record in fetched.records)

        result = None
        async with limit:
            with suppress(FetchError, AuthError):  # who is not told of is asked alone, and then kept
                result = await search.fetch(unit, take)
        if unit.patient_id is None:
            for one in unit.ids:
                if one not in came:
                    await ask(plan.patient(one))
        elif result is not None and result.ended in _UNKNOWN:
            unknown[unit.patient_id] = result

    async with anyio.create_task_group() as tasks:
        for unit in plan.patients(patients):
            tasks.start_soon(ask, unit)
    known = tuple(one for one in patients if one not in unknown)
    if not unknown:
        return known
    if not known:
        raise PlanError(_NOBODY)
    results = [
        UnitResult(key=_key(one), state=UnitState.FAILED, reason=f"not exported: {result.reason}", ending=result.ended)
        for one, result in unknown.items()
    ]
    gone = [Deletion("Patient", one, Said.GONE) for one, result in unknown.items() if result.ended is Ending.GONE]
    await run.store.write(Batch(results=results, deletions=gone))
    _count(run, results)
    run.notes.append(f"patients that the server does not know, left out of the export: {len(unknown):,}")
    return known


async def check_patients(run: EhrRun) -> None:
    """Named patients of whom no Patient came are holes: an id that the server does not know passes for one without data.

    News need not bring the Patient of somebody whom the store has.
    """
    units = await run.store.pending(kinds=("cohort",))
    if not units:
        return
    absent = set(await run.store.jobs.patients_without_data([unit.patient_id for unit in units if unit.patient_id]))
    if not run.is_full:
        absent -= {one.id for one in await run.store.roster.stored_patients() if one.alive}
    named_types = run.request.types
    results = []
    for unit in units:
        wanted = unit.patient_id in absent and (not named_types or "Patient" in named_types)
        gone = unit.patient_id is None or wanted
        reason = (
            "the export has no Patient with this id"
            if unit.patient_id
            else "cohort entries named no patient, or several"
        )
        results.append(
            UnitResult(
                key=unit.key,
                state=UnitState.FAILED if gone else UnitState.SETTLED,
                reason=reason if gone else None,
            )
        )
    await run.store.write(Batch(results=results))
    _count(run, results)


def _count(run: EhrRun, results: Sequence[UnitResult]) -> None:
    """Count how they ended, as holes but not as files: the export's files are all there."""
    run.settled(results, 0)
    run.failed_units -= sum(result.state is UnitState.FAILED for result in results)


def _key(patient: str) -> str:
    return unit_key("cohort", patient)
