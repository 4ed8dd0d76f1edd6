"""One connection: an EHR endpoint of one tenant, as written in the configuration.

Owns the table's shape and the values its keys allow. `connectors.fhir.vendors` knows how to talk to the vendor; `chartferry
config check` checks that files exist; cli checks the profile overrides, because only cli may import `connectors.fhir.profile`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from config.bulk_options import BulkOptions, ResourceType
from config.crontab_fields import schedule_problem
from config.fhir_server import FhirServer, Plain, file_path
from config.key_places import places_of

STORED = "store"  # as a cohort: the connection's patients in the store


def _vendor(value: object, info: ValidationInfo) -> object:
    """Check the vendor against the known ones, if the caller passes them: `connectors.fhir.vendors` knows them."""
    known = (info.context or {}).get("vendors")
    if known and value not in known:
        raise PydanticCustomError("literal_error", "no such vendor", {"expected": ", ".join(map(repr, known))})
    return value


def _cohort(value: object, info: ValidationInfo) -> object:
    if value is None or value == STORED:
        return value
    if not isinstance(value, str) or not value.startswith("file:"):
        raise ValueError(
            'must be "file:PATH", a file with one patient per line, or "store", the patients already stored'
        )
    return file_path(value, info)


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


def _schedule(value: object) -> object:
    if isinstance(value, str) and (wrong := schedule_problem(value)):
        raise ValueError(wrong)
    return value


def _some(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError(
            "must name at least one type; leave the key out to get every type that the vendor's profile names"
        )
    return value


class Connection(FhirServer):
    """One EHR endpoint of one tenant. Frozen; refuses unknown keys."""

    table: ClassVar[str] = "connections"

    vendor: Annotated[str, BeforeValidator(_vendor)]
    mode: Literal["auto", "bulk", "crawl"] = "auto"
    group: Annotated[Plain | None, BeforeValidator(_group)] = None
    cohort: Annotated[Path | Literal["store"] | None, BeforeValidator(_cohort)] = None
    cohort_system: Plain | None = None
    types: Annotated[tuple[ResourceType, ...], AfterValidator(_some)] = ()
    bulk: BulkOptions = BulkOptions()
    schedule: Annotated[str | None, BeforeValidator(_schedule)] = None
    validate_resources: Annotated[Literal["off", "sample", "all"], Field(alias="validate")] = "off"

    @property
    def profile_name(self) -> str:
        """The name of the profile that says how to talk to it: its vendor's."""
        return self.vendor

    @property
    def files(self) -> dict[str, Path]:
        """The files that this connection refers to, by key, without secrets."""
        cohort = {"cohort": self.cohort} if isinstance(self.cohort, Path) else {}
        return {**cohort, **super().files}


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
