"""The status of a run, and which watermarks may move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.closing import Earned, movable, reached, remark_notes, run_status, since_of
from snapshots.fates import is_mass

EARNED = "2026-06-01T00:00:00Z"
days = st.integers(0, 2_000).map(lambda day: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=day, seconds=7 * day))


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
def test_only_a_run_without_holes_or_quarantine_is_complete(settled: int, failed: int, quarantined: int, status: str):
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


def test_an_incremental_run_without_changes_is_complete():
    assert run_status(settled=0, failed=0, quarantined=0, news=True) == "complete"
    assert run_status(settled=0, failed=2, quarantined=0, refused=2, news=True) == "partial"
    assert run_status(settled=0, failed=2, quarantined=0, refused=1, news=True) == "failed"
    assert run_status(settled=0, failed=2, quarantined=0, refused=2) == "failed"


@given(st.lists(days), st.integers(0, 172_800))
def test_a_watermark_goes_no_further_than_the_newest_date_less_the_overlap(dates: list[datetime], overlap: int):
    earned = Earned(watermark="2030-01-01T00:00:00Z", overlap=timedelta(seconds=overlap))
    found = reached(earned, None, [date.isoformat() for date in dates])
    if not dates:
        assert found == earned.watermark
    else:
        assert datetime.fromisoformat(found) == max(dates) - earned.overlap


def test_an_incremental_run_without_changes_keeps_the_watermark():
    earned = Earned(watermark=EARNED, overlap=timedelta(0))
    assert reached(earned, "2026-05-01T00:00:00Z", None) == "2026-05-01T00:00:00Z"
    assert reached(earned, "2026-05-01T00:00:00Z", ["2026-04-01T00:00:00+00:00"]) == "2026-05-01T00:00:00Z"


def test_resource_dates_do_not_limit_the_watermark_of_an_export():
    assert reached(Earned(watermark=EARNED), None, ["2020-01-01T00:00:00+00:00"]) == EARNED


@pytest.mark.parametrize(
    ("gone", "there", "mass"), [(19, 19, False), (20, 41, False), (20, 40, True), (500, 700, True)]
)
def test_twenty_rows_that_are_half_of_all_rows_are_a_mass(gone: int, there: int, mass: bool):
    assert is_mass(gone, there) is mass


def test_one_remark_of_many_types_is_a_single_note_that_names_them_all():
    refused = [(kind, "not served here", 2) for kind in ("Account", "Basic", "Claim", "Flag")]
    remarks = [*refused, ("*", "listed whole", 1), ("Claim", "odd", 3), ("Flag", "odd", 1)]
    assert remark_notes(remarks) == [
        "Account, Basic, Claim, Flag: not served here (8 x)",
        "Claim: odd (3 x)",
        "Flag: odd (1 x)",
        "listed whole (1 x)",
    ]
