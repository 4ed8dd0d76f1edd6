"""Runs one bulk export job up to its manifest: kick-off, polling, manifest pages. Files are `bulk.download`'s.

The status URL is in the store before anything else is done with it, so a crash resumes polling (Bulk Data IG 6.1, 6.2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime

from connectors.bulk.manifest import Manifest, manifest_from
from connectors.crawl.paging import LoopGuard
from connectors.errors import FetchError, ProtocolError, TerminalFetchError, TransientFetchError
from connectors.plan import KickOff
from connectors.profile import VendorProfile
from connectors.store_port import RunStore
from connectors.transport.call import Call, Reply
from connectors.transport.client import EhrClient
from connectors.transport.links import resolve
from connectors.transport.retry_table import retry_after_s
from snapshots.record import BulkJob, Unit

_ACCEPTED, _COMPLETE, _GONE = 202, 200, 404
_MANIFEST_PAGES = 10_000
_DELETE_ANSWERS = frozenset({200, 202, 204, 404})  # 404: HAPI has already deleted it [R] SF

Clock = Callable[[], datetime]
Sleep = Callable[[float], Awaitable[None]]
OnProgress = Callable[[str], None]


class ExportJob:
    """One job of one run: begun or resumed, polled to its end, deleted when its files are stored."""

    def __init__(
        self, client: EhrClient, base_url: str, profile: VendorProfile, store: RunStore, *, now: Clock, sleep: Sleep
    ) -> None:
        self._client = client
        self._base_url = base_url
        self._profile = profile
        self._store = store
        self._now = now
        self._sleep = sleep

    async def begin(self, kick_off: KickOff, on_progress: OnProgress) -> BulkJob:
        """Kick the job off and store its status URL, once an export of ours that still runs has ended (Cerner's 429).

        Raises:
            FetchError: refused, or its answer never came; an ambiguous kick-off is not repeated blindly.
        """
        began = self._now()
        call = Call(
            method="GET",
            url=kick_off.url,
            template=kick_off.template,
            purpose="kickoff",
            accept="application/fhir+json",
            headers={"Prefer": "respond-async"},
            ok=frozenset({_COMPLETE, _ACCEPTED}),
        )
        reply = await self._kicked_off(call, began, on_progress)
        location = reply.headers.get("content-location") or reply.headers.get("location")
        if reply.status != _ACCEPTED or not location:
            found = f"HTTP {reply.status} {'with' if location else 'without'} Content-Location"
            raise ProtocolError(f"{kick_off.template} did not start an asynchronous export: {found}. Try --mode crawl.")
        job = BulkJob(status_url=resolve(location, self._base_url), kicked_off_at=began, request=kick_off.template)
        await self._store.jobs.save(job)
        if "retry-after" in reply.headers:
            await self._sleep(self._pause(reply, self._profile.poll_first_s))
        return job

    async def _kicked_off(self, call: Call, began: datetime, on_progress: OnProgress) -> Reply:
        """The kick-off's answer. A 429 started no job: waiting for the running one, then asking again, is safe."""
        wait = self._profile.poll_first_s
        while True:
            await self._store.jobs.current()  # a store that is gone must not be left with a job that nobody can find again
            try:
                return await self._client.send(call)
            except FetchError as error:
                if error.status != 429 or not self._profile.kickoff_429_means_running:  # noqa: PLR2004
                    raise
                waited = (self._now() - began).total_seconds()
                if waited + wait > self._profile.kickoff_wait_s:
                    message = (
                        f"{call.template} was refused with HTTP 429 for {waited:.0f} s (profile.kickoff_wait_s): an export of "
                        "this client is in progress. Sync again when it has ended, or delete it at its status URL."
                    )
                    raise TransientFetchError(message, status=error.status, codes=error.codes) from error
            on_progress("another export of this client is in progress")
            await self._sleep(wait)
            wait = min(wait * 2 or 1, self._profile.poll_cap_s)

    async def units(self, job: BulkJob, *, types: Sequence[str], incremental: bool, on_progress: OnProgress) -> BulkJob:
        """Wait for the manifest and write one unit a file; the job comes back with its transaction time.

        Of `types`, those that were asked for by name and have no file, each is a unit of kind "no-file": there is nothing of it.

        Raises:
            TerminalFetchError: the server says that the job failed or is gone.
            TransientFetchError: no end within the profile's `job_timeout_s`, or the server stayed away; the job may still live.
        """
        reply = await self._completed(job, on_progress)
        pages = [manifest_from(reply.body, page=1, incremental=incremental)]
        guard = LoopGuard(_MANIFEST_PAGES)
        while pages[-1].next_url is not None:
            guard.check(pages[-1].next_url)
            reply = await self._poll_until_ready(job, resolve(pages[-1].next_url, self._base_url), on_progress)
            pages.append(manifest_from(reply.body, page=len(pages) + 1, incremental=incremental))
        await self._store.plan([*_in_order(pages), *_without_file(types, pages, incremental=incremental)])
        job = replace(job, transaction_time=pages[0].transaction_time, manifest_complete=True)
        await self._store.jobs.save(job)
        return job

    async def refreshed_url(self, job: BulkJob, unit: Unit) -> str | None:
        """Ask for the manifest again and give the unit's file a fresh URL (expired pre-signed links, F21); None if it is gone."""
        page = int(unit.key.split(":")[2])
        url = job.status_url or ""
        for number in range(1, page + 1):
            reply = await self._client.send(self._status_call(url))
            if reply.status != _COMPLETE:
                return None
            manifest = manifest_from(reply.body, page=number, incremental=False)
            if number == page:
                return next((str(u.detail["url"]) for u in manifest.units if u.key == unit.key), None)
            if manifest.next_url is None:
                return None
            url = resolve(manifest.next_url, self._base_url)
        return None

    async def delete(self, job: BulkJob) -> str | None:
        """Tell the server that every file is stored. A refusal never fails the run: it comes back as a note."""
        call = Call(
            method="DELETE",
            url=job.status_url or "",
            template="DELETE the export's status URL",
            purpose="delete",
            ok=_DELETE_ANSWERS,
            token_origins=frozenset(self._profile.bulk_file_hosts),
        )
        try:
            await self._client.send(call)
        except FetchError as error:
            return f"the finished export could not be deleted at the server: {error}"
        await self._store.jobs.save(replace(job, deleted=True))
        return None

    async def _completed(self, job: BulkJob, on_progress: OnProgress) -> Reply:
        try:
            return await self._poll_until_ready(job, job.status_url or "", on_progress)
        except TerminalFetchError as error:
            if error.status == _GONE:
                raise TerminalFetchError(
                    "The export's status URL answered HTTP 404: the job was deleted or has expired. Sync again to begin anew.",
                    status=error.status,
                    codes=error.codes,
                ) from error
            raise

    async def _poll_until_ready(self, job: BulkJob, url: str, on_progress: OnProgress) -> Reply:
        wait = self._profile.poll_first_s
        while True:
            reply = await self._client.send(self._status_call(url))
            if reply.status == _COMPLETE:
                return reply
            waited = (self._now() - job.kicked_off_at).total_seconds()
            if waited > self._profile.job_timeout_s:
                raise TransientFetchError(f"The export is not ready after {waited:.0f} s (profile.job_timeout_s).")
            on_progress(_short(reply.headers.get("x-progress")))
            await self._sleep(self._pause(reply, wait))
            wait = min(wait * 2 or 1, self._profile.poll_cap_s)

    def _pause(self, reply: Reply, otherwise: float) -> float:
        asked = reply.headers.get("retry-after")
        cap = self._profile.poll_cap_s
        seconds = retry_after_s(asked, now=self._now().timestamp(), cap_s=cap)
        return min(max(otherwise if seconds is None else seconds, self._profile.poll_floor_s), cap)

    def _status_call(self, url: str) -> Call:
        return Call(
            method="GET",
            url=url,
            template="GET the export's status URL",
            purpose="status",
            accept="application/json",
            ok=frozenset({_COMPLETE, _ACCEPTED}),
            token_origins=frozenset(self._profile.bulk_file_hosts),
        )


def _in_order(pages: list[Manifest]) -> list[Unit]:
    order = {"file": 0, "deleted-file": 1, "error-file": 2}
    return sorted((unit for page in pages for unit in page.units), key=lambda unit: order[unit.kind])


def _without_file(types: Sequence[str], pages: list[Manifest], *, incremental: bool) -> list[Unit]:
    """Types that the export has nothing of; none where the manifest gives reason to doubt that it tells everything."""
    units = [unit for page in pages for unit in page.units]
    there = {unit.resource_type for unit in units if unit.kind == "file"}
    doubtful = not there or "*" in there or any(unit.kind == "error-file" for unit in units)
    if doubtful or ("Patient" in types and "Patient" not in there):  # an export without anyone in it proves nothing
        return []
    detail = {"incremental": incremental}
    return [Unit(key=f"no-file:{t}", kind="no-file", resource_type=t, detail=detail) for t in types if t not in there]


def _short(progress: str | None) -> str:
    """X-Progress is free text: shown up to the 100 characters that the IG allows, printable ones only."""
    return "".join(c for c in progress or "in progress" if c.isprintable())[:100]
