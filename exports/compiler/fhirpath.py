"""FHIRPath text to syntax tree: the lexer, the parser and the tree's node types.

Owns the grammar (FHIRPath 2.0.0, "Formal Specifications"; the subset that SQL on FHIR v2 builds on is a part of it). What an
expression means on FHIR data, and which functions exist, is left to `resolution`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from exports.errors import FhirPathError

MAX_NESTING = 60  # brackets within brackets; Python's own stack is the limit behind it


@dataclass(frozen=True)
class Literal:
    """A constant. `type` is the FHIR type its written form has: string, boolean, integer, decimal, date, dateTime, time."""

    value: str | bool | int | Decimal
    type: str


@dataclass(frozen=True)
class Empty:
    """The empty collection, `{}`."""


@dataclass(frozen=True)
class This:
    """The item in focus, `$this`."""


@dataclass(frozen=True)
class Variable:
    """`%name`: a constant of the view or a variable of the environment."""

    name: str


@dataclass(frozen=True)
class Member:
    """`of.name`; `of` None: a name at the start of a path."""

    of: Node | None
    name: str


@dataclass(frozen=True)
class Index:
    """`of[at]`."""

    of: Node
    at: Node


@dataclass(frozen=True)
class Call:
    """`of.name(arguments)`; `of` None: a function called on the focus."""

    of: Node | None
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Unary:
    """`-operand` or `+operand`."""

    operator: str
    operand: Node


@dataclass(frozen=True)
class Binary:
    """`left operator right`; for `is` and `as`, `right` is the type's name as a path."""

    operator: str
    left: Node
    right: Node


Node: TypeAlias = Literal | Empty | This | Variable | Member | Index | Call | Unary | Binary

# precedence, low to high; every binary operator of FHIRPath associates to the left
_PRECEDENCE = {
    operator: rank
    for rank, operators in enumerate(
        (
            ("implies",),
            ("or", "xor"),
            ("and",),
            ("in", "contains"),
            ("=", "~", "!=", "!~"),
            ("<", "<=", ">", ">="),
            ("|",),
            ("is", "as"),
            ("+", "-", "&"),
            ("*", "/", "div", "mod"),
        ),
        start=1,
    )
    for operator in operators
}
_UNARY_RANK = max(_PRECEDENCE.values()) + 1

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*|/\*.*?\*/)
  | (?P<time>@T\d{2}(?::\d{2}(?::\d{2}(?:\.\d+)?)?)?)
  | (?P<datetime>@\d{4}(?:-\d{2}(?:-\d{2})?)?T(?:\d{2}(?::\d{2}(?::\d{2}(?:\.\d+)?)?)?(?:Z|[+-]\d{2}:\d{2})?)?)
  | (?P<date>@\d{4}(?:-\d{2}(?:-\d{2})?)?)
  | (?P<number>\d+(?:\.\d+)?)
  | (?P<string>'(?:[^'\\]|\\.)*')
  | (?P<delimited>`(?:[^`\\]|\\.)*`)
  | (?P<variable>%(?:[A-Za-z_][A-Za-z0-9_-]*|`(?:[^`\\]|\\.)*`|'(?:[^'\\]|\\.)*'))
  | (?P<this>\$[A-Za-z]+)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<symbol><=|>=|!=|!~|[.,()\[\]{}+\-*/&|<>=~])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}
_PLAIN_ESCAPES = frozenset("'\"`\\/")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    offset: int


def parse(text: str) -> Node:
    """The syntax tree of one expression.

    Raises:
        FhirPathError: the text is not an expression; says at which character and what was expected.
    """
    parser = _Parser(_tokens(text))
    try:
        node = parser.expression(0)
    except RecursionError:
        raise FhirPathError("the expression is nested too deeply") from None
    parser.expect_end()
    return node


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    offset = 0
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if match is None:
            raise FhirPathError(f"{text[offset]!r} starts nothing that FHIRPath knows", offset=offset)
        kind = match.lastgroup or ""
        if kind != "space":
            tokens.append(_Token(kind, match.group(), offset))
        offset = match.end()
    tokens.append(_Token("end", "", offset))
    return tokens


