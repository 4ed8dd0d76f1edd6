"""The mutants fit the product as it is now; what notices them, `python -m tests.histories.mutants` plays."""

from __future__ import annotations

from tests.histories.director import untwisted
from tests.histories.mutants import MUTANTS, ROOT
from tests.histories.twists import forced


def test_the_text_that_a_mutant_replaces_stands_once_in_the_product() -> None:
    edits = [(name, *edit) for name, one in MUTANTS.items() for edit in one.edits]
    assert [name for name, path, old, _ in edits if (ROOT / path).read_text().count(old) != 1] == []


def test_every_mutant_has_a_twist_that_changes_histories() -> None:
    for twist in {one.twist for one in MUTANTS.values()}:
        assert any(forced(untwisted(seed), twist, seed) for seed in range(1, 30)), twist
