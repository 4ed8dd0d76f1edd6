"""A store with plain charts is encrypted: it reads as before, nothing plain is left in its tables, and a kill costs nothing."""

from __future__ import annotations

import base64
import random
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg import sql

from snapshots.errors import ConnectionBusyError, StoreError, StoreKeyError
from snapshots.patient_terms import name_term
from snapshots.reader import Snapshot
from snapshots.record import Quarantined, Record
from snapshots.referred import Attached, Document
from snapshots.sealed_values import Keyring
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.witness import Way
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import (
    GROUP,
    SEARCH,
    everything,
    execute,
    full_run,
    killed_at,
    record,
    rows,
    scope,
    search,
)

pytestmark = pytest.mark.anyio

KEYS = Keyring(current="k1", keys={"k1": b"1" * 32}, paths=frozenset({"Observation.note"}))
OTHER = Keyring(current="k1", keys={"k1": b"2" * 32})
BOTH = Keyring(current="k2", keys={**KEYS.keys, "k2": b"2" * 32})
UNITS = [search("Patient"), search()]
NAMED = ("Zappa", "Frank", "1940-12-21", "Moon", "Dweezil")
DOCUMENT = Document("Observation", "o1", 0, "stored", content=b"~sealed:1:k1:Zappa", content_type="t", text="Zappa")
LINE = Quarantined("Patient", "file 1, line 1", "not JSON", b'~sealed:1:k1:{"name": "Zappa"', UNITS[0].key)
FOUND = name_term("Frank", None, "1940-12-21")
TABLES = (
    "resource_patient",
    "resource_history",
    "rival",
    "version_by_way",
    "quarantine",
    "attachment",
    "patient_token",
)


def patient(identity: str, family: str) -> Record:
    body = (
        f'{{"resourceType":"Patient","id":"{identity}","name":[{{"family":"{family}","given":["~sealed:1:k1:x:y:z~ \\u00e9"]}}],'
        '"birthDate":"1940-12-21","multipleBirthInteger":1.50,"extension":[{"url":"n","valueDecimal":1.50}]}'
    )
    return record(identity, body.encode(), kind="Patient", patient=identity, version="1")


def observation(note: str, way: Way) -> Record:
    body = f'{{"resourceType":"Observation","id":"o1","note":[{{"text":"{note}"}}],"subject":{{"reference":"Patient/p0000"}}}}'
    one = record("o1", body.encode(), patient="p0000", version="1", way=way)
    return one._replace(attached=(Attached(0, "text/plain", "Binary/1", inline=False, size=None, hash=None),))


MANY = [patient(f"p{n:04}", f"Zappa{n}") for n in range(520)]  # more than are encrypted in one transaction
LAST = [patient("p0000", "Frank"), patient("p0001", "One"), patient("p0001", "Other"), *MANY[2:]]
SEARCHED, EXPORTED = observation("Moon", SEARCH), observation("Dweezil", GROUP)  # one version, by two ways


async def night(store: Store, *records: Record, **batch: Any) -> tuple[int, int]:
    """Return how many were new and changed."""
    report = await full_run(await store.begin_run(scope()), records, UNITS, **batch)
    return report.new, report.changed


async def filled(url: str) -> list[bytes]:
    """A plain store in which every table has values; return what its runs read as."""
    async with opened_store(url) as store:
        await night(store, *MANY, SEARCHED)
        await night(store, *LAST, EXPORTED, quarantined=[LINE], documents=[DOCUMENT])
        await night(store, *LAST, SEARCHED, documents=[DOCUMENT])
        assert await store.find("mercy", FOUND) == ["p0000"]
        execute(url, "ANALYZE")
        return await history(store)


async def history(store: Store) -> list[bytes]:
    rows = []
    for run in (1, 2, 3):
        async with store.snapshot(Selection(as_of=run)) as snapshot:
            rows += [await _read(snapshot, kind) for kind in ("Patient", "Observation")]
    return rows


