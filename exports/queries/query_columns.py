"""The columns of a query: the kind of each, by its SQL type, and its cells as the texts that files have.

Booleans are `true` and `false`, moments are ISO 8601 in UTC, arrays are JSON; everything else is as Postgres writes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.sql import SQL, Composable, Identifier

from exports.errors import QueryError
from exports.formats.table_columns import Kind, TableColumn, with_written_numbers

_KINDS: dict[str, Kind] = {
    "bool": "boolean",
    **dict.fromkeys(("int2", "int4"), "integer"),
    "int8": "long",
    **dict.fromkeys(("numeric", "float4", "float8"), "number"),
    "date": "date",
    **dict.fromkeys(("timestamp", "timestamptz"), "moment"),
}
_CELLS = {
    "bool": "{x}::text",
    "date": "to_jsonb({x}) #>> '{{}}'",
    "timestamp": "to_jsonb({x}) #>> '{{}}'",
    # as the moments of views (`written_forms`)
    "timestamptz": "CASE WHEN isfinite({x}) THEN replace(({x} AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' ELSE {x}::text END",
}


def query_columns(described: Sequence[tuple[str, str]], origin: str) -> tuple[TableColumn, ...]:
    """Return the columns of a query, of which the names and SQL types are known.

    Raises:
        QueryError: two have one name.
    """
    columns = tuple(TableColumn(name, _kind(type_), "", (), "") for name, type_ in described)
    names = [column.name for column in with_written_numbers(columns)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise QueryError(f"{origin}: two columns would be named {', '.join(twice)}; name one of them with AS")
    return columns


def as_texts(query: Composable, described: Sequence[tuple[str, str]]) -> Composable:
    """Return the query with cells as texts."""
    cells = SQL(", ").join(
        SQL("{} AS {}").format(SQL(_cell(type_)).format(x=Identifier(name)), Identifier(name))
        for name, type_ in described
    )
    return SQL('SELECT {} FROM ({}) AS "#t"').format(cells, query)


def _kind(type_: str) -> Kind:
    return "list" if type_.endswith("[]") else _KINDS.get(type_, "text")


def _cell(type_: str) -> str:
    return "to_jsonb({x})::text" if type_.endswith("[]") else _CELLS.get(type_, "{x}")