class _Parser:
    """Precedence climbing over a list of tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._nesting = 0

    def expression(self, floor: int) -> Node:
        """An expression whose operators all bind tighter than `floor`."""
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise FhirPathError("the expression is nested too deeply", offset=self._next.offset)
        left = self._unary()
        while (rank := self._binary_rank()) > floor:
            operator = self._take().text
            left = Binary(operator, left, self.expression(rank))
        self._nesting -= 1
        return left

    def expect_end(self) -> None:
        if self._next.kind != "end":
            raise self._unexpected("an operator or the end")

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _unexpected(self, wanted: str) -> FhirPathError:
        found = f"unexpected {self._next.text!r}" if self._next.kind != "end" else "unexpected end"
        return FhirPathError(found, offset=self._next.offset, allowed=wanted)

    def _is(self, text: str) -> bool:
        return self._next.text == text and self._next.kind in {"symbol", "name"}

    def _expect(self, text: str) -> None:
        if not self._is(text):
            raise self._unexpected(repr(text))
        self._at += 1

    def _binary_rank(self) -> int:
        return _PRECEDENCE.get(self._next.text, 0) if self._next.kind in {"symbol", "name"} else 0

    def _unary(self) -> Node:
        if self._is("-") or self._is("+"):
            operator = self._take().text
            return Unary(operator, self.expression(_UNARY_RANK))
        return self._postfix(self._term())

    def _postfix(self, node: Node) -> Node:
        while True:
            if self._is("."):
                self._at += 1
                node = self._invocation(node)
            elif self._is("["):
                self._at += 1
                node = Index(node, self.expression(0))
                self._expect("]")
            else:
                return node

    def _term(self) -> Node:
        token = self._next
        if self._is("("):
            self._at += 1
            node = self.expression(0)
            self._expect(")")
            return node
        if self._is("{"):
            self._at += 1
            self._expect("}")
            return Empty()
        if token.kind == "this":
            self._at += 1
            if token.text != "$this":
                raise FhirPathError(f"{token.text} is not supported yet", offset=token.offset, allowed="$this")
            return This()
        if token.kind == "variable":
            self._at += 1
            name = token.text[1:]
            return Variable(_unquote(name, token.offset + 1) if name[0] in "'`" else name)
        if token.kind in _LITERALS or token.text in {"true", "false"}:
            self._at += 1
            return _literal(token)
        return self._invocation(None)

    def _invocation(self, of: Node | None) -> Node:
        token = self._next
        if token.kind not in {"name", "delimited"}:
            raise self._unexpected("a name")
        # words such as `and` are names only after a dot, where no operator can stand
        if of is None and token.kind == "name" and token.text in {"and", "or", "xor", "implies", "div", "mod", "in"}:
            raise self._unexpected("a value")
        self._at += 1
        name = _unquote(token.text, token.offset) if token.kind == "delimited" else token.text
        if not self._is("("):
            return Member(of, name)
        self._at += 1
        arguments: list[Node] = []
        while not self._is(")"):
            arguments.append(self.expression(0))
            if not self._is(")"):
                self._expect(",")
                if self._is(")"):
                    raise self._unexpected("an argument")
        self._at += 1
        return Call(of, name, tuple(arguments))


_LITERALS = frozenset({"string", "number", "date", "datetime", "time"})


def _literal(token: _Token) -> Literal:
    text = token.text
    if token.kind == "string":
        return Literal(_unquote(text, token.offset), "string")
    if token.kind == "number":
        return Literal(Decimal(text), "decimal") if "." in text else Literal(int(text), "integer")
    if token.kind == "name":
        return Literal(text == "true", "boolean")
    if token.kind == "time":
        return Literal(text[2:], "time")
    return Literal(text[1:].removesuffix("T"), "dateTime" if token.kind == "datetime" else "date")


def _unquote(text: str, offset: int) -> str:
    parts: list[str] = []
    rest = iter(range(1, len(text) - 1))
    for at in rest:
        if text[at] != "\\":
            parts.append(text[at])
            continue
        mark = text[next(rest)]
        if mark == "u":
            digits = text[at + 2 : at + 6]
            if not re.fullmatch(r"[0-9A-Fa-f]{4}", digits):
                raise FhirPathError("\\u needs four hexadecimal digits", offset=offset + at)
            parts.append(chr(int(digits, 16)))
            for _ in range(4):
                next(rest)
        elif mark in _PLAIN_ESCAPES or mark in _ESCAPES:
            parts.append(_ESCAPES.get(mark, mark))
        else:
            raise FhirPathError(
                f"\\{mark} is no escape", offset=offset + at, allowed="\\' \\\" \\` \\\\ \\/ \\n \\r \\t \\f \\uXXXX"
            )
    plain = "".join(parts)
    try:
        # two \u escapes may spell one character above U+FFFF; a lone half of one is text that no database takes
        plain = plain.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise FhirPathError("the string holds half a surrogate pair", offset=offset) from None
    if "\0" in plain:
        raise FhirPathError("the string holds the character U+0000, which JSON in Postgres cannot", offset=offset)
    return plain


def unparse(node: Node) -> str:
    """An expression that parses to the same tree; fully bracketed, for messages and tests."""
    match node:
        case Literal():
            return _unparse_literal(node)
        case Empty():
            return "{}"
        case This():
            return "$this"
        case Variable(name):
            return f"%{_quote(name, '`')}"
        case Member(of, name):
            return f"{_prefix(of)}{_quote(name, '`')}"
        case Index(of, at):
            return f"{_bracketed(of)}[{unparse(at)}]"
        case Call(of, name, arguments):
            return f"{_prefix(of)}{_quote(name, '`')}({', '.join(map(unparse, arguments))})"
        case Unary(operator, operand):
            return f"({operator}{_bracketed(operand)})"
        case Binary(operator, left, right):
            return f"({_bracketed(left)} {operator} {_bracketed(right)})"


def _prefix(of: Node | None) -> str:
    return "" if of is None else f"{_bracketed(of)}."


def _bracketed(node: Node) -> str:
    return f"({unparse(node)})" if isinstance(node, (Literal, Unary, Binary)) else unparse(node)


def _quote(text: str, mark: str) -> str:
    return mark + json.dumps(text)[1:-1].replace('\\"', '"').replace("\\b", "\\u0008").replace(mark, "\\" + mark) + mark


def _unparse_literal(literal: Literal) -> str:
    if literal.type == "string":
        return _quote(str(literal.value), "'")
    if literal.type == "boolean":
        return "true" if literal.value else "false"
    if literal.type in {"integer", "decimal"}:
        return format(literal.value, "f") if isinstance(literal.value, Decimal) else str(literal.value)
    if literal.type == "time":
        return f"@T{literal.value}"
    text = str(literal.value)
    return f"@{text}T" if literal.type == "dateTime" and "T" not in text else f"@{text}"
