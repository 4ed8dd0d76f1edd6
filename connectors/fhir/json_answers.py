"""Parses JSON from outside: an EHR's answer, a token, a key, several outcomes in a file. Pure.

The callers interpret it. JSON that cannot be parsed raises an error; it never passes for empty JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

_BOM = b"\xef\xbb\xbf"
_BEGINS = re.compile(r"\n(?=[{\[])")
_MOST_FAILURES = 1_000  # to find where values begin in a text of none: a bound against nonsense
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")


_COUNT = re.compile(r"\s*(\d{1,18})(?:\.0*)?\s*", re.ASCII)


class UnreadableJsonError(ValueError):
    """Bytes that are not one JSON value. The message quotes nothing."""


class Piece(NamedTuple):
    """A part of a text: one JSON value, or, if `readable` is False, text that is not JSON."""

    start: int  # number of lines before it
    raw: bytes
    value: Any
    readable: bool


def bare(body: bytes) -> bytes:
    """The text without a UTF-8 byte order mark, which servers on Windows write and RFC 8259 lets a reader drop."""
    return body.removeprefix(_BOM)


def json_from(body: bytes) -> Any:
    """Read one JSON value.

    Raises:
        UnreadableJsonError: the bytes are not one JSON value.
    """
    try:
        return orjson.loads(bare(body))
    except orjson.JSONDecodeError:
        pass  # raised outside: orjson's error holds the document
    raise UnreadableJsonError("not valid JSON")


def count_from(said: Any) -> int | None:
    """How many somebody counted: a number, also as a text, also with a fraction of 0; None for what is no count."""
    found = _COUNT.fullmatch(str(said)) if type(said) in {int, float, str} else None
    return int(found[1]) if found else None


def pieces_of(body: bytes) -> Iterator[Piece]:
    """Split a text into its successive JSON values, each on one line or over several.

    Text that is not JSON becomes a separate piece, up to the next line that begins an object or a list.
    """
    text = bare(body).decode("utf-8", "surrogateescape")
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


def _begin(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _value_at(text: str, at: int) -> tuple[Any, int | None]:
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, None
