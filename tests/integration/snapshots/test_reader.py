"""Reading: what comes out is what went in, in order, of one moment, and of the selection only."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import anyio
import orjson
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from snapshots.errors import StoreError
from snapshots.reader import CopyStream
from snapshots.record import Batch
from snapshots.selected_rows import SelectedRows
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.witness import Deletion
from tests.integration.snapshots.stored import execute, full_run, record, rows, scope, search

pytestmark = pytest.mark.anyio
U = search()
COPYING = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND left(query, 4) = 'COPY'"


async def read(stream: CopyStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def ids(store: Store, selection: Selection, kind: str = "Observation") -> list[str]:
    async with store.snapshot(selection) as snapshot:
        return [orjson.loads(line)["id"] for line in (await read(snapshot.ndjson(kind))).splitlines()]


@pytest.mark.quick
async def test_numbers_keep_their_written_form(store: Store):
    body = b'{"id":"a","one":1.0,"long":0.12345678901234567890123,"big":12345678901234567890}'
    await full_run(await store.begin_run(scope()), [record("a", body)], [U])
    async with store.snapshot(Selection()) as snapshot:
        line = await read(snapshot.ndjson("Observation"))
    for written in (b"1.0,", b"0.12345678901234567890123", b"12345678901234567890"):
        assert written in line.replace(b"}", b",")


async def test_ndjson_is_ordered_by_connection_name_then_id(store: Store):
    await full_run(await store.begin_run(scope(connection="zeta")), [record("b"), record("a"), record("C")], [U])
    await full_run(await store.begin_run(scope(connection="alpha")), [record("z")], [U])
    assert await ids(store, Selection()) == ["z", "C", "a", "b"]


async def test_ndjson_counts_its_rows_over_chunks(store: Store):
    batch = [record(f"{n:04}", "x" * 3000) for n in range(300)]
    await full_run(await store.begin_run(scope()), batch, [U])
    async with store.snapshot(Selection()) as snapshot:
        stream = snapshot.ndjson("Observation")
        chunks = [chunk async for chunk in stream]
    assert len(chunks) > 2
    assert stream.rows == 300
    assert [orjson.loads(line)["id"] for line in b"".join(chunks).splitlines()] == [f"{n:04}" for n in range(300)]


async def test_a_read_omits_other_connections_patients_types_and_tombstones(store: Store):
    await full_run(await store.begin_run(scope(connection="other")), [record("o")], [U])
    mine = [
        record("a"),
        record("b", patient="p2"),
        record("d"),
        record("c", kind="Condition"),
        record("n", patient=None),
    ]
    await full_run(await store.begin_run(scope()), mine, [U])
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(deletions=[Deletion("Observation", "d")]))
        await run.finish(watermark=None)
    assert await ids(store, Selection(connections=("mercy",))) == ["a", "b", "n"]
    assert await ids(store, Selection(connections=("mercy",), patients=("p1",))) == ["a"]
    assert await ids(store, Selection(patients=())) == []
    async with store.snapshot(Selection(connections=("mercy",))) as snapshot:
        assert await snapshot.types() == {"Condition": 1, "Observation": 3}
    async with store.snapshot(Selection(types=("Condition",))) as snapshot:
        assert await snapshot.types() == {"Condition": 1}


async def test_an_unknown_connection_is_an_error_that_names_the_known_ones(store: Store):
    await full_run(await store.begin_run(scope()), [record("a")], [U])
    with pytest.raises(StoreError, match=r"connection mercyy.*has mercy"):
        async with store.snapshot(Selection(connections=("mercyy",))):
            pass


async def test_a_snapshot_is_one_moment_and_dated_by_its_newest_run(store: Store):
    report = await full_run(await store.begin_run(scope()), [record("a")], [U])
    async with store.snapshot(Selection()) as snapshot:
        before = snapshot.as_of
        await full_run(await store.begin_run(scope()), [record("a"), record("b")], [U])
        assert await snapshot.types() == {"Observation": 1}
        assert snapshot.runs == (report.id,)
    async with store.snapshot(Selection()) as snapshot:
        assert snapshot.as_of > before
        assert await snapshot.types() == {"Observation": 2}


async def test_a_second_session_sees_the_same_moment_and_reads_concurrently(store: Store):
    await full_run(await store.begin_run(scope()), [record("a", "x" * 3000)], [U])
    async with store.snapshot(Selection()) as snapshot:
        await full_run(await store.begin_run(scope()), [record("a"), record("b")], [U])
        async with snapshot.beside() as second:
            async for first in snapshot.ndjson("Observation"):
                assert await read(second.ndjson("Observation")) == first


async def test_a_lent_session_helps_without_changing_rows_or_chunks(store: Store, store_url: str) -> None:
    await full_run(await store.begin_run(scope()), [record("a", "x" * 200)], [U])
    for connection in ("zeta", "alpha"):
        await full_run(await store.begin_run(scope(connection=connection)), [record("b", "y" * 200)], [U])
    execute(
        store_url,
        "INSERT INTO resource_stored (connection, resource_type, id, first_run, last_changed_run, content_hash, body)"
        " SELECT connection, resource_type, md5(n::text) || id, 1, 1, content_hash, jsonb_set(body, '{id}', to_jsonb(n))"
        " FROM resource_stored, generate_series(1, 20000) n WHERE length(id) = 1",
    )
    seen = []
    async with store.snapshot(Selection()) as snapshot, snapshot.beside() as second:
        who = sql.SQL("SELECT s.connection, s.id, pg_backend_pid() AS reader FROM {} s ORDER BY s.id")
        queries = [who.format(one) for one in snapshot.sources("Observation", divisible=True)]
        for lent in (nullcontext, second.lent):
            async with lent():
                lines, cells = (snapshot.ndjson("Observation"), snapshot.csv(*queries, resource_type="Observation"))
                chunks = [chunk async for chunk in lines]
                assert (lines.rows_by_query, lines.rows) == ([20001] * 3, 60003)
                table = await read(cells)
                assert cells.rows == 60003
            keys, readers = zip(*[line.rsplit(b",", 1) for line in table.splitlines()[1:]], strict=True)
            seen.append((chunks, keys, len({*readers})))
    (alone, keys_alone, readers_alone), (shared, keys, readers) = seen
    assert (shared, keys) == (alone, keys_alone)
    assert (readers_alone, readers) == (1, 2)


async def test_only_the_dividing_ids_of_a_type_leave_the_server(store: Store, store_url: str) -> None:
    await full_run(await store.begin_run(scope()), [record("a")], [U])
    execute(
        store_url,
        "INSERT INTO resource_stored (connection, resource_type, id, first_run, last_changed_run, content_hash, body)"
        " SELECT connection, resource_type, md5(n::text), 1, 1, content_hash, body"
        " FROM resource_stored, generate_series(1, 50000) n",
    )
    async with store.snapshot(Selection()) as snapshot:
        (cuts,) = SelectedRows(selection=Selection(), connections=(1,)).cuts("Observation", 2048) or []
        found = [row[0] for row in await snapshot.fetch(cuts)]
    assert found == sorted(found)
    assert 1 < len(found) < 100  # about 25; a fiftieth of all ids is 1,000


async def test_a_reader_that_stops_also_stops_the_lent_session(store: Store, store_url: str) -> None:
    await full_run(await store.begin_run(scope()), [record("a")], [U])
    execute(
        store_url,
        "INSERT INTO resource_stored (connection, resource_type, id, first_run, last_changed_run, content_hash, body)"
        " SELECT connection, resource_type, md5(n::text), 1, 1, content_hash, jsonb_build_object('x', repeat('x', 9000))"
        " FROM resource_stored, generate_series(1, 9000) n",
    )

    async def broken_off() -> None:
        async with store.snapshot(Selection()) as snapshot, snapshot.beside() as second, second.lent():
            async with aclosing(aiter(snapshot.ndjson("Observation"))) as chunks:
                assert [await anext(chunks) for _ in range(9)]
                assert rows(store_url, COPYING) != [(0,)]
            assert rows(store_url, COPYING) == [(0,)]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken_off()


async def test_a_reader_that_stops_before_the_first_row_ends_its_statement_at_the_server(
    store: Store, store_url: str
) -> None:
    endless = sql.SQL("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n")

    async def waited_for() -> None:
        async with store.snapshot(Selection()) as snapshot:
            await read(snapshot.csv(endless))

    reading = asyncio.create_task(waited_for())
    while rows(store_url, COPYING) == [(0,)]:
        await checkpoint()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    with anyio.fail_after(20):  # the server tells that it was interrupted a moment before it is idle
        while rows(store_url, COPYING) != [(0,)]:
            await checkpoint()


async def test_a_second_session_cannot_write(store: Store):
    async with store.snapshot(Selection()) as snapshot, snapshot.beside() as second:
        with pytest.raises(StoreError, match=r"reading a snapshot.*read-only transaction"):
            await second.fetch(sql.SQL("DELETE FROM resource RETURNING 1"))


async def test_an_empty_store_has_no_rows_and_no_date(store: Store):
    async with store.snapshot(Selection()) as snapshot:
        assert (await snapshot.types(), snapshot.runs) == ({}, ())
        assert snapshot.as_of == datetime(1970, 1, 1, tzinfo=UTC)
        assert await read(snapshot.ndjson("Observation")) == b""


async def test_csv_has_a_header_and_counts_rows_not_lines(store: Store):
    await full_run(await store.begin_run(scope()), [record("a", "two\nlines"), record("b", 'a "word"')], [U])
    async with store.snapshot(Selection()) as snapshot:
        source = snapshot.sources("Observation")[0]
        query = sql.SQL("SELECT s.connection, s.id, s.body ->> 'value' AS value FROM {} s ORDER BY s.id").format(source)
        stream = snapshot.csv(query)
        text = (await read(stream)).decode()
        assert stream.rows == 2
        assert await snapshot.fetch(sql.SQL("SELECT count(*) FROM {} s").format(source)) == [(2,)]
    assert text == 'connection,id,value\nmercy,a,"two\nlines"\nmercy,b,"a ""word"""\n'


