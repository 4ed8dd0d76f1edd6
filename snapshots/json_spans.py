"""Finds the values in a JSON text: its structure, with a span of bytes for each scalar, so that one can be replaced in place.

Pure. A JSON parser must have accepted the text. `identifying` says what the values mean, `sealing` replaces spans.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeAlias

import orjson

# a string, or a member's name; brackets; a number, true, false or null
_TOKEN = re.compile(rb'[\s,]*(?:("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|([{\[])|([}\]])|([^\s,:"{}\[\]]+))', re.DOTALL)
_NAME, _OPENING, _CLOSING = 2, 3, 4
_BACKSLASH = ord("\\")

Span: TypeAlias = tuple[int, int]  # a string, number, true, false or null: text[start:end], quotation marks included


def has_unicode_escape(text: bytes) -> bool:
    r"""Whether a JSON text may have an escape like \u0041.

    Most texts have no backslash. To look for one byte takes 50 ns for a kB, to look for two of them 1.9 µs (CPython 3.11).
    """
    return _BACKSLASH in text and b"\\u" in text


class NotJsonError(ValueError):
    """The bytes are not a JSON value. The message quotes nothing."""


class Members(list[tuple[str, "Node"]]):
    """An object: its members as they are written, including a name that appears twice."""

    __slots__ = ()


class Items(list["Node"]):
    """An array."""

    __slots__ = ()


Node: TypeAlias = Span | Members | Items


def structure_of(text: bytes) -> Node:
    """Return the structure of one JSON value. Its depth costs no stack.

    Raises:
        NotJsonError: brackets do not match, a name is unreadable, or something follows the value.
    """
    holder: Members | Items = Items()
    holders = [holder]
    name = ""
    at = 0
    for token in _TOKEN.finditer(text):
        if token.start() != at:
            break
        at = token.end()
        kind = token.lastindex
        if kind == _NAME:
            name = _name(token[1])
            continue
        if kind == _CLOSING:
            if len(holders) == 1 or (type(holder) is Members) is not (token[_CLOSING] == b"}"):
                raise NotJsonError("brackets do not match")
            holders.pop()
            holder = holders[-1]
            continue
        node: Node
        if kind == _OPENING:
            node = Members() if token[_OPENING] == b"{" else Items()
            holders.append(node)
        else:
            node = token.span(kind or 0)
        if isinstance(holder, Members):
            holder.append((name, node))
        else:
            holder.append(node)
        holder = holders[-1]
    if len(holders) != 1 or len(holder) != 1 or text[at:].strip():
        raise NotJsonError("not one JSON value")
    return holders[0][0]  # type: ignore[return-value]  # the outermost is no object


@lru_cache(maxsize=4096)
def _name(literal: bytes) -> str:
    return text_of(literal)


def text_of(literal: bytes) -> str:
    """Return what a string literal says.

    Raises:
        NotJsonError: it is not UTF-8, or an escape in it means nothing.
    """
    try:
        return literal[1:-1].decode() if b"\\" not in literal else str(orjson.loads(literal))
    except ValueError:
        raise NotJsonError("an unreadable string") from None
