"""Reads a private key as people keep it: PEM or JWK, alone, in a set or a list, on one line, in base64, with a passphrase.

`assertion` decides what it signs, and how. Material stays in memory, and no message quotes any of it.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable, Iterator
from textwrap import fill
from typing import Any, NamedTuple, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
    load_ssh_private_key,
)
from joserfc import jwk
from joserfc.errors import JoseError

from connectors.core.errors import AuthError
from connectors.fhir.json_answers import UnreadableJsonError, json_from

RSA_BITS = 2048  # RFC 7518, 3.3: a key of this size or larger MUST be used
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----(.*?)-----END \1-----", re.DOTALL)
_LINE_ENDS = re.compile(r"(?:\\r)?\\n|\\r")  # written out, as env files and CI secrets have them
_SPACE = re.compile(r"\s+")
_PUBLIC = frozenset({"PUBLIC KEY", "RSA PUBLIC KEY", "EC PUBLIC KEY", "CERTIFICATE", "CERTIFICATE REQUEST"})
_DER = b"\x30"  # a SEQUENCE
_PRIVATE_MEMBER = "d"
_SYMMETRIC = "oct"  # RFC 7518, 6.4
_QUOTES = "\"'\u201c\u201d\u2018\u2019"
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)

ENCRYPTED = (
    "the connection's key is encrypted with a passphrase: set `key_passphrase` to env:NAME or file:PATH, or decrypt it with "
    "`openssl pkey -in KEY.pem -out DECRYPTED.pem`"
)
PUBLIC = (
    "the connection's key is a public key, which cannot sign: give the private key that belongs to it, as PEM, JWK or "
    "JWKS; the public one is for the EHR"
)
NOT_FOR_SIGNING = (
    "the connection's key says that it is not for signing (its `use`, `key_ops` or `alg`): give the key that was made "
    "for signing, or choose it by `kid`"
)
_OTHER_KIND = "the connection's key is neither an RSA nor an EC key: EHRs take RSA (RS384) or EC P-384 (ES384)"
CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


class _Choice(NamedTuple):
    """Which key is meant, and what opens it."""

    kid: str | None
    passphrase: str | None


def read_key(material: str, *, kid: str | None, passphrase: str | None = None) -> jwk.RSAKey | jwk.ECKey:
    """The private RSA or EC key in a text; `kid` chooses in a set or list, `passphrase` opens what is encrypted.

    Raises:
        AuthError: there is none that signs. The message says what is wrong and what to do, and quotes nothing.
    """
    key = _read(material, _Choice(None if kid is None else str(kid), passphrase), nested=False)
    if not isinstance(key, jwk.RSAKey | jwk.ECKey):
        raise AuthError(_OTHER_KIND)
    if isinstance(key, jwk.ECKey) and key.curve_name not in CURVES:
        raise AuthError(
            f"the connection's key is of the curve {key.curve_name}, which cannot sign a login: use P-384 (ES384), P-256 or P-521"
        )
    return key


def _read(material: str, choice: _Choice, *, nested: bool) -> jwk.Key:
    # a byte order mark, as Windows editors write it, and quotes, as env files keep them
    text = material.lstrip("\ufeff").strip().strip(_QUOTES).strip()
    if "-----BEGIN " in text:
        return _from_pem(_LINE_ENDS.sub("\n", text), choice)
    if text.startswith(("{", "[")):
        return _from_json(text, choice)
    if not nested and (inner := _of_base64(text)) is not None:
        if inner.startswith(_DER):
            return _opened(load_der_private_key, inner, choice)
        return _read(inner.decode("utf-8", "replace"), choice, nested=True)
    raise AuthError(
        "the connection's key is neither PEM nor JSON (JWK, JWKS), not even in base64: give the whole file, from -----BEGIN to "
        "-----END"
    )


def _of_base64(text: str) -> bytes | None:
    plain = _SPACE.sub("", _LINE_ENDS.sub("", text)).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        found = b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    begins = found.removeprefix(b"\xef\xbb\xbf").lstrip()
    return begins if begins.startswith((_DER, b"{", b"[", b"-----BEGIN ")) else None


def _from_pem(text: str, choice: _Choice) -> jwk.Key:
    """The private key of a PEM text, which may also have its certificate or its curve's parameters."""
    blocks = {label: (block[0], body) for block in _BLOCK.finditer(text) for label, body in [block.groups()]}
    private = next((label for label in blocks if label.endswith("PRIVATE KEY")), None)
    if private is None and blocks.keys() & _PUBLIC:
        raise AuthError(PUBLIC)
    if private is None:
        raise AuthError(
            "the connection's key is a truncated PEM, or contains no private key: check that the file is complete"
        )
    pem, body = blocks[private]
    if ":" not in body:  # lines may have become blanks; but a header's end with it
        pem = f"-----BEGIN {private}-----\n{fill(_SPACE.sub('', body), 64)}\n-----END {private}-----\n"
    load = load_ssh_private_key if private.startswith("OPENSSH") else load_pem_private_key
    return _opened(load, pem.encode(), choice)


