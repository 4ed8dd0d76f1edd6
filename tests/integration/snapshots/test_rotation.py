"""A store gets a new key: everything is encrypted with it, reads as before, and the older key can be thrown away."""

from __future__ import annotations

import base64
import random
import tracemalloc
from dataclasses import replace
from typing import Any

import anyio
import psycopg
import pytest

from snapshots.errors import ConnectionBusyError, StoreError, StoreKeyError
from snapshots.patient_terms import name_term
from snapshots.record import Batch, Quarantined, Record
from snapshots.referred import Document
from snapshots.sealed_values import Keyring
from snapshots.selection import Selection
from snapshots.store import Store
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import execute, full_run, record, rows, scope, search, who_waits

pytestmark = pytest.mark.anyio

OLD = Keyring(current="k1", keys={"k1": b"1" * 32})
BOTH = Keyring(current="k2", keys={**OLD.keys, "k2": b"2" * 32})
NEW = Keyring(current="k2", keys={"k2": b"2" * 32})
UNITS = [search("Patient"), search()]
WAITING = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
BODIES = ("resource_stored", "resource_history", "rival")


def patient(identity: str, family: str, note: str = "") -> Record:
    body = (
        f'{{"resourceType":"Patient","id":"{identity}","name":[{{"family":"{family}"}}],"birthDate":"1940-12-21",'
        f'"extension":[{{"url":"n","valueDecimal":1.50}}],"language":"{note or "en"}"}}'
    )
    return record(identity, body.encode(), kind="Patient", patient=identity, version="1")


async def night(store: Store, *records: Record, **batch: Any) -> tuple[int, int, int]:
    """Return how many were new, changed and unchanged."""
    report = await full_run(await store.begin_run(scope()), records, UNITS, **batch)
    return report.new, report.changed, report.unchanged


DOCUMENT = Document(
    "Observation", "o1", 0, "stored", content=b"Zappa was here", content_type="text/plain", text="Zappa"
)
MANY = [patient(f"p{n:04}", f"Zappa{n}") for n in range(300)]


async def filled(url: str) -> list[bytes]:
    """A store in which every table has values of the old key; return what its runs read as."""
    async with opened_store(url, keyring=OLD) as store:
        await night(store, *MANY)
        changed = [patient("p0000", "Frank"), patient("p0001", "One"), patient("p0001", "Other")]
        bad = Quarantined("Observation", "file 1, line 1", "not JSON", b'{"name": "Zappa"', UNITS[1].key)
        await night(store, *changed, *MANY[2:], quarantined=[bad], documents=[DOCUMENT])
        return await history(store)


async def history(store: Store) -> list[bytes]:
    rows = []
    for run in (1, 2):
        async with store.snapshot(Selection(as_of=run)) as snapshot:
            rows.append(b"".join([chunk async for chunk in snapshot.ndjson("Patient")]))
    return rows


def of_key(url: str, key: str) -> dict[str, int]:
    """How many rows have values of a key, by table."""
    counts = {t: rows(url, f"SELECT count(*) FROM {t} WHERE body::text LIKE %s", f"%~sealed:1:{key}:%") for t in BODIES}
    prefix = f"~sealed:1:{key}:".encode()
    for table, column in (("quarantine", "raw"), ("attachment", "content"), ("attachment", "convert_to(text, 'UTF8')")):
        query = f"SELECT count(*) FROM {table} WHERE position(%s::bytea in {column}) = 1"
        counts[f"{table} {column}"] = rows(url, query, prefix)
    return {table: found[0][0] for table, found in counts.items()}


async def test_a_rotated_store_reads_as_before_with_the_new_key_alone_and_an_unchanged_night_writes_no_version(
    store_url: str,
):
    before = await filled(store_url)
    had = of_key(store_url, "k1")
    assert all(had.values())
    hashes = rows(store_url, "SELECT id, content_hash, last_changed_run FROM resource ORDER BY id")
    async with opened_store(store_url, keyring=BOTH) as store:
        rotated = await store.rotate()
    assert rotated.damaged == 0
    assert (of_key(store_url, "k1"), of_key(store_url, "k2")) == (dict.fromkeys(had, 0), had)
    assert rows(store_url, "SELECT id, content_hash, last_changed_run FROM resource ORDER BY id") == hashes
    async with opened_store(store_url, keyring=NEW) as store:
        assert await history(store) == before
        assert await night(store, patient("p0000", "Frank"), *MANY[2:]) == (0, 0, 299)
        assert await store.find("mercy", name_term("Frank", None, "1940-12-21")) == ["p0000"]
        assert (await store.rotate()).rows == {}
    with pytest.raises(StoreKeyError, match="other keys"):
        async with opened_store(store_url, keyring=OLD):
            pass


