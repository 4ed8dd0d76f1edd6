"""The use case: hands a dataset over to a receiver, follows it to its end, and counts what was refused.

The first request asks whether the receiver already has the submission: then it is followed and not sent again. So nothing needs
to be remembered here, and a killed call is simply made again. `submission` knows the documents; the caller logs in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from connectors.fhir.bulk.ndjson import LineSplitter, OverlongLine
from connectors.fhir.bulk.poll_waits import poll_wait_s
from connectors.fhir.bulk.shown_progress import shown_progress
from connectors.fhir.endings import may_be_a_gateways
from connectors.fhir.errors import ProtocolError, RequestError, SubmissionError, TransientFetchError
from connectors.fhir.issue_types import shown
from connectors.fhir.outcomes import UnreadableOutcomeError, outcome_from
from connectors.fhir.submit.submission import OutcomeFile, Submission, result_page
from connectors.fhir.transport.call import Call, Purpose, Reply
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.transport.links import header_link, origin
from connectors.fhir.transport.retry_table import server_wait_s

_OK, _ACCEPTED, _NOT_FOUND = 200, 202, 404
_REFUSED = frozenset({"fatal", "error"})
_MOST_PAGES = 10_000
_LONGEST_OUTCOME = 16 << 20


class IssueCode(NamedTuple):
    """A kind of issue: its severity, and its code as it can be shown."""

    severity: str
    code: str


@dataclass(frozen=True)
class Submitted:
    """How a submission ended. `sent` is False if the receiver had it already.

    `unread` counts outcomes that nobody can read, or that are missing: any of them may be a refusal.
    """

    id: str
    sent: bool
    issues: Mapping[IssueCode, int] = field(default_factory=dict)
    unread: int = 0

    @property
    def refused(self) -> int:
        """How many errors the receiver reports."""
        return sum(count for issue, count in self.issues.items() if issue.severity in _REFUSED)

    @property
    def is_whole(self) -> bool:
        """Whether the receiver took everything."""
        return not self.refused and not self.unread


async def submit(
    submission: Submission,
    client: EhrClient,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    on_progress: Callable[[str], None] = lambda _: None,
    keep: Callable[[bytes], None] = lambda _: None,
) -> Submitted:
    """Submit it unless the receiver has it, wait until it is processed, and read the outcomes; `keep` gets each of their lines.

    `clock` returns epoch seconds. The client is logged in for `system/bulk-submit`.

    Raises:
        SubmissionError: the receiver refused the submission, or gave it up; the message says which, and its issue codes.
        TransientFetchError: it did not answer, or is not done within the profile's `bulk.job_timeout_s`: call again to go on.
        ProtocolError, UnsafeLinkError, AuthError: an answer that cannot be used.
    """
    work = _Work(submission, client, clock, sleep)
    status_url = await work.status_url()
    sent = status_url is None
    if status_url is None:
        status_url = await work.sent()
        on_progress("sent")
    issues: Counter[IssueCode] = Counter()
    unread, seen = 0, set[str]()
    page_url: str | None = status_url
    while page_url is not None:
        seen.add(page_url)
        reply = await work.ended(page_url, on_progress)
        page = result_page(reply.body, submission.id)
        for file in page.files:
            unread += await work.outcomes(file, page.with_token, issues, keep)
        page_url = None if page.next is None else work.at_home(page.next)
        if page_url in seen or len(seen) > _MOST_PAGES:
            raise ProtocolError("the pages of the receiver's result form a loop")
    return Submitted(submission.id, sent, dict(issues), unread)


class _Work:
    """One submission on its way."""

    def __init__(
        self,
        submission: Submission,
        client: EhrClient,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._submission = submission
        self._client = client
        self._profile = client.profile
        self._clock = clock
        self._sleep = client.waits.sleeper("the receiver is processing the submission", sleep)

    async def status_url(self) -> str | None:
        """Return where the submission's status is; None: the receiver has no such submission."""
        call = self._post("$bulk-submit-status", "read", self._submission.status_request(), frozenset({_OK, _ACCEPTED}))
        try:
            reply = await self._client.send(call)
        except RequestError as error:
            if _is_unknown(error):
                return None
            raise
        location = header_link(reply.headers.get("content-location"))
        if not location:
            raise ProtocolError(f"{call.template}: the answer was {reply.status} without Content-Location")
        return self.at_home(location)

    async def sent(self) -> str:
        """Send it; return where its status is. An answer that got lost is made good by asking for the status."""
        call = self._post("$bulk-submit", "kickoff", self._submission.request(), frozenset({_OK, _ACCEPTED}))
        refusal: RequestError | None = None
        try:
            await self._client.send(call)
        except RequestError as error:
            refusal = error
        status_url = await self.status_url()
        if status_url is not None:
            return status_url
        if refusal is None:
            raise ProtocolError(f"{call.template}: the receiver accepted the submission, but does not know it")
        if isinstance(refusal, TransientFetchError):
            raise refusal
        raise SubmissionError(
            f"{call.template}: the receiver refused the submission ({_code_of(refusal)}); check `submitter`, and that the "
            "manifest's URL and the FHIR base URL are what was agreed upon",
            status=refusal.status,
            codes=refusal.codes,
        ) from refusal

    async def ended(self, url: str, on_progress: Callable[[str], None]) -> Reply:
        """Wait until the submission is processed; return the page of its result."""
        call = self._get(url, "GET the submission's status URL", "status", "application/json")
        began, wait = self._clock(), self._profile.poll.first_s
        while True:
            try:
                reply = await self._client.send(call)
            except TransientFetchError:
                raise
            except RequestError as error:
                raise SubmissionError(
                    f"{call.template}: the receiver gave up the submission ({_code_of(error)}); ask its operator",
                    status=error.status,
                    codes=error.codes,
                ) from error
            if reply.status == _OK:
                return reply
            on_progress(shown_progress(reply.headers.get("x-progress")))
            age = self._clock() - began
            if age > self._profile.bulk.job_timeout_s:
                raise TransientFetchError(
                    f"the receiver has not processed the submission after {age:.0f} s (profile.bulk.job_timeout_s); it may "
                    "still do so: the same command continues to wait, and sends nothing again"
                )
            server_s = server_wait_s(reply.headers, now=self._clock(), cap_s=self._profile.poll.cap_s)
            await self._sleep(poll_wait_s(self._profile, server_s=server_s, own_s=wait, age_s=age))
            wait = min(wait * 2 or 1, self._profile.poll.cap_s)

    async def outcomes(
        self, file: OutcomeFile, with_token: bool, issues: Counter[IssueCode], keep: Callable[[bytes], None]
    ) -> int:
        """Count the issues of a file; return how many of its lines are missing or cannot be read."""
        call = self._get(file.url, "GET a file of outcomes", "file", "application/fhir+ndjson", auth=with_token)
        lines = LineSplitter(_LONGEST_OUTCOME)
        unread = found = 0
        async with self._client.stream(call) as reply:
            async for chunk in reply.chunks:
                for line in lines.feed(chunk):
                    found += 1
                    unread += _counted(line, issues, keep)
        for line in lines.finish():
            found += 1
            unread += _counted(line, issues, keep)
        return unread + max(0, (file.lines or 0) - found)

    def at_home(self, link: str) -> str:
        """Return a link as a URL of the receiver's own origin, which the token may see."""
        url = self._client.base.safe(link)
        home = {origin(self._client.base.url), *map(origin, self._profile.bulk.file_hosts)}
        if origin(url) not in home:
            raise ProtocolError(
                f"the receiver's status URL is at another origin than base_url, {origin(url)}; if it belongs to this receiver, "
                "put that into profile.bulk.file_hosts"
            )
        return url

    def _post(self, operation: str, purpose: Purpose, body: bytes, ok: frozenset[int]) -> Call:
        headers = {"Content-Type": "application/fhir+json", "Prefer": "respond-async"}
        url = f"{self._client.base.url}/{operation}"
        return Call("POST", url, f"POST {operation}", purpose, headers=headers, body=body, ok=ok)

    def _get(self, url: str, template: str, purpose: Purpose, accept: str, *, auth: bool = True) -> Call:
        target = self._client.base.resolve(url)
        ok = frozenset({_OK, _ACCEPTED}) if purpose == "status" else frozenset({_OK})
        hosts = frozenset(self._profile.bulk.file_hosts)
        return Call("GET", target, template, purpose, accept, auth=auth, token_origins=hosts, ok=ok)


def _is_unknown(error: RequestError) -> bool:
    """Whether the receiver itself says that it has no such submission; 410 says that it had one."""
    return not may_be_a_gateways(error) and (error.status == _NOT_FOUND or "not-found" in error.codes)


def _code_of(error: RequestError) -> str:
    return error.answer + (f", issue codes {', '.join(shown(error.codes))}" if error.codes else "")


def _counted(line: tuple[int, bytes] | OverlongLine, issues: Counter[IssueCode], keep: Callable[[bytes], None]) -> int:
    """Count a line's issues; return how many things in it nobody can read."""
    if isinstance(line, OverlongLine):
        return 1
    keep(line[1])
    try:
        outcome = outcome_from(line[1])
    except UnreadableOutcomeError:
        return 1
    for issue in outcome.issues:
        issues[IssueCode(issue.severity, *shown([issue.code]))] += 1
    return outcome.unread
