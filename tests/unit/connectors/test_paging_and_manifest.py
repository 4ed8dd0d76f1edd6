"""Finding the next page, reading a manifest, and reading a cohort file."""

from __future__ import annotations

import tracemalloc

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.bulk.file_verdicts import FileVerdicts
from connectors.fhir.bulk.kick_off import Proofs
from connectors.fhir.bulk.manifest import looks_like_manifest, manifest_from
from connectors.fhir.cohort.cohort_file import parse_cohort
from connectors.fhir.errors import ProtocolError, UnsafeLinkError
from connectors.fhir.search.paging import LoopGuard, Totals, follow
from connectors.fhir.transport.fhir_base import FhirBase
from snapshots.unit import Ending, UnitResult, UnitState

BASE = "https://ehr.example.org/api/FHIR/R4"


@pytest.mark.parametrize(
    ("link", "url"),
    [
        (
            f"{BASE}/Observation?-pageContext=a%2Bb%3D&-pageDirection=NEXT",
            f"{BASE}/Observation?-pageContext=a%2Bb%3D&-pageDirection=NEXT",
        ),
        ("?page=2", f"{BASE}/Observation?page=2"),
        ("Observation?page=2", f"{BASE}/Observation?page=2"),
        ("/api/FHIR/R4/Observation?page=2", f"{BASE}/Observation?page=2"),
        ("http://ehr.example.org/api/FHIR/R4?x=1", "https://ehr.example.org/api/FHIR/R4?x=1"),
    ],
)
def test_a_next_link_is_followed_byte_for_byte_and_never_below_tls(link: str, url: str) -> None:
    assert follow(FhirBase(BASE), f"{BASE}/Observation?patient=1", link) == url


@pytest.mark.parametrize(
    "link",
    ["https://evil.example.net/R4?x", "https://ehr.example.org:8443/R4", "https://ehr.example.org@evil.example.net/", "ftp://ehr.example.org/",
     "//evil.example.net/x", "https://ehr.example.org.evil.example.net/", "//[ehr.example.org/x"],
)  # fmt: skip
def test_a_next_link_to_another_origin_is_refused(link: str) -> None:
    with pytest.raises(UnsafeLinkError):
        follow(FhirBase(BASE), f"{BASE}/Observation", link)


def test_an_empty_next_link_is_no_end() -> None:
    with pytest.raises(ProtocolError, match="empty"):
        follow(FhirBase(BASE), f"{BASE}/Observation", "")


def test_a_circle_of_next_links_ends_with_an_error() -> None:
    guard = LoopGuard(max_pages=10)
    guard.check("a")
    guard.check("b")
    with pytest.raises(ProtocolError, match="loop"):
        guard.check("a")


def test_endless_pages_end_with_an_error() -> None:
    guard = LoopGuard(max_pages=2)
    guard.check("a")
    guard.check("b")
    with pytest.raises(ProtocolError, match="max_pages"):
        guard.check("c")


def test_pages_that_repeat_themselves_under_new_links_end_with_an_error() -> None:
    guard = LoopGuard(max_pages=1_000_000)
    guard.look(["a"])
    for _ in range(3):
        guard.look(["b", "c"])
    with pytest.raises(ProtocolError, match="the same resources"):
        guard.look(["b", "c"])


def test_a_few_empty_pages_are_allowed_and_endless_ones_are_not() -> None:
    guard = LoopGuard(max_pages=1_000_000)
    for _ in range(3):
        for _ in range(900):
            guard.look([])
        guard.look(["a"])
    for _ in range(1_000):
        guard.look([])
    with pytest.raises(ProtocolError, match="nothing"):
        guard.look([])


def totals(*pages: tuple[int | None, int]) -> Totals:
    found, number = Totals(), 0
    for total, came in pages:
        found.see(total, [("Observation", str(number + n)) for n in range(came)])
        number += came
    return found


def test_matches_that_a_server_announces_but_does_not_link_to_are_missing() -> None:
    assert totals((25, 10)).missing == 15
    assert [totals(*pages).missing for pages in ([(10, 10)], [(None, 10)], [(0, 0)], [(5, 10)])] == [0, 0, 0, 0]
    assert totals((25, 10), (25, 10)).missing == 5, "the last page lost its `next`"
    assert totals((25, 10), (None, 10)).missing == 5
    assert totals((25, 10), (24, 10)).missing == 0, "a total that changes is no promise"
    assert totals((10, 10), (10, 10), (8, 8)).missing == 0, "Epic's is the page's own"


