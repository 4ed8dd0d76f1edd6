"""Opening the store: migrations, tenants, and servers that are not there."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from snapshots.errors import MigrationError, StoreError, StoreUnavailableError
from snapshots.migrate import migrations
from snapshots.store import Store
from snapshots.unit import unit_key
from snapshots.witness import Said
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import (
    asked_for,
    execute,
    live,
    make_as_of_version,
    open_evidence,
    person,
    read,
    record,
    rows,
    scope,
    search,
    weighed,
)

pytestmark = pytest.mark.anyio


async def test_opening_again_applies_no_migration_twice(store: Store, store_url: str):
    before = rows(store_url, "SELECT version, name, applied_at FROM schema_migration")
    async with opened_store(store_url):
        pass
    assert rows(store_url, "SELECT version, name, applied_at FROM schema_migration") == before


async def test_many_processes_may_create_a_tenant_at_once(store_url: str):
    async def create() -> None:
        async with opened_store(store_url, "crowd"):
            pass

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(create)
    assert rows(store_url, "SELECT count(*) FROM tenant_crowd.schema_migration") == [(len(migrations()),)]


OPEN_RUN_OF_NAMED_KEYS = """
INSERT INTO connection (name) VALUES ('mercy');
INSERT INTO run (connection, kind, mode, selection, types, since)
VALUES (1, 'sync', 'crawl', 'all', '{}', '{}');
INSERT INTO unit (run, key, kind, resource_type, patient_id, detail) VALUES
    (1, 'search:Goal:p1:category=x', 'search', 'Goal', 'p1', '{"path": "Goal?patient=p1", "template": "GET /Goal?patient=…",
        "split": "category=x", "incremental": true, "since": "2024-01-01T00:00:00Z", "expected": true}'),
    (1, 'batch:Patient:1', 'batch', 'Patient', NULL, '{"path": "Patient?_id=p1,p2", "ids": ["p1", "p2"], "template": "t"}'),
    (1, 'file:output:2:7', 'file', 'Goal', NULL, '{"url": "u", "count": 3, "incremental": false, "template": "output file 7"}'),
    (1, 'attachment:DocumentReference:d1:0', 'attachment', 'DocumentReference', NULL,
        '{"id": "d1", "place": 0, "url": "Binary/1", "patient": "p1", "template": "GET /Binary/{id}"}');
INSERT INTO attachment_use (connection, resource_type, resource_id, place, inline, version, run)
VALUES (1, 'DocumentReference', 'd1', 0, false, 1, 1), (1, 'DocumentReference', 'd2', 0, false, 1, 1);
"""


async def test_an_open_run_with_former_unit_keys_continues_with_the_same_units(store_url: str):
    make_as_of_version(store_url, 9)
    execute(store_url, OPEN_RUN_OF_NAMED_KEYS)
    async with opened_store(store_url) as store, await store.begin_run(scope()) as run:
        searched, batch, listed, attached = await run.pending()
        assert searched.key == unit_key("search", "Goal", "p1", "category=x")
        assert (searched.split, searched.incremental, searched.since) == ("category=x", True, "2024-01-01T00:00:00Z")
        assert searched.detail == {"path": "Goal?patient=p1", "expected": True}
        assert (batch.key, batch.ids) == (unit_key("batch", "Patient", 1), ("p1", "p2"))
        assert (listed.key, listed.page) == (unit_key("file", "output", 2, 7), 2)
        assert listed.detail == {"url": "u", "count": 3, "list": "output", "position": 7, "lists_all": True}
        assert (attached.ids, attached.of_chart, attached.detail["place"]) == (("d1",), "p1", 0)
        due = await run.attachments.due(fresh=timedelta(days=1), limit=9, leftovers=True)
        assert [use.resource_id for use in due] == ["d2"]


BEFORE_EVIDENCE = """
INSERT INTO connection (name) VALUES ('mercy');
INSERT INTO run (connection, kind, mode, selection, types, since, status, finished_at, full_listing)
VALUES (1, 'sync', 'crawl', 'all', '{}', '{}', 'complete', now(), true);
INSERT INTO resource (first_run, last_changed_run, deleted_run, deleted_at, connection, resource_type, id, patient_id,
    content_hash, body)
VALUES (1, 1, NULL, NULL, 1, 'Patient', 'p1', 'p1', 'x', '{}'), (1, 1, NULL, NULL, 1, 'Observation', 'a', 'p1', 'x', '{}'),
    (1, 1, 1, now(), 1, 'Observation', 'dead', 'p1', 'x', '{"value": 7}');
