"""The typed tree: what each node of an expression is on FHIR data, its type, and whether it may hold more than one item.

Only shapes: how a syntax tree becomes typed is left to `resolution`, how a typed tree becomes SQL to `expression_sql`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from exports.compiler.elements import NUMBER_TYPES, STRING_TYPES, TEMPORAL_TYPES


@dataclass(frozen=True, kw_only=True)
class Expression:
    """`type` is the FHIR type of its items (None: unknown), `many` whether there may be more than one."""

    type: str | None = None
    many: bool = False


@dataclass(frozen=True, kw_only=True)
class Focus(Expression):
    """The item in focus: the resource, the item of an iteration, or the item that a criterion looks at."""


@dataclass(frozen=True, kw_only=True)
class Resource(Expression):
    """The resource that the row comes from."""


@dataclass(frozen=True, kw_only=True)
class Connection(Expression):
    """Name of the connection that the resource came from (`%connection`, our own variable: ids are unique only within one)."""

    type: str | None = "string"


@dataclass(frozen=True, kw_only=True)
class RowIndex(Expression):
    """0-based position in the innermost iteration (`%rowIndex`)."""

    type: str | None = "integer"


@dataclass(frozen=True, kw_only=True)
class Nothing(Expression):
    """The empty collection."""


@dataclass(frozen=True, kw_only=True)
class Constant(Expression):
    """A value known before any data: a literal, or a constant of the view."""

    value: str | bool | int | Decimal


@dataclass(frozen=True, kw_only=True)
class Child(Expression):
    """The values of an element. `keys`: the JSON properties it may be in (several: a choice not narrowed by `ofType`)."""

    of: Expression
    name: str
    keys: tuple[str, ...]
    repeats: bool  # whether one parent may have several
    known: bool  # whether `elements` knows it


@dataclass(frozen=True, kw_only=True)
class Filter(Expression):
    """The items for which `criterion`, with the item as focus, is true."""

    of: Expression
    criterion: Expression


@dataclass(frozen=True, kw_only=True)
class At(Expression):
    """The item at `index`; -1: the last."""

    of: Expression
    index: int


@dataclass(frozen=True, kw_only=True)
class Exists(Expression):
    """Whether there is any item (`empty()`: `negated`)."""

    of: Expression
    negated: bool = False
    type: str | None = "boolean"


@dataclass(frozen=True, kw_only=True)
class Count(Expression):
    """How many items there are."""

    of: Expression
    type: str | None = "integer"


@dataclass(frozen=True, kw_only=True)
class Not(Expression):
    """Three-valued negation."""

    of: Expression
    type: str | None = "boolean"


@dataclass(frozen=True, kw_only=True)
class Logic(Expression):
    """Three-valued `and`, `or`, `xor`, `implies`."""

    operator: str
    left: Expression
    right: Expression
    type: str | None = "boolean"


@dataclass(frozen=True, kw_only=True)
class Comparison(Expression):
    """`=`, `!=`, `<`, `<=`, `>`, `>=`."""

    operator: str
    left: Expression
    right: Expression
    type: str | None = "boolean"


@dataclass(frozen=True, kw_only=True)
class Arithmetic(Expression):
    """`+ - * / div mod` on numbers; `+` also joins strings (`type` is then string)."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, kw_only=True)
class Join(Expression):
    """The strings of a collection in one."""

    of: Expression
    separator: str
    type: str | None = "string"


@dataclass(frozen=True, kw_only=True)
class ReferenceKey(Expression):
    """The id that a literal reference points to, where it points to a `target` (None: to anything)."""

    of: Expression
    target: str | None
    type: str | None = "string"


def category(type_: str | None) -> str | None:
    """The sort of value: boolean, number, string, temporal, complex; None where the type is unknown."""
    if type_ is None or type_ == "boolean":
        return type_
    for name, types in (("number", NUMBER_TYPES), ("temporal", TEMPORAL_TYPES), ("string", STRING_TYPES)):
        if type_ in types:
            return name
    return "complex"