async def test_a_snapshot_cannot_write(store: Store):
    async with store.snapshot(Selection()) as snapshot:
        with pytest.raises(StoreError, match="read-only transaction"):
            await snapshot.fetch(sql.SQL("DELETE FROM resource RETURNING 1"))


async def test_reading_may_stop_in_the_middle_of_a_type(store: Store):
    batch = [record(f"{n:04}", "x" * 3000) for n in range(300)]
    await full_run(await store.begin_run(scope()), batch, [U])
    async with store.snapshot(Selection()) as snapshot:
        stream = snapshot.ndjson("Observation").__aiter__()
        assert await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_read_cancelled_while_the_server_is_silent_returns_its_session(store: Store):
    slow = sql.SQL("SELECT repeat('x', 300000) AS value UNION ALL SELECT pg_sleep(600)::text")

    async def read_and_be_cancelled() -> None:
        async with store.snapshot(Selection()) as snapshot:
            rows = snapshot.table(slow).__aiter__()
            assert await anext(rows)
            waiting = asyncio.ensure_future(anext(rows))
            await asyncio.sleep(0)  # it has begun
            waiting.cancel()
            await waiting

    with pytest.raises(asyncio.CancelledError):
        await read_and_be_cancelled()
    assert await ids(store, Selection()) == []


