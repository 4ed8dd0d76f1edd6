"""A crawl that asks for many types of which most are empty says so once, and names those that are worth asking for."""

from __future__ import annotations

import pytest

from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.raw_server import raw_server
from tests.integration.connectors.runs import run

pytestmark = pytest.mark.anyio
MANY = ("Account", "AllergyIntolerance", "CarePlan", "CareTeam", "Claim", "Composition", "Consent", "Coverage", "DeviceRequest",
        "Encounter", "Flag", "Goal", "Immunization", "Media")  # fmt: skip


def about_useless(notes: object) -> list[str]:
    assert isinstance(notes, list | tuple)
    return [note for note in notes if "returned nothing" in note]


async def test_a_crawl_with_mostly_useless_searches_says_so_once_and_names_the_useful_types(store: KeptRows) -> None:
    async with raw_server(lambda server, request: None) as server:
        server.rows |= {kind: [] for kind in MANY} | {"Practitioner": []}
        report = await run(server, store, mode="crawl")
        again = await run(server, store, mode="crawl", types=("Patient", "Observation", "Condition", "Practitioner"))
    (note,) = about_useless(report.notes)
    # this server takes `patient` for Practitioner too, and gives none: it is named all the same, for who refers to it
    assert note.startswith(f"of {len(MANY) + 4} types requested for each patient, {len(MANY) + 1} returned nothing")
    assert 'set `types = ["Patient", ' in note
    assert all(f'"{kind}"' in note for kind in ("Patient", "Observation", "Condition", "Practitioner"))
    assert not any(f'"{kind}"' in note for kind in MANY)
    assert (about_useless(again.notes), again.status) == ([], "complete")


async def test_a_crawl_with_few_useless_searches_does_not_mention_them(store: KeptRows) -> None:
    async with raw_server(lambda server, request: None) as server:
        server.rows |= {kind: [] for kind in MANY[:3]}
        report = await run(server, store, mode="crawl")
    assert about_useless(report.notes) == []
