"""Pages of Bulk Publish manifests: anybody's is read or refused by name, ours read back equal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.errors import DatasetError
from exports.publishing.manifest_page import (
    INCREMENT,
    FileEntry,
    Moment,
    Page,
    dataset_members,
    erasures_of,
    read_page,
    request_of,
)

MOMENT = Moment(7, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
MEMBERS = dataset_members(MOMENT, version="1", connection="site", request="abc", erasures=2)
WHOLE = json.loads(Page(MEMBERS, next="#pending").content())
names = st.text(min_size=1, max_size=8)
own = st.builds(lambda run: (Moment(run, MOMENT.as_of).extension(INCREMENT),), st.integers(1, 9))
entries = st.lists(
    st.builds(FileEntry, names, st.integers(0, 9) | st.none(), names, own | st.just(())), max_size=3
).map(tuple)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WHOLE, "url", "relation"]), inner),
    max_leaves=8,
)


@given(entries, entries, st.sampled_from([None, "#pending", "#closed", "page-2.json"]))
def test_a_page_reads_back_as_it_was_written(
    output: tuple[FileEntry, ...], deleted: tuple[FileEntry, ...], following: str | None
) -> None:
    page = Page(MEMBERS, output, deleted, (), following)
    again = read_page(page.content(), "page")
    assert again == page
    assert again.content() == page.content()
    assert (request_of(again), erasures_of(again)) == ("abc", 2)
    counts = [entry.extension[0]["extension"][0]["valuePositiveInt"] for entry in output + deleted if entry.extension]
    assert again.moment == Moment(counts[0] if counts else 7, MOMENT.as_of)


@given(st.sampled_from([*WHOLE]), junk)
def test_any_json_in_any_member_is_read_or_refused_by_name(member: str, value: Any) -> None:
    content = json.dumps({**WHOLE, member: value}).encode()
    refused = None
    try:
        page = read_page(content, "page")
    except DatasetError as error:
        refused = str(error)
    assert refused.startswith("page") if refused is not None else request_of(page) in {"abc", None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transactionTime": "yesterday"}, "transactionTime"),
        ({"transactionTime": "2026-13-01T00:00:00Z"}, "transactionTime"),
        ({"requiresAccessToken": "no"}, "requiresAccessToken"),
        ({"output": [{"url": "x"}]}, "no type"),
        ({"deleted": [{}]}, "no url"),
        ({"output": [{"type": "Patient", "url": "x", "count": -1}]}, "count"),
        ({"link": [{"relation": "next", "url": "a"}, {"relation": "next", "url": "b"}]}, "at most one next"),
    ],
)
def test_everything_that_the_guide_forbids_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_page(json.dumps({**WHOLE, **change}).encode(), "page")
