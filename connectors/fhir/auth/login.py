"""Logs one connection in: discovery, then a token source that the client uses from then on."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from connectors.core.errors import AuthError
from connectors.fhir.auth.credentials import Credentials
from connectors.fhir.auth.discovery import Discovery, discover
from connectors.fhir.auth.scopes import Granted
from connectors.fhir.auth.token_source import StaticBearer, TokenSource
from connectors.fhir.errors import ScopesRefusedError
from connectors.fhir.run import LogIn, Readable
from connectors.fhir.transport.client import EhrClient


@dataclass(frozen=True)
class Login:
    """How logging in went. `granted` None: nothing says what the token may do."""

    discovery: Discovery
    granted: Granted | None = None

    def readable(self, resource_type: str) -> bool:
        """Whether this type may be requested, as far as known; if the server does not say, it may."""
        return self.granted is None or self.granted.may_read(resource_type)


async def log_in(
    client: EhrClient,
    credentials: Credentials,
    types: Iterable[str],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    rng: random.Random,
) -> Login:
    """Give `client` its tokens for reading `types` (empty: all that the wildcard scope allows), and fetch the first.

    If tokens are bound to patients, none is fetched yet. `clock` gives epoch seconds.

    Raises:
        DiscoveryError: the server does not say where to log in.
        AuthError: the key is missing or unusable, or the token endpoint refused the client (TokenRefusedError).
        PlanError: the EHR needs a scope for each type, and no type is known.
        TransientFetchError: the EHR or its token endpoint is down.
    """
    if credentials.auth == "none":
        client.tokens = None
        return Login(Discovery(token_url=None))
    if credentials.auth == "bearer":
        if not credentials.bearer_token:
            raise AuthError('auth = "bearer" needs a bearer_token; set it to file:… or env:…')
        client.tokens = StaticBearer(credentials.bearer_token.strip())
        return Login(Discovery(token_url=None))
    discovery = await discover(client)
    profile = client.profile
    tokens = TokenSource(credentials, profile, discovery, types, send=client.once, clock=clock, sleep=sleep, rng=rng)
    client.tokens = tokens
    if not profile.login.token_per_patient:
        await tokens.token()
    return Login(discovery, tokens.granted())


async def log_in_as_registered(
    log_in: LogIn, needed: tuple[str, ...], referred: tuple[str, ...]
) -> tuple[Readable, tuple[str, ...]]:
    """Log in for all these types; an app that is registered without those that charts refer to still gets the charts.

    Returns what may be requested, and which of `referred` were left out of the login: all or none.
    """
    try:
        return await log_in((*needed, *referred)), ()
    except ScopesRefusedError:
        if not referred:
            raise
    return await log_in(needed), referred
