"""What of a view is encrypted in the store, by FHIR's types, and whether the view computes with it. Pure.

The types say where encrypted values may be; `snapshots.identifying` says which values are. What is doubtful here counts as
encrypted. In Postgres such an element is there, and has another value: a view may ask whether and how often it is there, and an
exported one may show it, since the export decrypts what the rows show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from exports.compiler.typed_tree import At, Child, Count, Exists, Expression, Filter, Iif, Join, Select, Slice
from exports.elements.table import PRIMITIVE_TYPES
from exports.errors import FhirPathError
from snapshots.identifying import ELEMENTS, PLAIN, PLAIN_OF_PERSON, TYPES

_HOLDERS = frozenset({"HumanName", "Address", "ContactPoint", "Identifier", "Attachment"})
_ANYWHERE = frozenset({"display", "div", "data", "identifier"})  # in what R4 does not know


def is_sealed(of: Expression, name: str, resource_type: str) -> bool:
    """Whether an element, if it is no structure of its own, may be encrypted in a view of a resource type."""
    holder = of.type
    if (holder, name) in {("Narrative", "div"), ("Reference", "display")} or (
        name == "data" and holder != "SampledData"
    ):
        return True
    if holder in TYPES:
        return name not in PLAIN_OF_PERSON
    if resource_type not in TYPES:
        return False
    if holder == "Extension":
        return name not in PLAIN | {"url", "extension"}
    if holder == "Resource":
        return name in ELEMENTS
    return (holder in _HOLDERS or holder is None) and name not in PLAIN | {"extension"}


def require_within_reach(of: Expression, name: str, resource_type: str) -> None:
    """Raise FhirPathError for an element of a person within a resource of another type.

    What its names hold is encrypted, and other names, such as a practitioner's, are not: types cannot tell these apart.
    """
    if resource_type in TYPES:
        return
    doubtful = of.type in {None, "Resource"} and name in ELEMENTS | _ANYWHERE
    if doubtful or (of.type in TYPES and name in ELEMENTS) or (of.type, name) == ("Reference", "identifier"):
        raise FhirPathError(
            f"{name!r} may be encrypted in this store where {of.type or 'a value of unknown type'} stands in {resource_type}",
            allowed="elements whose type R4 knows, and that are no person's; NDJSON shows it",
        )


def require_not_computed(expression: Expression, *, shown: bool) -> None:
    """Raise FhirPathError, with the character, where an encrypted element is compared, joined, searched or otherwise read by SQL.

    `shown`: the value of the whole expression is only shown.
    """
    for child in _computed(expression, shown=shown):
        raise FhirPathError(
            f"{child.name!r} is encrypted in this store, so SQL cannot read it",
            offset=None if child.sealed_at is None or child.sealed_at < 0 else child.sealed_at,
            allowed="a column that only shows it, of an exported view; exists(), empty() and count() of it",
        )


def shows_sealed(expression: Expression) -> bool:
    """Whether the value of an expression may be, or may hold, an encrypted one."""
    return next(_computed(expression, shown=False), None) is not None


def _computed(node: Expression, *, shown: bool) -> Iterator[Child]:
    """The encrypted elements whose values an expression needs; `shown`: what it gives itself is needed by nobody."""
    match node:
        case Child():
            if not shown and _is_value(node):
                yield node
            yield from _computed(node.of, shown=True)
        case Filter(of=of, criterion=criterion):
            yield from _computed(of, shown=shown)
            yield from _computed(criterion, shown=False)
        case At(of=of) | Slice(of=of):
            yield from _computed(of, shown=shown)
        case Select(of=of, projection=projection):
            yield from _computed(of, shown=True)
            yield from _computed(projection, shown=shown)
        case Exists(of=of) | Count(of=of):
            yield from _computed(of, shown=True)
        case Join(of=of):  # what is joined is decrypted piece by piece
            yield from _computed(of, shown=shown)
        case Iif(criterion=criterion, then=then, otherwise=otherwise):
            yield from _computed(criterion, shown=False)
            yield from _computed(then, shown=shown)
            yield from _computed(otherwise, shown=shown)
        case _:
            for field in fields(node):
                inner = getattr(node, field.name)
                for one in inner if isinstance(inner, tuple) else (inner,):
                    if isinstance(one, Expression):
                        yield from _computed(one, shown=False)


def _is_value(node: Child) -> bool:
    """Whether an element has an encrypted value: it is marked, may be a primitive, and some of its choices are not plain."""
    return (
        node.sealed_at is not None
        and (node.type is None or node.type in PRIMITIVE_TYPES)
        and bool({*node.keys} - PLAIN)
    )
