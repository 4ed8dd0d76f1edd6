"""Links that have ended: a manifest that brings no better ones is left alone, and what is counted is what is meant."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.scripted_export import (
    OBSERVATION,
    OUTCOME,
    Answer,
    export_server,
    manifest,
    ndjson,
    outcome,
)

pytestmark = pytest.mark.anyio

FILES = 80
NAMES = [f"f{n}" for n in range(FILES)]


def listed(query: str = "") -> Answer:
    output = [{"type": "Observation", "url": f"{{origin}}/files/{name}{query}"} for name in NAMES]
    return manifest(output=[{"type": "Patient", "url": "{origin}/files/Patient"}, *output])


def some(name: str) -> str:
    return OBSERVATION.replace('"o1"', f'"{name}"')


async def eighty(store: KeptRows, polls: list[Answer], files: dict[str, list[Answer]], **more: Any) -> tuple[int, Any]:
    """A run over 80 files; how often the manifest was asked for, and the report."""
    async with export_server(polls=polls, **more) as server:
        server.files |= files
        report = await server.sync(store)
        return len(server.sent("/jobs/", "GET")), report


async def test_a_manifest_that_renews_no_link_is_not_requested_again_for_each_file(store: KeptRows) -> None:
    polls_again, report = await eighty(store, [listed()], {name: [outcome(404, "not-found")] for name in NAMES})
    assert report.status == "partial"
    assert len(report.holes) == FILES
    assert polls_again <= 5


async def test_a_manifest_whose_new_links_fail_too_is_not_requested_again_for_each_file(store: KeptRows) -> None:
    polls = [listed(f"?signed={n}") for n in range(2 * FILES)]
    polls_again, report = await eighty(store, polls, {name: [outcome(403, "expired")] for name in NAMES})
    assert len(report.holes) == FILES
    assert polls_again <= 5


async def test_an_unavailable_manifest_is_not_requested_again_for_each_file(store: KeptRows) -> None:
    gone = {name: [outcome(410, "expired")] for name in NAMES}
    polls_again, report = await eighty(store, [listed(), outcome(404, "not-found")], gone)
    assert len(report.holes) == FILES
    assert polls_again <= 5


async def test_a_manifest_whose_new_links_work_is_requested_again_whenever_they_expire(store: KeptRows) -> None:
    # each link is good for one file: the worst that still works
    ended = outcome(403, "expired")
    files = {name: [ended, ndjson(some(name))] for name in NAMES}
    polls_again, report = await eighty(store, [listed(f"?signed={n}") for n in range(2 * FILES)], files)
    assert (report.status, report.holes) == ("complete", [])
    assert sum(kind == "Observation" for kind, _ in store.live()) == FILES
    assert polls_again > 1


async def test_an_error_file_is_fetched_once_whatever_its_count(store: KeptRows) -> None:
    async with export_server() as server:
        error = [{"type": "OperationOutcome", "url": "{origin}/files/errors", "count": 4711}]
        server.polls = [manifest("Patient", "Observation", error=error)]
        server.files["errors"] = [ndjson(OUTCOME.format(severity="warning", code="informational"))]
        report = await server.sync(store)
        fetched = len(server.sent("/files/errors"))
    assert fetched == 1
    assert (report.status, report.holes) == ("complete", [])
    assert not any("more lines" in note or "promises" in note for note in report.notes)


GONE = "".join(
    f'{{"resourceType":"Bundle","type":"transaction","entry":[{entries}]}}\n'
    for entries in [",".join(f'{{"request":{{"method":"DELETE","url":"Observation/x{n}"}}}}' for n in range(3))] * 2
)


@pytest.mark.parametrize("count", [2, 6])
async def test_the_count_of_deletions_may_count_bundles_or_their_entries(store: KeptRows, count: int) -> None:
    async with export_server() as server:
        deleted = [{"type": "Bundle", "url": "{origin}/files/gone", "count": count}]
        server.polls = [manifest("Patient", "Observation", deleted=deleted)]
        server.files["gone"] = [Answer(200, GONE, content_type="application/fhir+ndjson")]
        report = await server.sync(store)
        fetched = len(server.sent("/files/gone"))
    assert (report.status, report.holes, fetched) == ("complete", [], 1)
    assert not any("more lines" in note for note in report.notes)


async def test_fewer_deletions_than_either_count_are_a_hole(store: KeptRows) -> None:
    async with export_server() as server:
        deleted = [{"type": "Bundle", "url": "{origin}/files/gone", "count": 7}]
        server.polls = [manifest("Patient", "Observation", deleted=deleted)]
        server.files["gone"] = [Answer(200, GONE, content_type="application/fhir+ndjson")]
        report = await server.sync(store)
    assert report.status == "partial"
