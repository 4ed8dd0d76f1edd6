"""Which of several records of one resource is kept, and when one counts as older."""

from __future__ import annotations

from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st

from snapshots.distinct import by_type, distinct
from snapshots.instants import is_older
from snapshots.record import Record
from snapshots.witness import Way, WayScope


def record(identity: str, last_updated: str | None, body: bytes = b"{}", version: str | None = None) -> Record:
    return Record("Observation", identity, None, version, last_updated, blake2b(body, digest_size=16).digest(), body)


def test_instants_compare_by_time_and_not_by_text():
    assert is_older("2024-01-01T00:30:00+01:00", "2024-01-01T00:00:00Z")
    assert not is_older("2024-01-01T00:00:00Z", "2024-01-01T00:30:00+01:00")


def test_a_value_that_is_no_instant_is_never_older():
    assert not is_older("soon", "2024-01-01T00:00:00Z")
    assert not is_older(None, "2024-01-01T00:00:00Z")
    assert not is_older("2024-01-01T00:00:00Z", None)


def test_a_date_without_zone_compares_with_an_instant():
    assert is_older("2023-12-31", "2024-01-01T00:00:00Z")


def test_a_resource_given_twice_keeps_its_newest_version():
    old, new = record("a", "2024-01-01T00:00:00Z", b"1"), record("a", "2024-01-02T00:00:00Z", b"2")
    assert distinct([old, new]).records == [new]
    assert distinct([new, old]).records == [new]


def test_without_dates_the_higher_version_number_is_newer():
    nine, ten = record("a", None, b"9", version="9"), record("a", None, b"10", version="10")
    assert distinct([nine, ten]).records == [ten]
    assert distinct([ten, nine]).records == [ten]


def test_two_contents_of_one_version_are_rivals_and_the_last_is_kept():
    first, last = record("a", None, b"1"), record("a", None, b"2")
    found = distinct([first, last])
    assert (found.records, found.rivals) == ([last], [first])


def test_a_resource_that_two_ways_list_in_one_batch_is_known_to_both():
    one, two = Way("search category=lab", WayScope.PATIENT), Way("search category=exam", WayScope.PATIENT)
    first, again = record("a", None)._replace(way=one), record("a", None)._replace(way=two)
    assert distinct([first, again]).again == [again]


def test_types_with_many_records_go_apart_and_the_others_together():
    many = [record(f"a{n}", None) for n in range(500)]
    one, other = record("p", None)._replace(resource_type="Patient"), record("d", None)._replace(resource_type="Device")
    assert by_type([one, *many, other]) == [many, [one, other]]
    assert by_type([one, other]) == [[one, other]]
    assert by_type(many) == [many]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 28)), max_size=30))
def test_every_resource_is_kept_once_with_its_latest_day(given_records: list[tuple[str, int]]):
    kept = distinct([record(one, f"2024-01-{day:02}T00:00:00Z", b"%d" % day) for one, day in given_records]).records
    latest = {identity: max(day for one, day in given_records if one == identity) for identity, _ in given_records}
    assert {one.id: int((one.last_updated or "")[8:10]) for one in kept} == latest


_VERSIONS = st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.sampled_from([b"x", b"y", b"z"]))


@given(given_versions=st.lists(_VERSIONS, max_size=12))
def test_a_batch_keeps_the_newest_version_and_loses_no_content(given_versions: list[tuple[str, int, bytes]]):
    records = [record(one, None, b"%d %s" % (version, body), str(version)) for one, version, body in given_versions]
    found = distinct(records)
    assert [one.id for one in found.records] == list(dict.fromkeys(one.id for one in records))
    for kept in found.records:
        of_one = [one for one in records if one.id == kept.id]
        newest = [one for one in of_one if one.version_id == max(each.version_id or "" for each in of_one)]
        assert kept == newest[-1]
        contents = {kept.content_hash} | {one.content_hash for one in found.rivals if one.id == kept.id}
        assert contents == {one.content_hash for one in newest}
