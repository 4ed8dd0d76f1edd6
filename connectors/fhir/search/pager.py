"""Walks the pages of one search; every caller that needs the next page uses it.

It applies the guards of `paging`, and starts again if the server's paging session is gone or its matches change between pages.
Its caller takes the pages; `verdicts` says what their end means, `windows` how to divide a search.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio.lowlevel

from connectors.fhir.bundles import NotABundleError
from connectors.fhir.errors import ProtocolError, TerminalFetchError
from connectors.fhir.issue_types import shown
from connectors.fhir.outcomes import Issue
from connectors.fhir.page_links import next_from_header
from connectors.fhir.records import Page, grade, page_from
from connectors.fhir.search.paging import LoopGuard, Totals, follow
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.transport.retry_table import issue_codes
from snapshots.witness import Way

_NOT_A_PAGE = (
    "sync again; if it happens again, check base_url, and ask the EHR's administrators what this search answers"
)
# restarts of one search after its paging session expired; after that the server's sessions are too short for us
_MAX_WALKS = 3

CallFor = Callable[[str, bool], Call]  # by URL, and whether it is the first page
Take = Callable[[Page, str], Awaitable[None]]  # a page, and the URL that it came from


class NotAPageError(ProtocolError):
    """An answer to a search that is not a Bundle. `led_to_patient`: a redirect to one Patient gave it, as merged patients do."""

    def __init__(self, message: str, *, status: int | None = None, led_to_patient: bool = False) -> None:
        super().__init__(message, status=status)
        self.led_to_patient = led_to_patient


class _SessionExpiredError(Exception):
    """A next link that the server no longer knows: the search starts again from its first page."""

    def __init__(self, status: int | None) -> None:
        super().__init__()
        self.status = status


class Pager:
    """Walks the searches of one connection."""

    def __init__(self, client: EhrClient, *, in_part: bool = False) -> None:
        """`in_part`: its searches may request only some elements, so that SUBSETTED is expected."""
        self._in_part = in_part
        self._client = client
        self._profile = client.profile

    async def walk(
        self, url: str, call_for: CallFor, take: Take, *, unit_key: str | None = None, way: Way | None = None
    ) -> Totals:
        """Hand every page to `take`, in order; return what the pages of the last walk say about their totals.

        A search is started again up to three times in all; then its first pages are handed over again. Totals that are
        `shifted` after that are the server's way.

        Raises:
            RequestError: a page did not come; those before it were handed over.
            UnsafeLinkError: a next link led away from the EHR.
        """
        totals: Totals | None = None
        status: int | None = None
        for _ in range(_MAX_WALKS):
            try:
                totals = await self._once(url, call_for, take, unit_key, way)
            except _SessionExpiredError as expired:
                totals, status = None, expired.status
                continue
            if not totals.shifted:
                return totals
        if totals is None:
            template = call_for(url, True).template
            reason = f"its own `next` link was answered {status}"
            raise ProtocolError(f"{template}: the server's paging session kept expiring ({reason}); {self._advice()}.")
        return totals

    async def _once(self, first: str, call_for: CallFor, take: Take, unit_key: str | None, way: Way | None) -> Totals:
        url: str | None = first
        guard, totals = LoopGuard(self._profile.search.max_pages), Totals()
        number = 0
        while url is not None:
            guard.check(url)
            number += 1
            page, page_url = await self._page(call_for(url, number == 1), number, unit_key, way)
            guard.look([record.id for record in page.records])
            keys = [record[:2] for record in page.records]
            totals.see(page.total, keys, len(page.quarantined), len(page.issues))
            await take(page, page_url)
            url = None if page.next_url is None else follow(self._client.base, page_url, page.next_url)
        return totals

    async def _page(self, call: Call, number: int, unit_key: str | None, way: Way | None) -> tuple[Page, str]:
        try:
            reply = await self._client.send(call)
        except TerminalFetchError as error:
            if number > 1 and self._is_expired(error):
                raise _SessionExpiredError(error.status) from error
            raise
        # the connection's slot is free: the next request is sent before this page is read
        await anyio.lowlevel.checkpoint()
        where = f"page {number} of {call.template}"
        try:
            page = page_from(
                reply.body, self._client.base, where=where, unit_key=unit_key, way=way, in_part=self._in_part
            )
        except NotABundleError as error:
            codes = ", ".join(shown(issue_codes(reply.body)))
            raise NotAPageError(
                f"{call.template}, page {number}: {error}{f' (issue codes {codes})' if codes else ''}; {_NOT_A_PAGE}.",
                status=reply.status,
                led_to_patient="/Patient/" in reply.url and "/Patient/" not in call.url,
            ) from None
        link = reply.headers.get("link")
        # some servers have the next link in the header alone; a page that is not requested would be lost silently
        if page.next_url is None and link is not None:
            page = replace(page, next_url=next_from_header(link))
        return page, reply.url

    def _advice(self) -> str:
        fewer = "for fewer pages, raise profile.search.page_size"
        sticky = (
            "if it lives on one of several machines that only a cookie can find again, set profile.http.cookies = true"
        )
        return fewer if self._profile.http.cookies else f"{sticky}; {fewer}"

    def _is_expired(self, error: TerminalFetchError) -> bool:
        meaning = grade((Issue("note", code, ()) for code in error.codes), self._profile.answers.issue_codes)
        return error.status in self._profile.search.next_expired_statuses or meaning == "restart"
