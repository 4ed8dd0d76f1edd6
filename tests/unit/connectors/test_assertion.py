"""Signed assertions, verified by joserfc with the public half of the key."""

from __future__ import annotations

import base64

import orjson
import pytest
from joserfc import jwk, jwt

from connectors.core.errors import AuthError
from connectors.fhir.auth.assertion import load_signing_key
from connectors.fhir.profile import VendorProfile

PROFILE = VendorProfile(name="x", label="X")
RSA = jwk.RSAKey.generate_key(2048, {"kid": "rsa-1"})
EC = jwk.ECKey.generate_key("P-384", {"kid": "ec-1"})
EC_256 = jwk.ECKey.generate_key("P-256", {"kid": "ec-256"})


def as_json(key, **more):
    return orjson.dumps(key.as_dict(private=True) | more).decode()


def as_set(*keys):
    return orjson.dumps({"keys": [key.as_dict(private=True) for key in keys]}).decode()


def signed(signer, **changes):
    wanted = {"client_id": "c1", "audience": "https://ehr.example/token", "now": 1_000.0, "life_s": 240} | changes
    return signer.assertion(**wanted)


@pytest.mark.parametrize(
    ("material", "key", "alg"),
    [
        (as_json(RSA), RSA, "RS384"),
        (as_json(EC), EC, "ES384"),
        (as_json(EC_256), EC_256, "ES256"),
        (RSA.as_pem(private=True).decode(), RSA, "RS384"),
        (EC.as_pem(private=True).decode(), EC, "ES384"),
        (as_set(EC, RSA), EC, "ES384"),
        (as_json(RSA, alg="RS256"), RSA, "RS256"),
    ],
)
def test_an_assertion_verifies_with_the_public_key(material, key, alg):
    signer = load_signing_key(material, PROFILE, kid=None, alg=None)
    token = jwt.decode(signed(signer), key, algorithms=[alg])
    assert token.header["alg"] == alg
    assert token.header["typ"] == "JWT"
    assert token.claims["iss"] == token.claims["sub"] == "c1"
    assert token.claims["aud"] == "https://ehr.example/token"
    assert (token.claims["iat"], token.claims["exp"]) == (1_000, 1_240)


def test_every_assertion_has_its_own_jti():
    signer = load_signing_key(as_json(EC), PROFILE, kid=None, alg=None)
    jtis = {jwt.decode(signed(signer), EC, algorithms=["ES384"]).claims["jti"] for _ in range(20)}
    assert len(jtis) == 20
    assert all(isinstance(jti, str) and len(jti) <= 151 for jti in jtis)


def test_no_assertion_lives_longer_than_the_specification_allows():
    signer = load_signing_key(as_json(EC), PROFILE, kid=None, alg=None)
    claims = jwt.decode(signed(signer, life_s=3_600), EC, algorithms=["ES384"]).claims
    assert claims["exp"] - claims["iat"] == 300


def test_an_es384_signature_is_raw_and_96_bytes_long():
    signer = load_signing_key(as_json(EC), PROFILE, kid=None, alg=None)
    signature = signed(signer).rsplit(".", 1)[1]
    assert len(base64.urlsafe_b64decode(signature)) == 96


def test_the_kid_comes_from_the_connection_or_else_from_the_key():
    assert load_signing_key(as_json(EC), PROFILE, kid=None, alg=None).kid == "ec-1"
    assert load_signing_key(EC.as_pem(private=True).decode(), PROFILE, kid="mine", alg=None).kid == "mine"
    assert load_signing_key(as_set(EC, RSA), PROFILE, kid="rsa-1", alg=None).alg == "RS384"


def test_the_profile_and_the_connection_choose_the_algorithm():
    rs256 = PROFILE.with_overrides({"login": {"assertion_alg_rsa": "RS256"}})
    assert load_signing_key(as_json(RSA), rs256, kid=None, alg=None).alg == "RS256"
    assert load_signing_key(as_json(RSA), rs256, kid=None, alg="RS512").alg == "RS512"


@pytest.mark.parametrize(
    ("material", "kid", "alg", "says"),
    [
        ("nonsense", None, None, "neither PEM nor JSON"),
        ("{not json", None, None, "starts like JSON, but is not valid JSON"),
        ('{"keys": []}', None, None, "no private key"),
        ('{"kty": "EC", "d": "x"}', None, None, "cannot be read"),
        (as_set(EC), "other", None, "no private key with kid 'other'"),
        (orjson.dumps(EC.as_dict(private=False)).decode(), None, None, "contains only public keys"),
        (EC.as_pem(private=False).decode(), None, None, "is a public key"),
        (as_json(EC), None, "RS384", "cannot sign RS384; set `alg` to ES384"),
        (as_json(EC_256), None, "ES384", "cannot sign ES384"),
    ],
)
def test_an_unusable_key_says_why_and_is_not_quoted(material, kid, alg, says):
    with pytest.raises(AuthError, match=says) as raised:
        load_signing_key(material, PROFILE, kid=kid, alg=alg)
    assert EC.as_dict(private=True)["d"] not in str(raised.value)


def test_the_key_has_no_repr():
    assert EC.as_dict(private=True)["d"] not in repr(load_signing_key(as_json(EC), PROFILE, kid=None, alg=None))
