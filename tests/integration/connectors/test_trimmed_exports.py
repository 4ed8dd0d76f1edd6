"""Exports of some `_elements` from a server that trims resources and does not tag them: what is a part, what is whole."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from config.bulk_options import BulkOptions
from snapshots.migrate import migrations
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.scripted_export import Answer, accepted, export_server, manifest, ndjson
from tests.integration.snapshots.stored import execute, rows

pytestmark = pytest.mark.anyio
PARTS: dict[str, Any] = {
    "types": ("DocumentReference",),
    "bulk": BulkOptions(elements=("status", "content")),
}


def document(number: int, **more: str) -> str:
    """State `number` of one document, whose content is another Binary each time."""
    content = [{"attachment": {"url": f"Binary/b{number}", "contentType": "text/plain"}}]
    body = {"resourceType": "DocumentReference", "id": "d1", "status": "current", "content": content, **more}
    return json.dumps(body)


def binary(number: int) -> Answer:
    body = {"resourceType": "Binary", "id": f"b{number}", "contentType": "text/plain"}
    return Answer(200, json.dumps({**body, "data": b64encode(b"text").decode()}))


def stored(store: KeptRows) -> tuple[str, bool]:
    """Which state of the document is stored, and whether it is whole."""
    body = store.live()["DocumentReference", "d1"]
    return body["content"][0]["attachment"]["url"], "description" in body


async def test_a_part_is_replaced_by_the_next_part_though_its_document_was_fetched(store: KeptRows) -> None:
    seen = []
    async with export_server(polls=[manifest("DocumentReference")]) as server:
        for number in (1, 2, 3):
            server.pages[f"/fhir/Binary/b{number}"] = [binary(number)]
            server.files["DocumentReference"] = [ndjson(document(number))]
            server.kickoffs = [accepted()]
            await server.sync(store, {"attachments.fetch": True}, **PARTS)
            seen.append(stored(store)[0])
    assert seen == ["Binary/b1", "Binary/b2", "Binary/b3"]


@pytest.mark.parametrize("upgraded", [False, True], ids=["as noted", "as an earlier version left it"])
async def test_a_whole_resource_replaces_a_part_and_no_part_replaces_it(
    store: KeptRows, store_url: str, upgraded: bool
) -> None:
    whole = {"types": ("DocumentReference",)}
    seen = []
    async with export_server(polls=[manifest("DocumentReference")]) as server:
        for asked, text in (
            (PARTS, document(1)), (PARTS, document(2)), (whole, document(3, description="all")), (PARTS, document(4)),
        ):  # fmt: skip
            server.files["DocumentReference"] = [ndjson(text)]
            server.kickoffs = [accepted()]
            await server.sync(store, **asked)
            seen.append(stored(store))
            if upgraded:
                (step,) = [one for one in migrations() if one.name == "subsetted"]
                execute(store_url, "DELETE FROM subsetted")
                execute(store_url, step.statements[step.statements.index("INSERT") :])
    assert seen == [("Binary/b1", False), ("Binary/b2", False), ("Binary/b3", True), ("Binary/b3", True)]
    assert rows(store_url, "SELECT count(*) FROM subsetted") == [(0,)]


async def test_a_deleted_part_is_alive_once_an_export_of_parts_has_it_again(store: KeptRows, store_url: str) -> None:
    async with export_server(polls=[manifest("DocumentReference")]) as server:
        for number in (1, 2):
            server.files["DocumentReference"] = [ndjson(document(number))]
            server.kickoffs = [accepted()]
            report = await server.sync(store, **PARTS)
            if number == 1:
                execute(store_url, "UPDATE resource SET deleted_at = now(), deleted_run = 1")
    assert (report.status, stored(store)) == ("complete", ("Binary/b2", False))
