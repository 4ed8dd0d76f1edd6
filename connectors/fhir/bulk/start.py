"""Starts an export: the intent is stored before the kick-off is sent, the status URL before the answer is used.

So a kill between the two is recognised afterwards: a job may be running that nobody can find. `kick_off` writes the
request, `kick_off_tries` decides what to try after a refusal; `export_job` follows the job once it has started.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from config.how_many import how_many
from connectors.core.errors import ConnectorError
from connectors.fhir.bulk.deletion import delete_export
from connectors.fhir.bulk.kick_off import (
    ExportParameters,
    Form,
    KickOff,
    KickOffRefusal,
    kick_off,
    proofs,
    refusal_from,
)
from connectors.fhir.bulk.kick_off_tries import NOT_FOUND, KickOffTries
from connectors.fhir.bulk.manifest import is_whole_manifest, looks_like_manifest
from connectors.fhir.bulk.other_answers import resource_type_of, what_came
from connectors.fhir.bulk.poll_waits import poll_wait_s
from connectors.fhir.errors import (
    ExportRefusedError,
    ProtocolError,
    TerminalFetchError,
    TransientFetchError,
    UntraceableExportError,
)
from connectors.fhir.issue_types import shown
from connectors.fhir.memories import BulkJobs
from connectors.fhir.transport.call import Call, Reply
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.transport.links import header_link
from connectors.fhir.transport.retry_table import issue_codes, server_wait_s
from snapshots.export_job import BulkJob, EarlierJob

_ACCEPTED, _DUPLICATE, _BUSY = 202, 409, 429
_DONE = frozenset({200, 201})  # of servers that mean 202, where a status URL comes with it
_REFUSALS = frozenset({400, 405, _DUPLICATE, 415, 422, _BUSY})

Clock = Callable[[], datetime]
Sleep = Callable[[float], Awaitable[None]]


class Begun(NamedTuple):
    """An export that the server has accepted. `manifest` is the answer to the kick-off, if that was the manifest itself."""

    job: BulkJob
    manifest: Reply | None = None


class ExportStart:
    """Begins one run's export."""

    def __init__(
        self,
        client: EhrClient,
        jobs: BulkJobs,
        *,
        now: Clock,
        sleep: Sleep,
        note: Callable[[str], None],
        on_progress: Callable[[str], None],
        known: Callable[[Sequence[str]], Awaitable[tuple[str, ...]]],
    ) -> None:
        """`known` returns the named patients that the server knows; it is called once, if the server refuses them all."""
        self._client = client
        self._profile = client.profile
        self._jobs = jobs
        self._now = now
        self._sleep = sleep
        self._note = note
        self._on_progress = on_progress
        self._known = known

    async def begin(
        self, parameters: ExportParameters, form: Form, *, dispensable: Container[str] = frozenset()
    ) -> Begun:
        """Start the export, in the form that the server accepts, and store its status URL, unless it is already done.

        `dispensable` are named patients who are left out if the server refuses them all.

        Raises:
            TransientFetchError: no clear answer came, or an export is in progress for too long; a job may have begun.
            ExportRefusedError: refused for what it asks for, and there is no job; UntraceableExportError: there may be one, but
                nothing says where.
            RequestError: refused for another reason, as an export too soon after the last.
        """
        earlier = await self._jobs.earlier()
        await self._wait_for_lost_ones(earlier)
        await self._free(one for one in earlier if one.stored)
        began = self._now()
        wait, tries = self._profile.poll.first_s, KickOffTries(parameters, form, dispensable)
        while True:
            request = kick_off(self._client.base.url, tries.parameters, tries.form)
            answer = await self._kicked_off(request, tries)
            if isinstance(answer, Begun):
                return answer
            if answer.too_soon or answer.status in (_BUSY, _DUPLICATE):
                if not await self._free(await self._jobs.earlier()):
                    wait = await self._waited(request, answer, began, wait)
                continue
            if tries.leave_out_dispensable(answer):
                continue
            unchecked = tries.unchecked(answer)
            if unchecked and tries.name_only(await self._known(unchecked)):
                continue
            changed, note = tries.change(answer)
            if not changed:
                raise _refused(request, tries.first or answer, tries.number, len(tries.parameters.patients))
            if note is not None:
                self._note(note)

    async def _kicked_off(self, request: KickOff, tries: KickOffTries) -> Begun | KickOffRefusal:
        """Store the intent, send the request, and store the job that it begins, if it is not refused."""
        intent = BulkJob(
            kicked_off_at=self._now(),
            request=request.template,
            asked=proofs(tries.parameters, tries.form),
            elements=bool(tries.parameters.elements),
        )
        await self._jobs.save(intent)
        answer = await self._sent(request, _REFUSALS | (NOT_FOUND if tries.parameters.patients else frozenset()))
        if isinstance(answer, Reply):
            return await self._begun(intent, request, answer)
        await self._jobs.forget()
        return answer

    async def _sent(self, request: KickOff, refusals: frozenset[int]) -> Reply | KickOffRefusal:
        """Return the answer; raise an error if there is none, or if another module handles it."""
        call = Call(
            method=request.method,
            url=request.url,
            template=request.template,
            purpose="kickoff",
            accept="application/fhir+json",
            headers=request.headers,
            body=request.body,
            ok=refusals | _DONE | {_ACCEPTED},
        )
        try:
            reply = await self._client.send(call)
        except TransientFetchError as error:
            if error.status in refusals:  # a refusal in HTML
                return KickOffRefusal(status=error.status or 0, codes=error.codes)
            message = (
                f"{error}. An export may have started at the server anyway, so no second one was started. Sync again: "
                f"it waits until {self._profile.kickoff.again_s:.0f} s (profile.kickoff.again_s) have passed, then tries again."
            )
            raise TransientFetchError(message, status=error.status, codes=error.codes) from error
        except (TerminalFetchError, ProtocolError) as error:
            await self._jobs.forget()
            if error.status is None:
                raise
            raise ExportRefusedError(str(error), status=error.status, codes=error.codes) from error
        except ConnectorError:
            await self._jobs.forget()
            raise
        if reply.status not in refusals:
            return reply
        refusal = refusal_from(reply.status, reply.body, self._profile, codes=issue_codes(reply.body))
        after_s = self._seconds(reply)
        return replace(refusal, retry_after_s=after_s)

    async def _begun(self, intent: BulkJob, request: KickOff, reply: Reply) -> Begun:
        status_url = self._status_url(request, reply)
        if status_url is None:
            if reply.status in _DONE and is_whole_manifest(reply.body):
                # some servers, and gateways that poll for their clients, answer when the export is done; there is no job then
                return Begun(replace(intent, deleted=True), reply)
            await self._jobs.forget()
            raise _not_begun(request, reply)
        after_s = self._seconds(reply)
        if after_s is not None:
            after_s = poll_wait_s(self._profile, server_s=after_s, own_s=0, age_s=0)
        next_poll = None if after_s is None else self._now() + timedelta(seconds=after_s)
        job = replace(intent, status_url=status_url, next_poll_at=next_poll)
        await self._jobs.save(job)
        return Begun(job)

    def _status_url(self, request: KickOff, reply: Reply) -> str | None:
        """Return the status URL that the answer names; None if it names none.

        200 and 201 may begin a job too. In them, though, Content-Location may also be the address of the content itself (RFC
        9110, 8.7): it is, if the content is a resource, or if the address is the request's own.
        """
        location = header_link(reply.headers.get("content-location"))
        if reply.status == _ACCEPTED:
            location = location or header_link(reply.headers.get("location"))  # of a 201 it would be what was created
        if not location:
            return None
        url = self._client.base.resolve(location)
        is_data = resource_type_of(reply.body) not in {None, "OperationOutcome"}
        return None if reply.status != _ACCEPTED and (is_data or url == request.url) else url

    def _seconds(self, reply: Reply) -> float | None:
        return server_wait_s(reply.headers, now=self._now().timestamp(), cap_s=self._profile.poll.cap_s)

    async def _wait_for_lost_ones(self, earlier: Sequence[EarlierJob]) -> None:
        """Wait after a kick-off whose answer was lost: a job that it started ends, or causes a 429 for the next kick-off."""
        own = await self._jobs.current()
        lost = [one.job for one in earlier if one.job.is_unanswered] + ([own] if own is not None else [])
        if not lost:
            return
        since = (self._now() - max(job.kicked_off_at for job in lost)).total_seconds()
        remaining = self._profile.kickoff.again_s - since
        if remaining > 0:
            self._on_progress(
                f"the last kick-off's answer was lost: waiting {remaining:.0f} s for a job that it may have started"
            )
            await self._client.waits.sleeper("the last kick-off was never answered", self._sleep)(remaining)
        self._note("an earlier kick-off was never answered; a job that it may have started cannot be found again")
        for one in earlier:
            if one.job.is_unanswered:
                await self._jobs.settle_earlier(one.run)

    async def _free(self, jobs: Iterable[EarlierJob]) -> bool:
        """Delete jobs of earlier runs at the server; return whether any was deleted, so that a slot is free."""
        freed = False
        for one in jobs:
            url = one.job.status_url if self._profile.bulk.delete_job else None
            if url is not None and await delete_export(self._client, self._profile, url) is None:
                await self._jobs.settle_earlier(one.run)
                freed = True
        return freed

    async def _waited(self, request: KickOff, refusal: KickOffRefusal, began: datetime, wait: float) -> float:
        """Wait while another export is in progress, and return the next wait. A 429 started no job, so a retry is safe."""
        if refusal.too_soon:
            raise await self._too_soon(request, refusal)
        if refusal.status == _DUPLICATE:
            raise TerminalFetchError(
                f"{request.template}: the server has an export with these parameters already (HTTP 409), but this store knows "
                "nothing about it. Delete that job at its status URL, ask the EHR's administrators to, or request other types.",
                status=refusal.status,
                codes=refusal.codes,
            )
        waited = (self._now() - began).total_seconds()
        pause = max(wait, refusal.retry_after_s or 0)
        if waited + pause > self._profile.kickoff.wait_s:
            message = (
                f"{request.template} was refused with HTTP 429 for {waited:.0f} s (profile.kickoff.wait_s): an export of "
                "this client is in progress. Sync again when it has ended, or delete it at its status URL."
            )
            raise TransientFetchError(message, status=refusal.status, codes=refusal.codes)
        self._on_progress("another export of this client is in progress")
        await self._client.waits.sleeper("another export of this client is in progress", self._sleep)(pause)
        return min(wait * 2 or 1, self._profile.poll.cap_s)

    async def _too_soon(self, request: KickOff, refusal: KickOffRefusal) -> TerminalFetchError:
        window = timedelta(seconds=self._profile.kickoff.window_s or 86_400)
        last = await self._jobs.last_kicked_off()
        if last is not None and last + window > self._now():
            when = f"after {last + window:%Y-%m-%d %H:%M} UTC, {window.total_seconds() / 3600:.0f} h after our last export of it"
        else:
            when = (
                f"in {window.total_seconds() / 3600:.0f} h at the latest; another client with this id has exported it"
            )
        return TerminalFetchError(
            f"{request.template}: exported too recently for this EHR (HTTP {refusal.status}). Sync again {when}, or use "
            "--mode crawl. The kick-off was not repeated.",
            status=refusal.status,
            codes=refusal.codes,
        )


