"""Views loaded into tables of another database: what an analyst finds there after each night."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from exports.errors import PlanError, ViewDataError, WarehouseError
from exports.warehouse.load import Loaded, WarehouseRequest, load_warehouse
from exports.warehouse.target import PostgresSchema
from snapshots.record import Batch
from snapshots.report import RunScope
from snapshots.sealed_values import Keyring
from snapshots.selection import Selection
from snapshots.store import Store
from tests.fix_store import database, opened_store
from tests.integration.exports.charts import fill, patient, record, remove, view_file

pytestmark = pytest.mark.anyio
_numbers = itertools.count(1)
KEYS = ({"name": "site", "path": "%connection"}, {"name": "key", "path": "getResourceKey()", "type": "id"})
GENDER = {"name": "gender", "path": "gender", "type": "code"}
BORN = {"name": "born", "path": "birthDate", "type": "date"}


@pytest.fixture
def warehouse(store_server: str) -> Iterator[str]:
    with database(store_server, f"cf_{os.getpid()}_warehouse_{next(_numbers)}") as url:
        yield url


async def load(store: Store, url: str, *views: str, since: int | None = None, **more: Any) -> Loaded:
    request = WarehouseRequest(into=PostgresSchema(url, "charts"), views=views, **more)
    async with store.snapshot(Selection(changed_since=since)) as snapshot:
        return await load_warehouse(request, snapshot)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(query).fetchall()  # type: ignore[arg-type]  # a test's own


def people(url: str) -> list[tuple[Any, ...]]:
    return rows(url, "SELECT key, gender FROM charts.people ORDER BY key, gender")


@pytest.mark.quick
async def test_each_view_is_a_table_with_its_types(store: Store, warehouse: str) -> None:
    observation = {
        "resourceType": "Observation",
        "id": "o1",
        "status": "final",
        "subject": {"reference": "Patient/a"},
        "effectiveDateTime": "2020-02-29T03:04:05-05:00",
        "valueQuantity": {"value": 1.5},
    }
    odd = 'a "b",\n\\c'
    await fill(store, [patient("a", birthDate="2000-02-29", active=True, name=[{"text": odd}]), observation])
    done = await load(store, warehouse)
    assert len(done.tables) == 36
    (found,) = rows(warehouse, "SELECT key, patient_key, value_quantity, effective_at FROM charts.observation")
    assert found[:3] == ("o1", "a", Decimal("1.5"))
    assert found[3] == datetime(2020, 2, 29, 8, 4, 5, tzinfo=UTC)
    found = rows(warehouse, "SELECT birth_date::text, active, name_text, deceased_at, identifiers FROM charts.patient")
    assert found == [("2000-02-29", True, odd, None, [])]


async def test_a_second_load_replaces_the_rows_and_keeps_dependent_objects(
    store: Store, warehouse: str, tmp_path: Path
) -> None:
    await fill(store, [patient("a", gender="male"), patient("b", gender="male")])
    view = view_file(tmp_path, "people", *KEYS, GENDER)
    await load(store, warehouse, view)
    with psycopg.connect(warehouse, autocommit=True) as conn:
        conn.execute("CREATE VIEW men AS SELECT key FROM charts.people WHERE gender = 'male'")
    await fill(store, [patient("b", gender="female")])
    done = await load(store, warehouse, view)
    assert [(one.rows, one.deleted) for one in done.tables] == [(2, 2)]
    assert rows(warehouse, "SELECT key FROM men") == [("a",)]


async def test_a_views_new_column_is_added_and_its_removed_column_is_emptied(
    store: Store, warehouse: str, tmp_path: Path
) -> None:
    await fill(store, [patient("a", gender="male", birthDate="2000-01-01")])
    await load(store, warehouse, view_file(tmp_path, "people", *KEYS, GENDER))
    done = await load(store, warehouse, view_file(tmp_path, "people", BORN, *KEYS))
    (table,) = done.tables
    assert (table.added, table.unfilled) == (("born", "born_written"), ("gender",))
    assert rows(warehouse, "SELECT key, gender, born::text FROM charts.people") == [("a", None, "2000-01-01")]
    retyped = view_file(
        tmp_path, "people", *KEYS, {"name": "gender", "path": "multipleBirth.ofType(integer)", "type": "integer"}
    )
    with pytest.raises(WarehouseError, match="gender now has another type"):
        await load(store, warehouse, retyped)


async def test_changes_replace_and_delete_the_rows_of_their_resources(
    store: Store, warehouse: str, tmp_path: Path
) -> None:
    await fill(store, [patient(id_, gender="male") for id_ in "abcd"])
    await fill(store, [patient("a", gender="other")], connection="another")
    named = {"path": "gender.exists()"}
    view = view_file(tmp_path, "people", *KEYS, GENDER, where=[named])
    first = await load(store, warehouse, view)
    await fill(store, [patient("a", gender="female"), patient("b"), patient("e", gender="male")])
    await remove(store, "c")
    done = await load(store, warehouse, view, since=first.runs[-1].run)
    assert [(one.rows, one.deleted) for one in done.tables] == [(2, 3)]
    assert people(warehouse) == [("a", "female"), ("a", "other"), ("d", "male"), ("e", "male")]
    assert rows(warehouse, "SELECT site FROM charts.people WHERE gender = 'other'") == [("another",)]
    with pytest.raises(WarehouseError, match="not what run"):
        await load(store, warehouse, view, since=first.runs[-1].run)
    again = await load(store, warehouse, view, since=done.runs[-1].run)
    assert [(one.rows, one.deleted) for one in again.tables] == [(0, 0)]


async def test_changes_continue_only_from_the_run_that_ended_last(store: Store, warehouse: str, tmp_path: Path) -> None:
    view = view_file(tmp_path, "people", *KEYS, GENDER)
    scope = RunScope(connection="slow", kind="sync", mode="crawl", selection="all", types=())
    async with await store.begin_run(scope) as slow:
        await fill(store, [patient("a", gender="male")])
        first = await load(store, warehouse, view)
        await slow.write(Batch(records=[record(patient("b", gender="male"))]))
        await slow.finish(watermark=None)
    (quick,) = first.runs
    assert first.left_by == quick.run > slow.id
    with pytest.raises(
        WarehouseError, match=f"holds what run {quick.run} left.* name run {quick.run}, or load it whole"
    ):
        await load(store, warehouse, view, since=slow.id)
    then = await load(store, warehouse, view, since=quick.run)
    assert (people(warehouse), then.left_by) == ([("a", "male"), ("b", "male")], slow.id)


async def test_changes_are_refused_for_a_table_of_another_selection_view_or_key(
    store: Store, warehouse: str, tmp_path: Path
) -> None:
    await fill(store, [patient("a", gender="male")])
    view = view_file(tmp_path, "people", *KEYS, GENDER)
    with pytest.raises(WarehouseError, match="is not there"):
        await load(store, warehouse, view, since=1)
    first = await load(store, warehouse, view)
    run = first.runs[-1].run
    with pytest.raises(WarehouseError, match="another version of the view"):
        await load(store, warehouse, view_file(tmp_path, "people", *KEYS, GENDER, BORN), since=run)
    with pytest.raises(WarehouseError, match="other connections or patients"):
        await load(store, warehouse, view_file(tmp_path, "people", *KEYS, GENDER), since=run, patients=("a",))
    with pytest.raises(PlanError, match="people has no columns"):
        await load(store, warehouse, view_file(tmp_path, "people", GENDER), since=run)
    assert people(warehouse) == [("a", "male")]


async def test_after_an_erasure_changes_are_refused_until_the_tables_are_loaded_whole(
    store: Store, warehouse: str, tmp_path: Path
) -> None:
    view = view_file(tmp_path, "people", *KEYS, GENDER)
    await fill(store, [patient("a", gender="male"), patient("b", gender="male")])
    await load(store, warehouse, view)
    await store.erase("site", "a")
    with pytest.raises(WarehouseError, match=r"a patient who was erased since.*: load it whole"):
        await load(store, warehouse, view, since=1)
    await load(store, warehouse, view)
    assert people(warehouse) == [("b", "male")]
    await fill(store, [patient("b", gender="female")])
    await load(store, warehouse, view, since=1)
    assert people(warehouse) == [("b", "female")]


async def test_a_failed_load_changes_no_table(store: Store, warehouse: str, tmp_path: Path) -> None:
    await fill(store, [patient("a", gender="male")])
    good = view_file(tmp_path, "people", *KEYS, GENDER)
    await load(store, warehouse, good)
    await fill(store, [patient("a", gender="female", multipleBirthInteger="two")])
    odd = view_file(tmp_path, "zodiac", {"name": "n", "path": "multipleBirth.ofType(integer)", "type": "integer"})
    with pytest.raises(ViewDataError):
        await load(store, warehouse, good, odd, strict=True)
    assert people(warehouse) == [("a", "male")]
    assert rows(warehouse, "SELECT to_regclass('charts.zodiac')") == [(None,)]


async def test_a_foreign_table_or_a_load_in_progress_stops_the_load(
    store: Store, warehouse: str, tmp_path: Path
) -> None:
    await fill(store, [patient("a", gender="male")])
    view = view_file(tmp_path, "people", *KEYS, GENDER)
    with psycopg.connect(warehouse, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA charts")
        conn.execute("CREATE TABLE charts.people (key text)")
        with pytest.raises(WarehouseError, match="not chartferry's"):
            await load(store, warehouse, view)
        conn.execute("DROP TABLE charts.people")
        conn.execute("SELECT pg_advisory_lock(hashtextextended('chartferry:charts', 0))")
        with pytest.raises(WarehouseError, match="another export is loading"):
            await load(store, warehouse, view)


async def test_a_refusal_by_the_database_quotes_no_row_or_password(
    store: Store, warehouse: str, tmp_path: Path
) -> None:
    await fill(store, [patient("a", gender="hunter2")])
    view = view_file(tmp_path, "people", *KEYS, GENDER)
    await load(store, warehouse, view)
    with psycopg.connect(warehouse, autocommit=True) as conn:
        conn.execute("DELETE FROM charts.people")
        conn.execute("ALTER TABLE charts.people ADD CHECK (gender <> 'hunter2')")
    with pytest.raises(WarehouseError, match="SQLSTATE 23514") as refused:
        await load(store, warehouse, view)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(WarehouseError, match="cannot connect") as lost:
        await load(store, "postgresql://ana:hunter2@127.0.0.1:9/x", view)
    assert "hunter2" not in str(lost.value)
    with pytest.raises(WarehouseError, match="%40") as misread:
        await load(store, "postgresql://ana:h@unter2@127.0.0.1:9/x", view)
    assert "unter2" not in str(misread.value)
    with pytest.raises(PlanError, match="63 bytes; shorten cc"):
        async with store.snapshot(Selection()) as snapshot:
            await load_warehouse(WarehouseRequest(into=PostgresSchema(warehouse, "c" * 64), views=(view,)), snapshot)
    of_postgres = view_file(tmp_path, "people", *KEYS, {"name": "ctid", "path": "id"}, {"name": "xmin", "path": "id"})
    with pytest.raises(PlanError, match="columns named ctid, xmin already; rename the view's"):
        await load(store, warehouse, of_postgres)


async def test_before_the_first_run_nothing_is_written(store: Store, warehouse: str) -> None:
    assert (await load(store, warehouse)).tables == ()
    assert rows(warehouse, "SELECT to_regnamespace('charts')") == [(None,)]


async def test_an_encrypted_store_gives_the_same_tables_as_a_plain_one(store_url: str, warehouse: str) -> None:
    keys = Keyring(current="k1", keys={"k1": b"1" * 32})
    charts = [patient("a", birthDate="1940-02-03", name=[{"text": 'a, "b"\n'}]), patient("b", birthDate="2020-02-30")]
    found = []
    async with opened_store(store_url) as plain, opened_store(store_url, "sealed", keyring=keys) as sealed:
        for store in (plain, sealed):
            await fill(store, charts)
            await load(store, warehouse, "patient")
            found.append(rows(warehouse, "SELECT p::text FROM charts.patient AS p ORDER BY key"))
    assert found[0] == found[1]
    assert "1940-02-03" in found[0][0][0]
