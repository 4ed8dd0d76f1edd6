"""What differs between two documents: pointers to the smallest values, numbers as they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.element_changes import element_changes

NAMES = st.sampled_from(["a", "b", "a/b", "~", "~1", "0", ""])
LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "1"])
DOCUMENTS = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))


def changes(old: str, new: str) -> list[tuple[str, bytes | None, bytes | None]]:
    return [tuple(one) for one in element_changes(old, new)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('{"a": 1.0}', '{"a": 1.00}', [("/a", b"1.0", b"1.00")]),
        ('{"a": 1}', '{"a": true}', [("/a", b"1", b"true")]),
        ('{"a": 1}', '{"a": "1"}', [("/a", b"1", b'"1"')]),
        ('{"a": null}', "{}", [("/a", b"null", None)]),
        ("{}", '{"a": [1]}', [("/a", None, b"[1]")]),
        ('{"a": [{"b": 1}, 2]}', '{"a": [{"b": 3}]}', [("/a/0/b", b"1", b"3"), ("/a/1", b"2", None)]),
        ('{"a/b": 1, "~": 1}', '{"a/b": 2, "~": 2}', [("/a~1b", b"1", b"2"), ("/~0", b"1", b"2")]),
        ("[]", "{}", [("", b"[]", b"{}")]),
        ('{"b": 1, "a": 123456789012345678901234567890}', '{"a": 123456789012345678901234567890, "b": 1}', []),
    ],
)
def test_the_smallest_values_that_differ_are_named_as_they_are_written(
    old: str, new: str, expected: list[object]
) -> None:
    assert changes(old, new) == expected


def test_values_nested_too_deeply_are_compared_as_a_whole() -> None:
    old, new = ("[" * 100_000 + inner + "]" * 100_000 for inner in ("1", "2"))
    assert changes(old, new) == [("", old.encode(), new.encode())]


def _put(document: Any, pointer: str, new: bytes | None) -> Any:
    """The document with another value at a pointer; None takes it away."""
    if not pointer:
        return json.loads(new or b"null")
    *way, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
    holder = document
    for part in way:
        holder = holder[int(part)] if isinstance(holder, list) else holder[part]
    if isinstance(holder, list):
        at = int(last)
        holder[at : at + 1] = [] if new is None else [json.loads(new)]
    elif new is None:
        del holder[last]
    else:
        holder[last] = json.loads(new)
    return document


@given(DOCUMENTS, DOCUMENTS)
def test_applying_the_changes_to_one_document_gives_the_other(old: Any, new: Any) -> None:
    document = json.loads(json.dumps(old))
    found = changes(json.dumps(old), json.dumps(new))
    for pointer, _, after in [one for one in found if one[2] is not None] + [
        one for one in found[::-1] if one[2] is None
    ]:
        document = _put(document, pointer, after)
    assert json.dumps(document, sort_keys=True) == json.dumps(new, sort_keys=True)
    assert bool(found) == (json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True))
