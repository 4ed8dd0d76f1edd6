"""Encrypts files in the age format (age-encryption.org/v1) while they are written, for recipients whose public keys are given.

Only the holder of a recipient's identity can decrypt; chartferry never has one. `outgoing` decides which files are encrypted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from exports.errors import MissingExtraError, PlanError

SUFFIX = ".age"
FORMAT = "age-encryption.org/v1"
_SSH = "ssh-"
_SSH_FIELDS = 2  # the kind and the key; then comes a comment, often somebody's address
_IDENTITY = "AGE-SECRET-KEY-"


@dataclass(frozen=True)
class Recipients:
    """The recipients of encrypted files: `public_keys` as messages may show them, `keys` as pyrage takes them."""

    public_keys: tuple[str, ...]
    keys: tuple[Any, ...] = field(repr=False)


def recipients_of(public_keys: Sequence[str]) -> Recipients:
    """Return the recipients with these public keys: `age1…`, `ssh-ed25519 …` or `ssh-rsa …`.

    Raises: PlanError: one is not such a key. It quotes nothing, since that may be secret.
        MissingExtraError: nothing is installed that encrypts.
    """
    try:
        from pyrage import RecipientError, ssh, x25519
    except ImportError:
        raise MissingExtraError("encrypts files", "age") from None
    found = {}
    for at, text in enumerate(public_keys, 1):
        word = " ".join(text.split()[:_SSH_FIELDS])
        if _IDENTITY in word.upper():
            raise PlanError(
                f"recipient {at} is an identity, which decrypts, and others may have seen it by now: make a new one, keep it "
                "elsewhere, and give the age1… that `age-keygen -y` prints for it"
            )
        try:
            key = ssh.Recipient.from_str(word) if word.startswith(_SSH) else x25519.Recipient.from_str(word)
        except RecipientError:
            raise PlanError(
                f"recipient {at} is not a public key that age knows; allowed: age1…, as age-keygen prints it, ssh-ed25519 … and "
                "ssh-rsa …"
            ) from None
        found[word] = key
    return Recipients(tuple(found), tuple(found.values()))


class _Sink:
    """What pyrage needs of a file that is only written. `error`: what it met; pyrage keeps at most the text of it."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            self._write(data)
        except OSError as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""


class AgeWriter:
    """Takes bytes, and gives them encrypted to `write`, which a thread of its own calls: age reads what it encrypts.

    Close it, or abandon it. Both wait until the thread has ended; after `close` all is written. Both, and `add`, raise the
    OSError that `write` raised.
    """

    def __init__(self, write: Callable[[bytes], None], recipients: Recipients) -> None:
        self._sink = _Sink(write)
        reader, writer = os.pipe()
        self._into = os.fdopen(writer, "wb")
        self._thread = ThreadPoolExecutor(1, "age")
        self._at_work = self._thread.submit(self._encrypt, reader, recipients)

    def _encrypt(self, reader: int, recipients: Recipients) -> None:
        from pyrage import encrypt_io

        with os.fdopen(reader, "rb") as plain:
            encrypt_io(plain, self._sink, list(recipients.keys))

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes; wait while more are on their way than a pipe holds."""
        try:
            self._into.write(data)
        except BrokenPipeError:
            self._end()
            raise

    def close(self) -> None:
        """Encrypt what is left, and end."""
        with suppress(BrokenPipeError):  # `_end` says why
            self._into.close()
        self._end()

    def abandon(self) -> None:
        """End; what was written is of no use. Nothing happens to what has ended."""
        with suppress(OSError):
            self._into.close()
        self._thread.shutdown()

    def _end(self) -> None:
        self._thread.shutdown()
        # pyrage buffers what it writes, and says nothing of an error that the last of it meets
        error = self._sink.error or self._at_work.exception()
        if error is not None:
            raise error
