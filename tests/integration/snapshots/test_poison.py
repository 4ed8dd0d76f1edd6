"""Records that Postgres cannot store are quarantined, their units are holes, and their neighbours are stored."""

from __future__ import annotations

import pytest

from snapshots.record import Batch, Quarantined
from snapshots.store import Store
from tests.integration.snapshots.stored import full_run, live, record, rows, scope, search, settled

pytestmark = pytest.mark.anyio
P1, P2 = search(patient="p1"), search(patient="p2")
POISON = {
    "an escaped NUL": rb'{"x":"a\u0000b"}',
    "a lone surrogate": rb'{"x":"\ud800"}',
    "a huge number": b'{"x":1e999999}',
    "invalid UTF-8": b'{"x":"\xff"}',
    "a raw NUL": b'{"x":"\x00"}',
    "no JSON": b"<html>",
    "deep nesting": b"[" * 20_000 + b"]" * 20_000,
}


@pytest.mark.parametrize("name", POISON)
async def test_a_poison_record_costs_itself_and_makes_a_hole_of_its_unit(store: Store, store_url: str, name: str):
    batch = [record(f"good{n}", n, unit=P2.key) for n in range(20)]
    batch.insert(7, record("bad", POISON[name], unit=P1.key))
    report = await full_run(await store.begin_run(scope()), batch, [P1, P2])
    assert live(store_url) == {f"good{n}" for n in range(20)}
    assert rows(store_url, "SELECT raw, unit_key, resource_type FROM quarantine") == [
        (POISON[name], P1.key, "Observation")
    ]
    assert (report.status, report.quarantined, report.new) == ("partial", 1, 20)
    assert [hole.scope[:9] for hole in report.holes] == ["patient ~"]
    assert rows(store_url, "SELECT key FROM unit WHERE state = 'failed'") == [(P1.key,)]


async def test_a_text_that_only_looks_like_poison_is_stored(store: Store, store_url: str):
    body = rb'{"x":"\\u0000 and \ud83d\ude00"}'
    batch = [record("good", body), record("bad", POISON["an escaped NUL"], unit=P1.key)]
    await full_run(await store.begin_run(scope()), batch, [P1])
    assert live(store_url) == {"good"}


async def test_poison_in_an_id_costs_itself(store: Store, store_url: str):
    bad = [record("nul\x00"), record("long" * 1000), record("half \ud800", b"{}")]
    await full_run(await store.begin_run(scope()), [*bad, record("good")], [P1])
    assert live(store_url) == {"good"}
    assert rows(store_url, "SELECT count(*) FROM quarantine") == [(3,)]


async def test_a_unit_with_poison_in_an_earlier_batch_still_ends_as_a_hole(store: Store, store_url: str):
    async with await store.begin_run(scope()) as run:
        await run.plan([P1, P2])
        await run.write(Batch(records=[record("bad", POISON["no JSON"], unit=P1.key)]))
        await run.write(Batch(records=[record("good")], results=[settled(P1), settled(P2)]))
        await run.finish(watermark=None)
    assert rows(store_url, "SELECT key FROM unit WHERE state = 'failed'") == [(P1.key,)]


async def test_a_poison_record_of_unknown_origin_makes_holes_of_all_possible_units(store: Store, store_url: str):
    condition = search("Condition")
    async with await store.begin_run(scope()) as run:
        await run.plan([P1, P2, condition])
        await run.write(Batch(records=[record("bad", POISON["no JSON"])]))
        await run.write(Batch(results=[settled(P1), settled(P2), settled(condition)]))
        await run.finish(watermark=None)
    assert rows(store_url, "SELECT key FROM unit WHERE state = 'failed' ORDER BY 1") == [(P1.key,), (P2.key,)]


async def test_a_poisoned_new_version_leaves_the_stored_one_alone(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), [record("a", 1), record("b", 1)], [P1])
    changed = [record("a", POISON["an escaped NUL"], unit=P1.key), record("b", 2, unit=P1.key)]
    await full_run(await store.begin_run(scope()), changed, [P1])
    found = rows(store_url, "SELECT id, body ->> 'value', deleted_at FROM resource ORDER BY id")
    assert found == [("a", "1", None), ("b", "2", None)]


async def test_many_poison_records_in_one_batch_cost_only_themselves(store: Store, store_url: str):
    kinds = [POISON["an escaped NUL"], POISON["no JSON"]]
    batch = [record(f"{n}", n if n % 10 else kinds[n % 20 // 10]) for n in range(300)]
    await full_run(await store.begin_run(scope()), batch, [P1])
    assert live(store_url) == {f"{n}" for n in range(300) if n % 10}
    assert rows(store_url, "SELECT count(DISTINCT raw) FROM quarantine") == [(2,)]


async def test_a_quarantined_line_makes_its_unit_a_hole(store: Store, store_url: str):
    line = Quarantined("Observation", "bulk file 3, line 17", "not JSON", b"{", P1.key)
    async with await store.begin_run(scope()) as run:
        await run.plan([P1, P2])
        await run.write(Batch(quarantined=[line], results=[settled(P1), settled(P2)]))
        report = await run.finish(watermark="2024-01-01T00:00:00Z")
    assert [(hole.resource_type, hole.reason) for hole in report.holes] == [("Observation", "not JSON")]
    assert rows(store_url, "SELECT source, raw FROM quarantine") == [("bulk file 3, line 17", b"{")]
