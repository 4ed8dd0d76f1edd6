"""Manifests that are not the same when they are asked again: longer, in another order, or with other files."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.scripted_export import (
    OBSERVATION,
    PATIENT,
    Answer,
    ExportServer,
    export_server,
    manifest,
    ndjson,
)

pytestmark = pytest.mark.anyio

TYPES = ("Patient", "Observation")
STU3 = "http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data|3.0.0"
FILES = {
    "p": [ndjson(PATIENT)],
    "o1": [ndjson(OBSERVATION)],
    "o2": [ndjson(OBSERVATION.replace('"o1"', '"o2"'))],
    "o3": [ndjson(OBSERVATION.replace('"o1"', '"o3"'))],
}
ALL = {("Patient", "p1"), ("Observation", "o1"), ("Observation", "o2"), ("Observation", "o3")}


def listed(*names: str, signature: str = "", **more: Any) -> list[dict[str, Any]]:
    types = {"p": "Patient", "o": "Observation"}
    return [{"type": types[name[0]], "url": f"{{origin}}/files/{name}{signature}", **more} for name in names]


def answer(status: int, output: list[dict[str, Any]]) -> Answer:
    return Answer(status, manifest(output=output).body, content_type="application/json")


def files() -> dict[str, list[Answer]]:
    return {name: list(answers) for name, answers in FILES.items()}


async def served(store: KeptRows, *polls: Answer, before: Any = None, **profile: Any) -> tuple[ExportServer, Any]:
    async with export_server(polls=list(polls), files=files(), capability={"instantiates": [STU3]}) as server:
        if before is not None:
            before(server)
        return server, await server.sync(store, profile, types=TYPES)


async def test_files_that_a_partial_manifest_adds_at_the_same_url_are_fetched(store: KeptRows) -> None:
    full = listed("p", "o1", "o2", "o3")
    server, report = await served(
        store, answer(202, full[:1]), answer(202, full[:2]), answer(202, full[:2]), answer(200, full)
    )
    assert (report.status, report.holes, report.error) == ("complete", [], None)
    assert set(store.live()) == ALL
    assert len(server.sent("/files/")) == 4


async def test_a_partial_manifest_without_a_file_is_not_the_whole_export(store: KeptRows) -> None:
    full = listed("p", "o1", "o2", "o3")
    await served(store, answer(200, full))
    _, report = await served(store, answer(202, []), answer(200, full))
    assert (report.status, report.deleted) == ("complete", 0)
    assert set(store.live()) == ALL


async def test_files_added_before_others_are_distinguished_by_their_paths(store: KeptRows) -> None:
    server, report = await served(
        store, answer(202, listed("p", "o2")), answer(200, listed("o1", "p", "o3", "o2", signature="?sig=2"))
    )
    assert report.status == "complete"
    assert set(store.live()) == ALL
    assert len(server.sent("/files/")) == 4


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (listed("p", "o2"), "does not list output file 2"),
        ([], "does not list output file 1"),
        (listed("p", count=1) + listed("o1", count=3), "another type or count for output file 2"),
    ],
)
@pytest.mark.parametrize("status", [202, 200])
async def test_a_manifest_that_withdraws_or_changes_a_file_fails_the_run(
    store: KeptRows, second: list[dict[str, Any]], why: str, status: int
) -> None:
    first = listed("p", count=1) + listed("o1", count=1)
    _, report = await served(store, answer(202, first), answer(status, second), answer(200, first))
    assert report.status == "failed"
    assert why in (report.error or "")


def renewed(*names: str) -> Any:
    """Links of Observations end at once; the page then lists `names`."""

    def before(server: ExportServer) -> None:
        server.polls = [answer(200, listed("p", "o1", "o2", "o3")), answer(200, listed(*names, signature="?sig=2"))]
        choose = server._choose

        def chosen(seen: Any) -> Answer:
            ended = seen.target.startswith("/files/o") and "sig=2" not in seen.target
            return Answer(403, "") if ended else choose(seen)

        server._choose = chosen  # type: ignore[method-assign]

    return before


async def test_renewed_links_in_another_order_lead_to_the_same_files(store: KeptRows) -> None:
    _, report = await served(store, before=renewed("o3", "p", "o2", "o1"))
    assert (report.status, report.holes) == ("complete", [])
    assert set(store.live()) == ALL


async def test_a_file_that_the_renewed_manifest_does_not_list_is_a_hole_that_says_so(store: KeptRows) -> None:
    server, report = await served(store, before=renewed("p", "o1", "o3"))
    assert report.status == "partial"
    (hole,) = report.holes
    assert "does not list output file 3" in hole.reason
    assert set(store.live()) == ALL - {("Observation", "o2")}
    assert len(server.sent("/jobs/1", "GET")) == 2
