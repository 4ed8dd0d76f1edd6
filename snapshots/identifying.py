"""Which values of a resource say who a patient is: what is encrypted in the store, and what views may not compute with.

Pure. It decides by FHIR R4's structure: within the elements below everything is encrypted but what is listed as plain, so that
an extension which nobody foresaw is encrypted too. How a value is sealed is left to `sealed_values`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from snapshots.json_spans import Items, Members, Node, NotJsonError, Span, text_of

TYPES = frozenset({"Patient", "RelatedPerson", "Person"})
# of these types: names, birth date, identifiers, addresses, telecom, photo, contacts; and extensions, which hold more of the same
# (patient-mothersMaidenName, patient-birthPlace, patient-birthTime)
ELEMENTS = frozenset(
    {"name", "birthDate", "identifier", "address", "telecom", "photo", "contact", "extension", "modifierExtension"}
)
# Within those: codes, kinds and periods, by which views choose; they say nothing of who it is
PLAIN = frozenset({
    "use", "system", "type", "rank", "period", "relationship", "gender", "contentType", "language", "reference", "resourceType",
    "valueBoolean", "valueCode", "valueCoding", "valueCodeableConcept", "valuePeriod",
})  # fmt: skip
_EXTENSIONS = frozenset({"extension", "modifierExtension"})  # their `url` says what they are
_SUBJECTS = frozenset({"subject", "patient", "beneficiary", "subscriber"})  # always, or mostly, a patient
_TARGET = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/[^/?#]+(?:/_history/[^/]+)?$")
# A display that directly follows its code is a Coding's. Names can hide behind \u alone; then, too, the whole is looked at
_CODED = re.compile(rb'"code"\s*:\s*"[^"\\]*"\s*,\s*"display"\s*:')
_SIGNS = (b'"div"', b'"data"', b'"identifier"', b'"_d', b"\\u")


class Leaf(NamedTuple):
    """A value to encrypt: its JSON pointer (RFC 6901) in the resource, and its span."""

    pointer: str
    span: Span


def may_identify(resource_type: str, body: bytes) -> bool:
    """Whether a resource may have such values; False is certain. A tenth of the time of `leaves`."""
    if resource_type in TYPES or any(sign in body for sign in _SIGNS) or body.count(b'"resourceType"') > 1:
        return True
    displays = body.count(b'"display"')
    return displays > 0 and displays != len(_CODED.findall(body))


def leaves(tree: Node, text: bytes) -> Iterator[Leaf]:
    """Yield the strings and numbers of a resource that identify somebody."""
    waiting = [_At(tree, "", "", within=False)]
    while waiting:
        at = waiting.pop()
        if isinstance(at.node, Span):
            if at.within and text[at.node.start] not in b"tfn":  # true, false, null
                yield Leaf(at.pointer, at.node)
        elif isinstance(at.node, Items):
            # the items have the name of their array
            waiting += [_At(one, f"{at.pointer}/{n}", at.name, at.within) for n, one in enumerate(at.node.nodes)]
        else:
            sealed = _sealed_names(at.node, text, at)
            for name, node in at.node.pairs:
                pointer = f"{at.pointer}/{name.replace('~', '~0').replace('/', '~1')}"
                waiting.append(_At(node, pointer, name, name.removeprefix("_") in sealed))


class _At(NamedTuple):
    node: Node
    pointer: str
    name: str
    within: bool  # an identifying element


def _sealed_names(members: Members, text: bytes, at: _At) -> frozenset[str]:
    """Return the names of an object's members, without `_`, that are encrypted."""
    names = {name.removeprefix("_") for name, _ in members.pairs}
    if at.within:
        plain = PLAIN | {"url"} if at.name.removeprefix("_") in _EXTENSIONS else PLAIN
        return frozenset(names - plain)
    sealed: set[str] = set()
    if _strings(members, "resourceType", text) & TYPES:
        sealed |= ELEMENTS
    elif _refers_to_somebody(members, names, text, at.name):
        sealed |= {"display", "identifier"}
    if at.name == "text":
        sealed.add("div")
    if "dimensions" not in names:  # SampledData's are numbers, an Attachment's or Binary's a document
        sealed.add("data")
    return frozenset(sealed)


def _refers_to_somebody(members: Members, names: set[str], text: bytes, name: str) -> bool:
    """Whether an object is a Reference to a person, or may be one: it shows or identifies somebody of an unknown type."""
    types = {type_.rpartition("/")[2] for type_ in _strings(members, "type", text)}  # R4: a name, or its URL
    for reference in _strings(members, "reference", text):
        if found := _TARGET.search(reference):
            types.add(found[1])
    if types & TYPES:
        return True
    if types or name == "coding" or names & {"code", "system", "resourceType"}:
        return False
    return "display" in names or name in _SUBJECTS


def _strings(members: Members, name: str, text: bytes) -> set[str]:
    """The texts that an object's member has; several where the name stands several times."""
    found = set()
    for one, node in members.pairs:
        if one == name and isinstance(node, Span) and text[node.start : node.start + 1] == b'"':
            try:
                found.add(text_of(text[node.start : node.end]))
            except NotJsonError:
                continue  # a lone surrogate: Postgres will refuse it
    return found
