"""The typed tree of a view: selections, and the columns in them.

Shapes only, above those of `typed_tree`: `view_definition` reads a ViewDefinition into them, `sql` writes their query.
"""

from __future__ import annotations

from dataclasses import dataclass

from exports.compiler.ansi_type import AnsiType
from exports.compiler.scalar_sql import sql_type
from exports.compiler.typed_tree import Expression


@dataclass(frozen=True)
class ColumnNode:
    """One column: its value on the focus of its selection, its FHIR type, and whether it holds a list."""

    name: str
    value: Expression
    type: str
    collection: bool
    ansi: AnsiType | None = None
    sealed: bool = False  # its values may be encrypted

    @property
    def sql_type(self) -> str:
        """The Postgres type of its values."""
        if self.ansi is not None:
            return self.ansi.sql
        return "jsonb" if self.collection else sql_type(self.type)


@dataclass(frozen=True)
class Selection:
    """One selection structure. `each`: what it iterates over; `repeat`: the paths that it follows down and down.

    Neither: it stands on its parent's focus.
    """

    each: Expression | None
    repeat: tuple[Expression, ...]
    or_null: bool
    columns: tuple[ColumnNode, ...]
    select: tuple[Selection, ...]
    union: tuple[Selection, ...]

    @property
    def iterates(self) -> bool:
        """Whether it gives rows of its own."""
        return self.each is not None or bool(self.repeat)

    def all_columns(self) -> tuple[ColumnNode, ...]:
        """Every column in output order: own, those of nested selections, those of the union's first branch."""
        nested = tuple(column for inner in self.select for column in inner.all_columns())
        return self.columns + nested + (self.union[0].all_columns() if self.union else ())


@dataclass(frozen=True)
class View:
    """A ViewDefinition that may be run."""

    name: str
    resource: str
    where: tuple[Expression, ...]
    select: Selection  # unnamed: it holds the view's top-level selections
    notes: tuple[str, ...] = ()  # what R4 does not have, with its place
    of_r4: bool = True  # whether it is for R4, so that this is a mistake
