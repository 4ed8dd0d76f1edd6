"""The columns of a table as described to its readers: name, kind, FHIR type, FHIR path, meaning. Pure.

Paths and meanings are the view's own; the kind of values follows from a column's FHIR type, or from the SQL type that its tag
requests. Each format decides how it writes a kind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from exports.compiler import Column

Kind = Literal["text", "boolean", "integer", "long", "number", "date", "moment", "list"]
_OF_FHIR: dict[str, Kind] = {
    "boolean": "boolean",
    **dict.fromkeys(("integer", "positiveInt", "unsignedInt"), "integer"),
    "integer64": "long",
    "decimal": "number",
    "date": "date",
    **dict.fromkeys(("dateTime", "instant"), "moment"),
}
_OF_SQL: dict[str, Kind] = {
    "boolean": "boolean",
    **dict.fromkeys(("smallint", "integer"), "integer"),
    "bigint": "long",
    **dict.fromkeys(("numeric", "real", "double precision"), "number"),
    "date": "date",
    **dict.fromkeys(("timestamp", "timestamptz"), "moment"),
}
IN_TWO_COLUMNS: frozenset[Kind] = frozenset({"date", "moment"})  # in one form, and beside it as written
_TWO_IN_TYPED_FILES: frozenset[Kind] = frozenset({"number"})
WRITTEN = "_written"


@dataclass(frozen=True)
class TableColumn:
    """One column. `paths`: from the resource on, one for each branch of a union that fills it."""

    name: str
    kind: Kind
    fhir_type: str
    paths: tuple[str, ...]
    meaning: str


def table_columns(columns: Sequence[Column], definition: Mapping[str, Any]) -> tuple[TableColumn, ...]:
    """The columns of a compiled view's tables, with what its definition says about them.

    For days and moments also `x_written`.
    """
    paths: dict[str, list[str]] = {}
    meanings: dict[str, str] = {}
    for name, path, meaning in _described(definition, str(definition.get("resource", ""))):
        paths.setdefault(name, []).append(path)
        meanings.setdefault(name, meaning)
    names, found = [column.name for column in columns], []
    for column in columns:
        one = TableColumn(
            column.name, kind_of(column), column.type, tuple(dict.fromkeys(paths[column.name])), meanings[column.name]
        )
        found += [one, *([_written(one)] if is_beside_written(column, names) else [])]
    return tuple(found)


def is_beside_written(column: Column, names: Collection[str]) -> bool:
    """Whether a column's table has it as written too; `names` are the view's own, which come first."""
    return kind_of(column) in IN_TWO_COLUMNS and column.name + WRITTEN not in names


def with_written_numbers(columns: Sequence[TableColumn]) -> tuple[TableColumn, ...]:
    """The columns of a typed file, which has numbers as doubles: behind each the digits as written."""
    names = {column.name for column in columns}
    return tuple(
        each
        for column in columns
        for each in (column, *([_written(column)] if has_digits_beside(column, names) else []))
    )


def has_digits_beside(column: TableColumn, names: Collection[str]) -> bool:
    """Whether a typed file has a column's digits too; `names` are those of its table, which come first."""
    return column.kind in _TWO_IN_TYPED_FILES and column.name + WRITTEN not in names


def _written(column: TableColumn) -> TableColumn:
    meaning = f"`{column.name}` as it is written. {column.meaning}".rstrip()
    return TableColumn(column.name + WRITTEN, "text", column.fhir_type, column.paths, meaning)


def kind_of(column: Column) -> Kind:
    """Which kind of values a column of a view has."""
    if column.collection:
        return "list"
    return _OF_SQL.get(column.ansi, "text") if column.ansi else _OF_FHIR.get(column.type, "text")


def _described(selection: Mapping[str, Any], focus: str) -> Iterator[tuple[str, str, str]]:
    """Name, path from the resource on, and meaning of every column of a selection, unions with all their branches."""
    iterated = selection.get("forEach", selection.get("forEachOrNull"))
    if iterated is not None:
        focus = below(focus, iterated)
    elif "repeat" in selection:
        focus = f"{focus}.repeat({' | '.join(selection['repeat'])})"
    for column in selection.get("column", ()):
        yield column["name"], below(focus, column["path"]), str(column.get("description", ""))
    for inner in (*selection.get("select", ()), *selection.get("unionAll", ())):
        yield from _described(inner, focus)


def below(focus: str, path: str) -> str:
    """A FHIRPath expression that stands on `focus`, written from the resource on."""
    if path == "$this":
        return focus
    if not _looks_into_focus(path):
        return path
    if path.startswith("$this."):
        path = path.removeprefix("$this.")
    return f"{focus}.{path}" if _is_chain(path) else f"{focus}.select({path})"


def _looks_into_focus(path: str) -> bool:
    """Whether it is more than a constant or a variable."""
    return (path[:1].isalpha() and path not in {"true", "false"}) or path.startswith(("$this", "(", "`"))


def _is_chain(path: str) -> bool:
    """Whether it is one path: nothing outside brackets and quotes that separates two."""
    depth, quoted = 0, False
    for sign in path:
        if sign == "'":
            quoted = not quoted
        elif not quoted and sign in "([":
            depth += 1
        elif not quoted and sign in ")]":
            depth -= 1
        elif not quoted and depth == 0 and not (sign.isalnum() or sign in "._`"):
            return False
    return not path.startswith("(")
