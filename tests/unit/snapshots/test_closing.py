"""The status of a run, and which watermarks may move."""

from __future__ import annotations

import pytest

from snapshots.closing import movable, run_status, since_of


@pytest.mark.parametrize(
    ("settled", "failed", "quarantined", "status"),
    [
        (0, 0, 0, "nothing"),
        (3, 0, 0, "complete"),
        (3, 1, 0, "partial"),
        (3, 0, 1, "partial"),
        (0, 2, 0, "failed"),
        (0, 0, 1, "failed"),
    ],
)
def test_only_a_run_without_hole_and_quarantine_is_complete(settled: int, failed: int, quarantined: int, status: str):
    assert run_status(settled=settled, failed=failed, quarantined=quarantined) == status


def test_an_instant_for_all_types_holds_for_each():
    assert since_of({"*": "2024-01-01"}, "Condition") == "2024-01-01"
    assert since_of({"Observation": "2024-01-01"}, "Condition") is None


def test_a_watermark_does_not_jump_over_a_gap():
    assert movable(None, None)
    assert movable("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z")
    assert movable("2023-01-01T00:00:00Z", "2024-01-01T00:00:00Z")
    assert not movable("2024-06-01T00:00:00Z", "2024-01-01T00:00:00Z")
    assert not movable("2024-06-01T00:00:00Z", None)
