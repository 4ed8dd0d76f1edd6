"""Fetches one unit of a crawl: asks for what it lists, and says how that ended.

`gathering` gathers what it lists; `verdicts` says what the end means, `deferrals` what is not requested at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from connectors.core.pipeline import Emit, Fetched
from connectors.fhir.endings import ending_of
from connectors.fhir.errors import TerminalFetchError
from connectors.fhir.records import grade
from connectors.fhir.search.deferrals import Deferrals
from connectors.fhir.search.gathering import PageGatherer
from connectors.fhir.search.verdicts import MERGED, SearchTally, asks_for_patient, ended, refused
from connectors.fhir.unit_details import SearchDetail
from snapshots.unit import Ending, Unit, UnitKind, UnitResult, UnitState
from snapshots.witness import Deletion

_NO_LONGER = frozenset({Ending.NOT_FOUND, Ending.GONE})
_PUT_OFF = frozenset({Ending.PAUSED, Ending.RESTRICTED})


class SearchFetcher:
    """Fetches search, read and batch units of one connection; remembers what one unit's end says of the others."""

    def __init__(self, gatherer: PageGatherer, *, deferrals: Deferrals | None = None) -> None:
        self._gatherer = gatherer
        self._profile = gatherer.profile
        self._deferrals = deferrals
        self._served: set[str] = set()
        self._asking: dict[tuple[str, str], anyio.Event] = {}

    async def fetch(self, unit: Unit, emit: Emit) -> UnitResult:
        """Emit everything that the unit's search lists, and say how it ended.

        Raises:
            RequestError: the unit is a hole.
            UnsafeLinkError: a next link led away from the EHR.
        """
        if unit.patient_id is None or unit.resource_type not in self._profile.search.splits:
            return await self._unless_hindered(unit, emit)
        async with self._turn(unit.resource_type, unit.patient_id):
            return await self._unless_hindered(unit, emit)

    async def _unless_hindered(self, unit: Unit, emit: Emit) -> UnitResult:
        deferrals = self._deferrals
        hindrance = deferrals.hindrance(unit.resource_type, unit.patient_id) if deferrals else None
        if hindrance is not None:
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=hindrance.reason, ending=hindrance.ending)
        return await self._fetch(unit, emit)

    @asynccontextmanager
    async def _turn(self, resource_type: str, patient: str) -> AsyncIterator[None]:
        """Run a patient's searches of one type one after another: if the first is refused, the others are not sent."""
        key = (resource_type, patient)
        while (other := self._asking.get(key)) is not None:
            await other.wait()
        self._asking[key] = anyio.Event()
        try:
            yield
        finally:
            self._asking.pop(key).set()

    async def _fetch(self, unit: Unit, emit: Emit) -> UnitResult:
        keep = emit if unit.kind == UnitKind.BATCH or SearchDetail.of(unit).store else self._identities(emit)
        ways = {UnitKind.READ: self._gatherer.read, UnitKind.BATCH: self._gatherer.batch}
        try:
            result = await ways.get(unit.kind, self._search)(unit, keep)
        except TerminalFetchError as error:
            result = await self._refused(unit, error, keep)
        if result.records:
            self._served.add(unit.resource_type)
            if self._deferrals is not None:
                self._deferrals.let_through(unit.resource_type)
        # what was looked at and not stored must not tombstone what is stored
        return result if keep is emit else replace(result, complete_listing=False)

    def _identities(self, emit: Emit) -> Emit:
        """Keep of Patients who are only looked at who they are: merges, and the Patients of those who are merged no more."""

        async def keep(fetched: Fetched) -> None:
            back = [record for record in fetched.records if record.id in self._gatherer.formers]
            if back or fetched.aliases:
                size = sum(len(record.body) for record in back)
                await emit(Fetched(records=back, aliases=fetched.aliases, size=size))

        return keep

    async def _search(self, unit: Unit, emit: Emit) -> UnitResult:
        tally = await self._gatherer.gather(unit, emit)
        result = self._ended(unit, tally)
        if result.ending is Ending.NOT_FOUND and unit.patient_id is not None:
            # a search that brings nobody proves nothing
            await emit(Fetched(deletions=[Deletion("Patient", unit.patient_id, None, unit.way)]))
        return result

    def _ended(self, unit: Unit, tally: SearchTally) -> UnitResult:
        result = ended(unit, tally, self._profile)
        worst = grade(tally.issues, self._profile.answers.issue_codes)
        if result.state is UnitState.FAILED and worst in {"pause", "restricted"} and not tally.lost:
            codes = [code for issue in tally.issues for code in issue.vendor_codes]
            return self._remember(unit, result, codes)
        return result

    async def _refused(self, unit: Unit, error: TerminalFetchError, emit: Emit) -> UnitResult:
        """An answer that will not change: a deletion, a type that is not served here, or a hole."""
        ending = await self._ending(unit, error)
        if unit.resource_type == "Patient" and unit.patient_id in self._gatherer.formers and ending in _NO_LONGER:
            # the redirect has been dropped since
            return UnitResult(key=unit.key, state=UnitState.SETTLED, reason=MERGED, ending=Ending.MERGED)
        if ending is Ending.RESTRICTED and (merged := self._gatherer.led_on(unit, error)) is not None:
            await emit(merged)
            return UnitResult(key=unit.key, state=UnitState.SETTLED, reason=MERGED, ending=Ending.MERGED)
        refusal = refused(unit, error, ending, served=unit.resource_type in self._served)
        if refusal is None:
            raise error
        if refusal.deletions:
            await emit(Fetched(deletions=refusal.deletions))
        if refusal.result.ended in _PUT_OFF:
            return self._remember(unit, refusal.result, error.codes)
        return refusal.result

    async def _ending(self, unit: Unit, error: TerminalFetchError) -> Ending:
        if not asks_for_patient(unit):
            return ending_of(error, self._profile.answers.issue_codes, what="search")
        return await self._gatherer.not_found.ending(error, unit.resource_type, unit.patient_id, what="patient")

    def _remember(self, unit: Unit, result: UnitResult, codes: Sequence[str]) -> UnitResult:
        if self._deferrals is None:
            return result
        if result.ended is Ending.PAUSED:
            return replace(result, reason=self._deferrals.pause(unit.resource_type))
        if unit.patient_id is not None and result.reason is not None:
            meanings = self._profile.answers.issue_codes
            self._deferrals.refuse(
                unit.resource_type,
                unit.patient_id,
                result.reason,
                by_code=any(meanings.get(code) == "restricted" for code in codes),
                every_type=any(code in self._profile.answers.restricts_patient for code in codes),
            )
        return result
