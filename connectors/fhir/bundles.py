"""Reads which entries a Bundle has: all of them, or an error says that this is impossible. Pure.

`records` reads the entries, `page_links` the links. A second `entry`, or entries under another name, do not make an empty
Bundle: an answer whose entries nobody can know is no Bundle, and what its entries still show is returned beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from connectors.fhir.json_answers import (
    RepeatedNameError,
    UnreadableJsonError,
    json_from,
    members_of,
    objects_beside,
    parts_of,
)
from connectors.fhir.page_links import links_from, next_beside


class NotABundleError(ValueError):
    """An answer to a search that is not a Bundle."""


class Entry(msgspec.Struct):
    """One entry; without a resource where it has none."""

    resource: msgspec.Raw = msgspec.Raw()  # a Union with None would not give the raw bytes
    link: msgspec.Raw = msgspec.Raw()  # of the entry's own: some servers write one each
    search: msgspec.Raw = msgspec.Raw()  # whether it is a match, or included beside matches
    response: msgspec.Raw = msgspec.Raw()  # of a batch or a history; seen in searches too


class Bundle(msgspec.Struct, forbid_unknown_fields=True):
    """All elements that a Bundle may have in R4 and R5: any other name may be a misspelt `entry`, which is not an empty one."""

    resourceType: Any = None  # noqa: N815
    type: Any = None
    total: Any = None
    link: msgspec.Raw = msgspec.Raw()
    links: msgspec.Raw = msgspec.Raw()  # no element of FHIR's: some gateways write it in place of `link`
    entry: list[Entry] | None = None
    id: msgspec.Raw = msgspec.Raw()
    meta: msgspec.Raw = msgspec.Raw()
    implicitRules: msgspec.Raw = msgspec.Raw()  # noqa: N815
    language: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()  # of a DomainResource, which a Bundle is not; seen all the same
    extension: msgspec.Raw = msgspec.Raw()
    identifier: msgspec.Raw = msgspec.Raw()
    timestamp: msgspec.Raw = msgspec.Raw()
    signature: msgspec.Raw = msgspec.Raw()
    issues: msgspec.Raw = msgspec.Raw()  # an OperationOutcome (R5)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What was read of a Bundle."""

    bundle: Bundle
    entries: Sequence[Entry]
    astray: Sequence[bytes] = ()  # resources under names that a Bundle does not have
    doubtful: bool = False  # something else under such names, in place of entries
    more: bool = False  # such a name tells of a next page


_BUNDLE = msgspec.json.Decoder(Bundle)
_ENTRY = msgspec.json.Decoder(Entry)
_ANYTHING = msgspec.json.Decoder(msgspec.Raw)
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
BUNDLE_NAMES = frozenset(Bundle.__struct_fields__)
_LINKS_WITHIN = 4096  # bytes after the entries
_RESOURCE_NAMES = frozenset({"resource", "resourcetype"})
_NOTHING = (b"", b"null")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def bundle_from(body: bytes) -> Listed:
    """A Bundle and its entries, read by a plain parser if that finds every resource that the text names.

    An item that is no entry, or is not JSON, costs only itself: it counts as an unreadable resource.

    Raises:
        NotABundleError: it is not JSON, or has one name twice. The caller checks whether it calls itself a Bundle.
    """
    try:
        bundle = _BUNDLE.decode(body)
        entries = bundle.entry or ()
        # an `entry`, a `resource` or a `link` that stands twice gives the last one only
        if entries and body.count(b'"resource"') == len(entries) and not _may_have_two_links(body, bundle):
            return Listed(bundle=bundle, entries=entries)
    except msgspec.ValidationError:
        pass
    except _UNREADABLE:
        return _broken_bundle(body)
    return _odd_bundle(body)


def _broken_bundle(body: bytes) -> Listed:
    """A Bundle of which some entries are not JSON: each of them alone is unreadable."""
    try:
        found = next(part for part in parts_of(body) if part.startswith(b'"entry"'))
        entry = found[found.index(b"[") :]
        items = parts_of(entry)
    except (UnreadableJsonError, StopIteration, ValueError):
        items = []
    broken = [at for at, item in enumerate(items) if not _is_json(item)]
    if not broken:
        raise NotABundleError("the answer is not a Bundle in JSON")
    left_out = set(broken)
    sound = b",".join(item for at, item in enumerate(items) if at not in left_out)
    listed = bundle_from(body.replace(entry, b"[" + sound + b"]", 1))
    entries = list(listed.entries)
    for at in broken:
        entries.insert(at, Entry(resource=msgspec.Raw(items[at])))
    return replace(listed, entries=entries)


