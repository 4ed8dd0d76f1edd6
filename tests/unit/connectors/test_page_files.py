"""Recognising the files of a manifest page that is requested again."""

from __future__ import annotations

import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.bulk.kick_off import Proofs
from connectors.fhir.bulk.manifest import manifest_from
from connectors.fhir.bulk.page_files import PageFiles
from connectors.fhir.errors import ProtocolError
from connectors.fhir.unit_details import FileDetail
from snapshots.unit import Unit, UnitKind


def listing(*urls: str, kind: str = "Observation") -> PageFiles:
    body = orjson.dumps({"output": [{"type": kind, "url": url} for url in urls]})
    return PageFiles(manifest_from(body, page=1, proofs=Proofs()))


def planned(position: int, url: str) -> Unit:
    detail = FileDetail(list="output", position=position, url=url).packed
    return Unit(key=str(position), kind=UnitKind.FILE, resource_type="Observation", page=1, detail=detail)


def test_files_with_one_path_are_distinguished_by_the_stable_part_of_their_queries() -> None:
    again = listing("https://x/f?id=2&sig=c", "https://x/f?id=1&sig=d")
    assert again.find(planned(1, "https://x/f?id=1&sig=a")).position == 2
    assert again.find(planned(2, "https://x/f?id=2&sig=b")).position == 1


def test_indistinguishable_files_keep_their_positions() -> None:
    again = listing("https://x/f?sig=c", "https://x/f?sig=d")
    assert [again.find(planned(n, f"https://x/f?sig={n}")).position for n in (2, 1)] == [2, 1]


def test_indistinguishable_files_that_have_moved_are_refused() -> None:
    body = [{"type": "Patient", "url": "p"}, *({"type": "Observation", "url": f"f?sig={n}"} for n in "ab")]
    again = PageFiles(manifest_from(orjson.dumps({"output": body}), page=1, proofs=Proofs()))
    with pytest.raises(ProtocolError, match="another order"):
        again.find(planned(1, "f?sig=x"))


def test_one_listed_file_never_matches_two_planned_ones() -> None:
    again = listing("https://x/f?sig=c")
    again.find(planned(1, "https://x/f?sig=a"))
    with pytest.raises(ProtocolError, match="one file where it listed several"):
        again.find(planned(2, "https://x/f?sig=b"))


def test_the_same_path_on_another_host_is_the_same_file() -> None:
    assert listing("https://cdn/a", "https://cdn/b").find(planned(1, "https://x/b?z=1")).position == 2


@given(st.lists(st.text("abcdef/", min_size=1), min_size=1, max_size=40, unique=True), st.integers())
def test_every_file_is_found_once_by_its_path_in_any_order(paths: list[str], seed: int) -> None:
    mixed = random.Random(seed).sample(paths, len(paths))
    again = listing(*(f"https://x/{path}?sig=2" for path in mixed))
    for position, path in enumerate(paths, start=1):
        assert again.find(planned(position, f"https://x/{path}?sig=1")).url == f"https://x/{path}?sig=2"
