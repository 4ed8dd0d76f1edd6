"""Finds what differs between two JSON documents, by JSON pointers (RFC 6901). Pure.

Numbers keep their written form: 1.0 and 1.00 differ, as they do in FHIR.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec


class ElementChange(NamedTuple):
    """What became of the value at a pointer. None: there was, or is, no value; JSON's own null is b"null"."""

    pointer: str  # "" is the whole document
    old: bytes | None  # as JSON
    new: bytes | None


def element_changes(old: str, new: str) -> Iterator[ElementChange]:
    """Yield what differs, in the order of the elements' names; the smallest values that differ, not what they are in.

    Items of a list are compared by their place: one that was put in front changes all after it. What is nested too deeply to be
    looked into differs as a whole.
    """
    try:
        before, after = _document(old), _document(new)
        changes = list(_changes("", before, after))
    except RecursionError:
        changes = [ElementChange("", old.encode(), new.encode())]
    yield from changes


def _document(text: str) -> Any:
    return json.loads(text, parse_float=msgspec.Raw, parse_int=msgspec.Raw)


def _changes(at: str, old: Any, new: Any) -> Iterator[ElementChange]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _within(f"{at}/{name.replace('~', '~0').replace('/', '~1')}", old, new, name)
    elif isinstance(old, list) and isinstance(new, list):
        before, after = dict(enumerate(old)), dict(enumerate(new))
        for place in range(max(len(old), len(new))):
            yield from _within(f"{at}/{place}", before, after, place)
    elif type(old) is not type(new) or old != new:
        yield ElementChange(at, msgspec.json.encode(old), msgspec.json.encode(new))


def _within(at: str, old: dict[Any, Any], new: dict[Any, Any], key: object) -> Iterator[ElementChange]:
    if key in old and key in new:
        yield from _changes(at, old[key], new[key])
    elif key in old:
        yield ElementChange(at, msgspec.json.encode(old[key]), None)
    else:
        yield ElementChange(at, None, msgspec.json.encode(new[key]))
