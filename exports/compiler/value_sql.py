"""What an expression is in SQL before it becomes a column, a row or a criterion, and the names that it may refer to.

An expression becomes a `Value` of one of five kinds. Computed ones are native: `boolean`, `number` (numeric) and `text`, where
SQL NULL is the empty collection. Stored ones are jsonb: an `item`, where JSON null is the empty collection, or `items`, an array
without nulls.

No expression raises an error by itself, whatever the data. If the data leave an expression without an honest value (several
values where one is wanted, a text that is no number), the caller's choice takes its place: SQL that raises, or SQL NULL, which
makes everything computed from it NULL too, up to the column, row or criterion. So jsonb kinds may be NULL unless `safe`; native
ones never hold such a value.

Each kind of node is written by the module that registers it with `lowers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal as OneOf
from typing import TypeAlias, TypeVar

from exports.compiler.fragments import SQL, Fragment, Identifier, Literal
from exports.compiler.scalar_sql import Odd
from exports.compiler.typed_tree import Constant, Expression, Nothing

Kind: TypeAlias = OneOf["boolean", "number", "text", "item", "items"]
SEVERAL = "has more than one value; use first(), forEach or collection: true"
MAX_STAGED = 500  # Postgres takes 1,664 columns, and the view's own are among them


@dataclass(frozen=True)
class Value:
    """The SQL of an expression. `safe`: no data can make it a dishonest value, so jsonb kinds are never NULL."""

    sql: Fragment
    kind: Kind
    safe: bool = True


class Stage:
    """Look-ups that are done once per row for all who use them: columns that are added to a FROM item."""

    def __init__(self, alias: Fragment, numbers: Iterator[int], below: Stage | None = None) -> None:
        self._alias, self._numbers, self._below = alias, numbers, below
        self._found: dict[Fragment, Fragment] = {}
        self._above: Stage | None = None

    @property
    def above(self) -> Stage:
        """The stage for what is looked up in the columns of this one."""
        if self._above is None:
            self._above = Stage(self._alias, self._numbers, self)
        return self._above

    def __len__(self) -> int:
        """How many columns it and those below it add."""
        return len(self._found) + (0 if self._below is None else len(self._below))

    def column(self, sql: Fragment) -> Fragment:
        """The column that holds what `sql` gives on the row; the same for the same SQL."""
        if sql not in self._found:
            if len(self) >= MAX_STAGED:
                return sql
            self._found[sql] = Identifier(f"f{next(self._numbers)}")
        return SQL("{}.{}").format(self._alias, self._found[sql])

    def around(self, rows: Fragment, order: Fragment = SQL("")) -> Fragment:  # noqa: B008 - it cannot be changed
        """`rows`, a FROM item that carries the alias itself, with these columns beside its own.

        `order`: the ORDER BY that the rows have already, repeated since Postgres forgets it otherwise.
        """
        if self._found:
            columns = [SQL(", {} AS {}").format(sql, name) for sql, name in self._found.items()]
            rows = SQL("(SELECT {a}.*{columns} FROM {rows}{order} OFFSET 0) AS {a}").format(
                a=self._alias, columns=SQL("").join(columns), rows=rows, order=order
            )
        return rows if self._above is None else self._above.around(rows, order)


@dataclass(frozen=True)
class Environment:
    """Where an expression stands: the SQL of what it may refer to, and what stands for values that are not honest."""

    focus: Fragment  # jsonb
    resource: Fragment  # jsonb
    resource_id: Fragment  # text
    connection: Fragment  # text
    row_index: Fragment  # integer
    odd: Odd
    numbers: Iterator[int]  # for names that no other part of the query has
    stage: Stage | None = None
    context: Fragment | None = None  # jsonb, what was in focus where the expression begins; None: it still is
    lenient: bool = False  # criteria that cannot be decided drop the item, and not the whole collection

    def staged(self, sql: Fragment) -> Fragment:
        """A look-up in the focus, done once per row if possible."""
        return self.stage.column(sql) if self.stage is not None else sql

    def on(self, focus: Fragment) -> Environment:
        """The same environment with another item in focus, inside an expression."""
        context = self.focus if self.context is None else self.context
        return replace(self, focus=focus, stage=None, context=context, lenient=False)

    def poison(self, problem: str) -> Fragment:
        """Jsonb that represents a value that is not honest."""
        return self.odd.poison(problem)

    def name(self, letter: str) -> Fragment:
        """A name that is not used yet."""
        return Identifier(f"{letter}{next(self.numbers)}")


_Lower = Callable[..., Value]
_LOWER: dict[type[Expression], _Lower] = {}
_F = TypeVar("_F", bound=_Lower)


def lowers(*kinds: type[Expression]) -> Callable[[_F], _F]:
    """Register a function (node, environment) that writes nodes of these kinds."""

    def register(function: _F) -> _F:
        _LOWER.update(dict.fromkeys(kinds, function))
        return function

    return register


def lower(node: Expression, environment: Environment) -> Value:
    """The SQL of an expression, in whatever kind is natural to it."""
    return _LOWER[type(node)](node, environment)


def bound(environment: Environment, values: Sequence[Fragment], use: Callable[..., Fragment]) -> Fragment:
    """`use` of values that are computed once."""
    row = environment.name("q")
    columns = [Identifier(f"v{at}") for at in range(len(values))]
    listed = SQL(", ").join([SQL("{} AS {}").format(sql, name) for sql, name in zip(values, columns, strict=True)])
    names = [SQL("{}.{}").format(row, name) for name in columns]
    return SQL("(SELECT {} FROM (SELECT {} OFFSET 0) AS {})").format(use(*names), listed, row)


def as_items(value: Value, environment: Environment) -> Value:
    """The same as a jsonb array."""
    if value.kind == "items":
        return value
    if value.kind == "item":
        template = "CASE WHEN {v} = 'null' THEN '[]' WHEN {v} IS NOT NULL THEN jsonb_build_array({v}) END"
    else:
        template = "CASE WHEN {v} IS NULL THEN '[]' ELSE jsonb_build_array({v}) END"
    array = bound(environment, [value.sql], lambda v: SQL(template).format(v=v))
    return Value(array, "items", value.safe)


def as_item(value: Value, environment: Environment, problem: str = SEVERAL) -> Value:
    """The same as one jsonb value; several items have no honest value."""
    if value.kind == "item":
        return value
    if value.kind != "items":
        return Value(SQL("COALESCE(to_jsonb({}), 'null')").format(value.sql), "item")
    one = bound(
        environment,
        [value.sql],
        lambda a: SQL("CASE jsonb_array_length({a}) WHEN 1 THEN {a} -> 0 WHEN 0 THEN 'null' ELSE {odd} END").format(
            a=a, odd=environment.poison(problem)
        ),
    )
    return Value(one, "item", safe=False)


def items(node: Expression, environment: Environment) -> Value:
    """All items of an expression, as a jsonb array."""
    return as_items(lower(node, environment), environment)


def item(node: Expression, environment: Environment) -> Value:
    """The one item of an expression."""
    return as_item(lower(node, environment), environment)


def _checked(node: Expression, environment: Environment, native: Kind, good: str, problem: str) -> Value:
    """The one item if it is `good` (SQL on `{v}`), else no honest value; a value that is natively of the kind stays as it is."""
    found = lower(node, environment)
    if found.kind == native:
        return found
    if isinstance(node, Nothing):
        return Value(SQL("NULL::{}").format(SQL({"number": "numeric"}.get(native, native))), native)
    one = as_item(found, environment)
    template = f"CASE WHEN {{v}} = 'null' OR ({good}) THEN {{v}} ELSE {{odd}} END"
    checked = bound(environment, [one.sql], lambda v: SQL(template).format(v=v, odd=environment.poison(problem)))
    return Value(checked, "item", safe=False)


def number(node: Expression, environment: Environment) -> Value:
    """The one item as a number to calculate with: a numeric, or an item that is one or empty."""
    if isinstance(node, Constant) and isinstance(node.value, (int, Decimal)) and not isinstance(node.value, bool):
        return Value(SQL("{}::numeric").format(Literal(str(node.value))), "number")
    good = "CASE jsonb_typeof({v}) WHEN 'number' THEN abs({v}::numeric) < 1e308 ELSE false END"
    return _checked(node, environment, "number", good, "needs a number, but holds something else")


def text(
    node: Expression, environment: Environment, problem: str = "needs a string, but holds something else"
) -> Value:
    """The one item as a text: a text, or an item that is a string or empty."""
    if isinstance(node, Constant) and isinstance(node.value, str):
        return Value(SQL("{}::text").format(Literal(node.value)), "text")
    return _checked(node, environment, "text", "COALESCE(jsonb_typeof({v}) = 'string', false)", problem)


def truth(node: Expression, environment: Environment, *, strict: bool) -> Value:
    """The one item as a boolean; any other item counts as true (FHIRPath 2.0.0 §4.5), or is not honest where `strict`."""
    if isinstance(node, Constant) and isinstance(node.value, bool):
        return Value(SQL("true" if node.value else "false"), "boolean")
    if strict:
        problem = "needs a boolean, but holds something else"
        return _checked(node, environment, "boolean", "COALESCE(jsonb_typeof({v}) = 'boolean', false)", problem)
    found = lower(node, environment)
    if found.kind == "boolean":
        return found
    one = as_item(found, environment)
    template = (
        "CASE jsonb_typeof({v}) WHEN 'boolean' THEN {v} WHEN 'null' THEN {v}"
        " ELSE CASE WHEN {v} IS NOT NULL THEN 'true'::jsonb END END"
    )
    return Value(bound(environment, [one.sql], lambda v: SQL(template).format(v=v)), "item", one.safe)


_AS_NATIVE: dict[str, str] = {
    "boolean": "CASE jsonb_typeof({v}) WHEN 'boolean' THEN {v}::boolean END",
    "number": "CASE jsonb_typeof({v}) WHEN 'number' THEN {v}::numeric END",
    "text": "({v} #>> '{{}}')",
    "items": "{v}",
    "item": "{v}",
}


def computed(
    environment: Environment,
    operands: Sequence[tuple[Value, Kind]],
    result: Kind,
    use: Callable[..., Fragment],
    *,
    first_decides: bool = False,
) -> Value:
    """`use` of operands, each as the kind that stands with it; no honest value where one of them has none.

    `use` gets and, for a native `result`, gives SQL NULL for empty. `first_decides`: where the first operand, native or an item,
    is empty, the result is, whatever the others are.
    """
    native = result in {"boolean", "number", "text"}
    if all(value.safe and value.kind == kind for value, kind in operands):
        return Value(use(*[value.sql for value, _ in operands]), result)

    def combined(*names: Fragment) -> Fragment:
        given = [
            SQL(_AS_NATIVE[kind]).format(v=name) if value.kind != kind else name
            for name, (value, kind) in zip(names, operands, strict=True)
        ]
        found = use(*given)
        if native:
            found = SQL("COALESCE(to_jsonb({}), 'null')").format(found)
        doubtful = [name for name, (value, _) in zip(names, operands, strict=True) if not value.safe]
        if not doubtful:
            return found
        honest = SQL(" AND ").join([SQL("{} IS NOT NULL").format(name) for name in doubtful])
        return SQL("CASE WHEN {} THEN {} END").format(honest, found)

    def decided(first: Fragment) -> Fragment:
        is_none = SQL("{} = 'null'" if operands[0][0].kind == "item" else "{} IS NULL").format(first)
        none = SQL("'[]'::jsonb" if result == "items" else "'null'::jsonb")
        # the others within the CASE: they may raise
        others = bound(environment, further, lambda *names: combined(first, *names))
        return SQL("CASE WHEN {} THEN {} ELSE {} END").format(is_none, none, others)

    first, *further = [value.sql for value, _ in operands]
    safe = all(value.safe for value, _ in operands)
    lazily = first_decides and not all(value.safe for value, _ in operands[1:])
    sql = bound(environment, [first], decided) if lazily else bound(environment, [first, *further], combined)
    return Value(sql, "item" if native else result, safe)
