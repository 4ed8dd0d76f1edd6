"""Stretches of ids: together they are all ids, each once, whatever was sampled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snapshots.stretches import SAMPLED_PERCENT, WHOLE, stretches

IDS = st.text(st.characters(max_codepoint=0x10FFFE, exclude_categories=["Cs"]), max_size=3)


@given(sampled=st.lists(IDS).map(sorted), rows=st.integers(1, 300), id_=IDS)
def test_each_id_is_in_one_stretch_and_stretches_are_in_order(sampled: list[str], rows: int, id_: str) -> None:
    found = stretches(sampled, rows)
    assert sum(one.from_id <= id_ < one.before_id for one in found) == 1
    assert found == sorted(found, key=lambda one: one.from_id)


def test_a_stretch_has_about_as_many_rows_as_are_asked_for() -> None:
    sampled = [f"{number:04}" for number in range(1000 * SAMPLED_PERCENT)]
    assert len(stretches(sampled, 10_000)) == 10


def test_what_nobody_sampled_is_one_stretch() -> None:
    assert stretches([], 2048) == [WHOLE]
