"""Whole runs against a server that writes links by a name that only itself can use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.scripted_export import OBSERVATION, PATIENT, Answer, accepted, export_server, manifest

pytestmark = pytest.mark.anyio

INSIDE = "http://localhost:1"


def bulk(inside: str) -> dict[str, Any]:
    """An export whose every link is written by the inner name."""
    return {
        "kickoffs": [accepted(f"{inside}/jobs/1?secret=1")],
        "polls": [manifest("Patient", "Observation", requires=True, files=f"{inside}/files")],
    }


async def test_an_export_with_internal_links_is_fetched_from_the_mapped_origin(store: KeptRows) -> None:
    async with export_server(**bulk(INSIDE)) as server:
        assert server.main is not None
        moved = {INSIDE: server.main.origin}
        report = await server.sync(store, {"links.rewrite_origins": moved})
        assert all("authorization" in seen.headers for seen in server.sent("/files/"))
    assert (report.status, report.error, report.holes) == ("complete", None, [])
    assert set(store.live()) == {("Patient", "p1"), ("Observation", "o1")}


async def test_an_internal_status_url_is_refused_with_its_origin_and_the_setting(store: KeptRows) -> None:
    async with export_server(**bulk(INSIDE)) as server:
        report = await server.sync(store)
        assert server.main is not None
        assert f'rewrite_origins = {{ "{INSIDE}" = "{server.main.origin}" }}' in (report.error or "")
        assert "secret" not in (report.error or "")
        # and the job that it left is gone on with, once the setting is there
        again = await server.sync(store, {"links.rewrite_origins": {INSIDE: server.main.origin}})
        assert len(server.kicked_off) == 1
    assert again.status == "complete"


@pytest.mark.parametrize("requires", [True, False])
async def test_internal_file_links_are_refused_with_their_origin_and_the_setting(
    store: KeptRows, requires: bool
) -> None:
    inside = "http://169.254.1.1:8080"
    polls = [manifest("Patient", "Observation", requires=requires, files=f"{inside}/files")]
    async with export_server(polls=polls) as server:
        report = await server.sync(store)
    text = " ".join(filter(None, [report.error, *(hole.reason for hole in report.holes)]))
    assert f'rewrite_origins = {{ "{inside}" = ' in text
    assert "/files" not in text.replace("bulk.file_hosts", "")


@pytest.fixture
def paged() -> Callable[[str], Any]:
    def script(inside: str) -> dict[str, list[Answer]]:
        def page(row: str, link: str | None) -> Answer:
            links = f'[{{"relation":"next","url":"{link}"}}]' if link else "[]"
            body = f'{{"resourceType":"Bundle","type":"searchset","link":{links},"entry":[{{"resource":{row}}}]}}'
            return Answer(200, body)

        second = OBSERVATION.replace('"o1"', '"o2"')
        return {
            "/fhir/Patient/p1": [Answer(200, PATIENT)],
            "/fhir/Observation": [
                page(OBSERVATION, f"{inside}/fhir/Observation?page=2&token=SECRET"),
                page(second, None),
            ],
        }

    return script


async def crawl(server: Any, store: KeptRows, profile: dict[str, Any]) -> Any:
    from connectors.fhir.run import CohortSource

    return await server.sync(
        store, profile, mode="crawl", cohort=CohortSource(values=("p1",)), types=("Patient", "Observation")
    )


async def test_a_crawl_with_internal_next_links_continues_at_the_mapped_origin(store: KeptRows, paged: Any) -> None:
    async with export_server(pages=paged(INSIDE)) as server:
        assert server.main is not None
        report = await crawl(server, store, {"links.rewrite_origins": {INSIDE: server.main.origin}})
        assert [seen.target for seen in server.sent("/fhir/Observation")][1].endswith("?page=2&token=SECRET")
    assert (report.status, report.holes) == ("complete", [])
    assert ("Observation", "o2") in store.live()


async def test_an_internal_next_link_is_a_hole_that_names_its_origin_and_the_setting(
    store: KeptRows, paged: Any
) -> None:
    async with export_server(pages=paged(INSIDE)) as server:
        report = await crawl(server, store, {})
    (hole,) = report.holes
    assert f'rewrite_origins = {{ "{INSIDE}" = ' in hole.reason
    assert "SECRET" not in hole.reason


async def test_a_repeated_port_needs_no_setting(store: KeptRows, paged: Any) -> None:
    async with export_server() as server:
        assert server.main is not None
        server.pages = paged(f"{server.main.origin}:{server.main.port}")
        report = await crawl(server, store, {})
    assert (report.status, report.holes) == ("complete", [])
