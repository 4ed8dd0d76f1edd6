"""The singular is used for one, and the plural for any other number."""

from __future__ import annotations

import pytest

from config.how_many import how_many


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (1203, "1,203 entries")]
)
def test_a_count_of_one_is_singular(number: int, expected: str):
    assert how_many(number, "entry", "entries") == expected


def test_most_plurals_add_an_s():
    assert (how_many(1, "row"), how_many(2, "row")) == ("1 row", "2 rows")
