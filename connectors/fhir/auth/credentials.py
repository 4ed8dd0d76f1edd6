"""The secrets with which one connection logs in, already read. `config` knows where they are; this only holds them, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The secrets of one connection; none of them is in the repr.

    `auth` says which fields count: smart = client_id and key (PEM, JWK or JWKS text, which key_passphrase may open), secret =
    client_id and client_secret, bearer = bearer_token, none = nothing. `scopes` replaces the scopes that would be requested.
    """

    auth: Literal["smart", "secret", "bearer", "none"]
    client_id: str | None = None
    key: str | None = field(default=None, repr=False)
    key_passphrase: str | None = field(default=None, repr=False)
    client_secret: str | None = field(default=None, repr=False)
    bearer_token: str | None = field(default=None, repr=False)
    kid: str | None = None
    alg: str | None = None
    scopes: tuple[str, ...] = ()
