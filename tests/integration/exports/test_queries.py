"""Queries over a real store: over views, typed, bound, within limits, and nothing beside."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from exports.delivery.destination import LocalFolder
from exports.errors import PlanError, QueryError, ViewDataError
from exports.plan import ExportRequest
from exports.queries.run import Limits, run_query
from exports.run import export
from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.exports.charts import fill, names_in, patient, table_of

pytestmark = pytest.mark.anyio


async def answer(
    store: Store, file: Path, parameters: dict[str, str] | None = None, limits: Limits | None = None, **of: Any
) -> list[dict[str, str]]:
    out = io.BytesIO()
    async with store.snapshot(Selection(**of)) as snapshot:
        await run_query(file, parameters or {}, snapshot, out, limits or Limits())
    return list(csv.DictReader(io.StringIO(out.getvalue().decode(), newline="")))


def written(folder: Path, sql: str, name: str = "q.sql") -> Path:
    (folder / name).write_text(sql)
    return folder / name


PEOPLE = "-- @relatedDependency: patient as p\n"


@pytest.mark.quick
async def test_a_query_reads_views_of_all_connections_and_binds_its_parameters(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", birthDate="1990-05-05"), patient("b", birthDate="1950-05-05")])
    await fill(store, [patient("a", birthDate="2001-05-05")], connection="south")
    sql = "-- @param: born date\n-- @param: also string\n" + PEOPLE
    file = written(
        tmp_path,
        sql + "SELECT connection, key, :also AS said FROM p WHERE birth_date::date >= :born ORDER BY key, connection;",
    )
    text = "'; DROP TABLE resource; --"
    rows = await answer(store, file, {"born": "1980-01-01", "also": text})
    assert rows == [
        {"connection": "site", "key": "a", "said": text},
        {"connection": "south", "key": "a", "said": text},
    ]
    assert len(await answer(store, file, {"born": "1900-01-01", "also": ""}, connections=("site",))) == 2


async def test_cells_have_the_types_of_their_columns_and_odd_ones_are_null(store: Store, tmp_path: Path) -> None:
    values = [{"valueQuantity": {"value": 2.5}}, {"valueQuantity": {"value": "q12h"}}, {"valueBoolean": True}]
    rows = [{"resourceType": "Observation", "id": f"o{at}", **one} for at, one in enumerate(values)]
    await fill(store, rows)
    file = written(
        tmp_path,
        "-- @relatedDependency: https://chartferry.example/fhir/ViewDefinition/observation|0.1 as o\n"
        "SELECT sum(value_quantity) * 2 AS sum, bool_or(value_boolean) AS any, count(*) AS n FROM o",
    )
    assert await answer(store, file) == [{"sum": "5.0", "any": "true", "n": "3"}]


async def test_libraries_depend_on_views_and_libraries_in_files(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", gender="male"), patient("b", gender="female")])
    view = {
        "resourceType": "ViewDefinition",
        "name": "sexes",
        "resource": "Patient",
        "select": [{"column": [{"path": "id", "name": "id"}, {"path": "gender", "name": "sex"}]}],
    }
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "sexes.json").write_text(json.dumps(view))
    men = {
        "resourceType": "Library",
        "name": "men",
        "type": {"coding": [{"code": "sql-view"}]},
        "relatedArtifact": [{"type": "depends-on", "resource": "sexes.json", "label": "s"}],
        "content": [
            {
                "contentType": "application/sql",
                "data": base64.b64encode(b"SELECT id FROM s WHERE sex = 'male'").decode(),
            }
        ],
    }
    (tmp_path / "views" / "men.json").write_text(json.dumps(men))
    file = written(tmp_path, "-- @relatedDependency: views/men.json as men\nSELECT * FROM men")
    assert await answer(store, file) == [{"id": "a"}]
    # a label holds in its own library only
    file = written(tmp_path, "-- @relatedDependency: views/men.json as men\nSELECT * FROM men, s")
    with pytest.raises(QueryError, match="table s is not declared"):
        await answer(store, file)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT 1 AS a, 2 AS a", "two columns would be named a"),
        ("-- @relatedDependency: q.sql as q\nSELECT * FROM q", "depends on itself by q.sql"),
        ("-- @relatedDependency: nothing as q\nSELECT * FROM q", "no built-in view has that name"),
        ("SELECT pg_read_file('/etc/passwd')", "function pg_read_file"),
        ("SELECT set_config('search_path', 'public', false)", "function set_config"),
        ("SELECT table_to_xml('pg_authid', true, true, '')", "function table_to_xml"),
        ("SELECT pg_sleep(1)", "function pg_sleep"),
        ("SELECT ('PG_VERSION'::text).pg_read_file", "pg_read_file: it does not exist, or"),
        ("SELECT x.pg_read_file FROM unnest(ARRAY['PG_VERSION'::text]) x", "pg_read_file: it does not exist, or"),
        ("SELECT (a).current_setting FROM (SELECT 'DateStyle'::text AS a) x", "function current_setting"),
        ("SELECT no_such_function(1)", "function no_such_function"),
        (PEOPLE + "SELECT nothing FROM p", 'q: .* column "nothing" does not exist'),
    ],
)
async def test_missing_or_forbidden_names_are_reported(store: Store, tmp_path: Path, sql: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        await answer(store, written(tmp_path, sql))


async def test_a_query_that_takes_too_long_is_stopped(store: Store, tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(QueryError, match=r"q\.sql was stopped after 1 s; --timeout"):
        await answer(store, written(tmp_path, endless), limits=Limits(seconds=1, memory_mb=1))


async def test_a_value_that_does_not_fit_is_not_quoted(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", gender="Quill")])
    problem = (
        r"query 'q': a value does not fit what the query does with it \(SQLSTATE 22P02, invalid text representation\)"
    )
    with pytest.raises(ViewDataError, match=problem) as caught:
        await answer(store, written(tmp_path, PEOPLE + "SELECT gender::integer FROM p"))
    assert "Quill" not in str(caught.value)


@pytest.mark.parametrize(("value", "cast"), [("quill", "regclass"), ("quill &", "tsquery")])
async def test_an_invalid_parameter_value_is_not_quoted(store: Store, tmp_path: Path, value: str, cast: str) -> None:
    await fill(store, [patient("a", gender=value)])
    with pytest.raises(QueryError, match="SQLSTATE 42") as caught:
        await answer(store, written(tmp_path, PEOPLE + f"SELECT gender::{cast} FROM p"))
    assert "quill" not in str(caught.value)


async def test_a_column_may_have_the_name_of_a_function(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", gender="male")])
    sql = "SELECT q.time, q.name, q.system FROM (SELECT gender AS time, 'b' AS name, 'c' AS system FROM p) q"
    assert await answer(store, written(tmp_path, PEOPLE + sql)) == [{"time": "male", "name": "b", "system": "c"}]


async def test_a_query_written_to_a_file_is_complete_or_absent(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a"), patient("b")])
    async with store.snapshot(Selection()) as snapshot:
        file = written(tmp_path, PEOPLE + "SELECT key FROM p ORDER BY key DESC")
        done, _ = await run_query(file, {}, snapshot, tmp_path / "out.csv.gz", Limits())
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()) == b"key\nb\na\n"
    assert done.rows == 2
    file = written(tmp_path, PEOPLE + "SELECT 1 / (length(key) - 1) FROM p")
    with pytest.raises(ViewDataError):
        async with store.snapshot(Selection()) as snapshot:
            await run_query(file, {}, snapshot, tmp_path / "none.csv", Limits())
    assert names_in(tmp_path) == {"out.csv.gz", "q.sql"}


async def test_an_export_computes_queries_on_the_snapshot_of_its_views(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a", gender="male"), patient("b", gender="female")])
    men = written(tmp_path, "-- @param: sex string\n" + PEOPLE + "SELECT key FROM p WHERE gender = :sex", "men.sql")
    count = written(tmp_path, PEOPLE + "SELECT count(*) AS n FROM p", "count.sql")
    out = tmp_path / "out"
    queries = {"queries": (men, count), "parameters": {"sex": "male"}}
    async with store.snapshot(Selection()) as snapshot:
        await fill(store, [patient("c")])
        result = await export(ExportRequest(out=LocalFolder(out), views=("patient",), **queries), snapshot)
        assert table_of(out / "men.csv.gz") == [{"key": "a"}]
        assert table_of(out / "count.csv.gz") == [{"n": str(len(table_of(out / "patient.csv.gz")))}] == [{"n": "2"}]
        manifest = json.loads((out / "manifest.json").read_text())
        assert [one["name"] for one in manifest["request"]["queries"]] == ["men", "count"]
        assert {file.path: file.rows for file in result.files if file.path in {"men.csv.gz", "count.csv.gz"}} == {
            "men.csv.gz": 1,
            "count.csv.gz": 1,
        }
    # without views they are all that is written; files of the former export are removed
    async with store.snapshot(Selection()) as snapshot:
        await export(ExportRequest(out=LocalFolder(out), **queries), snapshot)
        assert names_in(out) == {
            "manifest.json",
            "men.csv.gz",
            "count.csv.gz",
            "datapackage.json",
            "data_dictionary.csv",
        }
    async with store.snapshot(Selection()) as snapshot:
        with pytest.raises(QueryError, match="no query has a parameter born"):
            await export(ExportRequest(out=LocalFolder(out), queries=(count,), parameters={"born": "1"}), snapshot)
        same = written(tmp_path, "-- @name: patient\nSELECT 1")
        with pytest.raises(PlanError, match=r"two files would be named patient\.csv\.gz"):
            await export(ExportRequest(out=LocalFolder(out), views=("patient",), queries=(same,)), snapshot)


EVERY_TYPE = """
SELECT true AS yes, 7::bigint AS n, 1.50 AS exact, DATE '2024-02-29' AS day, ARRAY['a', NULL] AS list,
    '' AS empty, '=1+1' AS said, TIMESTAMPTZ '2024-02-29 12:00:00.5+02' AS at, NULL::text AS none, '{"b": 1}'::jsonb AS object
