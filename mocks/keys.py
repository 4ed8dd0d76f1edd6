"""Throw-away key pairs as JWK, for the demo and for tests. Never use them for a real EHR: the private key is not protected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from joserfc.jwk import ECKey, RSAKey

Alg = Literal["ES384", "RS384", "RS256"]


@dataclass(frozen=True)
class KeyPair:
    """A private JWK, and the public JWK Set to register with the mock."""

    alg: Alg
    kid: str
    private: dict[str, Any]
    jwks: dict[str, Any]


def make_key_pair(alg: Alg = "ES384", kid: str = "mock-key-1") -> KeyPair:
    """Make a new pair: P-384 for ES384 (fast), RSA 2048 for RS384 and RS256."""
    parameters: Any = {"kid": kid, "use": "sig", "alg": alg}
    key = ECKey.generate_key("P-384", parameters) if alg == "ES384" else RSAKey.generate_key(2048, parameters)
    private = {**dict(key.as_dict(private=True)), "key_ops": ["sign"]}
    public = {**dict(key.as_dict(private=False)), "key_ops": ["verify"]}
    return KeyPair(alg, kid, private, {"keys": [public]})