def _not_begun(request: KickOff, reply: Reply) -> ExportRefusedError:
    """An accepted kick-off that names no job to follow."""
    if reply.status == _ACCEPTED:
        return UntraceableExportError(
            f"{request.template}: HTTP {reply.status} without Content-Location, so the export, if it started, can be neither "
            "followed nor deleted. Ask the operator of the EHR, or of a gateway in front of it, where that header is lost; "
            "else use --mode crawl.",
            status=reply.status,
        )
    is_page = resource_type_of(reply.body) is None and looks_like_manifest(reply.body)
    content = "a manifest of several pages" if is_page else what_came(reply.body)
    return ExportRefusedError(
        f"{request.template} did not start an asynchronous export: HTTP {reply.status} with {content}, and without "
        "a status URL (Content-Location). Ask the EHR's administrators whether it exports in bulk, and for what; else use --mode "
        "crawl.",
        status=reply.status,
        codes=issue_codes(reply.body),
    )


def _refused(request: KickOff, refusal: KickOffRefusal, tries: int, patients: int) -> ExportRefusedError:
    codes = f" (issue codes {', '.join(shown(refusal.codes))})" if refusal.codes else ""
    named = f"; its answer names {', '.join(sorted(refusal.named))}" if refusal.named else ""
    others = f" {how_many(tries - 1, 'other form was', 'other forms were')} refused too." if tries > 1 else ""
    known = f" The server does not say that any of the {patients:,} named patients is unknown." if patients else ""
    what = "whether this EHR exports patients by name (else --mode crawl), and " if patients else ""
    return ExportRefusedError(
        f"{request.template}: the kick-off was refused with HTTP {refusal.status}{codes}{named}.{others}{known} Check {what}the "
        "connection's types, group and `bulk` table against what this EHR documents.",
        status=refusal.status,
        codes=refusal.codes,
        named=tuple(sorted(refusal.named)),
    )
