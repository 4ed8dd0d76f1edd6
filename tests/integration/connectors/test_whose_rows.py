"""Whose a row is, as it comes over the wire: by what it names, else by the patient whose search brought it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from connectors.core.pipeline import Fetched
from connectors.fhir.capability import Capability
from connectors.fhir.errors import UnsafeLinkError
from connectors.fhir.search.gathering import PageGatherer
from connectors.fhir.search.search import SearchFetcher
from snapshots.record import Record
from snapshots.unit import Ending, Unit, UnitKind, UnitResult
from tests.integration.connectors.raw_server import RawServer, Request, answer, bundle, raw_server
from tests.integration.connectors.wire import Endpoint, client

pytestmark = pytest.mark.anyio


async def searched(*rows: dict) -> tuple[dict[str, Record], UnitResult]:
    """What a search for p1's Conditions emits, where the server answers with these rows, and how it ends."""
    found: dict[str, Record] = {}
    return found, await fetch_into(found, rows)


async def fetch_into(found: dict[str, Record], rows: Sequence[dict], next_url: str | None = None) -> UnitResult:
    """Search for p1's Conditions, where the server answers with these rows and this next link; `found` has what is emitted."""

    def listing(server: RawServer, request: Request) -> bytes:
        written = [{**row, "subject": _with_base(row.get("subject"), request.base)} for row in rows]
        return answer(bundle([{"resourceType": "Condition", **row} for row in written], next_url=next_url))

    async def keep(fetched: Fetched) -> None:
        found.update((one.id, one) for one in fetched.records)

    unit = Unit(
        key="k",
        kind=UnitKind.SEARCH,
        resource_type="Condition",
        patient_id="p1",
        template="GET /Condition?patient={id}",
        detail={"path": "Condition?patient=p1"},
    )
    async with raw_server(listing) as server, client(Endpoint(server.base_url)) as ehr:
        fetcher = SearchFetcher(PageGatherer(ehr, capability=Capability()))
        return await fetcher.fetch(unit, keep)


def _with_base(subject: dict | None, base: str) -> dict | None:
    if subject is None or "reference" not in subject:
        return subject
    return {**subject, "reference": subject["reference"].replace("{base}", base)}


async def test_rows_without_a_local_patient_belong_to_the_patient_whose_search_returned_them() -> None:
    found, result = await searched(
        {"id": "identifier", "subject": {"identifier": {"system": "urn:example:mrn", "value": "7"}}},
        {"id": "contained", "subject": {"reference": "#p"}, "contained": [{"resourceType": "Patient", "id": "p"}]},
        {"id": "foreign", "subject": {"reference": "https://other-hospital.example/fhir/Patient/p1"}},
    )
    assert {one.id: (one.patient_id, one.searched) for one in found.values()} == {
        "identifier": (None, "p1"), "contained": (None, "p1"), "foreign": (None, "p1"),
    }  # fmt: skip
    assert result.complete_listing


async def test_rows_that_name_a_patient_in_any_form_belong_to_that_patient() -> None:
    found, result = await searched(
        {"id": "relative", "subject": {"reference": "Patient/p1"}},
        {"id": "versioned", "subject": {"reference": "Patient/p1/_history/2"}},
        {"id": "absolute", "subject": {"reference": "{base}/Patient/p1"}},
        {"id": "asserted", "subject": {"reference": "Patient/p2"}, "asserter": {"reference": "Patient/p1"}},
    )
    assert [one.searched for one in found.values()] == [None] * 4
    assert [(one.patient_id, one.others) for one in found.values()] == [("p1", ())] * 3 + [("p2", ("p1",))]
    assert result.complete_listing


async def test_a_row_of_only_another_patient_stays_theirs_and_the_listing_proves_nothing() -> None:
    found, result = await searched({"id": "astray", "subject": {"reference": "Patient/p2"}})
    assert (found["astray"].patient_id, found["astray"].searched) == ("p2", None)
    assert not result.complete_listing


async def test_a_row_that_names_nobody_is_nobodys_where_the_server_ignored_whom_the_search_named() -> None:
    found, result = await searched({"id": "nobodys"}, {"id": "astray", "subject": {"reference": "Patient/p2"}})
    assert (found["nobodys"].patient_id, found["nobodys"].searched) == (None, None)
    assert result.ending is Ending.PARTIAL, "the next sync searches the patient's Conditions in full again"


async def test_rows_that_name_nobody_are_kept_if_the_link_to_the_next_page_is_refused() -> None:
    found: dict[str, Record] = {}
    with pytest.raises(UnsafeLinkError):
        await fetch_into(found, [{"id": "nobodys"}], next_url="https://elsewhere.example/fhir/Condition?page=2")
    assert (found["nobodys"].patient_id, found["nobodys"].searched) == (None, None)
