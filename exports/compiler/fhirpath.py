"""FHIRPath text to syntax tree: the lexer and the parser.

Owns the grammar (FHIRPath 2.0.0, "Formal Specifications"; the subset of SQL on FHIR v2 is a part of it). `resolution` decides
what an expression means on FHIR data, and which functions exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from exports.compiler.moments import is_moment
from exports.compiler.syntax import (
    Binary,
    Call,
    Empty,
    Index,
    Literal,
    Member,
    Node,
    Quantity,
    This,
    Unary,
    Variable,
)
from exports.errors import FhirPathError

MAX_NESTING = 60  # brackets within brackets; Python's own stack is the limit behind it


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
CALENDAR_UNITS = {
    name: unit
    for unit in ("year", "month", "week", "day", "hour", "minute", "second", "millisecond")
    for name in (unit, f"{unit}s")
}
_LITERALS = frozenset({"time", "datetime", "date", "number", "string"})
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


def without_literals(text: str) -> str:
    """Return an expression with `*` for each character of its texts, dates and numbers; everything else stays in place."""
    return _TOKEN.sub(lambda token: re.sub("[^']", "*", token[0]) if token.lastgroup in _LITERALS else token[0], text)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    offset = 0
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if match is None:
            raise FhirPathError(f"{text[offset]!r} cannot start an expression", offset=offset)
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
            operator = self._take()
            left = Binary(operator.text, left, self.expression(rank), at=operator.offset)
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
            operator = self._take()
            return Unary(operator.text, self.expression(_UNARY_RANK), at=operator.offset)
        return self._postfix(self._term())

    def _postfix(self, node: Node) -> Node:
        while True:
            if self._is("."):
                self._at += 1
                node = self._invocation(node)
            elif self._is("["):
                bracket = self._take()
                node = Index(node, self.expression(0), at=bracket.offset)
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
            return Empty(at=token.offset)
        if token.kind == "this":
            self._at += 1
            if token.text != "$this":
                raise FhirPathError(f"{token.text} is not supported yet", offset=token.offset, allowed="$this")
            return This(at=token.offset)
        if token.kind == "variable":
            self._at += 1
            name = token.text[1:]
            return Variable(_unquote(name, token.offset + 1) if name[0] in "'`" else name, at=token.offset)
        if token.kind in _LITERALS or token.text in {"true", "false"}:
            self._at += 1
            return self._quantity(_literal(token), token.offset)
        return self._invocation(None)

    def _quantity(self, literal: Literal, offset: int) -> Node:
        """Return the literal, or a quantity if a unit follows the number."""
        if literal.type not in {"integer", "decimal"} or isinstance(literal.value, (str, bool)):
            return literal
        if self._next.kind == "string":
            return Quantity(literal.value, _unquote(self._take().text, offset), at=offset)
        if self._next.kind == "name" and self._next.text in CALENDAR_UNITS:
            return Quantity(literal.value, CALENDAR_UNITS[self._take().text], at=offset)
        return literal

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
            return Member(of, name, at=token.offset)
        self._at += 1
        arguments: list[Node] = []
        while not self._is(")"):
            arguments.append(self.expression(0))
            if not self._is(")"):
                self._expect(",")
                if self._is(")"):
                    raise self._unexpected("an argument")
        self._at += 1
        return Call(of, name, tuple(arguments), at=token.offset)


def _literal(token: _Token) -> Literal:
    text, at = token.text, token.offset
    if token.kind == "string":
        return Literal(_unquote(text, at), "string", at=at)
    if token.kind == "number":
        return Literal(Decimal(text), "decimal", at=at) if "." in text else Literal(int(text), "integer", at=at)
    if token.kind == "name":
        return Literal(text == "true", "boolean", at=at)
    if token.kind == "time":
        return Literal(_real(text[2:], at), "time", at=at)
    type_ = "dateTime" if token.kind == "datetime" else "date"
    return Literal(_real(text[1:].removesuffix("T"), at), type_, at=at)


def _real(text: str, offset: int) -> str:
    """Return the text of a date or time, if such a day and time of day exist."""
    if not is_moment(text):
        raise FhirPathError(f"there is no such day or time as {text}", offset=offset)
    return text


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
                f"\\{mark} is not an escape",
                offset=offset + at,
                allowed="\\' \\\" \\` \\\\ \\/ \\n \\r \\t \\f \\uXXXX",
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
