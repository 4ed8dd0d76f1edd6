"""Which elements of a view are encrypted in the store, by their FHIR types, and whether the view computes with them. Pure.

The types say where encrypted values may be; `snapshots.identifying` says which values are. When in doubt, an element counts as
encrypted. In Postgres such an element is present, but with another value: a view may ask whether and how often it occurs. A view
that is exported may also show it, because the export decrypts the cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cache

from exports.compiler.paths import WITHIN, is_computed, path_of
from exports.compiler.typed_tree import (
    All,
    At,
    Child,
    Comparison,
    ComputedSlice,
    Context,
    Count,
    Distinct,
    Equivalence,
    Exists,
    Expression,
    Filter,
    Focus,
    Iif,
    Join,
    Membership,
    Path,
    Select,
    Slice,
    Union,
)
from exports.elements.table import PRIMITIVE_TYPES, elements_of, is_resource, properties, reached
from exports.errors import EncryptedElementError
from snapshots.identifying import ELEMENTS, PLAIN, PLAIN_OF_PERSON, TYPES

_HOLDERS = frozenset({"HumanName", "Address", "ContactPoint", "Identifier", "Attachment", "Patient.contact"})
_ANYWHERE = frozenset({"display", "div", "data", "identifier"})  # in what R4 does not know
_NEVER_SEALED = frozenset({"Reference", "boolean"})
# somewhere within, whatever the resource
_HOLD_SEALED = frozenset({"Reference", "Narrative", "Attachment", "Extension", *TYPES})
_REACHABLE = "elements whose type R4 knows, and that do not belong to a person; NDJSON shows it"


def sealed_keys(node: Child, of: Expression, resource_type: str, further: frozenset[str]) -> frozenset[str]:
    """Return the properties of an element of `of` that may be encrypted, or hold such values, in a view of a resource type.

    `further`: the paths that a configuration adds.
    """
    if _identifies(of, node.name, resource_type):
        return frozenset(node.keys) - PLAIN
    return frozenset([one for key in node.keys for one in _further(of, key, resource_type, further)]) - PLAIN


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
    if name == "id" and holder is not None and not is_resource(holder):
        return not _leads_through_plain(path_of(of))  # of an element, which is as encrypted as the element
    if holder == "Extension":
        return name not in PLAIN | {"url", "extension"} and not _leads_through_plain(path_of(of))
    if holder == "Resource":
        return name in ELEMENTS
    return (holder in _HOLDERS or holder is None) and name not in PLAIN | {"extension"}


def _leads_through_plain(path: Path | None) -> bool:
    """Whether a person's path leads through an element that is plain, in which nothing but a reference's is encrypted."""
    if path is None or path[0] == WITHIN[0]:
        return False
    steps = [{key.removeprefix("_") for key in keys} for keys in path[1:]]
    plain = any(keys <= PLAIN_OF_PERSON for keys in steps[:1]) or any(keys <= PLAIN for keys in steps[1:])
    return plain and not any(keys & _ANYWHERE for keys in steps[1:])


def focus_on(of: Expression) -> Focus:
    """An item of an expression as the focus of another: encrypted or computed if the expression is."""
    sealed = next(_computed(of, shown=False), None)
    return Focus(type=of.type, path=path_of(of), sealed=sealed, computed=is_computed(of))


def _further(of: Expression, key: str, resource_type: str, further: frozenset[str]) -> set[str]:
    """The properties of `further`, or within these, that a key stands for; where R4 does not know the key, those of a choice too.

    Where the path to the key is not known, the type that holds it counts.
    """
    if not further or (of.type == "Extension" and key == "url"):
        return set()
    outer = path_of(of)
    found: set[str] = set()
    if outer is not None:
        paths = _unnested((*outer, (key,)))
        found = {_last(path, names) for path in paths for one in further if _leads(path, names := one.split("."))}
    if of.type is None and outer is None:
        found |= {one for _, one in _within(further, resource_type) if one.startswith(key)}
    elif outer is None or "." in (of.type or ""):
        # an item of an item has the same type, and another path
        found |= {key} if (of.type, key) in _within(further, resource_type) else set()
    return found


@cache
def _unnested(path: Path) -> frozenset[Path]:
    """A path, and the shorter ones as which it counts: an item of an item is encrypted as the item is."""
    shorter = [
        path[: first + 1] + path[second + 1 :]
        for second, step in enumerate(path)
        for first in range(second)
        if path[first] == step
    ]
    return frozenset({path}).union(*map(_unnested, shorter))


def _leads(path: Path, names: list[str]) -> bool:
    """Whether a path leads to the named property, or to an encrypted one within it.

    Within a resource of unknown type, a key may be that of a choice, whose properties have longer names.
    """
    # a primitive's extensions are in its sibling `_name`, and encrypted with it
    bare = [tuple(key.removeprefix("_") for key in keys) for keys in path]
    anywhere = path[0] == WITHIN[0]
    pairs = [*zip(names, bare, strict=False)][anywhere:]
    same = all(name.startswith(keys) if anywhere else name in keys for name, keys in pairs)
    return len(path) >= len(names) and same and not any({*one} <= PLAIN for one in bare[len(names) : -1])


def _last(path: Path, names: list[str]) -> str:
    """The property to which a path leads: the named one, as it is spelled, or one within it."""
    return names[-1] if len(path) == len(names) else path[-1][0]


@cache
def _within(further: frozenset[str], resource_type: str) -> frozenset[tuple[str, str]]:
    """The last properties of a type's paths, each with the type that holds it, and everything that may be within them."""
    found: set[tuple[str, str]] = set()
    for path in further:
        if not path.startswith(f"{resource_type}."):
            continue
        holder, types = reached(path)
        found.add((holder, path.rpartition(".")[2]))
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
    """Raise EncryptedElementError for an encrypted element of a resource in one of another type: a person's, or one of `further`.

    What a person's names hold is encrypted, and other names, such as a practitioner's, are not: types cannot tell these apart.
    """
    contained = of.type if of.type != resource_type else None
    if any(path.split(".")[:2] == [contained, name] for path in further):
        raise EncryptedElementError(
            f"{name!r} of a {contained} within {resource_type} is encrypted in this store", allowed=_REACHABLE
        )
    if resource_type in TYPES:
        return
    doubtful = of.type in {None, "Resource"} and name in ELEMENTS | _ANYWHERE
    if doubtful or (of.type in TYPES and name in ELEMENTS) or (of.type, name) == ("Reference", "identifier"):
        raise EncryptedElementError(
            f"{name!r} may be encrypted in this store where {of.type or 'a value of unknown type'} stands in {resource_type}",
            allowed=_REACHABLE,
        )