def _is_json(item: bytes) -> bool:
    try:
        _ANYTHING.decode(item)
    except _UNREADABLE:
        return False
    return True


def _odd_bundle(body: bytes) -> Listed:
    """A Bundle that is not written as FHIR says."""
    try:
        members = members_of(body)
        strangers = {name: json_from(raw) for name, raw in members.items() if name not in BUNDLE_NAMES}
        entry = members.get("entry", b"null")
        items = _ITEMS.decode(entry) if entry.startswith(b"[") else [msgspec.Raw(entry)] if entry != b"null" else []
        values = {name: json_from(members[name]) for name in ("resourceType", "type", "total") if name in members}
    except RepeatedNameError:
        raise NotABundleError("one name appears twice in the answer, so its content is unknown") from None
    except (UnreadableJsonError, *_UNREADABLE):
        raise NotABundleError("the answer is not a Bundle in JSON") from None
    objects = {name: objects_beside({name: value}, ()) for name, value in strangers.items()}
    next_pages = {name for name, found in objects.items() if found and links_from(members[name]).next_url}
    astray = [name for name, found in objects.items() if any(map(_holds_resource, found))]
    return Listed(
        bundle=Bundle(
            **values,
            link=_raw(members.get("link")),
            links=_raw(members.get("links")),
            issues=_raw(members.get("issues")),
        ),
        entries=[_entry(item) for item in items],
        astray=[members[name] for name in astray],
        doubtful=not items and any(found and name not in next_pages for name, found in objects.items()),
        more=bool(next_pages) or next_beside({name: members[name] for name in strangers}) is not None,
    )


def outcomes_beside(listed: Listed, body: bytes) -> Iterator[tuple[str, bytes]]:
    """The outcomes beside a Bundle's resources, with their text: `issues`, and `response.outcome` of entries."""
    if bytes(listed.bundle.issues) not in _NOTHING:
        yield "issues", bytes(listed.bundle.issues)
    for number, entry in enumerate(listed.entries if b'"outcome"' in body else (), start=1):
        if b'"outcome"' in (response := bytes(entry.response)):
            outcome = _outcome(response)
            if outcome not in _NOTHING:
                yield f"entry {number}", outcome


def _outcome(response: bytes) -> bytes:
    """The outcome of an entry's response; a response of another shape counts as an unreadable outcome."""
    try:
        return members_of(response).get("outcome", b"")
    except UnreadableJsonError:
        return response


def _may_have_two_links(body: bytes, bundle: Bundle) -> bool:
    """Whether `link` may appear twice in a Bundle; entries are looked through where they may have links of their own."""
    outside = body
    if len(body) > 2 * _LINKS_WITHIN:
        outside = body[: body.find(b'"entry"')] + body[-_LINKS_WITHIN:]
    if outside.count(b'"link"') <= 1:
        return False
    read = [bundle.link, *(entry.link for entry in bundle.entry or ())]
    return body.count(b'"link"') != sum(map(bool, map(bytes, read)))


def _raw(text: bytes | None) -> msgspec.Raw:
    return msgspec.Raw(text or b"")


def _entry(item: msgspec.Raw) -> Entry:
    """One entry; anything else, or an entry with two resources, counts as a resource that cannot be read."""
    try:
        if bytes(item).count(b'"resource"') > 1:
            members_of(bytes(item))
        return _ENTRY.decode(item)
    except (UnreadableJsonError, *_UNREADABLE):
        return Entry(resource=item)


def _holds_resource(value: Any) -> bool:
    """Whether a resource, or an entry with one, is anywhere in it, in whatever case its name is written."""
    below = [value]
    while below:
        one = below.pop()
        if isinstance(one, dict):
            if not _RESOURCE_NAMES.isdisjoint(map(str.casefold, one)):
                return True
            below += one.values()
        elif isinstance(one, list):
            below += one
    return False
