"""Writes the SQL for the rows that a selection has, as ended runs left them. `reader` runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from psycopg import sql

from snapshots.comparison import Side
from snapshots.selection import Selection
from snapshots.sql import load
from snapshots.stored_documents import of_changed
from snapshots.stretches import SAMPLED_PERCENT, sampled_rows

_SQL = load("reader")


@dataclass(frozen=True, kw_only=True)
class SelectedRows:
    """A selection of some connections, and what is found or demanded of it."""

    selection: Selection
    connections: tuple[int, ...]
    later: tuple[int, ...] = ()  # runs whose work is left out
    before: tuple[int, ...] | None = None  # those that were left out at the moment since which rows have changed
    kept: Mapping[str, sql.Composable] = field(default_factory=dict)  # by type, what its rows must meet
    mentioned: tuple[tuple[int, str, str], ...] = ()  # what charts refer to: connection, type, id

    def rows(self) -> sql.Composable:
        """Return a FROM item with at least the selection's rows; `selected` is true for the rows of the selection."""
        patients = self.selection.patients
        if patients is None:
            return self._ended(sql.SQL(_SQL["everyone"]))
        keys = self._named()
        if self.later:
            moved = sql.SQL(_SQL["moved"]).format(open=self._open(), patients=sql.Literal(list(patients)))
            keys = sql.SQL("{} {}").format(keys, moved)
        return self._ended(sql.SQL(_SQL["of_patients"]).format(patients=sql.Literal(list(patients)), keys=keys))

    def selected(self, *, documents: bool = False) -> sql.Composable:
        """Return the condition on these rows; `documents`: one has also changed if what is stored of its documents has."""
        changed = self._changed(documents=documents)
        return self._conditions([*self._of_types(), *self._of_patients(), *changed, *self._keep()])

    def of_stretch(self, *, divisible: bool) -> sql.Composable:
        """Return the condition for queries that may be read by stretches of ids, in the order of the key; none for others.

        A scan that does not follow the key evaluates it for each row, which takes a fifth of a view's `where`.
        """
        return sql.SQL(_SQL["of_stretch"] if divisible and self.selection.patients is None else "")

    def cuts(self, resource_type: str | None, rows: int) -> list[sql.Composable] | None:
        """Return, for each connection, a query of the ids that divide a type into stretches of about this many rows.

        None: a few patients' rows are found by index and sorted; and queries that are not of one whole type are not divided.
        """
        if self.selection.patients is not None or resource_type is None:
            return None
        sampled = {"percent": sql.Literal(SAMPLED_PERCENT), "step": sql.Literal(sampled_rows(rows))}
        of = {"resource_type": sql.Literal(resource_type), **sampled}
        query = sql.SQL(_SQL["cuts"])
        return [query.format(connection=sql.Literal(number), **of) for number in self.connections]

    def members(self) -> sql.Composable:
        """Return whose rows they are beside the patient that they are filed under."""
        if not self.later:
            return sql.SQL(_SQL["members"])
        return sql.SQL(_SQL["members_ended"]).format(open=self._open())

    def side(self) -> Side:
        """Return the selection as one side of a comparison: whether rows have changed is not asked."""
        selected = self._conditions([*self._of_types(), *self._of_patients()])
        return Side(rows=self.rows(), selected=selected, members=self.members())

    def sampled(self, patients: int, seed: int) -> sql.Composable:
        """Return the query of this many patients, chosen only by the seed and their ids."""
        return sql.SQL(_SQL["sampled"]).format(
            rows=self.rows(), selected=self.selected(), seed=sql.Literal(str(seed)), patients=sql.Literal(patients)
        )

    def not_stored(self) -> sql.Composable:
        """Return the query of how many of the named patients have no Patient at this moment, and how many were named."""
        return sql.SQL(_SQL["not_stored"]).format(
            rows=self.rows(),
            selected=self._conditions(self._of_patients()),
            patients=sql.Literal(list(self.selection.patients or ())),
        )

    def mentioned_by_charts(self) -> sql.Composable:
        """Return the query of what the selected patients' charts refer to and what is of no patient."""
        shared = sql.SQL(_SQL["shared"]).format(
            rows=self._ended(sql.SQL(_SQL["everyone"])), selected=self._conditions([]), members=self.members()
        )
        return sql.SQL(_SQL["mentioned"]).format(
            rows=self.rows(), selected=self._conditions(self._of_patients()), shared=shared
        )

    def _ended(self, rows: sql.Composable) -> sql.Composable:
        """Return the rows as the ended runs left them; without a later run they are the current rows, by the plain query."""
        return sql.SQL(_SQL["ended"]).format(rows=rows, open=self._open()) if self.later else rows

    def _open(self) -> sql.Composable:
        return sql.Literal(list(self.later))

    def _named(self) -> sql.Composable:
        columns = [[key[at] for key in self.mentioned] for at in range(3)]
        named = dict(zip(("m_connections", "m_types", "m_ids"), map(sql.Literal, columns), strict=True))
        patients = sql.Literal(list(self.selection.patients or ()))
        return sql.SQL(_SQL["named"]).format(patients=patients, members=self.members(), **named)

    def _of_types(self) -> list[sql.Composable]:
        if not self.selection.types:
            return []
        return [sql.SQL(_SQL["of_types"]).format(types=sql.Literal(list(self.selection.types)))]

    def _keep(self) -> list[sql.Composable]:
        return [
            sql.SQL(_SQL["kept"]).format(resource_type=sql.Literal(name), criterion=criterion)
            for name, criterion in sorted(self.kept.items())
        ]

    def _changed(self, *, documents: bool) -> list[sql.Composable]:
        if self.before is None:
            return []
        since = sql.Literal(list(self.before))
        if self.selection.patients is None:
            changed = sql.SQL(_SQL["changed"]).format(since=since)
        else:
            patients = sql.Literal(list(self.selection.patients))
            changed = sql.SQL(_SQL["changed_or_joined"]).format(since=since, patients=patients)
        return [of_changed(changed, since) if documents else changed]

    def _of_patients(self) -> list[sql.Composable]:
        """Return the condition that `rows` leaves open: whose a row was before a later run wrote it."""
        if self.selection.patients is None or not self.later:
            return []
        patients = sql.Literal(list(self.selection.patients))
        return [sql.SQL(_SQL["still_of_patients"]).format(patients=patients, keys=self._named())]

    def _conditions(self, further: Sequence[sql.Composable]) -> sql.Composable:
        connections = sql.Literal(list(self.connections))
        live = [] if self.later else [sql.SQL(_SQL["live"])]
        of_connections = sql.SQL(_SQL["of_connections"]).format(connections=connections)
        return sql.SQL(" AND ").join([*live, of_connections, *further])