def _value(text: bytes) -> Any:
    """The JSON value with its numbers as written."""
    return json.loads(text, parse_float=Decimal)


_TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(-1000, 1000, places=3) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


def _written(value: Any) -> str:
    """JSON text with decimals as they are, which no encoder here offers."""
    match value:
        case Decimal():
            return format(value, "f")
        case list():
            return "[" + ",".join(_written(item) for item in value) + "]"
        case dict():
            return "{" + ",".join(f"{_written(key)}:{_written(item)}" for key, item in value.items()) + "}"
        case _:
            return json.dumps(value)


def _sorted(value: Any) -> Any:
    match value:
        case list():
            return [_sorted(item) for item in value]
        case dict():
            return sorted((key, _sorted(item)) for key, item in value.items())
        case _:
            return value


@settings(max_examples=25)
@given(value=_JSON)
async def test_any_json_comes_back_as_an_equal_value(store: Store, store_url: str, value: object):
    body = _written({"id": "a", "value": value}).encode()
    await full_run(await store.begin_run(scope()), [record("a", body)], [U])
    async with store.snapshot(Selection()) as snapshot:
        line = await read(snapshot.ndjson("Observation"))
    assert line.count(b"\n") == 1
    assert repr(_sorted(_value(line))) == repr(_sorted(_value(body)))  # by repr: 1.0 and 1.00 are equal Decimals
    assert rows(store_url, "SELECT count(*) FROM resource") == [(1,)]


async def test_the_present_types_are_known_without_counting_rows(store: Store):
    await full_run(await store.begin_run(scope()), [record("1"), record("2"), record("c", kind="Condition")], [U])
    async with store.snapshot(Selection()) as snapshot:
        assert await snapshot.present() == await snapshot.types()
    async with store.snapshot(Selection(types=("Condition",))) as snapshot:
        assert list(await snapshot.present()) == ["Condition"]
    async with store.snapshot(Selection(patients=("nobody",))) as snapshot:
        assert await snapshot.present() == {}
