"""Which page comes next: in every spelling of the relation, and never silently none."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.bulk.kick_off import Proofs
from connectors.fhir.bulk.manifest import manifest_from
from connectors.fhir.page_links import Links, links_from, next_beside, next_from_header
from connectors.fhir.records import page_from
from connectors.fhir.transport.fhir_base import FhirBase

URL = "https://ehr.example.org/r4?page=2"
IANA = "www.iana.org/assignments"


def links(*items: Any) -> Links:
    return links_from(orjson.dumps(list(items)))


@pytest.mark.parametrize(
    "relation",
    ["next", "Next", "NEXT", " next ", "next last", f"http://{IANA}/relation/next", f"https://{IANA}/relation/next",
     "nextPage", "next-page", "urn:ietf:rfc:5988#next", "https://hl7.org/fhir/link-relation/next",
     f"https://{IANA}/relation#next", f"https://{IANA}/link-relations/link-relations.xhtml#next", f"HTTP://{IANA}/relation/Next"],
)  # fmt: skip
def test_the_next_link_is_found_however_its_relation_is_spelt(relation: str) -> None:
    assert links({"relation": "self", "url": "x"}, {"relation": relation, "url": URL}) == (URL, False)


@pytest.mark.parametrize(
    "relation", ["self", "first", "last", "prev", "Previous", "fhir-base", "alternate", f"http://{IANA}/relation/self"]
)
def test_links_known_to_lead_elsewhere_are_ignored(relation: str) -> None:
    assert links({"relation": relation, "url": "x"}) == (None, False)


@pytest.mark.parametrize(
    "stranger",
    [None, 7, "next", [], {}, {"relation": "more", "url": URL}, {"relation": "https://x.example/next/stats", "url": URL},
     {"relation": []}, {"relation": ""}],
)  # fmt: skip
def test_an_unintelligible_link_leaves_a_doubt_and_costs_only_itself(stranger: Any) -> None:
    assert links(stranger) == (None, True)
    assert links(stranger, {"relation": "next", "url": URL}) == (URL, True)


@pytest.mark.parametrize(
    "stranger",
    [{"url": URL}, {"relation": None, "url": URL}, {"rel": 7, "href": URL}, {"relation": [7], "url": URL},
     {"relation": {"value": "next"}, "url": URL}, {"relation": "", "href": {"value": URL}}, URL, f" {URL} "],
)  # fmt: skip
def test_an_address_without_a_relation_may_be_the_next_page(stranger: Any) -> None:
    assert links(stranger) == links({"relation": "self", "url": "x"}, stranger) == ("", True)
    assert links(stranger, {"relation": "next", "url": URL}) == (URL, True)


def test_a_list_written_as_an_object_with_numeric_keys_is_read_as_a_list() -> None:
    for last in ({"relation": "next", "url": URL}, {"rel": "next", "href": URL}, {"next": URL}):
        assert links_from(orjson.dumps({"0": {"relation": "self", "url": "x"}, "1": last})).next_url == URL


@pytest.mark.parametrize(
    "link", [{"rel": "next", "href": URL}, {"relation": ["next"], "url": URL}, {"rel": "Next", "url": URL}]
)
def test_a_next_link_with_a_synonymous_relation_is_followed(link: Any) -> None:
    assert links(link) == (URL, False)
    assert links({key: value for key, value in link.items() if key in {"rel", "relation"}}).next_url == ""


@pytest.mark.parametrize("raw", [b'"next"', b"7", b"true", b"{", b"[{]", b"{}x"])
def test_unreadable_links_may_hold_a_next_page(raw: bytes) -> None:
    assert links_from(raw) == ("", True)


@pytest.mark.parametrize("url", [None, 7, "", " ", {"x": 1}])
def test_a_next_link_without_a_usable_url_is_no_end(url: Any) -> None:
    assert links({"relation": "next", "url": url}).next_url == ""
    assert links({"relation": "next", "url": url}, {"relation": "Next", "url": URL}).next_url == URL


def test_two_different_next_links_leave_a_doubt() -> None:
    assert links({"relation": "next", "url": URL}, {"relation": "next", "url": URL}) == (URL, False)
    assert links({"relation": "next", "url": URL}, {"relation": "next", "url": URL + "3"}) == (URL, True)


def test_a_single_link_in_place_of_a_list_is_read() -> None:
    assert links_from(orjson.dumps({"relation": "next", "url": URL})) == (URL, False)
    assert links_from(b"") == links_from(b"null") == links_from(b"[]") == (None, False)


@pytest.mark.parametrize(
    "value",
    [{"self": "x", "next": URL}, {"Next": {"href": URL}}, {"next": {"url": URL}}, [{"self": "x"}, {"next": URL}]],
)
def test_a_next_link_whose_relation_is_a_key_is_followed(value: Any) -> None:
    raw = orjson.dumps(value)
    assert links_from(raw) == links_from(b"", raw) == links_from(b"[]", raw) == (URL, False)


@pytest.mark.parametrize("value", [{"next": None}, {"next": 7}, {"next": {}}, {"next": [URL]}, {"next": " "}])
def test_a_next_key_without_a_usable_url_is_no_end(value: Any) -> None:
    assert links_from(orjson.dumps(value)).next_url == ""


def test_keys_known_to_lead_elsewhere_are_ignored_and_others_leave_a_doubt() -> None:
    assert links_from(orjson.dumps({"self": "x", "prev": None})) == (None, False)
    assert links_from(orjson.dumps({"self": "x", "more": URL})) == (None, True)
    assert links_from(orjson.dumps({"more": {"relation": "self", "url": URL}})) == (None, True)


@pytest.mark.parametrize(
    "value",
    [
        f'<{URL}>; rel="next"',
        f"<{URL}>;rel=next",
        f'<{URL}>; title="a, b"; REL="last Next"',
        f'<x?a=1,2>; rel="self", <{URL}>; rel="next"; title="x"',
        f'<{URL}>; rel="http://{IANA}/relation/next"',
    ],
)
def test_a_next_link_in_the_header_is_found(value: str) -> None:
    assert next_from_header(value) == URL


@pytest.mark.parametrize("value", [None, "", "next", f'<{URL}>; rel="self"', f'<{URL}>; title="rel=next"', f"<{URL}>"])
def test_a_header_that_names_no_next_page_names_none(value: str | None) -> None:
    assert next_from_header(value) is None


def next_of(**members: Any) -> set[tuple[str | None, bool]]:
    """What a manifest and a Bundle with these members say of the next page."""
    manifest = manifest_from(orjson.dumps({"output": [], **members}), page=1, proofs=Proofs())
    bundle = orjson.dumps({"resourceType": "Bundle", "entry": [], **members})
    page = page_from(bundle, FhirBase("https://x"), where="page 1")
    return {(manifest.next_url, manifest.doubtful), (page.next_url, page.doubtful)}


@pytest.mark.parametrize(
    "members",
    [{"hasMore": True}, {"has_more": "true"}, {"moreAvailable": True}, {"truncated": True}, {"hasNext": True}, {"next": 2},
     {"nextPageToken": "x"}, {"HASMORE": "True"}, {"hasMore": 1}, {"nextPageAt": 100}, {"runNextPage": "x"},
     {"hasMore": True, "link": [{"relation": "self", "url": "x"}]}],
)  # fmt: skip
def test_a_flag_or_token_that_announces_more_pages_is_no_end(members: dict[str, Any]) -> None:
    assert next_of(**members) == {("", False)}


@pytest.mark.parametrize(
    "members",
    [{"hasMore": False}, {"noMore": True}, {"allowPartialManifests": True}, {"hasNext": "false"},
     {"nextPageToken": None}, {"nextPage": "0"}, {"partial": 0},
     {"nextPollAt": "2026-01-01T00:00:00Z"}, {"nextPollAt": 120}, {"nextRun": "tomorrow"}, {"next_export_at": 1790000000}],
)  # fmt: skip
def test_flags_that_are_false_and_names_of_times_are_no_next_page(members: dict[str, Any]) -> None:
    assert next_of(**members) == {(None, False)}


def test_an_unreadable_value_under_a_time_name_may_be_a_next_page() -> None:
    assert next_beside({"nextPollAt": b'"\xff"'}) == ""
    assert next_beside({"nextPollAt": b'"\xff"', "next": f'"{URL}"'.encode()}) == URL


def test_a_flag_beside_the_next_page_adds_nothing() -> None:
    assert next_of(hasNext=True, link=[{"relation": "next", "url": URL}]) == {(URL, False)}
    assert (
        manifest_from(orjson.dumps({"output": [], "hasMore": True, "next": URL}), page=1, proofs=Proofs()).next_url
        == URL
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.sampled_from(["next", "Self", URL]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["relation", "url", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def _is_self(value: Any) -> bool:
    words = value if isinstance(value, list) else [value]
    return all(isinstance(one, str) for one in words) and set(" ".join(words).lower().split()) == {"self"}


@given(JSON)
def test_any_json_as_links_ends_a_listing_only_if_all_are_known_to_lead_elsewhere(value: Any) -> None:
    raw = orjson.dumps(value)
    found = links_from(raw)
    known = [{"relation": one.get("relation")} if isinstance(one, dict) else one for one in (
        value if isinstance(value, list) else [] if value is None else [value]
    )]  # fmt: skip
    elsewhere = all(isinstance(one, dict) and _is_self(one["relation"]) for one in known)
    assert (found == Links(None, doubtful=False)) == elsewhere
    page = page_from(orjson.dumps({"resourceType": "Bundle", "link": value}), FhirBase("https://x"), where="page 1")
    manifest = manifest_from(orjson.dumps({"output": [], "link": value}), page=1, proofs=Proofs())
    assert (page.next_url, page.doubtful) == (manifest.next_url, manifest.doubtful) == found
    assert bool(list(manifest.doubts())) == (found.doubtful or found.next_url == "")
