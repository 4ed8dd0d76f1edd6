"""view_export measures exports by view beside SQL that a person would write for the same columns, in turns.

The data are Synthea's charts beside the checkout, each 27 times (161,595 Observations) or 10 times over. The hand-written SQL
checks nothing and is given in two ways: as the table lies, and ordered by id, as our files are.
"""

from __future__ import annotations

import gzip
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import psycopg
from psycopg import sql

from benchmarks.figures import Figure
from benchmarks.workplace import Workplace, tell
from exports.catalogue import builtin_names, load_views, view_sets
from exports.view_check import compiled_over_nothing
from tests.fix_store import opened_store

SYNTHEA = Path(__file__).resolve().parents[2] / "shared" / "data" / "synthea-40"
BAR = 0.75
PARQUET_BAR = 100_000
MANY_ROWS = "ten columns of observations"
COPIES = {"Observation": 27, "ExplanationOfBenefit": 10}


def _column(name: str, path: str, type_: str) -> dict[str, str]:
    return {"name": name, "path": path, "type": type_}


def _pressure(prefix: str, code: str) -> dict[str, Any]:
    columns = [
        _column(f"{prefix}_value", "value.ofType(Quantity).value", "decimal"),
        _column(f"{prefix}_unit", "value.ofType(Quantity).unit", "string"),
        _column(f"{prefix}_code", "value.ofType(Quantity).code", "code"),
    ]
    is_it = f"code.coding.exists(system='http://loinc.org' and code='{code}')"
    return {"forEach": f"component.where({is_it}).first()", "column": columns}


_PATIENT = _column("patient", "subject.getReferenceKey(Patient)", "id")
_KEY = _column("key", "getResourceKey()", "id")
_AT = _column("effective_at", "effective.ofType(dateTime)", "dateTime")
VIEWS: dict[str, dict[str, Any]] = {
    MANY_ROWS: {
        "resource": "Observation",
        "select": [
            {
                "column": [
                    _KEY, _PATIENT, _column("encounter", "encounter.getReferenceKey(Encounter)", "id"),
                    _column("status", "status", "code"), _column("category", "category.coding.code.first()", "code"),
                    _column("system", "code.coding.first().system", "uri"), _column("code", "code.coding.first().code", "code"),
                    _AT, _column("value", "value.ofType(Quantity).value", "decimal"),
                    _column("unit", "value.ofType(Quantity).unit", "string"),
                ]
            }
        ],
    },
    "blood pressures": {
        "resource": "Observation",
        "where": [{"path": "code.coding.exists(system='http://loinc.org' and code='85354-9')"}],
        "select": [{"column": [_KEY, _PATIENT, _AT]}, _pressure("systolic", "8480-6"), _pressure("diastolic", "8462-4")],
    },
    "lines of explanations of benefit": {
        "resource": "ExplanationOfBenefit",
        "select": [
            {
                "column": [
                    _KEY, _column("patient", "patient.getReferenceKey(Patient)", "id"), _column("status", "status", "code"),
                    _column("created", "created", "dateTime"),
                ]
            },
            {
                "forEach": "item",
                "column": [
                    _column("sequence", "sequence", "positiveInt"),
                    _column("system", "productOrService.coding.first().system", "uri"),
                    _column("code", "productOrService.coding.first().code", "code"),
                    _column("text", "productOrService.text", "string"),
                    _column("start", "serviced.ofType(Period).start", "dateTime"), _column("net", "net.value", "decimal"),
                    _column("currency", "net.currency", "code"),
                    _column("encounter", "encounter.first().getReferenceKey(Encounter)", "id"),
                ],
            },
        ],
    },
}  # fmt: skip
_FROM = "FROM resource{joins} WHERE resource_type = '{type}' AND deleted_at IS NULL"
_COMPONENT = (
    " CROSS JOIN LATERAL (SELECT c FROM jsonb_array_elements(body -> 'component') c WHERE c -> 'code' -> 'coding'"
    ' @> \'[{{"system": "http://loinc.org", "code": "{code}"}}]\' LIMIT 1) {name}({name})'
)
_VALUE = (
    "({c} #>> '{{valueQuantity,value}}')::numeric, {c} #>> '{{valueQuantity,unit}}', {c} #>> '{{valueQuantity,code}}'"
)
BY_HAND = {
    MANY_ROWS: "SELECT body ->> 'id', split_part(body #>> '{subject,reference}', '/', 2),"
    " split_part(body #>> '{encounter,reference}', '/', 2), body ->> 'status', body #>> '{category,0,coding,0,code}',"
    " body #>> '{code,coding,0,system}', body #>> '{code,coding,0,code}', body ->> 'effectiveDateTime',"
    " (body #>> '{valueQuantity,value}')::numeric, body #>> '{valueQuantity,unit}' "
    + _FROM.format(joins="", type="Observation"),
    "blood pressures": "SELECT body ->> 'id', split_part(body #>> '{subject,reference}', '/', 2), body ->> 'effectiveDateTime', "
    + ", ".join(_VALUE.format(c=name) for name in "sd")
    + " "
    + _FROM.format(
        joins=_COMPONENT.format(code="8480-6", name="s") + _COMPONENT.format(code="8462-4", name="d"),
        type="Observation",
    )
    + ' AND body -> \'code\' -> \'coding\' @> \'[{"system": "http://loinc.org", "code": "85354-9"}]\'',
    "lines of explanations of benefit": "SELECT body ->> 'id', split_part(body #>> '{patient,reference}', '/', 2),"
    " body ->> 'status', body ->> 'created', (i ->> 'sequence')::int, i #>> '{productOrService,coding,0,system}',"
    " i #>> '{productOrService,coding,0,code}', i #>> '{productOrService,text}', i #>> '{servicedPeriod,start}',"
    " (i #>> '{net,value}')::numeric, i #>> '{net,currency}', split_part(i #>> '{encounter,0,reference}', '/', 2) "
    + _FROM.format(joins=" CROSS JOIN LATERAL jsonb_array_elements(body -> 'item') i", type="ExplanationOfBenefit"),
}