def _opened(load: Callable[..., Any], body: bytes, choice: _Choice) -> jwk.Key:
    try:
        found = load(body, password=None)
    except TypeError:  # cryptography's word for what a passphrase opens
        found = _decrypted(load, body, choice)
    except _UNREADABLE:
        found = None
    if found is None:
        raise AuthError(
            "the connection's key is a damaged private key in PEM or DER, or of an unknown kind: check that the "
            "whole file is there"
        )
    if isinstance(found, RSAPrivateKey):
        _check_size(found.key_size)
        return _imported(jwk.RSAKey.import_key, found.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    if isinstance(found, EllipticCurvePrivateKey):
        return _imported(jwk.ECKey.import_key, found.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    raise AuthError(_OTHER_KIND)


def _decrypted(load: Callable[..., Any], body: bytes, choice: _Choice) -> Any:
    if not choice.passphrase:
        raise AuthError(ENCRYPTED) from None
    try:
        return load(body, password=choice.passphrase.encode())
    except _UNREADABLE:
        pass
    raise AuthError("the connection's `key_passphrase` does not open its key: check both") from None


def _from_json(text: str, choice: _Choice) -> jwk.Key:
    entries = list(_jwks_in(text))
    if entries and all(entry.get("kty") == _SYMMETRIC for entry in entries):
        raise AuthError(_OTHER_KIND)
    private = [entry for entry in entries if _PRIVATE_MEMBER in entry]
    if entries and not private and any("kty" in entry for entry in entries):
        raise AuthError(
            "the connection's key contains only public keys, which cannot sign: give the JWK or JWKS with its "
            "private members (`d`); the public one is for the EHR"
        )
    kid = choice.kid
    named = [entry for entry in private if kid is None or entry.get("kid", kid) == kid]
    if not named:
        which = "no private key" if kid is None else f"no private key with kid {kid!r}"
        raise AuthError(
            f"the connection's key contains {which}; give a JWK or JWKS with its private members, or set `kid`"
        )
    trouble: AuthError | None = None
    for entry in sorted(named, key=_is_for_something_else):  # stable: those for encryption come last
        try:
            return _of_jwk(entry)
        except AuthError as error:
            trouble = trouble or error
    assert trouble is not None
    raise trouble


def _is_for_something_else(entry: dict[str, Any]) -> bool:
    """Whether a JWK says that it is not for signing (RFC 7517 4.2-4.4)."""
    operations, alg = entry.get("key_ops"), str(entry.get("alg", ""))
    encrypts = alg.startswith(("RSA", "ECDH"))  # RSA-OAEP, RSA1_5, ECDH-ES
    return entry.get("use") == "enc" or encrypts or (isinstance(operations, list) and "sign" not in operations)


def _jwks_in(text: str) -> Iterator[dict[str, Any]]:
    """The JWKs of a text: one, a set, or a plain list of them. What is none among others costs itself."""
    document: Any = None
    for form in (text, _LINE_ENDS.sub("", text)):
        try:
            document = json_from(form.encode("utf-8", "surrogatepass"))
        except UnreadableJsonError:
            continue
        break
    else:
        raise AuthError("the connection's key starts like JSON, but is not valid JSON: check that the file is complete")
    if isinstance(document, dict):
        document = document.get("keys", document)
    for entry in document if isinstance(document, list) else [document]:
        if isinstance(entry, dict):
            kid = entry.get("kid")
            # RFC 7517: a string; numbers are seen
            named = {} if kid is None or isinstance(kid, bool) else {"kid": str(kid)}
            yield {name: value for name, value in entry.items() if name != "kid" and value is not None} | named


def _of_jwk(entry: dict[str, Any]) -> jwk.Key:
    if entry.get("kty") == "RSA" and isinstance(entry.get("n"), str):
        _check_size(_bits(entry["n"]))
    try:
        key = _imported(jwk.import_key, entry)
    except AuthError:
        if _is_for_something_else(entry):
            raise AuthError(NOT_FOR_SIGNING) from None
        raise
    if not isinstance(key, jwk.RSAKey | jwk.ECKey):
        raise AuthError(_OTHER_KIND)
    return key


def _imported(read: Callable[[Any], Any], material: Any) -> jwk.Key:
    try:
        return cast("jwk.Key", read(material))
    except (JoseError, KeyError, AttributeError, *_UNREADABLE):
        pass
    raise AuthError("the connection's key is a JWK that cannot be read; it needs kty, and n, e, d or crv, x, y, d")


def _bits(modulus: str) -> int:
    """The size of a JWK's modulus; of one that cannot be read, which its reader refuses, a sufficient one."""
    try:
        found = urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4))
    except (binascii.Error, ValueError):
        return RSA_BITS
    return int.from_bytes(found).bit_length()


def _check_size(bits: int) -> None:
    if bits < RSA_BITS:
        raise AuthError(
            f"the connection's key is an RSA key of {bits} bits, but signing needs at least {RSA_BITS} (RFC 7518): make a "
            "new one with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out KEY.pem`, and register its public "
            "half at the EHR"
        )
