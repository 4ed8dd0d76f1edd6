"""What records refer to and have attached is kept with them, in one transaction, through kills, repeats and older contents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import orjson
import psycopg
import pytest

from connectors.fhir.linked.attachment_finder import PATHS, attached_to, with_attached
from snapshots.errors import UnitConflictError
from snapshots.ledger import OpenRun
from snapshots.migrate import migrations
from snapshots.record import Batch, Record
from snapshots.referred import Attached, Document, ReferenceTarget
from snapshots.store import Store
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import SCHEMA, execute, file, full_run, record, rows, scope, search, settled

pytestmark = pytest.mark.anyio

FRESH = timedelta(days=7)
UNIT = search()


def to(*names: str, patient: str | None = "p1") -> list[ReferenceTarget]:
    return [ReferenceTarget("Observation", name, patient) for name in names]


async def taken(run: OpenRun) -> set[str]:
    """References that are requested after the listings."""
    await run.references.collect([], lambda text: None, depth=0, fresh=FRESH)
    return {
        one.id for one in await run.references.due(["Observation"], depth=1, fresh=FRESH, limit=100, leftovers=False)
    }


async def test_rows_fetched_by_the_run_are_not_requested_by_reference(store: Store) -> None:
    await full_run(await store.begin_run(scope()), [record("old")], [UNIT])
    async with await store.begin_run(scope()) as run:
        await run.plan([UNIT])
        await run.write(Batch(records=[record("early")], mentions=to("late", "away")))
        await run.write(Batch(records=[record("late"), record("old")], mentions=to("early", "old", "far", "away")))
        assert await taken(run) == {"away", "far"}


@pytest.mark.parametrize("received", [1, 60], ids=["much of it is mentioned", "little of it is mentioned"])
async def test_a_fetched_row_is_known_however_many_others_were_fetched(store: Store, received: int) -> None:
    old, new = ([record(f"{name}{n}") for n in range(received)] for name in ("old", "new"))
    await full_run(await store.begin_run(scope()), old, [UNIT])
    async with await store.begin_run(scope()) as run:
        await run.plan([UNIT])
        await run.write(Batch(records=[*old, *new], mentions=to("old0", "new0", "far")))
        assert await taken(run) == {"far"}


async def test_a_batch_that_is_refused_leaves_no_mention_and_no_attachment(store: Store, store_url: str) -> None:
    async with await store.begin_run(scope()) as run:
        await run.plan([UNIT])
        stray = settled(search("Condition"))
        with pytest.raises(UnitConflictError):
            await run.write(Batch(records=[note("d", "a")], mentions=to("far"), results=[stray]))
        assert await taken(run) == set()
    assert uses(store_url) == []


async def test_a_resumed_run_continues_with_the_references_of_its_first_half(store: Store, store_url: str) -> None:
    async with await store.begin_run(scope()) as run:
        await run.plan([UNIT])
        await run.write(Batch(records=[record("a")], mentions=to("far")))
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(records=[record("b")], mentions=to("away", "a"), results=[settled(UNIT)]))
        assert await taken(run) == {"far", "away"}
    async with await store.begin_run(scope()) as run:  # killed once more: processed mentions are still requested
        assert await taken(run) == {"far", "away"}
        await run.finish(watermark=None)
    assert rows(store_url, "SELECT count(*) FROM mention") == [(0,)]


@pytest.mark.parametrize("end", ["finish", "fail", "abandon"])
async def test_mentions_do_not_outlive_their_run(store: Store, store_url: str, end: str) -> None:
    async with await store.begin_run(scope()) as run:
        await run.plan([UNIT])
        await run.write(Batch(mentions=to("far")))
        if end == "finish":
            await run.finish(watermark=None)
        elif end == "fail":
            await run.fail(reason="login refused")
    if end == "abandon":
        async with await store.begin_run(scope(types=("Condition",))):
            pass
    assert rows(store_url, "SELECT count(*) FROM mention") == [(0,)]


async def test_a_reference_is_requested_for_a_patient_whose_chart_contains_it(store: Store) -> None:
    async with await store.begin_run(scope()) as run:
        await run.plan([UNIT])
        await run.write(Batch(mentions=[*to("far", patient=None), *to("away", patient=None)]))
        await run.write(Batch(mentions=[*to("far", patient="p2"), *to("far", patient="p1")]))
        await run.references.collect([], lambda text: None, depth=0, fresh=FRESH)
        due = await run.references.due(["Observation"], depth=1, fresh=FRESH, limit=9, leftovers=False)
    assert {(one.id, one.patient_id) for one in due} == {("far", "p1"), ("away", None)}


async def test_a_run_interrupted_by_an_upgrade_lists_again_what_was_not_noted(store: Store, store_url: str) -> None:
    patients = search("Patient", None)
    await full_run(await store.begin_run(scope(connection="other")), [record("a")], [UNIT])
    async with await store.begin_run(scope()) as run:
        await run.plan([UNIT, file(), patients])
        places = {file().key: {"bytes": 10}}
        await run.write(Batch(records=[record("a")], places=places, results=[settled(UNIT), settled(file())]))
    execute(store_url, "DROP TABLE mention")
    execute(store_url, migrations()[8].statements)
    async with opened_store(store_url) as upgraded, await upgraded.begin_run(scope()) as run:
        assert [(unit.key, unit.reached) for unit in await run.pending()] == [
            (UNIT.key, None),
            (file().key, None),
            (patients.key, None),
        ]
    assert rows(store_url, "SELECT state FROM unit WHERE run = 1") == [("settled",)]


# --- attachments -------------------------------------------------------------------------------------------------------


def note(identity: str, *urls: str, spaces: str = "", **about: Any) -> Record:
    """A DocumentReference with attachments at these URLs."""
    content = [{"attachment": {"url": url}} for url in urls]
    body = orjson.dumps({"resourceType": "DocumentReference", "id": identity, "content": content}) + spaces.encode()
    (found,) = with_attached([record(identity, body, kind="DocumentReference", **about)])
    return found


def uses(url: str) -> list[tuple[Any, ...]]:
    return rows(url, "SELECT resource_id, place, url, state FROM attachment_use ORDER BY 1, 2")


def versions(url: str) -> list[tuple[Any, ...]]:
    """Which row of the table each is: an update makes another."""
    return rows(url, "SELECT resource_id, place, ctid::text, xmin::text FROM attachment_use ORDER BY 1, 2")


DOCUMENTS = search("DocumentReference")


async def listed(store: Store, *batches: Sequence[Record], stores: Sequence[tuple[str, int]] = ()) -> None:
    async with await store.begin_run(scope()) as run:
        await run.plan([DOCUMENTS])
        for batch in batches:
            await run.write(Batch(records=batch))
        got = [
            Document("DocumentReference", name, place, "stored", None, b"text", "text/plain") for name, place in stores
        ]
        await run.write(Batch(documents=got, results=[settled(DOCUMENTS)]))
        await run.finish(watermark=None)


async def test_an_unchanged_stored_document_writes_no_row_and_a_missing_one_is_requested_again(
    store: Store, store_url: str
) -> None:
    given = [note("d1", "a", "b"), note("d2", "c")]
    await listed(store, given, stores=[("d1", 0), ("d1", 1)])
    before = versions(store_url)
    await listed(store, given)
    assert versions(store_url)[:2] == before[:2]
    assert uses(store_url)[2] == ("d2", 0, "c", "wanted")
    assert rows(store_url, "SELECT run FROM attachment_use WHERE resource_id = 'd2'") == [(2,)]


async def test_the_same_json_in_another_spelling_requests_nothing_again(store: Store, store_url: str) -> None:
    await listed(store, [note("d1", "a")], stores=[("d1", 0)])
    before = versions(store_url)
    await listed(store, [note("d1", "a", spaces="  ")])
    assert versions(store_url) == before


async def test_a_changed_document_is_fetched_again_and_its_removed_places_are_forgotten(
    store: Store, store_url: str
) -> None:
    await listed(store, [note("d1", "a", "b"), note("d2", "c")], stores=[("d1", 0), ("d1", 1), ("d2", 0)])
    await listed(store, [note("d1", "x"), note("d2")])
    assert uses(store_url) == [("d1", 0, "x", "wanted")]


async def test_a_later_content_within_one_run_replaces_the_first(store: Store, store_url: str) -> None:
    await listed(
        store,
        [note("d1", "a", "b", version="1"), note("d2", "c", version="1")],
        [note("d1", "x", version="2"), note("d2", version="2")],
    )
    assert uses(store_url) == [("d1", 0, "x", "wanted")]


async def test_a_later_content_is_requested_even_if_the_first_ones_document_is_stored(
    store: Store, store_url: str
) -> None:
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(records=[note("d1", "a", version="1")]))
        await run.write(
            Batch(documents=[Document("DocumentReference", "d1", 0, "stored", None, b"text", "text/plain")])
        )
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(records=[note("d1", "x", version="2")]))
    assert uses(store_url) == [("d1", 0, "x", "wanted")]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in another batch"])
async def test_an_older_content_changes_nothing(store: Store, store_url: str, together: bool) -> None:
    new, old = note("d1", "x", version="2"), note("d1", "a", "b", version="1")
    await listed(store, *([[old, new]] if together else [[new], [old]]))
    assert uses(store_url) == [("d1", 0, "x", "wanted")]


async def test_a_rival_content_of_the_same_version_changes_nothing(store: Store, store_url: str) -> None:
    for _ in range(2):
        await listed(store, [note("d1", "x", version="1")], [note("d1", "a", "b", version="1")])
        assert uses(store_url) == [("d1", 0, "x", "wanted")]


async def test_documents_stored_without_notices_are_noted_when_listed_unchanged(store: Store, store_url: str) -> None:
    await listed(store, [note("d1", "a")._replace(attached=None)])
    assert uses(store_url) == []
    await listed(store, [note("d1", "a")])
    assert uses(store_url) == [("d1", 0, "a", "wanted")]


async def test_a_document_of_a_revived_row_is_requested(store: Store, store_url: str) -> None:
    await listed(store, [note("d1", "a")], stores=[("d1", 0)])
    with psycopg.connect(store_url, autocommit=True, options=f"-c search_path={SCHEMA}") as conn:
        conn.execute("UPDATE resource SET deleted_at = now(), deleted_run = 1")
    await listed(store, [note("d1", "a")])
    assert uses(store_url) == [("d1", 0, "a", "wanted")]


async def test_a_record_that_the_store_refuses_leaves_no_attachment(store: Store, store_url: str) -> None:
    bad = record("d2", b'{"content":[{"attachment":{"url":"a\\u0000b"}}]}', kind="DocumentReference")
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(records=with_attached([note("d1", "a"), bad])))
    assert uses(store_url) == [("d1", 0, "a", "wanted")]
    assert rows(store_url, "SELECT id FROM resource") == [("d1",)]


ODD_BODIES = [
    b'{"content":{"attachment":{"url":"a"}}}',
    b'{"content":[{"attachment":[{"url":"a"},{"url":"b"}]},{"attachment":{"url":"c"}}]}',
    b'{"content":[{},3,null,{"attachment":null},{"attachment":{"url":"c"}}]}',
    b'{"content":[[{"attachment":{"url":"a"}},{"attachment":{"url":"b"}}],[[{"attachment":{"url":"c"}}]]]}',
    b'{"content":[{"attachment":{"url":5,"contentType":{"a":1},"size":"9","data":null}}]}',
    b'{"content":[{"attachment":{"url":"a","size":1e300}},{"attachment":{"url":"b","size":-7}}]}',
]


@pytest.mark.parametrize("body", ODD_BODIES)
async def test_attachment_places_in_malformed_documents_match_the_stores_jsonpath(
    store_url: str, store: Store, body: bytes
) -> None:
    query = """SELECT (n - 1)::int, one ->> 'contentType', one ->> 'url', one ? 'data',
            CASE WHEN jsonb_typeof(one -> 'size') = 'number' THEN least((one ->> 'size')::numeric, 1e15)::bigint END,
            one ->> 'hash'
        FROM jsonb_path_query(%s::jsonb, %s::jsonpath) WITH ORDINALITY AS a (one, n) WHERE jsonb_typeof(one) = 'object'"""
    found = [Attached(*row) for row in rows(store_url, query, body.decode(), PATHS["DocumentReference"])]
    mine = attached_to(record("d1", body, kind="DocumentReference"))
    assert [one._replace(content_type=None) for one in mine] == [one._replace(content_type=None) for one in found]
