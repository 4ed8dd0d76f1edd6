"""Days and moments of a view's rows in one form, beside the form in which the EHR wrote them.

A day is `2020-02-29`; a moment is in UTC, `2020-02-29T08:04:05.5Z`. A text that names no day (`2019`, `2019-02-30`) has no such
form, nor has one outside the years 1 to 9999. A day stands for its first moment, and a time without a zone counts as UTC. Digits
beyond microseconds are rounded, and second 60 is the next second. Postgres 15 reads no zone that is written without a colon.
"""

from __future__ import annotations

from psycopg.sql import SQL, Composable, Identifier, Literal

from exports.compiler import Column, CompiledView
from exports.compiler.moments import MOMENT
from exports.formats.table_columns import IN_TWO_COLUMNS, WRITTEN, is_beside_written, kind_of
from exports.snapshot_port import Snapshot

# The first question keeps what is no usual text, and marks, from the dearer ones. A pattern for all of it more than doubled the
# time of the whole query.
_DAY = "CASE WHEN {x} LIKE '____-__-__' AND {day} THEN {x} END"
_MOMENT = (
    "CASE WHEN {x} LIKE '____-__-___%:%' THEN CASE WHEN {x} COLLATE \"C\" BETWEEN '0001-01-02' AND '9999-12-31'"
    " AND ({x} LIKE '%Z' OR right({x}, 1) COLLATE \"C\" IN ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')) AND {moment}"
    " THEN replace(({x}::timestamptz AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' END"
    " WHEN {x} LIKE '____-__-__' AND {day} THEN {x} || 'T00:00:00Z' END"
)


async def can_ask_postgres(snapshot: Snapshot) -> bool:
    """Whether this Postgres can be asked whether a text is a date: 16 and newer can."""
    return bool((await snapshot.fetch(SQL("SELECT to_regproc('pg_catalog.pg_input_is_valid') IS NOT NULL")))[0][0])


def with_one_form(view: CompiledView, *, asks: bool) -> Composable:
    """Return the query of a marked view with each day and moment in one form, followed by the form as written."""
    by_name = {column.name: column for column in view.columns}
    moments = [column for column in view.columns if kind_of(column) in IN_TWO_COLUMNS]
    forms: dict[str, Composable] = {column.name: _form(column, asks=asks) for column in moments}
    # a text that is mostly in another column too has its form made there, once for both
    shared = {name: one.choice for name, one in by_name.items() if one.choice and {name, one.choice} <= forms.keys()}
    shared = {name: choice for name, choice in shared.items() if kind_of(by_name[choice]) == kind_of(by_name[name])}
    first = {choice: Identifier(f"#{at}") for at, choice in enumerate(sorted({*shared.values()} - shared.keys()))}
    made = SQL("").join([SQL(", {} AS {}").format(forms[choice], at) for choice, at in first.items()])
    forms |= first
    for name, choice in shared.items():
        both = Identifier(name), Identifier(choice)
        forms[name] = SQL("CASE WHEN {} = {} THEN {} ELSE {} END").format(*both, forms[choice], forms[name])
    cells: list[Composable] = []
    for column in view.columns:
        as_written = Identifier(column.name)
        cells.append(SQL("{} AS {}").format(forms[column.name], as_written) if column.name in forms else as_written)
        if is_beside_written(column, by_name):
            cells.append(SQL("{} AS {}").format(as_written, Identifier(column.name + WRITTEN)))
    rows = SQL('(SELECT "#v".*{} FROM ({}) AS "#v" OFFSET 0)' if first else "{}({})").format(made, view.query)
    return SQL('SELECT {} FROM {} AS "#v"').format(SQL(", ").join(cells), rows)


def _form(column: Column, *, asks: bool) -> Composable:
    """A day or moment in one form."""
    name = Identifier(column.name)
    if column.sealed:
        return name  # encrypted days: `sealed_cells`
    checks = {
        one: SQL("pg_input_is_valid({}, {})").format(name, Literal(type_))
        if asks
        else SQL("{} ~ {}").format(name, Literal(MOMENT))
        for one, type_ in (("day", "date"), ("moment", "timestamptz"))
    }
    return SQL(_DAY if kind_of(column) == "date" else _MOMENT).format(x=name, **checks)
