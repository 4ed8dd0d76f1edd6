"""The token endpoint, and what a token allows: SMART backend services (vendor-facts 5) with each manner's strictness.

It really verifies assertions: signature by the registered keys, alg, aud, exp at most 300 s ahead, jti used once.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey
from starlette.requests import Request
from starlette.responses import Response

from mocks.answers import Refused, json_answer
from mocks.ehr import Ehr, Grant
from mocks.manners.manner import read_query

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LONGEST_LIFE_S = 300
_LONGEST_JTI = 151  # Epic (EO, vendor-facts 1.3); no server allows more
_CLOCK_LEEWAY_S = 2  # only for iat and nbf: clocks on one machine never differ by more
_SCOPE = re.compile(r"(?:system|patient)/(?P<type>[A-Z][A-Za-z]*|\*)\.(?P<access>read|write|\*|c?r?u?d?s?)(?:\?.*)?$")
_LETTERS = {"read": frozenset("rs"), "write": frozenset("cud"), "*": frozenset("cruds")}


class _LoginError(Exception):
    def __init__(self, error: str, why: str) -> None:
        super().__init__(why)
        self.error = error
        self.why = why


async def token_endpoint(request: Request) -> Response:
    """Answer a token request; the request log's note gets the reason of a refusal."""
    ehr: Ehr = request.app.state.ehr
    try:
        form = await _form(request)
        client = _authenticate(ehr, request, form)
        scopes = _granted(ehr, form.get("scope", "").split())
        patient = _launch_patient(form) if ehr.manner.needs_launch else None
    except _LoginError as refusal:
        raise Refused(ehr.manner.login_refusal(refusal.error, refusal.why), refusal.why) from refusal
    life = ehr.config.token_life_s or ehr.manner.token_life_s
    token = secrets.token_urlsafe(48)
    ehr.grants[token] = Grant(client, _letters(scopes), frozenset(scopes), ehr.now() + life, patient)
    body = {"access_token": token, "token_type": "bearer", "expires_in": life, "scope": " ".join(scopes)}
    return json_answer(body, 200, {"Cache-Control": "no-store", "Pragma": "no-cache"}, "application/json")


async def _form(request: Request) -> dict[str, str]:
    if request.method != "POST":
        raise _LoginError("invalid_request", "the method is not POST")
    if request.scope["query_string"]:
        raise _LoginError("invalid_request", "parameters in the query")
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise _LoginError("invalid_request", "the body is not form-urlencoded")
    parsed = read_query((await request.body()).decode("utf-8", "replace"))
    if any(len(values) > 1 for values in parsed.values()):
        raise _LoginError("invalid_request", "a parameter is repeated")
    if parsed.get("grant_type") != ("client_credentials",):
        raise _LoginError("unsupported_grant_type", "grant_type is not client_credentials")
    return {name: values[0] for name, values in parsed.items()}


def _authenticate(ehr: Ehr, request: Request, form: dict[str, str]) -> str:
    if "client_assertion" in form:
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise _LoginError("invalid_request", "client_assertion_type is not jwt-bearer")
        if ehr.config.jwks is None and not ehr.config.other_clients:
            raise _LoginError("invalid_client", "no keys are registered")
        return _check_assertion(ehr, form["client_assertion"])
    given = _basic(request) or (form.get("client_id", ""), form.get("client_secret", ""))
    known = (ehr.config.client_id, ehr.config.client_secret)
    if ehr.config.client_secret is None or not all(
        secrets.compare_digest(a, b or "") for a, b in zip(given, known, strict=True)
    ):
        raise _LoginError("invalid_client", "no assertion, and no right secret")
    return ehr.config.client_id


def _basic(request: Request) -> tuple[str, str] | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise _LoginError("invalid_client", "the Basic header cannot be read") from exc
    return unquote(client), unquote(secret)


def _check_assertion(ehr: Ehr, assertion: str) -> str:
    try:
        header: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(assertion.partition(".")[0] + "=="))
    except (ValueError, binascii.Error) as exc:
        raise _LoginError("invalid_client", "the assertion is no JWT") from exc
    alg = header.get("alg")
    if alg not in ehr.manner.algs:
        raise _LoginError("invalid_client", f"alg is not one of {', '.join(ehr.manner.algs)}")
    if header.get("typ", "JWT") != "JWT":
        raise _LoginError("invalid_client", "typ is not JWT")
    client = _issuer(ehr, assertion)
    registered = ehr.config.other_clients.get(client, ehr.config.jwks or {})
    key = _pick_key(registered, str(alg), header.get("kid"))
    try:
        claims = jwt.decode(assertion, key, algorithms=[str(alg)]).claims
    except (JoseError, ValueError) as exc:
        raise _LoginError("invalid_client", "the signature does not verify") from exc
    _check_claims(ehr, claims, client)
    return client


def _issuer(ehr: Ehr, assertion: str) -> str:
    """Return the keys to try, by what the unverified assertion claims: another registered client's, else the client's."""
    payload = assertion.split(".")[1] if assertion.count(".") == 2 else ""
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, binascii.Error):
        claims = None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) and issuer in ehr.config.other_clients else ehr.config.client_id


def _pick_key(registered: Mapping[str, Any], alg: str, kid: Any) -> RSAKey | ECKey:
    """Choose a key as vendor-facts 5.2 says: by kid if given, by kty (and curve) fitting alg; exactly one must remain."""
    curve = {"ES256": "P-256", "ES384": "P-384"}.get(alg)
    found = [
        key
        for key in KeySet.import_key_set(dict(registered)).keys  # type: ignore[arg-type]
        if (kid is None or key.kid == kid)
        and (isinstance(key, ECKey) and key.curve_name == curve if curve else isinstance(key, RSAKey))
    ]
    if len(found) != 1:
        raise _LoginError("invalid_client", f"{len(found)} registered keys fit kid and alg")
    return found[0]  # type: ignore[return-value]