def test_a_resource_that_arrives_twice_counts_once() -> None:
    found = Totals()
    for ids in ("ab", "bc"):
        found.see(4, [("Observation", one) for one in ids])
    assert found.missing == 1


def test_a_total_that_changes_between_pages_says_that_rows_may_have_slipped_through() -> None:
    assert totals((120, 100), (119, 19)).shifted
    assert totals((110, 100), (10, 0)).shifted, "what came first is gone: the last ten moved to where the first were"
    assert totals((110, 100), (0, 0)).shifted
    assert not totals((120, 100), (120, 20)).shifted
    assert not totals((40, 40), (40, 40), (10, 10)).shifted, "a page's own number, as Epic's, tells nothing"


def test_a_page_may_count_its_outcome_among_its_own_entries() -> None:
    found = Totals()
    found.see(41, [("Observation", str(n)) for n in range(40)], issues=1)
    found.see(11, [("Observation", str(n)) for n in range(40, 50)], issues=1)
    assert (found.shifted, found.missing) == (False, 0)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (3, 3),
        ("3", 3),
        ("0", 0),
        (None, None),
        (True, None),
        (-1, None),
        ("many", None),
        (2.5, None),
        (2.0, 2),
        ("2.0", 2),
    ],
)
def test_a_count_may_be_written_as_a_string(value: object, count: int | None) -> None:
    body = orjson.dumps({"output": [{"type": "Patient", "url": "u1", "count": value}]})
    (unit,) = manifest_from(body, page=1, proofs=Proofs()).units()
    assert unit.detail.get("count") == count


@pytest.mark.parametrize(
    ("value", "doubted"),
    [
        ("1,006", True),
        ("many", True),
        (-17, True),
        (-1, False),
        ("-1", False),
        (2.5, True),
        ([6], True),
        ("6", False),
        ("", False),
        (None, False),
    ],
)
def test_an_unreadable_count_leaves_a_doubt(value: object, doubted: bool) -> None:
    listed = {"output": [{"type": "Patient", "url": "u1", "count": value}]}
    assert [unit.resource_type for unit in manifest_from(orjson.dumps(listed), page=1, proofs=Proofs()).doubts()] == (
        ["*"] if doubted else []
    )
    of_errors = {"output": [], "error": [{"type": "OperationOutcome", "url": "u1", "count": value}]}
    assert not list(manifest_from(orjson.dumps(of_errors), page=1, proofs=Proofs()).doubts())


def test_a_manifest_becomes_units_in_the_order_they_must_be_applied() -> None:
    body = orjson.dumps(
        {
            "transactionTime": "2024-01-01T00:00:00Z",
            "requiresAccessToken": "true",
            "error": [{"type": "OperationOutcome", "url": "e1"}],
            "deleted": [{"type": "Bundle", "url": "d1"}],
            "output": [{"type": "Patient", "url": "u1", "count": 3}, {"url": "u2"}],
            "link": [{"relation": "next", "url": "m2"}],
        }
    )
    manifest = manifest_from(body, page=1, proofs=Proofs())
    assert [(u.kind, u.resource_type, u.detail["url"], u.detail.get("count")) for u in manifest.units()] == [
        ("file", "Patient", "u1", 3),
        ("file", "*", "u2", None),
        ("deleted-file", "Bundle", "d1", None),
        ("error-file", "OperationOutcome", "e1", None),
    ]
    assert (manifest.transaction_time, manifest.next_url) == ("2024-01-01T00:00:00Z", "m2")
    assert {u.detail.get("requires_token") for u in manifest.units()} == {True}


