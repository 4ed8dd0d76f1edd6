"""Which values of a resource say who a patient is: the store encrypts them, and views may not compute with them.

Pure. It decides by FHIR R4's structure: within the elements below, and those that a configuration adds, everything is encrypted
except what is listed as plain, so that an extension which nobody foresaw is encrypted too. `sealed_values` encrypts a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from snapshots.json_spans import Items, Members, Node, NotJsonError, Span, has_unicode_escape, text_of

TYPES = frozenset({"Patient", "RelatedPerson", "Person"})
# of these types: names, birth date, identifiers, addresses, telecom, photo, contacts; and extensions, which hold more of the same
# (patient-mothersMaidenName, patient-birthPlace, patient-birthTime)
ELEMENTS = frozenset(
    {"name", "birthDate", "identifier", "address", "telecom", "photo", "contact", "extension", "modifierExtension"}
)
# R4's other elements of these types say nothing of who it is, or have a rule of their own. What is neither here nor there is
# encrypted too: an EHR invented it, or spells it in its own way
PLAIN_OF_PERSON = frozenset({
    "resourceType", "id", "meta", "implicitRules", "language", "text", "contained", "active", "gender", "deceased",
    "deceasedBoolean", "deceasedDateTime", "maritalStatus", "multipleBirth", "multipleBirthBoolean", "multipleBirthInteger",
    "communication", "generalPractitioner", "managingOrganization", "link", "patient", "relationship", "period",
})  # fmt: skip
# Within those: codes, kinds and periods, by which views choose; they say nothing of who it is
PLAIN = frozenset({
    "use", "system", "type", "rank", "period", "relationship", "gender", "contentType", "language", "reference", "resourceType",
    "valueBoolean", "valueCode", "valueCoding", "valueCodeableConcept", "valuePeriod",
})  # fmt: skip
_EXTENSIONS = frozenset({"extension", "modifierExtension"})
_PLAIN_OF_EXTENSION = PLAIN | {"url"}  # which says what it is
_FOLDED = frozenset(name.casefold() for name in TYPES)
_SHOWN = frozenset({"display", "identifier"})  # of a reference
_SUBJECTS = frozenset({"subject", "patient", "beneficiary", "subscriber"})  # always, or mostly, a patient
# in R4 never a Reference, even if they have no code
_CODINGS = frozenset({"coding", "class", "tag", "security", "valueCoding"})
_OF_REFERENCE = frozenset({"reference", "type", "identifier", "display", "id", "extension"})
# An object with no other names is a Reference. In R4 only Substance.instance and DocumentManifest.related can look the same
_OF_THINGS = frozenset({"instance", "related"})
_TARGET = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/[^/?#]+(?:/_history/[^/]+)?$")
_SIGN = re.compile(rb'"(?:d(?:iv|ata|isplay)"|identifier"|resourceType"|_d)')
_PERSONS = frozenset(name.encode() for name in TYPES)


Below: TypeAlias = Mapping[str, "Below"]  # names of members, and below each what it leads to; _ENDS where a path ends
NOTHING: Below = {}
_ENDS = ""


def further_elements(paths: Iterable[str]) -> Below:
    """Return what else is encrypted, by type, then by member: of "Condition.note" {"Condition": {"note": {"": {}}}}.

    A path names members as JSON spells them (`Observation.valueString`) and applies wherever a resource of the type occurs. A
    member nested in one of the same name, such as an item of an item, counts as that one. Members in PLAIN stay plain.
    """
    found: dict[str, Any] = {}
    for path in paths:
        at = found
        for name in path.split("."):
            at = at.setdefault(name, {})
        at[_ENDS] = {}
    return found


class SealedElements(NamedTuple):
    """What is encrypted in a store: what identifies people, and what a configuration adds, as paths."""

    further: frozenset[str] = frozenset()


class Leaf(NamedTuple):
    """A value to encrypt: its JSON pointer (RFC 6901) in the resource, and its span."""

    pointer: str
    span: Span


def may_identify(resource_type: str, body: bytes, further: Below = NOTHING) -> bool:
    """Whether a resource may have such values; False is certain, and costs a small part of `leaves`.

    `further`: the paths that a configuration adds. The answer can be False only for JSON without white space, as most EHRs write
    it, in which each display follows its code or reference. Only a backslash can hide a name.
    """
    if resource_type in TYPES or resource_type in further or has_unicode_escape(body):
        return True
    # the first name of most is resourceType; a further one is somebody within
    return any(sign[0] != b'"display"' or not _is_known(body, sign.start()) for sign in _SIGN.finditer(body, 2))


def _is_known(body: bytes, at: int) -> bool:
    """Whether the member before this place in an object is a code, or a literal reference to something other than a person."""
    if body[at - 2 : at] != b'",':
        return False
    start = body.rfind(b'"', 0, at - 2)
    if body[start - 7 : start] == b'"code":':
        return True
    if body[start - 12 : start] != b'"reference":':
        return False
    kind = body[start + 1 : at - 2].rpartition(b"/")[0].rpartition(b"/")[2]
    return kind[:1].isupper() and kind not in _PERSONS


def leaves(tree: Node, text: bytes, further: Below = NOTHING) -> Iterator[Leaf]:
    """Yield the strings and numbers of a resource that identify somebody, and those that a configuration adds (`further`)."""
    waiting: list[_At] = [(tree, "", "", False, _OUTSIDE)]
    while waiting:
        node, pointer, name, within, place = waiting.pop()
        if isinstance(node, tuple):
            if within and text[node[0]] not in b"tfn":  # true, false, null
                yield Leaf(pointer, node)
        elif isinstance(node, Items):  # they have the name of their array
            waiting += [(one, f"{pointer}/{number}", name, within, place) for number, one in enumerate(node)]
        else:
            sealed = _sealed_names(node, text, name, within=within)
            if further:
                place = _of_resource(node, text, further) or place
                sealed |= {one for one, below in place.below.items() if _ENDS in below} - PLAIN
            for member, one in node:
                bare = member.removeprefix("_")
                if bare in sealed or not isinstance(one, tuple):
                    inner = place.inner(bare) if further else place
                    waiting.append((one, f"{pointer}/{escaped(member)}", member, bare in sealed, inner))


class _Place(NamedTuple):
    """What a configuration adds below an object, and below the members that it is in."""

    below: Below
    outer: Mapping[str, Below]

    def inner(self, name: str) -> _Place:
        """The same of a member. One that has the name of a member around it is of the same kind: an item of an item."""
        below = self.below.get(name) or self.outer.get(name, NOTHING)
        return _Place(below, {**self.outer, name: below} if below else self.outer)


_OUTSIDE = _Place(NOTHING, NOTHING)


def _of_resource(members: Members, text: bytes, further: Below) -> _Place | None:
    """What is encrypted within a resource, by its type; None: the object is no resource."""
    types = sorted(_strings(members, "resourceType", text))
    return _Place(further.get(types[0], NOTHING), NOTHING) if types else None


def escaped(name: str) -> str:
    """Return a member's name as a JSON pointer has it (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name


