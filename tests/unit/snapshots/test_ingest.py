"""Which of several records of one resource is kept, and when one counts as older."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snapshots.ingest import is_older, newest
from snapshots.record import Record


def record(identity: str, last_updated: str | None, body: bytes = b"{}") -> Record:
    return Record("Observation", identity, None, None, last_updated, bytes(16), body)


def test_instants_compare_by_time_and_not_by_text():
    assert is_older("2024-01-01T00:30:00+01:00", "2024-01-01T00:00:00Z")
    assert not is_older("2024-01-01T00:00:00Z", "2024-01-01T00:30:00+01:00")


def test_what_is_no_instant_is_never_older():
    assert not is_older("soon", "2024-01-01T00:00:00Z")
    assert not is_older(None, "2024-01-01T00:00:00Z")
    assert not is_older("2024-01-01T00:00:00Z", None)


def test_a_date_without_zone_compares_with_an_instant():
    assert is_older("2023-12-31", "2024-01-01T00:00:00Z")


def test_of_a_resource_given_twice_the_newest_is_kept():
    old, new = record("a", "2024-01-01T00:00:00Z"), record("a", "2024-01-02T00:00:00Z")
    assert newest([old, new]) == [new]
    assert newest([new, old]) == [new]


def test_without_last_updated_the_last_given_is_kept():
    first, last = record("a", None, b"1"), record("a", None, b"2")
    assert newest([first, last]) == [last]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 28)), max_size=30))
def test_every_resource_is_kept_once_with_its_latest_day(given_records: list[tuple[str, int]]):
    kept = newest([record(identity, f"2024-01-{day:02}T00:00:00Z") for identity, day in given_records])
    latest = {identity: max(day for one, day in given_records if one == identity) for identity, _ in given_records}
    assert {one.id: int((one.last_updated or "")[8:10]) for one in kept} == latest
