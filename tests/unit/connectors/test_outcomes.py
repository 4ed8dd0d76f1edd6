"""OperationOutcomes in every shape are read or reported as unreadable; never silently without an issue."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.bulk.file_reading import FileReading
from connectors.fhir.outcomes import Issue, UnreadableOutcomeError, outcome_from, outcome_of
from connectors.fhir.records import page_from
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.transport.retry_table import issue_codes
from snapshots.unit import Unit, UnitKind

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
    | st.sampled_from(["error", "Fatal", "exception", "OperationOutcome", "Bundle"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["resourceType", "issue", "severity", "code", "details", "coding", "entry", "resource", "x"]),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip
PAGE: dict[str, Any] = {
    "resourceType": "Bundle",
    "entry": [{"resource": {"resourceType": "Observation", "id": "o1"}}],
}
HARMLESS = {"warning", "information", "success"}


def outcome(*issues: Any, **more: Any) -> dict[str, Any]:
    return {"resourceType": "OperationOutcome", "issue": list(issues), **more}


ERROR = {"severity": "error", "code": "exception"}


@pytest.mark.parametrize(
    ("value", "issue"),
    [
        (outcome({**ERROR, "code": None}), Issue("error", "", ())),
        (outcome({**ERROR, "details": "one Condition is missing"}), Issue("error", "exception", ())),
        (outcome({**ERROR, "details": {"coding": {"code": "4119"}}}), Issue("error", "exception", ("4119",))),
        (outcome({**ERROR, "details": {"coding": [{"code": 4119}]}}), Issue("error", "exception", ("4119",))),
        (outcome({**ERROR, "details": {"text": "x", "coding": None}}), Issue("error", "exception", ())),
        (outcome({"severity": " Error ", "code": "EXCEPTION"}), Issue("error", "exception", ())),
        (outcome({"severity": "FATAL", "code": {"coding": [{"code": "exception"}]}}), Issue("fatal", "exception", ())),
        (outcome({"severity": None, "code": "exception"}), Issue("error", "exception", ())),
        (outcome({"severity": "severe"}), Issue("error", "", ())),
        ({"resourceType": "OperationOutcome", "issue": ERROR}, Issue("error", "exception", ())),
        ({"issue": [ERROR]}, Issue("error", "exception", ())),
        ([outcome(ERROR)], Issue("error", "exception", ())),
        ({"resourceType": "Bundle", "entry": [{"resource": outcome(ERROR)}]}, Issue("error", "exception", ())),
        ({"resourceType": "Bundle", "entry": {"resource": outcome(ERROR)}}, Issue("error", "exception", ())),
    ],
)
def test_an_issue_is_read_in_every_shape_that_servers_give_it(value: Any, issue: Issue) -> None:
    for body in (orjson.dumps(value), b"\xef\xbb\xbf" + orjson.dumps(value, option=orjson.OPT_INDENT_2)):
        assert outcome_from(body) == ((issue,), 0)


@pytest.mark.parametrize(
    "body",
    [b"", b"one Condition could not be written", b"{", b"null", b"[]", b'"error"', b"{}", b'{"resourceType":"Patient","id":"p"}',
     b'{"resourceType":"OperationOutcome"}', b'{"resourceType":"OperationOutcome","issue":null}',
     b'{"resourceType":"OperationOutcome","issue":"error"}', b'{"resourceType":"OperationOutcome","issue":[null,"x"]}',
     b'{"resourceType":"Bundle","entry":[]}', b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient"}}]}'],
)  # fmt: skip
def test_an_outcome_without_readable_content_is_unreadable_and_not_free_of_issues(body: bytes) -> None:
    with pytest.raises(UnreadableOutcomeError) as caught:
        outcome_from(body)
    assert "Condition" not in str(caught.value)


@pytest.mark.parametrize(
    "beside",
    [{"issues": outcome(ERROR)}, {"entry": [{**PAGE["entry"][0], "response": {"status": "200", "outcome": outcome(ERROR)}}]}],
    ids=["issues of R5", "response of an entry"],
)  # fmt: skip
def test_an_outcome_beside_a_pages_resources_is_read_like_one_among_them(beside: dict[str, Any]) -> None:
    for odd in ({}, {"x": 1}):
        page = page_from(orjson.dumps({**PAGE, **beside, **odd}), FhirBase("https://x"), where="page 1")
        assert ([one.id for one in page.records], page.issues) == (["o1"], [Issue("error", "exception", ())])


@pytest.mark.parametrize(
    "beside",
    [{"issues": [ERROR]}, {"issues": "x"}, {"entry": [{**PAGE["entry"][0], "response": {"outcome": "x"}}]},
     {"entry": [{**PAGE["entry"][0], "response": ["outcome"]}]}],
)  # fmt: skip
def test_an_unreadable_outcome_beside_the_resources_is_quarantined(beside: dict[str, Any]) -> None:
    page = page_from(orjson.dumps({**PAGE, **beside}), FhirBase("https://x"), where="page 1")
    assert ([one.id for one in page.records], len(page.quarantined)) == (["o1"], 1)


def test_an_empty_outcome_member_is_no_outcome() -> None:
    beside = {"issues": None, "entry": [{**PAGE["entry"][0], "response": {"status": "200", "outcome": None}}]}
    page = page_from(orjson.dumps({**PAGE, **beside}), FhirBase("https://x"), where="page 1")
    assert (page.issues, page.quarantined, page.doubtful) == ([], [], False)


def test_an_outcome_with_an_empty_list_has_no_issue() -> None:
    assert outcome_of(outcome()) == ((), 0)


@pytest.mark.parametrize(
    "stranger",
    [None, 7, "fatal: all is lost", ["x"], {**ERROR, "details": [None]}, {**ERROR, "details": {"coding": [None]}}],
)
def test_a_malformed_issue_or_code_costs_only_itself_and_is_counted(stranger: Any) -> None:
    read = outcome_of(outcome(ERROR, stranger))
    assert read.issues[0] == Issue("error", "exception", ())
    assert read.unread == 1


def test_free_text_is_not_interpreted() -> None:
    body = outcome(
        {**ERROR, "diagnostics": "Jane Doe", "details": {"text": "Jane Doe", "coding": [{"display": "Jane"}]}}
    )
    assert "Jane" not in repr(outcome_of(body))


def _lists_of_issues(value: Any) -> list[list[Any]]:
    """Every list or single object under `issue` anywhere in a value: the test's own way to find them."""
    if isinstance(value, list):
        return [found for item in value for found in _lists_of_issues(item)]
    if not isinstance(value, dict):
        return []
    own = value.get("issue")
    listed = [own] if isinstance(own, list) else [[own]] if isinstance(own, dict) else []
    return listed + [found for item in value.values() for found in _lists_of_issues(item)]