"""


async def test_queries_are_written_in_the_requested_table_formats(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a")])
    out, query = tmp_path / "out", written(tmp_path, EVERY_TYPE)
    request = ExportRequest(
        out=LocalFolder(out),
        queries=(query,),
        formats=("parquet", "csv"),
        views=("patient",),
        csv_dialect="pandas",
        compression="zstd",
    )
    async with store.snapshot(Selection()) as snapshot:
        await export(request, snapshot)
    assert names_in(out) >= {"q.parquet", "q.csv.zst", "patient.parquet", "patient.csv.zst"}
    with pa.CompressedInputStream(out / "q.csv.zst", "zstd") as stream:
        text = stream.read().decode()
    assert text.splitlines()[1] == (
        r'true,7,1.50,2024-02-29,"[""a"", null]","",=1+1,2024-02-29T10:00:00.5Z,\N,"{""b"": 1}"'
    )
    (row,) = pq.read_table(out / "q.parquet").to_pylist()
    at = datetime(2024, 2, 29, 10, 0, 0, 500_000, UTC)
    assert {name: value for name, value in row.items() if not name.endswith("_written")} == {
        "yes": True, "n": 7, "exact": 1.5, "day": date(2024, 2, 29), "list": ["a", None], "empty": "", "said": "=1+1",
        "at": at, "none": None, "object": '{"b": 1}',
    }  # fmt: skip
    tables = json.loads((out / "datapackage.json").read_bytes())["resources"]
    fields = {table["name"]: table["schema"]["fields"] for table in tables}
    assert [one["type"] for one in fields["q.csv"]] == [
        *("boolean", "integer", "number", "date", "array", "string", "string", "datetime", "string", "string")
    ]


@pytest.mark.parametrize("name", ["q.csv", "q.csv.gz", "q.csv.zst", "q.parquet"])
async def test_the_name_of_a_querys_file_decides_its_format(store: Store, tmp_path: Path, name: str) -> None:
    await fill(store, [patient("a"), patient("b")])
    file = written(tmp_path, PEOPLE + "SELECT key, key = 'a' AS first FROM p ORDER BY key")
    async with store.snapshot(Selection()) as snapshot:
        done, _ = await run_query(file, {}, snapshot, tmp_path / name, Limits())
    rows = pq.read_table(tmp_path / name) if name.endswith("parquet") else pa_csv.read_csv(open_input(tmp_path / name))
    assert rows.to_pylist() == [{"key": "a", "first": True}, {"key": "b", "first": False}]
    assert (done.rows, done.kind) == (2, name.split(".")[1])


def open_input(path: Path) -> Any:
    kinds = {".gz": "gzip", ".zst": "zstd"}
    return pa.CompressedInputStream(path, kinds[path.suffix]) if path.suffix in kinds else path


async def test_a_limited_export_limits_queries_too(store: Store, tmp_path: Path) -> None:
    await fill(store, [patient("a"), patient("b"), patient("c", gender="male")])
    query = written(tmp_path, PEOPLE + "SELECT key FROM p ORDER BY key DESC LIMIT 5")
    async with store.snapshot(Selection()) as snapshot:
        where = ("Patient.gender.empty()",)
        await export(ExportRequest(out=LocalFolder(tmp_path / "out"), queries=(query,), limit=1, where=where), snapshot)
    assert table_of(tmp_path / "out" / "q.csv.gz") == [{"key": "b"}]
