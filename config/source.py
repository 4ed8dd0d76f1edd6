"""What every connection and receiver has, whatever system it leads to: a name and a tenant, as written in the configuration.

A kind of source adds its keys (`fhir_server` those of FHIR servers, `connections` those of EHRs).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from config.errors import Problem
from config.secret_refs import SecretRef
from config.text_shapes import shaped

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"  # also a file name, a schema name and a log field
NAME_RULE = "lower-case letters, digits, - and _, at most 63 characters, starting with a letter or digit"


class Source(BaseModel):
    """Where one tenant's data come from, or, for a receiver, go to. Frozen; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, arbitrary_types_allowed=True)
    table: ClassVar[str]  # of the configuration, in which such sources are named

    name: Annotated[str, shaped(NAME_PATTERN, NAME_RULE)]
    tenant: Annotated[str, shaped(NAME_PATTERN, NAME_RULE)] = "default"

    @classmethod
    def missing(cls, table: Mapping[str, Any], path: str) -> Iterator[Problem]:
        """Yield the keys that a table lacks, given those that it has. Nothing has checked its values yet."""
        return iter(())

    @property
    def path(self) -> str:
        """The path of its table in the configuration."""
        return f"{self.table}.{self.name}"

    @property
    def system(self) -> str:
        """What kind of system it is, for people and logs."""
        return self.table

    @property
    def files(self) -> dict[str, Path]:
        """The files that its table refers to, by key, without secrets."""
        return {}

    @property
    def secrets(self) -> dict[str, SecretRef]:
        """The secret references of its table, by key."""
        return {}
