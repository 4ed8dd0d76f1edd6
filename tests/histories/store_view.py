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
from tests.histories.rows import Key

_EVIDENCE = load("evidence")
BESIDE = "beside"  # a connection that no run of the history touches
_OURS = f"connection IS DISTINCT FROM (SELECT id FROM connection WHERE name = '{BESIDE}')"
_BESIDE_TABLES = (
    "resource",
    "resource_history",
    "listed",
    "member",
    "member_history",
    "alias",
    "evidence",
    "watermark",
    "lag",
    "roster",
    "full_listing",
)
_PERIOD = timedelta(days=7)  # profile.changes.reconcile_every_d, where a site does not say otherwise

# what an unchanged night leaves as it was; of the last the run that looked at a row may be another
_STATE = {
    "resource": "*",
    "resource_history": "*",
    "listed": "*",
    "member": "*",
    "member_history": "*",
    "way": "*",
    "alias": "former_id, surviving_id, gone",
    "evidence": "resource_type, id, state, ways",
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
    "attachment_use_history",
    "attachment",
    "evidence",
    "listed",
    "full_listing",
    "absence",
    "revived",
    "group_member",
    "mention",
    "rival",
    "version_by_way",
    "subsetted",
    "member",
    "member_history",
    "way",
    "pace",
    "run",
    "connection",
)
# what a store of an earlier version does not know, or what its upgrade drops
_KNOWLEDGE = (
    "listed",
    "full_listing",
    "member",
    "member_history",
    "evidence",
    "watermark",
    "lag",
    "roster",
    "rival",
    "version_by_way",
    "way",
)


class Stored(NamedTuple):
    """The store at one moment."""

    live: Mapping[Key, Any]  # bodies
    dead: Mapping[Key, int]  # the run that made the tombstone


