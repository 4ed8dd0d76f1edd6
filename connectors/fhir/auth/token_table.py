"""The one table of what a token endpoint's answer means (vendor-facts 5.4), and what a good one holds. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urljoin

from connectors.fhir.errors import TokenRefusedError
from connectors.fhir.json_answers import UnreadableJsonError, json_from
from connectors.fhir.transport.call import REDIRECTS, Reply, Token
from connectors.fhir.transport.links import header_link, written_origin

Meaning = Literal["granted", "refused", "scope", "outage", "stop"]
Blame = Literal["client_id", "key", "audience", "clock", "dpop"]

DEFAULT_LIFE_S = 300.0  # the guide's SHOULD, where `expires_in` is missing or makes no sense
MIN_MARGIN_S = 30.0
MARGIN_SHARE = 0.1

_OUTAGE = frozenset({408, 425, 429, 500, 502, 503, 504})
_WORD = re.compile(r"[a-z0-9_.:-]{1,100}")
_ERROR_URN = re.compile(r"urn:[a-z]+:error:[a-z0-9:-]+")
# What a refusal is about, by the words that servers use (Okta, Entra, Keycloak, PingFederate, the SMART bulk server). Only the
# advice goes by them: what is done next goes by codes.
_ABOUT: Mapping[Blame, re.Pattern[str]] = {
    "client_id": re.compile(
        r"(unknown|invalid|unregistered|unrecogni[sz]ed|nonexistent|no such|wrong)( or invalid)?( value for)? \W*client[ _-]?id\b"
        r"|invalid value for \W*client[ _-]?id\b"
        r"|(unknown|unregistered|unrecogni[sz]ed|no such) (oauth2? )?(client|application)\b"
        r"|\b(client|application)([ _-]?id\b)?(?![ _]?assertion)[^.]{0,60}"
        r"(not (be )?found|unknown|not registered|not recogni[sz]ed|unrecogni[sz]ed|(does not|doesn't) exist)"
    ),
    "key": re.compile(
        r"signature|\b(public|private|signing) keys?\b|\bjwks?\b|\bjwks_uri\b|\bkid\b|\bkey (was )?not found|\bno keys?\b"
    ),
    "audience": re.compile(r"\baud\b|\baudience\b"),
    "clock": re.compile(r"\bexpired?\b|\bexpir(y|ation)\b|\bexp\b|\biat\b|\bnbf\b|\bclock\b|\bin the future\b"),
}
# RFC 6749 4.1.2.1; servers send them with 400 from here too
_DOWN = frozenset({"server_error", "temporarily_unavailable"})
_DPOP = frozenset({"use_dpop_nonce", "invalid_dpop_proof"})  # RFC 9449
_BEARER = frozenset({"bearer", "bearertoken"})  # the latter: Apigee by default
GRANTED = frozenset({200, 201})  # the latter: frameworks that answer every POST so
_READ_CHARACTERS = 2_000
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class TokenAnswer:
    """A judged answer; `code` is its OAuth error, `token` what was granted, `blame` what a refusal is about, if it says so.

    `led_to` is the origin that a redirect leads to; a login is never sent on.
    """

    meaning: Meaning
    status: int | None = None
    code: str | None = None
    token: Token | None = None
    blame: Blame | None = None
    led_to: str | None = None


def judge_token(reply: Reply, *, now: float) -> TokenAnswer:
    """The table. `now` is epoch seconds on our clock; raises TokenRefusedError for a token that cannot be used.

    | answer | meaning |
    | --- | --- |
    | 200, 201 with an access token | granted; with an OAuth error in its place, what that error means |
    | 200, 201 without JSON (a web page), 408, 425, 429, 5xx, `server_error`, `temporarily_unavailable` | outage |
    | `invalid_client`, or 401 without a word | refused: flaky servers refuse good assertions now and then |
    | `invalid_scope` | scope: the other syntax may do |
    | 400 without a word | outage: Epic, when a long run logs in again (F9) |
    | everything else | stop |
    """
    fields = _fields(reply.body)
    code = _code(fields)
    if reply.status in GRANTED:
        if fields is None:
            return TokenAnswer("outage", reply.status)
        token = _token(fields, now)
        if token is not None or code is None:
            return TokenAnswer("granted" if token else "stop", reply.status, code, token)
    if reply.status in REDIRECTS:
        return TokenAnswer("stop", reply.status, code, led_to=_led_to(reply))
    if reply.status in _OUTAGE or code in _DOWN:
        return TokenAnswer("outage", reply.status, code)
    if code in _DPOP or (code is None and reply.headers.get("www-authenticate", "").strip().lower().startswith("dpop")):
        return TokenAnswer("stop", reply.status, code, blame="dpop")
    if code == "invalid_client" or (reply.status == 401 and code is None):  # noqa: PLR2004 - status codes are this table's subject
        return TokenAnswer("refused", reply.status, "invalid_client", blame=_blame(fields))
    if code is not None and (code == "invalid_scope" or code.endswith("empty-scopes")):
        return TokenAnswer("scope", reply.status, code)
    if reply.status == 400 and code is None:  # noqa: PLR2004
        return TokenAnswer("outage", reply.status)
    return TokenAnswer("stop", reply.status, code, blame=_blame(fields))


def _led_to(reply: Reply) -> str | None:
    location = header_link(reply.headers.get("location"))
    try:
        return None if location is None else written_origin(urljoin(reply.url, location))
    except ValueError:
        return None  # harmless: it only names where to look


def _blame(fields: dict[str, Any] | None) -> Blame | None:
    """What the server says is wrong with us; None if it says nothing, or several things. Its words are never shown."""
    fields_text = [str((fields or {}).get(name) or "") for name in ("error", "error_description")]
    text = " ".join(fields_text)[:_READ_CHARACTERS].lower()
    found = [blame for blame, words in _ABOUT.items() if words.search(text)]
    if "key" in found and len(found) > 1:  # "the token's signature cannot be verified: it has expired"
        found.remove("key")
    return found[0] if len(found) == 1 else None


def _fields(body: bytes) -> dict[str, Any] | None:
    try:
        document = json_from(body)
    except UnreadableJsonError:
        return None
    return document if isinstance(document, dict) else None


def _code(fields: dict[str, Any] | None) -> str | None:
    """The OAuth error; Cerner hides its own at the end of `error_uri` (vendor-facts 2.3). No description decides it."""
    error = (fields or {}).get("error")
    if isinstance(error, str) and _WORD.fullmatch(error):
        return error
    uri = (fields or {}).get("error_uri")
    urn = _ERROR_URN.search(unquote(uri)) if isinstance(uri, str) else None
    return urn[0] if urn else None


def _token(fields: dict[str, Any], now: float) -> Token | None:
    text = fields.get("access_token")
    value = text.strip() if isinstance(text, str) else ""  # a script in front of the server may have added a line end
    if not value:
        return None
    kind = fields.get("token_type") or "bearer"  # required by RFC 6749 5.1, and left out by servers all the same
    if not isinstance(kind, str) or kind.strip().lower() not in _BEARER:
        raise TokenRefusedError(
            "the token endpoint gave a token that is not a bearer token; this client can use no other kind: ask the EHR's "
            "administrators to register it for bearer tokens"
        )
    if not _VISIBLE.fullmatch(value):
        raise TokenRefusedError(
            "the token endpoint gave a token with characters that a header must not have (blanks, control characters or "
            "letters outside ASCII); check profile.login.token_url, and ask the EHR's administrators"
        )
    life = _seconds(fields.get("expires_in"))
    margin = min(max(MIN_MARGIN_S, MARGIN_SHARE * life), life / 2)
    return Token(value, refresh_at=now + life - margin, scope=_scope(fields.get("scope")))


def _scope(value: Any) -> str | None:
    """The granted scope, a word at least (RFC 6749 3.3); None if the answer has none. Some servers send a list."""
    words = value if isinstance(value, list) else [value]
    text = " ".join(word for word in words if isinstance(word, str)).strip()
    return text or None


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_LIFE_S
    return seconds if math.isfinite(seconds) and seconds > 0 else DEFAULT_LIFE_S
