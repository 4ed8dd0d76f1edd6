"""The text of notes in `document_reference`: what is stored of a document, in every kind of table, for whom it is shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
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
from snapshots.actor import Actor
from snapshots.record import Batch
from snapshots.referred import Document
from snapshots.report import RunScope
from snapshots.sealed_values import Keyring
from snapshots.selection import Selection
from snapshots.sql_views import rows_of
from snapshots.store import Store
from tests.fix_store import opened_store
from tests.integration.exports.charts import lines_of, record, table_of, view_file
from tests.integration.snapshots.stored import execute, rows

pytestmark = pytest.mark.anyio

KEYS = Keyring(current="k1", keys={"k1": b"1" * 32})
NOTE = ("note_text", "note_status", "note_content_type")
QUOTED = '"Sore throat", she said.\nNo fever; 38.5 °C on Monday, \\N'


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
    """A run that brings notes, and then their documents; its number."""
    scope = RunScope(connection="site", kind="sync", mode="crawl", selection="all", types=())
    async with await store.begin_run(scope) as run:
        await run.write(Batch(records=with_attached([record(one) for one in notes])))
        await run.write(Batch(documents=documents))
        return (await run.finish(watermark=None, requests=1, retries=0)).id


async def exported(store: Store, out: Path, *formats: str, views: tuple[str, ...] = (), **selected: Any) -> Path:
    async with store.snapshot(Selection(**selected)) as snapshot:
        wanted = views or ("document_reference",)
        await export(ExportRequest(out=LocalFolder(out), formats=formats or ("csv",), views=wanted), snapshot)
    return out


def notes_in(out: Path) -> dict[str, tuple[str, ...]]:
    return {row["key"]: tuple(row[name] for name in NOTE) for row in table_of(out / "document_reference.csv.gz")}


async def test_a_note_has_the_text_of_its_first_content_that_has_one_and_otherwise_says_why_not(
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


async def test_typed_files_have_the_longest_text_that_the_store_keeps(any_store: Store, tmp_path: Path) -> None:
    text = "é" * TEXT_CHARACTERS
    await night(any_store, note("a", "text/plain"), documents=(read("a", text),))
    out = await exported(any_store, tmp_path, "parquet", "duckdb")
    assert pyarrow.parquet.read_table(out / "document_reference.parquet")["note_text"].to_pylist() == [text]
    with duckdb.connect(str(out / "charts.duckdb")) as database:
        assert database.execute("SELECT note_text = ? FROM document_reference", [text]).fetchall() == [(True,)]


async def test_who_sees_masks_sees_of_a_note_that_there_is_one(store_url: str, tmp_path: Path) -> None:
    async with opened_store(store_url, keyring=KEYS) as store:
        await night(store, note("a", "text/plain"), note("b", "text/plain"), documents=(read("a", QUOTED),))
    async with opened_store(store_url, actor=Actor(name="ben", masked=True), keyring=KEYS) as store:
        out = await exported(store, tmp_path)
    assert notes_in(out) == {"a": ("***", "stored", "text/html"), "b": ("", "wanted", "text/plain")}
    masked = json.loads((out / "manifest.json").read_bytes())["masked"]
    assert "note_text" in masked["columns"]["document_reference"]


async def test_a_text_belongs_to_the_version_that_has_it_attached(any_store: Store, tmp_path: Path) -> None:
    await night(any_store, note("a", "text/plain"), documents=(read("a", "first"),))
    await night(any_store, note("a", "text/plain", status="superseded"))
    assert notes_in(await exported(any_store, tmp_path)) == {"a": ("", "wanted", "text/plain")}
    await night(any_store, documents=(read("a", "second"),))
    assert notes_in(await exported(any_store, tmp_path)) == {"a": ("second", "stored", "text/html")}


async def test_an_export_is_given_nothing_of_a_run_that_has_not_ended(any_store: Store, tmp_path: Path) -> None:
    await night(any_store, note("a", "text/plain"))
    scope = RunScope(connection="site", kind="sync", mode="crawl", selection="all", types=())
    async with await any_store.begin_run(scope) as run:
        await run.write(Batch(documents=(read("a", "early"),)))
        assert notes_in(await exported(any_store, tmp_path))["a"][0] == ""


async def test_a_view_of_ones_own_reads_the_text_and_may_choose_by_it(store: Store, tmp_path: Path) -> None:
    await night(
        store, note("a", "text/plain"), note("b", "text/plain"), documents=(read("a", "sore throat"), read("b", "fine"))
    )
    path = "extension('https://chartferry.example/fhir/StructureDefinition/stored-document').extension('text').value"
    where = [{"path": f"{path}.ofType(string).contains('throat')"}]
    column = {"name": "text", "path": f"{path}.ofType(string)", "type": "string"}
    view = view_file(tmp_path, "mine", column, resource="DocumentReference", where=where)
    out = await exported(store, tmp_path / "out", views=(view,))
    assert table_of(out / "mine.csv.gz") == [{"text": "sore throat"}]


async def test_queries_and_sql_views_have_the_text_in_a_plain_store_and_are_refused_in_an_encrypted_one(
    store_url: str, tmp_path: Path
) -> None:
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


async def test_a_text_that_was_altered_in_the_store_ends_the_export(store_url: str, tmp_path: Path) -> None:
    async with opened_store(store_url, keyring=KEYS) as store:
        await night(store, note("a", "text/plain"), documents=(read("a", "fine"),))
        execute(store_url, "UPDATE attachment SET text = regexp_replace(text, '.{3}~$', 'abc~')")
        with pytest.raises(Exception, match="altered"):
            await exported(store, tmp_path)
