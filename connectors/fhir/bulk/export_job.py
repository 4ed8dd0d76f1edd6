"""Follows one export job from its status URL to its last manifest page, whose files become units page by page.

`start` starts it, `download` fetches its files. The job is stored before every wait, so a crashed run continues with it
(vendor-facts 6.2, 6.3).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

from connectors.fhir.bulk.kick_off import Proofs, proofs_from
from connectors.fhir.bulk.manifest import Manifest, looks_like_manifest, manifest_from
from connectors.fhir.bulk.page_files import PageFiles, last_positions
from connectors.fhir.bulk.poll_waits import poll_wait_s
from connectors.fhir.bulk.shown_progress import shown_progress
from connectors.fhir.endings import says_not_found
from connectors.fhir.errors import TerminalFetchError, TransientFetchError
from connectors.fhir.instants import CLOCKS_DIFFER, http_date
from connectors.fhir.issue_types import shown
from connectors.fhir.memories import EhrRunStore
from connectors.fhir.transport.call import Call, Reply
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.transport.links import elsewhere, origin
from connectors.fhir.transport.retry_table import TRANSIENT_CODES, issue_codes, server_wait_s
from connectors.fhir.unit_details import NoFileDetail
from snapshots.export_job import BulkJob
from snapshots.instants import moment
from snapshots.unit import Unit, UnitKind, unit_key

_ACCEPTED, _COMPLETE, _EMPTY, _REFUSED = 202, 200, 204, 400
_EMPTY_ANSWERS = 3  # in a row, "done" without a manifest: gateways answer so now and then
_A_PAGE_IS_BELIEVED_AFTER = timedelta(days=1)  # a gateway's 404 does not show whether the job still exists
_STATUS = re.compile(r"[1-5][0-9]{2}")
_NO_URL = ""  # of a manifest that answered the kick-off: to request it again would be to export again
_MANIFEST_PAGES = 100_000  # loop guard beside "same page twice"

Clock = Callable[[], datetime]
Sleep = Callable[[float], Awaitable[None]]
OnProgress = Callable[[str], None]


class ExportJob:
    """One job of one run, new or resumed."""

    def __init__(self, client: EhrClient, store: EhrRunStore, *, now: Clock, sleep: Sleep) -> None:
        self._client = client
        self._profile = client.profile
        self._store = store
        self._now = now
        self._sleep = sleep
        self._next_page: str | None = None  # after the last of the job's pages, if known
        self._troubles = 0

    async def advance(self, job: BulkJob, on_progress: OnProgress) -> BulkJob:
        """Wait until the server lists more files, write their units, and return the job's new state.

        Once it is `manifest_complete`, there will be no more; before, the files so far can be fetched. Types that were requested
        by name and have no file are then units of kind "no-file".

        Raises:
            TerminalFetchError: the server says that the job failed or is gone.
            TransientFetchError: no end within the profile's `bulk.job_timeout_s`, or the server stayed away; the job may
                still live.
        """
        self._check_home(job)
        proofs = proofs_from(job)
        wait = self._profile.poll.first_s
        job = await self._rest(job)
        while True:
            url = self._next_page or (job.pages[-1] if job.pages else job.status_url or "")
            reply, status = await self._poll(job, url)
            if status == _COMPLETE or (proofs.partial and looks_like_manifest(reply.body)):
                found = await self._page(job, url, reply, proofs, is_last=status == _COMPLETE)
                if found is not None and (status == _COMPLETE or self._next_page is not None):
                    return found
                if found is not None:  # fetch these files meanwhile; poll again when the server said
                    return await self._due(found, reply, wait)
                if self._next_page is not None:
                    continue
            on_progress(shown_progress(reply.headers.get("x-progress")))
            job = await self._pause(job, reply, wait)
            wait = min(wait * 2 or 1, self._profile.poll.cap_s)

    async def take_manifest(self, job: BulkJob, reply: Reply) -> BulkJob:
        """Write the units of a manifest that came in place of a job, and return the job's new state.

        Raises:
            ProtocolError: the manifest cannot be read.
        """
        return await self._page(job, _NO_URL, reply, proofs_from(job), is_last=True) or job

    def _check_home(self, job: BulkJob) -> None:
        """Refuse a status URL at an unknown origin, but keep it: otherwise the next run would start another job."""
        base = self._client.base
        home = {origin(base.url), *map(origin, self._profile.bulk.file_hosts)}
        actual = origin(base.safe(job.status_url or base.url))
        if actual not in home:
            raise TransientFetchError(
                f"The export's status URL is at another origin than base_url, {actual}; nothing was sent there. If it belongs to "
                f'this EHR, put "{actual}" into profile.bulk.file_hosts and sync again; {elsewhere(actual, base.url)}; '
                "else use --mode crawl."
            )

    async def _page(self, job: BulkJob, url: str, reply: Reply, proofs: Proofs, *, is_last: bool) -> BulkJob | None:
        """Process a manifest page; None if it has nothing new. Pages are fetched again, for more files or the next link."""
        known = url in job.pages
        number = list(job.pages).index(url) + 1 if known else len(job.pages) + 1
        manifest = manifest_from(reply.body, page=number, proofs=proofs)
        following = self._client.base.resolve(manifest.next_url) if manifest.next_url else None
        if following is not None and (following in job.pages or following == url or number >= _MANIFEST_PAGES):
            # a circle: these files are planned already, and what may follow cannot be reached
            manifest, following = replace(manifest, next_url=""), None
        self._next_page = following
        ends = is_last and following is None
        grown = await self._planned(manifest)
        if known and not grown and not ends:
            return None
        job = replace(
            job,
            pages=job.pages if known else (*job.pages, url),
            transaction_time=self._earlier(job.transaction_time, manifest.transaction_time, reply),
            expires_at=_expires(reply, self._now()) or job.expires_at,
        )
        if ends:
            await self._store.plan(await self._without_file(proofs))
            job = replace(job, manifest_complete=True, progress=None, next_poll_at=None)
        await self._store.jobs.save(job)
        return job

    def _earlier(self, known: str | None, stated: str | None, reply: Reply) -> str | None:
        """Return the earliest credible transactionTime: one ahead of the clocks would make later runs request nothing."""
        found, server = moment(stated, zoned=True), http_date(reply.headers.get("date"))
        latest = max(filter(None, (self._now(), server))) + CLOCKS_DIFFER
        if stated is None or found is None or found > latest:
            return known
        before = moment(known)
        return stated if before is None or found < before else known

    async def _planned(self, manifest: Manifest) -> bool:
        """Make units of files that have none yet.

        Return whether there were any. A page may be listed again, and longer each time.

        Raises:
            ProtocolError: a file that it listed before is no longer listed, or listed as another.
        """
        await self._store.plan(manifest.doubts())
        planned = await self._store.jobs.planned_files(manifest.page)
        files = PageFiles(manifest)
        for file in planned:
            files.find(file)
        if len(files.found) == sum(map(len, manifest.entries.values())):
            return False
        await self._store.plan(manifest.units(besides=files.found, after=last_positions(planned)))
        return True

    async def _without_file(self, proofs: Proofs) -> list[Unit]:
        """Every type that was requested by name and has no file; none of an export without any file, which proves nothing.

        What the silence about it means is judged once the files are here (`steps`).
        """
        with_file = set(await self._store.jobs.planned_types((UnitKind.FILE,)))
        if not with_file:
            return []
        return [
            Unit(
                key=unit_key("no-file", t),
                kind=UnitKind.NO_FILE,
                resource_type=t,
                way=proofs.ways(t)[0],
                way_of_none=proofs.ways(t)[1],
                incremental=proofs.incremental,
                detail=NoFileDetail(lists_all="*" not in with_file and proofs.lists_all(t)).packed,
            )
            for t in proofs.types
            if t not in with_file
        ]

    async def page_again(self, job: BulkJob, number: int) -> tuple[PageFiles, datetime | None] | None:
        """Fetch one page of the manifest again, for new links and their expiry; None if it is not available now."""
        if job.pages[number - 1] == _NO_URL:
            return None
        reply, status = await self._poll(job, job.pages[number - 1])
        if status != _COMPLETE and not looks_like_manifest(reply.body):
            return None
        manifest = manifest_from(reply.body, page=number, proofs=proofs_from(job))
        return PageFiles(manifest, paths_may_change=True), _expires(reply, self._now())

    async def _poll(self, job: BulkJob, url: str) -> tuple[Reply, int]:
        """Poll once; return the reply and the job's own status, which some servers send apart from HTTP's."""
        call = Call(
            method="GET",
            url=url,
            template="GET the export's status URL",
            purpose="status",
            accept="application/json",
            ok=frozenset({_COMPLETE, _ACCEPTED, _EMPTY}),
            token_origins=frozenset(self._profile.bulk.file_hosts),
        )
        try:
            reply = await self._client.send(call)
        except TransientFetchError as error:
            if says_not_found(error) and self._now() - job.kicked_off_at > _A_PAGE_IS_BELIEVED_AFTER:
                raise _gone(call, error) from error
            raise
        words = reply.headers.get("x-export-status", "").split()
        status = int(words[0]) if words and _STATUS.fullmatch(words[0]) else reply.status
        if status in (_COMPLETE, _EMPTY) and not reply.body.strip():
            self._troubles += 1
            if self._troubles < _EMPTY_ANSWERS:
                return reply, _ACCEPTED
            raise TransientFetchError(
                f"{call.template}: HTTP {reply.status} without a manifest, {self._troubles} times in a row. If it happens again, "
                "ask the EHR's operator what became of the export, or give it up with `chartferry runs discard`."
            )
        if status < _REFUSED:
            self._troubles = 0
            return reply, status
        codes = issue_codes(reply.body)
        self._troubles += 1
        if TRANSIENT_CODES.intersection(codes) and self._troubles < self._profile.retry.max_tries:
            return reply, _ACCEPTED
        found = f"X-Export-Status {status}" + (f", issue codes {', '.join(shown(codes))}" if codes else "")
        raise TerminalFetchError(
            f"{call.template}: the server's export failed ({found}); sync again to start a new one",
            status=status,
            codes=codes,
        )

    async def _pause(self, job: BulkJob, reply: Reply, wait: float) -> BulkJob:
        waited = (self._now() - job.kicked_off_at).total_seconds()
        if waited > self._profile.bulk.job_timeout_s:
            raise TransientFetchError(f"The export is not ready after {waited:.0f} s (profile.bulk.job_timeout_s).")
        return await self._rest(await self._due(job, reply, wait))

    async def _due(self, job: BulkJob, reply: Reply, wait: float) -> BulkJob:
        """Note when the job may be polled next: after `wait`, and not earlier than the server allows."""
        now = self._now()
        server_s = server_wait_s(reply.headers, now=now.timestamp(), cap_s=self._profile.poll.cap_s)
        age = (now - job.kicked_off_at).total_seconds()
        pause = poll_wait_s(self._profile, server_s=server_s, own_s=wait, age_s=age)
        progress = reply.headers.get("x-progress")
        job = replace(
            job,
            progress=shown_progress(progress) if progress else job.progress,
            next_poll_at=now + timedelta(seconds=pause),
        )
        await self._store.jobs.save(job)
        return job

    async def _rest(self, job: BulkJob) -> BulkJob:
        """Wait until the job may be polled, even if the wait began before a crash."""
        if job.next_poll_at is not None:
            remaining = (job.next_poll_at - self._now()).total_seconds()
            if remaining > 0:
                await self._sleep(min(remaining, self._profile.poll.cap_s))
        return job


def _gone(call: Call, error: TransientFetchError) -> TerminalFetchError:
    return TerminalFetchError(
        f"{call.template}: the answer is {error.status}, though not in the EHR's own words, and the export is old, so it is "
        "considered gone; sync again to start a new export",
        status=error.status,
    )


def _expires(reply: Reply, now: datetime) -> datetime | None:
    """When the manifest's links end (Bulk Data IG: HTTP-date in Expires); None where it makes no sense.

    A moment that had passed when the answer was sent only says that the answer must not be cached (RFC 9111 5.3).
    """
    ends, sent = http_date(reply.headers.get("expires")), http_date(reply.headers.get("date")) or now
    return ends if ends is not None and ends > sent else None