@pytest.mark.parametrize(
    ("written", "read"), [("true", True), ("false", False), (True, True), (False, False), (None, None)]
)
def test_requires_access_token_is_read_as_boolean_or_string(written: object, read: bool | None) -> None:
    document = {
        "output": [{"type": "Patient", "url": "u"}],
        **({} if written is None else {"requiresAccessToken": written}),
    }
    assert (
        manifest_from(orjson.dumps(document), page=1, proofs=Proofs()).units().__next__().detail.get("requires_token")
        is read
    )


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"{}", b"[]", b'{"output":{}}', b'{"output":"none","request":"x"}', b'{"output":null,"extension":{}}',
     b'{"resourceType":"OperationOutcome","issue":[],"request":"x"}'],
)  # fmt: skip
def test_an_unreadable_manifest_is_an_error_and_not_an_empty_export(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        manifest_from(body, page=1, proofs=Proofs())


@pytest.mark.parametrize("name", ["output", "deleted", "x"])
def test_a_manifest_of_millions_of_empty_entries_is_refused_before_it_becomes_objects(name: str) -> None:
    body = b'{"output":[],"%s":[' % name.encode() + b"{}," * 2_100_000 + b"{}]}"
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="too large"):
            manifest_from(body, page=1, proofs=Proofs())
        looks_like_manifest(body)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(body)
    finally:
        tracemalloc.stop()


def test_other_content_of_manifest_entries_is_not_parsed() -> None:
    body = b'{"output":[{"url":"u","type":[' + b"[]," * 300_000 + b'[]],"count":{"a":1}}],"link":[{"relation":[1]}]}'
    (unit,) = manifest_from(body, page=1, proofs=Proofs()).units()
    assert (unit.resource_type, unit.detail.get("count")) == ("*", None)


@pytest.mark.parametrize("value", ["Smith^John MRN 12345\x1b[2J\nhole", "Obs[/red]", "", "obs", 7])
def test_a_type_with_an_invalid_name_is_unknown_and_never_shown(value: object) -> None:
    (unit,) = manifest_from(orjson.dumps({"output": [{"type": value, "url": "u"}]}), page=1, proofs=Proofs()).units()
    assert unit.resource_type == "*"


@pytest.mark.parametrize("value", ["Observation", "observation", " OBSERVATION "])
def test_a_type_is_known_in_any_case_and_with_blanks_around_it(value: str) -> None:
    (unit,) = manifest_from(orjson.dumps({"output": [{"type": value, "url": "u"}]}), page=1, proofs=Proofs()).units()
    assert unit.resource_type == "Observation"


NOTHING = {"transactionTime": "2026-01-01T00:00:00Z", "request": "r", "requiresAccessToken": False}


@pytest.mark.parametrize(
    "listed",
    [{}, {"output": None}, {"output": []}, {"output": {}}, {"output": [{"type": "Patient", "url": None, "count": 0}]},
     {"output": {"url": None, "count": "0"}}],
)  # fmt: skip
def test_a_manifest_without_files_is_an_export_of_nothing_and_leaves_no_doubt(listed: dict) -> None:
    manifest = manifest_from(orjson.dumps({**NOTHING, **listed}), page=1, proofs=Proofs())
    assert (list(manifest.units()), list(manifest.doubts())) == ([], [])


@pytest.mark.parametrize("listed", ["output", "deleted", "error", "outcome"])
@pytest.mark.parametrize(
    "entry", [{"type": "Patient"}, {"url": None}, {"url": 7, "count": 2}, {"url": "", "count": "many"}, "u1", 7, [], {}]
)
def test_an_entry_without_a_url_is_a_hole_and_its_neighbours_are_files(listed: str, entry: object) -> None:
    body = orjson.dumps({"output": [], **NOTHING, listed: [{"url": "u0"}, entry, {"url": "u2", "count": 0}]})
    manifest = manifest_from(body, page=1, proofs=Proofs())
    assert [unit.detail["url"] for unit in manifest.units()] == ["u0", "", "u2"]
    assert list(manifest.doubts()) == []


@pytest.mark.parametrize("listed", ["output", "deleted", "error", "outcome"])
def test_a_null_among_a_manifests_files_costs_itself_and_leaves_a_doubt(listed: str) -> None:
    body = orjson.dumps({"output": [], **NOTHING, listed: [None, {"url": "u1"}]})
    manifest = manifest_from(body, page=3, proofs=Proofs())
    assert [unit.detail["url"] for unit in manifest.units()] == ["u1"]
    (doubt,) = manifest.doubts()
    assert (doubt.kind, doubt.resource_type, doubt.detail["more"]) == ("error-file", "*", False)
    assert "page 3" in doubt.detail["doubt"]


