"""The syntax tree of FHIRPath: its node types, and the text of a tree.

Every node knows `at`, its 0-based position in the text, so that an error can point there; a comparison of trees ignores it.
`fhirpath` reads text into a tree, `resolution` decides what a tree means.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class _Placed:
    at: int = field(default=-1, compare=False, repr=False)


@dataclass(frozen=True)
class Literal(_Placed):
    """A constant. `type` is the FHIR type its written form has: string, boolean, integer, decimal, date, dateTime, time."""

    value: str | bool | int | Decimal
    type: str


@dataclass(frozen=True)
class Quantity(_Placed):
    """A number with a unit, `3 months` or `3 'h'`."""

    value: int | Decimal
    unit: str


@dataclass(frozen=True)
class Empty(_Placed):
    """The empty collection, `{}`."""


@dataclass(frozen=True)
class This(_Placed):
    """The item in focus, `$this`."""


@dataclass(frozen=True)
class Variable(_Placed):
    """`%name`: a constant of the view or a variable of the environment."""

    name: str


@dataclass(frozen=True)
class Member(_Placed):
    """`of.name`; `of` None: a name at the start of a path."""

    of: Node | None
    name: str


@dataclass(frozen=True)
class Index(_Placed):
    """`of[index]`."""

    of: Node
    index: Node


@dataclass(frozen=True)
class Call(_Placed):
    """`of.name(arguments)`; `of` None: a function called on the focus."""

    of: Node | None
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Unary(_Placed):
    """`-operand` or `+operand`."""

    operator: str
    operand: Node


@dataclass(frozen=True)
class Binary(_Placed):
    """`left operator right`; for `is` and `as`, `right` is the type's name as a path."""

    operator: str
    left: Node
    right: Node


Node: TypeAlias = Literal | Quantity | Empty | This | Variable | Member | Index | Call | Unary | Binary


def unparse(node: Node) -> str:
    """An expression that parses to the same tree; fully bracketed, for messages and tests."""
    match node:
        case Literal():
            return _unparse_literal(node)
        case Quantity(value, unit):
            return f"{format(value, 'f') if isinstance(value, Decimal) else value} {_quote(unit, chr(39))}"
        case Empty():
            return "{}"
        case This():
            return "$this"
        case Variable(name):
            return f"%{_quote(name, '`')}"
        case Member(of, name):
            return f"{_prefix(of)}{_quote(name, '`')}"
        case Index(of, index):
            return f"{_bracketed(of)}[{unparse(index)}]"
        case Call(of, name, arguments):
            return f"{_prefix(of)}{_quote(name, '`')}({', '.join(map(unparse, arguments))})"
        case Unary(operator, operand):
            return f"({operator}{_bracketed(operand)})"
        case Binary(operator, left, right):
            return f"({_bracketed(left)} {operator} {_bracketed(right)})"


def _prefix(of: Node | None) -> str:
    return "" if of is None else f"{_bracketed(of)}."


def _bracketed(node: Node) -> str:
    return f"({unparse(node)})" if isinstance(node, (Literal, Quantity, Unary, Binary)) else unparse(node)


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
