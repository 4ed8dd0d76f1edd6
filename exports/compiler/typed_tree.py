"""The typed tree: what each node of an expression is on FHIR data, its type, and whether it may hold more than one item.

Shapes only: `resolution` makes the tree, `expression_sql` turns it into SQL.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from exports.elements.table import NUMBER_TYPES, STRING_TYPES, TEMPORAL_TYPES

Path: TypeAlias = tuple[tuple[str, ...], ...]  # at each step the JSON properties that it may be


@dataclass(frozen=True, kw_only=True)
class Expression:
    """`type` is the FHIR type of its items (None: unknown), `many` whether R4 allows more than one.

    Data may hold several all the same: what is written for an expression may use `many` for speed, and never rely on it.
    """

    type: str | None = None
    many: bool = False


@dataclass(frozen=True, kw_only=True)
class Focus(Expression):
    """The item in focus: the resource, the item of an iteration, or the item that a criterion looks at.

    `path`: as `path_of` gives it. `sealed`: the element that it is an encrypted value of. `computed`: a result, no data.
    """

    path: Path | None = field(default=None, compare=False)
    sealed: Child | None = field(default=None, compare=False)
    computed: bool = False


@dataclass(frozen=True, kw_only=True)
class Resource(Expression):
    """The resource that the row comes from."""


@dataclass(frozen=True, kw_only=True)
class Context(Expression):
    """The focus at the expression's start, as named within a criterion (`%context`). The fields are those of Focus."""

    path: Path | None = field(default=None, compare=False)
    sealed: Child | None = field(default=None, compare=False)
    computed: bool = False


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
    repeats: bool = True  # whether R4 says that one parent may have several; True where R4 does not know the element
    sealed_at: int | None = None  # it may be encrypted in the store; at which character (0-based) it is named
    sealed_keys: frozenset[str] = frozenset()  # the properties that may be


@dataclass(frozen=True, kw_only=True)
class Filter(Expression):
    """The items for which `criterion`, with the item as focus, is true."""

    of: Expression
    criterion: Expression


@dataclass(frozen=True, kw_only=True)
class At(Expression):
    """The item at `index`; -1: the last. `only`: it is an error if there are several (`single()`)."""

    of: Expression
    index: int
    only: bool = False


@dataclass(frozen=True, kw_only=True)
class Slice(Expression):
    """The items from `start` on, at most `length` of them (None: all)."""

    of: Expression
    start: int
    length: int | None = None


@dataclass(frozen=True, kw_only=True)
class ComputedSlice(Expression):
    """The items from `start` on, at most `length` of them (None: all); both are known only on the row."""

    of: Expression
    start: Expression
    length: Expression | None = None


@dataclass(frozen=True, kw_only=True)
class Select(Expression):
    """All items of `projection`, evaluated with each item as focus."""

    of: Expression
    projection: Expression


@dataclass(frozen=True, kw_only=True)
class Union(Expression):
    """The items of both sides, one after the other."""

    left: Expression
    right: Expression


@dataclass(frozen=True, kw_only=True)
class Distinct(Expression):
    """The items without repetition: the first of equal ones."""

    of: Expression


@dataclass(frozen=True, kw_only=True)
class Iif(Expression):
    """`then` if the criterion is true, else `otherwise`; the other one is not evaluated."""

    criterion: Expression
    then: Expression
    otherwise: Expression


@dataclass(frozen=True, kw_only=True)
class All(Expression):
    """Whether the criterion is true for every item."""

    of: Expression
    criterion: Expression
    type: str | None = "boolean"


@dataclass(frozen=True, kw_only=True)
class Membership(Expression):
    """Whether `item`, one at most, is among the items of `collection`."""

    item: Expression
    collection: Expression
    type: str | None = "boolean"


@dataclass(frozen=True, kw_only=True)
class Equivalence(Expression):
    """`~`: equal in any order, texts without regard to case and spaces; always true or false. `negated`: `!~`."""

    left: Expression
    right: Expression
    negated: bool = False
    type: str | None = "boolean"


@dataclass(frozen=True, kw_only=True)
class Ampersand(Expression):
    """Two texts joined; the empty collection counts as the empty text."""

    left: Expression
    right: Expression
    type: str | None = "string"


@dataclass(frozen=True, kw_only=True)
class Conversion(Expression):
    """toString(), toInteger(), toDecimal(), toBoolean(): `type` says to what; empty if the item cannot be converted."""

    of: Expression


@dataclass(frozen=True, kw_only=True)
class TextFunction(Expression):
    """A function of one text, `name` as FHIRPath calls it; empty if the text or an argument is."""

    name: str
    of: Expression
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, kw_only=True)
class Boundary(Expression):
    """lowBoundary() or highBoundary() of a decimal, date, date-time or time. `precision` in digits; None: all of the type's."""

    of: Expression
    high: bool
    precision: int | None


@dataclass(frozen=True, kw_only=True)
class Shifted(Expression):
    """A date, date-time or time, `amount` of `unit` (year, month, week, day, hour, minute, second, millisecond) later."""

    of: Expression
    amount: Decimal
    unit: str


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
    """The strings of a collection, joined."""

    of: Expression
    separator: str
    type: str | None = "string"


@dataclass(frozen=True, kw_only=True)
class ResourceKey(Expression):
    """The id of the resource that the row comes from."""

    type: str | None = "id"


@dataclass(frozen=True, kw_only=True)
class ContainedKey(Expression):
    """The keys of contained resources: the id of the resource that holds them, `#`, and their own."""

    of: Expression
    type: str | None = "string"


@dataclass(frozen=True, kw_only=True)
class ReferenceKey(Expression):
    """The key of what a reference points to, if that is a `target` (None: anything)."""

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
