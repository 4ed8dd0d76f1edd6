"""The calls of one connection to its EHR: limits, judgement and retries around each.

`sender` decides what leaves for whom, `retry_table` what an answer means, `limits` how much may be requested at a time,
and whether at all; `auth` owns tokens. URLs and bodies are PHI: nothing here logs, and errors name a call by its template.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from connectors.core.waits import Waits
from connectors.fhir.errors import ProtocolError, TransientFetchError
from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.body import BodyReader
from connectors.fhir.transport.call import Call, Endpoint, Purpose, Reply, StreamReply, Token, Tokens
from connectors.fhir.transport.chunks import Chunks
from connectors.fhir.transport.explain import error_for, found
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.transport.limits import ConnectionLimits, Place
from connectors.fhir.transport.origins import SharedOrigin
from connectors.fhir.transport.retry_budget import RetryBudget
from connectors.fhir.transport.retry_table import (
    TryResult,
    Verdict,
    issue_codes,
    judge,
    nobody_home,
    server_time,
    server_wait_s,
    signal_of,
    speaker_of,
)
from connectors.fhir.transport.sender import FAILS, Answer, Sender, drained
from connectors.fhir.transport.tries import Tries, outcome_of
from snapshots.traffic import PaceState

MAX_REPLY_BYTES = 256 << 20  # decompressed; whole answers are pages and manifests, files are streamed
MAX_REFUSAL_BYTES = 4 << 20  # of an answer that is not accepted, for its issue codes
BODY_START_BYTES = 512
CLOCK_TOLERATED_S = 5.0  # Date is in whole seconds, and an answer is under way for some
_CLOCKS_COMPARED = 5  # answers: more than one machine may give them
_UNAUTHORIZED = 401
Sleep = Callable[[float], Awaitable[None]]
T = TypeVar("T")


@dataclass(frozen=True)
class _Held:
    """An answer and the slot that it occupies until it is closed."""

    answer: Answer
    place: Place


@dataclass(frozen=True)
class _Try(Generic[T]):
    """One try: what it saw, the verdict, and its answer if it was accepted."""

    seen: TryResult
    verdict: Verdict
    value: T | None = None


class EhrClient:
    """Sends the calls of one connection within its limits; use as an async context manager.

    `clock` gives epoch seconds, `sleep` waits, `rng` spreads the waits; connections to one origin have one `shared`. `tokens`
    may be set later: discovery, logins and calls with `auth=False` need none. `requests` counts all that went out.
    """

    def __init__(
        self,
        connection: Endpoint,
        profile: VendorProfile,
        tokens: Tokens | None = None,
        *,
        clock: Callable[[], float],
        sleep: Sleep,
        rng: random.Random,
        shared: SharedOrigin | None = None,
    ) -> None:
        self.tokens = tokens
        self.behind_s = self.ahead_s = 0.0  # the server's clock against ours, as its first answers say
        self.budget = RetryBudget(profile.retry.share, profile.retry.floor)
        self.waits = Waits(clock, sleep)
        self._again_then = self.waits.sleeper("the EHR refused the request, or did not answer it yet; trying again")
        self.origin = SharedOrigin() if shared is None else shared
        self.origin.join(profile)
        self.limits = ConnectionLimits(profile, clock=clock, waits=self.waits, origin=self.origin)
        self.profile = profile
        self.base = FhirBase(connection.base_url, profile.links.rewrite_origins)
        self._clock = clock
        self._rng = rng
        self._sender = Sender(connection, profile, self.base)
        self._clocks_compared = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._sender.aclose()

    @property
    def requests(self) -> int:
        """How many requests went out."""
        return self._sender.requests

    @property
    def retries(self) -> int:
        """How many tries came after the first of a call, streams that broke among them."""
        return self.budget.retries

    def restore(self, state: PaceState) -> None:
        """Restore the pace and the breaker that the connection's last run left."""
        self.limits.restore(state)
        self.origin.restore(state)

    def pace_state(self) -> PaceState:
        """Return what the connection's next run should know."""
        return self.limits.state()

    def fhir_call(self, path: str, template: str, purpose: Purpose = "read", *, patient: str | None = None) -> Call:
        """Return a GET of what is below the base URL, or at an absolute URL.

        `patient`: whose token to send where the EHR's tokens are each bound to one patient.
        """
        return Call(
            method="GET",
            url=path if "://" in path else f"{self.base.url}/{path}",
            template=template,
            purpose=purpose,
            accept=self.profile.http.accept,
            launch=patient if self.profile.login.token_per_patient else None,
        )

    async def send(self, call: Call) -> Reply:
        """The whole answer, its status one of `call.ok`.

        Raises TransientFetchError when tries (BudgetExhaustedError: budget) are used up or the call was not sent
        (EhrDownError, QuietHoursError), TerminalFetchError or ProtocolError when asking again is no use, AuthError,
        UnsafeLinkError.
        """
        return await self._with_retries(call, self._try_whole)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[StreamReply]:
        """The answer as it comes, retried as `send` until its first bytes are there; raises as `send` does.

        Its place among the connection's requests is taken until the block ends.
        """
        held = await self._with_retries(call, self._try_open)
        response = held.answer.response
        chunks = Chunks(call, held.answer.reader, self._sender, self.budget, self._answering)
        try:
            yield StreamReply(response.status_code, response.headers, held.answer.url, chunks, held.answer.reader)
        finally:
            await self._close(held)

    async def once(self, call: Call) -> Reply:
        """Send one request without token, place, redirect, retry or judgement of its status: for the token endpoint.

        Raises TransientFetchError when no whole answer came, TerminalFetchError for an untrusted certificate, ProtocolError
        for an answer that is too long.
        """
        url = self._sender.safe(call)
        try:
            with self._answering():
                answer = await self._sender.once(call, url)
            try:
                body = await _whole(call, answer.reader)
                return Reply(answer.response.status_code, answer.response.headers, body, url)
            finally:
                await answer.response.aclose()
        except FAILS as error:
            seen = self._sender.failed(error)
        raise error_for(call, seen, judge(call, seen), tries=1)

    def _answering(self) -> AbstractContextManager[None]:
        return self.waits.answer("the EHR's answer", self.profile.http.read_timeout_s)

    async def _with_retries(self, call: Call, attempt: Callable[[Call], Awaitable[_Try[T]]]) -> T:
        # another server's failure shows nothing about the EHR
        origin = self.origin if self._sender.leads_home(call) else SharedOrigin()
        probing = await origin.admit(call, self._clock)
        self.budget.count_request()
        try:
            first = await attempt(call)
            # nearly always; setting the retry loop up costs a sixth of a small request's CPU
            if first.value is not None:
                self.budget.count_answer()
                origin.answered()
                return first.value
            return await self._again(call, origin, attempt, [first], 1 if probing else self.profile.retry.max_tries)
        except BaseException:
            if probing:
                origin.probe_lost()
            raise

    async def _again(
        self,
        call: Call,
        origin: SharedOrigin,
        attempt: Callable[[Call], Awaitable[_Try[T]]],
        done: list[_Try[T]],
        most: int,
    ) -> T:

        async def tried_or_again(call: Call) -> _Try[T]:
            return done.pop() if done else await attempt(call)

        tries = Tries(most, self.budget, lambda: self.origin.is_down(self._clock()))
        retrying = AsyncRetrying(
            sleep=self._again_then,
            retry=_AGAIN,
            stop=tries.stop,
            wait=self._wait_s,
            retry_error_callback=outcome_of,
        )
        tried: _Try[T] = await retrying(tried_or_again, call)
        if tried.value is not None or not nobody_home(call, tried.seen, tried.verdict):
            self.budget.count_answer()
            origin.answered()
        elif tried.seen.elsewhere is not None:
            origin.answered()  # with a redirect, to where nobody is
        else:
            origin.unanswered(self._clock(), found(tried.seen, tried.verdict))
        if tried.value is not None:
            return tried.value
        count = retrying.statistics["attempt_number"]
        raise error_for(call, tried.seen, tried.verdict, tries=count, budget_empty=tries.budget_empty)

    def _wait_s(self, state: RetryCallState) -> float:
        """Full jitter (AWS, "Exponential Backoff And Jitter"), on top of the wait that the server requested."""
        doubled = self.profile.retry.base_s * 2.0 ** min(state.attempt_number - 1, 64)
        jitter = self._rng.uniform(0, min(self.profile.retry.cap_s, doubled))
        return (outcome_of(state).verdict.after_s or 0.0) + jitter

    async def _try_whole(self, call: Call) -> _Try[Reply]:
        tried = await self._try_open(call)
        held = tried.value
        if held is None:
            return _Try(tried.seen, tried.verdict)
        try:
            with self._answering():
                body = await _whole(call, held.answer.reader)
            reply = Reply(held.answer.response.status_code, held.answer.response.headers, body, held.answer.url)
            return _Try(tried.seen, tried.verdict, reply)
        except FAILS as error:
            seen = self._sender.failed(error)
        finally:
            await self._close(held)
        return _Try(seen, judge(call, seen))

    async def _try_open(self, call: Call) -> _Try[_Held]:
        """One try up to the first piece of the body; an answer that is not accepted is read for its issue codes and closed."""
        url = self._sender.safe(call)
        token = await self._token(call, url)  # before the slot is taken: a login may take long
        place = await self.limits.acquire(call.purpose)
        if self.origin.is_down(self._clock()):  # since this call began to wait
            self.limits.release(place)
            raise self.origin.down_error(call, self._clock())
        held: _Held | None = None
        try:
            try:
                with self._answering():
                    held = _Held(await self._answer(call, url, token, place), place)
                    accepted = held.answer.response.status_code in call.ok
                    body = await held.answer.reader.peek() if accepted else await _refusal(held.answer.reader)
                seen = self._seen(held.answer, body, accepted, sent_to=url)
            except FAILS as error:
                seen = self._sender.failed(error)
            verdict = judge(call, seen, busy_means_running=self.profile.kickoff.busy_means_running)
            self.limits.saw(call, place, seen, signal_of(call, seen, verdict))
        except BaseException:
            await self._leave(held, place)
            raise
        if held is not None and verdict.action == "ok":
            return _Try(seen, verdict, held)
        await self._leave(held, place)
        return _Try(seen, verdict)

    async def _answer(self, call: Call, url: str, token: Token | None, place: Place) -> Answer:
        """Send the request and follow redirects; replay it once after a 401 if there is another token; that is no retry."""
        answer = await self._sender.follow(call, url, token)
        if answer.response.status_code == _UNAUTHORIZED and token is not None and self.tokens and not answer.foreign:
            self.tokens.invalidate(token)
            try:
                fresh = await self._token(call, url)
            except BaseException:
                await answer.response.aclose()
                raise
            if fresh != token:
                await drained(answer.response)
                answer = await self._sender.follow(call, url, fresh)
        place.answered_at = self._clock()
        if not answer.foreign:
            self.limits.heard(answer.response.headers.raw)
            self._compare_clocks(answer.response.headers)
        return answer

    def _compare_clocks(self, headers: Mapping[str, str]) -> None:
        if self._clocks_compared < _CLOCKS_COMPARED and (server := server_time(headers.get("date"))) is not None:
            self._clocks_compared += 1
            behind = self._clock() - server
            self.behind_s = max(self.behind_s, behind if behind > CLOCK_TOLERATED_S else 0.0)
            self.ahead_s = max(self.ahead_s, -behind)

    async def _token(self, call: Call, url: str) -> Token | None:
        try:
            return await self._sender.token(call, url, self.tokens)
        except TransientFetchError as error:
            self.origin.unanswered(self._clock(), str(error))
            raise

    def _seen(self, answer: Answer, body: bytes, accepted: bool, *, sent_to: str) -> TryResult:
        headers, cap_s = answer.response.headers, self.profile.retry.after_cap_s
        return TryResult(
            status=answer.response.status_code,
            media_type=(media_type := headers.get("content-type", "").partition(";")[0].strip().lower()),
            body_start=body[:BODY_START_BYTES],
            codes=() if accepted else issue_codes(body),
            speaker="ehr" if accepted else speaker_of(body, media_type),
            retry_after_s=None if accepted else server_wait_s(headers, now=self._clock(), cap_s=cap_s),
            foreign=answer.foreign,
            led_to=None if answer.url == sent_to else answer.url,
            elsewhere=self._sender.elsewhere(answer.url),
            token_sent=answer.token_sent,
        )

    async def _leave(self, held: _Held | None, place: Place) -> None:
        if held is None:
            self.limits.release(place)
        else:
            await self._close(held)

    async def _close(self, held: _Held) -> None:
        try:
            await held.answer.response.aclose()
        finally:
            self.limits.release(held.place)


async def _whole(call: Call, reader: BodyReader) -> bytes:
    body, ended = await reader.read(MAX_REPLY_BYTES)
    if not ended:
        raise ProtocolError(f"{call.template}: the answer is longer than {MAX_REPLY_BYTES >> 20} MB")
    return body


async def _refusal(reader: BodyReader) -> bytes:
    """Return what a refused answer says: its status counts even if its body is damaged."""
    try:
        return (await reader.read(MAX_REFUSAL_BYTES))[0]
    except FAILS:
        return b""


_AGAIN = retry_if_result(lambda tried: tried.verdict.action == "retry")
