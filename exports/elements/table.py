"""What FHIR R4 says about elements: their types and whether they repeat, read from `r4.txt`.

All resource types and all datatypes of R4 (4.0.1), as `generate` made them from HL7's definitions. The compiler uses it
for speed and for warnings: data of another shape gives the same rows, only slower.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

NUMBER_TYPES = frozenset({"decimal", "integer", "integer64", "positiveInt", "unsignedInt"})
TEMPORAL_TYPES = frozenset({"date", "dateTime", "instant", "time"})
STRING_TYPES = frozenset(
    {"base64Binary", "canonical", "code", "id", "markdown", "oid", "string", "uri", "url", "uuid", "xhtml"}
)
PRIMITIVE_TYPES = NUMBER_TYPES | TEMPORAL_TYPES | STRING_TYPES | {"boolean"}
_ABSTRACT = frozenset({"Base", "Element", "BackboneElement", "Resource", "DomainResource"})
_SPECIAL_OF = {
    **dict.fromkeys(("code", "id", "markdown"), "string"),
    **dict.fromkeys(("canonical", "oid", "url", "uuid"), "uri"),
    **dict.fromkeys(("positiveInt", "unsignedInt"), "integer"),
}


@dataclass(frozen=True)
class Element:
    """One element of a type: the types its value may have (more than one for a choice `x[x]`) and whether it repeats."""

    types: tuple[str, ...]
    many: bool
    choice: bool = False


@dataclass(frozen=True)
class _Type:
    base: str
    own: str  # its elements as they are written in the table


@cache
def _types() -> dict[str, _Type]:
    lines = files("exports.elements").joinpath("r4.txt").read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        name, base, *elements = line.split(" ", 2)
        found[name] = _Type(base, elements[0] if elements else "")
    return found


@cache
def elements_of(type_: str) -> dict[str, Element]:
    """All elements of a type, those it inherits first; empty where R4 has no such type, or it is a primitive."""
    known = _types().get(type_)
    if known is None:
        return {}
    found = dict(elements_of(known.base))
    for word in known.own.split():
        name, _, types = word.partition(":")
        found[name.rstrip("*").removesuffix("[x]")] = Element(
            tuple(types.split("|")), many=name.endswith("*"), choice="[x]" in name
        )
    return found


def element(parent: str | None, name: str) -> Element | None:
    """The element `name` of the type `parent`; None where nothing is known about it."""
    if parent in PRIMITIVE_TYPES:
        parent = "Element"
    return None if parent is None else elements_of(parent).get(name)


def is_known(type_: str | None) -> bool:
    """Whether R4 has such a type, so that an element which it does not have is a mistake."""
    return type_ in _types() and type_ not in _ABSTRACT


def is_resource(type_: str | None) -> bool:
    """Whether it is a type of resource, or the abstract type of all."""
    while type_ in _types():
        if type_ == "Resource":
            return True
        type_ = _types()[type_].base
    return False


def is_a(type_: str, wanted: str) -> bool:
    """Whether every `type_` is a `wanted`: the same, or a special one of it (FHIR R4 §2.24)."""
    seen: str | None = type_
    while seen is not None:
        if seen == wanted:
            return True
        known = _types().get(seen)
        seen = known.base if known else _SPECIAL_OF.get(seen)
    return False


def choice_key(name: str, type_: str) -> str:
    """The JSON property of a choice element where its value is of a type."""
    return name + type_[0].upper() + type_[1:]


def properties(name: str, found: Element) -> tuple[str, ...]:
    """The JSON properties that an element may be in."""
    return tuple(choice_key(name, type_) for type_ in found.types) if found.choice else (name,)


@cache
def choice_of_property(parent: str, name: str) -> tuple[str, str] | None:
    """The choice and the type that a JSON property means: `valueQuantity` is (value, Quantity)."""
    for choice, found in elements_of(parent).items():
        for type_ in found.types if found.choice else ():
            if name == choice_key(choice, type_):
                return choice, type_
    return None


def within(parent: str, name: str) -> tuple[str, tuple[str, ...]] | None:
    """The element that a JSON property means, and the types that it may hold; None: R4 has no such element."""
    if chosen := choice_of_property(parent, name):
        return chosen[0], (chosen[1],)
    found = element(parent, name)
    return None if found is None or found.choice else (name, found.types)


def reached(path: str) -> tuple[str, tuple[str, ...]]:
    """The type that holds the last element of a path such as "Observation.note", and the types of that; "", () if unknown."""
    holder, *names = path.split(".")
    types: tuple[str, ...] = (holder,)
    for name in names:
        holder = types[0] if types else ""
        found = within(holder, name)
        types = found[1] if found else ()
    return holder, types


def unknown_in(path: str) -> tuple[str, str | None] | None:
    """What R4 does not have of a path such as "Observation.valueString", and what to write instead; None: it has all of it."""
    holder, *names = path.split(".")
    concrete = [one for one in all_types() if is_resource(one) and one not in _ABSTRACT]
    if holder not in concrete:
        close = difflib.get_close_matches(holder, concrete, n=1)
        return holder, close[0] if close else None
    for name in names:
        found = within(holder, name)
        if found is None:
            choice = element(holder, name)
            return f"{holder}.{name}", f"one of {', '.join(properties(name, choice))}" if choice else nearest(
                holder, name
            )
        holder = found[1][0]
    return None


@cache
def nearest(parent: str, name: str) -> str | None:
    """The element of `parent` whose name is the most like `name`."""
    close = difflib.get_close_matches(name, elements_of(parent), n=1)
    return close[0] if close else None


@cache
def nearest_type(name: str) -> str | None:
    """The type whose name is the most like `name`; None where R4 has `name` itself."""
    known = (*all_types(), *PRIMITIVE_TYPES)
    close = [] if name in known else difflib.get_close_matches(name, known, n=1)
    return close[0] if close else None


def all_types() -> tuple[str, ...]:
    """Every type of the table."""
    return tuple(_types())
