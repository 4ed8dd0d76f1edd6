"""Renews the links of an export's files: before they expire, and when a server says that one has (F21; vendor-facts 6.4).

One fetch of a manifest page renews the links of all its files, however many workers find theirs expired. After a fetch that
brought no better link, the page is left alone for a while, longer each time; else each of its files would fetch it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import anyio

from connectors.core.errors import ConnectorError
from connectors.fhir.bulk.export_job import ExportJob
from connectors.fhir.bulk.page_files import PageFiles
from connectors.fhir.errors import ProtocolError
from connectors.fhir.unit_details import FileDetail
from snapshots.export_job import BulkJob
from snapshots.unit import Unit

_MARGIN = timedelta(seconds=30)  # a link that ends within this is renewed first
_SOON = timedelta(hours=1)
_IN_VAIN = timedelta(minutes=1)  # before a page without new links is requested again; doubled each time
_MOST_DOUBLED = 16


class FileLinks:
    """The current link of every file of one job."""

    def __init__(self, export: ExportJob, job: BulkJob, *, now: Callable[[], datetime]) -> None:
        self._export = export
        self._now = now
        self._pages: dict[int, PageFiles] = {}  # pages that were requested again
        self._pages_refreshed: dict[int, datetime] = {}
        # pages whose last answer brought no link that works, and how many such in a row
        self._in_vain: dict[int, int] = {}
        self._lock = anyio.Lock()
        self.job = job

    async def current(self, unit: Unit) -> str:
        """Return the unit's link, renewed if it is about to expire."""
        url = FileDetail.of(unit).url
        ends = self.job.expires_at
        try:
            url = self._fresh(unit) or url
            if ends is not None and ends - _MARGIN <= self._now() and not self._refreshed_lately(unit):
                return await self.renewed(unit, url) or url
        except ProtocolError:
            return url  # it may still work; if not, `renewed` says why there is no other
        return url

    async def renewed(self, unit: Unit, ended: str) -> str | None:
        """Return a link other than `ended`; None if the server has no other.

        Raises:
            ProtocolError: the page, fetched again, does not list this file, or not so that it can be distinguished from others.
        """
        async with self._lock:
            known = self._fresh(unit)
            if known is not None and known != ended:
                return known
            number = _page(unit)
            if self._is_in_vain(number):
                return None
            self._pages_refreshed[number] = self._now()
            self._in_vain[number] = self._in_vain.get(number, 0) + 1  # until it is seen to have brought something
            try:
                found = await self._export.page_again(self.job, number)
            except ConnectorError:
                return None  # the file's own error says more
            if found is None:
                return None
            self._pages[number], expires_at = found
            self.job = replace(self.job, expires_at=expires_at or self.job.expires_at)
            fresh = self._fresh(unit)
            return fresh if fresh != ended else None

    def worked(self, unit: Unit, url: str) -> None:
        """Note that a renewed link worked: its page is worth fetching again when links expire the next time."""
        if url != FileDetail.of(unit).url:
            self._in_vain.pop(_page(unit), None)

    def _is_in_vain(self, number: int) -> bool:
        times = self._in_vain.get(number, 0)
        return times > 0 and self._now() < self._pages_refreshed[number] + _IN_VAIN * 2 ** min(times - 1, _MOST_DOUBLED)

    def _fresh(self, unit: Unit) -> str | None:
        """The unit's link as its page lists it now; None if the page was not fetched again."""
        files = self._pages.get(_page(unit))
        if files is None:
            return None
        return files.find(unit).url

    def warning(self, files: int) -> str | None:
        """Return the note to show if the server will delete the export soon."""
        ends = self.job.expires_at
        if ends is None or ends - self._now() > _SOON or not files:
            return None
        return (
            f"the server keeps the export's files only until {ends:%Y-%m-%d %H:%M} UTC, and {files} are still missing"
        )

    def _refreshed_lately(self, unit: Unit) -> bool:
        """Handle servers whose Expires is always in the past: fetch new links once, not before every file."""
        fetched_at = self._pages_refreshed.get(_page(unit))
        return (
            fetched_at is not None and self.job.expires_at is not None and fetched_at >= self.job.expires_at - _MARGIN
        )


def _page(unit: Unit) -> int:
    return unit.page or 1
