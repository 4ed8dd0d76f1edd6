"""Stretches of ids: together they are all ids, each once, wherever they are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snapshots.stretches import WHOLE, stretches

IDS = st.text(st.characters(max_codepoint=0x10FFFE, exclude_categories=["Cs"]), max_size=3)


@given(cuts=st.lists(IDS), id_=IDS)
def test_each_id_is_in_exactly_one_stretch_and_stretches_are_in_order(cuts: list[str], id_: str) -> None:
    found = stretches(cuts)
    assert sum(one.from_id <= id_ < one.before_id for one in found) == 1
    assert found == sorted(found, key=lambda one: one.from_id)


def test_without_cuts_there_is_one_stretch() -> None:
    assert stretches([]) == [WHOLE]
