"""Tables in Hive's folders, `observation/status=final/observation.parquet`: to read one value, a program opens one folder.

Whoever may list a place sees the names of its folders, even if the files are encrypted. So a table is divided only by columns
that say nothing about a patient: the connection, and the state of the record, in codes that R4 fixes. Rows with any other value
are in the folder of null; the column itself stays in the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from psycopg.sql import SQL, Composable, Identifier, Literal

from exports.compiler import CompiledView
from exports.errors import PlanError
from exports.formats.table_columns import TableColumn
from exports.plan import TYPE, PlannedFile
from exports.safe_harbor.datatypes import CODES
from exports.snapshot_port import Snapshot

_NULL = "__HIVE_DEFAULT_PARTITION__"
_CONNECTION, _STATES = "%connection", ("status", "intent")


def folder_of(table: str, column: str, value: str | None) -> str:
    """Return the folder of a value, from the export's on; what a path cannot have is written as in a URL."""
    return f"{table}/{column}={_NULL if value is None else quote(value, safe='')}/"


def divided_tables(column: str, tables: Mapping[str, Sequence[TableColumn]]) -> list[str]:
    """Return the tables that have a column by which they may be divided.

    Raises:
        PlanError: none has it, or it may reveal something about patients in one of them.
    """
    having = {name: one for name, columns in tables.items() for one in columns if one.name == column}
    if not having:
        raise PlanError(f"--partition-by {column}: no view that is exported has such a column")
    if telling := sorted(name for name, one in having.items() if not _says_nothing_of_a_patient(one)):
        allowed = sorted(
            {one.name for columns in tables.values() for one in columns if _says_nothing_of_a_patient(one)}
        )
        raise PlanError(
            f"--partition-by {column}: in {', '.join(telling)} it may say something about patients, and folder names would "
            f"show it; allowed: {', '.join((TYPE, *allowed))}"
        )
    return sorted(having)


def _says_nothing_of_a_patient(column: TableColumn) -> bool:
    return column.paths == (_CONNECTION,) or (
        column.fhir_type == "code"
        and len(column.paths) == 1
        and column.paths[0].split(".")[1:] in [[one] for one in _STATES]
    )


@dataclass(frozen=True)
class Division:
    """A table that is divided: by a column, and by which of its values."""

    column: str
    values: tuple[str | None, ...]

    def files(self, planned: PlannedFile) -> list[PlannedFile]:
        """Return a file for each value in the place of the one that was planned."""
        (table,) = planned.tables
        return [
            replace(planned, name=folder_of(table.name, self.column, value) + planned.name, value=value)
            for value in self.values
        ]


async def division_of(column: str, views: Sequence[CompiledView], snapshot: Snapshot) -> Division:
    """Return how a table is divided: by the values that it has, and None for all others, if there are any or no rows at all.

    Raises:
        PlanError: the column is encrypted in the store.
    """
    if any(one.name == column and one.sealed for view in views for one in view.columns):
        raise PlanError(f"--partition-by {column}: it is encrypted in this store; choose another column")
    found: set[str | None] = set()
    for view in views:
        query = SQL('SELECT DISTINCT {} FROM ({}) AS "#v"').format(Identifier(column), view.query)
        found.update(row[0] for row in await snapshot.fetch(query))
    names = {*snapshot.connections, *CODES}
    known = sorted(value for value in found if value is not None and value in names)
    return Division(column, (*known, *([None] if not known or found - {*known} else [])))


def rows_of(value: str | None, of: Division, views: Sequence[CompiledView]) -> list[CompiledView]:
    """Narrow a compiled view to the rows of one value; what it cannot decide is counted with the first."""
    column, known = Identifier(of.column), [Literal(one) for one in of.values if one is not None]
    condition: Composable = SQL("true")
    if value is not None:
        condition = SQL("{} = {}").format(column, Literal(value))
    elif known:
        condition = SQL("({} IN ({})) IS NOT TRUE").format(column, SQL(", ").join(known))
    return [
        replace(
            one,
            query=SQL('SELECT * FROM ({}) AS "#v" WHERE {}').format(one.query, condition),
            undecided=one.undecided if value == of.values[0] else None,
        )
        for one in views
    ]
