"""The one module that sends requests to an EHR: limits, token, redirects, judgement and retries around each call.

What an answer means is `retry_table`'s, how bytes travel `verbatim`'s, which links are safe `links`', tokens are `auth`'s. URLs
and bodies are PHI: nothing here logs, and errors name a call by its template.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Generic, Self, TypeVar

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_result
from yarl import URL

from connectors.errors import ProtocolError, UnsafeLinkError
from connectors.profile import VendorProfile
from connectors.transport.body import BodyReader
from connectors.transport.call import Call, Endpoint, Reply, StreamReply, Token, Tokens
from connectors.transport.content_coding import ContentCodingError
from connectors.transport.explain import error_for
from connectors.transport.limits import ConnectionLimits
from connectors.transport.links import origin, redirect_target, safe_url
from connectors.transport.retry_budget import RetryBudget
from connectors.transport.retry_table import Failure, Seen, Verdict, expects_json, issue_codes, judge, retry_after_s
from connectors.transport.tls import tls_context
from connectors.transport.verbatim import CertificateError, HandshakeError, NameNotFoundError, VerbatimTransport

MAX_REPLY_BYTES = 256 << 20  # decompressed; whole answers are pages and manifests, files are streamed
MAX_REFUSAL_BYTES = 4 << 20  # of an answer that is not accepted, for its issue codes
MAX_REDIRECTS = 5
MAX_REDIRECT_BYTES = 64 << 10
BODY_START_BYTES = 512
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SEE_OTHER, _UNAUTHORIZED = 303, 401
_MAY_LEAVE = frozenset({"file", "discovery"})  # files lie in object stores (Cerner), discovery holds no secret

Sleep = Callable[[float], Awaitable[None]]
T = TypeVar("T")

_FAILURES: tuple[tuple[type[Exception], Failure], ...] = (
    (ContentCodingError, "coding"),
    (CertificateError, "certificate"),
    (httpx.ProxyError, "proxy"),
    (HandshakeError, "handshake"),
    (NameNotFoundError, "name"),
    (httpx.ConnectTimeout, "connect-timeout"),
    (httpx.ConnectError, "connect"),
    (httpx.TimeoutException, "timeout"),
    (httpx.RemoteProtocolError, "malformed"),
    (httpx.UnsupportedProtocol, "malformed"),
    (httpx.TransportError, "dropped"),
)
try:
    _VERSION = version("chartferry")
except PackageNotFoundError:  # run from a checkout that is not installed
    _VERSION = "0"
_HEADERS = {"User-Agent": f"chartferry/{_VERSION}", "Accept-Encoding": "gzip"}
_FAILS = (httpx.TransportError, ContentCodingError)


@dataclass(frozen=True)
class _Answer:
    """An answer whose body is still on the wire; its place is taken until it is closed."""

    response: httpx.Response
    url: str
    reader: BodyReader
    foreign: bool  # redirected to an origin that gets no token


@dataclass(frozen=True)
class _Try(Generic[T]):
    """One try: what it saw, how that was judged, and what it brought if it was accepted."""

    seen: Seen
    verdict: Verdict
    value: T | None = None


class _Chunks:
    """What the caller of `stream` reads: a failure under way is a TransientFetchError that names the call.

    It takes one retry out of the budget, for the caller begins the file again; BudgetExhaustedError says that he should not.
    """

    def __init__(self, call: Call, reader: BodyReader, budget: RetryBudget) -> None:
        self._call = call
        self._reader = reader
        self._budget = budget

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._reader)
        except _FAILS as error:
            seen = _failed(error)
        empty = not self._budget.take_retry()
        raise error_for(self._call, seen, Verdict(action="retry"), tries=1, budget_empty=empty)


class EhrClient:
    """Sends the calls of one connection within its limits; use as an async context manager.

    `clock` gives epoch seconds, `sleep` waits, `rng` spreads the waits. `tokens` may be set later: discovery, the token
    endpoint and calls with `auth=False` need none. `requests` counts what went out: retries, replays, redirects, logins too.
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
    ) -> None:
        self.base_url = connection.base_url.rstrip("/")
        self.tokens = tokens
        self.requests = 0
        self.budget = RetryBudget(profile.retry_share, profile.retry_floor)
        self._profile = profile
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._origin = origin(self.base_url)
        self._limits = ConnectionLimits(profile.max_concurrency, profile.file_concurrency)
        self._client_id = {}
        if profile.client_id_header and connection.client_id:
            self._client_id = {profile.client_id_header: connection.client_id}
        self._transport = VerbatimTransport(
            tls=lambda: tls_context(connection),
            proxy=connection.proxy,
            connect_timeout_s=profile.connect_timeout_s,
            read_timeout_s=profile.read_timeout_s,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    @property
    def retries(self) -> int:
        """How many tries came after the first of a call; a stream that broke counts as one, for it is begun again."""
        return self.budget.retries

    async def send(self, call: Call) -> Reply:
        """The whole answer, its status one of `call.ok`.

        Raises TransientFetchError (BudgetExhaustedError) when tries or budget are used up, TerminalFetchError or
        ProtocolError when asking again is no use, AuthError, UnsafeLinkError.
        """
        return await self._with_retries(call, self._try_whole)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[StreamReply]:
        """The answer as it comes, retried as `send` until its first bytes are there; raises as `send` does.

        Its place among the connection's requests is taken until the block ends.
        """
        answer = await self._with_retries(call, self._try_open)
        try:
            yield StreamReply(
                answer.response.status_code,
                answer.response.headers,
                answer.url,
                _Chunks(call, answer.reader, self.budget),
            )
        finally:
            await self._close(call, answer)

    async def once(self, call: Call) -> Reply:
        """Send one request without token, place, redirect, retry or judgement of its status: for the token endpoint.

        Raises TransientFetchError when no whole answer came, TerminalFetchError for an untrusted certificate, ProtocolError
        for an answer that is too long.
        """
        url = self._safe(call)
        try:
            response = await self._exchange(call.method, url, self._headers(call), call.body)
            try:
                reader = BodyReader(response, json_expected=expects_json(call.accept))
                return Reply(response.status_code, response.headers, await _whole(call, reader), url)
            finally:
                await response.aclose()
        except _FAILS as error:
            seen = _failed(error)
        raise error_for(call, seen, judge(call, seen), tries=1)

    async def _with_retries(self, call: Call, attempt: Callable[[Call], Awaitable[_Try[T]]]) -> T:
        budget_empty = False

        def stop(state: RetryCallState) -> bool:
            nonlocal budget_empty
            most = _tried(state).verdict.tries or self._profile.max_tries
            if state.attempt_number >= min(most, self._profile.max_tries):
                return True
            budget_empty = not self.budget.take_retry()
            return budget_empty

        self.budget.count_request()
        first = await attempt(call)
        if first.value is not None:  # nearly always: setting the retry loop up costs a sixth of a small request's CPU
            return first.value
        done = [first]

        async def tried_or_again(call: Call) -> _Try[T]:
            return done.pop() if done else await attempt(call)

        retrying = AsyncRetrying(
            sleep=self._sleep, retry=_AGAIN, stop=stop, wait=self._wait_s, retry_error_callback=_tried
        )
        tried: _Try[T] = await retrying(tried_or_again, call)
        if tried.value is not None:
            return tried.value
        tries = retrying.statistics["attempt_number"]
        raise error_for(call, tried.seen, tried.verdict, tries=tries, budget_empty=budget_empty)

    def _wait_s(self, state: RetryCallState) -> float:
        """Full jitter (AWS, "Exponential Backoff And Jitter"), on top of what the server asked for."""
        doubled = self._profile.retry_base_s * 2.0 ** (state.attempt_number - 1)
        jitter = self._rng.uniform(0, min(self._profile.retry_cap_s, doubled))
        return (_tried(state).verdict.after_s or 0.0) + jitter

    async def _try_whole(self, call: Call) -> _Try[Reply]:
        tried = await self._try_open(call)
        answer = tried.value
        if answer is None:
            return _Try(tried.seen, tried.verdict)
        try:
            body = await _whole(call, answer.reader)
            reply = Reply(answer.response.status_code, answer.response.headers, body, answer.url)
            return _Try(tried.seen, tried.verdict, reply)
        except _FAILS as error:
            seen = _failed(error)
        finally:
            await self._close(call, answer)
        return _Try(seen, judge(call, seen))

    async def _try_open(self, call: Call) -> _Try[_Answer]:
        """One try up to the first piece of the body; an answer that is not accepted is read for its issue codes and closed."""
        try:
            answer = await self._answer(call)
            try:
                accepted = answer.response.status_code in call.ok
                body = await answer.reader.peek() if accepted else await _refusal(answer.reader)
                seen = self._seen(answer, body, () if accepted else issue_codes(body))
            except BaseException:
                await self._close(call, answer)
                raise
        except _FAILS as error:
            seen = _failed(error)
            return _Try(seen, judge(call, seen))
        verdict = judge(call, seen, kickoff_429_means_running=self._profile.kickoff_429_means_running)
        if verdict.action == "ok":
            return _Try(seen, verdict, answer)
        await self._close(call, answer)
        return _Try(seen, verdict)

    def _seen(self, answer: _Answer, body: bytes, codes: tuple[str, ...]) -> Seen:
        headers = answer.response.headers
        wait_s = retry_after_s(headers.get("retry-after"), now=self._clock(), cap_s=self._profile.retry_after_cap_s)
        return Seen(
            status=answer.response.status_code,
            media_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
            body_start=body[:BODY_START_BYTES],
            codes=codes,
            retry_after_s=wait_s,
            foreign=answer.foreign,
            token_sent="authorization" in answer.response.request.headers,
        )

    async def _close(self, call: Call, answer: _Answer) -> None:
        try:
            await answer.response.aclose()
        finally:
            self._limits.release(call.purpose)

    async def _answer(self, call: Call) -> _Answer:
        """Token, place, request, redirects; a 401 is met by one fresh token and one replay, which is no retry."""
        url = self._safe(call)
        token = await self._token(call, url)  # before the place is taken: a login may take long
        await self._limits.acquire(call.purpose)
        try:
            answer = await self._follow(call, url, token)
            if answer.response.status_code != _UNAUTHORIZED or answer.foreign or token is None or self.tokens is None:
                return answer
            self.tokens.invalidate(token)
            await _drained(answer.response)
            return await self._follow(call, url, await self.tokens.token(call.launch))
        except BaseException:
            self._limits.release(call.purpose)
            raise

    def _safe(self, call: Call) -> str:
        try:
            return safe_url(call.url, self.base_url)
        except UnsafeLinkError as error:
            raise UnsafeLinkError(f"{call.template}: {error}") from error

    async def _token(self, call: Call, url: str) -> Token | None:
        """The token to send to `url`; raises UnsafeLinkError where it would leave the origins that may see it."""
        if not call.auth:
            return None
        target = origin(url)
        if target != self._origin and target not in map(origin, call.token_origins):
            raise UnsafeLinkError(
                f"{call.template}: the link leads to another origin than base_url's, which must not see "
                f'the token; if it belongs to this EHR, put "{target}" into profile.bulk_file_hosts'
            )
        return None if self.tokens is None else await self.tokens.token(call.launch)

    async def _follow(self, call: Call, url: str, token: Token | None) -> _Answer:
        """Send, and follow redirects; on another origin without token and client id, and never with a body."""
        method, body, start = call.method, call.body, origin(url)
        headers = self._headers(call, token) | (self._client_id if call.auth else {})
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._exchange(method, url, headers, body)
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or response.status_code in call.ok or location is None:
                reader = BodyReader(response, json_expected=expects_json(call.accept))
                return _Answer(response, url, reader, foreign=origin(url) != start)
            await _drained(response)
            url = redirect_target(location, url)
            if response.status_code == _SEE_OTHER:
                method, body = "GET", None
            if origin(url) != start:
                if call.purpose not in _MAY_LEAVE or body is not None:
                    raise UnsafeLinkError(f"{call.template}: a redirect leads to another origin, {origin(url)}")
                headers = self._headers(call)
        raise ProtocolError(f"{call.template}: more than {MAX_REDIRECTS} redirects; check base_url")

    def _headers(self, call: Call, token: Token | None = None) -> dict[str, str]:
        headers = {**_HEADERS, "Accept": call.accept, **call.headers}
        if token is not None:
            headers["Authorization"] = token.authorization
        return headers

    async def _exchange(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> httpx.Response:
        self.requests += 1
        shown = _shown(origin(url))
        request = httpx.Request(
            method, shown, headers=headers, content=body, extensions={"url": URL(url, encoded=True)}
        )
        return await self._transport.handle_async_request(request)


@lru_cache(maxsize=64)
def _shown(where: str) -> httpx.URL:
    """The URL that the httpx request shows: its origin, and nothing that could be PHI."""
    return httpx.URL(where)


async def _whole(call: Call, reader: BodyReader) -> bytes:
    body, ended = await reader.read(MAX_REPLY_BYTES)
    if not ended:
        raise ProtocolError(f"{call.template}: the answer is longer than {MAX_REPLY_BYTES >> 20} MB")
    return body


async def _refusal(reader: BodyReader) -> bytes:
    """What an answer says that is not accepted: its status counts, also when its body is damaged."""
    try:
        return (await reader.read(MAX_REFUSAL_BYTES))[0]
    except _FAILS:
        return b""


async def _drained(response: httpx.Response) -> None:
    """Read what little a redirect or a 401 says, so that its connection can be used again, and close it."""
    with suppress(*_FAILS):
        await BodyReader(response, json_expected=False).read(MAX_REDIRECT_BYTES)
    await response.aclose()


def _failed(error: Exception) -> Seen:
    failure = next(failure for kind, failure in _FAILURES if isinstance(error, kind))
    return Seen(failure=failure, origin=str(error.request.url) if isinstance(error, httpx.TransportError) else None)


def _tried(state: RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


_AGAIN = retry_if_result(lambda tried: tried.verdict.action == "retry")
