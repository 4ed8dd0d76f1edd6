"""Exports and crawls that come to nothing say why that may be, and what to look at."""

from __future__ import annotations

import pytest

from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.scripted_export import Answer, export_server, manifest, outcome

pytestmark = pytest.mark.anyio


async def test_an_export_of_a_group_without_files_names_the_group_and_one_of_everyone_does_not(store: KeptRows) -> None:
    async with export_server(polls=[manifest()]) as server:
        of_group = await server.sync(store, group="g")
        of_all = await server.sync(store)
    assert (of_group.status, of_all.status) == ("nothing", "nothing")
    assert any("Group may be empty" in note and "`group`" in note for note in of_group.notes)
    assert not any("Group" in note for note in of_all.notes)


@pytest.mark.parametrize("members", ["[]", "null", '[{"entity":{"reference":"Patient/p1"},"inactive":true}]'])
async def test_a_crawl_of_a_group_without_members_names_the_group(store: KeptRows, members: str) -> None:
    body = f'{{"resourceType":"Group","id":"g","type":"person","actual":true,"member":{members}}}'
    async with export_server(pages={"/fhir/Group/g": [Answer(200, body)]}) as server:
        report = await server.sync(store, mode="crawl", group="g", types=("Patient", "Observation"))
    assert report.status == "nothing"
    assert any("the Group has no active members" in note and "`group`" in note for note in report.notes)


@pytest.mark.parametrize(("status", "cause"), [(410, "its link has expired"), (413, "the file is larger")])
async def test_an_unavailable_file_is_a_hole_with_the_reason(store: KeptRows, status: int, cause: str) -> None:
    async with export_server() as server:
        server.files["Observation"] = [outcome(status, "processing")]
        report = await server.sync(store)
    (hole,) = report.holes
    assert cause in hole.reason


async def test_a_failed_kick_off_says_what_in_the_request_may_be_too_much(store: KeptRows) -> None:
    async with export_server(kickoffs=[outcome(500, "exception")]) as server:
        report = await server.sync(store)
        assert len(server.kicked_off) == 1
    assert "failed on the request itself" in (report.error or "")
    assert "may have started" in (report.error or "")
