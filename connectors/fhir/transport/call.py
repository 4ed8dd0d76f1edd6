"""The shapes of the wire: a call, a reply, a token, and the port that provides tokens.

`client` sends them; `auth` makes tokens. URLs, bodies and launch contexts are PHI, tokens are secret: none has a repr.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from connectors.fhir.transport.body import BodyReader

Purpose = Literal["discovery", "token", "search", "read", "kickoff", "status", "file", "delete"]

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
OK = frozenset({200})
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Call:
    """One request in its caller's terms.

    `url` is absolute, or relative to the connection's base URL; it leaves byte for byte. `template` names the request in errors
    and logs, method included ("GET /Observation?patient={patient}"): no query value, no id. `launch` is the patient id for EHRs
    whose token is bound to one patient. The token goes to the base URL's origin and to `token_origins`
    ("https://host[:port]"), nowhere else. Statuses in `ok` are answers; every other one is judged by `retry_table`.
    """

    method: str
    url: str = field(repr=False)
    template: str
    purpose: Purpose
    accept: str = "application/fhir+json"
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, repr=False)
    body: bytes | None = field(default=None, repr=False)
    auth: bool = True
    launch: str | None = field(default=None, repr=False)
    token_origins: frozenset[str] = frozenset()
    ok: frozenset[int] = OK
    continues: BodyReader | None = field(default=None, repr=False)  # the body that a 206 to this call goes on with


@dataclass(frozen=True)
class Reply:
    """A whole answer, decompressed. `headers` ignore case; `url` is where it came from after redirects."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    url: str = field(repr=False)


@dataclass(frozen=True)
class StreamReply:
    """An answer whose body is read as it comes: `chunks` are decompressed, of bounded size, and can be read once.

    Reading raises TransientFetchError when the body is cut, damaged or stalls: the caller starts the file again, unless it is
    a BudgetExhaustedError. `body` counts what came, and lets a cut body go on in the answer to a Range.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    url: str = field(repr=False)
    chunks: AsyncIterator[bytes] = field(repr=False)
    body: BodyReader = field(repr=False)


@dataclass(frozen=True)
class Token:
    """An access token, in memory only. `refresh_at` is epoch seconds; `scope` is what the server says it granted."""

    value: str = field(repr=False)
    refresh_at: float
    scope: str | None = None

    @property
    def authorization(self) -> str:
        """The value of the Authorization header."""
        return f"Bearer {self.value}"


class Tokens(Protocol):
    """Where a client gets its tokens from."""

    async def token(self, launch: str | None = None) -> Token:
        """Return a token that is not about to expire; raise AuthError or TransientFetchError."""

    def invalidate(self, token: Token) -> None:
        """Discard this token, and only this one: the EHR answered 401 to it."""


class Endpoint(Protocol):
    """What the wire needs to know about a connection (`config.connections.Connection` implements it)."""

    @property
    def base_url(self) -> str:
        """FHIR base URL, without a trailing slash."""

    @property
    def client_id(self) -> str | None:
        """The id that the EHR gave us; public, and sent in the profile's `http.client_id_header`."""

    @property
    def ca_bundle(self) -> Path | None:
        """Certificates to trust instead of the public ones."""

    @property
    def client_cert(self) -> Path | None:
        """Our own certificate for mutual TLS."""

    @property
    def client_cert_key(self) -> Path | None:
        """The certificate's key, if it is in a separate file."""

    @property
    def proxy(self) -> str | None:
        """URL of an HTTP proxy."""
