"""Reads a CapabilityStatement: which types a server searches, by which parameters, and which levels of $export it declares.

Pure. The profile knows what vendors leave out or declare wrongly; `plan` weighs the two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.fhir.json_answers import objects_in
from connectors.fhir.patients.compartment import PATIENT_COMPARTMENT
from connectors.fhir.profile import BulkLevel

# what may be searched by `patient` on a server that lists no parameters, or has no CapabilityStatement: R4's compartment,
# but for two types of which R4 has no such parameter and whose lists are of many (`Group.member`, `Schedule.actor`); and Device,
# which is searched by patient without being of the compartment
ASKED_BY_PATIENT = PATIENT_COMPARTMENT - {"Group", "Schedule"} | {"Device"}


@dataclass(frozen=True, kw_only=True)
class Capability:
    """What a server declares. `search_params` maps each declared type to its search parameters' names."""

    search_params: Mapping[str, frozenset[str]] = field(default_factory=dict)
    searchable: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()  # types whose read by id is declared, or of which no interaction is
    bulk_levels: frozenset[BulkLevel] = frozenset()
    fhir_version: str | None = None
    bulk_version: int | None = None  # of the Bulk Data guide, where the statement tells: 1 to 4
    unread: int = 0  # places that declare types, and could not be read

    @property
    def is_of_another_fhir(self) -> bool:
        """Whether it states a version that is neither R4 nor R4B."""
        return self.fhir_version is not None and _R4.match(self.fhir_version) is None

    @property
    def readable_types(self) -> tuple[str, ...] | None:
        """The types that may be read by id; None: nothing is declared, so only a request shows it."""
        return tuple(sorted(self.reads)) if self.search_params else None

    def patient_parameter(self, resource_type: str) -> str | None:
        """The parameter that narrows a search of this type to one patient, if one is declared.

        A type declared without any parameters is taken by the specification: `patient`, if it is of the compartment.
        """
        declared = self.search_params.get(resource_type)
        if not declared:
            return "patient" if declared is not None and resource_type in ASKED_BY_PATIENT else None
        return next((name for name in ("patient", "subject") if name in declared), None)


_R4 = re.compile(r"(?i)R?4(?:B|\.|\Z)")
_FHIR_VERSION = re.compile(r"[\w.+-]{1,32}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]?")  # more digits are no version
_STATEMENTS = (None, "CapabilityStatement", "Conformance")  # the last: DSTU2
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}\Z")
_LEVEL_OF_TYPE: Mapping[str, BulkLevel] = {"Group": "group", "Patient": "patient"}


def capability_from(statement: Any) -> Capability:
    """Read a CapabilityStatement, tolerantly: what is missing or of the wrong shape counts as not declared.

    Unreadable declarations of types are counted, because a type that is not declared is not requested. A search parameter or an
    operation that cannot be read only costs a quicker way.
    """
    if not isinstance(statement, dict):
        return Capability(unread=1)
    unread = _strangers(statement.get("rest")) + (statement.get("resourceType") not in _STATEMENTS)
    search_params: dict[str, frozenset[str]] = {}
    searchable: set[str] = set()
    reads: set[str] = set()
    levels: set[BulkLevel] = set()
    versions = [_bulk_version(canonical) for canonical in _strings(statement.get("instantiates"))]
    for rest in objects_in(statement.get("rest")):
        mode = rest.get("mode")
        if isinstance(mode, str) and mode.strip().lower() != "server":  # null says nothing, as no mode does
            continue
        # some servers list every operation at the root, told apart only by name or definition
        for operation in objects_in(rest.get("operation")):
            if _is_export(operation):
                levels.add(_level_named(operation))
                versions.append(_bulk_version(str(operation.get("definition", ""))))
        unread += _strangers(rest.get("resource"))
        for resource in objects_in(rest.get("resource")):
            name = resource.get("type")
            if not isinstance(name, str) or not _TYPE.match(name):  # it goes into paths
                unread += 1
                continue
            search_params[name] = frozenset(
                param["name"] for param in objects_in(resource.get("searchParam")) if isinstance(param.get("name"), str)
            )
            interactions, unclear = _interactions(resource.get("interaction"))
            if "search-type" in interactions or unclear:
                searchable.add(name)
            if "read" in interactions or unclear:
                reads.add(name)
            exports = [operation for operation in objects_in(resource.get("operation")) if _is_export(operation)]
            if name in _LEVEL_OF_TYPE and exports:
                levels.add(_LEVEL_OF_TYPE[name])
                versions += [_bulk_version(str(operation.get("definition", ""))) for operation in exports]
    version = statement.get("fhirVersion")
    shown = version.strip() if isinstance(version, str) else ""
    return Capability(
        search_params=search_params,
        searchable=frozenset(searchable),
        reads=frozenset(reads),
        bulk_levels=frozenset(levels),
        fhir_version=shown if _FHIR_VERSION.fullmatch(shown) else None,
        bulk_version=max((found for found in versions if found is not None), default=None),
        unread=unread,
    )


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _bulk_version(canonical: str) -> int | None:
    """The guide's major version in a canonical such as `…/uv/bulkdata/OperationDefinition/group-export|2.0.0`."""
    url, _, version = canonical.partition("|")
    major = version.partition(".")[0]
    return int(major) if "bulkdata" in url and _VERSION.fullmatch(major) else None


def _interactions(value: Any) -> tuple[set[str], bool]:
    """The declared codes, and whether others may exist: none is declared, or one cannot be read. Then a request decides."""
    listed = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
    codes = [one.get("code") if isinstance(one, dict) else None for one in listed]
    return {one for one in codes if isinstance(one, str)}, not listed or not all(isinstance(one, str) for one in codes)


def _strangers(value: Any) -> int:
    """How many items of a list are not objects."""
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return len(listed) - len(objects_in(value))


def _is_export(operation: Mapping[str, Any]) -> bool:
    """Named `export`, `$export` or as Epic and Cerner name theirs: `group-export`, `patient-export` (vendor-facts 1.1, 2.1)."""
    name = str(operation.get("name", "")).lstrip("$").lower()
    definition = str(operation.get("definition", "")).lower().partition("|")[0]
    return name == "export" or name.endswith("-export") or definition.endswith(("/export", "-export"))


def _level_named(operation: Mapping[str, Any]) -> BulkLevel:
    words = f"{operation.get('name', '')} {operation.get('definition', '')}".lower()
    return "group" if "group-export" in words else "patient" if "patient-export" in words else "system"
