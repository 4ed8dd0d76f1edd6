"""Days and moments in tables: in one form for readers, and as the EHR wrote them beside it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from exports.compiler import Source, compile_view
from exports.delivery.destination import LocalFolder
from exports.formats.written_forms import with_one_form
from exports.plan import ExportRequest
from exports.run import export
from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.exports.charts import fill, table_of

MOMENTS = {
    "2020-01-02T03:04:05Z": "2020-01-02T03:04:05Z",
    "2020-01-02T03:04:05.123456789-05:00": "2020-01-02T08:04:05.123457Z",
    "2020-12-31T23:30:00-01:00": "2021-01-01T00:30:00Z",
    "2020-01-02T03:04": "2020-01-02T03:04:00Z",
    "2020-02-29": "2020-02-29T00:00:00Z",
    "9999-12-31": "9999-12-31T00:00:00Z",
    "9999-12-31T23:59:59-05:00": None,
    "0001-01-01T00:00:00+14:00": None,
    "2020-02": None,
    "2020": None,
    "2019-02-29": None,
    "2019-02-29T10:00:00Z": None,
    "2020-01-02T25:00:00Z": None,
    "2020-01-02T10:00:00Z BC": None,
    "2020-01-02T10:00:00 EST": None,
}
DAYS = {"1970-01-02": "1970-01-02", "1970-01": None, "1970": None, "1970-02-30": None}


def cells(conn: psycopg.Connection[Any], path: str, type_: str, texts: list[str], *, asks: bool) -> dict[str, Any]:
    resources = [{"resourceType": "Patient", "id": f"{at:03}", path: text} for at, text in enumerate(texts)]
    rows = sql.SQL(
        "(SELECT 'site'::text AS connection, body ->> 'id' AS id, body FROM jsonb_array_elements({}::jsonb) AS t(body))"
    ).format(sql.Literal(json.dumps(resources)))
    columns = [{"name": "c", "path": path, "type": type_}]
    view = {"name": "v", "resource": "Patient", "select": [{"column": columns}]}
    compiled = compile_view(view, Source(rows, of_type=True, one_connection=True), marked=True)
    return {written: form for form, written in conn.execute(with_one_form(compiled, asks=asks))}


@pytest.mark.anyio
async def test_a_long_name_is_whole_in_the_header_too(store: Store, tmp_path: Path) -> None:
    name = "d" * 63
    column = {"name": name, "path": "birthDate", "type": "date"}
    view = {"name": "v", "resource": "Patient", "select": [{"column": [column]}]}
    (tmp_path / "v.json").write_text(json.dumps(view))
    await fill(store, [{"resourceType": "Patient", "id": "p", "birthDate": "2020"}])
    async with store.snapshot(Selection()) as snapshot:
        folder = LocalFolder(tmp_path / "out")
        await export(ExportRequest(out=folder, formats=("csv",), views=(str(tmp_path / "v.json"),)), snapshot)
    assert table_of(tmp_path / "out" / "v.csv.gz") == [{name: "", f"{name}_written": "2020"}]


@pytest.mark.parametrize("asks", [True, False])
def test_instants_are_in_utc_and_dates_valid_beside_the_written_form(
    postgres: psycopg.Connection[Any], asks: bool
) -> None:
    if asks and postgres.info.server_version < 160_000:
        asks = False
    assert cells(postgres, "deceasedDateTime", "dateTime", list(MOMENTS), asks=asks) == MOMENTS
    assert cells(postgres, "birthDate", "date", list(DAYS), asks=asks) == DAYS


@pytest.mark.anyio
async def test_csv_and_parquet_have_the_same_dates_and_instants_and_count_odd_ones_once(
    store: Store, tmp_path: Path
) -> None:
    written = [("1970-01-02", "2020-01-02T03:04:05-05:00"), ("1970-01", "2020"), ("soon", "2020-13")]
    patients = [
        {"resourceType": "Patient", "id": f"p{at}", "birthDate": day, "deceasedDateTime": moment}
        for at, (day, moment) in enumerate(written)
    ]
    await fill(store, patients)
    listed = [
        {"name": "born", "path": "birthDate", "type": "date"},
        {"name": "died", "path": "deceased.ofType(dateTime)", "type": "dateTime"},
        {"name": "died_written", "path": "id", "type": "string"},
    ]
    view = tmp_path / "view.json"
    view.write_text(json.dumps({"name": "mine", "resource": "Patient", "select": [{"column": listed}]}))
    async with store.snapshot(Selection()) as snapshot:
        request = ExportRequest(out=LocalFolder(tmp_path / "out"), formats=("csv", "parquet"), views=(str(view),))
        result = await export(request, snapshot)
    assert table_of(tmp_path / "out" / "mine.csv.gz") == [
        {"born": "1970-01-02", "born_written": "1970-01-02", "died": "2020-01-02T08:04:05Z", "died_written": "p0"},
        {"born": "", "born_written": "1970-01", "died": "", "died_written": "p1"},
        {"born": "", "born_written": "", "died": "", "died_written": "p2"},
    ]
    assert pq.read_table(tmp_path / "out" / "mine.parquet").to_pylist() == [
        {
            "born": date(1970, 1, 2), "born_written": "1970-01-02", "died": datetime(2020, 1, 2, 8, 4, 5, tzinfo=UTC),
            "died_written": "p0",
        },
        {"born": None, "born_written": "1970-01", "died": None, "died_written": "p1"},
        {"born": None, "born_written": None, "died": None, "died_written": "p2"},
    ]  # fmt: skip
    assert [file.left_empty for file in result.files] == [{"born": 1}, {"born": 1}]
    tables = json.loads((tmp_path / "out" / "datapackage.json").read_bytes())["resources"]
    fields = [[(one["name"], one["type"]) for one in table["schema"]["fields"]] for table in tables]
    expected = [("born", "date"), ("born_written", "string"), ("died", "datetime"), ("died_written", "string")]
    assert fields == [expected, expected]