def require_not_computed(expression: Expression, *, shown: bool) -> None:
    """Raise EncryptedElementError, with the character, where SQL compares, joins, searches or otherwise reads what is encrypted.

    `shown`: the value of the whole expression is only shown.
    """
    for child in _computed(expression, shown=shown):
        raise EncryptedElementError(
            f"{child.name!r} is encrypted in this store, so SQL cannot read it",
            offset=None if child.sealed_at is None or child.sealed_at < 0 else child.sealed_at,
            allowed="a column that only shows it, of an exported view; exists(), empty() and count() of it",
        )


def require_no_whole_compared(expression: Expression, resource_type: str, further: frozenset[str]) -> None:
    """Raise EncryptedElementError where SQL compares whole structures that may hold an encrypted value.

    Equal values differ in the store, since each is encrypted for its own place: `subject = performer.first()` would be false, and
    `focus.distinct()` would keep all, because of a `display`. `further`: the paths that a configuration adds.
    """
    match expression:
        case Comparison(left=one, right=other) | Equivalence(left=one, right=other):
            compared: tuple[Expression, ...] = (one, other)
        case Membership(item=one, collection=other):
            compared = (one, other)
        case Distinct(of=one):
            compared = (one,)
        case _:
            compared = ()
    # a text or number equals no structure, whatever that holds
    structures = [[part for one in _sources(side) for part in _structures(one)] for side in compared]
    if all(structures) and any(
        _may_hold_sealed(type_, path, resource_type, further) for side in structures for type_, path in side
    ):
        raise EncryptedElementError(
            f"whole values of type {compared[0].type or '(unknown)'} may hold encrypted ones in this store, "
            "so SQL cannot compare them",
            allowed="comparing plain elements of them, such as the reference of a Reference",
        )
    for inner in _parts(expression):
        require_no_whole_compared(inner, resource_type, further)


def _sources(node: Expression) -> Iterator[Expression]:
    """The expressions that the items of an expression come from."""
    match node:
        case At(of=of) | Filter(of=of) | Slice(of=of) | ComputedSlice(of=of) | Distinct(of=of) | Select(projection=of):
            yield from _sources(of)
        case Union(left=one, right=other) | Iif(then=one, otherwise=other):
            yield from _sources(one)
            yield from _sources(other)
        case _:
            yield node


