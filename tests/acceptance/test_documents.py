"""A clinic's notes lie in Binaries behind its DocumentReferences."""

from __future__ import annotations

import psycopg

from tests.user_site import Site, mock


def test_a_sync_by_the_command_stores_every_note_with_its_text(site: Site, store_url: str) -> None:
    with mock("epic", documents=True, patients=2) as served:
        site.connect(served)
        report = site.sync()
        binaries = len(served.dataset.of_type("Binary"))
    with psycopg.connect(store_url) as connection:
        found = connection.execute("SELECT content_type, text, unread FROM tenant_default.attachment").fetchall()
    assert report["status"] == "complete"
    assert len(found) == binaries
    assert all(text and unread is None for _, text, unread in found)
    assert {kind for kind, _, _ in found} == {"text/html", "text/rtf", "application/pdf", "application/xml"}
