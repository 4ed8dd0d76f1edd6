"""Plans a run: bulk or crawl, which level, which types. Pure: profile and capability in, the plan out.

This is the only place that decides what to request. Types that are left out are named in notes: nothing is dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Literal

from connectors.core.errors import PlanError
from connectors.fhir.capability import ASKED_BY_PATIENT, Capability
from connectors.fhir.profile import BulkLevel, Mode, VendorProfile

# of the patient compartment, but a log of readers and writers, not a chart: huge, so only if it is requested by name
_NOT_A_CHART = frozenset({"AuditEvent"})
_NAMED, _FIRST = 12, 5  # types that a note names one by one, and of more than that


@dataclass(frozen=True, kw_only=True)
class TypePlan:
    """The types a run asks for, and a note for each that it leaves out."""

    types: tuple[str, ...]
    directory: tuple[str, ...] = ()  # listed whole, of no patient
    notes: tuple[str, ...] = ()


def choose_mode(
    wanted: Mode, profile: VendorProfile, capability: Capability, *, group: str | None, has_cohort: bool
) -> Literal["bulk", "crawl"]:
    """Bulk or crawl: as requested, else as the profile says, else as the server declares.

    Raises:
        PlanError: bulk was requested, and the profile knows no level that this request can use; or a Group is named, and no login
            could read it.
    """
    if group is not None and not has_cohort and profile.login.token_per_patient:
        raise PlanError(
            f"A Group is named, but {profile.label} gives a token for one patient at a time, and none reads a Group: leave out "
            '`group` and --group, and name patients with `cohort = "file:…"` or --patients.'
        )
    if wanted == "crawl" or (wanted == "auto" and profile.mode == "crawl"):
        return "crawl"
    if wanted == "bulk":
        if not bulk_levels(profile, capability, group=group, named=has_cohort, insisted=True):
            raise PlanError(_no_list(profile) if has_cohort and group is None else _no_level(profile, group))
        return "bulk"
    if profile.mode == "bulk":
        if has_cohort and group is None:
            return "crawl"
        if not bulk_levels(profile, capability, group=group, insisted=True):
            if not has_cohort:
                raise PlanError(f"{_no_level(profile, group)} Or name patients with `cohort` to crawl them.")
            return "crawl"
        return "bulk"
    levels = bulk_levels(profile, capability, group=group)
    return "bulk" if levels and not (has_cohort and levels[0] != "group") else "crawl"


def _no_level(profile: VendorProfile, group: str | None) -> str:
    if group is not None:
        return f"A Group is named, but {profile.label} exports none as far as we know (profile.bulk.levels): use --mode crawl."
    if "group" in profile.bulk.levels:
        return f"{profile.label} exports in bulk by Group: set `group` in the connection, or pass --group."
    return f"{profile.label} exports nothing in bulk as far as we know (profile.bulk.levels): use --mode crawl."


def _no_list(profile: VendorProfile) -> str:
    by_group = "set `group`, or " if "group" in profile.bulk.levels else ""
    return f"{profile.label} exports no named patients as far as we know: {by_group}crawl the cohort with --mode crawl."


def bulk_levels(
    profile: VendorProfile, capability: Capability, *, group: str | None, named: bool = False, insisted: bool = False
) -> tuple[BulkLevel, ...]:
    """The levels to export at, in the profile's order; each is tried if the one before it was refused.

    A named Group and patients named one by one (`named`) are levels of their own: everyone is never exported in their place.

    `insisted`: the user requested an export. That outweighs the CapabilityStatement, which servers leave empty or copy from
    elsewhere; otherwise it is believed.
    """
    if group is not None:
        offered = insisted or "group" in capability.bulk_levels or not capability.search_params
        return ("group",) if "group" in profile.bulk.levels and offered else ()
    if named:
        offered = insisted or "patient" in capability.bulk_levels
        return ("patient-list",) if "patient-list" in profile.bulk.levels and offered else ()
    everyone = (level for level in profile.bulk.levels if level not in ("group", "patient-list"))
    return tuple(level for level in everyone if insisted or level in capability.bulk_levels)


def crawl_types(
    requested: Sequence[str], profile: VendorProfile, capability: Capability, readable: Callable[[str], bool]
) -> TypePlan:
    """The types to crawl. Named types are taken at their word; the profile's are gated by what is declared and granted."""
    if requested:
        directory = tuple(t for t in requested if _is_directory(t, profile, capability))
        return TypePlan(types=tuple(t for t in requested if t not in directory), directory=directory)
    notes: list[str] = []
    declared = capability.search_params
    if profile.search.types:
        candidates = [t for t in profile.search.types if t in declared or not declared]
        absent = [t for t in profile.search.types if t not in candidates]
        if absent:
            notes.append(f"not declared by this server, not requested: {', '.join(absent)}")
        further = [t for t in declared if t not in candidates and capability.patient_parameter(t)]
    else:
        known = declared or ASKED_BY_PATIENT
        of_patient = (t for t in sorted(known) if not declared or capability.patient_parameter(t))
        candidates = ["Patient", *(t for t in of_patient if t != "Patient" and t not in _NOT_A_CHART)]
        further = [t for t in declared if t not in candidates and not _is_directory(t, profile, capability)]
    if further:
        notes.append(f"declared by this server, not requested unless named in `types`: {named(sorted(further))}")
    granted = [t for t in candidates if readable(t)]
    listed = [t for t in profile.search.directory_types if _is_directory(t, profile, capability)]
    refused = [t for t in (*candidates, *listed) if not readable(t)]
    if refused:
        notes.append(f"not granted by the token's scopes, not requested: {', '.join(refused)}")
    directory = tuple(t for t in listed if readable(t))
    if not granted:
        raise PlanError("The token's scopes grant nothing to request: correct the connection's scopes, or its app.")
    return TypePlan(types=tuple(granted), directory=directory, notes=tuple(notes))


