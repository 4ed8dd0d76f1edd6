"""What of a view is encrypted in the store, by FHIR's types, and whether the view computes with it. Pure.

The types say where encrypted values may be; `snapshots.identifying` says which values are. What is doubtful here counts as
encrypted. In Postgres such an element is there, and has another value: a view may ask whether and how often it is there, and an
exported one may show it, since the export decrypts what the rows show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cache

from exports.compiler.paths import path_of
from exports.compiler.typed_tree import (
    At,
    Child,
    Count,
    Exists,
    Expression,
    Filter,
    Iif,
    Join,
    Path,
    Select,
    Slice,
)
from exports.elements.table import PRIMITIVE_TYPES, elements_of, properties, within
from exports.errors import FhirPathError
from snapshots.identifying import ELEMENTS, PLAIN, PLAIN_OF_PERSON, TYPES

_HOLDERS = frozenset({"HumanName", "Address", "ContactPoint", "Identifier", "Attachment"})
_ANYWHERE = frozenset({"display", "div", "data", "identifier"})  # in what R4 does not know
_REACHABLE = "elements whose type R4 knows, and that are no person's; NDJSON shows it"


def sealed_keys(node: Child, of: Expression, resource_type: str, further: frozenset[str]) -> frozenset[str]:
    """Return the properties of an element of `of` that may be encrypted in a view of a resource type, if they are no structures.

    `further`: the paths that a configuration adds.
    """
    if _identifies(of, node.name, resource_type):
        return frozenset(node.keys) - PLAIN
    return frozenset([key for key in node.keys if _is_further(of, key, resource_type, further)]) - PLAIN


def _identifies(of: Expression, name: str, resource_type: str) -> bool:
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


def _is_further(of: Expression, key: str, resource_type: str, further: frozenset[str]) -> bool:
    """Whether a property is one of `further`, or within one. Where its own path is not known, the type that holds it counts."""
    if not further:
        return False
    if (outer := path_of(of)) is not None:
        return any(_leads((*outer, (key,)), path.split(".")) for path in further)
    holders = _within(further, resource_type)
    if of.type is None:
        return any(key == one for _, one in holders)
    return (of.type, key) in holders


def _leads(path: Path, names: list[str]) -> bool:
    """Whether a path leads to the named property, or to what is within it."""
    if len(path) < len(names):
        return False
    # a primitive's extensions are in its sibling `_name`, and encrypted with it
    return all(name in {key.removeprefix("_") for key in keys} for name, keys in zip(names, path, strict=False))


@cache
def _within(further: frozenset[str], resource_type: str) -> frozenset[tuple[str, str]]:
    """The last properties of paths, each with the type that holds it, and all that may be within them."""
    found: set[tuple[str, str]] = set()
    for path in further:
        holder, *names = path.split(".")
        if holder != resource_type:
            continue
        types: tuple[str, ...] = (holder,)
        for name in names:
            holder = types[0] if types else ""
            known = within(holder, name)
            types = known[1] if known else ()
        found.add((holder, names[-1]))
        waiting, seen = [*types], {*PRIMITIVE_TYPES}
        while waiting:
            if (type_ := waiting.pop()) not in seen:
                seen.add(type_)
                inner = elements_of(type_)
                found |= {(type_, key) for name, one in inner.items() for key in properties(name, one)}
                # an extension may hold any type: its own value is enough
                waiting += [one for each in inner.values() for one in each.types if type_ != "Extension"]
    return frozenset(found)


def require_within_reach(of: Expression, name: str, resource_type: str, further: frozenset[str] = frozenset()) -> None:
    """Raise FhirPathError for an encrypted element of a resource within one of another type: a person's, or one of `further`.

    What a person's names hold is encrypted, and other names, such as a practitioner's, are not: types cannot tell these apart.
    """
    contained = of.type if of.type != resource_type else None
    if any(path.split(".")[:2] == [contained, name] for path in further):
        raise FhirPathError(
            f"{name!r} of a {contained} within {resource_type} is encrypted in this store", allowed=_REACHABLE
        )
    if resource_type in TYPES:
        return
    doubtful = of.type in {None, "Resource"} and name in ELEMENTS | _ANYWHERE
    if doubtful or (of.type in TYPES and name in ELEMENTS) or (of.type, name) == ("Reference", "identifier"):
        raise FhirPathError(
            f"{name!r} may be encrypted in this store where {of.type or 'a value of unknown type'} stands in {resource_type}",
            allowed=_REACHABLE,
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
        and bool({*node.keys} & node.sealed_keys)
    )