class ToldOf(NamedTuple):
    """What a run's ledger says of it, and what its selection knows now."""

    holes: set[str]
    known: dict[str, str]
    behind: set[str]


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

    def is_at_rest(self) -> bool:
        """Whether there have been runs, and all have ended."""
        row = self._conn.execute("SELECT bool_and(status <> 'running') FROM run").fetchone()
        return bool(row and row[0])

    def stored(self) -> Stored:
        live: dict[Key, Any] = {}
        dead: dict[Key, int] = {}
        query = f"SELECT resource_type, id, deleted_run, body FROM resource WHERE {_OURS}"
        for kind, id_, deleted_run, body in self._conn.execute(query):
            if deleted_run is None:
                live[kind, id_] = body
            else:
                dead[kind, id_] = deleted_run
        return Stored(live, dead)

    def doubted(self, *states: str) -> set[Key]:
        """Rows that the store names one by one: doubted, contradicted, withheld …, or in these states only."""
        named = self._conn.execute(f"SELECT resource_type, id, state FROM evidence WHERE {_OURS}")
        return {(row[0], row[1]) for row in named if not states or row[2] in states}

    def formers(self) -> set[str]:
        """Patients who were merged into others, and have no chart of their own."""
        query = f"SELECT former_id FROM alias WHERE gone AND former_id <> surviving_id AND {_OURS}"
        return {row[0] for row in self._conn.execute(query)}

    def survivors(self) -> set[str]:
        """Patients into whom others were merged, as far as the store knows."""
        query = f"SELECT surviving_id FROM alias WHERE former_id <> surviving_id AND {_OURS}"
        return {row[0] for row in self._conn.execute(query)}

    def unlisted(self) -> set[str]:
        """Types of which files failed before the last run, whose export lists none of them."""
        query = "SELECT resource_type FROM unit WHERE kind = 'unlisted' AND run = (SELECT max(id) FROM run)"
        return {row[0] for row in self._conn.execute(query)}

    def unwitnessed(self, now: datetime) -> set[Key]:
        """Live rows that no full listing of this period could list, as the store counts them."""
        with self._conn.transaction(force_rollback=True):
            values = {"run": -1, "connection": self._connection(), "at": now, "period": _PERIOD, "fresh": timedelta(0)}
            for statement in ("drop_unreceived", "compare", "unwitnessed"):
                self._conn.execute(_EVIDENCE[statement], values)
            return {(row[0], row[1]) for row in self._conn.execute("SELECT resource_type, id FROM unwitnessed")}

    def _connection(self) -> int:
        row = self._conn.execute("SELECT id FROM connection WHERE name <> %s", (BESIDE,)).fetchone()
        return int(row[0]) if row else 0

    def evidence(self) -> dict[Key, str]:
        """What stands open of rows, by its state."""
        return {(row[0], row[1]): row[2] for row in self._conn.execute("SELECT resource_type, id, state FROM evidence")}

    def told_of(self, run: int | None) -> ToldOf:
        """How a run's units failed, by type; and the watermarks and lags of its selection. None: the newest run."""
        own = {"run": run if run is not None else self._conn.execute("SELECT max(id) FROM run").fetchone()[0]}  # type: ignore[index]
        holes = """SELECT resource_type, CASE kind WHEN 'doubt' THEN split_part(key, ':', 2) ELSE concat(kind, ' ', ending) END
            FROM unit WHERE run = %(run)s AND state = 'failed'"""
        known = """SELECT w.resource_type, w.instant FROM watermark w JOIN run ON w.selection = run.knowledge
            WHERE run.id = %(run)s"""
        behind = """SELECT l.resource_type, l.patient_id FROM lag l JOIN run ON l.selection = run.knowledge
            WHERE run.id = %(run)s"""
        return ToldOf(
            holes={" ".join(row) for row in self._conn.execute(holes, own)},
            known=dict(self._conn.execute(known, own).fetchall()),
            behind={" ".join(row) for row in self._conn.execute(behind, own)},
        )

    def pending_alone(self, resource_type: str) -> bool:
        """Whether the newest run has settled all units but those of a type."""
        query = "SELECT bool_and((state = 'pending') = (resource_type = %s)) FROM unit WHERE run = (SELECT max(id) FROM run)"
        row = self._conn.execute(query, (resource_type,)).fetchone()
        return row is not None and bool(row[0])

    def live_of(self, connection: str) -> set[Key]:
        """Live rows of one connection."""
        query = """SELECT r.resource_type, r.id FROM resource r JOIN connection c ON c.id = r.connection
            WHERE c.name = %s AND r.deleted_at IS NULL"""
        return {(row[0], row[1]) for row in self._conn.execute(query, (connection,))}

    def chart(self, patient: str) -> set[Key]:
        """Live rows that are filed under a patient."""
        query = """SELECT r.resource_type, r.id FROM resource r WHERE r.deleted_at IS NULL AND (r.patient_id = %(id)s OR EXISTS (
            SELECT FROM member m WHERE m.connection = r.connection AND m.resource_type = r.resource_type AND m.id = r.id
                AND m.patient_id = %(id)s))"""
        return {(row[0], row[1]) for row in self._conn.execute(query, {"id": patient})}

    def state(self) -> dict[str, list[tuple[Any, ...]]]:
        """What an unchanged night leaves as it was; in an order that the content alone makes, and no plan of the moment."""
        return {
            table: self._conn.execute(f"SELECT {columns} FROM {table} AS t WHERE {_OURS} ORDER BY t::text").fetchall()
            for table, columns in _STATE.items()
            if table in self._tables
        }

    def versions(self) -> set[tuple[Key, str]]:
        """All versions of rows, the present and former ones."""
        query = " UNION ".join(
            f"SELECT resource_type, id, '{table}' || t::text FROM {table} AS t WHERE {_OURS}"
            for table in ("resource", "resource_history")
        )
        return {((row[0], row[1]), row[2]) for row in self._conn.execute(query)}

    def kept(self) -> dict[str, list[str]]:
        """All that no pruning may touch."""
        tables = [table for table in _BESIDE_TABLES if not table.endswith("_history")]
        return {
            table: [row[0] for row in self._conn.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1")]
            for table in tables
        }

    def is_full(self, run: int) -> bool:
        """Whether a run that ended listed everything, as the store has it."""
        row = self._conn.execute("SELECT full_listing FROM run WHERE id = %s", (run,)).fetchone()
        return bool(row and row[0])

    def filed(self) -> set[tuple[Key, str]]:
        """In whose charts rows are."""
        query = f"""SELECT resource_type, id, patient_id FROM resource WHERE patient_id IS NOT NULL AND {_OURS}
            UNION SELECT resource_type, id, patient_id FROM member WHERE {_OURS}"""
        return {((row[0], row[1]), row[2]) for row in self._conn.execute(query)}

    def beside(self) -> dict[str, list[str]]:
        """All that is stored of the connection that no run of the history touches."""
        query = "SELECT t::text FROM {} AS t WHERE connection = (SELECT id FROM connection WHERE name = %s) ORDER BY 1"
        return {
            table: [row[0] for row in self._conn.execute(sql.SQL(query).format(sql.Identifier(table)), (BESIDE,))]
            for table in _BESIDE_TABLES
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
