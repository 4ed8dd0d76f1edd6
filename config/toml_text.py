"""Reads a configuration file as TOML; if it is not TOML, says which mistake was made, and in which line.

`settings` interprets the tree. The usual mistakes: a word processor's quotes and dashes, a Windows path in double quotes,
an editor that saves UTF-16.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from config.errors import Problem

THE_FILE = "(the file)"
DOUBLE_QUOTES = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033"
SINGLE_QUOTES = "\u2018\u2019\u201a\u201b\u2039\u203a\u2032"
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_ESCAPE = re.compile(r'\\(["\\bfnrt]|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})')
_HEADER = re.compile(r"\s*\[(?P<array>\[?)\s*(?P<name>[\w.\"' -]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"\s*(?P<name>[\w.-]+)\s*=")
_OPEN_TABLE = re.compile(r"[^{]*=\s*\{[^}]*\Z")
_OPEN_LIST = re.compile(r"\s*[\w.-]+\s*=\s*\[[^\]]*\Z")
_MOST_LINES = 200  # of one value; a longer one is judged line by line
# of a line without its comment and what its strings hold
_SLIPS = (
    (
        re.compile(r"\s*\[+[\w.-]*[ \t]+[\w.-]+[^\]=]*\]"),
        "a table's name with a blank in it",
        "a name without blanks, such as [connections.mercy-epic]",
    ),
    (
        _OPEN_TABLE,
        "an inline table { … } that goes on in the next line",
        "one line; or a table of its own, such as [connections.NAME.profile]",
    ),
    (
        re.compile(r"\s*\{\s*([\"']|\Z)"),
        "a { where a line begins, as in JSON",
        "[connections.NAME], and below it key = value",
    ),
    (
        _OPEN_LIST,
        "a list over several lines that is not closed, or has a value without quotes",
        "texts in quotes, a comma between two, and a ] at its end",
    ),
    (
        re.compile(r"""\s*[\w.-]+\s*=\s*\[(?:\s*(?:""|'')\s*,)*\s*(?!(?:true|false|inf|nan)\b)[A-Za-z_/~$<.\\@%*]"""),
        "a value without quotes in a list",
        'each text in quotes: key = ["value", "value"]',
    ),
    (re.compile(r".*;\s*\Z"), "a semicolon after a value", "the value alone: each key has its own line"),
    (re.compile(r"\s*[\w.-]+\s*:"), "a colon after a key", "an equals sign: key = value"),
    (re.compile(r".*\b(True|False)\b"), "True or False with a capital", "true or false"),
    (re.compile(r"\s*[\w.-]+\s*=[^\[{]*,\s*\Z"), "a comma after a value", "the value alone: each key has its own line"),
    (
        re.compile(r"(?:[^\"']|\"\"|'')*[\"']\Z"),
        "text that no quote ends in its line",
        'a quote at both ends: key = "value"',
    ),
    (
        re.compile(r"\s*[\w.-]+\s*=\s*(?!(?:true|false|inf|nan)\s*\Z)[A-Za-z_/~$<.\\@%*]"),
        "a value without quotes",
        'text in quotes: key = "value"',
    ),
    (re.compile(r"\s*[\w.-]+\s*=\s*\Z"), "a key without a value", "key = value, or no such line"),
)
_MULTI_LINE = ('"""', "'''")


def tree_of(raw: bytes) -> tuple[dict[str, Any], list[Problem]]:
    """Return the tables in the bytes, and the problems; with a problem the tree is empty."""
    if b"\x00" in raw[:64]:
        return {}, [_utf16()]
    try:
        # concatenated files have a byte-order mark before each part; one within a line is reported below
        text = re.sub(r"^\ufeff+", "", raw.decode("utf-8"), flags=re.MULTILINE)
    except UnicodeDecodeError as exc:
        return {}, [_not_utf8(raw, exc.start)]
    try:
        return tomllib.loads(text), []
    except tomllib.TOMLDecodeError as exc:
        accidents = list(_accidents(text)) or list(_repetitions(text)) or list(_slips(text))
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
    """Yield the usual mistakes, line by line; none if the file has multi-line strings."""
    if any(mark in text for mark in _MULTI_LINE):
        return
    for number, line in enumerate(text.splitlines(), start=1):
        code, has_bad_escape = _scanned(line)
        found = _lookalike(code)
        if found is None and has_bad_escape:
            found = (
                "a backslash in double quotes, where it starts an escape",
                "separate folders with /, or put the text in single quotes: 'C:\\keys\\epic.pem'",
            )
        if found is not None:
            yield Problem(f"line {number}", *found)


def _repetitions(text: str) -> Iterator[Problem]:
    """Yield duplicate names: TOML allows each table, and each key of a table, once."""
    first: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = re.sub(r"[\s\"']", "", header["name"])
            if header["array"]:  # each is a separate table
                table += f"[{number}]"
            named, found = (table, ""), f"the table [{table}] a second time"
            allowed = "each table once: put all its keys below the first"
        elif key := _KEY.match(line):
            named, found = (table, key["name"]), f"the key {key['name']} a second time"
            allowed = "each key of a table once"
        else:
            continue
        if named in first:
            yield Problem(f"line {number}", f"{found}, after line {first[named]}", allowed)
        first.setdefault(named, number)


def _slips(text: str) -> Iterator[Problem]:
    """Yield what other formats allow and TOML does not, of the lines that are no TOML."""
    lines, at, in_list = text.splitlines(), 0, False
    while at < len(lines):
        if in_list and not (_HEADER.match(lines[at]) or _KEY.match(lines[at])):  # an item, or where the list ended
            at += 1
            continue
        if right := _lines_of_toml(lines[at : at + _MOST_LINES]):
            at += right
            continue
        at += 1
        code, _ = _scanned(lines[at - 1])
        slip = next((each for each in _SLIPS if each[0].match(code)), None)
        if slip is not None:
            pattern, found, allowed = slip
            yield Problem(f"line {at}", found, allowed)
            in_list = in_list or pattern is _OPEN_LIST
        if any(mark in code for mark in _MULTI_LINE) or (slip is not None and slip[0] is _OPEN_TABLE):
            return  # what follows would be judged as if it were outside


def _lines_of_toml(lines: Sequence[str]) -> int:
    """Return how many of the lines, from the first on, one right table, key or comment takes; 0: none."""
    goes_on = "[" in lines[0] or any(mark in lines[0] for mark in _MULTI_LINE)
    for count in range(1, len(lines) + 1 if goes_on else 2):
        try:
            tomllib.loads("\n".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue
        return count
    return 0


def _scanned(line: str) -> tuple[str, bool]:
    """Return a line without its comment and what its strings hold, and whether a double-quoted string has an invalid escape.

    A path to a folder has one too: its last backslash escapes the quote, and the string never ends.
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
            code += sign
            quote = ""
        elif sign == "\\" and quote == '"':
            escape = _ESCAPE.match(line, at - 1)
            if escape is None:
                return code, True
            last_escape, at = escape[0], escape.end()
    return code, quote == '"' and last_escape == '\\"'


def _lookalike(code: str) -> tuple[str, str] | None:
    """Return the first character outside strings that only looks like one of TOML's, and what to write instead."""
    for sign in code:
        if sign in DOUBLE_QUOTES:
            return f"{sign}, a typographic quote", 'the straight quote: "'
        if sign == "`":
            return "`, a backtick", "the straight quote: \" or '"
        if sign in SINGLE_QUOTES:
            return f"{sign}, a typographic quote", "the straight quote: \" or '"
        if sign in DASHES:
            return f"{sign}, a typographic dash", "the hyphen: -"
        if not sign.isascii() and (sign.isspace() or unicodedata.category(sign) in ("Cf", "Zs")):
            return (
                f"{unicodedata.name(sign, 'an invisible character').lower()} (U+{ord(sign):04X}), which is invisible",
                ("an ordinary space, or nothing"),
            )
    return None


def texts(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string in the tree with its key path."""
    for key, value in tree.items():
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, str):
            yield where, value
        elif isinstance(value, Mapping):
            yield from texts(value, where)
        elif isinstance(value, list):
            yield from texts({str(place): each for place, each in enumerate(value)}, where)


def pasted_problem(text: str) -> tuple[str, str] | None:
    """Return what is wrong with a pasted value: a key, stray quotes, invisible characters, an escape in a path."""
    if "-----BEGIN " in text:
        return "the key itself, not shown", "file:PATH or env:NAME: a key is kept outside this file"
    if any(end and end in DOUBLE_QUOTES + SINGLE_QUOTES for end in (text[:1], text[-1:])):
        return "a value with typographic quotes around it", "the value in straight quotes, once"
    for sign in text:
        if sign == "\ufeff" or unicodedata.category(sign) == "Cf":
            return f"an invisible character (U+{ord(sign):04X}) in the value", "the value without it: type it again"
        if unicodedata.category(sign) == "Cc":
            shown = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}.get(sign, f"\\u{ord(sign):04X}")
            return (
                f"a control character, which {shown} in double quotes produces",
                "one line; for a path, separate folders with /, or use single quotes",
            )
    return None
