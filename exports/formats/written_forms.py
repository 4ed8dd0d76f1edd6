"""Days and moments of a view's rows in one form, beside the form in which the EHR wrote them.

A day is `2020-02-29`; a moment is in UTC, `2020-02-29T08:04:05.5Z`. A text that names none (`2019`, `2019-02-30`) has none, and
so has one beyond the years 1 to 9999. A day is its first moment, and what has no zone is taken to be in UTC. Digits beyond
microseconds are rounded, and second 60 is the next second. Postgres 15 reads no zone that is written without a colon.
"""

from __future__ import annotations

from psycopg.sql import SQL, Composable, Identifier, Literal

from exports.compiler import CompiledView
from exports.compiler.scalar_sql import MOMENT
from exports.formats.table_columns import IN_TWO_COLUMNS, WRITTEN, is_beside_written, kind_of
from exports.snapshot_port import Snapshot

# The first question keeps what is no usual text, and marks, from the dearer ones. A pattern for all of it more than doubled the
# time of the whole query.
_DAY = "CASE WHEN {x} LIKE '____-__-__' AND {day} THEN {x} END"
_MOMENT = (
    "CASE WHEN {x} LIKE '____-__-__' THEN CASE WHEN {day} THEN {x} || 'T00:00:00Z' END"
    " WHEN {x} LIKE '____-__-___%:%' AND {x} COLLATE \"C\" BETWEEN '0001-01-02' AND '9999-12-31'"
    " AND right({x}, 1) COLLATE \"C\" IN ('Z', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9') AND {moment}"
    " THEN replace(({x}::timestamptz AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' END"
)


async def can_ask_postgres(snapshot: Snapshot) -> bool:
    """Whether this Postgres can be asked whether a text is a date: 16 and newer can."""
    return bool((await snapshot.fetch(SQL("SELECT to_regproc('pg_catalog.pg_input_is_valid') IS NOT NULL")))[0][0])


def with_one_form(view: CompiledView, *, asks: bool) -> Composable:
    """Return the query of a marked view with each day and moment in one form, followed by the form as written."""
    names = [column.name for column in view.columns]
    cells: list[Composable] = []
    for column in view.columns:
        name, kind = Identifier(column.name), kind_of(column)
        if kind not in IN_TWO_COLUMNS:
            cells.append(name)
            continue
        checks = {
            one: SQL("pg_input_is_valid({}, {})").format(name, Literal(type_))
            if asks
            else SQL("{} ~ {}").format(name, Literal(MOMENT))
            for one, type_ in (("day", "date"), ("moment", "timestamptz"))
        }
        form = SQL("{x}" if column.sealed else _DAY if kind == "date" else _MOMENT)  # encrypted days: `sealed_cells`
        cells.append(SQL("{} AS {}").format(form.format(x=name, **checks), name))
        if is_beside_written(column, names):
            cells.append(SQL("{} AS {}").format(name, Identifier(column.name + WRITTEN)))
    return SQL('SELECT {} FROM ({}) AS "#v"').format(SQL(", ").join(cells), view.query)
