"""Secrets by reference: `file:PATH` or `env:NAME` in the configuration, read only when needed, masked whenever shown.

Owns the reference and the masked value. `connectors.fhir.auth` interprets a key's text (PEM, JWK, JWKS).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from config.errors import SecretUnreadableError

ALLOWED = '"file:PATH" (relative to the configuration file) or "env:NAME"'
MAX_BYTES = 1_000_000  # a key or token has a few thousand bytes: a larger file is the wrong file


class Secret:
    """A secret text. `reveal()` returns it; repr, str and format mask it; it cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself, for the one call that sends or signs with it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(****)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: it would leave the process")


@dataclass(frozen=True)
class SecretRef:
    """Where a secret is kept: a file (absolute path) or an environment variable (its name)."""

    scheme: Literal["file", "env"]
    where: str

    @classmethod
    def parse(cls, text: str, base: Path) -> SecretRef:
        """Parse `file:PATH` (relative to `base`) or `env:NAME`; raise ValueError, without quoting the text, for anything else."""
        scheme, colon, where = text.partition(":")
        where = where.strip()
        if not colon or not where or scheme not in ("file", "env"):
            raise ValueError(f"must be {ALLOWED}")
        if scheme == "env":
            return cls("env", where)
        return cls("file", str((base / Path(where).expanduser()).resolve()))

    def read(self, environ: Mapping[str, str]) -> Secret:
        """Return the secret without surrounding white space; SecretUnreadableError says what was found and what to do."""
        text = self._from_environ(environ) if self.scheme == "env" else self._from_file()
        if not text.strip():
            raise SecretUnreadableError(f"{self} is empty: write the secret there, without quotes")
        return Secret(text.strip())

    def _from_environ(self, environ: Mapping[str, str]) -> str:
        try:
            return environ[self.where]
        except KeyError:
            raise SecretUnreadableError(
                f"{self} is not set: export {self.where} in the environment that runs chartferry"
            ) from None

    def _from_file(self) -> str:
        path = Path(self.where)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise SecretUnreadableError(
                    f"{self} has more than {MAX_BYTES:,} bytes, so it is not a key: check the path"
                )
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise SecretUnreadableError(
                f"{self} is not text in UTF-8: give a PEM, JWK or JWKS file; `openssl pkey -in FILE -out KEY.pem` converts "
                "DER, `openssl pkcs12 -in FILE -nodes -nocerts -out KEY.pem` converts PKCS#12"
            ) from None
        except OSError as exc:
            reason = (exc.strerror or type(exc).__name__).lower()
            slashes = ", and separate its folders with /" if "\\" in self.where else ""
            raise SecretUnreadableError(
                f"{self} cannot be read ({reason}): check the path and its permissions{slashes}"
            ) from exc

    def __str__(self) -> str:
        return f"{self.scheme}:{self.where}"
