"""Parses JSON from outside: an EHR's answer, a token, a key, several outcomes in a file. Pure.

The callers interpret it. JSON that cannot be parsed raises an error; it never passes for empty JSON. A name that an object has
twice has no known value, because readers differ (RFC 8259, 4), so the last one is not taken. The caller sees what an object has
under unknown names (`objects_beside`): a list whose name is misspelt is not an empty list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import orjson

_BOM = b"\xef\xbb\xbf"
_BEGINS = re.compile(r"\n(?=[{\[])")
_MOST_FAILURES = 1_000  # to find where values begin in a text of none: a bound against nonsense
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NAME = re.compile(rb'[{,\s]*("(?:[^"\\]|\\.)*")\s*:\s*')
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\],]', re.DOTALL)
_CLOSED_BY = {b"{": b"}", b"[": b"]"}
_CLOSING = frozenset(_CLOSED_BY.values())
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")


_COUNT = re.compile(r"\s*(\d{1,18})(?:\.0*)?\s*", re.ASCII)


class UnreadableJsonError(ValueError):
    """Bytes that are not one JSON value. The message quotes nothing."""


class RepeatedNameError(UnreadableJsonError):
    """An object in which one name appears twice."""


class Twice:
    """The value of a name that one object has twice. No format has a value of this type, so no reader mistakes it for one."""


TWICE: Final = Twice()


class Piece(NamedTuple):
    """A part of a text: one JSON value, or, if `readable` is False, text that is not JSON."""

    start: int  # number of lines before it
    raw: bytes
    value: Any
    readable: bool


def unmarked(text: bytes) -> bytes:
    """The text without a UTF-8 byte order mark, which servers on Windows write and RFC 8259 lets a reader drop."""
    return text.removeprefix(_BOM)


def bare(body: bytes) -> bytes:
    """A whole answer's text in UTF-8, without a byte order mark.

    Some write UTF-16 or UTF-32, which RFC 4627 allowed. JSON begins with ASCII, so its first four bytes show which.
    """
    coding = json.detect_encoding(body[:4])
    if not coding.startswith("utf-8"):
        try:
            return body.decode(coding).removeprefix("\ufeff").encode()
        except UnicodeError:
            return body  # and is no JSON
    return unmarked(body)


def json_from(body: bytes) -> Any:
    """Read one JSON value. A name that appears twice in one object has the value `TWICE`.

    Raises:
        UnreadableJsonError: the bytes are not one JSON value.
    """
    text = bare(body)
    try:
        orjson.loads(text)  # the strict one: no NaN, no lone surrogate
        return _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        pass  # raised outside: the errors hold the document
    raise UnreadableJsonError("not valid JSON")


def members_of(body: bytes) -> dict[str, bytes]:
    """The members of one JSON object, each as the bytes that stand there; much faster than reading it.

    Raises: RepeatedNameError: a name appears twice.
        UnreadableJsonError: the bytes are not one JSON object.
    """
    try:
        found = {name: bytes(raw) for name, raw in _MEMBERS.decode(body).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableJsonError("not a JSON object") from None
    # of a name that stands twice the reader above gives only the last: then what it gave does not fill the text
    at = 0
    for name, value in found.items():
        here = _NAME.match(body, at)
        if here is None or json_from(here[1]) != name or not body.startswith(value, here.end()):
            raise RepeatedNameError("one name appears twice in it")
        at = here.end() + len(value)
    if body[at:].strip(b"{ \t\r\n") != b"}":
        raise RepeatedNameError("one name appears twice in it")
    return found


def parts_of(body: bytes) -> list[bytes]:
    """The members of one object, or the items of one list, as the bytes between its commas, whatever each of them is.

    So a text that JSON does not allow (a raw line feed, half a surrogate pair, NaN) costs only the part in which it is.

    Raises:
        UnreadableJsonError: quotes or brackets do not match, so nobody can know where a part ends.
    """
    text = body.strip()
    closing: list[bytes] = []
    cuts, end = [0], 0
    for token in _TOKEN.finditer(text) if text[:1] in _CLOSED_BY else ():
        mark = token[0]
        if mark in _CLOSED_BY:
            closing.append(_CLOSED_BY[mark])
        elif mark == b"," and len(closing) == 1:
            cuts.append(token.start())
        elif mark == b'"' or (mark in _CLOSING and closing.pop() != mark):
            break
        if not closing:
            end = token.end()
            break
    if not end or end < len(text):
        raise UnreadableJsonError("quotes or brackets do not match")
    parts = [text[before + 1 : after].strip() for before, after in pairwise([*cuts, end - 1])]
    return [] if parts == [b""] else parts


def object_from(body: bytes) -> dict[str, Any]:
    """A JSON object's members; none if the bytes are anything else."""
    try:
        found = json_from(body)
    except UnreadableJsonError:
        return {}
    return found if isinstance(found, dict) else {}


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, or the single object in its place."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def objects_beside(document: Mapping[str, Any], known: Container[str]) -> Sequence[dict[str, Any]]:
    """The objects that stand, alone or in a list, under names that a format does not have.

    They may be its content under a misspelt name, as `Entry`. Names with a leading `_` extend primitive values (R4, JSON).
    """
    return [
        one
        for name, value in document.items()
        if name not in known and not name.startswith("_")
        for one in (value if isinstance(value, list) else [value])
        if isinstance(one, dict) and one
    ]


def count_from(value: Any) -> int | None:
    """How many somebody counted: a number, also as a text, also with a fraction of 0; None for what is no count."""
    found = _COUNT.fullmatch(str(value)) if type(value) in {int, float, str} else None
    return int(found[1]) if found else None


def pieces_of(body: bytes) -> Iterator[Piece]:
    """Split a text into its successive JSON values, each on one line or over several.

    Text that is not JSON becomes a separate piece, up to the next line that begins an object or a list.
    """
    text = unmarked(body).decode("utf-8", "surrogateescape")
    failures, at = 0, _begin(text, 0)
    line = text.count("\n", 0, at)
    while at < len(text):
        value, end = _value_at(text, at)
        readable = end is not None
        if end is None:
            failures += 1
            found = _BEGINS.search(text, at) if failures < _MOST_FAILURES else None
            end = found.end() if found else len(text)
        yield Piece(line, text[at:end].rstrip(" \t\r\n").encode("utf-8", "surrogateescape"), value, readable)
        begin = _begin(text, end)
        line += text.count("\n", at, begin)
        at = begin


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which a name that occurs twice has no value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                found[name] = TWICE
            seen.add(name)
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def _begin(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _value_at(text: str, at: int) -> tuple[Any, int | None]:
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, None
