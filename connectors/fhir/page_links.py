"""Reads which page comes after one: `Bundle.link`, and `link` of a bulk manifest. Pure.

`transport.links` decides where a link may lead.

A page is the last one only if all its links have known relations. A link with an address but without a readable relation may
lead to the next page; an unknown relation leaves a doubt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from connectors.fhir.json_answers import UnreadableJsonError, json_from

# RFC 8288 compares relation types without case, and lets a registered one be written as a URI
_IANA = re.compile(r"https?://(?:www\.)?iana\.org/assignments/(?:link-)?relations?(?:/link-relations(?:\.\w+)?)?[/#]+")
_NEXT = "next"
# of these a page's content does not go on: R4 Bundle.link, IANA's registry as far as servers use it, and HAPI's "fhir-base"
_OTHERS = frozenset(
    ["self", "first", "last", "prev", "previous", "fhir-base", "base", "alternate", "canonical", "collection", "search",
     "up", "start", "current", "describedby", "help", "license", "about", "related", "via", "service-doc", "stylesheet"]
)  # fmt: skip
_ADDRESSES = frozenset({"url", "href"})
_OF_LINKS = _ADDRESSES | {"relation", "rel"}
_SEGMENTS = re.compile(r"[/#:]")
_MOST_BYTES = 64 << 20
_NONE = (b"", b"null", b"[]")
_NO_NEXT = (*_NONE, b"{}", b"false", b"0", b'"false"', b'"0"', b'"null"')
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# a name with such a word tells when to ask again: `nextPollAt`, `nextRun`, `nextExportAllowedAt`
_OF_TIME = frozenset({"poll", "at", "run", "time", "date", "retry", "seconds", "allowed"})
_FURTHER = frozenset({"more", "hasmore", "truncated", "incomplete", "partial"})  # flags that what is here is not all
_UNLESS = frozenset({"no", "not", "allow"})  # `noMore`, `allowPartialManifests`
_TRUE = (b"true", b'"true"', b"1")
_ABSOLUTE = re.compile(r"(?i)https?://\S+\Z")
_HEADER_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:\"[^\"]*\"|[^\s;,\"]*))?)*)")
_HEADER_RELATION = re.compile(r"(?i);\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s;,\"]*))")


class Links(NamedTuple):
    """What a page's links say of the next: its URL; None: there is none; "": there is, or may be, one that cannot be found."""

    next_url: str | None = None
    doubtful: bool = False  # something among the links was not understood


def links_from(raw: bytes, plural: bytes = b"") -> Links:
    """Read the JSON of a `link` element; b"" where there is none. `plural` is `links`, as some gateways write it."""
    if raw in _NONE:
        raw = plural
    if raw in _NONE:
        return Links()
    try:
        found = json_from(raw) if len(raw) <= _MOST_BYTES else None
    except UnreadableJsonError:
        found = None
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        return Links("", doubtful=True)
    urls: dict[str, None] = {}
    doubtful = False
    for link in (one for item in found for one in _each(item)):
        relations = _relations(link)
        if _NEXT in relations:
            url = link.get("url", link.get("href"))
            urls[url.strip() if isinstance(url, str) else ""] = None
        elif not relations or not relations <= _OTHERS:
            doubtful = True
            if not relations and _has_address(link):
                urls[""] = None
    there = [url for url in urls if url]
    if not urls:
        return Links(None, doubtful)
    return Links(there[0] if there else "", doubtful or len(there) > 1)


def next_beside(members: Mapping[str, bytes]) -> str | None:
    """The next page under a member's own name (`"next": "https://…"`), where links have an element of their own.

    None: no name is of a next page, or those that are say that there is none. Only an absolute URL is followed, as anything else
    may be a token, a number or a flag (`"hasMore": true`): "".
    """
    there = None
    for name, raw in members.items():
        words = {word.lower() for word in _WORD.findall(name)}
        if raw.lower() in _TRUE and words & _FURTHER and not words & _UNLESS:
            there = ""
        if _NEXT not in _relation(name.lower()) or raw in _NO_NEXT:
            continue
        try:
            found = json_from(raw)
        except UnreadableJsonError:
            there = ""
            continue
        if isinstance(found, str) and _ABSOLUTE.match(found.strip()):
            return found.strip()
        if not words & _OF_TIME or "page" in words:
            there = ""
    return there


def next_from_header(value: str | None) -> str | None:
    """The URL of the next page that a Link header names (RFC 8288); None where it names none."""
    for target, parameters in _HEADER_LINK.findall(value or ""):
        words = " ".join(quoted or bare for quoted, bare in _HEADER_RELATION.findall(parameters))
        if _NEXT in map(_relation, words.lower().split()):
            return str(target).strip()
    return None


def _each(item: Any) -> list[Any]:
    """The links of one item: itself, or one for each of its keys.

    Keys are relations (`{"self": "…", "next": "…"}`), or numbers, as some languages write lists (`{"0": {"relation": "next"}}`).
    """
    if not isinstance(item, dict) or not item or not item.keys().isdisjoint(_OF_LINKS):
        return [item]
    if all(name.isdecimal() for name in item):
        return [one for value in item.values() for one in _each(value)]
    return [
        {**(target if isinstance(target, dict) else {"url": target}), "relation": name} for name, target in item.items()
    ]


def _relations(link: Any) -> frozenset[str]:
    """The relations of one link, as IANA registers them; none for what is no link. Some write `rel`, as Atom and JSON:API do."""
    relation = link.get("relation", link.get("rel")) if isinstance(link, dict) else None
    words = [one for one in (relation if isinstance(relation, list) else [relation]) if isinstance(one, str)]
    if isinstance(relation, list) and len(words) < len(relation):
        return frozenset()
    return frozenset(_relation(word) for one in words for word in one.lower().split())


def _has_address(link: Any) -> bool:
    """Whether something in place of a link has an address, or is one."""
    if isinstance(link, str):
        return _ABSOLUTE.match(link.strip()) is not None
    return isinstance(link, dict) and not link.keys().isdisjoint(_ADDRESSES)


def _relation(word: str) -> str:
    """A relation as IANA registers it; of `nextPage`, `next-page` and other registers' URIs of it: `next`, where one may look."""
    plain = _IANA.sub("", word)
    return _NEXT if _NEXT in _SEGMENTS.split(plain)[-1] else plain
