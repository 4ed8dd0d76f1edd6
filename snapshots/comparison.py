"""Compares what a selection had at two moments, as SQL: what it has lost, and what differs. `reader` says what it had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from psycopg import sql

from snapshots.copying import Opened
from snapshots.sealed_values import Sealer
from snapshots.sealing import marked_row, opened_row
from snapshots.sql import load

_SQL = load("comparison")


@dataclass(frozen=True, kw_only=True)
class Side:
    """The selection at one moment: a FROM item, the condition on its rows `r`, and whose rows are beyond their patient id."""

    rows: sql.Composable
    selected: sql.Composable
    members: sql.Composable


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One connection's part of a selection at two moments. Each method returns a query."""

    connection: int
    patients: Sequence[str] | None  # of the selection
    since: Sequence[int]  # the runs between the moments, and later ones
    before: Side
    now: Side
    changed: sql.Composable  # condition: what one of these runs wrote

    def lost(self) -> sql.Composable:
        """The resources that the selection had before and has lost: connection, resource_type, id, patient_id."""
        return self._query("lost", parted=self._query("parted") if self.patients is not None else sql.SQL(""))

    def removed(self) -> sql.Composable:
        """Their keys as objects with `id` and `type`, ordered by type and id."""
        return self._query("removed", lost=self.lost())

    def patients_of_lost(self) -> sql.Composable:
        """Whose they were: connection, patient_id."""
        return self._query("patients_of_lost", lost=self.lost())

    def differences(self, *, with_id: bool) -> sql.Composable:
        """What was added, changed and lost, as the objects of `Snapshot.differences`, ordered by patient, type and id."""
        key = sql.SQL(_SQL["id_first"] if with_id else "")
        return self._query("differences", key=key, differing=self._query("differing"), lost=self.lost())

    def patients_of_differing(self) -> sql.Composable:
        """Whose the changed resources were before: connection, patient_id."""
        return self._query("patients_of_differing", differing=self._query("differing"))

    def _query(self, name: str, **further: sql.Composable) -> sql.Composable:
        return sql.SQL(_SQL[name]).format(
            connection=sql.Literal(self.connection),
            since=sql.Literal(list(self.since)),
            patients=sql.Literal(list(self.patients or ())),
            before=self.before.rows,
            selected_before=self.before.selected,
            members_before=self.before.members,
            rows=self.now.rows,
            selected=self.now.selected,
            changed=self.changed,
            **further,
        )


def difference_opened_by(sealer: Sealer | None, *, masks: bool) -> Opened | None:
    """Return what decrypts, or `masks`, the contents in a line of `Comparison.differences`; it raises SealedValueError."""
    if sealer is None:
        return None
    shown = marked_row if masks else opened_row

    def opened(id_: str, line: bytes) -> bytes:
        difference = orjson.loads(line)
        for side in ("old", "new"):
            if difference[side] is not None:
                difference[side] = shown(difference[side].encode(), difference["type"], id_, sealer).decode()
        return orjson.dumps(difference)

    return opened
