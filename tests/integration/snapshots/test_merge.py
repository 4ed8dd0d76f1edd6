"""What becomes of records: new, unchanged, changed, stale, deleted, and seen again."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from snapshots.ingest import CLASSIFY, CLASSIFY_ONE_TYPE, prepare_session
from snapshots.record import Batch
from snapshots.store import Store
from snapshots.traffic import Traffic
from snapshots.wire import bytea_array, int_array, register_arrays, text_array
from snapshots.witness import Deletion
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import (
    FOOTPRINT,
    SCHEMA,
    execute,
    full_run,
    live,
    record,
    rows,
    scope,
    search,
    settled,
)

pytestmark = pytest.mark.anyio
U = search()


async def test_a_first_run_stores_every_record_and_notes_nothing_as_seen(store: Store, store_url: str):
    async with await store.begin_run(scope()) as run:
        await run.plan([U])
        await run.write(Batch(records=[record("a", 1), record("b", 2)], results=[settled(U)]))
        assert rows(store_url, "SELECT count(*) FROM seen") == [(0,)]
        report = await run.finish(watermark=None, traffic=Traffic(requests=5, retries=1))
    assert (report.new, report.changed, report.unchanged, report.deleted) == (2, 0, 0, 0)
    assert report.resources == {"Observation": 2}
    assert (report.status, report.requests, report.retries) == ("complete", 5, 1)
    assert rows(store_url, "SELECT id, first_run, last_changed_run, patient_id FROM resource ORDER BY id") == [
        ("a", run.id, run.id, "p1"),
        ("b", run.id, run.id, "p1"),
    ]


async def test_unchanged_content_writes_no_row(store: Store, store_url: str):
    content = [record("a", 1), record("b", 2), record("o", 3, kind="Observation", patient=None)]
    await full_run(await store.begin_run(scope()), content, [U])
    before = rows(store_url, FOOTPRINT)
    report = await full_run(await store.begin_run(scope()), content, [U])
    assert rows(store_url, FOOTPRINT) == before
    assert (report.new, report.changed, report.unchanged) == (0, 0, 3)
    assert rows(store_url, "SELECT count(*) FROM seen") == [(0,)]


async def test_each_type_of_a_large_batch_is_compared_with_what_is_stored(store: Store, store_url: str):
    many = [record(f"a{n}", n) for n in range(600)]
    few = [record(f"d{n}", n, kind="Device") for n in range(3)] + [record("c", 1, kind="Condition")]
    await full_run(await store.begin_run(scope()), [*many, *few], [U])
    altered = {"a7": record("a7", "changed"), "d1": record("d1", "changed", kind="Device")}
    given = [altered.get(one.id, one) for one in (*many, *few)] + [record("a600", 1), record("d3", 1, kind="Device")]
    report = await full_run(await store.begin_run(scope()), [*given, many[0]], [U])
    assert (report.new, report.changed, report.unchanged) == (2, 2, 602)
    changed = rows(store_url, "SELECT resource_type, id FROM resource_history ORDER BY id")
    assert changed == [("Observation", "a7"), ("Device", "d1")]


async def test_what_comes_again_in_a_later_batch_is_noted_once(store: Store, store_url: str):
    content = [record(f"a{n}", n) for n in range(600)] + [record("d", 1, kind="Device")]
    await full_run(await store.begin_run(scope()), content, [U])
    async with await store.begin_run(scope()) as run:
        await run.plan([U])
        for _ in range(2):
            await run.write(Batch(records=content))
        assert rows(store_url, "SELECT count(*) FROM seen") == [(601,)]
        await run.write(Batch(results=[settled(U)]))
        report = await run.finish(watermark=None)
    assert (report.new, report.changed, report.unchanged) == (0, 0, 601)


async def test_a_batch_with_a_change_reads_little_of_what_is_known_of_other_rows(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), [record("a", 1)], [U])
    values = {
        "connection": 1, "run": 9, "type": "Observation", "as_of": None, "rivals": False, "by_way": True,
        "types": text_array([b"Observation"]), "ids": text_array([b"a"]), "updated": text_array([None]),
        "hashes": bytea_array([b"another"]), "ways": int_array([None]),
    }  # fmt: skip
    async with await psycopg.AsyncConnection.connect(store_url) as conn:
        await conn.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(SCHEMA)))
        await prepare_session(conn)
        register_arrays(conn)
        await conn.execute("INSERT INTO seen SELECT 9, 'Observation', 'b' || n FROM generate_series(1, 5000) AS s (n)")
        await conn.execute(
            "INSERT INTO version_by_way (connection, resource_type, id, way, content_hash) "
            "SELECT 1, 'Observation', 'b' || n, first_way, '' FROM resource, generate_series(1, 5000) AS s (n)"
        )
        for statement in (CLASSIFY, CLASSIFY_ONE_TYPE):
            before = await _read(conn)
            found = await (await conn.execute(statement, values, prepare=True)).fetchone()
            assert found is not None
            assert found[2] == [1]  # it differs
            assert await _read(conn) - before < 10


async def _read(conn: psycopg.AsyncConnection[Any]) -> int:
    """How many rows of these tables this transaction has read, by their indexes or in turn."""
    counts = (
        "SELECT pg_stat_get_xact_tuples_returned(c::regclass) "
        "FROM unnest(ARRAY['seen', 'seen_pkey', 'version_by_way', 'version_by_way_pkey']) AS s (c)"
    )
    return sum([number async for (number,) in await conn.execute(counts)])


async def test_key_order_and_white_space_are_no_change(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), [record("a", b'{"x":1.0,"y":2}')], [U])
    before = rows(store_url, FOOTPRINT)
    report = await full_run(await store.begin_run(scope()), [record("a", b'{ "y": 2, "x": 1.0 }')], [U])
    assert rows(store_url, FOOTPRINT) == before
    assert (report.changed, report.unchanged) == (0, 1)


async def test_a_number_with_different_digits_is_a_change(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), [record("a", b'{"x":1.0}')], [U])
    report = await full_run(await store.begin_run(scope()), [record("a", b'{"x":1.00}')], [U])
    assert report.changed == 1
    assert rows(store_url, "SELECT body::text FROM resource") == [('{"x": 1.00}',)]


async def test_a_changed_resource_makes_one_history_row(store: Store, store_url: str):
    first = await full_run(await store.begin_run(scope()), [record("a", 1), record("b", 1)], [U])
    second = await full_run(await store.begin_run(scope()), [record("a", 2), record("b", 1)], [U])
    assert (second.changed, second.unchanged) == (1, 1)
    history = rows(store_url, "SELECT id, from_run, to_run, deleted_run, body ->> 'value' FROM resource_history")
    assert history == [("a", first.id, second.id, None, "1")]
    now = rows(store_url, "SELECT first_run, last_changed_run, body ->> 'value' FROM resource WHERE id = 'a'")
    assert now == [(first.id, second.id, "2")]


async def test_a_deletion_makes_a_tombstone_that_keeps_the_last_version(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), [record("a", 1)], [U])
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(deletions=[Deletion("Observation", "a"), Deletion("Observation", "unknown")]))
        report = await run.finish(watermark=None)
    assert report.deleted == 1
    found = rows(store_url, "SELECT deleted_run, deleted_at IS NOT NULL, body ->> 'value' FROM resource")
    assert found == [(run.id, True, "1")]
    assert rows(store_url, "SELECT count(*) FROM resource_history") == [(0,)]


async def test_a_tombstone_listed_again_is_alive_and_history_keeps_its_dead_period(store: Store, store_url: str):
    first = await full_run(await store.begin_run(scope()), [record("a", 1)], [U])
    async with await store.begin_run(scope()) as dead:
        await dead.write(Batch(deletions=[Deletion("Observation", "a")]))
        await dead.finish(watermark=None)
    again = await full_run(await store.begin_run(scope()), [record("a", 1)], [U])
    assert again.changed == 1
    assert live(store_url) == {"a"}
    history = rows(store_url, "SELECT from_run, deleted_run, to_run FROM resource_history")
    assert history == [(first.id, dead.id, again.id)]
    assert rows(store_url, "SELECT last_changed_run, deleted_run FROM resource") == [(again.id, None)]


async def test_within_a_run_an_older_version_never_replaces_a_newer(store: Store, store_url: str):
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(records=[record("a", "new", updated="2024-01-02T00:00:00Z")]))
        await run.write(Batch(records=[record("a", "old", updated="2024-01-02T00:30:00+01:00")]))
        report = await run.finish(watermark=None)
    assert report.resources == {"Observation": 1}
    assert rows(store_url, "SELECT body ->> 'value' FROM resource") == [("new",)]


async def test_an_older_version_does_not_replace_one_that_the_run_listed_unchanged(store: Store, store_url: str):
    newer = record("a", "new", updated="2024-01-02T00:00:00Z")
    await full_run(await store.begin_run(scope()), [newer], [U])
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(records=[newer]))
        await run.write(Batch(records=[record("a", "old", updated="2024-01-01T00:00:00Z")]))
        report = await run.finish(watermark=None)
    assert (report.changed, report.unchanged) == (0, 1)
    assert rows(store_url, "SELECT body ->> 'value' FROM resource") == [("new",)]


async def test_a_new_run_believes_the_server_even_with_an_older_version(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), [record("a", "new", updated="2024-01-02T00:00:00Z")], [U])
    await full_run(await store.begin_run(scope()), [record("a", "restored", updated="2024-01-01T00:00:00Z")], [U])
    assert rows(store_url, "SELECT body ->> 'value' FROM resource") == [("restored",)]


async def test_a_resource_that_changes_while_the_run_reads_it_counts_once(store: Store):
    await full_run(await store.begin_run(scope()), [record("a", 1)], [U])
    async with await store.begin_run(scope()) as run:
        for value in (1, 2, 3):
            await run.write(Batch(records=[record("a", value, version=str(value))]))
        report = await run.finish(watermark=None)
    assert (report.new, report.changed, report.unchanged) == (0, 1, 0)


async def test_equal_ids_of_types_and_connections_are_different_resources(store: Store, store_url: str):
    content = [record("a", 1), record("a", 1, kind="Condition"), record("a", 1, kind="Basic")]
    await full_run(await store.begin_run(scope()), content, [U])
    report = await full_run(await store.begin_run(scope(connection="other")), content, [U])
    assert report.new == 3
    assert rows(store_url, "SELECT count(*) FROM resource") == [(6,)]
    assert rows(store_url, "SELECT DISTINCT tableoid::regclass::text FROM resource ORDER BY 1") == [
        ("resource_condition",),
        ("resource_observation",),
        ("resource_other",),
    ]


async def test_the_lookups_of_a_batch_use_the_primary_key_on_a_table_without_statistics(fresh_url: str):
    execute(fresh_url, "ALTER TABLE resource_observation SET (autovacuum_enabled = off)")
    async with opened_store(fresh_url) as store, await store.begin_run(scope()) as run:
        for part in range(4):
            await run.write(Batch(records=[record(f"{part}-{n}", n) for n in range(500)]))
        await run.finish(watermark=None)
    scans = "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname = 'resource_observation'"
    assert rows(fresh_url, scans) == [(0,)]
