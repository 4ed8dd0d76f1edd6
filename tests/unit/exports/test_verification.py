"""What is found in a published dataset that cannot be followed: links that are no URLs, pages that are none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from exports.delivery.manifest import BULK_PUBLISH
from exports.errors import DatasetError
from exports.publishing.dataset_state import read_state
from exports.publishing.verification import verify

ROOT = "https://data.example.org/charts/manifest.json"
NO_URL = "http://[charts"


def page(**members: Any) -> dict[str, Any]:
    return {
        "manifestType": BULK_PUBLISH,
        "transactionTime": "2026-01-01T00:00:00Z",
        "requiresAccessToken": False,
        "output": [],
        **members,
    }


def reading(files: dict[str, bytes]) -> Callable[[str], Iterator[bytes]]:
    def read(url: str) -> Iterator[bytes]:
        if url not in files:
            raise FileNotFoundError
        yield files[url]

    return read


def of(root: dict[str, Any]) -> Callable[[str], Iterator[bytes]]:
    return reading({ROOT: json.dumps(root).encode()})


def test_a_link_that_is_no_url_costs_itself() -> None:
    files = [{"type": "Patient", "url": NO_URL}, {"type": "Condition", "url": "gone.ndjson"}]
    found = verify(ROOT, of(page(output=files)))
    assert found.files == 2
    assert found.problems == [
        "[charts: a page refers to something that is no URL",
        "gone.ndjson: there is no such file",
    ]


def test_a_chain_that_goes_on_at_no_url_ends_there() -> None:
    root = page(link=[{"relation": "next", "url": NO_URL}])
    assert verify(ROOT, of(root)).problems == ["manifest.json: a page refers to something that is no URL"]
    with pytest.raises(DatasetError, match="a page refers to something that is no URL"):
        read_state(ROOT, of(root))


@pytest.mark.parametrize("look", [verify, read_state])
def test_a_place_without_a_dataset_is_named_with_what_to_name(look: Callable[..., Any]) -> None:
    with pytest.raises(
        DatasetError, match=r"no manifest at .*; name the folder of a published dataset, or the URL of its"
    ):
        look(ROOT, reading({}))
    with pytest.raises(DatasetError, match=r"https://data.example.org/ is not JSON, so it is no page"):
        look("https://data.example.org/", reading({"https://data.example.org/": b"<html>"}))