def _structures(node: Expression) -> Iterator[tuple[str | None, Path | None]]:
    """The types of the structures that an expression may give (None: unknown), each with the path to it; a result is none."""
    if is_computed(node):
        return
    path = path_of(node)
    if node.type is None and isinstance(node, Child) and len(node.keys) > 1:  # a choice that is not narrowed
        outer = path_of(node.of)
        for key in node.keys:
            type_ = key.removeprefix(node.name)
            if type_[:1].lower() + type_[1:] not in PRIMITIVE_TYPES:
                yield type_ or None, None if outer is None else (*outer, (key,))
    elif node.type not in PRIMITIVE_TYPES:
        yield node.type, path


def _may_hold_sealed(type_: str | None, path: Path | None, resource_type: str, further: frozenset[str]) -> bool:
    """Whether a structure may hold an encrypted value: by the types within it, or because a path of `further` leads into it."""
    if type_ is None:
        return True
    types = _types_within(type_)
    personal = _HOLDERS if resource_type in TYPES and not _leads_through_plain(path) else frozenset()
    if not types.isdisjoint(_HOLD_SEALED | personal) or any(map(is_resource, types)):
        return True
    paths = () if path is None else _unnested(path)
    if any(_leads_into(each, one.split(".")) for each in paths for one in further):
        return True
    if path is None or any(map(_nests, types)):
        return any(holder in types and key not in PLAIN for holder, key in _within(further, resource_type))
    return False


def _leads_into(path: Path, names: list[str]) -> bool:
    """Whether the named property is within what a path leads to."""
    anywhere = path[0] == WITHIN[0]
    pairs = [*zip(names, path, strict=False)][anywhere:]
    return len(path) < len(names) and all(
        any(name.startswith(key) if anywhere else name == key for key in keys) for name, keys in pairs
    )


@cache
def _types_within(type_: str) -> frozenset[str]:
    """A type and all within it; extensions of what is no person's count only where one stands for itself."""
    found: set[str] = set()
    waiting = [type_]
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += _inner_types(one)
    return frozenset(found)


def _inner_types(type_: str) -> list[str]:
    own = [one for name, one in elements_of(type_).items() if name not in {"extension", "modifierExtension"}]
    return [one for each in own for one in each.types]


@cache
def _nests(type_: str) -> bool:
    """Whether a part of a resource may hold parts of its own type, as an item does."""
    return "." in type_ and any(type_ in _types_within(one) for one in _inner_types(type_))


def _parts(node: Expression) -> Iterator[Expression]:
    for field in fields(node):
        inner = getattr(node, field.name)
        yield from (one for one in (inner if isinstance(inner, tuple) else (inner,)) if isinstance(one, Expression))


def shows_sealed(expression: Expression) -> bool:
    """Whether the value of an expression may be an encrypted one."""
    return any(one.type is None or one.type in PRIMITIVE_TYPES for one in _computed(expression, shown=False))


def _computed(node: Expression, *, shown: bool) -> Iterator[Child]:
    """The encrypted elements whose values an expression needs; `shown`: what it gives itself is needed by nobody."""
    if not shown and (own := _encrypted(node)) is not None:
        yield own
    match node:
        case Focus() | Context():
            return
        case Child(of=of) | Exists(of=of) | Count(of=of):
            yield from _computed(of, shown=True)
        case All(of=of, criterion=criterion):
            yield from _computed(of, shown=True)
            yield from _computed(criterion, shown=False)
        case Filter(of=of, criterion=criterion):
            yield from _computed(of, shown=shown)
            yield from _computed(criterion, shown=False)
        case At(of=of) | Slice(of=of) | Join(of=of):  # what is joined is decrypted piece by piece
            yield from _computed(of, shown=shown)
        case ComputedSlice(of=of, start=start, length=length):
            yield from _computed(of, shown=shown)
            for number in filter(None, (start, length)):
                yield from _computed(number, shown=False)
        case Select(of=of, projection=projection):
            yield from _computed(of, shown=True)
            yield from _computed(projection, shown=shown)
        case Iif(criterion=criterion, then=then, otherwise=otherwise):
            yield from _computed(criterion, shown=False)
            yield from _computed(then, shown=shown)
            yield from _computed(otherwise, shown=shown)
        case _:
            for one in _parts(node):
                yield from _computed(one, shown=False)


def _encrypted(node: Expression) -> Child | None:
    """The element that a node is an encrypted value of, or a structure with some: compared, it is another one in the store.

    A reference has none that a view reads but its `display`, and a boolean is plain.
    """
    match node:
        case Focus(sealed=sealed) | Context(sealed=sealed):
            return sealed
        case Child() if node.type not in _NEVER_SEALED and not node.sealed_keys.isdisjoint(node.keys):
            return node
        case _:
            return None