INSERT INTO watermark VALUES (1, 'all', 'Observation', '2024-01-01T00:00:00Z', 1);
INSERT INTO roster VALUES (1, 'all', 'p1', 1, 1);
INSERT INTO lag VALUES (1, 'all', 'Observation', 'p2', NULL, 1);
"""


async def test_a_store_older_than_ways_opens_without_claims_and_misses_nothing(store_url: str):
    make_as_of_version(store_url, 6)
    execute(store_url, BEFORE_EVIDENCE)
    async with opened_store(store_url) as store:
        assert rows(store_url, "SELECT id, first_way FROM resource ORDER BY 1") == [
            ("a", None),
            ("dead", None),
            ("p1", None),
        ]
        assert open_evidence(store_url) == {"dead": "old-tombstone"}
        for table in ("watermark", "roster", "lag"):
            assert rows(store_url, f"SELECT count(*) FROM {table}") == [(0,)]
        async with await store.begin_run(scope()) as run:
            await run.knowledge.speak_for("all", [])
            assert (await run.knowledge.watermarks(), await run.knowledge.last_full_listing([])) == ({}, None)
            await run.fail(reason="only looked")
        units = [read("p1"), search()]
        report = await weighed(
            store, [person("p1"), record("new")], units, answers={"dead": Said.NOT_FOUND}, rotated=50
        )
        assert (report.status, asked_for(store_url, report.id)) == ("complete", ["a", "dead"])
        assert (live(store_url), open_evidence(store_url)) == ({"p1", "a", "new"}, {})
        brought = [person("p1"), record("new"), record("a"), record("dead", 7)]
        revived = await weighed(store, brought, units)
        assert (revived.status, live(store_url)) == ("complete", {"p1", "a", "new", "dead"})


async def test_a_schema_newer_than_the_code_is_refused(store_url: str):
    execute(store_url, "INSERT INTO schema_migration (version, name) VALUES (9999, 'from the future')")
    with pytest.raises(MigrationError, match=r"at migration 9999.*Upgrade this one"):
        async with opened_store(store_url):
            pass


async def test_an_unreachable_server_is_named_without_its_password():
    with pytest.raises(StoreUnavailableError) as caught:
        async with opened_store("postgresql://me:hunter2@127.0.0.1:1/x"):
            pass
    assert "127.0.0.1:1, database x, user me" in str(caught.value)
    assert "Connection refused. Check host, port and the ssl… parameters in store.url" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@[x", "postgresql://me:p@hunter2@127.0.0.1:1/x"])
async def test_a_url_that_libpq_cannot_read_is_refused_without_quoting_it(url: str):
    with pytest.raises(StoreUnavailableError) as caught:
        async with opened_store(url):
            pass
    assert "hunter2" not in str(caught.value)


async def test_a_tenant_that_cannot_name_a_schema_is_refused(store_url: str):
    with pytest.raises(StoreError, match="cannot name a schema"):
        async with opened_store(store_url, "Robert'; --"):
            pass


async def test_two_tenants_have_separate_schemas(store_url: str):
    async with opened_store(store_url, "mercy-west"):
        pass
    found = rows(store_url, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant%%' ORDER BY 1")
    assert found == [("tenant_default",), ("tenant_mercy-west",)]


RUNS_OF_TWO_CLOCKS = """
INSERT INTO connection (name) VALUES ('mercy'), ('south');
INSERT INTO run (connection, kind, mode, selection, types, since, started_at, finished_at)
SELECT connection, 'sync', 'crawl', 'all', '{}', '{}', '2026-01-01', finished_at::timestamptz FROM (
    VALUES (1, 1, '2026-01-03'), (2, 2, '2026-01-02'), (3, 1, '2026-01-01'), (4, 2, NULL), (5, 1, '2026-01-04')
) v (id, connection, finished_at) ORDER BY id
"""


async def test_runs_of_before_are_ordered_by_when_they_ended_but_those_of_one_connection_by_number(store_url: str):
    make_as_of_version(store_url, 36)
    execute(store_url, RUNS_OF_TWO_CLOCKS)
    async with opened_store(store_url):
        assert rows(store_url, "SELECT id, end_order FROM run ORDER BY id") == [
            (1, 1),
            (2, 3),
            (3, 2),
            (4, None),
            (5, 4),
        ]
