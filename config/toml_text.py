"""Reads the text of a configuration file as TOML, and says of a text that is none what a person did, and in which line.

What the tree then means is `settings`'. The usual accidents: a word processor's quotes and dashes, a Windows path in double
quotes, an editor that saves UTF-16.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from typing import Any

from config.errors import Problem

THE_FILE = "(the file)"
DOUBLE_QUOTES = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033"
SINGLE_QUOTES = "\u2018\u2019\u201a\u201b\u2039\u203a\u2032"
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_ESCAPE = re.compile(r'\\(["\\bfnrt]|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})')
_MULTI_LINE = ('"""', "'''")


def tree_of(raw: bytes) -> tuple[dict[str, Any], list[Problem]]:
    """Return the tables that the bytes say, and what is wrong: with a problem the tree is empty."""
    if b"\x00" in raw[:64]:
        return {}, [_utf16()]
    try:
        # a byte-order mark before each part of a file that was put together; within a line it is named below
        text = re.sub(r"^\ufeff+", "", raw.decode("utf-8"), flags=re.MULTILINE)
    except UnicodeDecodeError as exc:
        return {}, [_not_utf8(raw, exc.start)]
    try:
        return tomllib.loads(text), []
    except tomllib.TOMLDecodeError as exc:
        accidents = list(_accidents(text))
        return {}, accidents or [Problem(THE_FILE, str(exc), "TOML, see https://toml.io")]


def _utf16() -> Problem:
    return Problem(THE_FILE, 'UTF-16, which some editors call "Unicode"', "TOML in UTF-8: save it as UTF-8")


def _not_utf8(raw: bytes, at: int) -> Problem:
    if raw.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return _utf16()
    line = raw.count(b"\n", 0, at) + 1
    return Problem(
        f"line {line}", "bytes that are not UTF-8", "TOML in UTF-8: save it as UTF-8, not as Latin-1 or Windows-1252"
    )


def _accidents(text: str) -> Iterator[Problem]:
    """What people did in place of TOML, line by line; nothing where strings go over lines."""
    if any(mark in text for mark in _MULTI_LINE):
        return
    for number, line in enumerate(text.splitlines(), start=1):
        code, has_bad_escape = _scanned(line)
        found = _lookalike(code)
        if found is None and has_bad_escape:
            found = (
                "a backslash in double quotes, where it begins an escape",
                "folders separated by /, or the text in single quotes: 'C:\\keys\\epic.pem'",
            )
        if found is not None:
            yield Problem(f"line {number}", *found)


def _scanned(line: str) -> tuple[str, bool]:
    """A line without its strings and its comment; and whether a double-quoted string has an escape that is none.

    A path to a folder has one too: the quote after its last backslash is escaped, and the string never ends.
    """
    code, quote, at, last_escape = "", "", 0, ""
    while at < len(line):
        sign = line[at]
        at += 1
        if not quote:
            if sign == "#":
                break
            quote = sign if sign in "\"'" else ""
            code += sign
        elif sign == quote:
            quote = ""
        elif sign == "\\" and quote == '"':
            escape = _ESCAPE.match(line, at - 1)
            if escape is None:
                return code, True
            last_escape, at = escape[0], escape.end()
    return code, quote == '"' and last_escape == '\\"'


def _lookalike(code: str) -> tuple[str, str] | None:
    """The first sign outside of strings that only looks like one of TOML's, and what to write."""
    for sign in code:
        if sign in DOUBLE_QUOTES:
            return f"{sign}, a typographic quote", 'the straight quote: "'
        if sign in SINGLE_QUOTES:
            return f"{sign}, a typographic quote", "the straight quote: \" or '"
        if sign in DASHES:
            return f"{sign}, a typographic dash", "the hyphen: -"
        if not sign.isascii() and (sign.isspace() or unicodedata.category(sign) in ("Cf", "Zs")):
            return (
                f"{unicodedata.name(sign, 'a sign that is not seen').lower()} (U+{ord(sign):04X}), which is not seen",
                ("a usual space, or nothing"),
            )
    return None


def texts(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of the tree with its key path."""
    for key, value in tree.items():
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, str):
            yield where, value
        elif isinstance(value, Mapping):
            yield from texts(value, where)
        elif isinstance(value, list):
            yield from texts({str(place): each for place, each in enumerate(value)}, where)


def pasted_problem(text: str) -> tuple[str, str] | None:
    """Return what is wrong with any value: quotes or spaces that came along, signs that are not seen, a path's escape."""
    if any(end and end in DOUBLE_QUOTES + SINGLE_QUOTES for end in (text[:1], text[-1:])):
        return "a value with typographic quotes around it", "the value in straight quotes, once"
    for sign in text:
        if sign == "\ufeff" or unicodedata.category(sign) == "Cf":
            return f"a sign in it that is not seen (U+{ord(sign):04X})", "the value without it: type it anew"
        if unicodedata.category(sign) == "Cc":
            shown = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}.get(sign, f"\\u{ord(sign):04X}")
            return (
                f"a control character, as {shown} in double quotes makes it",
                "one line; a path has its folders separated by /, or stands in single quotes",
            )
    return None