async def _read(snapshot: Snapshot, kind: str) -> bytes:
    return b"".join([chunk async for chunk in snapshot.ndjson(kind)])


def plain_in(url: str) -> set[str]:
    """What the tables, and the planner's samples of them, say of the patients."""
    samples = rows(url, "SELECT s::text FROM pg_stats s WHERE schemaname = 'tenant_default'")
    stored = everything(url) + "".join(sample for (sample,) in samples)
    assert "multipleBirthInteger" in stored  # the search looks where it should
    return {name for name in NAMED if name in stored}


async def require_all_encrypted(url: str, before: list[bytes]) -> None:
    """It reads as before, an unchanged night changes nothing, and no name is left anywhere."""
    assert plain_in(url) == set()
    async with opened_store(url, keyring=KEYS) as store:
        assert await history(store) == before
        assert await store.find("mercy", FOUND) == ["p0000"]
        assert await night(store, *LAST, EXPORTED, documents=[DOCUMENT]) == (0, 0)
    assert rows(url, "SELECT count(*) FROM attachment a JOIN attachment_use u ON u.sha256 = a.sha256") == [(1,)]
    assert rows(url, "SELECT count(*) FROM attachment") == [(1,)]
    with pytest.raises(StoreKeyError, match="not the one"):
        async with opened_store(url, keyring=OTHER):
            pass
    async with opened_store(url, keyring=BOTH) as store:
        done = await store.rotate()  # which opens every value, and so finds whether it is bound to its place
    assert (done.damaged, done.was_plain) == (0, False)
    assert {"resource", "resource_history", "rival", "quarantine", "attachment", "attachment text"} <= done.rows.keys()


async def test_a_store_encrypted_later_equals_one_encrypted_from_its_first_run(store_url: str) -> None:
    before = await filled(store_url)
    assert plain_in(store_url) == set(NAMED)
    async with opened_store(store_url, keyring=KEYS, encrypts=True) as store:
        assert (await store.rotate()).was_plain
    await require_all_encrypted(store_url, before)


async def test_a_rival_content_that_cannot_be_encrypted_is_quarantined(store_url: str) -> None:
    plain = patient("p1", "Frank")
    beyond = plain._replace(body=plain.body.replace(b"1.50", b"1e200000"), content_hash=b"beyond")
    async with opened_store(store_url) as store:
        await night(store, beyond, plain)  # one version in two contents
    async with opened_store(store_url, keyring=KEYS, encrypts=True) as store:
        done = await store.rotate()
    assert done.rows["quarantine"] == 1
    assert plain_in(store_url) == set()
    ((reason,),) = rows(store_url, "SELECT reason FROM quarantine WHERE run = 1")
    assert "number" in reason


async def test_the_planner_keeps_no_sample_of_an_emptied_table(store_url: str) -> None:
    await filled(store_url)
    plain = {bytes(token).hex() for (token,) in rows(store_url, "SELECT token FROM patient_token")}
    async with opened_store(store_url) as store:
        await store.prune(history=datetime.now(UTC))
    for table in ("resource_patient", "attachment_use", "attachment", "quarantine", "rival", "version_by_way"):
        execute(store_url, f"DELETE FROM {table}")
    assert plain_in(store_url) == set(NAMED)
    async with opened_store(store_url, keyring=KEYS, encrypts=True) as store:
        await store.rotate()
    samples = "".join(one for (one,) in rows(store_url, "SELECT s::text FROM pg_stats s"))
    assert {one for one in (*NAMED, *plain) if one in samples} == set()