def _check_claims(ehr: Ehr, claims: dict[str, Any], client: str) -> None:
    now = ehr.now()
    if claims.get("iss") != client or claims.get("sub") != client:
        raise _LoginError("invalid_client", "iss and sub are not the client id")
    audience = claims.get("aud")
    if ehr.audience not in (audience if isinstance(audience, list) else [audience]):
        raise _LoginError("invalid_client", "aud is not this server's")
    exp, iat, nbf = claims.get("exp"), claims.get("iat"), claims.get("nbf")
    if not isinstance(exp, int | float) or exp <= now:
        raise _LoginError("invalid_client", "exp is missing or past")
    if exp - now > LONGEST_LIFE_S:
        raise _LoginError("invalid_client", "exp is more than 300 s ahead")
    for name, value in (("iat", iat), ("nbf", nbf)):
        if value is not None and (value > now + _CLOCK_LEEWAY_S or exp - value > LONGEST_LIFE_S):
            raise _LoginError("invalid_client", f"{name} is in the future, or exp more than 300 s after it")
    jti = claims.get("jti")
    if jti is None and not ehr.manner.jti_required:
        return
    if not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST_JTI:
        raise _LoginError("invalid_client", "jti is missing, no string, or too long")
    for old in [old for old, end in ehr.used_jtis.items() if end <= now]:
        del ehr.used_jtis[old]
    if jti in ehr.used_jtis:
        raise _LoginError("invalid_client", "jti was used before")
    ehr.used_jtis[jti] = exp


def _granted(ehr: Ehr, requested: list[str]) -> list[str]:
    manner = ehr.manner
    versions = ehr.config.scope_versions or manner.scope_versions
    if manner.scopes == "registered":  # follows the app's registration, not the request (TM, vendor-facts 1.3)
        kinds = sorted({*ehr.types, "Binary", "Medication"} - set(ehr.config.forbidden_types))
        return [
            f"system/{kind}.{access}" for kind in kinds for access in (("r", "s") if "v2" in versions else ("read",))
        ]
    if not requested:
        raise _LoginError("invalid_scope", "scope is required")
    kept = []
    for scope in requested:
        found = _SCOPE.match(scope)
        if found is None:
            if manner.needs_launch and scope == "launch":
                kept.append(scope)
            continue
        if found["type"] in ehr.config.unregistered_types:
            raise _LoginError("invalid_scope", "the client is not registered for one of the scopes")
        if found["type"] == "*" and manner.scopes in ("explicit", "literal"):
            raise _LoginError("invalid_scope", "wildcards are not supported")
        version = "v1" if found["access"] in _LETTERS else "v2"
        if version in versions and found["access"]:
            kept.append(scope)
    if not [scope for scope in kept if scope != "launch"]:
        raise _LoginError("invalid_scope", "no scope is left")
    if manner.needs_launch and "launch" not in kept:
        raise _LoginError("invalid_scope", "the launch scope is required")
    return kept


def _letters(scopes: list[str]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for scope in scopes:
        parsed = _SCOPE.match(scope)
        if parsed is not None and "?" not in scope:
            letters = _LETTERS.get(parsed["access"], frozenset(parsed["access"]))
            found[parsed["type"]] = found.get(parsed["type"], frozenset()) | letters
    return found


def _launch_patient(form: dict[str, str]) -> str:
    """Read VA's `launch`: base64 of {"patient": "<ICN>"}."""
    try:
        patient = orjson.loads(base64.b64decode(form.get("launch", ""), validate=True))["patient"]
    except (ValueError, KeyError, TypeError) as exc:
        raise _LoginError("invalid_request", "launch is not base64 of an object with patient") from exc
    return str(patient)


def authenticate(request: Request) -> Grant | None:
    """Return the request's grant; None on an open server. Raises Refused (401)."""
    ehr: Ehr = request.app.state.ehr
    if ehr.config.open:
        return None
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    grant = ehr.grants.get(token) if scheme.lower() == "bearer" else None
    if grant is None or grant.expires_at <= ehr.now():
        raise Refused(
            ehr.manner.unauthorized(), "token expired" if grant else "no token" if not token else "unknown token"
        )
    named = ehr.config.client_id_header
    if named is not None and request.headers.get(named) != grant.client_id:
        raise Refused(ehr.manner.forbidden(f"{named} is required."), f"no {named}")
    return grant


def may(ehr: Ehr, grant: Grant | None, kind: str, letter: str) -> bool:
    """Return whether a grant allows reading ("r") or searching ("s") this type."""
    if grant is None:
        return True
    if ehr.manner.scopes == "literal":  # compares literally, does not match wildcards (LK, vendor-facts 4.2)
        return not grant.literal.isdisjoint({f"system/{kind}.read", f"patient/{kind}.read"})
    return letter in grant.scopes.get(kind, ()) or letter in grant.scopes.get("*", ())


def authorize(ehr: Ehr, grant: Grant | None, kind: str, letter: str) -> None:
    """Refuse (403) a type that the grant does not allow."""
    if kind in ehr.config.forbidden_types or not may(ehr, grant, kind, letter):
        raise Refused(ehr.manner.forbidden(ehr.manner.scope_refusal_text), "scope")
