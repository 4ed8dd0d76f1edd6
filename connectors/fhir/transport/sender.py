"""Sends one request of a connection and follows its redirects: what leaves, with which headers, to whom.

The token and the client id go to the connection's own origin and to those that a call names; other origins get neither.
`addresses` refuses addresses that are not public, `links` checks link syntax, `verbatim` moves the bytes; `client` decides when
and how often to send, and what an answer means.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

import httpx
from yarl import URL

from connectors.fhir.errors import ProtocolError, UnsafeLinkError
from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.addresses import AddressGuard
from connectors.fhir.transport.body import BodyReader
from connectors.fhir.transport.call import REDIRECTS, Call, Endpoint, Token, Tokens
from connectors.fhir.transport.content_coding import BombError, ContentCodingError, UnrequestedCodingError
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.transport.links import NOT_FOLLOWED, elsewhere, header_link, origin, redirect_target
from connectors.fhir.transport.retry_table import Failure, TryResult, expects_json, known_status
from connectors.fhir.transport.tls import tls_context
from connectors.fhir.transport.verbatim import (
    NO_BODY,
    CertificateError,
    ClientCertificateError,
    HandshakeError,
    NameNotFoundError,
    ProxyRefusalError,
    VerbatimTransport,
)

MAX_REDIRECTS = 5
MAX_REDIRECT_BYTES = 64 << 10
_PARTIAL, _SEE_OTHER = 206, 303
_PROXY_LOGIN, _SERVER_ERROR = 407, 500
_MAY_LEAVE = frozenset({"file", "discovery"})  # files lie in object stores (Cerner), discovery holds no secret

_FAILURES: tuple[tuple[type[Exception], Failure], ...] = (
    (BombError, "bomb"),
    (UnrequestedCodingError, "unasked"),
    (ContentCodingError, "coding"),
    (CertificateError, "certificate"),
    (httpx.ProxyError, "proxy"),
    (ClientCertificateError, "client-certificate"),
    (HandshakeError, "handshake"),
    (NameNotFoundError, "name"),
    (httpx.ConnectTimeout, "connect-timeout"),
    (httpx.ConnectError, "connect"),
    (httpx.TimeoutException, "timeout"),
    (httpx.RemoteProtocolError, "malformed"),
    (httpx.UnsupportedProtocol, "malformed"),
    (httpx.TransportError, "dropped"),
)
FAILS = (httpx.TransportError, ContentCodingError)
try:
    _VERSION = version("chartferry")
except PackageNotFoundError:  # run from a checkout that is not installed
    _VERSION = "0"
_UNSENDABLE = re.compile(r"[^\t\x20-\x7e]")
_HEADERS = {"User-Agent": f"chartferry/{_VERSION}", "Accept-Encoding": "gzip"}


@dataclass(frozen=True)
class Answer:
    """An answer whose body is still on the wire."""

    response: httpx.Response
    url: str
    reader: BodyReader
    foreign: bool  # redirected to an origin that gets no token
    token_sent: bool = False


class Sender:
    """The wire of one connection. `requests` counts what went out: retries, replays, redirects, logins too."""

    def __init__(self, connection: Endpoint, profile: VendorProfile, base: FhirBase) -> None:
        self.requests = 0
        self._base = base
        self._origin = origin(base.url)
        self._moved = profile.links.rewrite_origins
        self._client_id = {}
        if profile.http.client_id_header and connection.client_id:
            self._client_id = {profile.http.client_id_header: connection.client_id}
        named = (
            self._base.url,
            profile.login.token_url,
            connection.proxy,
            *profile.bulk.file_hosts,
            *profile.links.private_hosts,
            *profile.links.rewrite_origins.values(),
        )
        self._transport = VerbatimTransport(
            tls=lambda: tls_context(connection),
            proxy=connection.proxy,
            guard=AddressGuard(url for url in named if url),
            connect_timeout_s=profile.http.connect_timeout_s,
            read_timeout_s=profile.http.read_timeout_s,
            cookies_of=self._origin if profile.http.cookies else None,
        )
        self._patience_s = profile.http.read_timeout_s

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    def safe(self, call: Call) -> str:
        """The URL to ask; raises UnsafeLinkError that names the call."""
        try:
            return self._base.safe(call.url)
        except UnsafeLinkError as error:
            raise UnsafeLinkError(f"{call.template}: {error}") from error

    def leads_home(self, call: Call) -> bool:
        """Whether a call goes to the EHR's own origin; raises as `safe` does."""
        return self.elsewhere(self.safe(call)) is None

    def elsewhere(self, url: str) -> str | None:
        """What to do about an origin that is not the EHR's own; None for the EHR's own."""
        return None if origin(url) == self._origin else elsewhere(url, self._base.url)

    def failed(self, error: Exception) -> TryResult:
        """What a try saw that ended in one of FAILS."""
        failure = next(failure for kind, failure in _FAILURES if isinstance(error, kind))
        failure = error.distrust if isinstance(error, CertificateError) else failure
        failure = _of_a_proxy(error.status) if isinstance(error, ProxyRefusalError) else failure
        sent_to = str(error.request.url) if isinstance(error, httpx.TransportError) else None
        return TryResult(
            failure=failure,
            origin=sent_to,
            elsewhere=None if sent_to is None else self.elsewhere(sent_to),
            coding=error.coding if isinstance(error, UnrequestedCodingError) else None,
        )

    async def token(self, call: Call, url: str, tokens: Tokens | None) -> Token | None:
        """The token to send to `url`; raises UnsafeLinkError where it would leave the origins that may see it."""
        if not call.auth:
            return None
        target = origin(url)
        if target != self._origin and target not in map(origin, call.token_origins):
            raise UnsafeLinkError(
                f"{call.template}: the link leads to another origin than base_url's, {target}, which must not see the token; "
                f'if it belongs to this EHR, put "{target}" into profile.bulk.file_hosts; {elsewhere(target, self._base.url)}'
            )
        return None if tokens is None else await tokens.token(call.launch)

    async def follow(self, call: Call, url: str, token: Token | None) -> Answer:
        """Send, and follow redirects; on another origin without token and client id, and never with a body."""
        method, body, start = call.method, call.body, origin(url)
        headers = self._headers(call, token)
        if call.auth:
            headers |= self._client_id
        for _ in range(MAX_REDIRECTS + 1):
            response = await self.exchange(call, method, url, headers, body)
            location = header_link(response.headers.get("location")) if response.status_code in REDIRECTS else None
            if location is None or response.status_code in call.ok:
                continues = call.continues if response.status_code == _PARTIAL else None
                reader = self._reader(call, response, continues)
                return Answer(response, url, reader, origin(url) != start, "Authorization" in headers)
            await drained(response)
            url = redirect_target(location, url, self._moved)
            if response.status_code == _SEE_OTHER:
                method, body = "GET", None
            if origin(url) != start:
                if call.purpose not in _MAY_LEAVE or body is not None:
                    raise UnsafeLinkError(
                        f"{call.template}: a redirect leads to another origin, {origin(url)}; {elsewhere(url, self._base.url)}"
                    )
                headers = self._abroad(call)
        raise ProtocolError(f"{call.template}: more than {MAX_REDIRECTS} redirects; check base_url")

    async def once(self, call: Call, url: str) -> Answer:
        """Send one request without token, client id or redirect."""
        response = await self.exchange(call, call.method, url, self._headers(call), call.body)
        return Answer(response, url, self._reader(call, response), foreign=False)

    def _reader(self, call: Call, response: httpx.Response, continues: BodyReader | None = None) -> BodyReader:
        json_expected = expects_json(call.accept)
        return BodyReader(response, json_expected=json_expected, continues=continues, patience_s=self._patience_s)

    async def exchange(
        self, call: Call, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> httpx.Response:
        """Send exactly this, once."""
        try:
            shown = _shown(origin(url))
        except UnsafeLinkError as error:
            raise UnsafeLinkError(f"{call.template}: {error}") from error
        if _UNSENDABLE.search("\t".join(headers.values())):
            raise ProtocolError(
                f"{call.template}: a header's value contains characters that headers must not have; it was not sent"
            )
        self.requests += 1
        request = httpx.Request(
            method,
            shown,
            headers=headers,
            content=body,
            stream=NO_BODY if body is None else None,
            extensions={"url": URL(url, encoded=True)},
        )
        try:
            response = await self._transport.handle_async_request(request)
        except UnsafeLinkError as error:
            raise UnsafeLinkError(
                f"{call.template}: {error} ({shown.host}); {elsewhere(url, self._base.url)}"
            ) from error
        response.status_code = known_status(response.status_code)
        return response

    def _headers(self, call: Call, token: Token | None = None) -> dict[str, str]:
        headers = {**_HEADERS, "Accept": call.accept, **call.headers}
        if token is not None:
            headers["Authorization"] = token.authorization
        return headers

    def _abroad(self, call: Call) -> dict[str, str]:
        """What another origin gets: no token, no client id, and of the call's own headers only which part of a file is wanted."""
        kept = {name: value for name, value in call.headers.items() if name.lower() in ("range", "if-range")}
        return {**_HEADERS, "Accept": call.accept, **kept}


async def drained(response: httpx.Response) -> None:
    """Read what little a redirect or a 401 says, so that its connection can be used again, and close it."""
    with suppress(*FAILS):
        await BodyReader(response, json_expected=False).read(MAX_REDIRECT_BYTES)
    await response.aclose()


@lru_cache(maxsize=64)
def _shown(where: str) -> httpx.URL:
    """The URL that the httpx request shows: its origin, and nothing that could be PHI; raises UnsafeLinkError."""
    try:
        return httpx.URL(where)
    except httpx.InvalidURL:
        pass
    raise UnsafeLinkError(f"a link's host is not a valid host; {NOT_FOLLOWED}")  # outside: httpx quotes it


def _of_a_proxy(status: int) -> Failure:
    """What a proxy's own answer to CONNECT means (RFC 9110 9.3.6)."""
    if status == _PROXY_LOGIN:
        return "proxy-login"
    return "proxy-failure" if status >= _SERVER_ERROR else "proxy-refusal"
