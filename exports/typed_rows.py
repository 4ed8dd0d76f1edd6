"""The rows of a view with typed cells, for SQL that reads it: numbers, booleans, jsonb for lists, text for everything else.

A value that does not fit its column is null, as it is an empty field in a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from psycopg.sql import SQL, Composable, Identifier, Literal

from exports.catalogue import LoadedView
from exports.compiler import ANY_ROWS, MARK, Column, CompiledView, Source, compile_view, sql_type
from snapshots.identifying import SealedElements

NOTHING = SQL("(SELECT NULL::text AS connection, NULL::text AS id, NULL::jsonb AS body WHERE false)")


def typed_rows(
    view: LoadedView,
    rows: Composable,
    *,
    as_of: datetime | None = None,
    sealed: SealedElements | None = None,
) -> Composable:
    """Return a query for the rows of a view over resources of its type, a FROM item with (connection, id, body).

    Without `as_of` a view that asks for the moment is an error. `sealed`: what is encrypted in the store.

    Raises:
        ViewError: the view is wrong.
    """
    return _typed(compile_view(view.definition, Source(rows, of_type=True), marked=True, as_of=as_of, sealed=sealed))


def typed_rows_of(
    view: LoadedView, sources: Sequence[Composable], as_of: datetime, *, sealed: SealedElements | None
) -> Composable:
    """Return the same over the sources of a snapshot, one after the other."""
    source = Source(ANY_ROWS, of_type=True, one_connection=True)
    compiled = compile_view(view.definition, source, marked=True, as_of=as_of, sealed=sealed)
    parts = [_typed(compiled.over(rows)) for rows in sources or (NOTHING,)]
    return SQL(" UNION ALL ").join(SQL("({})").format(part) for part in parts)


def _typed(compiled: CompiledView) -> Composable:
    cells = SQL(", ").join(
        SQL("nullif({0}, {1})::{2} AS {0}").format(Identifier(one.name), Literal(MARK), SQL(_type(one)))
        for one in compiled.columns
    )
    return SQL('SELECT {} FROM ({}) AS "#v"').format(cells, compiled.query)


def _type(column: Column) -> str:
    return "jsonb" if column.collection else sql_type(column.type)
