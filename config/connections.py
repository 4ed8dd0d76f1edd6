"""One connection: an EHR endpoint of one tenant, as written in the configuration.

Owns the table's shape and the values its keys allow. `connectors.fhir.vendors` knows how to talk to the vendor; `chartferry
config check` checks that files exist; cli checks the profile overrides, because only cli may import `connectors.fhir.profile`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from config.base_urls import base_url_problem
from config.bulk_options import BulkOptions
from config.crontab_fields import schedule_problem
from config.errors import Problem
from config.key_places import places_of
from config.resource_types import type_problem
from config.secret_refs import SecretRef

Auth = Literal["smart", "secret", "bearer", "none"]

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"  # also a file name, a schema name and a log field
NAME_RULE = "lower-case letters, digits, - and _, at most 63 characters, starting with a letter or digit"

STORED = "store"  # as a cohort: the connection's patients in the store

NEEDED_BY_AUTH: Mapping[str, tuple[str, ...]] = {
    "smart": ("client_id", "key"),
    "secret": ("client_id", "client_secret"),
    "bearer": ("bearer_token",),
    "none": (),
}


def _base(info: ValidationInfo) -> Path:
    return (info.context or {}).get("base") or Path.cwd()


def _vendor(value: object, info: ValidationInfo) -> object:
    """Check the vendor against the known ones, if the caller passes them: `connectors.fhir.vendors` knows them."""
    known = (info.context or {}).get("vendors")
    if known and value not in known:
        raise PydanticCustomError("literal_error", "no such vendor", {"expected": ", ".join(map(repr, known))})
    return value


def _secret_ref(value: object, info: ValidationInfo) -> object:
    return SecretRef.parse(value, _base(info)) if isinstance(value, str) else value


def _file(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        return (_base(info) / Path(value.removeprefix("file:")).expanduser()).resolve()
    return value


def _cohort(value: object, info: ValidationInfo) -> object:
    if value == STORED:
        return value
    if isinstance(value, str) and not value.startswith("file:"):
        raise ValueError(
            'must be "file:PATH", a file with one patient per line, or "store", the patients already stored'
        )
    return _file(value, info)


def _http_url(value: object) -> object:
    if not isinstance(value, str):
        return value
    if wrong := base_url_problem(value):
        raise ValueError(wrong)
    return value.rstrip("/")


def _group(value: object) -> object:
    if isinstance(value, str) and (wrong := group_problem(value)):
        raise ValueError(wrong)
    return value


def group_problem(text: str) -> str | None:
    """Return what is wrong with a Group's id; None if it is acceptable."""
    if re.search(r"\S\s+\S", text):
        return "must be one id, without blanks"
    identity = re.sub(r"(/\$export)?[/\s]*$", "", re.sub(r"[?#].*", "", text.strip())).rpartition("/")[2]
    if not identity:
        return 'must be the id of a Group, such as "e3iabhmS8rsueyz7"'
    return None if identity == text else f'must be the id alone: "{identity}"'


def _proxy(value: object) -> object:
    if isinstance(value, str):
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError('must be a complete URL such as "http://proxy.example.org:3128"')
    return value


def _plain(value: str) -> str:
    """Refuse a reference where the value itself belongs: it would be sent to the EHR as it is written."""
    if re.match(r"(env|file):", value):
        raise ValueError(
            "must be the value itself: env: and file: are read in key, key_passphrase, client_secret and bearer_token"
        )
    return value


def _kid(value: object) -> object:
    """Accept a number as a key's name: some registries issue numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _resource_type(value: object) -> object:
    if isinstance(value, str) and (wrong := type_problem(value)):
        raise ValueError(wrong)
    return value


def _schedule(value: object) -> object:
    if isinstance(value, str) and (wrong := schedule_problem(value)):
        raise ValueError(wrong)
    return value


Plain = Annotated[str, AfterValidator(_plain)]
ResourceType = Annotated[str, BeforeValidator(_resource_type)]
OptionalRef = Annotated[SecretRef | None, BeforeValidator(_secret_ref)]
OptionalFile = Annotated[Path | None, BeforeValidator(_file)]


def masked_url(url: str) -> str:
    """Return the URL with a password, if it has one, replaced by stars."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]+@", r"\1:****@", url)


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


class Connection(BaseModel):
    """One EHR endpoint of one tenant. Frozen; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, arbitrary_types_allowed=True)

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    tenant: Annotated[str, Field(pattern=NAME_PATTERN)] = "default"
    vendor: Annotated[str, BeforeValidator(_vendor)]
    base_url: Annotated[str, BeforeValidator(_http_url)]

    auth: Auth = "none"
    client_id: Annotated[Plain, Field(min_length=1)] | None = None
    key: OptionalRef = None
    key_passphrase: OptionalRef = None
    client_secret: OptionalRef = None
    bearer_token: OptionalRef = None
    kid: Annotated[Plain | None, BeforeValidator(_kid)] = None
    alg: Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"] | None = None
    scopes: tuple[str, ...] = ()

    mode: Literal["auto", "bulk", "crawl"] = "auto"
    group: Annotated[Plain | None, BeforeValidator(_group)] = None
    cohort: Annotated[Path | Literal["store"] | None, BeforeValidator(_cohort)] = None
    cohort_system: Plain | None = None
    types: tuple[ResourceType, ...] = ()
    bulk: BulkOptions = BulkOptions()
    schedule: Annotated[str | None, BeforeValidator(_schedule)] = None

    ca_bundle: OptionalFile = None
    client_cert: OptionalFile = None
    client_cert_key: OptionalFile = None
    proxy: Annotated[str | None, BeforeValidator(_proxy)] = None

    validate_resources: Annotated[Literal["off", "sample", "all"], Field(alias="validate")] = "off"
    profile: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _choose_auth(cls, data: Any) -> Any:
        return {**data, "auth": infer_auth(data)} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _login_is_whole(self) -> Self:
        for problem in auth_problems(dict(self), f"connections.{self.name}"):
            raise ValueError(f"{problem.path}: {problem.allowed}")
        return self

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for key, value in super().__repr_args__():
            yield key, masked_url(value) if key == "proxy" and value else value

    @property
    def files(self) -> dict[str, Path]:
        """The files that this connection refers to, by key, without secrets."""
        named = {
            "cohort": self.cohort if isinstance(self.cohort, Path) else None,
            "ca_bundle": self.ca_bundle,
            "client_cert": self.client_cert,
            "client_cert_key": self.client_cert_key,
        }
        return {key: path for key, path in named.items() if path is not None}

    @property
    def secrets(self) -> dict[str, SecretRef]:
        """The secret references of this connection, by key."""
        named = {
            "key": self.key,
            "key_passphrase": self.key_passphrase,
            "client_secret": self.client_secret,
            "bearer_token": self.bearer_token,
        }
        return {key: ref for key, ref in named.items() if ref is not None}


def place_in_connection(key: str, profile: type[BaseModel]) -> str | None:
    """Return how a connection writes a key that stands elsewhere ("profile = { search.page_size = … }"); None: it has none.

    `profile` is the model of its profile, which `config` does not know.
    """
    if key in keys_of_connection():
        return f"{key} = …"
    if places := places_of(key, Connection):
        return " or ".join(f"{table} = {{ {last} = … }}" for table, _, last in (one.partition(".") for one in places))
    return " or ".join(f"profile = {{ {place} = … }}" for place in places_of(key, profile)) or None


def keys_of_connection() -> frozenset[str]:
    """Return the keys that a connection's table may have."""
    return frozenset(field.alias or name for name, field in Connection.model_fields.items()) - {"name"}
