"""Faults of documents: links, Accept headers, attachments without either (docs/faults.md). Data; `test_fault_matrix` runs it."""

from __future__ import annotations

import base64
from typing import Any

import psycopg

from mocks.serving import Served
from tests.acceptance.faulted import PARTIAL, Case, charts_only, rule

CRAWL = ("--mode", "crawl")
OF_A_COHORT = {"group": None, "cohort": "file:cohort.csv"}
WITH_DOCUMENTS: dict[str, Any] = {"documents": True, "data": None, "patients": 2, "seed": 16}


def documents_are_the_sources(served: Served, store_url: str) -> None:
    """Each attachment with a link is stored byte for byte, or noted as missing where the EHR has none; without one, as empty."""
    with psycopg.connect(store_url) as connection:
        found = connection.execute(
            "SELECT u.resource_id, u.place, u.state, a.content FROM tenant_default.attachment_use u"
            " LEFT JOIN tenant_default.attachment a USING (sha256)"
        ).fetchall()
    kept = {(row[0], row[1]): (row[2], row[3]) for row in found}
    links = 0
    for row in served.dataset.of_type("DocumentReference"):
        for place, content in enumerate(row.body["content"]):
            url = content["attachment"].get("url")
            held = served.dataset.get("Binary", url.rpartition("/")[2]) if url else None
            due = ("stored", base64.b64decode(held.body["data"])) if held else ("missing" if url else "empty", None)
            assert kept.pop((row.id, place)) == due
            links += held is not None
    assert links > 3
    assert not kept


def absolute_links(served: Served) -> None:
    """As Millennium writes them; every other one, so that both kinds are in one chart."""
    for number, row in enumerate(served.dataset.of_type("DocumentReference")):
        if number % 2:
            served.dataset.replace(row.raw.replace(b'"url":"Binary/', f'"url":"{served.base_url}/Binary/'.encode()))


def one_binary_is_not_there(served: Served) -> None:
    served.dataset.delete("Binary", served.dataset.of_type("Binary")[0].id)


CASES = (
    Case(
        number="F31",
        what="links-relative-and-absolute",
        vendor="epic",
        mock=WITH_DOCUMENTS,
        holds=absolute_links,
        kept=documents_are_the_sources,
    ),
    Case(
        number="F31",
        what="a-link-to-nothing",
        vendor="epic",
        mock=WITH_DOCUMENTS,
        holds=one_binary_is_not_there,
        says="(?i)not there|missing",
        kept=documents_are_the_sources,
    ),
    Case(
        number="F31",
        what="a-document-that-fails",
        vendor="epic",
        mock=WITH_DOCUMENTS,
        profile={"retry.max_tries": 2},
        rules=(rule("read", "/Binary/", action={"status": 503, "body": "html"}, first=3, last=10),),
        code=PARTIAL,
        holes=None,
        says="503",
        kept=documents_are_the_sources,
    ),
    Case(
        number="F32",
        what="accept-must-be-the-attachments-type",
        vendor="cerner",
        words=CRAWL,
        settings=OF_A_COHORT,
        expected=charts_only,
        mock=WITH_DOCUMENTS,
        kept=documents_are_the_sources,
    ),
    Case(
        number="F33", what="neither-link-nor-data", vendor="epic", mock=WITH_DOCUMENTS, kept=documents_are_the_sources
    ),
)
