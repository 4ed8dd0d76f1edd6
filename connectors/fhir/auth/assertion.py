"""The signed assertion with which a client proves who it is (SMART client-confidential-asymmetric; vendor-facts 5.2, 5.3).

`key_material` reads keys, which stay in memory. Authlib makes the assertion of RFC 7523 and signs it with joserfc (ES384
signatures are raw R||S, as RFC 7518 wants). `token_source` sends it to the token endpoint.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from authlib.oauth2.rfc7523 import private_key_jwt_sign
from joserfc import jwk
from joserfc.errors import JoseError

from connectors.core.errors import AuthError
from connectors.fhir.auth.key_material import CURVES, read_key
from connectors.fhir.profile import VendorProfile

_OF_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})


@dataclass(frozen=True)
class SigningKey:
    """A private key and how to sign with it; its material has no repr."""

    alg: str
    kid: str | None
    key: jwk.Key = field(repr=False)

    def assertion(self, *, client_id: str, audience: str, now: float, life_s: int) -> str:
        """Return a fresh JWT (RFC 7523): issued at `now` (epoch seconds), with a new `jti`, valid for `life_s`, at most 300 s.

        Raises:
            JoseError: the key forbids signing; `load_signing_key` has ruled that out.
        """
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


def load_signing_key(
    material: str, profile: VendorProfile, *, kid: str | None, alg: str | None, passphrase: str | None = None
) -> SigningKey:
    """Return the key to sign with, from PEM, JWK or JWKS text; `kid` chooses in a set, `alg` overrides what fits the key.

    Raises:
        AuthError: it cannot be read or cannot sign; the message says why and never quotes the material.
    """
    key = read_key(material, kid=kid, passphrase=passphrase)
    chosen = alg or key.alg or _fitting(key, profile)
    fits = chosen in _OF_RSA if isinstance(key, jwk.RSAKey) else CURVES.get(key.curve_name) == chosen
    if not fits:
        raise AuthError(
            f"the connection's key cannot sign {chosen}; set `alg` to {_fitting(key, profile)}, or give another key"
        )
    signer = SigningKey(alg=chosen, kid=kid or key.kid, key=key)
    try:
        signer.assertion(client_id="", audience="", now=0, life_s=0)
    except JoseError:  # its own members forbid it; known now, and not at the first login
        raise AuthError(
            f"the connection's key says that it is not for signing {chosen} (its `use`, `key_ops` or `alg`): give the "
            "key that was made for signing, or choose it by `kid`"
        ) from None
    return signer


def _fitting(key: jwk.RSAKey | jwk.ECKey, profile: VendorProfile) -> str:
    if isinstance(key, jwk.RSAKey):
        return profile.login.assertion_alg_rsa
    return CURVES.get(key.curve_name, profile.login.assertion_alg_ec)
