"""The table `[encryption]`: the keys that identifying values are encrypted with in the store, and what else is encrypted.

`snapshots` encrypts; whether the keys are those of a store it finds out when it opens it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo

from config.errors import ConfigError, Problem, SecretUnreadableError
from config.secret_refs import SecretRef
from config.text_shapes import shaped

KEY_BYTES = 32
ALLOWED = f"{KEY_BYTES} random bytes as base64, as `openssl rand -base64 {KEY_BYTES}` prints them"


def _ref(value: Any, info: ValidationInfo) -> object:
    return SecretRef.parse(value, (info.context or {}).get("base", Path.cwd())) if isinstance(value, str) else value


# members that the store itself reads, and those that distinguish one resource from another
_READ = frozenset({"id", "meta", "resourceType", "implicitRules", "contained", "reference", "url", "category"})
_PATH = re.compile(r"[A-Z][A-Za-z]+(\.[a-z][A-Za-z0-9]*)+")


def _element_path(value: str) -> str:
    if not _PATH.fullmatch(value):
        raise ValueError("a resource type and the elements that lead from it, such as Observation.note")
    return value


ElementPath = Annotated[str, AfterValidator(_element_path)]
KeyId = Annotated[str, shaped(r"[A-Za-z0-9_-]{1,16}", "a key's name of at most 16 letters, digits, - and _")]
KeyRef = Annotated[SecretRef, BeforeValidator(_ref)]


class Encryption(BaseModel):
    """Keys by their ids, of which `current` encrypts; without keys the store is plain."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    keys: dict[KeyId, KeyRef] = {}
    current: str | None = None  # with one key: that one
    # elements that are encrypted although they identify nobody, in JSON's spelling
    paths: frozenset[ElementPath] = frozenset()
    # roles whose members see what is encrypted, others a mask; None: everybody does
    shown_to: tuple[str, ...] | None = None

    @property
    def current_key(self) -> str | None:
        """The id of the key that encrypts; None: the store is plain."""
        return self.current or next(iter(self.keys), None)

    def masks(self, roles: Collection[str]) -> bool:
        """Return whether somebody in these roles sees a mask in place of what is encrypted."""
        return self.shown_to is not None and not set(roles) & set(self.shown_to)

    def problems(self, roles: Collection[str]) -> Iterator[Problem]:
        """Yield what is wrong with the table as a whole; `roles`: those that `[roles]` lists."""
        for role in sorted(set(self.shown_to or ()) - set(roles)):
            yield Problem("encryption.shown_to", repr(role), f"a role of [roles]: {', '.join(roles) or 'it has none'}")
        if self.shown_to is not None and not self.keys:
            yield Problem(
                "encryption.shown_to", "no keys", "keys: without them nothing is encrypted, and nothing masked"
            )
        for path in sorted(self.paths):
            if read := _READ & set(path.split(".")):
                yield Problem(
                    "encryption.paths", repr(path), f"another element: the store itself reads {', '.join(sorted(read))}"
                )
        if self.paths and not self.keys:
            yield Problem("encryption.paths", "no keys", "keys: without them nothing is encrypted")
        if self.current is None and len(self.keys) > 1:
            yield Problem(
                "encryption.current", "nothing", f"the id of the key that encrypts, one of: {', '.join(self.keys)}"
            )
        elif self.current is not None and self.current not in self.keys:
            yield Problem(
                "encryption.current", repr(self.current), f"one of: {', '.join(self.keys) or 'none, without keys'}"
            )

    def key_problems(self, environ: Mapping[str, str]) -> Iterator[Problem]:
        """Yield the keys that cannot be read or are invalid."""
        read: dict[bytes, str] = {}
        for name, ref in self.keys.items():
            path = f"encryption.keys.{name}"
            try:
                key = _key(ref, environ)
            except SecretUnreadableError as error:
                found, _, allowed = str(error).rpartition(": ")
                yield Problem(path, found, allowed)
                continue
            if key is None:
                yield Problem(path, f"{ref}, which is not a key", ALLOWED)
            elif key in read:
                yield Problem(path, f"the same key as {read[key]}", "a different key under each id")
            else:
                read[key] = name

    def read(self, environ: Mapping[str, str]) -> dict[str, bytes]:
        """Return the keys.

        Raises:
            ConfigError: one cannot be read or is invalid.
        """
        if problems := list(self.key_problems(environ)):
            raise ConfigError("the keys of the store cannot be used", problems=problems)
        return {name: _key(ref, environ) or b"" for name, ref in self.keys.items()}


def _key(ref: SecretRef, environ: Mapping[str, str]) -> bytes | None:
    try:
        key = base64.b64decode(ref.read(environ).reveal(), validate=True)
    except binascii.Error:
        return None
    return key if len(key) == KEY_BYTES else None