@given(JSON)
def test_any_json_is_a_readable_or_unreadable_outcome_and_only_an_empty_list_means_no_issues(
    value: Any,
) -> None:
    try:
        read = outcome_from(orjson.dumps(value))
    except UnreadableOutcomeError:
        return
    if not read.issues:
        assert [] in _lists_of_issues(value)
        assert not read.unread
    grave = [issue for issue in read.issues if issue.severity not in HARMLESS]
    issues = [item for listed in _lists_of_issues(value) for item in listed if isinstance(item, dict)]
    words = {str(item.get("severity")).strip().lower() for item in issues}
    assert grave or read.unread or words & HARMLESS or not read.issues


@given(JSON)
def test_any_json_in_place_of_an_outcome_is_read_or_quarantined_on_a_page_and_in_a_file(value: Any) -> None:
    entry = value if isinstance(value, dict) else {"resourceType": "OperationOutcome", "issue": value}
    entry = {**entry, "resourceType": "OperationOutcome"}
    body = orjson.dumps({"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": entry}]})
    page = page_from(body, FhirBase("https://x"), where="page 1")
    assert page.records == []
    assert page.issues or page.quarantined or page.doubtful or entry["issue"] == []
    reading = _error_file(orjson.dumps(value, option=orjson.OPT_INDENT_2))
    assert reading.issues or reading.quarantined or [] in _lists_of_issues(value)
    assert isinstance(issue_codes(orjson.dumps(entry)), tuple)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_an_outcome_or_unreadable(body: bytes) -> None:
    try:
        outcome = outcome_from(body)
    except UnreadableOutcomeError:
        return
    assert outcome.issues or outcome.unread or [] in _lists_of_issues(orjson.loads(body))


# -- error files


def _error_file(body: bytes, cut: int = 0) -> FileReading:
    unit = Unit(
        key="error-file:error:1:1",
        kind=UnitKind.ERROR_FILE,
        resource_type="*",
        page=1,
        template="error file 1",
        detail={"url": "x"},
    )
    reading = FileReading(unit, FhirBase("https://x"))
    reading.feed(body[:cut])
    reading.feed(body[cut:])
    reading.finish()
    return reading


PRETTY = orjson.dumps(outcome(ERROR), option=orjson.OPT_INDENT_2)
ONE_LINE = orjson.dumps(outcome({"severity": "warning", "code": "suppressed"}))


@pytest.mark.parametrize("cut", [0, 1, 20, 90])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_outcomes_in_an_error_file_may_span_many_lines(cut: int, newline: bytes) -> None:
    body = newline.join([ONE_LINE, PRETTY.replace(b"\n", newline), PRETTY.replace(b"\n", newline), ONE_LINE])
    reading = _error_file(body, cut)
    assert [issue.severity for issue in reading.issues] == ["warning", "error", "error", "warning"]
    assert (reading.quarantined, reading.unreadable, reading.last_line_unreadable) == ([], 0, False)


@pytest.mark.parametrize(
    "bad", [b"all is lost", b"{", PRETTY[:40], b'{"resourceType":"Patient","id":"p"}', b"\xff\xfe"]
)
def test_unreadable_parts_of_an_error_file_are_quarantined_and_the_rest_is_read(bad: bytes) -> None:
    reading = _error_file(b"\n".join([ONE_LINE, bad, ONE_LINE, PRETTY]))
    assert [issue.severity for issue in reading.issues] == ["warning", "warning", "error"]
    assert reading.unreadable == len(reading.quarantined) >= 1
    assert reading.quarantined[0].source == "error file 1, line 2"
    assert b"".join(item.raw for item in reading.quarantined).split() == bad.split()


@given(st.lists(st.sampled_from([ONE_LINE, PRETTY, b"x", b"{", b"", b"[1,\n2", b'"a"']), max_size=8))
def test_every_piece_of_an_error_file_is_an_issue_or_in_quarantine(pieces: list[bytes]) -> None:
    reading = _error_file(b"\n".join(pieces))
    whole = sum(piece in {ONE_LINE, PRETTY} for piece in pieces)
    kept = b"".join(item.raw for item in reading.quarantined)
    assert len(reading.issues) + kept.count(b'"issue"') == whole
    assert bool(kept) == any(piece not in {ONE_LINE, PRETTY, b""} for piece in pieces)
