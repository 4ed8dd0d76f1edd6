"""The columns of a table as those are told of them who read it: name, kind, FHIR type, FHIR path, meaning. Pure.

Paths and meanings are the view's own; which kind of values a column has follows from its FHIR type, or from the SQL type that its
tag asks for. How a format writes a kind is left to the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
IN_TWO: frozenset[Kind] = frozenset({"number", "date", "moment"})
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
    """The columns of a compiled view, with what its definition says of them."""
    paths: dict[str, list[str]] = {}
    meanings: dict[str, str] = {}
    for name, path, meaning in _described(definition, str(definition.get("resource", ""))):
        paths.setdefault(name, []).append(path)
        meanings.setdefault(name, meaning)
    return tuple(
        TableColumn(
            column.name, _kind(column), column.type, tuple(dict.fromkeys(paths[column.name])), meanings[column.name]
        )
        for column in columns
    )


def with_written(columns: Sequence[TableColumn]) -> tuple[TableColumn, ...]:
    """The columns of a typed file: those of the view, and behind each that no type holds as it is written the text."""
    return tuple(each for column in columns for each in (column, *_written(column)))


def _written(column: TableColumn) -> Iterator[TableColumn]:
    if column.kind in IN_TWO:
        name, meaning = column.name + WRITTEN, f"`{column.name}` as it is written. {column.meaning}".rstrip()
        yield TableColumn(name, "text", column.fhir_type, column.paths, meaning)


def _kind(column: Column) -> Kind:
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
