"""Types in expressions: the names of types, and `is`, `as` and `ofType()`, which ask for a type.

For a choice (`value[x]`), the type says which JSON property has the value; for anything else, what is known of R4 decides. Stored
data have a type of FHIR (`boolean`); computed values and literals have one of FHIRPath's own (`System.Boolean`). Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from exports.compiler import syntax
from exports.compiler.paths import is_computed
from exports.compiler.typed_tree import (
    Child,
    Comparison,
    Constant,
    Exists,
    Expression,
    Filter,
    Focus,
    Iif,
    Nothing,
)
from exports.elements.table import NUMBER_TYPES, PRIMITIVE_TYPES, STRING_TYPES, choice_key, is_a
from exports.errors import FhirPathError

# FHIRPath's own types, each with the types of FHIR that its values are written as
_OF_FHIRPATH = {
    "Boolean": frozenset({"boolean"}),
    "String": STRING_TYPES,
    "Integer": NUMBER_TYPES - {"decimal"},
    "Decimal": frozenset({"decimal"}),
    "Date": frozenset({"date"}),
    "DateTime": frozenset({"dateTime", "instant"}),
    "Time": frozenset({"time"}),
}


class TypeName(NamedTuple):
    """A type as an expression names it. `of_fhirpath`: one of FHIRPath's own, not of FHIR."""

    name: str
    of_fhirpath: bool


def type_name(node: syntax.Node, function: str) -> TypeName:
    """The type that a type specifier names; a plain name that both have means FHIR's (FHIRPath 2.0.0 §6.3)."""
    match node:
        case syntax.Member(None, name) if name.isascii() and name.isalnum():
            return TypeName(name, name in _OF_FHIRPATH)
        case syntax.Member(syntax.Member(None, "FHIR" | "System" as of), name) if name.isascii() and name.isalnum():
            return TypeName(name, of == "System")
        case _:
            raise FhirPathError(f"{function} takes the name of a type", allowed="such as Patient", offset=node.at)


def is_of_type(of: Expression, narrowed: Expression) -> Expression:
    """`of is T`; `narrowed` is `of.ofType(T)`."""
    return Iif(criterion=Exists(of=of), then=Exists(of=narrowed), otherwise=Nothing(), type="boolean")


def of_type(of: Expression, type_: TypeName, *, of_r4: bool) -> Expression:
    """`of.ofType(type_)`. `of_r4`: whether the view is for R4, so that a type which R4 does not allow there is never found."""
    if isinstance(of, Nothing):
        return of
    wanted, computed = type_.name, is_computed(of)
    if computed and of.type is not None:
        return of if type_.of_fhirpath and of.type in _OF_FHIRPATH.get(wanted, ()) else Nothing()
    if type_.of_fhirpath and not computed:
        return Nothing()
    if of.type == "Resource" != wanted:
        return of_resource_type(of, wanted)
    if of.type is not None:
        if is_a(of.type, wanted):
            return of
        return Nothing() if of_r4 or not isinstance(of, Child) else _elsewhere(of, wanted)
    if not isinstance(of, Child):
        raise FhirPathError("ofType() works on an element", allowed="such as value.ofType(Quantity)")
    key = choice_key(of.name, wanted)
    if len(of.keys) > 1 and key not in of.keys:
        keys = tuple(one for one in of.keys if one != of.name and is_a(_choice_type(of, one), wanted))
        if not of_r4:
            return _elsewhere(replace(of, keys=(*keys, of.name)), wanted)
        return _narrowed(of, keys, type=wanted) if keys else Nothing()
    known = _known_case(wanted)
    return _narrowed(of, (key,), repeats=False, type=known, many=of.of.many)


def of_resource_type(of: Expression, wanted: str) -> Expression:
    """The resources of that type, among items whose type only the data show."""
    kind = Child(of=Focus(), name="resourceType", keys=("resourceType",), repeats=False, type="code")
    is_wanted = Comparison(operator="=", left=kind, right=Constant(value=wanted, type="string"))
    return Filter(of=of, criterion=is_wanted, type=wanted, many=of.many)


def _elsewhere(of: Child, wanted: str) -> Expression:
    """What another version of FHIR may have: the type as a further one of a choice, or as the only one, without a suffix."""
    plain = () if of.type in PRIMITIVE_TYPES else of.keys
    return _narrowed(of, (choice_key(of.name, wanted), *plain), repeats=True, type=_known_case(wanted), many=True)


def _narrowed(of: Child, keys: tuple[str, ...], **typed: Any) -> Child:
    """An element in other properties. If it may be encrypted, those that it was not known to have may be encrypted too."""
    further = frozenset(keys) - frozenset(of.keys) if of.sealed_keys & frozenset(of.keys) else frozenset()
    sealed = of.sealed_keys | further
    return replace(of, keys=keys, sealed_keys=sealed, **typed)


def _known_case(wanted: str) -> str:
    small = wanted[0].lower() + wanted[1:]
    return small if small in PRIMITIVE_TYPES else wanted


def _choice_type(of: Child, key: str) -> str:
    written = key.removeprefix(of.name)
    return _known_case(written)
