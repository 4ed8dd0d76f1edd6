"""SQL views in the tenant's schema: what psql sees of them, and whose they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exports.catalogue import builtin_names, load_view
from exports.typed_rows import typed_rows
from snapshots.errors import StoreError
from snapshots.record import Batch
from snapshots.report import RunScope
from snapshots.sql_views import SqlView, SqlViews, rows_of
from snapshots.store import Store
from tests.integration.exports.charts import fill, patient, record, remove, view_file
from tests.integration.snapshots.stored import execute, rows

pytestmark = pytest.mark.anyio
KEY = {"path": "getResourceKey()", "name": "key"}
SEX = {"path": "gender", "name": "sex"}
BORN = {"path": "birthDate", "name": "born", "type": "date"}


async def created(store: Store, view: str, *, materialized: bool = False) -> SqlView:
    loaded = load_view(view)
    async with store.sql_views() as there:
        query = typed_rows(loaded, rows_of(loaded.resource))
        return await there.create(loaded.name, query, digest=loaded.digest, materialized=materialized)


async def test_every_built_in_view_is_created_and_shows_only_ended_runs(store: Store, store_url: str) -> None:
    for name in builtin_names():
        await created(store, name)
    await fill(store, [patient("a", birthDate="1990-01-01", multipleBirthInteger=2), patient("b")])
    await fill(store, [patient("a")], connection="south")
    seen = "SELECT connection, key FROM patient ORDER BY 1, 2"
    assert rows(store_url, seen) == [("site", "a"), ("site", "b"), ("south", "a")]
    scope = RunScope(connection="site", kind="sync", mode="crawl", selection="all", types=())
    async with await store.begin_run(scope) as run:
        await run.write(Batch(records=[record(patient("b", gender="male")), record(patient("c"))]))
        assert rows(store_url, "SELECT key, gender FROM patient WHERE connection = 'site' ORDER BY 1") == [
            ("a", None),
            ("b", None),
        ]
        await run.finish(watermark=None)
    assert rows(store_url, "SELECT key FROM patient WHERE gender = 'male'") == [("b",)]
    await remove(store, "a")
    assert rows(store_url, seen) == [("site", "b"), ("site", "c"), ("south", "a")]


@pytest.mark.quick
async def test_cells_are_typed_and_odd_ones_null(store: Store, store_url: str) -> None:
    values: list[Any] = [1.50, "q12h"]
    await fill(
        store,
        [
            {"resourceType": "Observation", "id": f"o{at}", "valueQuantity": {"value": one}}
            for at, one in enumerate(values)
        ],
    )
    await created(store, "observation")
    assert rows(
        store_url, "SELECT pg_typeof(value_quantity)::text, value_quantity::text FROM observation ORDER BY key"
    ) == [
        ("numeric", "1.5"),
        ("numeric", None),
    ]


async def test_a_materialised_view_has_the_rows_of_its_last_refresh(store: Store, store_url: str) -> None:
    await fill(store, [patient("a")])
    first = await created(store, "patient", materialized=True)
    await created(store, "condition")
    await fill(store, [patient("b")])
    assert rows(store_url, "SELECT key FROM patient") == [("a",)]
    async with store.sql_views() as there:
        (again,) = await there.refresh()
        assert [one.name for one in await there.existing()] == ["condition", "patient"]
        with pytest.raises(StoreError, match="no materialised view condition; there are: patient"):
            await there.refresh(["condition"])
    assert first.as_of is not None
    assert again.as_of is not None
    assert again.as_of > first.as_of
    assert rows(store_url, "SELECT key FROM patient ORDER BY 1") == [("a",), ("b",)]


async def test_a_changed_view_keeps_its_grants_and_reports_removed_columns(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    await created(store, view_file(tmp_path, "people", KEY, SEX))
    execute(store_url, "GRANT SELECT ON people TO PUBLIC")
    rights = "SELECT relacl IS NOT NULL FROM pg_class WHERE relname = 'people'"
    more = await created(store, view_file(tmp_path, "people", KEY, SEX, BORN))
    assert (more.columns, more.dropped) == (("key", "sex", "born"), ())
    assert rows(store_url, rights) == [(True,)]
    less = await created(store, view_file(tmp_path, "people", KEY, BORN))
    assert (less.columns, less.dropped) == (("key", "born"), ("sex",))
    # from plain to materialised and back
    assert (await created(store, view_file(tmp_path, "people", KEY, BORN), materialized=True)).materialized
    assert not (await created(store, view_file(tmp_path, "people", KEY, BORN))).materialized


async def test_foreign_objects_are_left_alone(store: Store, store_url: str, tmp_path: Path) -> None:
    execute(store_url, "CREATE VIEW people AS SELECT 1 AS mine")
    for name in ("people", "resource"):
        with pytest.raises(StoreError, match=f"{name} is a table or view that is not chartferry's"):
            await created(store, view_file(tmp_path, name, KEY))
    async with store.sql_views() as there:
        with pytest.raises(StoreError, match="has created no view people; there are: none"):
            await there.drop(["people"])
    assert rows(store_url, "SELECT mine FROM people") == [(1,)]


async def test_several_views_are_created_all_or_none(store: Store, store_url: str, tmp_path: Path) -> None:
    execute(store_url, "CREATE VIEW taken AS SELECT 1 AS mine")
    await created(store, view_file(tmp_path, "people", KEY, SEX))

    async def create(there: SqlViews) -> None:
        async with there.all_or_none():
            for name in ("people", "fresh", "taken"):
                loaded = load_view(view_file(tmp_path, name, KEY))
                await there.create(name, typed_rows(loaded, rows_of(loaded.resource)), digest=loaded.digest)

    async with store.sql_views() as there:
        with pytest.raises(StoreError, match="taken is a table or view that is not chartferry's"):
            await create(there)
        assert [(one.name, one.columns) for one in await there.existing()] == [("people", ("key", "sex"))]


async def test_a_view_that_others_depend_on_is_not_dropped(store: Store, store_url: str, tmp_path: Path) -> None:
    await created(store, view_file(tmp_path, "people", KEY, SEX))
    execute(store_url, "CREATE VIEW mine AS SELECT key FROM people")
    with pytest.raises(StoreError, match="other views depend on people"):
        await created(store, view_file(tmp_path, "people", BORN))
    async with store.sql_views() as there:
        with pytest.raises(StoreError, match="other views depend on people"):
            await there.drop(["people"])
        execute(store_url, "DROP VIEW mine")
        assert [one.name for one in await there.drop(["people"])] == ["people"]
        assert await there.existing() == []
