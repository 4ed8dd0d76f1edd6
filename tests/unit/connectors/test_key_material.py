"""Private keys as people keep them: in one line, in base64, with a passphrase, in sets and lists."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc import jwk, jwt

from connectors.core.errors import AuthError
from connectors.fhir.auth.assertion import load_signing_key
from connectors.fhir.auth.key_material import read_key
from connectors.fhir.profile import VendorProfile

PROFILE = VendorProfile(name="x", label="X")
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP384R1())
LOCK = BestAvailableEncryption(b"open sesame")


def pem(key, form=PrivateFormat.PKCS8, lock=None):
    return key.private_bytes(Encoding.PEM, form, lock or NoEncryption()).decode()


def der(key, lock=None):
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, lock or NoEncryption())


def public(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def as_jwk(key, **more):
    kind = jwk.RSAKey if isinstance(key, rsa.RSAPrivateKey) else jwk.ECKey
    return kind.import_key(pem(key).encode()).as_dict(private=True) | more


def b64(text):
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def wrapped(text, width=76):
    return "\n".join(text[at : at + width] for at in range(0, len(text), width))


FORMS = {
    "PEM": pem,
    "PKCS#1 or SEC1": lambda key: pem(key, PrivateFormat.TraditionalOpenSSL),
    "OpenSSH": lambda key: pem(key, PrivateFormat.OpenSSH),
    r"PEM with literal \n": lambda key: pem(key).replace("\n", r"\n"),
    r"PEM with literal \r\n": lambda key: pem(key).replace("\n", r"\r\n"),
    "PEM with blanks for line ends": lambda key: pem(key).replace("\n", " "),
    "PEM on one line": lambda key: pem(key).replace("\n", ""),
    "PEM with CRLF": lambda key: pem(key).replace("\n", "\r\n"),
    "PEM indented": lambda key: pem(key).replace("\n", "\n    "),
    "PEM in quotes": lambda key: '"' + pem(key).replace("\n", r"\n") + '"',
    "PEM behind a mark": lambda key: "\ufeff" + pem(key),
    "PEM in base64": lambda key: b64(pem(key)),
    "PEM in base64 over lines": lambda key: wrapped(b64(pem(key))),
    "PEM in URL-safe base64": lambda key: base64.urlsafe_b64encode(pem(key).encode()).decode().rstrip("="),
    r"PEM with literal \n in base64": lambda key: b64(pem(key).replace("\n", r"\n")),
    "PEM beside its public half": lambda key: public(key) + pem(key),
    "DER in base64": lambda key: b64(der(key)),
    "JWK": lambda key: json.dumps(as_jwk(key)),
    "JWK in base64": lambda key: b64(json.dumps(as_jwk(key))),
    "JWK behind a mark in base64": lambda key: b64("\ufeff" + json.dumps(as_jwk(key))),
    r"JWK with literal \n": lambda key: json.dumps(as_jwk(key), indent=1).replace("\n", r"\n"),
    "JWKS": lambda key: json.dumps({"keys": [as_jwk(key)]}),
    "list of JWKs": lambda key: json.dumps([as_jwk(key)]),
    "JWKS with strangers": lambda key: json.dumps({"keys": [None, "x", {"kty": "EC", "d": "x"}, as_jwk(key)]}),
    "JWKS of one": lambda key: json.dumps({"keys": as_jwk(key)}),
    "JWK with nulls": lambda key: json.dumps(as_jwk(key) | {"kid": None, "use": None, "alg": None}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", [RSA, EC], ids=["RSA", "EC"])
def test_a_private_key_is_read_in_every_usual_form(form: str, key) -> None:
    signer = load_signing_key(FORMS[form](key), PROFILE, kid="k", alg=None)
    signed = signer.assertion(client_id="c", audience="https://ehr.example/token", now=1.0, life_s=60)
    kind = jwk.RSAKey if key is RSA else jwk.ECKey
    assert jwt.decode(signed, kind.import_key(public(key).encode()), algorithms=[signer.alg]).header["kid"] == "k"


LOCKED = {
    "PKCS#8": lambda: pem(RSA, lock=LOCK),
    "traditional": lambda: pem(RSA, PrivateFormat.TraditionalOpenSSL, LOCK),
    r"PKCS#8 with literal \n": lambda: pem(EC, lock=LOCK).replace("\n", r"\n"),
    r"traditional with literal \n": lambda: pem(EC, PrivateFormat.TraditionalOpenSSL, LOCK).replace("\n", r"\n"),
    "in base64": lambda: b64(pem(RSA, lock=LOCK)),
    "DER in base64": lambda: b64(der(RSA, LOCK)),
}


@pytest.mark.parametrize("form", LOCKED)
def test_an_encrypted_key_opens_with_its_passphrase_and_is_otherwise_reported_with_the_remedy(form: str) -> None:
    material = LOCKED[form]()
    assert read_key(material, kid=None, passphrase="open sesame").is_private
    with pytest.raises(AuthError, match=r"encrypted with a passphrase: set `key_passphrase`.*openssl pkey -in"):
        read_key(material, kid=None)
    with pytest.raises(AuthError, match="`key_passphrase` does not open") as raised:
        read_key(material, kid=None, passphrase="wrong")
    assert "wrong" not in str(raised.value)


def test_an_unneeded_passphrase_does_no_harm() -> None:
    assert read_key(pem(RSA), kid=None, passphrase="x").is_private


@pytest.mark.parametrize("kid", [5, "5"])
@pytest.mark.parametrize("configured", ["5", None])
def test_a_numeric_key_id_equals_its_digits_as_text(kid: object, configured: str | None) -> None:
    other = [] if configured is None else [as_jwk(EC, kid=4)]
    signer = load_signing_key(json.dumps([*other, as_jwk(RSA, kid=kid)]), PROFILE, kid=configured, alg=None)
    assert (signer.kid, signer.alg) == ("5", "RS384")


FOR_ENCRYPTION = [{"use": "enc"}, {"key_ops": ["decrypt"]}, {"key_ops": ["verify"]}, {"alg": "RSA-OAEP"}]


@pytest.mark.parametrize("says", FOR_ENCRYPTION)
def test_the_signing_key_is_chosen_among_several(says: dict) -> None:
    material = json.dumps({"keys": [as_jwk(RSA, kid="e", **says), as_jwk(EC, use="sig", kid="s")]})
    assert load_signing_key(material, PROFILE, kid=None, alg=None).kid == "s"


@pytest.mark.parametrize("says", [*FOR_ENCRYPTION, {"alg": "RSx"}, {"use": "enc", "key_ops": ["sign"]}])
def test_a_key_not_meant_for_signing_is_refused_when_read(says: dict) -> None:
    with pytest.raises(AuthError, match=r"not for signing|cannot sign RS"):
        load_signing_key(json.dumps(as_jwk(RSA, **says)), PROFILE, kid=None, alg=None)


SMALL = rsa.generate_private_key(65537, 1024)
UNUSABLE = {
    "public PEM": (lambda: public(RSA), "is a public key, which cannot sign"),
    "public PEM in base64": (lambda: b64(public(EC)), "is a public key, which cannot sign"),
    "public JWK": (lambda: json.dumps({k: v for k, v in as_jwk(EC).items() if k != "d"}), "only public keys, which cannot sign"),
    "small PEM": (lambda: pem(SMALL), "RSA key of 1024 bits, but signing needs at least 2048"),
    "small DER": (lambda: b64(der(SMALL)), "RSA key of 1024 bits, but signing needs at least 2048"),
    "other curve": (lambda: pem(ec.generate_private_key(ec.SECP256K1())), "curve secp256k1"),
    "Ed25519": (lambda: pem(ed25519.Ed25519PrivateKey.generate()), "neither an RSA nor an EC key"),
    "Ed25519 JWK": (
        lambda: json.dumps({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                            "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}),
        "neither an RSA nor an EC key",
    ),
    "cut JWK": (lambda: json.dumps(as_jwk(EC))[:90], "starts like JSON, but is not valid JSON"),
    "symmetric JWK": (lambda: '{"keys": [{"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qz"}]}', "neither an RSA nor an EC key"),
    "cut PEM": (lambda: pem(RSA)[:300], "truncated PEM, or contains no private key"),
    "damaged PEM": (lambda: pem(RSA).replace("MII", "MIJ"), "damaged"),
    "words": (lambda: "not a key at all", "neither PEM"),
    "base64 of words": (lambda: b64("not a key at all"), "neither PEM"),
    "empty list": (lambda: "[]", "no private key"),
    "a number": (lambda: "[7]", "no private key"),
    "JWK in something else": (lambda: json.dumps({"key": as_jwk(EC)}), "no private key"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_key_that_cannot_sign_is_reported_by_its_kind(case: str) -> None:
    material, says = UNUSABLE[case]
    with pytest.raises(AuthError, match=says):
        read_key(material(), kid=None)


def test_a_jwk_that_is_too_small_is_reported_as_such() -> None:
    numbers = SMALL.private_numbers()

    def text(number: int) -> str:
        return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).decode().rstrip("=")

    material = {"kty": "RSA", "n": text(numbers.public_numbers.n), "e": "AQAB", "d": text(numbers.d)}
    with pytest.raises(AuthError, match="RSA key of 1024 bits"):
        read_key(json.dumps(material), kid=None)
