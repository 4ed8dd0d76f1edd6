"""Where the values of a JSON text stand: its structure, each scalar a span of bytes, so that one can be replaced in place.

Pure. The text is one that a JSON parser has accepted: what it says is left to `identifying`, what becomes of a span to `sealing`.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

import orjson

_TOKEN = re.compile(rb'[ \t\r\n]*(?:([{}\[\],:])|("(?:[^"\\]|\\.)*")|([^\s{}\[\],:"]+))')
_STRUCTURE, _STRING = 1, 2


class NotJsonError(ValueError):
    """The bytes are no JSON value. The message quotes nothing."""


class Span(NamedTuple):
    """A string, number, true, false or null: `text[start:end]`, quotation marks included."""

    start: int
    end: int


class Members(NamedTuple):
    """An object: its members as they are written, a name that stands twice included."""

    pairs: list[tuple[str, Node]]


class Items(NamedTuple):
    """An array."""

    nodes: list[Node]


Node: TypeAlias = Span | Members | Items


def structure_of(text: bytes) -> Node:
    """Return the structure of one JSON value. Its depth costs no stack.

    Raises:
        NotJsonError: brackets do not match, a name is unreadable, or something stands beside the value.
    """
    top = Items([])
    holders: list[Members | Items] = [top]
    name: str | None = None  # of the member whose value comes next
    at = 0
    for token in _TOKEN.finditer(text):
        if token.start() != at:
            break
        at = token.end()
        holder = holders[-1]
        node: Node
        if token.lastindex == _STRUCTURE:
            sign = token[1]
            if sign in b",:":
                continue
            if sign in b"}]":
                if len(holders) == 1 or isinstance(holder, Members) is not (sign == b"}"):
                    raise NotJsonError("brackets do not match")
                holders.pop()
                continue
            node = Members([]) if sign == b"{" else Items([])
        elif token.lastindex == _STRING and isinstance(holder, Members) and name is None:
            name = text_of(token[_STRING])
            continue
        else:
            node = Span(token.start(token.lastindex or 0), at)
        _put(holder, name, node)
        name = None
        if not isinstance(node, Span):
            holders.append(node)
    if len(holders) != 1 or len(top.nodes) != 1 or text[at:].strip(b" \t\r\n"):
        raise NotJsonError("not one JSON value")
    return top.nodes[0]


def _put(holder: Members | Items, name: str | None, node: Node) -> None:
    if isinstance(holder, Items):
        holder.nodes.append(node)
    elif name is None:
        raise NotJsonError("a value without a name")
    else:
        holder.pairs.append((name, node))


def text_of(literal: bytes) -> str:
    """Return what a string literal says.

    Raises:
        NotJsonError: it is not UTF-8, or an escape in it means nothing.
    """
    try:
        return literal[1:-1].decode() if b"\\" not in literal else str(orjson.loads(literal))
    except ValueError:
        raise NotJsonError("an unreadable string") from None
