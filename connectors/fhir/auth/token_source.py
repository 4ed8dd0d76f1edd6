"""Keeps one connection logged in: asks for tokens, caches them, renews them in time, one login at a time.

`token_table` says what the endpoint's answers mean; the sender (`EhrClient.once`) sends the requests. Tokens, keys and
assertions live in memory only and appear in no message.
"""

from __future__ import annotations

import base64
import copy
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlencode

import anyio
import orjson
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_never

from connectors.core.errors import AuthError, ConnectorError
from connectors.fhir.auth.assertion import load_signing_key
from connectors.fhir.auth.credentials import Credentials
from connectors.fhir.auth.discovery import Discovery
from connectors.fhir.auth.scopes import Granted, granted_scopes, requested_scopes, syntax_for
from connectors.fhir.auth.token_table import GRANTED, TokenAnswer, judge_token
from connectors.fhir.errors import DiscoveryError, ScopesRefusedError, TokenRefusedError, TransientFetchError
from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.call import Call, Reply, Token
from connectors.fhir.transport.retry_table import server_time, server_wait_s
from connectors.fhir.transport.tries import outcome_of

SKEW_TOLERATED_S = 30.0
MAX_LAUNCHES = 512  # tokens kept where each patient has one (VA); the least recently used go first

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_OK = 200
_ADVICE = {
    "invalid_client": "check client_id (for this environment?), that the EHR knows the public key of this kid, "
    "profile.login.audience, and this machine's clock",
    "secret": "check client_id and client_secret, and that they are for this environment (sandbox and production have their own)",
    "unauthorized_client": "the EHR's administrators have not finished this client's set-up (at Epic: its user record); ask them",
    "client_id": "the server says that it does not know this client_id: check it, and that it is for this environment (sandbox "
    "and production have their own)",
    "key": "the server knows the client_id, but says that the key is wrong: register the public half of this key for it, under "
    "the kid that is sent, and wait until the server has read its JWKS URL again",
    "audience": "the server says that the assertion is for another audience: set profile.login.audience to what it documents",
    "clock": "the server says that the assertion's times are wrong: check this machine's clock",
    "dpop": "the server wants DPoP proofs, which this client cannot make: ask the EHR's administrators to register it for bearer "
    "tokens",
    "invalid_scope": "set the connection's scopes to those that its registration lists, or profile.login.scope_syntax",
}


@dataclass
class _Slot:
    """One launch context's token, and the login that is under way for it."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    token: Token | None = None
    logins: int = 0
    error: ConnectorError | None = None


@dataclass
class _SecondChances:
    """How far one login has come through the table's second chances."""

    tries: int = 0
    refused: int = 0
    outages: int = 0
    other_syntax: bool = False
    other_style: bool = False
    other_clock: bool = False
    was_off: bool = False  # the last assertion's times were wrong on the server's clock, which is known now
    unreached: str = ""  # why no answer came, the last time


@dataclass(frozen=True)
class _Attempt:
    """One token request's outcome; `wait_s` None means that it was the last."""

    answer: TokenAnswer
    wait_s: float | None


