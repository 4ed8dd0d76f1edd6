"""The criteria of an export: FHIRPath that decides which resources of a type it contains. Other types stay whole.

In the same way, `_typeFilter` of Bulk Data restricts the type that it names, and no other. `compiler` decides what an expression
means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.sql import Composable

from exports.compiler import Source, compile_criterion, compile_view, fhirpath
from exports.compiler.syntax import Binary, Call, Index, Member, Node, Unary
from exports.elements.table import is_resource
from exports.errors import FhirPathError, PlanError, ViewError
from exports.snapshot_port import Snapshot
from snapshots.stored_documents import STORED_DOCUMENT


@dataclass(frozen=True)
class Applied:
    """What the criteria of one type did: `undecided` resources are left out, since an expression met a value of another type."""

    resource_type: str
    paths: tuple[str, ...]
    undecided: int


def criteria_by_type(paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the expressions by the resource type with which each starts, such as `Patient.gender = 'female'`. Pure.

    Raises:
        PlanError: an expression cannot be read, starts with no resource type, or asks for stored documents.
    """
    found: dict[str, list[str]] = {}
    for number, path in enumerate(paths, start=1):
        try:
            first = _first_name(fhirpath.parse(path))
        except FhirPathError as error:
            raise PlanError(f"--where, expression {number}: {error}") from None
        if first is None or not is_resource(first):
            raise PlanError(
                f"--where, expression {number}: it must start with a resource type, as Observation.status = 'final' does"
            )
        if STORED_DOCUMENT in path:  # no resource has it here, so that none would be left
            raise PlanError(
                f"--where, expression {number}: stored documents can be read only by views: use the `where` of a view"
            )
        found.setdefault(first, []).append(path)
    return {resource_type: tuple(found[resource_type]) for resource_type in sorted(found)}


def _first_name(node: Node | None) -> str | None:
    """Return the name with which a path starts."""
    while node is not None:
        match node:
            case Member(None, name):
                return name
            case Member(of=inner) | Call(of=inner) | Index(of=inner) | Unary(operand=inner) | Binary(left=inner):
                node = inner
            case _:
                return None
    return None


async def apply_criteria(
    criteria: Mapping[str, Sequence[str]], snapshot: Snapshot
) -> tuple[dict[str, Composable], tuple[Applied, ...]]:
    """Return the condition of each type, and what it does; reads the snapshot for what cannot be decided.

    Raises:
        PlanError: an expression means nothing, or names an element that R4 does not have: nothing would meet it.
    """
    conditions, applied = {}, []
    for resource_type, paths in criteria.items():
        definition = {
            "resource": resource_type,
            "where": [{"path": path} for path in paths],
            "select": [{"column": [{"name": "id", "path": "id"}]}],
        }
        try:
            conditions[resource_type] = compile_criterion(definition, as_of=snapshot.as_of, sealed=snapshot.sealed)
            views = [
                compile_view(
                    definition,
                    Source(rows, of_type=True),
                    marked=True,
                    as_of=snapshot.as_of,
                    sealed=snapshot.sealed,
                )
                for rows in snapshot.sources(resource_type)
            ]
        except ViewError as error:
            raise PlanError(f"--where, on {resource_type}: {error.problem}") from None
        for note in (note for one in views for note in one.notes):
            raise PlanError(f"--where, on {resource_type}: {note}")
        undecided = sum([(await snapshot.fetch(one.undecided))[0][0] for one in views if one.undecided is not None])
        applied.append(Applied(resource_type, tuple(paths), undecided))
    return conditions, tuple(applied)