# a value, its pointer, its name, whether it is within an element that is encrypted, and what a configuration adds there
_At: TypeAlias = tuple[Node, str, str, bool, _Place]


def _sealed_names(members: Members, text: bytes, name: str, *, within: bool) -> set[str]:
    """Return the names of an object's members, without `_`, that are encrypted."""
    names = {member.removeprefix("_") for member, _ in members}
    if within:
        return names - (_PLAIN_OF_EXTENSION if name.removeprefix("_") in _EXTENSIONS else PLAIN)
    sealed: set[str] = set()
    if "resourceType" in names and _strings(members, "resourceType", text) & TYPES:
        sealed |= names - PLAIN_OF_PERSON
    elif (names & _SHOWN or name in _SUBJECTS) and _refers_to_somebody(members, names, text, name):
        sealed |= _SHOWN
    if name == "text":
        sealed.add("div")
    if "data" in names and "dimensions" not in names and not _has_structure(members, "data"):
        sealed.add("data")  # a document's; SampledData's are numbers, a Consent's or a TriggerDefinition's are objects
    return sealed


def _refers_to_somebody(members: Members, names: set[str], text: bytes, name: str) -> bool:
    """Whether an object is a Reference to a person, or may be one: it shows or identifies somebody of an unknown type."""
    types = set()
    for reference in _strings(members, "reference", text):
        if found := _TARGET.search(reference):
            types.add(found[1])
    if not types:  # R4: its name, or its URL
        types = {type_.rpartition("/")[2] for type_ in _strings(members, "type", text)}
    if any(one.casefold() in _FOLDED for one in types):
        return True
    if types or name in _CODINGS or names & {"code", "system", "resourceType"}:
        return False
    if "display" in names or "reference" in names or name in _SUBJECTS:
        return True
    return names <= _OF_REFERENCE and name not in _OF_THINGS and _has_one_identifier(members)


def _has_one_identifier(members: Members) -> bool:
    """Whether an object has an Identifier, as a Reference has it: no list, and no type by a concept beside it."""
    structures = {name for name, node in members if isinstance(node, Members)}
    lists = {name for name, node in members if isinstance(node, Items)}
    return "identifier" in structures and "identifier" not in lists and "type" not in structures


def _has_structure(members: Members, name: str) -> bool:
    """Whether a member is an object, or an array that has some."""
    values = (
        one for member, node in members if member == name for one in (node if isinstance(node, Items) else [node])
    )
    return any(isinstance(one, Members) for one in values)


def _strings(members: Members, name: str, text: bytes) -> set[str]:
    """The texts of an object's member; several if the name appears several times."""
    found = set()
    for one, node in members:
        if one == name and isinstance(node, tuple) and text.startswith(b'"', node[0]):
            try:
                found.add(text_of(text[node[0] : node[1]]))
            except NotJsonError:
                continue  # a lone surrogate: Postgres will refuse it
    return found
