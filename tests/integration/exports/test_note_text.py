"""The text of notes in `document_reference`: what is stored of a document, in every kind of table, and who may see it."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet
import pytest

from connectors.documents.text_of import TEXT_CHARACTERS
from connectors.fhir.linked.attachment_finder import with_attached
from exports.catalogue import load_view
from exports.delivery.destination import LocalFolder
from exports.errors import ViewError
from exports.plan import ExportRequest
from exports.queries.run import Limits, run_query
from exports.run import export
from exports.typed_rows import typed_rows
from exports.warehouse.load import WarehouseRequest, load_warehouse
from exports.warehouse.target import PostgresSchema
from snapshots.actor import Actor
from snapshots.record import Batch
from snapshots.referred import Document
from snapshots.report import RunScope
from snapshots.sealed_values import Keyring
from snapshots.selection import Selection
from snapshots.sql_views import rows_of
from snapshots.store import Store
from tests.fix_store import database, opened_store
from tests.integration.exports.charts import lines_of, record, table_of, view_file
from tests.integration.snapshots.stored import execute, rows

pytestmark = pytest.mark.anyio

_numbers = itertools.count(1)
KEYS = Keyring(current="k1", keys={"k1": b"1" * 32})
SCOPE = RunScope(connection="site", kind="sync", mode="crawl", selection="all", types=())
NOTE = ("note_text", "note_status", "note_content_type")
QUOTED = '"Sore throat", she said.\nNo fever; 38.5 °C on Monday, \\N'


@pytest.fixture
def warehouse(store_server: str) -> Iterator[str]:
    with database(store_server, f"cf_{os.getpid()}_notes_{next(_numbers)}") as url:
        yield url


@pytest.fixture(params=["plain", "encrypted"])
async def any_store(store_url: str, request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Store]:
    async with opened_store(store_url, keyring=KEYS if request.param == "encrypted" else None) as ready:
        yield ready


def note(id_: str, *content_types: str, **more: Any) -> dict[str, Any]:
    contents = [{"attachment": {"contentType": one, "url": f"Binary/{id_}"}} for one in content_types]
    about = {"subject": {"reference": "Patient/p1"}, "content": contents}
    return {"resourceType": "DocumentReference", "id": id_, **about, **more}


def read(id_: str, text: str | None, place: int = 0, content_type: str = "text/html", **more: Any) -> Document:
    """A document that came, with the text that was read out of it."""
    content = f"<p>{id_} {place} {text}".encode()
    return Document("DocumentReference", id_, place, "stored", None, content, content_type, text, **more)


def gone(id_: str, state: str, place: int = 0) -> Document:
    return Document("DocumentReference", id_, place, state)


async def night(store: Store, *notes: dict[str, Any], documents: tuple[Document, ...] = ()) -> int:
    """A run that fetches notes, and then their documents; returns its number."""
    async with await store.begin_run(SCOPE) as run:
        await run.write(Batch(records=with_attached([record(one) for one in notes])))
        await run.write(Batch(documents=documents))
        return (await run.finish(watermark=None)).id


async def exported(store: Store, out: Path, *formats: str, views: tuple[str, ...] = (), **selected: Any) -> Path:
    async with store.snapshot(Selection(**selected)) as snapshot:
        wanted = views or ("document_reference",)
        await export(ExportRequest(out=LocalFolder(out), formats=formats or ("csv",), views=wanted), snapshot)
    return out


def notes_in(out: Path) -> dict[str, tuple[str, ...]]:
    return {row["key"]: tuple(row[name] for name in NOTE) for row in table_of(out / "document_reference.csv.gz")}


async def test_a_note_has_the_first_available_text_or_the_reason_why_there_is_none(
    any_store: Store, tmp_path: Path
) -> None:
    await night(
        any_store,
        note("a", "text/html", extension=[{"url": "other", "valueString": "kept"}]),
        note("b", "application/pdf", "image/png", "text/plain", "text/html"),
        note("c", "image/png"),
        note("d", "text/plain"),
        note("e", "text/plain", "text/rtf"),
        note("f"),
        note("g", "text/plain"),
        documents=(
            read("a", QUOTED),
            gone("b", "missing"),
            read("b", None, 1, "image/png", unread="text cannot be read"),
            read("b", "third", 2, "text/plain; charset=utf-8"),
            read("b", "fourth", 3),
            read("c", None, content_type="image/png", unread="text cannot be read"),
            gone("d", "too-large"),
            gone("e", "restricted"),
            read("g", ""),
        ),
    )
    out = await exported(any_store, tmp_path, "csv", "ndjson")
    assert notes_in(out) == {
        "a": (QUOTED, "stored", "text/html"),
        "b": ("third", "stored", "text/plain; charset=utf-8"),
        "c": ("", "unreadable", "image/png"),
        "d": ("", "too-large", "text/plain"),
        "e": ("", "restricted", "text/plain"),
        "f": ("", "", ""),
        "g": ("", "stored", "text/html"),
    }
    assert "stored-document" not in json.dumps(lines_of(out / "DocumentReference.ndjson.gz"))


async def test_typed_files_can_hold_the_longest_text_of_the_store(any_store: Store, tmp_path: Path) -> None:
    text = "é" * TEXT_CHARACTERS
    await night(any_store, note("a", "text/plain"), documents=(read("a", text),))
    out = await exported(any_store, tmp_path, "parquet", "duckdb")
    assert pyarrow.parquet.read_table(out / "document_reference.parquet")["note_text"].to_pylist() == [text]
    with duckdb.connect(str(out / "charts.duckdb")) as database:
        assert database.execute("SELECT note_text = ? FROM document_reference", [text]).fetchall() == [(True,)]


async def test_a_masked_reader_sees_only_that_a_note_exists(store_url: str, tmp_path: Path) -> None:
    async with opened_store(store_url, keyring=KEYS) as store:
        await night(store, note("a", "text/plain"), note("b", "text/plain"), documents=(read("a", QUOTED),))
    async with opened_store(store_url, actor=Actor(name="ben", masked=True), keyring=KEYS) as store:
        out = await exported(store, tmp_path)
    assert notes_in(out) == {"a": ("***", "stored", "text/html"), "b": ("", "wanted", "text/plain")}
    masked = json.loads((out / "manifest.json").read_bytes())["masked"]
    assert "note_text" in masked["columns"]["document_reference"]


async def test_a_text_belongs_to_the_version_that_it_is_attached_to(any_store: Store, tmp_path: Path) -> None:
    await night(any_store, note("a", "text/plain"), documents=(read("a", "first"),))
    await night(any_store, note("a", "text/plain", status="superseded"))
    assert notes_in(await exported(any_store, tmp_path)) == {"a": ("", "wanted", "text/plain")}
    await night(any_store, documents=(read("a", "second"),))
    assert notes_in(await exported(any_store, tmp_path)) == {"a": ("second", "stored", "text/html")}
    async with await any_store.begin_run(
        SCOPE
    ) as run:  # which does not ask what is attached, as without attachments.fetch
        await run.write(Batch(records=[record(note("a", "text/plain", status="entered-in-error"))]))
        await run.finish(watermark=None)
    assert notes_in(await exported(any_store, tmp_path)) == {"a": ("", "", "")}


async def test_encrypting_a_store_in_place_keeps_the_texts_of_each_moment(store_url: str, tmp_path: Path) -> None:
    async with opened_store(store_url) as store:
        first = await night(store, note("a", "text/plain"), documents=(read("a", QUOTED),))
        await night(store, note("a", "text/plain", status="superseded"), documents=(read("a", "second"),))
    async with opened_store(store_url, keyring=KEYS, encrypts=True) as store:
        await store.rotate()
    async with opened_store(store_url, keyring=KEYS) as store:
        assert notes_in(await exported(store, tmp_path))["a"][0] == "second"
        assert notes_in(await exported(store, tmp_path, as_of=first))["a"][0] == QUOTED


async def test_an_export_has_no_texts_of_an_open_run(any_store: Store, tmp_path: Path) -> None:
    await night(any_store, note("a", "text/plain"))
    async with await any_store.begin_run(SCOPE) as run:
        await run.write(Batch(documents=(read("a", "early"),)))
        assert notes_in(await exported(any_store, tmp_path))["a"][0] == ""


async def test_a_custom_view_can_read_and_filter_by_the_text(store: Store, tmp_path: Path) -> None:
    await night(
        store, note("a", "text/plain"), note("b", "text/plain"), documents=(read("a", "sore throat"), read("b", "fine"))
    )
    path = "extension('https://chartferry.example/fhir/StructureDefinition/stored-document').extension('text').value"
    where = [{"path": f"{path}.ofType(string).contains('throat')"}]
    column = {"name": "text", "path": f"{path}.ofType(string)", "type": "string"}
    view = view_file(tmp_path, "mine", column, resource="DocumentReference", where=where)
    out = await exported(store, tmp_path / "out", views=(view,))
    assert table_of(out / "mine.csv.gz") == [{"text": "sore throat"}]


async def test_queries_and_sql_views_can_read_the_text_only_in_a_plain_store(store_url: str, tmp_path: Path) -> None:
    query = tmp_path / "q.sql"
    query.write_text(
        "-- @relatedDependency: document_reference as document_reference\nSELECT note_text FROM document_reference"
    )
    view = load_view("document_reference")
    for tenant, keys in (("default", None), ("sealed", KEYS)):
        async with opened_store(store_url, tenant, keyring=keys) as store:
            await night(store, note("a", "text/plain"), documents=(read("a", "fine"),))
            async with store.snapshot(Selection()) as snapshot:
                if keys is None:
                    await run_query(query, {}, snapshot, tmp_path / "q.csv", Limits())
                else:
                    with pytest.raises(ViewError, match="is encrypted in this store"):
                        await run_query(query, {}, snapshot, tmp_path / "q.csv", Limits())
            if keys is None:
                async with store.sql_views() as there:
                    shown = typed_rows(view, rows_of(view.resource, documents=view.reads_documents))
                    await there.create(view.name, shown, digest=view.digest)
    assert (tmp_path / "q.csv").read_text() == "note_text\nfine\n"
    assert rows(store_url, "SELECT key, note_text FROM document_reference") == [("a", "fine")]


async def test_a_text_altered_in_the_store_stops_the_export(store_url: str, tmp_path: Path) -> None:
    async with opened_store(store_url, keyring=KEYS) as store:
        await night(store, note("a", "text/plain"), documents=(read("a", "fine"),))
        execute(store_url, "UPDATE attachment SET text = regexp_replace(text, '.{3}~$', 'abc~')")
        with pytest.raises(Exception, match="altered"):
            await exported(store, tmp_path)


async def test_a_note_reads_back_as_of_each_moment_and_an_unchanged_one_writes_no_history(
    any_store: Store, store_url: str, tmp_path: Path
) -> None:
    amended = note("a", "text/plain", status="superseded")
    five = (note("a", "text/plain"), note("b", "image/png", "text/html"), *(note(id_, "text/plain") for id_ in "cde"))
    outcomes = (
        read("a", "first"),
        read("b", None, content_type="image/png"),
        read("b", "in html", 1),
        gone("c", "missing"),
        gone("d", "too-large"),
        gone("e", "empty"),
    )
    nights = [
        (five, outcomes),
        ((), (read("c", "came later"),)),
        ((amended, note("b", "image/png"), note("d", "text/plain")), (gone("d", "too-large"),)),
        ((amended,), (read("a", "second"), read("b", None, content_type="image/png"))),
        ((note("c"), *five[3:]), (gone("d", "too-large"), gone("e", "empty"))),
    ]
    seen = {}
    for notes, documents in nights:
        run = await night(any_store, *notes, documents=documents)
        seen[run] = (await exported(any_store, tmp_path / f"{run}") / "document_reference.csv.gz").read_bytes()
    await night(any_store, documents=(gone("a", "restricted"),))
    first = min(seen)
    for run, content in seen.items():
        out = await exported(any_store, tmp_path / f"as of {run}", as_of=run)
        assert (out / "document_reference.csv.gz").read_bytes() == content, notes_in(out)
    assert len(set(seen.values())) == len(nights)
    history = rows(store_url, "SELECT resource_id, place, outcome, to_run FROM attachment_use_history ORDER BY 4, 1, 2")
    assert [(*one, run - first + 1) for *one, run in history] == [
        ("c", 0, "missing", 2),
        ("a", 0, "stored", 3),
        ("b", 0, "stored", 3),
        ("b", 1, "stored", 3),
        ("a", 0, "wanted", 4),
        ("b", 0, "wanted", 4),
        ("c", 0, "stored", 5),
        ("a", 0, "stored", 6),
    ]


@pytest.mark.parametrize("patients", [None, ("p1", "p2")])
async def test_a_note_whose_text_arrived_later_counts_as_changed_and_its_patient_is_audited(
    store: Store, store_url: str, tmp_path: Path, patients: tuple[str, ...] | None
) -> None:
    of_another = note("b", "text/plain", subject={"reference": "Patient/p2"})
    first = await night(store, note("a", "text/plain"), of_another, documents=(read("a", "x"), gone("b", "missing")))
    second = await night(store, documents=(read("b", "late"),))
    changed = await exported(store, tmp_path / "changed", changed_since=first, patients=patients)
    assert notes_in(changed) == {"b": ("late", "stored", "text/html")}
    assert rows(store_url, "SELECT patient_id FROM audit_patient") == [("p2",)]
    assert notes_in(await exported(store, tmp_path / "no more", changed_since=second, patients=patients)) == {}


async def test_a_warehouse_following_changes_gets_a_later_text_and_loses_no_rows_of_other_views(
    store: Store, warehouse: str, tmp_path: Path
) -> None:
    keys = [{"name": "connection", "path": "%connection"}, {"name": "key", "path": "getResourceKey()"}]
    other = view_file(tmp_path, "other", *keys, resource="DocumentReference")
    into = PostgresSchema(warehouse, "charts")
    request = WarehouseRequest(into=into, views=("document_reference", other))
    first = await night(store, note("a", "text/plain"), note("b", "text/plain"), documents=(read("a", "x"),))
    async with store.snapshot(Selection()) as snapshot:
        await load_warehouse(request, snapshot)
    await night(store, documents=(read("b", "late"),))
    async with store.snapshot(Selection(changed_since=first)) as snapshot:
        await load_warehouse(request, snapshot)
    with psycopg.connect(warehouse) as conn:
        found = conn.execute("SELECT key, note_text FROM charts.document_reference ORDER BY key").fetchall()
        assert found == [("a", "x"), ("b", "late")]
        assert conn.execute("SELECT key FROM charts.other ORDER BY key").fetchall() == [("a",), ("b",)]


async def test_pruning_history_deletes_documents_that_are_attached_nowhere_any_more(
    store: Store, store_url: str
) -> None:
    await night(store, note("a", "text/plain"), note("b", "text/plain"), documents=(read("a", "x"), read("b", "y")))
    await night(store, note("a", "text/plain", status="superseded"), documents=(read("a", "z"),))
    done = await store.prune(history=datetime.now(UTC))
    assert done.rows == {"attachment": 1, "attachment_use_history": 1, "resource_history": 1}
    assert rows(store_url, "SELECT text FROM attachment ORDER BY 1") == [("y",), ("z",)]