async def test_values_at_an_encrypted_path_are_found_in_a_rival_with_any_escaping(store_url: str):
    bodies = [
        rb'{"resourceType":"Observation","id":"o1","note":[{"text":"zero"}]}',
        rb'{"\u0072esourceType":"Observation","id":"o1","note":[{"text":"one"}]}',
        rb'{"resourceType":"\u004Fbservation","id":"o1","\u006eote":[{"text":"\u0074wo"}]}',
    ]
    async with opened_store(store_url, keyring=OLD) as store:
        await night(store, *[record("o1", body, version="1") for body in bodies])
    assert rows(store_url, "SELECT count(*) FROM rival WHERE body ~ 'zero|one|wo'")[0][0] >= len(bodies) - 1
    async with opened_store(store_url, keyring=replace(OLD, paths=frozenset({"Observation.note"}))) as store:
        await store.rotate()
    assert rows(store_url, "SELECT body FROM rival WHERE body ~ 'zero|one|wo'") == []


async def test_after_a_killed_rotation_the_store_is_read_and_synced_with_both_keys_until_it_is_continued(
    store_url: str,
):
    before = await filled(store_url)
    had = of_key(store_url, "k1")
    async with (
        opened_store(store_url, keyring=BOTH) as store,
        await psycopg.AsyncConnection.connect(store_url) as conn,
        anyio.create_task_group() as group,
    ):
        await conn.execute("LOCK TABLE tenant_default.rival IN ACCESS EXCLUSIVE MODE")
        group.start_soon(_killed, store)
        hit = None
        while hit is None:
            found = await conn.execute(WAITING)
            hit = await found.fetchone()
            await anyio.lowlevel.checkpoint()
    left = of_key(store_url, "k1")
    assert (left["resource_stored"], left["rival"]) == (0, had["rival"])
    for keyring in (OLD, NEW):
        with pytest.raises(StoreKeyError):
            async with opened_store(store_url, keyring=keyring):
                pass
    async with opened_store(store_url, keyring=BOTH) as store:
        assert await history(store) == before
        assert await night(store, patient("p0000", "Frank"), patient("p0002", "Changed"), *MANY[3:]) == (0, 1, 298)
        await store.rotate()
    assert not any(of_key(store_url, "k1").values())
    async with opened_store(store_url, keyring=NEW) as store:
        assert await history(store) == before


async def test_a_connection_that_appears_during_a_rotation_is_rotated_too(store_url: str):
    await filled(store_url)
    async with (
        opened_store(store_url, keyring=OLD) as former,
        opened_store(store_url, keyring=BOTH) as store,
        await psycopg.AsyncConnection.connect(store_url) as conn,
        anyio.create_task_group() as group,
    ):
        await conn.execute("LOCK TABLE tenant_default.attachment IN ACCESS EXCLUSIVE MODE")
        group.start_soon(store.rotate)
        await who_waits(conn)
        async with await former.begin_run(scope(connection="late")) as run:
            await run.write(Batch(records=[patient("p9999", "Late")]))
            await run.finish(watermark=None)
        await conn.rollback()
    assert not any(of_key(store_url, "k1").values())


async def test_a_text_that_was_moved_from_another_document_is_damaged(store_url: str):
    await filled(store_url)
    execute(
        store_url, "UPDATE attachment SET sha256 = '\\x00', content = '~sealed:1:k2:'"
    )  # the content is not looked at
    async with opened_store(store_url, keyring=BOTH) as store:
        assert (await store.rotate()).damaged == 1
    assert of_key(store_url, "k1")["attachment convert_to(text, 'UTF8')"] == 1


async def _killed(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.rotate()


async def test_no_run_works_during_a_rotation_and_the_former_key_is_refused_after_it(store_url: str):
    await filled(store_url)
    async with opened_store(store_url, keyring=OLD) as former, opened_store(store_url, keyring=BOTH) as store:
        async with await former.begin_run(scope()):
            with pytest.raises(ConnectionBusyError):
                await store.rotate()
        await store.rotate()
        with pytest.raises(StoreKeyError, match="it knows k2"):
            await former.begin_run(scope())


async def test_a_damaged_row_is_left_unchanged_and_keeps_the_older_key_needed(store_url: str):
    await filled(store_url)
    execute(
        store_url,
        "UPDATE resource SET body = (SELECT body FROM resource WHERE id = 'p0008') WHERE id = 'p0007'",  # moved
    )
    async with opened_store(store_url, keyring=BOTH) as store:
        assert (await store.rotate()).damaged == 1
    assert of_key(store_url, "k1")["resource_stored"] == 1
    assert {key for (key,) in rows(store_url, "SELECT key_id FROM sealing_key")} == {"k1", "k2"}


async def test_rotating_large_rows_takes_little_memory(store_url: str) -> None:
    data = base64.b64encode(random.Random(1).randbytes(1 << 20)).decode()  # which Postgres cannot compress
    bodies = {
        f"o{number}": f'{{"resourceType":"Observation","id":"o{number}","data":"{data}"}}'.encode()
        for number in range(9)
    }
    async with opened_store(store_url, keyring=OLD) as store:
        await night(store, *(record(id_, body) for id_, body in bodies.items()))
    async with opened_store(store_url, keyring=BOTH) as store:
        tracemalloc.start()
        try:
            assert (await store.rotate()).rows["resource"] == len(bodies)
            assert tracemalloc.get_traced_memory()[1] < 3 * sum(map(len, bodies.values()))
        finally:
            tracemalloc.stop()
