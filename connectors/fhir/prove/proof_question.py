"""Asks the EHR one question of a proof: how many resources of one type does one patient have, and which.

A count is believed where the profile says that it can be. If it differs from the store's, or if there is none, the crawl's own
searches list the ids. `prove` decides what to ask, `comparison` what a difference means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Literal, NamedTuple
from urllib.parse import quote

from msgspec import structs

from connectors.core.errors import FetchError
from connectors.core.pipeline import Fetched
from connectors.fhir.bundles import NotABundleError
from connectors.fhir.capability import Capability
from connectors.fhir.endings import ending_of
from connectors.fhir.errors import RequestError, TerminalFetchError
from connectors.fhir.json_answers import bare
from connectors.fhir.memories import ProofStore
from connectors.fhir.not_found import NotFoundAnswers
from connectors.fhir.prove.comparison import EVERYONE, Answer, LookedUp, difference, judged, weighed
from connectors.fhir.records import UnreadableResourceError, grade, page_from, record_from
from connectors.fhir.search.deferrals import Deferrals
from connectors.fhir.search.gathering import PageGatherer
from connectors.fhir.search.search import SearchFetcher
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.unit_details import SearchDetail
from snapshots.proof import ProvedRun
from snapshots.unit import Ending, Unit, UnitKind, UnitState

# the EHR refuses this question; any other answer that will not change leaves it open
_REFUSALS = frozenset({401, 405})
_REFUSED = frozenset({Ending.NOT_SERVED, Ending.RESTRICTED})
_NOT_THERE = frozenset({Ending.NOT_FOUND, Ending.GONE})
_NOT_ASKED = frozenset({Ending.RESTRICTED, Ending.PAUSED})
_LOOKED_UP = 20  # of what a search did not list, so many are read, a question
_CONTROLS = 3  # listed rows that are read, a question, to learn whether a 404 can be believed


@dataclass(frozen=True, kw_only=True)
class Question:
    """One patient and type, or a whole type, with the searches that list it; without searches, why it cannot be asked."""

    resource_type: str
    patient: str | None
    units: tuple[Unit, ...] = ()
    refusal: str = ""


class _Listing(NamedTuple):
    """How one search ended: why it is not whole, and whether that is a failure and no refusal."""

    reason: str | None
    ending: Ending
    failed: bool


class Asker:
    """Asks questions about one run, and compares the answers with the store."""

    def __init__(
        self,
        client: EhrClient,
        store: ProofStore,
        run: ProvedRun,
        *,
        capability: Capability,
        deferrals: Deferrals,
        began: datetime,
    ) -> None:
        self._profile = client.profile
        self._client = client
        self._store = store
        self._run = run
        self._deferrals = deferrals
        self._capability = capability
        self._answers = NotFoundAnswers(client)
        self._answers_reads: set[str] = set()  # types of which a read was answered in this proof
        gatherer = PageGatherer(client, capability=capability, began=began, in_part=True)
        self._fetcher = SearchFetcher(gatherer, deferrals=deferrals)
        # why units of the run failed, by type and patient: reported beside what is missing
        self.holes: Mapping[tuple[str, str | None], str] = {}

    async def answer(self, question: Question) -> Answer:
        """Ask one question. A refusal, or an answer of no use, is a result too."""
        scope = EVERYONE if question.patient is None else await self._store.patient_mark(question.patient)
        stored = await self._store.number(question.resource_type, question.patient)
        answer = Answer(
            resource_type=question.resource_type,
            scope=scope,
            method="",
            verdict="not asked",
            at_ehr=None,
            stored=stored,
            reason=question.refusal,
        )
        hindrance = self._deferrals.hindrance(question.resource_type, question.patient)
        if not question.units or hindrance is not None:
            return self._open(
                question, replace(answer, reason=question.refusal or (hindrance.reason if hindrance else ""))
            )
        counted: int | None = None
        try:
            counted = await self._count(question)
            if counted is not None and counted == stored:
                return replace(answer, method="count", verdict="equal", at_ehr=counted)
            return self._open(question, await self._walked(question, answer, counted))
        except TerminalFetchError as error:
            ending = ending_of(error, self._profile.answers.issue_codes, what="search")
            answer = replace(
                answer,
                verdict="not asked" if ending in _REFUSED or error.status in _REFUSALS else "unanswered",
                reason=f"the server refuses it: {error.answer}",
                not_served=ending is Ending.NOT_SERVED,
            )
        except FetchError as error:
            answer = replace(answer, verdict="unanswered", reason=f"no usable answer: {error}")
        if counted is not None:  # a number that was given, and is not the store's
            answer = replace(answer, method="count", verdict="unanswered")
            answer = weighed(answer, counted=counted, recounted=None, listed=0, stored=stored)
        return self._open(question, answer)

    def _open(self, question: Question, answer: Answer) -> Answer:
        """Return the answer to a question that could not be asked: unanswered if the proved run failed there too."""
        key = (question.resource_type, question.patient)
        hole = self.holes.get(key) or self.holes.get((question.resource_type, None))
        if hole is None or answer.verdict != "not asked":
            return answer
        reason = "; ".join(filter(None, (answer.reason, f"a hole of run {self._run.id}: {hole}")))
        return replace(answer, verdict="unanswered", reason=reason)

    async def _count(self, question: Question) -> int | None:
        """The EHR's number; None if it has none that can be trusted."""
        query, unit = self._profile.completeness.count_query, question.units[0]
        if not query or len(question.units) > 1 or unit.kind != UnitKind.SEARCH or SearchDetail.of(unit).expect:
            return None
        path = _with(_without_count(SearchDetail.of(unit).path), query)
        try:
            page = page_from(await self._send(unit, path, "search"), self._client.base, where="a count")
        except (TerminalFetchError, NotABundleError):
            return None  # counting may not be allowed where listing is
        understood = not page.doubtful and not page.quarantined
        return page.total if understood and grade(page.issues, self._profile.answers.issue_codes) == "note" else None

    async def _walked(self, question: Question, answer: Answer, counted: int | None) -> Answer:
        """List the ids and compare; a count that differed is reported too."""
        listed: dict[str, str | None] = {}
        incomplete: str | None = None
        failed = not_served = False
        for unit in question.units:
            result = await self._list(unit, listed)
            if incomplete is None and result.reason is not None:
                incomplete, not_served = result.reason, result.ending is Ending.NOT_SERVED
            failed = failed or result.failed
        held = await self._store.held(question.resource_type, question.patient)
        foreign = [id_ for id_ in listed if id_ not in held]
        elsewhere = await self._store.by_id(question.resource_type, foreign) if foreign else {}
        found = difference(listed, held, elsewhere, self._run.started_at)
        unlisted = LookedUp() if incomplete else await self._look_up(question, found.unlisted, listed)
        verdict, reason = judged(found, unlisted=unlisted, incomplete=incomplete)
        hole = self.holes.get((question.resource_type, question.patient))
        if hole is not None and verdict == "fewer":
            reason += f"; a hole of run {self._run.id}: {hole}"
        if verdict == "not asked" and failed:
            verdict = "unanswered"
        stored = len(held) + len(elsewhere) - sum(dead for _, dead in elsewhere.values())
        answer = replace(
            answer,
            method="ids" if counted is None else "count + ids",
            verdict=verdict,
            at_ehr=len(listed),
            stored=stored,
            missing=len(found.missing),
            reason=reason,
            not_served=not_served,
        )
        if counted is None:
            return await self._known(question, answer) if verdict == "equal" and not listed else answer
        recounted = await self._count(question) if counted > len(listed) else None
        return weighed(answer, counted=counted, recounted=recounted, listed=len(listed), stored=stored)

    async def _known(self, question: Question, answer: Answer) -> Answer:
        """Leave the question open if both sides have nothing and nobody has ever known the patient."""
        patient = question.patient
        if question.resource_type != "Patient" or patient is None or answer.stored:
            return answer
        if await self._store.by_id("Patient", [patient]):  # it was there once, and is deleted here and there
            return answer
        reason = "the EHR does not know this patient: check the id, or the cohort"
        return replace(answer, verdict="unanswered", reason=reason)

    async def _list(self, unit: Unit, listed: dict[str, str | None]) -> _Listing:
        """Add the ids of one search; return why the list is not whole, or None."""

        async def collect(fetched: Fetched) -> None:
            listed.update((r.id, r.last_updated) for r in fetched.records if r.resource_type == unit.resource_type)

        if unit.kind == UnitKind.READ:
            reason = await self._read_patient(unit, listed)
            return _Listing(reason, Ending.LISTED if reason is None else Ending.FAILED, failed=reason is not None)
        thin = self._profile.completeness.walk_query
        path = SearchDetail.of(unit).path
        if thin is not None:
            path = _with(path, thin)
        # an unknown patient is no fault of the question: it is listed as nothing
        detail = structs.replace(SearchDetail.of(unit), path=path, expect=0)
        result = await self._fetcher.fetch(replace(unit, detail=detail.packed), collect)
        if result.state is UnitState.SETTLED and (result.complete_listing or result.ended is Ending.GONE):
            return _Listing(None, result.ended, failed=False)
        reason = result.reason or "the server did not list all of it"
        refusal = result.ended in _NOT_ASKED or self._hindered(unit)
        return _Listing(reason, result.ended, failed=result.state is UnitState.FAILED and not refusal)

    def _hindered(self, unit: Unit) -> bool:
        return self._deferrals.hindrance(unit.resource_type, unit.patient_id) is not None

    async def _read_patient(self, unit: Unit, listed: dict[str, str | None]) -> str | None:
        try:
            body = await self._send(unit, SearchDetail.of(unit).path, "read")
        except TerminalFetchError as error:
            if await self._is_gone(error, unit):
                return None
            raise
        try:
            record = record_from(bare(body), self._client.base)
        except UnreadableResourceError as error:
            return f"the answer could not be read: {error}"
        self._answers_reads.add(record.resource_type)
        if record.resource_type != unit.resource_type:
            return "the answer is not a Patient"
        listed[record.id] = record.last_updated  # of another id: merged into that, which must be stored
        return None

    async def _send(self, unit: Unit, path: str, purpose: Literal["search", "read"]) -> bytes:
        call = self._client.fhir_call(path, unit.template, purpose, patient=unit.patient_id)
        return (await self._client.send(call)).body

    async def _is_gone(self, error: TerminalFetchError, unit: Unit) -> bool:
        return await self._answers.ending(error, unit.resource_type, unit.patient_id) in _NOT_THERE

    async def _look_up(self, question: Question, unlisted: Sequence[str], listed: Iterable[str]) -> LookedUp:
        """What becomes of the rows that no search listed when they are read; `listed` are rows that can be read, if any can."""
        readable = missing = 0
        unknown = max(0, len(unlisted) - _LOOKED_UP)
        for id_ in unlisted[:_LOOKED_UP]:
            answer = await self._read(question, id_)
            readable += answer == "there"
            missing += answer == "missing"
            unknown += answer == "unknown"
        if missing and await self._reads_show(question, listed):
            return LookedUp(gone=missing, readable=readable, unknown=unknown)
        return LookedUp(unproven=missing, readable=readable, unknown=unknown)

    async def _reads_show(self, question: Question, listed: Iterable[str]) -> bool:
        """Whether a 404 to a read of this type says that the row is gone: reads are declared, and this proof saw one answered.

        There are servers that answer 404 to every read of a type that they only search.
        """
        resource_type = question.resource_type
        if resource_type not in self._capability.reads:
            return False
        for id_ in islice(listed, _CONTROLS):
            if resource_type in self._answers_reads or await self._read(question, id_) == "there":
                break
        return resource_type in self._answers_reads

    async def _read(self, question: Question, id_: str) -> Literal["there", "missing", "unknown"]:
        resource_type = question.resource_type
        read = replace(question.units[0], template=f"GET /{resource_type}/{{id}}")
        try:
            body = await self._send(read, f"{resource_type}/{quote(id_, safe='')}", "read")
            record = record_from(bare(body), self._client.base)
        except TerminalFetchError as error:
            return "missing" if await self._is_gone(error, read) else "unknown"
        except (RequestError, UnreadableResourceError):
            return "unknown"
        if (record.resource_type, record.id) != (resource_type, id_):  # an outcome, or somebody else's page
            return "unknown"
        self._answers_reads.add(resource_type)
        return "there"


def _with(path: str, query: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{query}"


def _without_count(path: str) -> str:
    kind, _, query = path.partition("?")
    kept = "&".join(part for part in query.split("&") if part and not part.startswith("_count="))
    return f"{kind}?{kept}" if kept else kind
