"""Judges what an export's silence means: types that were requested by name, or that came before, and have no file.

`export_job` makes a unit of each type that was requested by name and has no file; `steps` calls this once the files are here.
Silent is not absent: a type is known to be empty only if the export shows that it would have listed it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from connectors.fhir.bulk.kick_off import proofs_from
from connectors.fhir.bulk.shown_types import shown_types
from connectors.fhir.capability import Capability
from connectors.fhir.run import EhrRun
from connectors.fhir.unit_details import NoFileDetail
from snapshots.export_job import BulkJob
from snapshots.instants import is_older
from snapshots.record import Batch, Record
from snapshots.unit import Ending, Unit, UnitKind, UnitResult, UnitState, unit_key

_PATIENT = "Patient"
_LEFT_OUT = (
    "the export has no file of this type, but a search finds a row of it, of a patient whom the export has; sync again, "
    "or fetch with --mode crawl, or take the type out of the connection's `types`"
)
_NOBODY = (
    "the export has no file of this type, and none of the Patients who were requested with it: it is not complete; "
    "sync again, or check the members of the connection's `group` at the EHR"
)


class _Silence(NamedTuple):
    """What is known of the types that were requested by name and have no file."""

    units: Mapping[str, Unit]
    brought: Collection[str]  # came in files of other types
    withdrawn: Collection[str]  # came before, and are no longer declared
    unclear: Collection[str]  # the server may not have understood that they were requested
    left_out: Collection[str]  # a search finds a row that the export should have had
    unanswered: Collection[str]  # no search would say whether there is any
    nobody: bool  # none of the Patients came who were requested

    def result(self, unit: Unit) -> UnitResult:
        """Return how such a type ends."""
        one = unit.resource_type
        if one in self.withdrawn:
            return UnitResult(key=unit.key, state=UnitState.SETTLED, ending=Ending.NOT_SERVED)
        if one in self.left_out:
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=_LEFT_OUT)
        if self.nobody and one not in self.brought:
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=_NOBODY)
        if one in self.unclear or one in self.unanswered:
            return UnitResult(key=unit.key, state=UnitState.SETTLED, ending=Ending.PARTIAL)
        return UnitResult(key=unit.key, state=UnitState.SETTLED, complete_listing=NoFileDetail.of(unit).lists_all)

    @property
    def notes(self) -> list[str]:
        """Return what a reader of the report must know of them."""
        notes = []
        if self.unanswered:
            notes.append(
                f"{', '.join(sorted(self.unanswered))}: not in the export, and the EHR did not answer a search that would have "
                "shown whether there are any, so not known to be complete"
            )
        if self.unclear and not self.nobody:
            notes.append(
                f"{', '.join(sorted(self.unclear))}: not in the export, and the server may not have understood all types in the "
                "form that it accepted, so not known to be complete; set profile.kickoff.method and profile.kickoff.lists as it "
                "documents them"
            )
        if self.withdrawn:
            notes.append(
                f"{', '.join(self.withdrawn)}: neither exported nor declared by the server: what is stored was kept, and is "
                "not known to be complete"
            )
        return notes


async def settle_silent_types(run: EhrRun, capability: Capability, job: BulkJob) -> None:
    """Settle the types that were requested by name and have no file: either there is nothing of them, or nothing proves that.

    A full export that brings none of the Patients who were requested, and has no file of them, says nothing of any type. Nor does
    it say anything of a type of which a search finds a row in a chart that the export has.
    """
    silence = await _silence(run, capability, job)
    run.notes += silence.notes
    if results := [silence.result(unit) for unit in silence.units.values()]:
        await run.keep_notes()
        await run.store.write(Batch(results=results))
        run.settled(results, 0)
        run.failed_units -= sum(one.state is UnitState.FAILED for one in results)  # none of its files is missing


async def _silence(run: EhrRun, capability: Capability, job: BulkJob) -> _Silence:
    """Find the silent types, withdrawn ones too, and what else speaks for or against them."""
    proofs, jobs = proofs_from(job), run.store.jobs
    with_file, brought = await jobs.planned_types((UnitKind.FILE,)), await jobs.received_types()
    withdrawn = _withdrawn(capability, proofs.types, await run.store.knowledge.received_types(), with_file)
    await run.store.plan(
        Unit(
            key=unit_key("no-file", t),
            kind=UnitKind.NO_FILE,
            resource_type=t,
            detail=NoFileDetail(lists_all=False).packed,
        )
        for t in withdrawn
    )
    units = {unit.resource_type: unit for unit in await run.store.pending(kinds=(UnitKind.NO_FILE,))}
    nobody = _PATIENT in proofs.types and not proofs.leaves_out(_PATIENT) and _PATIENT not in {*with_file, *brought}
    unclear = set() if proofs.all_types_understood else units.keys() - {*brought, *withdrawn}
    sought = {one for one, unit in units.items() if NoFileDetail.of(unit).lists_all} - {*brought, *withdrawn, *unclear}
    # only types that the connection names: the profile's are what the vendor exports at most
    shown = await shown_types(run, capability, set() if nobody else sought & {*run.request.types})
    left_out = await _left_out(run, job, shown.found)
    return _Silence(units, brought, withdrawn, unclear, left_out, shown.unanswered - left_out, nobody)


async def _left_out(run: EhrRun, job: BulkJob, found: Mapping[str, Sequence[Record]]) -> set[str]:
    """Types of which a search found a row of a patient whom the export has: of these it should have had a file.

    A row that is newer than the export proves nothing.
    """
    whose = {
        one: {record.patient_id for record in records if not is_older(job.transaction_time, record.last_updated)}
        - {None}
        for one, records in found.items()
    }
    exported = await run.store.knowledge.listed_patients(
        sorted({str(one) for patients in whose.values() for one in patients})
    )
    return {one for one, patients in whose.items() if patients & exported}


def _withdrawn(
    capability: Capability, requested: Collection[str], received: Collection[str], with_file: Collection[str]
) -> list[str]:
    """Types that were requested by name and came before, and now have no file and are not declared either.

    Servers that declare only the types at which they export do not say what they serve.
    """
    declared = capability.search_params.keys()
    if not declared - {"Patient", "Group"} or "*" in with_file:
        return []
    return sorted({*requested} & {*received} - declared - {*with_file})


async def vanished(run: EhrRun, job: BulkJob) -> list[str]:
    """Types that came before and have no file now. Without `_type` that proves nothing: the server need not have listed them."""
    proofs = proofs_from(job)
    if proofs.types or proofs.incremental or run.failed_units:
        return []
    missing = await run.store.jobs.vanished_types()
    if not missing:
        return []
    return [
        (
            f"earlier exports had {', '.join(missing)}, but this one has no file of that: what is stored was kept, "
            "because an export without `types` does not prove that anything is gone; set `types` to be sure"
        )
    ]


async def first_met(run: EhrRun, job: BulkJob) -> list[str]:
    """Types that an export of news is the first to list: earlier rows of them are in no export yet."""
    met = await run.store.knowledge.unlisted_types() if proofs_from(job).incremental else ()
    note = "listed for the first time, in an export of news: earlier rows come with the next export, a full one"
    return [f"{', '.join(met)}: {note}"] if met else []
