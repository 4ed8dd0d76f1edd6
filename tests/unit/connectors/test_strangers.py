"""A null or a value of another type, among list items or in place of a value, costs only itself: no reader crashes."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.core.errors import AuthError
from connectors.fhir.auth.token_table import judge_token
from connectors.fhir.bulk.kick_off import Proofs
from connectors.fhir.bulk.manifest import manifest_from
from connectors.fhir.bundles import NotABundleError
from connectors.fhir.capability import capability_from
from connectors.fhir.errors import ProtocolError
from connectors.fhir.patients.merges import aliases_in
from connectors.fhir.records import UnreadableResourceError, deletions_from, page_from
from connectors.fhir.search.inspection import Inspection
from connectors.fhir.search.verdicts import SearchTally
from connectors.fhir.transport.call import Reply
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.transport.retry_table import issue_codes
from connectors.fhir.vendors import PROFILES
from snapshots.unit import Unit, UnitKind

BASE = FhirBase("https://ehr.example/fhir")
STRANGERS = [None, 0, -1.5, True, "", "x", [], {}, [None], {"code": ["x"]}, [[["x"]]]]

CAPABILITY = {
    "resourceType": "CapabilityStatement",
    "fhirVersion": "4.0.1",
    "instantiates": ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data|2.0.0"],
    "rest": [
        {
            "mode": "server",
            "operation": [{"name": "export", "definition": "x/group-export"}],
            "resource": [
                {
                    "type": "Condition",
                    "interaction": [{"code": "read"}, {"code": "search-type"}],
                    "searchParam": [{"name": "patient", "type": "reference"}],
                },
                {"type": "Patient", "operation": [{"name": "export", "definition": "x"}]},
            ],
        }
    ],
}
CODING = {"coding": [{"system": "s", "code": "laboratory"}]}
OBSERVATION = {
    "resourceType": "Observation",
    "id": "o1",
    "meta": {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z", "tag": [{"code": "SUBSETTED"}]},
    "category": [CODING],
    "subject": {"reference": "Patient/p1"},
    "performer": [{"reference": "Patient/p2"}],
}
PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "link": [{"other": {"reference": "Patient/p2"}, "type": "replaced-by"}],
}
OUTCOME = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "warning", "code": "processing", "details": {"coding": [{"code": "4101"}]}}],
}
BUNDLE = {
    "resourceType": "Bundle",
    "type": "searchset",
    "total": 3,
    "link": [{"relation": "self", "url": "u"}],
    "entry": [{"resource": one, "search": {"mode": "match"}} for one in (OBSERVATION, PATIENT, OUTCOME)],
}
MANIFEST = {
    "transactionTime": "2026-01-01T00:00:00Z",
    "requiresAccessToken": True,
    "output": [{"type": "Patient", "url": "https://ehr.example/f", "count": 1}],
    "error": [{"type": "OperationOutcome", "url": "https://ehr.example/e"}],
    "deleted": [{"type": "Bundle", "url": "https://ehr.example/d"}],
    "link": [{"relation": "next", "url": "https://ehr.example/2"}],
}
DELETIONS = {"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE", "url": "Goal/g"}}]}
TOKEN = {"access_token": "t", "token_type": "bearer", "expires_in": 300, "scope": "system/*.read"}
REFUSAL = {"error": "invalid_client", "error_description": "unknown client_id", "error_uri": "u"}


def read_page(body: bytes) -> None:
    page = page_from(body, BASE, where="page 1")
    aliases_in(page.records)
    unit = Unit(
        key="u",
        kind=UnitKind.SEARCH,
        resource_type="Observation",
        patient_id="p1",
        split="category=laboratory",
        since="2026-01-01T00:00:00Z",
    )
    for name in ("generic", "epic"):
        Inspection.of(unit, PROFILES[name], capability_from(CAPABILITY), None).look(page.records, SearchTally())


READERS: list[tuple[Any, Callable[[bytes], Any]]] = [
    (CAPABILITY, lambda body: capability_from(orjson.loads(body))),
    (BUNDLE, read_page),
    (MANIFEST, lambda body: list(manifest_from(body, page=1, proofs=Proofs()).files())),
    (DELETIONS, deletions_from),
    (OUTCOME, issue_codes),
    (TOKEN, lambda body: judge_token(Reply(200, {}, body, "u"), now=0)),
    (REFUSAL, lambda body: judge_token(Reply(400, {}, body, "u"), now=0)),
]
TYPED = (NotABundleError, UnreadableResourceError, ProtocolError, AuthError)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with a key or an index in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


def changed(document: Any, place: int, stranger: Any, *, insert: bool) -> bytes:
    copied = copy.deepcopy(document)
    found = list(places(copied))
    where, key = found[place % len(found)]
    if insert and isinstance(where, list):
        where.insert(key, stranger)
    else:
        where[key] = stranger
    return json.dumps(copied).encode()


@settings(deadline=None)
@given(st.sampled_from(READERS), st.integers(0, 500), st.sampled_from(STRANGERS), st.booleans())
def test_no_reader_crashes_on_malformed_input(
    reader: tuple[Any, Callable[[bytes], Any]], place: int, stranger: Any, insert: bool
) -> None:
    document, read = reader
    with contextlib.suppress(*TYPED):
        read(changed(document, place, stranger, insert=insert))


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_malformed_declaration_costs_only_itself(stranger: Any) -> None:
    document = copy.deepcopy(CAPABILITY)
    rest = document["rest"][0]
    for listed in (rest["resource"][0]["interaction"], rest["resource"][0]["searchParam"], rest["operation"]):
        listed.insert(0, stranger)
    rest["resource"].insert(0, stranger)
    document["rest"].insert(0, stranger)
    found = capability_from(document)
    assert found.patient_parameter("Condition") == "patient"
    assert ("Condition" in found.searchable, "Condition" in found.reads) == (True, True)
    assert found.unread == (2 if not isinstance(stranger, dict) else 1)


@pytest.mark.parametrize("code", [["search-type"], {"x": 1}, 7])
def test_a_type_with_an_unreadable_interaction_is_requested(code: Any) -> None:
    document = copy.deepcopy(CAPABILITY)
    document["rest"][0]["resource"][0]["interaction"] = [{"code": "read"}, {"code": code}]
    assert "Condition" in capability_from(document).searchable


def test_a_rest_entry_whose_mode_is_null_counts_as_the_servers() -> None:
    document = copy.deepcopy(CAPABILITY)
    document["rest"][0]["mode"] = None
    assert "Condition" in capability_from(document).search_params


BROKEN = [
    b'{"resource":{"resourceType":"Observation","id":"o2","note":[{"text":"half a pair: \\ud83d"}]}}',
    b'{"resource":{"resourceType":"Observation","id":"o2","note":[{"text":"a raw line\nfeed, a \\" and ]"}]}}',
    b'{"resource":{"resourceType":"Observation","id":"o2","valueInteger":NaN}}',
    b'{"resource":{"resourceType":"Observation","id":"o2","valueDecimal":.5}}',
    b'{"resource":{"resourceType":"Observation","id":"o2","x":' + b"[" * 5000 + b"]" * 5000 + b"}}",
    b"",
]


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_entry_that_is_not_json_costs_only_itself(broken: bytes, at: int) -> None:
    items = [b'{"resource":{"resourceType":"Observation","id":"%s"}}' % name for name in (b"o1", b"o3")]
    items.insert(at, broken)
    link = b'"link":[{"relation":"next","url":"https://ehr.example/fhir?p=2"}]'
    page = page_from(b'{"resourceType":"Bundle",%s,"entry": [%s ]}' % (link, b",\n".join(items)), BASE, where="page 1")
    assert [record.id for record in page.records] == ["o1", "o3"]
    assert [(one.raw, one.source) for one in page.quarantined] == [(broken, f"page 1, entry {at + 1}")]
    assert page.next_url == "https://ehr.example/fhir?p=2"


@pytest.mark.parametrize(
    "body",
    [
        b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient","id":"p1"}},{"resource":{"id":"p2',
        b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient","id":"p1"}]}',
        b'{"resourceType":"Bundle","entry":[{"id":NaN}],"total":NaN}',
        b'{"resourceType":"Bundle","entry":[{"id":NaN}],"entry":[]}',
        b'{"resourceType":"Bundle","entry":[{"id":NaN}]} trailing',
        b'x{"resourceType":"Bundle","entry":[{"id":NaN}]}',
    ],
)
def test_a_page_that_is_not_json_outside_its_entries_is_no_bundle(body: bytes) -> None:
    with pytest.raises(NotABundleError):
        page_from(body, BASE, where="page 1")
