"""How resources, pages and outcomes are read."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.bundles import NotABundleError
from connectors.fhir.outcomes import Issue
from connectors.fhir.records import (
    SubsettedError,
    UnreadableResourceError,
    deletions_from,
    grade,
    page_from,
    record_from,
)
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.vendors import PROFILES
from snapshots.witness import Deletion

BASE = FhirBase("https://ehr.example.org/r4/")
BOM = b"\xef\xbb\xbf"


def test_a_record_keeps_its_body_byte_for_byte() -> None:
    body = (
        b'{"id":"o1", "resourceType":"Observation","valueQuantity":{"value":1.0},"subject":{"reference":"Patient/p1"}}'
    )
    record = record_from(body, BASE)
    assert (record.resource_type, record.id, record.patient_id, record.body) == ("Observation", "o1", "p1", body)


@pytest.mark.parametrize(
    ("fields", "patient"),
    [
        ({"subject": {"reference": "Patient/p1"}}, "p1"),
        ({"patient": {"reference": "https://ehr.example.org/r4/Patient/p.1-x"}}, "p.1-x"),
        ({"beneficiary": {"reference": "Patient/p1/_history/3"}}, "p1"),
        ({"subject": {"reference": "Group/g1"}}, None),
        ({"subject": {"reference": "urn:uuid:0"}}, None),
        ({"subject": [{"reference": "Patient/p1"}]}, "p1"),  # against the specification, but unambiguous
        ({"subject": {"display": "someone"}}, None),
        ({"patient": None}, None),
        ({}, None),
    ],
)
def test_the_patient_is_read_from_the_reference_that_the_type_uses(fields: dict, patient: str | None) -> None:
    assert record_from(orjson.dumps({"resourceType": "Condition", "id": "c", **fields}), BASE).patient_id == patient


def test_a_partial_resource_is_accepted_only_where_elements_were_requested() -> None:
    body = b'{"resourceType":"Patient","id":"p1","meta":{"tag":[{"code":"SUBSETTED"}]}}'
    with pytest.raises(SubsettedError, match="although the whole resource was requested"):
        record_from(body, BASE)
    page = page_from(b'{"resourceType":"Bundle","entry":[{"resource":' + body + b"}]}", BASE, where="page 1")
    assert (page.records, [one.raw for one in page.quarantined]) == ([], [body])
    assert record_from(body, BASE, in_part=True).subsetted


def test_a_patient_belongs_to_itself() -> None:
    assert record_from(b'{"resourceType":"Patient","id":"p1"}', BASE).patient_id == "p1"


@pytest.mark.parametrize("empty", ["[]", '""', "null", "{}"])
def test_an_empty_meta_in_another_shape_is_accepted(empty: str) -> None:
    body = f'{{"resourceType":"Patient","id":"p1","meta":{empty}}}'.encode()
    assert record_from(body, BASE).body == body


@pytest.mark.parametrize("odd", ['[{"tag":[{"code":"SUBSETTED"}]}]', '"SUBSETTED"', "7"])
def test_a_meta_that_may_say_that_elements_are_missing_is_not_ignored(odd: str) -> None:
    with pytest.raises(UnreadableResourceError):
        record_from(f'{{"resourceType":"Patient","id":"p1","meta":{odd}}}'.encode(), BASE)


def test_meta_is_read_if_present() -> None:
    body = b'{"resourceType":"Patient","id":"p1","meta":{"versionId":"7","lastUpdated":"2024-04-05T23:47:10.000Z"}}'
    assert record_from(body, BASE)[3:5] == ("7", "2024-04-05T23:47:10.000Z")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"1", b'{"id":"x"}', b'{"resourceType":"Patient"}', b'{"resourceType":"Patient","id":7}',
     b'{"resourceType":"Patient","id":""}', b'{"resourceType":"../x","id":"a"}', b'{"resourceType":"","id":"a"}',
     b'{"resourceType":"PATIENT","id":"a"}', b'{"resourceType":"Patient","id":"a"', b"<html>",
     b'{"resourceType":"Patient","id":"a"}{"resourceType":"Patient","id":"b"}', b"\xff\xfe"],
)  # fmt: skip
def test_anything_but_a_single_resource_is_refused_without_being_quoted(body: bytes) -> None:
    with pytest.raises(UnreadableResourceError) as caught:
        record_from(body, BASE)
    assert "html" not in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_refused(body: bytes) -> None:
    with contextlib.suppress(UnreadableResourceError):
        assert record_from(body, BASE).body == body.removeprefix(BOM)


def _bundle(*entries: object, **fields: object) -> bytes:
    return orjson.dumps({"resourceType": "Bundle", "type": "searchset", "entry": list(entries), **fields})


def test_a_page_splits_into_records_outcomes_and_the_next_link() -> None:
    page = page_from(
        _bundle(
            {"resource": {"resourceType": "Condition", "id": "c1"}, "search": {"mode": "match"}},
            {"resource": {"resourceType": "Practitioner", "id": "d1"}, "search": {"mode": "include"}},
            {
                "resource": {
                    "resourceType": "OperationOutcome",
                    "issue": [{"severity": "warning", "code": "processing", "details": {"coding": [{"code": "4119"}]}}],
                },
                "search": {"mode": "outcome"},
            },
            link=[
                {"relation": "next", "url": "https://ehr.example.org/r4/Condition?sessionID=1"},
                {"relation": "self", "url": "x"},
            ],
        ),
        BASE,
        where="page 1",
    )
    assert [record.id for record in page.records] == ["c1", "d1"]
    assert page.issues == [Issue("warning", "processing", ("4119",))]
    assert page.next_url == "https://ehr.example.org/r4/Condition?sessionID=1"


def test_an_outcome_is_never_data_even_without_search_mode() -> None:
    page = page_from(
        _bundle(
            {
                "resource": {
                    "resourceType": "OperationOutcome",
                    "id": "x",
                    "issue": [{"severity": "warning", "code": "informational"}],
                }
            }
        ),
        BASE,
        where="page 1",
    )
    assert (page.records, len(page.issues)) == ([], 1)


def test_an_entry_that_cannot_be_read_costs_only_itself() -> None:
    page = page_from(
        _bundle({"resource": {"resourceType": "Condition"}}, {"resource": {"resourceType": "Condition", "id": "c2"}}),
        BASE,
        where="page 3",
    )
    assert [record.id for record in page.records] == ["c2"]
    assert [(item.source, item.reason) for item in page.quarantined] == [("page 3, entry 1", "no usable id")]


@pytest.mark.parametrize(
    ("answer", "kept"),
    [({"resourceType": "Bundle", "type": "searchset"}, False), ({"resourceType": "Bundle", "type": "batch-response"}, False),
     ({"resourceType": "Parameters"}, False), ({"resourceType": "Bundle", "type": "document"}, True)],
)  # fmt: skip
def test_a_bundle_in_place_of_a_resource_is_unreadable_unless_it_is_a_document(
    answer: dict[str, str], kept: bool
) -> None:
    body = orjson.dumps({**answer, "id": "b1"})
    if kept:
        assert record_from(body, BASE).id == "b1"
        return
    with pytest.raises(UnreadableResourceError, match="an answer that contains resources"):
        record_from(body, BASE)


def test_an_entry_without_a_resource_is_not_ignored() -> None:
    page = page_from(_bundle({"fullUrl": "x/Condition/c1"}, None, {"resource": None}), BASE, where="page 1")
    assert [item.source for item in page.quarantined] == ["page 1, entry 1", "page 1, entry 2", "page 1, entry 3"]


@pytest.mark.parametrize(
    "stranger", [7, "Condition", [], True, [{"resource": {"resourceType": "Condition", "id": "x"}}]]
)
def test_a_malformed_entry_costs_only_itself(stranger: object) -> None:
    good = {"resource": {"resourceType": "Condition", "id": "c2"}, "search": "match"}
    page = page_from(_bundle(stranger, good, link=[{"relation": "next", "url": "n"}]), BASE, where="page 1")
    assert ([record.id for record in page.records], page.next_url) == (["c2"], "n")
    assert [item.source for item in page.quarantined] == ["page 1, entry 1"]


@pytest.mark.parametrize(("entry", "ids"), [({"resource": {"resourceType": "Goal", "id": "g"}}, ["g"]), ("none", [])])
def test_entries_that_are_no_list_are_read_as_one_or_kept(entry: object, ids: list[str]) -> None:
    page = page_from(orjson.dumps({"resourceType": "Bundle", "entry": entry}), BASE, where="page 1")
    assert [record.id for record in page.records] == ids
    assert len(page.quarantined) == 1 - len(ids)


def test_an_unreadable_outcome_is_quarantined_and_a_partly_readable_one_leaves_a_doubt() -> None:
    unread = {"resource": {"resourceType": "OperationOutcome", "id": "x"}, "search": {"mode": "outcome"}}
    in_part = {"resource": {"resourceType": "OperationOutcome", "issue": [{"severity": "warning"}, None]}}
    assert len(page_from(_bundle(unread), BASE, where="page 1").quarantined) == 1
    page = page_from(_bundle(in_part), BASE, where="page 1")
    assert (len(page.issues), page.quarantined, page.doubtful) == (1, [], True)


def test_a_resource_that_mentions_outcomes_is_still_a_resource() -> None:
    marked = {"resource": {"resourceType": "Basic", "id": "b", "x": "OperationOutcome"}, "search": {"mode": "outcome"}}
    assert [record.id for record in page_from(_bundle(marked), BASE, where="page 1").records] == ["b"]


@pytest.mark.parametrize(
    "stranger", [None, 7, "DELETE Goal/g2", {}, {"request": None}, {"request": {"method": 7, "url": 7}}]
)
def test_a_malformed_deletion_is_counted_and_the_others_are_read(stranger: object) -> None:
    deleted = {"request": {"method": "DELETE", "url": "Goal/g1"}}
    assert deletions_from(orjson.dumps({"entry": [stranger, deleted]})) == ((Deletion("Goal", "g1"),), 1)


def test_a_resource_marked_as_an_outcome_is_a_resource() -> None:
    marked = {"resource": {"resourceType": "Condition", "id": "c1"}, "search": {"mode": "outcome"}}
    assert [record.id for record in page_from(_bundle(marked), BASE, where="page 1").records] == ["c1"]


def test_a_next_link_without_a_url_is_no_end_and_other_malformed_links_and_totals_cost_only_themselves() -> None:
    condition = {"resource": {"resourceType": "Condition", "id": "c1"}, "search": {"mode": None}}
    links = [{"relation": None, "url": None}, {"relation": "next", "url": 7}]
    page = page_from(b"\xef\xbb\xbf" + _bundle(condition, link=links, total="one"), BASE, where="page 1")
    assert ([record.id for record in page.records], page.next_url, page.total) == (["c1"], "", None)


@pytest.mark.parametrize("total", [5, "5", " 5 ", 5.0, "5.0"])
def test_a_total_is_read_in_every_number_format(total: object) -> None:
    assert page_from(_bundle(total=total), BASE, where="page 1").total == 5


@pytest.mark.parametrize("total", [None, True, "", "many", -1, 5.5, [5], {}])
def test_a_total_that_is_no_count_of_rows_is_ignored(total: object) -> None:
    assert page_from(_bundle(total=total), BASE, where="page 1").total is None


def test_numbers_in_an_entry_keep_their_digits() -> None:
    body = (
        b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Observation","id":"o","valueDecimal":1.00}}]}'
    )
    assert b'"valueDecimal":1.00' in page_from(body, BASE, where="page 1").records[0].body


@pytest.mark.parametrize(
    "body", [b"<html>Request Rejected</html>", b"{}", b'{"resourceType":"Patient","id":"p"}', b'"Bundle"']
)
def test_an_answer_without_a_bundle_differs_from_an_empty_bundle(body: bytes) -> None:
    with pytest.raises(NotABundleError):
        page_from(body, BASE, where="page 1")
    assert page_from(_bundle(), BASE, where="page 1").records == []


def test_a_deleted_file_lists_deletions() -> None:
    line = orjson.dumps(
        {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [{"request": {"method": "DELETE", "url": "Patient/123"}}],
        }
    )
    assert deletions_from(line) == ((Deletion("Patient", "123"),), 0)


@pytest.mark.parametrize("nothing", [{}, {"entry": []}, {"entry": None}])
def test_a_bundle_of_deletions_without_entries_says_that_nothing_was_deleted(nothing: dict) -> None:
    assert deletions_from(orjson.dumps({"resourceType": "Bundle", "type": "transaction", **nothing})) == ((), 0)
    with pytest.raises(UnreadableResourceError):
        deletions_from(orjson.dumps(nothing))


@pytest.mark.parametrize(
    ("method", "url", "gone"),
    [
        ("DELETE", "Patient/1", True),
        ("delete", "/Patient/1", True),
        ("DELETE", "https://ehr.example.org/fhir/Patient/1", True),
        ("DELETE", "https://other.example.org/fhir/Patient/1", False),
        ("DELETE", "https://ehr.example.org/fhir/tenant/Patient/1", False),
        ("DELETE", "Patient/1/_history/2", False),
        ("DELETE", "Patient/1?x=1", False),
        ("DELETE", "Patient?identifier=x", False),
        ("DELETE", "x/Patient/1", False),
        ("GET", "Patient/1", False),
    ],
)
def test_only_a_delete_of_a_resource_below_the_base_deletes_it_and_others_are_counted(
    method: str, url: str, gone: bool
) -> None:
    entries = [{"request": {"method": "DELETE", "url": "Patient/0"}}, {"request": {"method": method, "url": url}}]
    found, unread = deletions_from(orjson.dumps({"entry": entries}), FhirBase("https://ehr.example.org/fhir"))
    assert (Deletion("Patient", "1") in found, unread) == (gone, int(not gone))


@pytest.mark.parametrize(
    ("severity", "means"),
    [("information", "incomplete"), ("warning", "incomplete"), ("error", "fatal"), ("fatal", "fatal")],
)
def test_a_standard_issue_about_missing_results_is_believed_at_any_severity(severity: str, means: str) -> None:
    assert grade([Issue(severity, "incomplete", ())], {}) == means
    assert grade([Issue(severity, "incomplete", ("7",))], {"7": "ignored"}) == "ignored"


def test_the_most_severe_issue_decides_and_a_vendors_code_outweighs_severity() -> None:
    meanings = PROFILES["epic"].answers.issue_codes
    assert grade([Issue("warning", "processing", ("4101",))], meanings) == "note"
    assert (
        grade([Issue("warning", "processing", ("4101",)), Issue("warning", "x", ("4119",))], meanings) == "incomplete"
    )
    assert grade([Issue("fatal", "processing", ("4113",))], meanings) == "restart"


def test_an_unknown_error_within_a_page_is_never_an_empty_result() -> None:
    assert grade([Issue("error", "exception", ())], {}) == "fatal"
    assert grade([Issue("information", "informational", ())], {}) == "note"


@pytest.mark.parametrize(
    "id_",
    ["a/b", "../Patient", "a b", " ", "a\nb", "a\tb", "\x1b[31m", "a\x85", "a\u00a0b", "", "x" * 1025, "\U0010ffff"],
)
def test_an_id_that_could_lead_elsewhere_is_refused(id_: str) -> None:
    with pytest.raises(UnreadableResourceError, match="no usable id"):
        record_from(orjson.dumps({"resourceType": "Goal", "id": id_}), BASE)


@pytest.mark.parametrize("id_", ["a", "A-1.b", "eXK~_=:|+%", "x" * 1024, "ä"])
def test_other_ids_are_accepted_unchanged(id_: str) -> None:
    assert record_from(orjson.dumps({"resourceType": "Goal", "id": id_}), BASE).id == id_


@pytest.mark.parametrize("kind", ["history", "batch-response", "transaction", 7, ["searchset"]])
def test_a_bundle_of_another_type_is_no_listing(kind: object) -> None:
    with pytest.raises(NotABundleError, match="another type"):
        page_from(orjson.dumps({"resourceType": "Bundle", "type": kind, "total": 0}), BASE, where="page 1")


@pytest.mark.parametrize("fields", [{}, {"type": None}, {"type": "collection"}])
def test_a_bundle_that_does_not_say_searchset_may_be_a_listing(fields: dict) -> None:
    assert page_from(orjson.dumps({"resourceType": "Bundle", **fields}), BASE, where="page 1").records == []
