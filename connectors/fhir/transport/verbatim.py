"""The aiohttp transport under httpx's API, which leaves URLs unchanged; sends one request, once.

`httpx-aiohttp` re-quotes URLs, keeps cookies, resends on a lost connection and calls a dropped connection a connect time-out
(seen with 0.2.0 and aiohttp 3.14). Here the URL travels as `extensions["url"]`, a `yarl.URL` that is not re-encoded; the
httpx request itself only names the origin, so that nothing which prints a request can print PHI. What failures mean is left
to `retry_table`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Self

import aiohttp
import httpx
from aiohttp.connector import Connection
from httpx_aiohttp import AiohttpTransport
from yarl import URL

from connectors.fhir.transport.addresses import AddressGuard, GuardedResolver
from connectors.fhir.transport.cookies import OriginCookies
from connectors.fhir.transport.tls import Distrust, distrust_of, refuses_us

READ_BUFFER_BYTES = 1 << 17
# gateways add many headers and long ones; curl takes 300 KB of them, aiohttp by itself only 128, of 8 KB each
MAX_HEADERS = 1_000
MAX_HEADER_BYTES = 1 << 16
NO_BODY = httpx.ByteStream(b"")  # of a request; httpx copies the headers three times to find out about `content=None`


class CertificateError(httpx.ConnectError):
    """The server's certificate is not trusted; `distrust` says why."""

    distrust: Distrust = "certificate"


class NameNotFoundError(httpx.ConnectError):
    """The host's name has no address."""


class HandshakeError(httpx.ConnectError):
    """The port was reached and does not speak TLS as we do: another protocol, or nothing in common."""


class ClientCertificateError(httpx.ConnectError):
    """The server wants a client certificate, or another one than ours. With TLS 1.3 it says so after the handshake."""


class ProxyRefusalError(httpx.ProxyError):
    """The proxy was reached and did not open the way to the server; `status` is its own answer to CONNECT."""

    status = 0


class _RefusedError(aiohttp.ClientError):
    """The server ended the connection by an alert about our certificate."""


class _AnswerLostError(aiohttp.ClientError):
    """The connection ended before an answer; not one of the errors after which aiohttp silently sends again."""


# first match wins: subclasses stand before their parents
_MEANING: tuple[tuple[type[BaseException], type[httpx.TransportError]], ...] = (
    (aiohttp.ClientConnectorCertificateError, CertificateError),
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientHttpProxyError, ProxyRefusalError),
    (aiohttp.ClientConnectorSSLError, HandshakeError),
    (aiohttp.ClientConnectorDNSError, NameNotFoundError),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.ClientPayloadError, httpx.ReadError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (_RefusedError, ClientCertificateError),
    (_AnswerLostError, httpx.ReadError),
    (aiohttp.ClientConnectionError, httpx.ReadError),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
    (TimeoutError, httpx.ReadTimeout),
    (OSError, httpx.ReadError),
)
_CAUGHT = (aiohttp.ClientError, TimeoutError, OSError)


def _meaning(error: BaseException, request: httpx.Request) -> httpx.TransportError:
    """The httpx error for an aiohttp one. Only its name goes along: aiohttp's texts hold whole URLs."""
    kind = next(to for came, to in _MEANING if isinstance(error, came))
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionResetError):
        kind = HandshakeError  # the port took the connection, then hung up on our ClientHello
    if isinstance(error, aiohttp.ClientConnectorError) and refuses_us(error.os_error):
        kind = ClientCertificateError
    found = kind(type(error).__name__, request=request)
    if isinstance(found, CertificateError) and isinstance(error, aiohttp.ClientConnectorCertificateError):
        refused = error.certificate_error
        found.distrust = distrust_of(refused) if isinstance(refused, ssl.SSLCertVerificationError) else "certificate"
    if isinstance(found, ProxyRefusalError) and isinstance(error, aiohttp.ClientHttpProxyError):
        found.status = error.status
    return found


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a GET again after a lost connection: a kick-off is a GET, and retries have a budget."""
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        refused = refuses_us(error.__cause__)
    raise _RefusedError if refused else _AnswerLostError


def _answers_within(patience_s: float) -> type[aiohttp.ClientResponse]:
    """Bound the whole wait for an answer's headers.

    aiohttp's own time-out starts again with each byte and each 1xx; a trace that told when to begin cost each request 50 calls.
    """

    class Answer(aiohttp.ClientResponse):
        async def start(self, connection: Connection) -> aiohttp.ClientResponse:
            async with asyncio.timeout(patience_s):
                return await super().start(connection)

    return Answer


class VerbatimStream(httpx.AsyncByteStream):
    """The body as it comes off the socket: undecoded, read once. A time-out is set only where it must be waited for."""

    def __init__(self, response: aiohttp.ClientResponse, request: httpx.Request, patience_s: float) -> None:
        self._response = response
        self._request = request
        self._patience_s = patience_s

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        content = self._response.content
        try:
            chunk = content.read_nowait()
            if not chunk and not content.at_eof():
                async with asyncio.timeout(self._patience_s):
                    chunk = await content.readany()
        except _CAUGHT as error:
            failure = _meaning(error, self._request)
        else:
            if chunk:
                return chunk
            raise StopAsyncIteration
        raise failure  # outside `except`, so that aiohttp's error, with its URL, is not its context

    async def aclose(self) -> None:
        """Give the connection back, or drop it where the body was not read to its end."""
        self._response.release()
        await self._response.wait_for_close()


class VerbatimTransport(AiohttpTransport):
    """One connection pool: no environment, no decompression, no redirects, no second sending; cookies of one origin, or none."""

    def __init__(
        self,
        *,
        tls: Callable[[], ssl.SSLContext],
        proxy: str | None,
        guard: AddressGuard,
        connect_timeout_s: float,
        read_timeout_s: float,
        cookies_of: str | None = None,
    ) -> None:
        """`cookies_of` is the one origin whose cookies are kept and sent back to it."""
        super().__init__(verify=False, trust_env=False, client=self._new_session)
        self._cookies_of = cookies_of
        self._tls = tls
        self._guard = guard
        # made late: reading certificates takes 30 ms; plain http needs none
        self._context: ssl.SSLContext | None = None
        self._proxy_url = None if proxy is None else URL(proxy)
        self._read_timeout_s = read_timeout_s
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` to `request.extensions["url"]`; raises httpx.TransportError without a URL in its text.

        Raises UnsafeLinkError where `guard` lets the host or its addresses not through.
        """
        url: URL = request.extensions["url"]
        self._guard.check_host(url.host or "")
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self._new_session()
        if url.scheme == "https" and self._context is None:
            self._context = self._tls()
        try:
            response = await self.client.request(
                request.method,
                url,
                headers=request.headers.multi_items(),
                data=None if request.stream is NO_BODY else request.content,
                allow_redirects=False,
                ssl=self._context or True,
                proxy=self._proxy_url,
            )
        except _CAUGHT as error:
            failure = _meaning(error, request)
        else:
            return httpx.Response(
                response.status,
                headers=list(response.raw_headers),
                stream=VerbatimStream(response, request, self._read_timeout_s),
                request=request,
            )
        raise failure

    def _new_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(  # `limits` says how much is used at a time
                limit=0, resolver=GuardedResolver(self._guard)
            ),
            cookie_jar=aiohttp.DummyCookieJar() if self._cookies_of is None else OriginCookies(self._cookies_of),
            timeout=self._timeout,
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_headers=MAX_HEADERS,
            max_field_size=MAX_HEADER_BYTES,
            middlewares=(_send_once,),
            response_class=_answers_within(self._read_timeout_s),
        )
