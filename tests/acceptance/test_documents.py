"""A clinic's notes lie in Binaries behind its DocumentReferences: a sync reads their text, and an export has it."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.user_site import Site, csv_rows, mock


def test_a_sync_stores_every_note_with_its_text_and_an_export_has_it(
    site: Site, store_url: str, tmp_path: Path
) -> None:
    with mock("epic", documents=True, patients=2) as served:
        site.connect(served)
        report = site.sync()
        binaries = len(served.dataset.of_type("Binary"))
    assert site.run("export", "--out", str(tmp_path / "out"), "--view", "document_reference").code == 0
    with psycopg.connect(store_url) as connection:
        found = connection.execute("SELECT content_type, text, unread FROM tenant_default.attachment").fetchall()
    assert report["status"] == "complete"
    assert len(found) == binaries
    assert all(text and unread is None for _, text, unread in found)
    assert {kind for kind, _, _ in found} == {"text/html", "text/rtf", "application/pdf", "application/xml"}
    notes = csv_rows(tmp_path / "out" / "document_reference.csv.gz")
    assert {row["note_status"] for row in notes} == {"stored", "empty"}
    assert {row["note_text"] for row in notes if row["note_status"] == "stored"} <= {text for _, text, _ in found}
    assert all(bool(row["note_text"]) == (row["note_status"] == "stored") for row in notes)
