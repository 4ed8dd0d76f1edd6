"""The steps of a run that fetches by search: find the patients, plan a unit per patient and type, fetch them all.

Each piece has a module of its own (`cohort`, `units`, `since`, `search`); this one puts them in order. A resumed run finds
its units in the store. What a fetch reveals (merged patients, Patients missing from a batch) is planned and fetched after it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from itertools import chain

from config.how_many import how_many
from connectors.core.drain import fetch_pending
from connectors.core.errors import PlanError
from connectors.fhir.capability import Capability
from connectors.fhir.cohort.finder import Cohort, CohortFinder
from connectors.fhir.crawl.directory import Directory, list_patients
from connectors.fhir.linked.reference_paths import followed_types
from connectors.fhir.patients.merges import with_survivors
from connectors.fhir.plan import TypePlan, crawl_types, types_worth_naming
from connectors.fhir.run import EhrRun, Readable
from connectors.fhir.search.deferrals import Deferrals
from connectors.fhir.search.gathering import PageGatherer
from connectors.fhir.search.search import SearchFetcher
from connectors.fhir.search.since import SinceByPatient, since_parameter
from connectors.fhir.search.units import UnitPlan, directory_units
from snapshots.instants import instant
from snapshots.patient import Alias, StoredPatient
from snapshots.record import Batch
from snapshots.unit import Unit, UnitKind, UnitResult, UnitState, unit_key

_KINDS = (UnitKind.SEARCH, UnitKind.READ, UnitKind.BATCH)


async def fetch_by_crawl(
    run: EhrRun, capability: Capability, readable: Readable, since: Mapping[str, str]
) -> str | None:
    """Find the patients, fetch their charts and store them; return the new watermark: the run's start less the overlap.

    The start is expressed in the server's time where its clock is behind ours, because resources are dated by that clock.

    Raises:
        PlanError: no patients are named, and the server lists none.
        RequestError: the patients could not be found out. A unit that fails is a hole, and raises nothing.
    """
    profile = run.request.profile
    plan = crawl_types(run.request.types, profile, capability, readable)
    run.notes += plan.notes
    crawl = await _crawl(run, capability, plan, since)
    if not run.store.planned:
        await crawl.plan_all()
    await crawl.fetch_all()
    if run.request.kind == "sync" and not run.request.types:  # else the user chose the types
        run.notes += await _note_of_empty_types(run, plan, followed_types((), profile, capability, readable))
        run.notes += await _note_of_undeclared_types(run, plan, capability)
    return instant(run.store.started_at - timedelta(seconds=profile.changes.overlap_s + run.client.behind_s))


async def _note_of_empty_types(run: EhrRun, plan: TypePlan, followed: Sequence[str]) -> list[str]:
    """Note once that most types return nothing, and how to request only the others."""
    empty = await run.store.knowledge.empty_types()
    worth = types_worth_naming(plan.types, empty, (*plan.directory, *followed))
    if not worth:
        return []
    vain = sum(t in empty for t in plan.types)
    named = ", ".join(f'"{t}"' for t in worth)
    return [
        (
            f"of {len(plan.types)} types requested for each patient, {vain} returned nothing: to request only the others, "
            f"set `types = [{named}]`"
        )
    ]


async def _note_of_undeclared_types(run: EhrRun, plan: TypePlan, capability: Capability) -> list[str]:
    """Types that were listed before, and that the CapabilityStatement no longer has: silence is no answer about them."""
    listed = {t for t in await run.store.knowledge.watermarks() if t not in capability.searchable}
    left_out = ", ".join(sorted(listed.difference(plan.types, plan.directory)))
    note = (
        f"{left_out}: listed before, but no longer declared by the server, so not requested: what is stored was kept, and is "
        "not known to be complete; name such types in `types` to request them anyway"
    )
    return [note] if left_out else []


def crawl_knowledge(run: EhrRun) -> str:
    """Return which watermarks a crawl moves: those of its selection and of its splits."""
    selection = run.store.selection
    splits = sorted((t, *some) for t, some in run.request.profile.search.splits.items())
    mark = blake2b(repr(splits).encode(), digest_size=6).hexdigest() if splits else "whole"
    return f"{selection} by crawl {mark}"


async def _crawl(run: EhrRun, capability: Capability, plan: TypePlan, since: Mapping[str, str]) -> _Crawl:
    """The roster and lags that the store has for this run."""
    profile, roster = run.request.profile, run.store.roster
    types = (*plan.types, *plan.directory)
    by_hand = "*" in since
    wanted = dict.fromkeys(types, since["*"]) if by_hand else since
    marks = {t: wanted[t] for t in types if t in wanted and since_parameter(t, profile, capability)}
    run.store.knowledge.request_since(marks)
    run.is_full = not marks
    since_by_patient = SinceByPatient(
        marks=marks, covered=None if by_hand else await roster.covered(), lags=await roster.lags()
    )
    whole = [t for t in plan.types if since_parameter(t, profile, capability) is None] if since else []
    if whole and not run.store.planned:
        run.notes.append(f"listed in full, because this server accepts no date for them: {', '.join(whole)}")
    stored = {one.id: one for one in await roster.stored_patients()} if run.request.kind == "sync" else {}
    return _Crawl(
        run=run,
        capability=capability,
        plan=plan,
        since_by_patient=since_by_patient,
        aliases=await roster.aliases(),
        stored=stored,
    )


_NO_PATIENTS = (
    "the server's list of patients is empty, so no chart was requested: if it should not be, check base_url and what the client "
    "may see, or name patients with `cohort` or `group`"
)
# an index that forgets everybody looks like an EHR without patients; only who is stored can be read to tell them apart
_NO_PATIENTS_BUT_STORED = (
    "the server's list of patients is empty, so only stored patients ({:,}) were requested, and nobody who is new: if the list "
    "should not be empty, check what the client may see, or name patients with `cohort` or `group`"
)


@dataclass(kw_only=True)
class _Crawl:
    """The crawl of one run."""

    run: EhrRun
    capability: Capability
    plan: TypePlan
    since_by_patient: SinceByPatient
    aliases: Sequence[Alias]
    stored: Mapping[str, StoredPatient]  # every patient that the store knows

    async def plan_all(self) -> None:
        """Find the patients and write the units of all of them."""
        run, request = self.run, self.run.request
        run.show("finding the patients")
        finder = CohortFinder(run.client)
        cohort, listing = await self._cohort(finder)
        listed = listing.unit if listing else None
        # a patient who is not listed need not be gone: indexes forget patients whom the server still serves (HAPI)
        unlisted = self._unlisted(cohort.patients) if listing else ()
        named = (*cohort.patients, *unlisted)
        patients, led_on = with_survivors(named, self.aliases)
        survivors = frozenset(patients).difference(named)
        await self._describe(cohort, patients, led_on, listing)
        patients = self.since_by_patient.behind(patients, run.store.id)
        units = await self._units(tuple(t for t in self.plan.types if not (listed and t == "Patient")), survivors)
        further = await self._units(("Patient",))
        directory = () if request.kind == "pull" else self.plan.directory
        # a patient whom a list or a Group names is searched for even if deleted: rows may still come under that id
        sought = frozenset(cohort.patients if cohort.of_group else request.named_patients)
        dead = frozenset(one.id for one in self.stored.values() if not one.has_chart) - sought
        await run.keep_notes()
        run.progress.units = await run.store.plan(
            chain(
                [listed] if listed else [],
                _unresolved(cohort),
                directory_units(directory, request.profile, self.capability, self.since_by_patient),
                units.patients(patients),
                (further.patient(patient) for patient in unlisted),
                units.charts(patient for patient in patients if patient not in led_on and patient not in dead),
            )
        )
        results = [*([listing.result] if listing else []), *_unresolved_results(cohort)]
        await run.store.write(Batch(results=results))
        run.settled(results, 0)

    async def _units(self, types: Sequence[str], survivors: Container[str] = ()) -> UnitPlan:
        request = self.run.request
        return UnitPlan(
            types,
            request.profile,
            self.capability,
            self.since_by_patient,
            expected={*request.types, *await self.run.store.knowledge.received_types()},
            known=self.stored,
            survivors=survivors,
            check_patients=request.cohort is not None or request.group is not None,
        )

    def _unlisted(self, listed: Sequence[str]) -> tuple[str, ...]:
        """Return the stored patients who were not listed; in a full run also tombstones, since a deleted patient may be back."""
        known = frozenset(listed)
        full = not self.since_by_patient.marks
        return tuple(one.id for one in self.stored.values() if one.id not in known and (full or one.has_chart))

    async def _cohort(self, finder: CohortFinder) -> tuple[Cohort, Directory | None]:
        """The patients, and the listing that found them if there was one."""
        request = self.run.request
        if request.cohort is not None and request.cohort.stored:
            return Cohort(patients=self._unlisted(())), None
        if request.cohort is not None:
            return await finder.named(request.cohort), None
        if request.group is not None:
            return await finder.of_group(request.group), None
        if not request.profile.search.lists_patients:
            raise PlanError(
                f'{request.profile.label} lists no patients: name them with `cohort = "file:…"`, --patients FILE, or a `group`.'
            )
        found = await list_patients(self.run, self.capability)
        return Cohort(patients=found.patients), found

    async def _describe(
        self, cohort: Cohort, patients: Sequence[str], led_on: frozenset[str], listing: Directory | None
    ) -> None:
        run = self.run
        run.notes += cohort.notes
        if run.request.kind == "pull":
            return
        covered = await run.store.roster.covered()
        numbers = {
            "patients": len(patients),
            "new": sum(patient not in covered for patient in patients),
            "removed": len(covered.difference(patients)),
            "merged": len(led_on),
        }
        await run.store.roster.describe_cohort({**cohort.report, **numbers})
        if covered and numbers["new"]:
            run.notes.append(f"patients new to this selection, listed in full: {numbers['new']:,}")
        if numbers["removed"]:
            named = run.request.cohort is not None or run.request.group is not None
            what = "in this selection, whose data stay" if named else "in the EHR's list of patients"
            run.notes.append(f"patients no longer {what}: {numbers['removed']:,}")
        if not cohort.patients and listing is not None and listing.result.state is UnitState.SETTLED:
            living = sum(one.has_chart for one in self.stored.values())
            run.notes.append(_NO_PATIENTS_BUT_STORED.format(living) if living else _NO_PATIENTS)
        if led_on:
            run.notes.append(f"patients requested by the id into which they were merged: {len(led_on):,}")

    async def fetch_all(self) -> None:
        """Fetch what is planned, and what that reveals."""
        run, profile, roster = self.run, self.run.request.profile, self.run.store.roster
        heed = run.request.kind != "pull" and run.request.since != "none"
        deferrals = Deferrals(await roster.deferrals(run.now()), profile, run.now, heed_restricted=heed)
        gatherer = PageGatherer(
            run.client,
            capability=self.capability,
            began=run.store.started_at,
            formers=frozenset(alias.former_id for alias in self.aliases if alias.gone),
            notes_dates=profile.changes.incremental and run.request.kind == "sync",
        )
        search = SearchFetcher(gatherer, deferrals=deferrals)
        await _search_pending(run, search)
        further = await self._units(self.plan.types)
        while units := await self._further(further):
            await run.store.plan(units)
            if not await _search_pending(run, search):
                break
        await roster.defer(deferrals.learned)

    async def _further(self, units: UnitPlan) -> list[Unit]:
        """Fetch patients missing from a batch one by one, and the whole chart of patients who were merged or are alive again.

        Also of former ids that lead nowhere any more: the merge may have been undone, and new rows filed there.
        """
        roster = self.run.store.roster
        merged = dict.fromkeys(alias.surviving_id for alias in await roster.new_aliases())
        back = dict.fromkeys(patient for patient in await roster.revived() if patient not in merged)
        again = ":full" if self.since_by_patient.marks else ""
        return [
            *(units.patient(patient) for patient in await roster.unanswered()),
            *(units.patient(patient) for patient in merged),
            *units.charts(dict.fromkeys((*merged, *back, *await roster.led_nowhere())), again=again, in_full=True),
        ]


async def _search_pending(run: EhrRun, search: SearchFetcher) -> bool:
    return await fetch_pending(
        run,
        _KINDS,
        search.fetch,
        doing="fetching charts",
        workers=run.workers,
        notice=run.notices.listed,
        let_in=lambda: run.progress.records > 0,
    )


def _unresolved(cohort: Cohort) -> list[Unit]:
    """Make one hole of cohort entries or Group members that name no patient: their charts were not fetched."""
    return (
        [Unit(key=unit_key("cohort", "unresolved"), kind=UnitKind.COHORT, resource_type="Patient")]
        if cohort.unresolved
        else []
    )


def _unresolved_results(cohort: Cohort) -> list[UnitResult]:
    entries = how_many(cohort.unresolved, "cohort entry", "cohort entries")
    what = f"{entries} named no patient, or several, or could not be looked up"
    if cohort.of_group:
        what = f"{how_many(cohort.unresolved, 'member')} of the Group could not be read, or named no patient"
    reason = f"{what}: see the run's notes"
    return [UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason) for unit in _unresolved(cohort)]
