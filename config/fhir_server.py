"""A FHIR server of somebody else's, as written in the configuration: where it is, how to log in there, and how to reach it.

Owns the keys that every such table has. `connections` adds what an EHR needs, `receivers` what a receiver of datasets does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from config.base_urls import base_url_problem
from config.errors import Problem
from config.secret_refs import SecretRef
from config.source import Source
from config.urls import is_served

Auth = Literal["smart", "secret", "bearer", "none"]

NEEDED_BY_AUTH: Mapping[str, tuple[str, ...]] = {
    "smart": ("client_id", "key"),
    "secret": ("client_id", "client_secret"),
    "bearer": ("bearer_token",),
    "none": (),
}


def base_of(info: ValidationInfo) -> Path:
    """Return the folder to which paths in the configuration are relative."""
    return (info.context or {}).get("base") or Path.cwd()


def secret_ref(value: object, info: ValidationInfo) -> object:
    """Read a reference to a secret."""
    return SecretRef.parse(value, base_of(info)) if isinstance(value, str) else value


def file_path(value: object, info: ValidationInfo) -> object:
    """Read a file's name, with or without `file:`, relative to the configuration."""
    if isinstance(value, str):
        if not value.removeprefix("file:").strip():
            raise ValueError(
                "must be the path of a file, relative to the configuration file; leave it out if there is none"
            )
        return (base_of(info) / Path(value.removeprefix("file:")).expanduser()).resolve()
    return value


def _http_url(value: object) -> object:
    if not isinstance(value, str):
        return value
    if wrong := base_url_problem(value):
        raise ValueError(wrong)
    return value.rstrip("/")


def _proxy(value: object) -> object:
    if isinstance(value, str) and not is_served(value):
        raise ValueError('must be a complete URL such as "http://proxy.example.org:3128"')
    return value


def _plain(value: str) -> str:
    """Refuse an empty value, and a reference where the value itself belongs: both would be sent to the EHR."""
    if not value.strip():
        raise ValueError("must not be empty; leave it out if there is none")
    if re.match(r"(env|file):", value):
        raise ValueError(
            "must be the value itself: env: and file: are read in key, key_passphrase, client_secret and bearer_token"
        )
    return value


def _kid(value: object) -> object:
    """Accept a number as a key's name: some registries issue numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_IS_URL = re.compile(r"[^=\s]*://")
_USER = re.compile(r"://[^:/@\s]*:")
_NAMED = r"(?is)\b((?:ssl)?password|passwd|pwd)\s*="
_IN_QUERY, _IN_PAIRS = re.compile(_NAMED + "[^&]+"), re.compile(_NAMED + ".+")
Plain = Annotated[str, AfterValidator(_plain)]
OptionalRef = Annotated[SecretRef | None, BeforeValidator(secret_ref)]
OptionalFile = Annotated[Path | None, BeforeValidator(file_path)]


def masked_url(url: str) -> str:
    """Return the URL, or libpq's string of `name=value`, with its passwords replaced by stars.

    A password that is not percent-encoded may contain a / or an @, so everything before the last @ counts as the password. In a
    string of pairs it may contain nearly anything, and each program quotes in its own way, so everything after it counts as well.
    """
    before, _, host = url.rpartition("@")
    user = _USER.search(before)
    if user is not None and user.end() < len(before):
        url = f"{before[: user.end()]}****@{host}"
    return (_IN_QUERY if _IS_URL.match(url) else _IN_PAIRS).sub(r"\1=****", url)


def infer_auth(table: Mapping[str, Any]) -> str:
    """Return how a connection logs in: `auth` itself, or what its other keys imply."""
    if table.get("auth") is not None:
        return str(table["auth"])
    if table.get("bearer_token"):
        return "bearer"
    if table.get("client_secret") and not table.get("key"):
        return "secret"
    return "smart" if table.get("client_id") or table.get("key") else "none"


def auth_problems(table: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Yield what `auth` requires and the connection lacks."""
    auth = infer_auth(table)
    for key in NEEDED_BY_AUTH.get(auth, ()):
        if not table.get(key):
            why = f'auth = "{auth}"' if table.get("auth") else f"the login that the other keys imply ({auth})"
            yield Problem(f"{path}.{key}", "nothing", f"required by {why}; see `chartferry init` for an example")
    if table.get("key_passphrase") and not table.get("key"):
        yield Problem(
            f"{path}.key_passphrase", "a passphrase without a key", "key, the private key that the passphrase opens"
        )
    if table.get("key") and table.get("client_secret") and not table.get("auth"):
        yield Problem(
            f"{path}.client_secret", "both key and client_secret", 'one of them, or auth = "smart" | "secret"'
        )


class FhirServer(Source):
    """One FHIR server, for one tenant. Frozen; refuses unknown keys."""

    base_url: Annotated[str, BeforeValidator(_http_url)]

    auth: Auth = "none"
    client_id: Plain | None = None
    key: OptionalRef = None
    key_passphrase: OptionalRef = None
    client_secret: OptionalRef = None
    bearer_token: OptionalRef = None
    kid: Annotated[Plain | None, BeforeValidator(_kid)] = None
    alg: Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"] | None = None
    scopes: tuple[Plain, ...] = ()

    ca_bundle: OptionalFile = None
    client_cert: OptionalFile = None
    client_cert_key: OptionalFile = None
    proxy: Annotated[str | None, BeforeValidator(_proxy)] = None

    profile: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _choose_auth(cls, data: Any) -> Any:
        return {**data, "auth": infer_auth(data)} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _login_is_whole(self) -> Self:
        for problem in auth_problems(dict(self), self.path):
            raise ValueError(f"{problem.path}: {problem.allowed}")
        return self

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for key, value in super().__repr_args__():
            yield key, masked_url(value) if key == "proxy" and value else value

    @classmethod
    def missing(cls, table: Mapping[str, Any], path: str) -> Iterator[Problem]:
        """Yield what its login lacks."""
        return auth_problems(table, path)

    @property
    def system(self) -> str:
        """The name of the profile that says how to talk to it."""
        return self.profile_name

    @property
    def profile_name(self) -> str:
        """The name of the profile that says how to talk to it."""
        return "generic"

    @property
    def files(self) -> dict[str, Path]:
        """The files that this table refers to, by key, without secrets."""
        named = {
            "ca_bundle": self.ca_bundle,
            "client_cert": self.client_cert,
            "client_cert_key": self.client_cert_key,
        }
        return {key: path for key, path in named.items() if path is not None}

    @property
    def secrets(self) -> dict[str, SecretRef]:
        """The secret references of its login, by key."""
        named = {
            "key": self.key,
            "key_passphrase": self.key_passphrase,
            "client_secret": self.client_secret,
            "bearer_token": self.bearer_token,
        }
        return {key: ref for key, ref in named.items() if ref is not None}
