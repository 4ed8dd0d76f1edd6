"""The use case: ask the EHR what it has, patient by patient and type by type, and compare that with the store.

Asks as a crawl does: the same client, login, limits and searches. `proof_question` asks one question, `comparison` says what a
difference means. A proof opens no run and holds no lock: it gives way to a sync that starts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count

import anyio

from config.how_many import how_many
from connectors.core.errors import PlanError
from connectors.core.run import Progress
from connectors.fhir.capability import Capability
from connectors.fhir.cohort.finder import CohortFinder
from connectors.fhir.memories import ProofStore
from connectors.fhir.metadata import declared
from connectors.fhir.plan import crawl_types
from connectors.fhir.prove.comparison import Answer, ProofTally
from connectors.fhir.prove.proof_question import Asker, Question
from connectors.fhir.run import EhrProgress, LogIn, SyncRequest
from connectors.fhir.search.deferrals import Deferrals
from connectors.fhir.search.since import FULL
from connectors.fhir.search.units import UnitPlan, directory_units
from connectors.fhir.sync import run_scope
from connectors.fhir.transport.client import EhrClient
from snapshots.proof import Certificate, ProvedRun
from snapshots.unit import Unit

_ASKED_AT_ONCE = 2  # questions a slot of the connection: while one compares, another asks
_NOT_SEARCHED = "the server has no search by patient for this type"
_WATCH_EVERY = 5  # questions between two looks at whether a sync has begun


@dataclass(frozen=True, kw_only=True)
class ProofRequest:
    """What to prove: a connection as it is synced; `sample` patients (None: all), by `seed` (None: the run's number)."""

    sync: SyncRequest
    sample: int | None = 20
    seed: int | None = None


async def prove(
    request: ProofRequest,
    client: EhrClient,
    store: ProofStore,
    log_in: LogIn,
    *,
    now: Callable[[], datetime],
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Certificate:
    """Compare, and store the result beside the run that was proved.

    Raises:
        PlanError: there is no finished sync of this connection, or nothing that could be asked.
        ConnectorError: the login failed. Trouble with one question is its own verdict, and raises nothing.
        snapshots.errors.ConnectionBusyError: a run of the connection is at work.
    """
    began = now()
    sync = request.sync
    await store.check_idle()
    run = await store.newest_sync(run_scope(sync).selection)
    if run is None:
        raise PlanError(f"Connection {sync.connection} has no finished sync to prove: run `chartferry sync` first.")
    client.restore(await store.pace())
    proof = _Proof(sync, client, store, run)
    try:
        patients, population, chosen_by = await _compare(proof, request, log_in, now, on_progress)
    finally:
        await store.keep_pace(client.pace_state())
    certificate = Certificate(
        at=began,
        connection=sync.connection,
        run=run.id,
        patients=patients,
        of_patients=population,
        seed=chosen_by,
        types=proof.tally.types,
        findings=proof.tally.findings,
        findings_unnamed=proof.tally.unnamed,
        notes=proof.notes,
        requests=client.requests,
        seconds=round((now() - began).total_seconds(), 3),
        gave_way=proof.gave_way,
    )
    await store.save(certificate)
    return certificate


async def _compare(
    proof: _Proof,
    request: ProofRequest,
    log_in: LogIn,
    now: Callable[[], datetime],
    on_progress: Callable[[Progress], None],
) -> tuple[int, int, int | None]:
    """Ask all questions; return how many patients were asked about, out of how many, and the seed that chose them."""
    progress, client = EhrProgress(connection=request.sync.connection), proof.client
    _show(on_progress, progress, client, "reading what the server offers")
    await proof.prepare(log_in, now)
    _show(on_progress, progress, client, "finding the patients")
    population = await proof.population(request)
    patients, chosen_by = population, None
    if request.sample is not None and request.sample < len(population):
        chosen_by = proof.run.id if request.seed is None else request.seed
        patients = sorted(random.Random(chosen_by).sample(population, request.sample))  # noqa: S311  no secret
    patients = await proof.resolved(patients)
    await proof.load_holes(patients)
    questions = proof.questions(patients)
    progress.units = proof.number_of_questions(len(patients))

    def step() -> None:
        progress.units_done += 1
        _show(on_progress, progress, client, "comparing")

    await proof.ask_all(questions, step)
    await proof.leave_open()
    return len(patients), len(population), chosen_by


def _show(on_progress: Callable[[Progress], None], progress: EhrProgress, client: EhrClient, phase: str) -> None:
    progress.phase, progress.requests, progress.retries = phase, client.requests, client.retries
    progress.units = max(progress.units, progress.units_done)
    on_progress(progress)


class _Proof:
    """What the steps of one proof share."""

    def __init__(self, request: SyncRequest, client: EhrClient, store: ProofStore, run: ProvedRun) -> None:
        self._request = request
        self._profile = request.profile
        self.client = client
        self._store = store
        self.run = run
        self._capability = Capability()
        self._types: tuple[str, ...] = ()
        self._directory: tuple[str, ...] = ()
        self._asker: Asker
        self._refused: dict[str, str] = {}  # type -> why it cannot be asked of any patient
        self.tally = ProofTally()
        self.notes: list[str] = []
        self.gave_way = False

    # -- what to ask

    async def prepare(self, log_in: LogIn, now: Callable[[], datetime]) -> None:
        """Find out what is offered, log in for what the sync should have brought, and drop types that must not be requested."""
        self._capability = await self._declared()
        known = await self._store.deferrals(now())
        self._asker = Asker(
            self.client,
            self._store,
            self.run,
            capability=self._capability,
            deferrals=Deferrals(known, self._profile, now, heed_restricted=True),
            began=now(),
        )
        wanted = self._wanted()
        request = self._request
        everything = request.profile.login.scope_wildcards and not request.types
        group = ("Group",) if request.group is not None and request.cohort is None else ()
        scopes = () if everything else tuple(dict.fromkeys(("Patient", *wanted, *self._directory, *group)))
        readable = await log_in(scopes)
        held = () if request.types else sorted(await self._store.types())
        types = list(dict.fromkeys((*wanted, *held)))
        for resource_type in types:
            if not readable(resource_type):
                self._refused[resource_type] = "the token's scopes do not cover it"
            elif not self._searchable(resource_type):
                self._refused[resource_type] = _NOT_SEARCHED
        self._types = tuple(types)
        self._directory = tuple(t for t in self._directory if readable(t))
        if self.run.holes:
            self.notes.append(
                f"run {self.run.id} had {how_many(self.run.holes, 'hole')}: what was left out is missing from the store too"
            )

    async def _declared(self) -> Capability:
        # without it more is requested, and a refusal proves nothing
        found = await declared(self.client)
        if found.unasked is not None:
            self.notes.append(found.note)
        return found.capability

    def _wanted(self) -> tuple[str, ...]:
        """The types that the proved sync should have brought of patients; sets the directories that a crawl lists whole."""
        profile, named = self._profile, self._request.types or self.run.types
        if self.run.mode == "bulk":
            if named or profile.bulk.types:
                return tuple(named or profile.bulk.types)
            try:
                plan = crawl_types((), profile, self._capability, lambda resource_type: True)
            except PlanError:
                return ()
            return tuple(t for t in plan.types if t not in profile.bulk.leaves_out)
        plan = crawl_types(named, profile, self._capability, lambda resource_type: True)
        self._directory = plan.directory
        return plan.types

    def _searchable(self, resource_type: str) -> bool:
        if resource_type == "Patient":
            return not self._capability.search_params or "Patient" in self._capability.search_params
        return not self._capability.search_params or self._capability.patient_parameter(resource_type) is not None

    async def population(self, request: ProofRequest) -> list[str]:
        """The patients to draw a sample from: the configured cohort, the Group's members, else the patients in the store."""
        cohort = request.sync.cohort
        if cohort is not None and not cohort.stored:
            return sorted(cohort.values)
        if request.sync.group is not None and self.run.mode != "bulk":
            try:
                return sorted((await CohortFinder(self.client).of_group(request.sync.group)).patients)
            except PlanError:
                self.notes.append("the Group's members cannot be read: the proof covers the patients in the store")
        return await self._store.patients()

    async def resolved(self, chosen: Sequence[str]) -> list[str]:
        """Ids of the chosen: MRNs are looked up, only now that they are few."""
        cohort = self._request.cohort
        if cohort is None or cohort.identifier_system is None:
            return list(chosen)
        finder = CohortFinder(self.client)
        lines = dict(zip(cohort.values, cohort.lines, strict=False)) or dict(zip(cohort.values, count(1), strict=False))
        found = await finder.by_identifier(cohort.identifier_system, chosen, [lines[value] for value in chosen])
        if found.unresolved:
            self.tally.add(
                Answer(
                    resource_type="Patient",
                    scope="cohort",
                    method="",
                    verdict="unanswered",
                    at_ehr=None,
                    stored=0,
                    reason="; ".join(found.notes),
                )
            )
        else:
            self.notes += found.notes
        return list(found.patients)

    async def load_holes(self, patients: Sequence[str]) -> None:
        """Why the run failed for these patients, to say so beside what is missing."""
        self._asker.holes = await self._store.holes(self.run.id, patients)

    def number_of_questions(self, patients: int) -> int:
        """How many questions there will be."""
        types = len(self._types) - len(self._refused)
        return patients * types + len(self._refused) + len(self._directory) + self._lists_everyone

    @property
    def _lists_everyone(self) -> bool:
        request = self._request
        return self._profile.search.lists_patients and request.cohort is None and request.group is None

    def questions(self, patients: Sequence[str]) -> Iterator[Question]:
        """All questions: those of no patient first, then patient by patient."""
        for resource_type, refusal in self._refused.items():
            yield Question(resource_type=resource_type, patient=None, refusal=refusal)
        for unit in directory_units(self._directory, self._profile, self._capability, FULL):
            yield Question(resource_type=unit.resource_type, patient=None, units=(unit,))
        if self._lists_everyone and "Patient" not in self._refused:
            units = directory_units(("Patient",), self._profile, self._capability, FULL)
            yield Question(resource_type="Patient", patient=None, units=tuple(units))
        types = tuple(t for t in self._types if t not in self._refused)
        plan = UnitPlan(types, self._profile, self._capability, FULL)
        for patient in patients:
            by_type: dict[str, list[Unit]] = {}
            for unit in plan.of(patient):
                by_type.setdefault(unit.resource_type, []).append(unit)
            for resource_type, some in by_type.items():
                yield Question(resource_type=resource_type, patient=patient, units=tuple(some))

    async def leave_open(self) -> None:
        """Leave open the types that the run requested or the store holds, and that could not be requested now."""
        for resource_type in self.tally.served_in_part:
            self.tally.leave_open(resource_type, "the server answers this search for other patients")
        silent = self.tally.silent
        if len(silent) == len(self.tally.types):
            return  # nothing could be compared, as the certificate states
        requested = await self._store.asked(self.run.id)
        for resource_type in silent:
            if self._refused.get(resource_type) == _NOT_SEARCHED:
                continue  # what came by reference, or in an export, was never listed
            if resource_type in requested or await self._store.number(resource_type, None):
                self.tally.leave_open(
                    resource_type, "the sync requested it or stored rows of it, but nothing confirms that now"
                )

    # -- asking

    async def ask_all(self, questions: Iterator[Question], step: Callable[[], None]) -> None:
        """Ask them all, some at a time; stop where a sync begins."""
        number = 0

        async def worker() -> None:
            nonlocal number
            for question in questions:
                number += 1
                if number % _WATCH_EVERY == 0 and not self.gave_way and await self._store.run_at_work() is not None:
                    self.gave_way = True
                    self.notes.append(
                        "a sync of this connection started: the proof stopped for it, and is not complete"
                    )
                if self.gave_way:
                    return
                self.tally.add(await self._asker.answer(question))
                step()

        async with anyio.create_task_group() as tasks:
            for _ in range(self._profile.limits.max_concurrency * _ASKED_AT_ONCE):
                tasks.start_soon(worker)
