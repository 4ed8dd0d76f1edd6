"""What a selection adds to a query: cells, joins, and the order of its rows.

`cell_sql` writes the value of a cell; `sql` decides which joins there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from exports.compiler.cell_sql import is_looked_up
from exports.compiler.fragments import SQL, Fragment, Identifier
from exports.compiler.typed_tree import Constant, RowIndex
from exports.compiler.value_sql import Environment
from exports.compiler.view_tree import ColumnNode


@dataclass(frozen=True)
class Cell:
    """The value of a column, of a Postgres type."""

    node: ColumnNode
    value: Fragment
    sql_type: str

    @property
    def null(self) -> Fragment:
        """What stands here in a null row (SQL on FHIR v2: only `%rowIndex` has a value there)."""
        zero = SQL("'[0]'" if self.node.collection else "'0'")
        return SQL("{}::{}").format(zero if isinstance(self.node.value, RowIndex) else SQL("NULL"), SQL(self.sql_type))


@dataclass(frozen=True)
class Rows:
    """What a selection adds to a query: cells, FROM items to the right of what is there, ordinals (bigint) to order by."""

    cells: tuple[Cell, ...] = ()
    joins: tuple[Fragment, ...] = ()
    order: tuple[Fragment, ...] = ()

    def __add__(self, other: Rows) -> Rows:
        return Rows(self.cells + other.cells, self.joins + other.joins, self.order + other.order)


def listed(items: Iterable[Fragment]) -> Fragment:
    """Fragments with commas between them."""
    return SQL(", ").join(tuple(items))


def is_own(node: ColumnNode) -> bool:
    """Whether a branch of a union computes the column by itself, whatever rows it is given."""
    return isinstance(node.value, (Constant, RowIndex))


def own_name(at: int) -> Fragment:
    """The name of a column that the branches of a union compute by themselves."""
    return Identifier(f"#own{at}")


def order_name(at: int) -> Fragment:
    """The name of an ordinal."""
    return Identifier(f"#{at}")  # no column can have this name


def cells_and_order(cells: Sequence[Cell], order: Sequence[Fragment], width: int) -> Fragment:
    """What a subquery selects: the cells and this many ordinals, NULL for those that are missing."""
    items = [SQL("{} AS {}").format(cell.value, Identifier(cell.node.name)) for cell in cells]
    for at in range(width):
        ordinal = order[at] if at < len(order) else SQL("NULL")
        items.append(SQL("{}::bigint AS {}").format(ordinal, order_name(at)))
    return listed(items)


def null_with(found: Cell, environment: Environment) -> Cell:
    """The cell in a left join: null if the item is, whatever its expression gives without an item."""
    if is_looked_up(found.node.value, environment) and not found.node.collection and found.node.ansi is None:
        return found
    value = SQL("CASE WHEN {} IS NOT NULL THEN {} ELSE {} END").format(environment.focus, found.value, found.null)
    return replace(found, value=value)
