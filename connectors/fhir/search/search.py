"""Fetches one unit of a crawl: every page of one search, one read, or one batch of Patients.

Pages are walked by `pager` and read by `records`; what their end means for the unit is said by `verdicts`, how a search is asked
in parts by `windows`, what is not asked at all by `deferrals`. Records may repeat when a search is asked again or in parts: the
store's merge makes that harmless.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from urllib.parse import quote

import anyio
import orjson

from connectors.core.pipeline import Emit, Fetched
from connectors.fhir.capability import Capability
from connectors.fhir.endings import ending_of, meaning_of
from connectors.fhir.errors import ProtocolError, RequestError, TerminalFetchError
from connectors.fhir.fhir_base import FhirBase
from connectors.fhir.patients.membership import filed
from connectors.fhir.patients.merges import aliases_in
from connectors.fhir.profile import VendorProfile
from connectors.fhir.records import Page, UnreadableResourceError, grade, record_from
from connectors.fhir.search.deferrals import Deferrals
from connectors.fhir.search.inspection import Inspection
from connectors.fhir.search.pager import NotAPageError, Pager
from connectors.fhir.search.split_search import SplitSearch
from connectors.fhir.search.verdicts import MERGED, SearchTally, asks_for_patient, ended, lost_places, refused
from connectors.fhir.search.windows import Piece, SplitLimits, divide, places, trouble_of
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.unit_details import SearchDetail
from snapshots.patient import Alias
from snapshots.record import Quarantined, Record
from snapshots.unit import Ending, Unit, UnitResult, UnitState
from snapshots.witness import Deletion, Said

_MAX_SLOW = 12  # answers that took too long, of one search in parts: beyond that it is the server, not the question
_ANSWERED = frozenset({Ending.LISTED, Ending.NOT_SERVED})
_NO_LONGER = frozenset({404, 410})
NO_REMARKS: Mapping[tuple[str, str], int] = MappingProxyType({})
_PUT_OFF = frozenset({Ending.PAUSED, Ending.RESTRICTED})
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class SearchFetcher:
    """Fetches search, read and batch units of one connection."""

    def __init__(
        self,
        client: EhrClient,
        base_url: str,
        profile: VendorProfile,
        *,
        capability: Capability | None = None,
        deferrals: Deferrals | None = None,
        began: datetime | None = None,
        formers: Container[str] = (),
        notes_dates: bool = False,
        remarks: Mapping[tuple[str, str], int] = NO_REMARKS,
    ) -> None:
        """`began` is when the run did; without it nothing is asked in windows of time.

        `formers` are ids known to lead to a survivor. `notes_dates`: results tell the newest date, since news will be asked.
        `remarks` are those of units that an interrupted run has settled: type and reason, with how many.
        """
        self._client = client
        self._base_url = base_url
        self._base = FhirBase(base_url, profile.links.rewrite_origins)
        self._pager = Pager(client, base_url, profile)
        self._profile = profile
        self._capability = capability or Capability()
        self._deferrals = deferrals
        self._began = began
        self._formers = formers
        self._dates_until = began if notes_dates else None
        self._served: set[str] = set()
        self._empty: set[str] = set()
        self._without_since: set[str] = set()
        self._asking: dict[tuple[str, str], anyio.Event] = {}
        self._remarks = Counter(dict(remarks))

    @property
    def empty_types(self) -> frozenset[str]:
        """Return the types that were answered for some patient but brought nothing for any."""
        return frozenset(self._empty - self._served)

    def notes(self) -> list[str]:
        """Return the remarks of settled units, once per type, with the number of units."""
        return [f"{kind}: {remark} ({count} x)" for (kind, remark), count in sorted(self._remarks.items())]

    async def fetch(self, unit: Unit, emit: Emit) -> UnitResult:
        """Emit everything that the unit's search lists, and say how it ended.

        Raises:
            RequestError: the unit is a hole.
            UnsafeLinkError: a next link led away from the EHR.
        """
        async with self._turn(unit):
            deferrals = self._deferrals
            hindrance = deferrals.hindrance(unit.resource_type, unit.patient_id) if deferrals else None
            if hindrance is not None:
                return UnitResult(
                    key=unit.key, state=UnitState.FAILED, reason=hindrance.reason, ending=hindrance.ending
                )
            return await self._fetch(unit, emit)

    @asynccontextmanager
    async def _turn(self, unit: Unit) -> AsyncIterator[None]:
        """Run a patient's searches of one type one after another: if the first is refused, the others are not sent."""
        if unit.patient_id is None or unit.resource_type not in self._profile.search.splits:
            yield
            return
        key = (unit.resource_type, unit.patient_id)
        while (other := self._asking.get(key)) is not None:
            await other.wait()
        self._asking[key] = anyio.Event()
        try:
            yield
        finally:
            self._asking.pop(key).set()

    async def _fetch(self, unit: Unit, emit: Emit) -> UnitResult:
        keep = emit if unit.kind == "batch" or SearchDetail.of(unit).store else _keep_nothing
        ways = {"read": self._read, "batch": self._batch}
        try:
            result = await ways.get(unit.kind, self._search)(unit, keep)
        except TerminalFetchError as error:
            result = await self._refused(unit, error, keep)
        if result.records:
            self._served.add(unit.resource_type)
            if self._deferrals is not None:
                self._deferrals.let_through(unit.resource_type)
        elif result.ended in _ANSWERED:
            self._empty.add(unit.resource_type)
        if result.state is UnitState.SETTLED and result.reason is not None:
            self._remarks[unit.resource_type, result.reason] += 1
        # what was looked at and not stored must not tombstone what is stored
        return result if keep is emit else replace(result, complete_listing=False)

    async def _read(self, unit: Unit, emit: Emit) -> UnitResult:
        reply = await self._client.send(
            self._call(unit, f"{self._base_url}/{SearchDetail.of(unit).path}", purpose="read")
        )
        try:
            record = record_from(reply.body, self._base, unit.key, unit.way)
        except UnreadableResourceError as error:
            await emit(Fetched(quarantined=[Quarantined(unit.resource_type, "read", str(error), reply.body, unit.key)]))
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=f"the answer could not be read: {error}")
        if record.resource_type != unit.resource_type:
            raise ProtocolError(f"{unit.template} returned a {record.resource_type}.")
        aliases, gone = self._identity(unit, [record], reply.url)
        aliases += aliases_in([record])
        await emit(Fetched(records=[record], deletions=gone, aliases=aliases, size=len(record.body)))
        reason = MERGED if gone else None
        return UnitResult(
            key=unit.key,
            state=UnitState.SETTLED,
            reason=reason,
            complete_listing=reason is None,
            records=1,
            ending=Ending.MERGED if gone else Ending.LISTED,
        )

    def _identity(self, unit: Unit, found: Sequence[Record], url: str) -> tuple[list[Alias], list[Deletion]]:
        """What it means that a question for one Patient was answered with these, from `url`: merged (F45), or merged no more.

        Raises:
            ProtocolError: another Patient came, and nothing says that he is the survivor.
        """
        asked, ids = unit.patient_id, [record.id for record in found if record.resource_type == "Patient"]
        if unit.resource_type != "Patient" or asked is None or not ids:
            return [], []
        if asked in ids:
            return ([Alias(asked, asked, gone=False)] if asked in self._formers else []), []
        vendor_leads = "merged" in self._profile.answers.issue_codes.values()
        redirected = quote(asked, safe="") not in re.split(r"[/?&=]", url)
        if not (vendor_leads or redirected or any(alias.former_id == asked for alias in aliases_in(found))):
            raise ProtocolError(f"{unit.template} returned another Patient than the requested one.")
        return [Alias(asked, ids[0], gone=True)], [Deletion("Patient", asked, Said.MERGED, unit.way)]

    async def _batch(self, unit: Unit, emit: Emit) -> UnitResult:
        """Fetch Patients by `_id`, by halves if the list is refused; patients missing from a batch are fetched one by one."""
        tally = SearchTally()
        todo = [Piece(ids=unit.ids)]
        while todo:
            piece = todo.pop()
            path = f"{unit.resource_type}?_id={','.join(quote(one, safe='') for one in piece.ids)}"
            try:
                await self._walk(unit, path, tally, emit)
            except (TerminalFetchError, ProtocolError):
                todo += divide(piece, "poison", SplitLimits(now=None, count=None))
        if tally.unreadable:
            reason = f"{tally.unreadable} entries could not be read: see quarantine"
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason, records=tally.count)
        return UnitResult(key=unit.key, state=UnitState.SETTLED, records=tally.count)

    async def _search(self, unit: Unit, emit: Emit) -> UnitResult:
        tally = await self.gather(unit, emit)
        result = self._ended(unit, tally)
        if (
            result.ending is Ending.NOT_FOUND and unit.patient_id is not None
        ):  # a search that brings nobody proves nothing
            await emit(Fetched(deletions=[Deletion("Patient", unit.patient_id, None, unit.way)]))
        return result

    async def gather(self, unit: Unit, emit: Emit) -> SearchTally:
        """Emit everything that a search lists, asked whole or in parts; gives what its pages brought, for `verdicts`.

        Raises:
            RequestError: a refusal, or a page that did not come; what came before it was emitted.
            UnsafeLinkError: a next link led away from the EHR.
        """
        asked = SplitSearch(unit, self._profile, self._capability, self._began)
        if unit.resource_type in self._without_since:
            asked.forget_since()
        todo, tally = [asked.whole], SearchTally()
        count = slow = 0
        lost: list[Piece] = []
        while todo:
            piece = todo.pop()
            count += 1
            tally.dateless = tally.dateless or asked.may_miss_dateless(piece)
            try:
                await self._walk(unit, asked.path(piece), tally, emit)
            except RequestError as error:
                if isinstance(error, NotAPageError) and error.led_to_patient and unit.patient_id is not None:
                    tally.merged = True
                    continue
                meaning = meaning_of(error, self._profile.answers.issue_codes)
                if asked.may_refuse_since(piece, error, meaning):  # a plain 400: everything is listed instead
                    self._without_since.add(unit.resource_type)
                    asked.forget_since()
                    todo.append(asked.whole)
                    continue
                trouble = trouble_of(error, meaning)
                slow += trouble == "slow"
                if slow > _MAX_SLOW:
                    raise
                parts = (
                    divide(piece, trouble, asked.limits) if trouble and count < self._profile.search.divide_max else ()
                )
                if not parts and (piece is asked.whole or trouble is None):
                    raise
                todo += reversed(parts)
                if not parts:
                    lost.append(piece)
                    tally.lost_codes = error.codes
        tally.lost = places(lost)
        if lost:
            await emit(Fetched(quarantined=[_lost(unit, lost, tally)]))
        tally.unfiltered = asked.without_since
        return tally

    def _ended(self, unit: Unit, tally: SearchTally) -> UnitResult:
        result = ended(unit, tally, self._profile)
        worst = grade(tally.issues, self._profile.answers.issue_codes)
        if result.state is UnitState.FAILED and worst in {"pause", "restricted"} and not tally.lost:
            codes = [code for issue in tally.issues for code in issue.vendor_codes]
            return self._remember(unit, result, codes)
        return result

    async def _walk(self, unit: Unit, path: str, tally: SearchTally, emit: Emit) -> None:
        """Emit every page of one search or piece of it."""
        inspection = Inspection.of(unit, self._profile, self._capability, self._dates_until)

        async def take(page: Page, page_url: str) -> None:
            tally.issues += page.issues
            tally.count += len(page.records)
            tally.unreadable += len(page.quarantined)
            tally.doubtful = tally.doubtful or page.doubtful
            inspection.look(page.records, tally)
            if not (page.records or page.quarantined):
                return
            size = sum(len(record.body) for record in page.records)
            records = filed(page.records, unit.resource_type, unit.patient_id)
            aliases: list[Alias] = []
            gone: list[Deletion] = []
            if unit.resource_type == "Patient":
                aliases, gone = self._identity(unit, page.records, page_url)
                tally.merged = tally.merged or bool(gone)
                aliases += aliases_in(page.records)
            await emit(
                Fetched(records=records, deletions=gone, aliases=aliases, quarantined=page.quarantined, size=size)
            )

        def call_for(url: str, first: bool) -> Call:
            return self._call(unit, url, purpose="search", first=first)

        url = f"{self._base_url}/{path}"
        totals = await self._pager.walk(url, call_for, take, unit_key=unit.key, way=unit.way)
        tally.withheld += totals.missing
        tally.shifted = tally.shifted or totals.shifted

    async def _refused(self, unit: Unit, error: TerminalFetchError, emit: Emit) -> UnitResult:
        """An answer that will not change: a deletion, a type that is not served here, or a hole."""
        if unit.resource_type == "Patient" and unit.patient_id in self._formers and error.status in _NO_LONGER:
            # the redirect has been dropped since
            return UnitResult(key=unit.key, state=UnitState.SETTLED, reason=MERGED, ending=Ending.MERGED)
        served = unit.resource_type in self._served
        refusal = refused(
            unit,
            error,
            ending_of(
                error, self._profile.answers.issue_codes, asked="patient" if asks_for_patient(unit) else "search"
            ),
            served=served,
        )
        if refusal is None:
            raise error
        if refusal.deletions:
            await emit(Fetched(deletions=refusal.deletions))
        if refusal.result.ended in _PUT_OFF:
            return self._remember(unit, refusal.result, error.codes)
        return refusal.result

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

    def _call(self, unit: Unit, url: str, *, purpose: str, first: bool = False) -> Call:
        over = self._profile.search.post_over
        where, _, query = url.partition("?")
        post = first and purpose == "search" and over is not None and len(url) > over and bool(query)
        return Call(
            method="POST" if post else "GET",
            url=f"{where}/_search" if post else url,
            template=unit.template,
            purpose=purpose,  # type: ignore[arg-type] # one of the client's purposes, by the two callers above
            accept=self._profile.http.accept,
            headers=_FORM if post else {},
            body=query.encode() if post else None,
            launch=unit.patient_id if self._profile.login.token_per_patient else None,
        )


def _lost(unit: Unit, lost: Sequence[Piece], tally: SearchTally) -> Quarantined:
    """Quarantine the positions of records that the server cannot produce, for operators with access to the store."""
    found = [{"after": piece.after, "until": piece.until} for piece in lost]
    raw = orjson.dumps({"codes": tally.lost_codes, "between": found})
    return Quarantined(unit.resource_type, f"{unit.template}, in part", lost_places(tally), raw, unit.key)


async def _keep_nothing(fetched: Fetched) -> None:
    """Collect, but do not store, what a unit found."""