def run(place: Workplace) -> list[Figure]:
    """Measure each view and its hand-written SQL in turns; the figures are medians."""
    compiling = _slowest_to_compile()
    if not SYNTHEA.is_dir():
        tell("no Synthea charts are beside this checkout: exports by view are not measured")
        return [compiling]
    with loaded_rows(place) as (schema, config):
        return [compiling, *[figure for name in VIEWS for figure in _measured(place, schema, config, name)]]


def _slowest_to_compile() -> Figure:
    """The built-in view that takes longest to compile, when R4's table has been read."""
    taken: dict[str, list[float]] = {}
    for view in load_views((*builtin_names(), *view_sets())):
        for _ in range(4):
            begins = time.perf_counter()
            compiled_over_nothing(view)
            taken.setdefault(view.name, []).append(1_000 * (time.perf_counter() - begins))
    name, samples = max(taken.items(), key=lambda one: min(one[1]))
    return Figure(
        name=f"compiling the slowest built-in view, {name}", value=min(samples), unit="ms", bar=50, bar_on="at most",
        samples=tuple(samples),
    )  # fmt: skip


@contextmanager
def loaded_rows(place: Workplace) -> Iterator[tuple[str, Path]]:
    """Keep these rows in a tenant of its own, and give its schema and a configuration file, until the end of the block."""
    tenant = place.tenant()
    schema = f"tenant_{tenant}"

    async def prepare() -> None:
        async with opened_store(place.url, tenant):
            pass

    anyio.run(prepare)
    with psycopg.connect(place.url, autocommit=True) as conn:
        conn.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        conn.execute("INSERT INTO connection (name) VALUES ('ehr')")
        with (
            conn.cursor() as cursor,
            cursor.copy(
                "COPY resource (first_run, last_changed_run, connection, resource_type, id, content_hash, body) FROM STDIN"
            ) as copy,
        ):
            for row in copied_rows():
                copy.write_row(row)
        conn.execute("VACUUM ANALYZE resource")
    try:
        yield schema, place.configure(tenant, {"vendor": "generic", "base_url": "http://nobody.example"})
    finally:
        place.drop(tenant)


def copied_rows() -> Iterator[tuple[int, int, int, str, str, bytes, str]]:
    """Yield the charts as rows of `resource`: type and id are the fourth and fifth value, the resource's JSON the last."""
    for kind, copies in COPIES.items():
        resources = [
            json.loads(line) for line in gzip.decompress((SYNTHEA / f"{kind}.ndjson.gz").read_bytes()).splitlines()
        ]
        for number in range(copies):
            for resource in resources:
                resource["id"] = f"{resource['id'][:30]}{number:06d}"
                yield 1, 1, 1, kind, resource["id"], bytes(32), json.dumps(resource)


def _measured(place: Workplace, schema: str, config: Path, name: str) -> list[Figure]:
    file, out = place.folder / "view.json", place.folder / "view-export"
    file.write_text(json.dumps({"name": "measured", **VIEWS[name]}))
    plain, ordered, ours, peaks, rows = [], [], [], [], 0
    parquet, parquet_peaks, cpu = [], [], []
    for turn in range(place.runs):
        tell(f"export of {name}, turn {turn + 1} of {place.runs}")
        plain.append(_copied(place.url, schema, BY_HAND[name]))
        typed = place.chartferry(
            config, "export", "--out", str(out), "--format", "parquet", "--view", str(file), "--json"
        )
        parquet.append(typed.json["seconds"])
        parquet_peaks.append(typed.peak_mb)
        cpu.append(typed.cpu_s)
        done = place.chartferry(config, "export", "--out", str(out), "--format", "csv", "--view", str(file), "--json")
        ordered.append(_copied(place.url, schema, f"{BY_HAND[name]} ORDER BY id"))
        ours.append(done.json["seconds"])
        rows = done.json["rows"]
        peaks.append(done.peak_mb)
        shutil.rmtree(out)
    return [
        Figure(
            name=f"export of {name}, {limit_name}", value=rows / median(ours), unit="rows/s", limit=rows / median(limit),
            limit_name="hand-written SQL by COPY", bar=BAR, peak_mb=max(peaks), samples=tuple(ours),
        )
        for limit_name, limit in (("as the table lies", plain), ("in the order of ids", ordered))
    ] + [
        Figure(
            name=f"Parquet of {name}", value=rows / median(parquet), unit="rows/s", limit=rows / median(ordered),
            limit_name="hand-written SQL by COPY, in the order of ids", note=f"{median(cpu):.1f} s of CPU, start and all",
            bar=PARQUET_BAR if name == MANY_ROWS else None, bar_on="at least",
            peak_mb=max(parquet_peaks), samples=tuple(parquet),
        )
    ]  # fmt: skip


def _copied(url: str, schema: str, query: str) -> float:
    with psycopg.connect(url) as conn, conn.cursor() as cursor:
        conn.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        conn.execute("SET work_mem = '64MB'; SET random_page_cost = 1.1")  # as an export has it
        begins = time.perf_counter()
        with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER true)".encode()) as copy:
            for _ in copy:
                pass
        return time.perf_counter() - begins
