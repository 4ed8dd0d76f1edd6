"""All that the player knows of the store's insides, by SQL: what is live, what is dead, what is named; and making it old.

Whoever changes the schema changes this file alone. Tables that this version's schema does not have are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from snapshots.sql import load
from tests.histories.ehr import Key

_EVIDENCE = load("evidence")
_PERIOD = timedelta(days=7)  # profile.reconcile_every_d, where a site does not say otherwise

# what an unchanged night leaves as it was; of the last the run that looked at a row may be another
_STATE = {
    "resource": "*",
    "resource_history": "*",
    "listed": "*",
    "member": "*",
    "way": "*",
    "alias": "former_id, surviving_id, gone",
    "evidence": "resource_type, id, state, way",
}
# in this order: rows before what they refer to. The tenant keeps its secret
_EMPTIED = (
    "bulk_job",
    "unit",
    "run_count",
    "quarantine",
    "followed",
    "certificate",
    "seen",
    "resource",
    "resource_history",
    "watermark",
    "roster",
    "lag",
    "deferral",
    "alias",
    "referenced",
    "attachment_use",
    "attachment",
    "evidence",
    "listed",
    "full_listing",
    "absence",
    "revived",
    "rival",
    "member",
    "way",
    "pace",
    "run",
    "connection",
)
# what a store of an earlier version does not know, or what its upgrade drops
_KNOWLEDGE = ("listed", "full_listing", "member", "evidence", "watermark", "lag", "roster", "rival", "way")


class Stored(NamedTuple):
    """The store at one moment."""

    live: Mapping[Key, Any]  # bodies
    dead: Mapping[Key, int]  # the run that made the tombstone


class StoreView:
    """One tenant's tables, seen by a session of its own."""

    def __init__(self, url: str, tenant: str) -> None:
        self._conn = psycopg.connect(url, autocommit=True)
        self._conn.execute("SELECT set_config('search_path', %s, false)", (f'"tenant_{tenant}"',))
        rows = self._conn.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (f"tenant_{tenant}",)
        )
        self._tables = {row[0] for row in rows}

    def close(self) -> None:
        self._conn.close()

    def empty(self) -> None:
        """Forget everything: the next history begins with a new store."""
        with self._conn.transaction():
            for table in _EMPTIED:
                if table in self._tables:
                    self._conn.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))

    def stored(self) -> Stored:
        live: dict[Key, Any] = {}
        dead: dict[Key, int] = {}
        query = "SELECT resource_type, id, deleted_run, body FROM resource"
        for kind, id_, deleted_run, body in self._conn.execute(query):
            if deleted_run is None:
                live[kind, id_] = body
            else:
                dead[kind, id_] = deleted_run
        return Stored(live, dead)

    def doubted(self) -> set[Key]:
        """Rows that the store names one by one: doubted, contradicted, withheld …"""
        return {(row[0], row[1]) for row in self._conn.execute("SELECT resource_type, id FROM evidence")}

    def unwitnessed(self, now: datetime) -> set[Key]:
        """Live rows that no full listing of this period could list, as the store counts them."""
        with self._conn.transaction(force_rollback=True):
            values = {"run": -1, "connection": self._connection(), "at": now, "period": _PERIOD}
            self._conn.execute(_EVIDENCE["unwitnessed"], values)
            return {(row[0], row[1]) for row in self._conn.execute("SELECT resource_type, id FROM unwitnessed")}

    def _connection(self) -> int:
        row = self._conn.execute("SELECT id FROM connection").fetchone()
        return int(row[0]) if row else 0

    def state(self) -> dict[str, list[tuple[Any, ...]]]:
        """What an unchanged night leaves as it was."""
        return {
            table: self._conn.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3").fetchall()  # type: ignore[arg-type,call-overload]
            for table, columns in _STATE.items()
            if table in self._tables
        }

    def make_old(self) -> None:
        """Make the store one that an earlier version left, as it is after its migration."""
        with self._conn.transaction():
            self._conn.execute("UPDATE resource SET first_way = NULL WHERE first_way IS NOT NULL")
            for table in _KNOWLEDGE:
                if table in self._tables:
                    self._conn.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
            self._conn.execute(
                "INSERT INTO evidence (connection, resource_type, id, state, run)"
                " SELECT connection, resource_type, id, 'old-tombstone', deleted_run FROM resource WHERE deleted_at IS NOT NULL"
            )
            self._conn.execute(
                "UPDATE run SET status = 'failed', finished_at = now(), error = 'interrupted' WHERE status = 'running'"
            )
