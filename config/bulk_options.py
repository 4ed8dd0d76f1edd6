"""The options of a connection's bulk exports besides types: the table `bulk = { … }` of its configuration.

Owns the table's shape and the values its keys allow. `connectors.fhir.bulk` knows how to send each option to a server, and
what an answer to it proves.
"""

from __future__ import annotations

import re
from datetime import datetime
from hashlib import sha256
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from config.resource_types import type_problem

_FILTER = re.compile(r"(?P<type>[A-Za-z]+)\?(?P<query>[^?#\s]+=[^#\s]*)")
_ELEMENT = re.compile(r"(?:(?P<type>[A-Z][A-Za-z]*)\.)?[a-z][A-Za-z]*")
_ASSOCIATED = re.compile(r"LatestProvenanceResources|RelevantProvenanceResources|_\S+")
# they act on results, not on resources (Bulk Data IG, "_typeFilter"): a server must refuse them
_OF_RESULTS = frozenset({"_sort", "_count", "_include", "_revinclude", "_summary", "_elements", "_total", "_contained"})


def _instant(value: object) -> object:
    if isinstance(value, str):
        try:
            zoned = datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            zoned = False
        if not zoned:
            raise ValueError('must be an instant with its zone, such as "2026-01-01T00:00:00Z"')
    return value


def _filter(value: object) -> object:
    if isinstance(value, str):
        found = _FILTER.fullmatch(value)
        if found is None:
            raise ValueError('must be one search, such as "MedicationRequest?status=active"')
        if wrong := type_problem(found["type"]):
            raise ValueError(wrong)
        names = {part.partition("=")[0].partition(":")[0] for part in found["query"].split("&")}
        if names & _OF_RESULTS:
            raise ValueError(
                f"must not contain {', '.join(sorted(names & _OF_RESULTS))}: a filter only selects resources"
            )
    return value


def _element(value: object) -> object:
    if isinstance(value, str):
        found = _ELEMENT.fullmatch(value)
        if found is None:
            raise ValueError('must be a root element, such as "id" or "Patient.birthDate"')
        if found["type"] and (wrong := type_problem(found["type"])):
            raise ValueError(wrong)
    return value


def _associated(value: object) -> object:
    if isinstance(value, str) and not _ASSOCIATED.fullmatch(value):
        raise ValueError(
            "must be LatestProvenanceResources, RelevantProvenanceResources, or a server's own value that begins with _"
        )
    return value


def _resource_type(value: object) -> object:
    if isinstance(value, str) and (wrong := type_problem(value)):
        raise ValueError(wrong)
    return value


ResourceType = Annotated[str, BeforeValidator(_resource_type)]


class BulkOptions(BaseModel):
    """Options of a bulk export (Bulk Data IG, "Query parameters"). Frozen; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    until: Annotated[str | None, BeforeValidator(_instant)] = None  # changed before this instant
    type_filters: tuple[Annotated[str, BeforeValidator(_filter)], ...] = ()  # searches; those of one type are OR-ed
    elements: tuple[Annotated[str, BeforeValidator(_element)], ...] = ()  # root elements, for all types or for one
    include_associated_data: tuple[Annotated[str, BeforeValidator(_associated)], ...] = ()
    # files consist of blocks, one per resource of this type
    organize_by: ResourceType | None = None

    @property
    def selection(self) -> str:
        """The suffix that separates narrowed exports from whole ones in the store's runs and watermarks; "" if not narrowed."""
        if not self.type_filters and not self.elements:
            return ""
        text = "\n".join((*sorted(self.type_filters), "", *sorted(self.elements)))
        return f";narrowed:{sha256(text.encode()).hexdigest()[:8]}"