ISSUE = {"severity": "error", "code": "exception"}
OUTCOME = {"resourceType": "OperationOutcome", "issue": [ISSUE]}


def judged(beside: dict) -> UnitResult | None:
    """How the doubt that these members of a manifest leave ends; None: they leave none."""
    doubts = list(manifest_from(orjson.dumps({**NOTHING, "output": [], **beside}), page=1, proofs=Proofs()).doubts())
    return FileVerdicts({"4119": "incomplete"}).of_manifest(doubts[0]) if doubts else None


@pytest.mark.parametrize("name", ["errors", "issues", "issue"])
@pytest.mark.parametrize(
    "value",
    [[OUTCOME], OUTCOME, [ISSUE], ISSUE, {"resourceType": "Bundle", "entry": [{"resource": OUTCOME}]}, ["not exported"],
     "not exported", 3, [{"code": 7}], [{"resourceType": "OperationOutcome", "issue": "x"}]],
)  # fmt: skip
def test_a_manifest_that_reports_a_possible_failure_is_a_hole(name: str, value: object) -> None:
    result = judged({name: value})
    assert result is not None
    assert result.state is UnitState.FAILED
    assert "not exported" not in (result.reason or "").replace("what was not exported", "")


@pytest.mark.parametrize("value", [None, [], {}, "", 0, False, [None], {**OUTCOME, "issue": []}])
def test_a_manifest_with_an_empty_issue_member_leaves_no_doubt(value: object) -> None:
    assert judged({"errors": value, "issues": value}) is None


def test_issues_in_a_manifest_are_interpreted_by_the_vendors_profile() -> None:
    warning = {"severity": "warning", "code": "informational"}
    known = {"severity": "error", "code": "processing", "details": {"coding": [{"code": "4119"}]}}
    found = [judged({"issues": [{**OUTCOME, "issue": [one]}]}) for one in (warning, known)]
    assert [one and (one.state, one.ended, one.complete_listing) for one in found] == [
        (UnitState.SETTLED, Ending.LISTED, True),
        (UnitState.SETTLED, Ending.PARTIAL, False),
    ]
    other_name = judged({"operationOutcome": OUTCOME})
    assert other_name is not None
    assert other_name.state is UnitState.FAILED


@pytest.mark.parametrize(
    ("value", "url"),
    [(f"{BASE}/manifest?page=2", f"{BASE}/manifest?page=2"), ("2", ""), ("", ""), (True, ""), ({"page": 2}, ""), (None, None),
     (False, None)],
)  # fmt: skip
def test_a_next_manifest_page_named_without_a_link_is_read_or_a_hole(value: object, url: str | None) -> None:
    manifest = manifest_from(orjson.dumps({**NOTHING, "output": [], "next": value}), page=1, proofs=Proofs())
    assert manifest.next_url == url
    assert [one.detail["more"] for one in manifest.doubts()] == ([True] if url == "" else [])


def test_the_count_of_an_error_file_is_not_compared_with_its_lines() -> None:
    listed = [{"url": "u", "type": "OperationOutcome", "count": 9}]
    body = orjson.dumps({"output": [], "error": listed, "outcome": listed})
    assert [unit.detail.get("count") for unit in manifest_from(body, page=1, proofs=Proofs()).units()] == [None, None]


def test_an_empty_output_is_a_success() -> None:
    assert (
        manifest_from(b'{"transactionTime":"t","output":[],"error":[]}', page=1, proofs=Proofs()).entries["output"]
        == []
    )


def test_a_cohort_file_may_be_a_list_or_a_csv_with_heading_and_comments() -> None:
    text = '\ufeffpatient_id,note\r\n# ward 3\n\np1,x\nPatient/p2\np1\n"p,3",y\n'
    assert tuple(parse_cohort(text)) == ("p1", "p2", "p,3")


@given(st.lists(st.from_regex(r"[A-Za-z0-9.-]{1,64}", fullmatch=True), min_size=1, unique=True))
def test_every_id_of_a_plain_list_is_read_once(ids: list[str]) -> None:
    assert set(parse_cohort("\n".join(["heading-none", *ids]))) == {"heading-none", *ids}
