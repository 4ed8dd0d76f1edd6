"""A duplicate or unknown name: its value is unreadable, and never counts as empty."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.bulk.kick_off import Proofs
from connectors.fhir.bulk.manifest import manifest_from
from connectors.fhir.bundles import NotABundleError
from connectors.fhir.capability import capability_from
from connectors.fhir.errors import ProtocolError
from connectors.fhir.json_answers import TWICE, RepeatedNameError, json_from, members_of
from connectors.fhir.outcomes import UnreadableOutcomeError, outcome_from
from connectors.fhir.records import (
    Page,
    UnreadableResourceError,
    deletions_from,
    page_from,
    record_from,
)
from connectors.fhir.transport.fhir_base import FhirBase

BASE = FhirBase("https://ehr.example/fhir")
ENTRY = b'[{"resource":{"resourceType":"Goal","id":"g1"}}]'
OTHER = b'[{"resource":{"resourceType":"Goal","id":"g2"}}]'
NEXT = b',"link":[{"relation":"next","url":"https://ehr.example/fhir/Goal?page=2"}]'
LINKED = b'[{"link":[{"relation":"self","url":"u"}],"resource":{"resourceType":"Goal","id":"g1"}}]'
NAMES = st.text(max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
SPACE = st.text(" \t\r\n", max_size=2)


def page(members: bytes) -> Page:
    return page_from(b'{"resourceType":"Bundle","type":"searchset"' + members + b"}", BASE, where="x")


def written(pairs: list[tuple[str, Any]], space: str) -> bytes:
    members = f"{space},{space}".join(f"{json.dumps(name)}{space}:{space}{json.dumps(value)}" for name, value in pairs)
    return f"{space}{{{space}{members}{space}}}{space}".encode()


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), SPACE)
def test_the_members_of_an_object_cover_its_text_in_order_unless_a_name_is_duplicated(
    pairs: list[tuple[str, Any]], space: str
) -> None:
    body = written(pairs, space)
    if len(dict(pairs)) == len(pairs):
        assert {name: json.loads(raw) for name, raw in members_of(body).items()} == dict(pairs)
        assert json_from(body) == dict(pairs)
        return
    with pytest.raises(RepeatedNameError):
        members_of(body)
    names = [name for name, _ in pairs]
    assert json_from(body) == {name: TWICE if names.count(name) > 1 else value for name, value in pairs}


@pytest.mark.parametrize("members", [
    b',"entry":' + ENTRY + b',"entry":[]',
    b',"entry":' + ENTRY + b',"entry":' + OTHER,
    b',"entry":' + ENTRY + b',"entry":null',
    b',"link":[{"relation":"next","url":"u"}],"entry":[],"link":[]',
    b',"link":[{"relation":"next","url":"u"}],"entry":' + ENTRY + b',"link":[]',
    b',"link":[{"relation":"next","url":"u"}],"entry":' + ENTRY + b" " * 9000 + b',"link":[]',
    NEXT + b',"entry":' + LINKED + b',"link":[]',
    NEXT + b',"entry":' + LINKED + b" " * 9000 + b',"link":[]',
    NEXT + b',"link":[],"entry":' + LINKED,
])  # fmt: skip
def test_a_bundle_with_a_duplicate_name_is_no_listing(members: bytes) -> None:
    with pytest.raises(NotABundleError):
        page(members)


@pytest.mark.parametrize("space", [b"", b" " * 9000])
@pytest.mark.parametrize("entry", [LINKED, LINKED.replace(b'"id"', b'"link":[],"id"')], ids=["entry", "resource too"])
def test_a_link_within_an_entry_does_not_affect_the_bundles_links(entry: bytes, space: bytes) -> None:
    for members in (NEXT + b',"entry":' + entry + space, b',"entry":' + entry + space + NEXT):
        found = page(members)
        assert [record.id for record in found.records] == ["g1"]
        assert found.next_url == "https://ehr.example/fhir/Goal?page=2"


@pytest.mark.parametrize("name", [b"Entry", b"entries", b"ENTRY", b"resources", b"results"])
@pytest.mark.parametrize("content", [
    ENTRY,
    ENTRY.replace(b"resource", b"Resource"),
    b'[{"resourceType":"Goal","id":"g1"}]',
    b'{"items":' + ENTRY + b"}",
])  # fmt: skip
@pytest.mark.parametrize("beside", [b"", b',"entry":[]', b',"entry":' + OTHER, b',"total":0'])
def test_resources_under_an_unknown_bundle_name_are_quarantined(name: bytes, content: bytes, beside: bytes) -> None:
    found = page(b',"' + name + b'":' + content + beside)
    assert [one.raw for one in found.quarantined] == [content]
    assert [record.id for record in found.records] == (["g2"] if OTHER in beside else [])


def test_other_objects_leave_a_doubt_in_place_of_entries_but_not_beside_them() -> None:
    assert page(b',"items":[{"a":1}]').doubtful
    assert not page(b',"items":[{"a":1}],"entry":' + ENTRY).doubtful
    assert not page(b',"took":3,"_type":{"id":"x"},"warnings":[]').doubtful
    assert not page(b',"id":"b","meta":{"tag":[{"code":"x"}]},"timestamp":"2026","signature":{},"total":0').doubtful


def test_a_next_page_under_an_unknown_bundle_name_is_no_end() -> None:
    following = b'[{"relation":"next","url":"https://ehr.example/fhir?2"}]'
    assert page(b',"Link":' + following + b',"entry":' + ENTRY).next_url == ""
    assert page(b',"Link":[{"relation":"self","url":"u"}],"paging":{"next":null},"entry":' + ENTRY).next_url is None
    assert page(b',"Link":' + following + b',"link":' + following).next_url == "https://ehr.example/fhir?2"


def test_an_entry_with_two_resources_costs_itself() -> None:
    two = b'{"resource":{"resourceType":"Goal","id":"a"},"resource":{"resourceType":"Goal","id":"b"}}'
    found = page(b',"entry":[' + two + b"," + OTHER[1:])
    assert [record.id for record in found.records] == ["g2"]
    assert [one.raw for one in found.quarantined] == [two]


def test_a_resource_that_contains_resources_is_read_as_usual() -> None:
    inner = (
        b'{"resourceType":"Bundle","id":"b","type":"document","entry":[{"resource":{"resourceType":"Goal","id":"g"}}]}'
    )
    found = page(b',"entry":[{"resource":' + inner + b"}]")
    assert [record.body for record in found.records] == [inner]
    assert not found.quarantined


@pytest.mark.parametrize("body", [
    b'{"resourceType":"Goal","id":"a","id":"b"}',
    b'{"resourceType":"Goal","id":"a","status":"x","id":"b","contained":[{"id":"c"}]}',
    b'{"resourceType":"Goal","id":"a","resourceType":"Task"}',
    b'{"id":"a","id":"b","resourceType":"Goal"}',
    b'{ "id" : "a", "resourceType" : "Goal", "resourceType" : "Task" }',
])  # fmt: skip
def test_a_resource_with_a_duplicate_type_or_id_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableResourceError, match="appears twice"):
        record_from(body, BASE)


def test_ids_and_types_of_contained_resources_are_no_duplicates() -> None:
    body = b'{"id":"a","contained":[{"resourceType":"Task","id":"b"}],"resourceType":"Goal"}'
    assert record_from(body, BASE).id == "a"


@pytest.mark.parametrize("members", [
    b'"output":[{"type":"Goal","url":"a"}],"output":[]',
    b'"output":[],"error":[{"type":"OperationOutcome","url":"e"}],"error":[]',
    b'"Output":[{"type":"Goal","url":"a"}]',
    b'"outputs":[{"type":"Goal","Url":"a"}]',
])  # fmt: skip
def test_a_manifest_whose_files_are_ambiguous_is_refused(members: bytes) -> None:
    with pytest.raises(ProtocolError):
        manifest_from(b'{"transactionTime":"2026-01-01T00:00:00Z",' + members + b"}", page=1, proofs=Proofs())


def test_files_under_an_unknown_manifest_name_are_a_hole_and_other_objects_a_doubt() -> None:
    output = b'{"output":[{"type":"Goal","url":"a"}],'
    hidden = manifest_from(output + b'"Error":[{"url":"e"}]}', page=1, proofs=Proofs())
    (unit,) = hidden.doubts()
    assert (hidden.doubtful, unit.detail["more"]) == (True, True)
    manifest = manifest_from(output + b'"warnings":[{"code":"x"}],"msg":"done"}', page=1, proofs=Proofs())
    (unit,) = manifest.doubts()
    assert (manifest.doubtful, unit.detail["more"]) == (True, False)


def test_a_file_with_a_duplicate_url_is_a_hole() -> None:
    body = b'{"output":[{"type":"Goal","url":"a","url":"b"},{"type":"Goal","url":"c"}]}'
    assert [file.url for file in manifest_from(body, page=1, proofs=Proofs()).files()] == ["", "c"]


@pytest.mark.parametrize("members", [b'"Issue":[{"severity":"error"}]', b'"issue":[{"severity":"error"}],"issue":[]'])
def test_an_outcome_with_misnamed_or_duplicate_issues_is_unreadable(members: bytes) -> None:
    with pytest.raises(UnreadableOutcomeError):
        outcome_from(b'{"resourceType":"OperationOutcome",' + members + b"}")


def test_misnamed_issues_are_unread_beside_readable_ones() -> None:
    document = b'{"resourceType":"OperationOutcome","issue":[{"severity":"warning","code":"x"}],"Issue":[{"severity":"error"}]}'
    assert (len(outcome_from(document).issues), outcome_from(document).unread) == (1, 1)


@pytest.mark.parametrize("members", [b'"Entry":[{"request":{}}]', b'"entry":[{"request":{}}],"entry":[]'])
def test_misnamed_or_duplicate_deletions_are_unreadable(members: bytes) -> None:
    with pytest.raises(UnreadableResourceError):
        deletions_from(b'{"resourceType":"Bundle",' + members + b"}")


def test_types_that_a_server_declares_twice_are_counted_as_unread() -> None:
    document = (
        b'{"resourceType":"CapabilityStatement","rest":[{"mode":"server","resource":[{"type":"Goal"}],"resource":[]}]}'
    )
    assert capability_from(json_from(document)).unread == 1
