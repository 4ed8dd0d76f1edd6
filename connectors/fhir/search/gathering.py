"""Gathers what one unit of a crawl lists: every page of a search, whole or in parts; one read; or one batch of Patients.

`pager` walks the pages and `records` reads them; `split_search` and `windows` split a search; `search` decides what the end
means for the unit. Records may repeat when a search is sent again or in parts: the store's merge makes that harmless.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import replace
from datetime import datetime
from urllib.parse import quote

import orjson

from connectors.core.errors import FetchError
from connectors.core.pipeline import Emit, Fetched
from connectors.fhir.capability import Capability
from connectors.fhir.endings import meaning_of
from connectors.fhir.errors import ProtocolError, RequestError, TerminalFetchError
from connectors.fhir.json_answers import bare
from connectors.fhir.not_found import NotFoundAnswers
from connectors.fhir.patients.membership import nameless
from connectors.fhir.patients.merges import aliases_in, refused_survivor
from connectors.fhir.records import Page, UnreadableResourceError, record_from
from connectors.fhir.search.inspection import Inspection
from connectors.fhir.search.pager import NotAPageError, Pager
from connectors.fhir.search.split_search import SplitSearch
from connectors.fhir.search.verdicts import MERGED, SearchTally, asks_for_patient, lost_places, unread
from connectors.fhir.search.windows import Piece, SplitLimits, divide, places, trouble_of
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.unit_details import SearchDetail
from snapshots.patient import Alias
from snapshots.record import Quarantined, Record
from snapshots.unit import Ending, Unit, UnitResult, UnitState
from snapshots.witness import Deletion, Said

_MOST_HELD = 1_000  # rows of a search in memory, until it shows whether they are the patient's
_MAX_SLOW = 12  # slow answers to the parts of one search: beyond that the server is slow, not the search
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class PageGatherer:
    """Requests what units list, and emits what comes. One for each run: it remembers which types refuse a filter by date."""

    def __init__(
        self,
        client: EhrClient,
        *,
        capability: Capability | None = None,
        began: datetime | None = None,
        formers: Container[str] = (),
        notes_dates: bool = False,
        in_part: bool = False,
    ) -> None:
        """`began` is when the run began; without it no search is divided by time.

        `formers` are ids of merged patients. `notes_dates`: tallies have the newest date, from which the next run continues.
        `in_part`: searches may request some elements only.
        """
        self.profile = client.profile
        self.formers = formers
        self.not_found = NotFoundAnswers(client)
        self._client = client
        self._base = client.base
        self._pager = Pager(client, in_part=in_part)
        self._capability = capability or Capability()
        self._began = began
        self._dates_until = began if notes_dates else None
        self._without_since: set[str] = set()

    async def read(self, unit: Unit, emit: Emit) -> UnitResult:
        """Read one Patient, and say how that ended.

        Raises:
            RequestError: a refusal, no answer, or another type than was requested.
        """
        path = SearchDetail.of(unit).path
        reply = await self._client.send(self._client.fhir_call(path, unit.template, patient=unit.patient_id))
        try:
            record = record_from(bare(reply.body), self._base, unit.key, unit.way)
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

    async def batch(self, unit: Unit, emit: Emit) -> UnitResult:
        """Fetch Patients by `_id`, by halves if the list is refused; patients missing from a batch are fetched one by one."""
        tally, refused = SearchTally(), False
        todo = [Piece(ids=unit.ids)]
        while todo:
            piece = todo.pop()
            path = f"{unit.resource_type}?_id={','.join(quote(one, safe='') for one in piece.ids)}"
            try:
                await self._walk(unit, path, tally, emit)
            except (TerminalFetchError, ProtocolError):
                parts = divide(piece, "poison", SplitLimits(now=None, count=None))
                refused = refused or not parts
                todo += parts
        if tally.unreadable:
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=unread(tally), records=tally.count)
        reason = "a search for some of them by their ids failed: read one by one" if refused else None
        return UnitResult(key=unit.key, state=UnitState.SETTLED, reason=reason, records=tally.count)

    async def gather(self, unit: Unit, emit: Emit) -> SearchTally:
        """Emit everything that a search lists, whole or in parts; return a tally of its pages, for `verdicts`.

        Raises:
            RequestError: a refusal, or a page that did not come; what came before it was emitted.
            UnsafeLinkError: a next link led away from the EHR.
        """
        split = SplitSearch(unit, self.profile, self._capability, self._began)
        if unit.resource_type in self._without_since:
            split.forget_since()
        todo, tally = [split.whole], SearchTally()
        count = slow = 0
        lost: list[Piece] = []
        while todo:
            piece = todo.pop()
            count += 1
            tally.dateless = tally.dateless or split.may_miss_dateless(piece)
            try:
                await self._walk(unit, split.path(piece), tally, emit)
            except RequestError as error:
                if isinstance(error, NotAPageError) and error.led_to_patient and unit.patient_id is not None:
                    tally.merged = True
                    continue
                meaning = meaning_of(error, self.profile.answers.issue_codes)
                if split.may_refuse_since(piece, error, meaning):  # a plain 400: everything is listed instead
                    self._without_since.add(unit.resource_type)
                    split.forget_since()
                    todo.append(split.whole)
                    continue
                trouble = trouble_of(error, meaning)
                slow += trouble == "slow"
                if slow > _MAX_SLOW:
                    raise
                parts = (
                    divide(piece, trouble, split.limits) if trouble and count < self.profile.search.divide_max else ()
                )
                if not parts and (piece is split.whole or trouble is None):
                    raise
                todo += reversed(parts)
                if not parts:
                    lost.append(piece)
                    tally.lost_codes = error.codes
        tally.lost = places(lost)
        if lost:
            await emit(Fetched(quarantined=[_lost(unit, lost, tally)]))
        tally.unfiltered = split.without_since
        return tally

    async def _walk(self, unit: Unit, path: str, tally: SearchTally, emit: Emit) -> None:
        """Emit every page of one search or piece of it."""
        inspection = Inspection.of(unit, self.profile, self._capability, self._dates_until)
        held = _Nameless(unit, tally, emit)

        async def take(page: Page, page_url: str) -> None:
            tally.issues += page.issues
            tally.count += len(page.records)
            others = sum([record.resource_type != unit.resource_type for record in page.records])
            tally.of_other_types += others
            tally.unasked += page.unasked(unit.resource_type) if others else 0
            tally.unreadable += len(page.quarantined)
            tally.doubtful = tally.doubtful or page.doubtful
            inspection.look(page.records, tally)
            if not (page.records or page.quarantined):
                return
            records = await held.without(page.records)
            size = sum([len(record.body) for record in records])
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
            return self._search(unit, url, first=first)

        url = f"{self._base.url}/{path}"
        try:
            totals = await self._pager.walk(url, call_for, take, unit_key=unit.key, way=unit.way)
        except FetchError:
            await held.release(is_whole=False)
            raise
        await held.release(is_whole=True)
        tally.withheld += totals.missing
        tally.shifted = tally.shifted or totals.shifted

    def _identity(self, unit: Unit, found: Sequence[Record], url: str) -> tuple[list[Alias], list[Deletion]]:
        """Return what the answer to a request for one Patient shows: a merge (F45), or the end of one. It came from `url`.

        Raises:
            ProtocolError: another Patient came, and nothing shows that it is the survivor.
        """
        requested, ids = unit.patient_id, [record.id for record in found if record.resource_type == "Patient"]
        if unit.resource_type != "Patient" or requested is None or not ids:
            return [], []
        if requested in ids:
            return ([Alias(requested, requested, gone=False)] if requested in self.formers else []), []
        vendor_leads = "merged" in self.profile.answers.issue_codes.values()
        redirected = quote(requested, safe="") not in re.split(r"[/?&=]", url)
        if not (vendor_leads or redirected or any(alias.former_id == requested for alias in aliases_in(found))):
            raise ProtocolError(f"{unit.template} returned another Patient than the requested one.")
        return [Alias(requested, ids[0], gone=True)], [Deletion("Patient", requested, Said.MERGED, unit.way)]

    def led_on(self, unit: Unit, error: RequestError) -> Fetched | None:
        """Return that the requested Patient is merged, if the server refused another Patient instead; None: it did not."""
        if not asks_for_patient(unit) or unit.patient_id is None:
            return None
        survivor = refused_survivor(error, unit.patient_id, self._base)
        if survivor is None:
            return None
        merged = Deletion("Patient", unit.patient_id, Said.MERGED, unit.way)
        return Fetched(deletions=[merged], aliases=[Alias(unit.patient_id, survivor, gone=True)])

    def _search(self, unit: Unit, url: str, *, first: bool) -> Call:
        call = self._client.fhir_call(url, unit.template, "search", patient=unit.patient_id)
        over = self.profile.search.post_over
        where, _, query = url.partition("?")
        if not first or over is None or len(url) <= over or not query:
            return call
        return replace(call, method="POST", url=f"{where}/_search", headers=_FORM, body=query.encode())


class _Nameless:
    """Rows of one search that name no patient: its patient's, unless some page shows that the server did not heed whom it named.

    They are emitted once that is known; beyond `_MOST_HELD`, by what the pages so far show. If a later page shows that the server
    did not heed the patient, the tally counts them as unplaced: the next run searches the patient in full.
    """

    def __init__(self, unit: Unit, tally: SearchTally, emit: Emit) -> None:
        self._unit = unit
        self._tally = tally
        self._emit = emit
        self._held: list[Record] = []

    async def without(self, records: Sequence[Record]) -> Sequence[Record]:
        """Hold such rows back, and return the others."""
        of_type, patient = self._unit.resource_type, self._unit.patient_id
        held = [record for record in records if nameless(record, of_type, patient)]
        if not held:
            return records
        self._held += held
        self._tally.nameless += len(held)
        if len(self._held) >= _MOST_HELD:
            await self.release(is_whole=True)
        return [record for record in records if not nameless(record, of_type, patient)]

    async def release(self, *, is_whole: bool) -> None:
        """Emit the rows; as the patient's, if the search is whole and brought nobody else's."""
        if not self._held:
            return
        whose = self._unit.patient_id if is_whole and not self._tally.of_others else None
        rows = [record._replace(searched=whose) for record in self._held]
        self._held = []
        await self._emit(Fetched(records=rows, size=sum([len(record.body) for record in rows])))


def _lost(unit: Unit, lost: Sequence[Piece], tally: SearchTally) -> Quarantined:
    """Quarantine the positions of records that the server cannot produce, for operators with access to the store."""
    found = [{"after": piece.after, "until": piece.until} for piece in lost]
    raw = orjson.dumps({"codes": tally.lost_codes, "between": found})
    return Quarantined(unit.resource_type, f"{unit.template}, in part", lost_places(tally), raw, unit.key)
