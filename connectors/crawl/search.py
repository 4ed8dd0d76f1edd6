"""Fetches one unit of a crawl: every page of one search, or one read. What the pages mean is read by `connectors.fhir`.

Sent records may repeat when a paging session expires and the search starts again: the store's merge makes that harmless.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from connectors.crawl.paging import LoopGuard, follow
from connectors.errors import ProtocolError, TerminalFetchError
from connectors.fhir import (
    Issue,
    NotABundleError,
    Page,
    UnreadableResourceError,
    codes_of,
    grade,
    page_from,
    record_from,
)
from connectors.pipeline import Emit, Fetched
from connectors.profile import IssueGrade, VendorProfile
from connectors.transport.call import Call
from connectors.transport.client import EhrClient
from snapshots.record import Deletion, Quarantined, Unit, UnitResult, UnitState

_NOT_SERVED = frozenset({404, 501})
_MAX_RESTARTS = 3  # of one search whose paging session expired: beyond that the server's sessions are too short for us

_HOLES: dict[IssueGrade, str] = {
    "pause": "the server puts this search off to another day",
    "fatal": "the server could not produce all of it",
    "restart": "the server's paging session kept expiring",
}
_NOTES: dict[IssueGrade, str] = {
    "incomplete": "the server says that more may exist than it shows this client",
    "restricted": "restricted by the server for this client",
}


class _SessionExpiredError(Exception):
    """A next link that the server no longer knows: the search starts again from its first page."""


class SearchFetcher:
    """Fetches search and read units of one connection."""

    def __init__(self, client: EhrClient, base_url: str, profile: VendorProfile) -> None:
        self._client = client
        self._base_url = base_url
        self._profile = profile
        self._served: set[str] = set()
        self._remarks: Counter[tuple[str, str]] = Counter()

    def notes(self) -> list[str]:
        """What settled units had to remark, once a type, with how many units said so."""
        return [f"{kind}: {remark} ({count} x)" for (kind, remark), count in sorted(self._remarks.items())]

    async def fetch(self, unit: Unit, emit: Emit) -> UnitResult:
        """Emit everything that the unit's search lists, and say how it ended.

        Raises:
            FetchError: the unit is a hole.
            UnsafeLinkError: a next link led away from the EHR.
        """
        keep = emit if unit.detail.get("store", True) else _keep_nothing
        try:
            result = await (self._read(unit, keep) if unit.kind == "read" else self._search(unit, keep))
        except TerminalFetchError as error:
            result = await self._refused(unit, error, keep)
        if result.records:
            self._served.add(unit.resource_type)
        if result.state is UnitState.SETTLED and result.reason is not None:
            self._remarks[unit.resource_type, result.reason] += 1
        # what was looked at and not stored must not tombstone what is stored
        return result if keep is emit else replace(result, complete_listing=False)

    async def _read(self, unit: Unit, emit: Emit) -> UnitResult:
        reply = await self._client.send(self._call(unit, f"{self._base_url}/{unit.detail['path']}", purpose="read"))
        try:
            record = record_from(reply.body, unit.key)
        except UnreadableResourceError as error:
            await emit(Fetched(quarantined=[Quarantined(unit.resource_type, "read", str(error), reply.body, unit.key)]))
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=f"the answer could not be read: {error}")
        if record.resource_type != unit.resource_type:
            raise ProtocolError(f"{unit.detail['template']} gave a {record.resource_type}.")
        await emit(Fetched(records=[record], size=len(record.body)))
        return UnitResult(key=unit.key, state=UnitState.SETTLED, complete_listing=True, records=1)

    async def _search(self, unit: Unit, emit: Emit) -> UnitResult:
        for _ in range(_MAX_RESTARTS):
            try:
                return await self._walk(unit, emit)
            except _SessionExpiredError:
                continue
        return UnitResult(key=unit.key, state=UnitState.FAILED, reason=_HOLES["restart"])

    async def _walk(self, unit: Unit, emit: Emit) -> UnitResult:
        url: str | None = f"{self._base_url}/{unit.detail['path']}"
        guard = LoopGuard(self._profile.max_pages)
        issues: list[Issue] = []
        count = unreadable = pages = 0
        while url is not None:
            guard.check(url)
            pages += 1
            page, page_url = await self._page(unit, url, pages)
            issues += page.issues
            count += len(page.records)
            unreadable += len(page.quarantined)
            if page.records or page.quarantined:
                size = sum(len(record.body) for record in page.records)
                await emit(Fetched(records=page.records, quarantined=page.quarantined, size=size))
            url = follow(self._base_url, page_url, page.next_url) if page.next_url else None
        return self._ended(unit, issues, count, unreadable)

    async def _page(self, unit: Unit, url: str, number: int) -> tuple[Page, str]:
        try:
            reply = await self._client.send(self._call(unit, url, purpose="search"))
        except TerminalFetchError as error:
            expired = error.status in self._profile.next_expired_statuses or self._meaning(error.codes) == "restart"
            if number > 1 and expired:
                raise _SessionExpiredError from error
            raise
        try:
            return page_from(
                reply.body, where=f"page {number} of {unit.detail['template']}", unit_key=unit.key
            ), reply.url
        except NotABundleError as error:
            raise ProtocolError(f"{unit.detail['template']}, page {number}: {error}.", status=reply.status) from None

    def _ended(self, unit: Unit, issues: Sequence[Issue], count: int, unreadable: int) -> UnitResult:
        worst = grade(issues, self._profile.issue_codes)
        if unreadable:
            reason = f"{unreadable} entries could not be read: see quarantine"
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason, records=count)
        if worst in _HOLES:
            return UnitResult(
                key=unit.key, state=UnitState.FAILED, reason=_named(_HOLES[worst], codes_of(issues)), records=count
            )
        if count < unit.detail.get("expect", 0):
            reason = "the server knows no such patient: check the id, or the cohort"
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason)
        note = _named(_NOTES[worst], codes_of(issues)) if worst in _NOTES else None
        complete = note is None and not unit.detail.get("incremental", False)
        return UnitResult(key=unit.key, state=UnitState.SETTLED, reason=note, complete_listing=complete, records=count)

    async def _refused(self, unit: Unit, error: TerminalFetchError, emit: Emit) -> UnitResult:
        """An answer that will not change: a deletion, a type that is not served here, or a hole."""
        meaning = self._meaning(error.codes)
        if unit.resource_type == "Patient" and unit.patient_id and (error.status == 410 or meaning == "gone"):  # noqa: PLR2004
            await emit(Fetched(deletions=[Deletion("Patient", unit.patient_id)]))
            return UnitResult(key=unit.key, state=UnitState.SETTLED, reason="deleted in the EHR")
        if error.status == 404 and unit.resource_type == "Patient" and unit.patient_id:  # noqa: PLR2004
            reason = "the server knows no such patient (or serves no Patient reads): check the id, or the cohort"
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason)
        if meaning == "missing":  # of an unknown patient: its Patient unit is the hole, once
            return UnitResult(key=unit.key, state=UnitState.SETTLED, reason="the server knows no such patient")
        if (
            error.status in _NOT_SERVED or "not-supported" in error.codes
        ):  # a search that does not exist (vendors.md section 7)
            answer = f"HTTP {error.status}"
            if unit.detail.get("expected", False) or unit.resource_type in self._served:
                reason = f"the server answers {answer} to this search, though the type was asked for by name, or served before"
                return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason)
            return UnitResult(key=unit.key, state=UnitState.SETTLED, reason=f"not served here: {answer}")
        if error.status == 403 or meaning == "restricted":  # noqa: PLR2004
            reason = _named("restricted by the server for this client", error.codes)
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason)
        raise error

    def _meaning(self, codes: Sequence[str]) -> IssueGrade:
        return grade((Issue("note", code, ()) for code in codes), self._profile.issue_codes)

    def _call(self, unit: Unit, url: str, *, purpose: str) -> Call:
        return Call(
            method="GET",
            url=url,
            template=unit.detail["template"],
            purpose=purpose,  # type: ignore[arg-type] # one of the client's purposes, by the two callers above
            accept=self._profile.accept,
            launch=unit.patient_id if self._profile.token_per_patient else None,
        )


async def _keep_nothing(fetched: Fetched) -> None:
    """Take what a unit found that is only looked at."""


def _named(text: str, codes: Sequence[str]) -> str:
    return f"{text} ({', '.join(codes)})" if codes else text
