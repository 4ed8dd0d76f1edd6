"""Binary by Accept: a client that asks carelessly gets no document."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from mocks.mock_config import MockConfig
from mocks.serving import serve
from tests.integration.mocks.raw_client import get

PAGE = b"<p>note</p>"
DATA = [
    json.dumps({"resourceType": "Patient", "id": "p1"}).encode(),
    json.dumps(
        {"resourceType": "Binary", "id": "TR-1", "contentType": "text/html", "data": b64encode(PAGE).decode()}
    ).encode(),
]


@pytest.mark.parametrize(
    ("vendor", "accept", "status", "got"),
    [
        ("epic", "text/html", 200, "text/html"),
        ("epic", "application/fhir+json", 200, "application/fhir+json"),
        ("epic", "*/*", 200, "application/fhir+xml"),
        ("epic", "application/pdf", 200, "application/fhir+xml"),
        ("cerner", "text/html", 200, "text/html"),
        ("cerner", "application/fhir+json", 200, "application/fhir+json"),
        ("cerner", "application/json", 406, ""),
        ("cerner", "*/*", 406, ""),
        ("cerner", "application/pdf", 406, ""),
        ("generic", "*/*", 200, "text/html"),
        ("generic", "application/json", 200, "application/fhir+json"),
    ],
)
def test_the_form_of_a_binary_depends_on_accept_and_vendor(vendor: str, accept: str, status: int, got: str) -> None:
    with serve(MockConfig(vendor=vendor, data=DATA, open=True)) as served:  # type: ignore[arg-type]
        reply = get(f"{served.base_url}/Binary/TR-1", headers={"Accept": accept})
    assert (reply.status_code, reply.headers.get("content-type", "").partition(";")[0]) == (status, got)
    if got == "text/html":
        assert reply.content == PAGE
    if got == "application/fhir+json":
        assert reply.json()["contentType"] == "text/html"


def test_a_row_that_is_not_listed_is_found_by_read_and_by_id_only() -> None:
    who = {"subject": {"reference": "Patient/p1"}}
    category = [{"coding": [{"code": "laboratory"}]}]
    rows = [{"resourceType": "Observation", "id": f"o{n}", "category": category, **who} for n in (1, 2)]
    data = [DATA[0], *(json.dumps(row).encode() for row in rows)]
    with serve(MockConfig(vendor="epic", data=data, open=True, unlisted=frozenset({"Observation/o2"}))) as served:
        headers = {"Accept": "application/fhir+json"}

        def ids(query: str) -> list[str]:
            bundle = get(f"{served.base_url}/Observation?{query}", headers=headers).json()
            return [entry["resource"]["id"] for entry in bundle.get("entry", ())]

        assert ids("patient=p1&category=laboratory") == ["o1"]
        assert ids("_id=o2") == ["o2"]
        assert get(f"{served.base_url}/Observation/o2", headers=headers).status_code == 200