class TokenSource:
    """Tokens of one connection, by client assertion (auth = "smart") or client secret (auth = "secret").

    `send` posts one request and judges nothing (`EhrClient.once`); `clock` gives epoch seconds. Any number of tasks may ask: one
    logs in, the others wait for it and share its outcome. After an AuthError the launch context is given up for good.
    """

    def __init__(
        self,
        credentials: Credentials,
        profile: VendorProfile,
        discovery: Discovery,
        types: Iterable[str],
        *,
        send: Callable[[Call], Awaitable[Reply]],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        if credentials.client_id is None or discovery.token_url is None:
            raise DiscoveryError(
                "logging in needs a client_id and a token endpoint; set client_id, or profile.login.token_url"
            )
        self.skew_s = 0.0
        self._credentials = credentials
        self._client_id = credentials.client_id
        self._profile = profile
        self._token_url = discovery.token_url
        self._audience = profile.login.audience or discovery.token_url
        self._types = tuple(types)
        self._send = send
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._syntax = syntax_for(profile, discovery.capabilities)
        methods = discovery.auth_methods
        self._basic = "client_secret_basic" in methods or "client_secret_post" not in methods
        self._key = None
        if credentials.auth == "smart":
            if credentials.key is None:
                raise AuthError('auth = "smart" needs a key; set the connection\'s key to a PEM, JWK or JWKS file')
            self._key = load_signing_key(
                credentials.key,
                profile,
                kid=credentials.kid,
                alg=credentials.alg,
                passphrase=credentials.key_passphrase,
            )
        self._slots: OrderedDict[str | None, _Slot] = OrderedDict()
        self._scopes()  # a connection that cannot name its scopes fails here, not at its first request

    async def token(self, launch: str | None = None) -> Token:
        """Return a token that is valid for at least its margin; `launch` is the patient's id, if tokens are bound to patients.

        Raises:
            TokenRefusedError: the endpoint refuses the client, this time and for good (ScopesRefusedError: only its scopes).
            TransientFetchError: the endpoint is down.
        """
        slot = self._slot(launch if self._profile.login.token_per_patient else None)
        if (token := self._good(slot)) is not None:
            return token
        logins = slot.logins
        async with slot.lock:
            if (token := self._good(slot)) is not None:
                return token
            if slot.error is not None and (slot.logins != logins or isinstance(slot.error, AuthError)):
                raise copy.copy(slot.error)
            slot.logins, slot.error = slot.logins + 1, None
            try:
                slot.token = await self._log_in(launch)
            except ConnectorError as error:
                slot.error = error
                raise
            return slot.token

    def invalidate(self, token: Token) -> None:
        """Forget this token; one that came since stays."""
        for slot in self._slots.values():
            if slot.token is not None and slot.token.value == token.value:
                slot.token = None

    def granted(self, launch: str | None = None) -> Granted | None:
        """What the current token may do; None while there is none, or where the server does not say."""
        slot = self._slots.get(launch if self._profile.login.token_per_patient else None)
        if slot is None or slot.token is None or slot.token.scope is None:
            return None
        return granted_scopes(slot.token.scope)

    def _good(self, slot: _Slot) -> Token | None:
        return slot.token if slot.token is not None and self._clock() < slot.token.refresh_at else None

    def _slot(self, launch: str | None) -> _Slot:
        slot = self._slots.setdefault(launch, _Slot())
        self._slots.move_to_end(launch)
        while len(self._slots) > MAX_LAUNCHES:
            self._slots.popitem(last=False)
        return slot

    async def _log_in(self, launch: str | None) -> Token:
        chances = _SecondChances()
        retrying = AsyncRetrying(
            sleep=self._sleep, retry=retry_if_result(_has_wait), wait=_wait_s, stop=stop_never, reraise=True
        )
        attempt: _Attempt = await retrying(self._ask, launch, chances)
        if attempt.answer.token is None:
            raise self._error(attempt.answer, chances)
        return attempt.answer.token

    async def _ask(self, launch: str | None, chances: _SecondChances) -> _Attempt:
        chances.tries += 1
        wait_floor: float | None = None
        try:
            reply = await self._send(self._call(launch))
        except TransientFetchError as error:
            answer = TokenAnswer("outage")
            chances.unreached = str(error)
        else:
            chances.unreached = ""
            now = self._clock()
            before = self.skew_s
            self._note_skew(reply.headers.get("date"), now)
            chances.was_off = abs(self.skew_s - before) > SKEW_TOLERATED_S
            wait_floor = server_wait_s(reply.headers, now=now, cap_s=self._profile.retry.after_cap_s)
            answer = judge_token(reply, now=now)
            if self._credentials.client_secret and self._credentials.client_secret in (answer.code or ""):
                answer = replace(answer, code=None)  # some servers repeat what they were sent, and codes are shown
        return _Attempt(answer, self._wait_before_next(answer, chances, wait_floor or 0.0))

    def _wait_before_next(self, answer: TokenAnswer, chances: _SecondChances, wait_floor: float) -> float | None:
        """The table's second chances: how long to wait for the next try, None when there is none."""
        if (
            answer.meaning in ("refused", "stop")
            and self._key is not None
            and chances.was_off
            and not chances.other_clock
        ):
            chances.other_clock = True
            return 0.0
        if answer.meaning == "refused":
            if self._key is None and not chances.other_style:
                chances.other_style, self._basic = True, not self._basic
                return 0.0
            chances.refused += 1
            waits = self._profile.login.refused_waits_s  # invalid_client: with a new jti each time
            return waits[chances.refused - 1] if chances.refused <= len(waits) else None
        if answer.meaning == "outage":
            chances.outages += 1
            doubled = self._profile.retry.base_s * 2.0 ** (chances.outages - 1)
            jitter = self._rng.uniform(0, min(self._profile.retry.cap_s, doubled))
            return wait_floor + jitter if chances.outages < self._profile.retry.max_tries else None
        if answer.meaning == "scope" and not chances.other_syntax and self._may_switch_syntax():
            chances.other_syntax, self._syntax = True, "v1" if self._syntax == "v2" else "v2"
            return 0.0
        return None

    def _may_switch_syntax(self) -> bool:
        return self._profile.login.scope_syntax == "auto" and not self._credentials.scopes

    def _scopes(self) -> str:
        if self._credentials.scopes:
            return " ".join(self._credentials.scopes)
        return requested_scopes(self._types, self._profile, self._syntax)

    def _call(self, launch: str | None) -> Call:
        form = {"grant_type": "client_credentials"}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if self._profile.login.scope_required or self._credentials.scopes:
            form["scope"] = self._scopes()
        if launch is not None and self._profile.login.token_per_patient:
            form["launch"] = base64.b64encode(orjson.dumps({"patient": launch})).decode()
        if self._key is not None:
            form["client_assertion_type"] = _ASSERTION_TYPE
            form["client_assertion"] = self._key.assertion(
                client_id=self._client_id,
                audience=self._audience,
                now=self._clock() + self.skew_s,
                life_s=self._profile.login.assertion_life_s,
            )
        elif self._basic:
            pair = f"{quote(self._client_id, safe='')}:{quote(self._credentials.client_secret or '', safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": self._client_id, "client_secret": self._credentials.client_secret or ""}
        body = urlencode(form).encode()
        return Call(
            "POST", self._token_url, "POST token endpoint", "token", "application/json", headers, body, auth=False
        )

    def _note_skew(self, date: str | None, now: float) -> None:
        """Measure our clock against the server's Date, so that `iat` and `exp` are right on its clock (F50)."""
        server = server_time(date)
        if server is not None:
            skew = server - now
            self.skew_s = skew if abs(skew) > SKEW_TOLERATED_S else 0.0

    def _error(self, answer: TokenAnswer, chances: _SecondChances) -> ConnectorError:
        times = f" after {chances.tries} tries" if chances.tries > 1 else ""
        if answer.meaning == "outage" and chances.unreached:
            return TransientFetchError(f"logging in{times}: {chances.unreached}")
        if answer.meaning == "outage":
            what = "no answer" if answer.status is None else f"status {answer.status}, without a usable answer"
            if answer.status in GRANTED:
                what = f"status {answer.status}, and something other than JSON"
            return TransientFetchError(
                f"logging in: the token endpoint gave {what}{times}; run again later, or check profile.login.token_url",
                status=answer.status,
            )
        if answer.led_to is not None:
            return TokenRefusedError(
                f"logging in: the token endpoint redirects (status {answer.status}) to {answer.led_to}, and a login is not "
                "sent on; set profile.login.token_url to the address that it leads to"
            )
        code = answer.code or f"status {answer.status}"
        about = "invalid_scope" if answer.meaning == "scope" else answer.blame or code
        if about == "invalid_client" and self._key is None:
            about = "secret"
        advice = _ADVICE.get(about, "check profile.login.token_url and the client")
        if answer.code == "invalid_client" and self.skew_s:
            advice += f"; it is off by {abs(self.skew_s):.0f} s, which was corrected"
        if (answer.code == "invalid_client" or answer.blame) and self._key is not None:
            kid = "no kid" if self._key.kid is None else f"kid {self._key.kid}"
            advice += f" (sent: {kid}, alg {self._key.alg}, aud {self._audience})"
        refused = ScopesRefusedError if answer.meaning == "scope" else TokenRefusedError
        did = "sent no access token, with" if answer.status == _OK and not answer.code else "refused us with"
        return refused(f"logging in: the token endpoint {did} {code}{times}; {advice}", code=answer.code)


class StaticBearer:
    """A bearer token from the configuration. It cannot be renewed; the callers decide whether a refusal concerns one URL only."""

    def __init__(self, value: str) -> None:
        self._token = Token(value, refresh_at=float("inf"))

    async def token(self, launch: str | None = None) -> Token:
        """The configured token."""
        return self._token

    def invalidate(self, token: Token) -> None:
        """Nothing: there is no other token."""


def _has_wait(attempt: _Attempt) -> bool:
    return attempt.wait_s is not None


def _wait_s(state: RetryCallState) -> float:
    wait: float = outcome_of(state).wait_s
    return wait
