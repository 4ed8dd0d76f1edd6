"""table_layout measures the choices of Postgres that `resource` rests on: partitions, indexes, fill factor and compression.

One table after the other gets the same rows by COPY, differs from the store's in one choice, and is read and changed in the same
way. docs/store.md gives the reasons with the figures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import psycopg
from psycopg import sql

from benchmarks.figures import Figure
from benchmarks.loaded_store import loaded_store
from benchmarks.workplace import Workplace, tell

TYPES = ("Observation", "Encounter")  # the most rows, and few
NIGHTS = 5  # of 1 % changes each
_KEY = "PRIMARY KEY (resource_type, connection, id)"
_BY_PATIENT = "CREATE INDEX ON {} (patient_id, connection)"
_BY_RUN = "CREATE INDEX ON {} USING brin (last_changed_run) WITH (pages_per_range = 32, autosummarize = on)"
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class _Layout:
    name: str
    divided: bool = True  # a partition for each type
    key: bool = True
    indexes: Sequence[str] = (_BY_PATIENT, _BY_RUN)
    options: Sequence[str] = ("toast_tuple_target = 8160",)


@dataclass
class _Measured:
    load: list[float] = field(default_factory=list)  # seconds, as all below
    scans: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in TYPES})
    nights: list[float] = field(default_factory=list)
    size: int = 0  # bytes, of tables and indexes
    grown: int = 0  # the same after the nights


_OURS = _Layout(name="as the store has it")
_LAYOUTS = (
    _OURS,
    replace(_OURS, name="one table for all types", divided=False),
    replace(_OURS, name="without the index by run", indexes=(_BY_PATIENT,)),
    replace(_OURS, name="without the index by patient", indexes=(_BY_RUN,)),
    replace(_OURS, name="without any index", indexes=(), key=False),
    replace(_OURS, name="fill factor 80", options=(*_OURS.options, "fillfactor = 80")),
    replace(_OURS, name="rows over 2 kB compressed", options=()),
)  # fmt: skip


def run(place: Workplace) -> list[Figure]:
    """Measure all layouts in turns; figures are medians beside the store's own layout."""
    file = place.folder / "rows.copy"
    measured = {layout.name: _Measured() for layout in _LAYOUTS}
    with loaded_store(place) as (tenant, _), psycopg.connect(place.url, autocommit=True) as conn:
        conn.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(f"tenant_{tenant}")))
        rows = _write_rows(conn, file)
        for turn in range(place.runs):
            for layout in _LAYOUTS:
                tell(f"table layout, {layout.name}, turn {turn + 1} of {place.runs}")
                _measure(conn, layout, file, measured[layout.name])
    ours = measured[_OURS.name]
    return [figure for name, one in measured.items() for figure in _figures(name, one, ours, rows)]


def _figures(name: str, one: _Measured, ours: _Measured, rows: int) -> list[Figure]:
    seconds = [
        ("load", one.load, ours.load),
        *[(f"scan of the {of}s", one.scans[of], ours.scans[of]) for of in TYPES],
        (f"{NIGHTS} nights of 1 % changed", one.nights, ours.nights),
    ]
    return [
        Figure(
            name=f"layout: {name}, {what}", value=median(theirs), unit="s", limit=median(limit), limit_name=_OURS.name,
            samples=tuple(theirs),
        )
        for what, theirs, limit in seconds
    ] + [
        Figure(
            name=f"layout: {name}, disk", value=one.size / rows, unit="bytes per row", limit=ours.size / rows,
            limit_name=_OURS.name, note=f"{one.grown / one.size:.2f} times that after {NIGHTS} nights of 1 % changed",
        )
    ]  # fmt: skip


def _write_rows(conn: psycopg.Connection, file: Path) -> int:
    rows = 0
    with (
        file.open("wb") as target,
        conn.cursor() as cursor,
        cursor.copy("COPY (SELECT * FROM resource_stored) TO STDOUT") as copy,
    ):
        for chunk in copy:
            rows += bytes(chunk).count(b"\n")
            target.write(chunk)
    return rows


def _measure(conn: psycopg.Connection, layout: _Layout, file: Path, into: _Measured) -> None:
    _create(conn, layout)
    begins = time.perf_counter()
    with file.open("rb") as rows, conn.cursor() as cursor, cursor.copy("COPY public.laid FROM STDIN") as copy:
        while chunk := rows.read(_CHUNK):
            copy.write(chunk)
    into.load.append(time.perf_counter() - begins)
    conn.execute("VACUUM ANALYZE public.laid")
    into.size = _size(conn)
    for name, scans in into.scans.items():
        begins = time.perf_counter()
        conn.execute("SELECT count(body ->> 'status') FROM public.laid WHERE resource_type = %s", (name,))
        scans.append(time.perf_counter() - begins)
    begins = time.perf_counter()
    for night in range(NIGHTS):
        conn.execute(
            "UPDATE public.laid SET last_changed_run = 2, body = jsonb_set(body, '{night}', %s::text::jsonb)"
            " WHERE abs(hashtext(id)) %% 100 = %s",
            (str(night), night),
        )
        conn.execute("VACUUM public.laid")
    into.nights.append(time.perf_counter() - begins)
    into.grown = _size(conn)
    conn.execute("DROP TABLE public.laid")
    conn.execute("CHECKPOINT")


def _create(conn: psycopg.Connection, layout: _Layout) -> None:
    divided = " PARTITION BY LIST (resource_type)" if layout.divided else ""
    options = f" WITH ({', '.join(layout.options)})" if layout.options else ""
    conn.execute("DROP TABLE IF EXISTS public.laid")
    conn.execute(f"CREATE TABLE public.laid (LIKE resource_stored INCLUDING DEFAULTS){divided or options}".encode())
    if layout.divided:
        types = [one for (one,) in conn.execute("SELECT DISTINCT resource_type FROM resource_stored").fetchall()]
        for name in types:
            part = sql.Identifier("public", f"laid_{name.lower()}")
            of = sql.SQL("CREATE TABLE {} PARTITION OF public.laid FOR VALUES IN ({})").format(part, sql.Literal(name))
            conn.execute(of + sql.SQL(options))  # type: ignore[arg-type]
    if layout.key:
        conn.execute(f"ALTER TABLE public.laid ADD {_KEY}".encode())
    for index in layout.indexes:
        conn.execute(index.format("public.laid").encode())


def _size(conn: psycopg.Connection) -> int:
    found = conn.execute(
        "SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree('public.laid') WHERE isleaf"
    ).fetchone()
    if found is None or found[0] is None:
        found = conn.execute("SELECT pg_total_relation_size('public.laid')").fetchone()
    assert found is not None
    return int(found[0])
