"""The named patients of an export: who they are, which of them the server does not know, and which did not come.

Each patient is a unit, so a missing one is a hole, unless the server answers a read of the id with a deletion or a merge; a
crawl judges that in the same way. `kick_off` writes the patients into the request.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import anyio

from connectors.core.errors import AuthError, ConnectorError, FetchError, PlanError
from connectors.core.pipeline import Fetched
from connectors.fhir.bulk.kick_off import Proofs
from connectors.fhir.capability import Capability
from connectors.fhir.cohort.finder import CohortFinder
from connectors.fhir.patients.merges import with_survivors
from connectors.fhir.patients.permission import any_readable
from connectors.fhir.profile import BulkLevel
from connectors.fhir.run import EhrRun
from connectors.fhir.search.gathering import PageGatherer
from connectors.fhir.search.search import SearchFetcher
from connectors.fhir.search.since import FULL
from connectors.fhir.search.units import UnitPlan
from connectors.fhir.unit_details import CohortDetail
from snapshots.patient import Alias
from snapshots.record import Batch, Record
from snapshots.unit import Ending, Unit, UnitKind, UnitResult, UnitState, unit_key
from snapshots.witness import AbsentRow, Deletion

_NOT_THERE = frozenset({Ending.NOT_FOUND, Ending.GONE, Ending.MERGED})
_CONTROLS = 3  # members who are read to learn whether a 404 can be believed: some may have been deleted meanwhile
_REFUSED = "the export has no Patient with this id, and the server does not show it to this client (HTTP 403)"
_UNMERGED = (
    "was merged into another patient, and is a separate patient again: the next export is a full one; sync again"
)
_BACK = "was deleted, and is there again: the next export names this patient, and is a full one; sync again"
_MEMBER_NOT_THERE = (
    "a member of the Group whom the server does not have, or has merged: if it has rows of the chart all the same, they may "
    "be missing from the export"
)
_NOBODY = "The cohort names no patient that this EHR knows: check its ids, or its cohort_system."


class NobodyThereError(ConnectorError):
    """None of the named patients exists any more. Each has been judged, and there is nothing to export."""


class NamedPatients(NamedTuple):
    """The patients that an export names."""

    patients: tuple[str, ...] = ()
    # of these, those merged into others: a server may still file something under their ids, or no longer know them
    merged: frozenset[str] = frozenset()


async def named_patients(run: EhrRun, level: BulkLevel) -> NamedPatients:
    """Return the patients to name, and plan a unit for each, so that the end shows who was not exported at all.

    Raises:
        PlanError: there is none.
    """
    cohort = run.request.cohort
    if level != "patient-list" or cohort is None:
        return NamedPatients()
    patients, unresolved = cohort.values, 0
    if cohort.stored:
        patients = tuple(one.id for one in await run.store.roster.stored_patients() if one.has_chart)
    if cohort.identifier_system is not None:
        found = await CohortFinder(run.client).by_identifier(cohort.identifier_system, cohort.values, cohort.lines)
        run.notes += found.notes
        patients, unresolved = found.patients, found.unresolved
    if not patients:
        raise PlanError(_NOBODY)
    # a merged patient is named by both ids; at the end, the patient's own id is checked
    everyone, led_on = with_survivors(patients, await run.store.roster.aliases())
    named = frozenset(patients)
    await run.store.plan(_unit(one, survivor=one not in named) for one in everyone)
    if unresolved:
        await run.store.plan(
            [Unit(key=unit_key("cohort", "unresolved"), kind=UnitKind.COHORT, resource_type="Patient")]
        )
    others = tuple(one for one in everyone if one not in led_on)
    if others and len(everyone) > run.request.profile.bulk.patients_max:
        return NamedPatients(others)
    return NamedPatients(everyone, led_on if others else frozenset())


@dataclass(kw_only=True)
class _Answers:
    """The answers to reads of patients by id, and the verdicts on patients who do not exist."""

    results: dict[str, UnitResult] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    aliases: list[Alias] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)  # 403: they may be there

    def judged(self, patient: str, named: Collection[str]) -> UnitResult | None:
        """Return how the unit of a named patient ends; None: no answer says that the patient does not exist."""
        result = self.results.get(patient)
        if result is None:
            return None
        survivors = {alias.surviving_id for alias in self.aliases if alias.former_id == patient}
        if survivors - set(named):  # no unit of this export requests the survivor's chart
            reason = "merged into another patient, whom the next export names: sync again"
            return UnitResult(key=_key(patient), state=UnitState.FAILED, reason=reason, ending=result.ending)
        return replace(result, key=_key(patient), complete_listing=False, records=0)


async def _ask(run: EhrRun, capability: Capability, patients: Iterable[str], by_ehr: Collection[str] = ()) -> _Answers:
    """Read Patients by their ids, as a crawl does. Only a clear answer counts: a patient who cannot be read has none.

    `by_ehr` are named by the EHR's own Group or merges: if one does not exist, no cohort is wrong and nothing is missing.
    """
    profile, roster = run.request.profile, run.store.roster
    found = _Answers()
    formers = frozenset(alias.former_id for alias in await roster.aliases() if alias.gone)
    stored = {*by_ehr, *(one.id for one in await roster.stored_patients())}
    limit = anyio.CapacityLimiter(profile.limits.max_concurrency)
    plan = UnitPlan(("Patient",), profile, capability, FULL, known=stored)
    gatherer = PageGatherer(run.client, capability=capability, formers=formers)
    search = SearchFetcher(gatherer)

    async def ask(unit: Unit) -> None:
        received: set[str] = set()

        async def take(fetched: Fetched) -> None:
            received.update(record.id for record in fetched.records)
            found.records += [record._replace(unit_key=None) for record in fetched.records]
            found.deletions += fetched.deletions
            found.aliases += [alias for alias in fetched.aliases if alias.former_id == unit.patient_id]

        result = None
        async with limit:
            with suppress(FetchError, AuthError):  # patients missing from a batch are read one by one
                result = await search.fetch(unit, take)
        if unit.patient_id is None:
            for one in unit.ids:
                if one not in received:
                    await ask(plan.patient(one))
        elif result is not None and result.ended in _NOT_THERE:
            found.results[unit.patient_id] = result
        elif result is not None and result.ended is Ending.RESTRICTED:
            found.refused.add(unit.patient_id)

    async with anyio.create_task_group() as tasks:
        for unit in plan.patients(patients):
            tasks.start_soon(ask, unit)
    return found


async def known_patients(
    run: EhrRun, capability: Capability, patients: Sequence[str], *, full: bool
) -> tuple[str, ...]:
    """Return the patients that the server knows, after it has refused them all together; note its answers about the others.

    A patient who cannot be read for another reason is kept: only a clear answer shows that a patient does not exist. If the
    export is a `full` one, whoever others were merged into is among them: of news there is no beginning for that chart.

    Raises:
        NobodyThereError: it knows none of them, and the store had some.
        PlanError: it knows none of them, and the store had none either.
    """
    run.show("finding the patients that the server does not know")
    units = await run.store.pending(kinds=(UnitKind.COHORT,))
    answers = await _ask(run, capability, patients, _survivors(units))
    merged = {alias.surviving_id for alias in answers.aliases if alias.gone}
    survivors = tuple(sorted(merged.difference(patients))) if full else ()
    named = (*patients, *survivors)
    judged = [result for one in patients if (result := answers.judged(one, named)) is not None]
    known = tuple(one for one in named if one not in answers.results)
    if not judged:
        return known
    # who is merged into a patient whom the export does not name has failed too, but the next export names that patient
    if not known and all(one.state is UnitState.FAILED and one.ended is not Ending.MERGED for one in judged):
        raise PlanError(_NOBODY)
    results = [replace(result, reason=f"not exported: {result.reason}") for result in judged]
    deletions = [one for one in answers.deletions if one.id in answers.results]
    await run.store.plan(_unit(one) for one in survivors)
    await run.store.write(Batch(results=results, deletions=deletions, aliases=answers.aliases))
    _count(run, results)
    if not known:
        raise NobodyThereError("the server knows none of the patients that the export would name: nothing was exported")
    run.notes.append(f"patients that the server does not know, left out of the export: {len(results):,}")
    return known


class NotExportable(NamedTuple):
    """New patients for whom an export could list nothing."""

    withheld: set[str]
    # members whose ids the EHR does not know; parts of their charts may exist all the same
    absent: set[str]


async def not_exportable(
    run: EhrRun, capability: Capability, new: Collection[str], members: Collection[str] | None
) -> NotExportable:
    """Return the new patients for whom an export could list nothing, as reads of them by id show.

    `members`: those of the Group, if a Group is exported.

    A patient is withheld if the read is answered 403 and nothing of the patient is stored. Only a full export could show that
    this is wrong, so each is a hole of this run. Members of a Group may also be deleted, unknown, or merged into another
    member; the first two are believed if another member can be read. A patient who cannot be read for another reason is in
    neither set.
    """
    answers = await _ask(run, capability, sorted(new), () if members is None else new)
    refused = set(await run.store.jobs.never_stored(sorted(answers.refused)))
    if members is None:
        return NotExportable(refused, set())
    if refused:
        await run.store.plan(_unit(one) for one in sorted(refused))
    results = ((one, answers.judged(one, members)) for one in new)
    absent = {one for one, result in results if result is not None and result.state is UnitState.SETTLED}
    unknown = {one for one in absent if answers.results[one].ended is not Ending.MERGED}
    if unknown and not await _reads_patients(run, members, new):
        absent -= unknown
    return NotExportable(refused, absent)


async def _reads_patients(run: EhrRun, members: Collection[str], new: Collection[str]) -> bool:
    """Whether a member of the last full export can be read; else Patients may be withdrawn from reads, and a 404 says nothing."""
    listed = sorted((await run.store.roster.covered()).intersection(members).difference(new))[:_CONTROLS]
    return await any_readable(run.client, [AbsentRow("Patient", one, one) for one in listed])


async def check_patients(run: EhrRun, capability: Capability, proofs: Proofs) -> None:
    """Make a hole of each named patient or member whose Patient did not come: an unknown id looks like one without data.

    They are read by id first: a patient who is deleted, or merged into a patient who was exported too, is no hole. An
    incremental export need not bring a Patient that the store has. If the export need not bring every Patient, only those are
    read of whose charts nothing came and who are not on the roster.
    """
    roster, jobs = run.store.roster, run.store.jobs
    exported = (not run.request.types or "Patient" in run.request.types) and not proofs.narrows("Patient")
    members: Sequence[str] = ()
    if run.is_full and exported:
        members = await roster.unmet_members()
    elif run.is_full:
        members = await jobs.patients_without_rows(await roster.uncovered_members())
    await run.store.plan(_unit(one) for one in members)
    dead: list[str] = []  # whom the export does not name
    if run.is_full and run.request.cohort is not None and run.request.cohort.stored:  # a deleted patient may be back
        dead = [one.id for one in await roster.stored_patients() if not one.has_chart]
        await run.store.plan(_unit(one) for one in dead)
    units = await run.store.pending(kinds=(UnitKind.COHORT,))
    if not units:
        return
    stored = {one.id: one for one in await roster.stored_patients()}
    named = [unit.patient_id for unit in units if unit.patient_id]
    absent = set(await (jobs.patients_without_data(named) if exported else jobs.patients_without_rows(named)))
    alive = {one.id for one in stored.values() if one.alive}
    # patients who count as merged are read, even if the run that found the merge failed and their Patients are live
    formers = {alias.former_id for alias in await roster.aliases() if alias.gone}
    if not exported:
        absent |= formers.intersection(named)  # rows do not tell whether they are patients again
    if not run.is_full:
        absent -= (alive if exported else alive | await roster.covered()) - formers
    answers = await _ask(run, capability, sorted(absent), {*members, *_survivors(units)}) if absent else _Answers()
    survivors = sorted({alias.surviving_id for alias in answers.aliases})
    present = {*named} | {*survivors}.difference(await jobs.patients_without_data(survivors))
    unnamed = {**dict.fromkeys(dead, _BACK), **dict.fromkeys(formers, _UNMERGED)}
    results = [_result(unit, absent, answers, present, unnamed, exported=exported) for unit in units]
    of_group = {_key(one) for one in members}  # a member who does not exist is no mistake in a cohort
    results = [_of_member(one) if one.key in of_group else one for one in results]
    # a patient who can be read exists again, and the next export names this id
    returned = (stored.keys() - alive) | formers
    back = [record for record in answers.records if record.id in absent and record.id in returned]
    await run.store.write(Batch(results=results, records=back, deletions=answers.deletions, aliases=answers.aliases))
    _count(run, results)


def _result(
    unit: Unit,
    absent: Container[str],
    answers: _Answers,
    named: Collection[str],
    unnamed: Mapping[str, str],
    *,
    exported: bool,
) -> UnitResult:
    """Return how a named patient's unit ends. `exported`: the export lists the Patient of everybody who exists.

    `unnamed` are patients who were deleted or merged, so that the export did not name them. If one can be read it is a hole: why.
    """
    if unit.patient_id is None:
        reason = "cohort entries named no patient, or several, or could not be looked up: see the run's notes"
        return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason)
    if unit.patient_id not in absent:
        return UnitResult(key=unit.key, state=UnitState.SETTLED)
    result = answers.judged(unit.patient_id, named)
    if result is not None:
        return result
    read = any(record.id == unit.patient_id for record in answers.records)
    if read and unit.patient_id in unnamed:
        return UnitResult(key=unit.key, state=UnitState.FAILED, reason=unnamed[unit.patient_id])
    if exported and unit.patient_id in answers.refused:
        return UnitResult(key=unit.key, state=UnitState.FAILED, reason=_REFUSED, ending=Ending.RESTRICTED)
    if exported:
        return UnitResult(key=unit.key, state=UnitState.FAILED, reason="the export has no Patient with this id")
    # only a read shows that a chart is empty: to a search, an index that lost the patient looks the same
    return UnitResult(key=unit.key, state=UnitState.SETTLED, ending=Ending.LISTED if read else Ending.PARTIAL)


def _of_member(result: UnitResult) -> UnitResult:
    """Give members who do not exist one common reason: a Group may list its deleted patients for ever."""
    not_there = result.state is UnitState.SETTLED and result.ended in _NOT_THERE
    return replace(result, reason=_MEMBER_NOT_THERE) if not_there else result


def _count(run: EhrRun, results: Sequence[UnitResult]) -> None:
    """Count how they ended, as holes but not as files: the export's files are all there."""
    run.settled(results, 0)
    run.failed_units -= sum(result.state is UnitState.FAILED for result in results)


def _unit(patient: str, *, survivor: bool = False) -> Unit:
    detail = CohortDetail(survivor=survivor).packed
    return Unit(key=_key(patient), kind=UnitKind.COHORT, resource_type="Patient", patient_id=patient, detail=detail)


def _survivors(units: Iterable[Unit]) -> set[str]:
    """Return the patients whom only an earlier run's merge names."""
    return {one.patient_id for one in units if one.patient_id and one.detail and CohortDetail.of(one).survivor}


def _key(patient: str) -> str:
    return unit_key("cohort", patient)