async def test_only_a_few_large_rows_are_in_memory_and_in_one_transaction(store_url: str) -> None:
    data = base64.b64encode(random.Random(1).randbytes(1 << 20)).decode()  # which Postgres cannot compress
    ids = [f"o{number}" for number in range(5)]
    large = [record(id_, f'{{"resourceType":"Observation","id":"{id_}","data":"{data}"}}'.encode()) for id_ in ids]
    documents = [DOCUMENT._replace(resource_id=id_, content=f"{id_}{data}".encode()) for id_ in ids]
    lines = [LINE._replace(raw=f"{id_}{data}".encode()) for id_ in ids]
    async with opened_store(store_url) as store:
        await night(store, *large, documents=documents, quarantined=lines)
    held = {
        "resource_observation": "SELECT FROM resource_observation WHERE id = 'o4' FOR UPDATE",
        "quarantine": "SELECT FROM quarantine ORDER BY digest DESC LIMIT 1 FOR UPDATE",
        "attachment": "SELECT FROM attachment ORDER BY sha256 DESC LIMIT 1 FOR UPDATE",
    }
    for table, lock in held.items():
        before = rows(store_url, f"SELECT xmin::text FROM {table}")
        async with opened_store(store_url, keyring=KEYS, encrypts=True) as store:
            await killed_at(store_url, lock, store.rotate)
        after = rows(store_url, f"SELECT xmin::text FROM {table}")
        assert set(before) & set(after), table
        assert set(after) - set(before), table


async def test_a_killed_encryption_is_continued_and_until_then_nothing_else_opens_the_store(
    store_url: str,
) -> None:
    before = await filled(store_url)
    held = ["SELECT FROM resource_patient WHERE id = 'p0519' FOR UPDATE"]  # in its second block
    held += [f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE" for table in TABLES]
    for lock in held:
        async with opened_store(store_url, keyring=KEYS, encrypts=True) as store:
            await killed_at(store_url, lock, store.rotate)
        for keys, message in ((KEYS, "is being encrypted"), (None, "no keys are configured")):
            with pytest.raises(StoreKeyError, match=message):
                async with opened_store(store_url, keyring=keys):
                    pass
    async with opened_store(store_url, keyring=KEYS, encrypts=True) as store:
        assert (await store.rotate()).was_plain
    await require_all_encrypted(store_url, before)


async def test_a_process_that_opened_the_store_while_plain_can_no_longer_use_it(store_url: str) -> None:
    await filled(store_url)
    async with opened_store(store_url) as early:
        async with await early.begin_run(scope()), opened_store(store_url) as other:
            with pytest.raises(ConnectionBusyError):
                async with opened_store(store_url, keyring=KEYS, encrypts=True):
                    pass
            assert await other.find("mercy", FOUND) == ["p0000"]  # and it has not begun
        async with opened_store(store_url, keyring=KEYS, encrypts=True) as store:
            await store.rotate()
            async with await store.begin_run(scope()) as run:
                assert run.id == 4  # which was interrupted
        for doing in (
            lambda: early.begin_run(scope()),
            lambda: history(early),
            lambda: early.find("mercy", FOUND),
            lambda: early.erase("mercy", "p0000"),
        ):
            with pytest.raises(StoreKeyError, match="encrypted meanwhile"):
                await doing()


async def test_views_that_would_keep_plain_values_or_show_ciphertext_are_dropped_first(store_url: str) -> None:
    await filled(store_url)
    execute(store_url, "CREATE MATERIALIZED VIEW theirs AS SELECT 1 AS one")
    execute(store_url, "CREATE VIEW public.elsewhere AS SELECT body FROM resource_stored")
    async with opened_store(store_url) as store, store.sql_views() as there:
        await there.create("ours", sql.SQL("SELECT 1 AS one"), digest="d")
    statements = "`chartferry views drop ours`; DROP VIEW public.elsewhere; DROP MATERIALIZED VIEW theirs"
    with pytest.raises(StoreError, match=re.escape(statements)):
        async with opened_store(store_url, keyring=KEYS, encrypts=True):
            pass
    assert rows(store_url, "SELECT count(*) FROM sealing_key") == [(0,)]