_IN_VAIN = 10  # types that brought nothing, if they are more than half of those requested: worth a note


def types_worth_naming(requested: Sequence[str], empty: Container[str], others: Sequence[str]) -> tuple[str, ...]:
    """What to name in `types`, if most of the types requested for each patient return nothing; () if a note is not worth it.

    `others` are types that come in other ways, and would be left out if they were not named too.
    """
    worth = [t for t in requested if t not in empty]
    vain = len(requested) - len(worth)
    if vain < _IN_VAIN or vain <= len(worth):
        return ()
    return tuple(dict.fromkeys((*worth, *others)))


def named(types: Sequence[str]) -> str:
    """The types as a note names them: all of a few, of many the first and how many more."""
    if len(types) <= _NAMED:
        return ", ".join(types)
    return f"{len(types)} types ({', '.join(types[:_FIRST])}, … {len(types) - _FIRST} more)"


def _is_directory(resource_type: str, profile: VendorProfile, capability: Capability) -> bool:
    return (
        resource_type in profile.search.directory_types
        and resource_type in capability.searchable
        and capability.patient_parameter(resource_type) is None
    )


def bulk_types(requested: Sequence[str], profile: VendorProfile, readable: Callable[[str], bool]) -> TypePlan:
    """The `_type` list of a kick-off; empty: the parameter is left out, and the server exports what this client may see."""
    if requested:
        return TypePlan(types=tuple(requested))
    if not profile.bulk.types:
        charts = sorted(ASKED_BY_PATIENT)
        covered = [t for t in charts if readable(t)]
        if not covered:
            raise PlanError("The token's scopes grant nothing to export: correct the connection's scopes, or its app.")
        narrow = (f"the token's scopes cover only: {', '.join(covered)}",) if covered != charts else ()
        return TypePlan(types=(), notes=narrow)
    granted = tuple(t for t in profile.bulk.types if readable(t))
    refused = [t for t in profile.bulk.types if not readable(t)]
    notes = (f"not granted by the token's scopes, not requested: {', '.join(refused)}",) if refused else ()
    return TypePlan(types=granted, notes=notes)
