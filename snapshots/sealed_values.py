"""The form of an encrypted value, and the keys of one tenant: AES-256-GCM, bound to tenant, type, id and path.

    ~sealed:1:<key id>:<resource id>:<JSON pointer>:<nonce, ciphertext and tag, base64url without padding>~

Pure. The form has a version, so that another can follow. It contains its own place, which is authenticated: a caller that knows
where the value was found compares the two, and a view need not. `sealing` finds the values in resources, `sealing_keys` keeps in
the store whether a key fits.

The nonce is an HMAC of place and plain value (as in SIV, RFC 5297): equal values of one place have equal ciphertexts, so an
unchanged value is found unchanged; values of two places never do. Of 2^33 values under one key, two share a nonce by chance with
2^-31.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import quote, unquote

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from snapshots.errors import SealedValueError
from snapshots.identifying import further_elements

KEY_BYTES = 32
MARK = b"~sealed:"
_VERSION = b"1"
_NONCE_BYTES = 12
TOKEN = re.compile(rb"~sealed:1:([A-Za-z0-9_-]+):([^:\"\s]*):([^:\"\s]*):([A-Za-z0-9_-]+)~")
_WHOLE = re.compile(rb"~sealed:1:([A-Za-z0-9_-]+):(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Keyring:
    """The configured keys by their ids, each of 32 bytes; `current` seals, the others still open. `paths` are sealed too."""

    current: str
    keys: Mapping[str, bytes] = field(repr=False)
    paths: frozenset[str] = frozenset()


class Place(NamedTuple):
    """Where a value belongs: resource type (or table), id and JSON pointer."""

    kind: str
    id: str
    pointer: str


class _Derived(NamedTuple):
    cipher: AESGCM
    nonces: bytes


class Sealer:
    """Seals and opens the values of one tenant. `secret` (32 bytes, of the tenant's store) keys its hashes."""

    def __init__(self, tenant: str, keyring: Keyring, secret: bytes) -> None:
        self._tenant = tenant
        self._current = keyring.current
        self._keys = {name: _derived(key, tenant) for name, key in keyring.keys.items()}
        self._secret = secret
        self.paths = keyring.paths  # of elements that are sealed although they identify nobody
        self.further = further_elements(keyring.paths)

    def __repr__(self) -> str:
        return f"Sealer(tenant {self._tenant}, key {self._current})"

    def knowing(self, paths: frozenset[str]) -> Sealer:
        """Return one that seals these paths as well."""
        if paths <= self.paths:
            return self
        more = copy(self)
        more.paths = self.paths | paths
        more.further = further_elements(more.paths)
        return more

    @property
    def current(self) -> str:
        """The id of the key that seals."""
        return self._current

    def digest(self, content: bytes, size: int = 16) -> bytes:
        """Return a keyed hash of `size` bytes (BLAKE2b as a MAC, RFC 7693): without the secret nobody can guess a content."""
        return blake2b(content, digest_size=size, key=self._secret).digest()

    def derived(self, purpose: str) -> bytes:
        """Return a key of 32 bytes for one purpose, from the store's secret, which stays when the keys change."""
        info = f"chartferry {purpose}".encode()
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._secret)

    def seal(self, plain: bytes, place: Place) -> bytes:
        """Return the sealed form of a value, in ASCII without quotation marks and backslashes."""
        sealed = urlsafe_b64encode(self._encrypted(plain, place)).rstrip(b"=")
        where = f"{quote(place.id, safe='')}:{quote(place.pointer, safe='/')}".encode()
        return b":".join((MARK[:-1], _VERSION, self._current.encode(), where, sealed)) + b"~"

    def unseal(self, sealed: bytes, kind: str) -> tuple[bytes, Place]:
        """Return a value and the place that it belongs to, which is of this kind.

        Raises:
            SealedValueError: it was altered, is another type's or tenant's, or its key is not configured.
        """
        found = TOKEN.fullmatch(sealed)
        if found is None:
            raise SealedValueError(
                f"an encrypted value of {kind} is damaged, or was written by a newer chartferry. {_RESTORE}"
            )
        key, id_, pointer, content = (part.decode() for part in found.groups())
        place = Place(kind, unquote(id_), unquote(pointer))
        try:
            encrypted = urlsafe_b64decode(content + "=" * (-len(content) % 4))
        except ValueError:
            encrypted = b""
        return self._decrypted(encrypted, key, place), place

    def seal_whole(self, plain: bytes, place: Place) -> bytes:
        """Return the sealed form of a content that is stored as bytes; its row gives the place."""
        return b":".join((MARK[:-1], _VERSION, self._current.encode(), self._encrypted(plain, place)))

    def unseal_whole(self, sealed: bytes, place: Place) -> bytes:
        """Return the content; raises as `unseal`."""
        found = _WHOLE.fullmatch(sealed)
        if found is None:
            raise SealedValueError(f"an encrypted content of {place.kind} is damaged. {_RESTORE}")
        return self._decrypted(found[2], found[1].decode(), place)

    def _encrypted(self, plain: bytes, place: Place) -> bytes:
        keys = self._keys[self._current]
        bound = self._bound(self._current, place)
        nonce = hmac.digest(keys.nonces, len(bound).to_bytes(8, "big") + bound + plain, "sha256")[:_NONCE_BYTES]
        return nonce + keys.cipher.encrypt(nonce, plain, bound)

    def _decrypted(self, encrypted: bytes, key: str, place: Place) -> bytes:
        keys = self._keys.get(key)
        if keys is None:
            raise SealedValueError(
                f"{self.name_of(place)} is encrypted with key {key}, which the configuration does not have: "
                f"add it to the keys of [encryption]."
            )
        try:
            nonce, content = encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:]
            return keys.cipher.decrypt(nonce, content, self._bound(key, place))
        except (InvalidTag, ValueError):
            raise SealedValueError(
                f"{self.name_of(place)} cannot be decrypted: it was altered, or moved from another row. {_RESTORE}"
            ) from None

    def _bound(self, key: str, place: Place) -> bytes:
        return orjson.dumps([1, key, self._tenant, *place])

    def name_of(self, place: Place) -> str:
        """Name a place for a message: the type, a keyed hash of the id, the pointer."""
        return f"{place.kind} ~{self.digest(place.id.encode()).hex()[:8]}, {place.pointer or 'the whole'},"


_RESTORE = "Restore the row from a backup, or sync it again into an empty store."


def _derived(key: bytes, tenant: str) -> _Derived:
    """Return a tenant's own keys; knowing them decrypts no other tenant's values."""
    found = HKDF(algorithm=SHA256(), length=64, salt=None, info=f"chartferry store 1 {tenant}".encode()).derive(key)
    return _Derived(AESGCM(found[:32]), found[32:])


def pointer_of(sealed: bytes) -> str | None:
    """Return where in its row an encrypted value says that it belongs, which `Sealer.unseal` proves; None: it is damaged."""
    found = TOKEN.fullmatch(sealed)
    return None if found is None else unquote(found[3].decode())
