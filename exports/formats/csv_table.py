"""CSV: the rows of one view, RFC 4180 with a header, null as an empty field, lists as JSON text.

Also tells what a database error on a view's data means: Postgres' own words may quote a resource, so they never go further.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from exports.compiler import CompiledView, compile_view
from exports.errors import ViewDataError
from exports.snapshot_port import RowChunks, Snapshot
from snapshots.errors import StoreQueryError

_OURS = re.compile(r'chartferry: ([^"]*)')


def csv_rows(snapshot: Snapshot, definition: Mapping[str, Any]) -> RowChunks:
    """The rows of a view over the snapshot.

    Raises:
        ViewError: the definition cannot be compiled.
    """
    compiled = compile_view(definition, snapshot.source(str(definition.get("resource", ""))))
    return snapshot.csv(as_written(compiled))


def as_written(view: CompiledView) -> Composable:
    """The view's query with booleans as `true` and `false`: COPY would write `t` and `f`."""
    columns = SQL(", ").join(
        SQL("v.{0}::text AS {0}").format(Identifier(column.name))
        if column.type == "boolean" and not column.collection
        else SQL("v.{}").format(Identifier(column.name))
        for column in view.columns
    )
    return SQL("SELECT {} FROM ({}) AS v").format(columns, view.query)


def is_data_error(error: StoreQueryError) -> bool:
    """Whether the data did not fit the query (SQLSTATE classes 21 and 22), and not the query the database."""
    return (error.sqlstate or "")[:2] in {"21", "22"}


def data_error(view: str, error: StoreQueryError) -> ViewDataError:
    """What went wrong on the data, without a value of it."""
    cause = error.__cause__
    told = _OURS.search(cause.diag.message_primary or "") if isinstance(cause, psycopg.Error) else None
    if told:
        return ViewDataError(f"view {view!r}: {told.group(1)}")
    return ViewDataError(
        f"view {view!r}: a value does not fit the type that its column or comparison needs (SQLSTATE {error.sqlstate});"
        " declare the column as string to see it"
    )
