"""The signed assertion with which a client proves who it is (SMART client-confidential-asymmetric; vendors.md 5.2, 5.3).

Keys come as PEM, JWK or JWKS text and stay in memory; joserfc reads them, Authlib makes the assertion of RFC 7523 and signs it
with joserfc (ES384 signatures are raw R||S, as RFC 7518 wants).
Asking the token endpoint is left to `token_source`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2.rfc7523 import private_key_jwt_sign
from joserfc import jwk
from joserfc.errors import JoseError

from connectors.errors import AuthError
from connectors.json_answers import UnreadableJsonError, json_from
from connectors.profile import VendorProfile

_CURVE_ALG = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_PRIVATE_MEMBER = "d"


@dataclass(frozen=True)
class SigningKey:
    """A private key and how to sign with it; its material has no repr."""

    alg: str
    kid: str | None
    key: jwk.Key = field(repr=False)

    def assertion(self, *, client_id: str, audience: str, now: float, life_s: int) -> str:
        """A fresh JWT: issued at `now` (epoch seconds), with a new `jti`, good for `life_s`, at most 300."""
        issued = int(now)
        signed: str = private_key_jwt_sign(
            self.key,
            client_id,
            audience,
            alg=self.alg,
            header={"typ": "JWT"} | ({} if self.kid is None else {"kid": self.kid}),
            claims={"jti": str(uuid.uuid4())},
            issued_at=issued,
            expires_at=issued + min(life_s, 300),
        )
        return signed


def load_signing_key(material: str, profile: VendorProfile, *, kid: str | None, alg: str | None) -> SigningKey:
    """The key to sign with, out of PEM, JWK or JWKS text; `kid` chooses in a set, `alg` overrides what fits the key.

    Raises AuthError, which says what is wrong and never quotes the material.
    """
    text = material.lstrip("\ufeff").strip()  # a byte order mark, as Windows editors write it
    key = _from_json(text, kid) if text.startswith("{") else _from_pem(text)
    if not isinstance(key, jwk.RSAKey | jwk.ECKey) or not key.is_private:
        raise AuthError(
            "the connection's key is not a private RSA or EC key; give the private half, as PEM, JWK or JWKS"
        )
    chosen = alg or key.alg or _fitting(key, profile)
    fits = chosen.startswith(("RS", "PS")) if isinstance(key, jwk.RSAKey) else _CURVE_ALG.get(key.curve_name) == chosen
    if not fits:
        raise AuthError(
            f"the connection's key cannot sign {chosen}; set `alg` to {_fitting(key, profile)}, or give another key"
        )
    return SigningKey(alg=chosen, kid=kid or key.kid, key=key)


def _fitting(key: jwk.RSAKey | jwk.ECKey, profile: VendorProfile) -> str:
    if isinstance(key, jwk.RSAKey):
        return profile.assertion_alg_rsa
    return _CURVE_ALG.get(key.curve_name, profile.assertion_alg_ec)


def _from_pem(text: str) -> jwk.Key:
    for kind in (jwk.RSAKey, jwk.ECKey):
        try:
            return kind.import_key(text)
        except (JoseError, ValueError, TypeError):
            continue
    raise AuthError("the connection's key is neither PEM nor JSON (JWK, JWKS) of an RSA or EC key without passphrase")


def _from_json(text: str, kid: str | None) -> jwk.Key:
    try:
        document: Any = json_from(text.encode("utf-8", "surrogatepass"))
        found = document.get("keys", [document])
        private = [entry for entry in found if isinstance(entry, dict) and _PRIVATE_MEMBER in entry]
    except (UnreadableJsonError, TypeError):
        private = []
    named = [entry for entry in private if kid is None or entry.get("kid", kid) == kid]
    if not named:
        which = "no private key" if kid is None else f"no private key with kid {kid!r}"
        raise AuthError(
            f"the connection's key holds {which}; give a JWK or JWKS with its private members, or set `kid`"
        )
    try:
        return jwk.import_key(named[0])
    except (JoseError, ValueError, TypeError, KeyError):
        pass
    raise AuthError("the connection's key is a JWK that cannot be read; it needs kty, and n, e, d or crv, x, y, d")
