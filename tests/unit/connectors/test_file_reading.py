"""How the lines of one file become records, quarantine and a place to go on from."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.bulk.file_reading import FileReading
from connectors.fhir.transport.fhir_base import FhirBase
from snapshots.unit import Unit

BASE = FhirBase("https://ehr.example.org/fhir")
GOOD = st.integers(0, 999).map(lambda n: orjson.dumps({"resourceType": "Goal", "id": f"g{n}"}))
OTHER = st.just(b'{"resourceType":"Patient","id":"p"}')
BAD = st.sampled_from([b"{", b"[]", b'{"resourceType":"Goal"}', b"\xff", b'{"id":"x"}', b"null"])
BLANK = st.sampled_from([b"", b"  ", b"\r"])
LINES = st.lists(st.one_of(GOOD, GOOD, OTHER, BAD, BLANK), max_size=30)


def unit(resource_type: str = "Goal", kind: str = "file", **detail: object) -> Unit:
    return Unit(
        key="file:output:1:1",
        kind=kind,
        resource_type=resource_type,
        page=1,
        template="output file 1",
        detail={"url": "x", **detail},
    )


def read(body: bytes, cuts: list[int], of: Unit | None = None) -> FileReading:
    reading = FileReading(of or unit(), BASE)
    bounds = [0, *sorted(cuts), len(body)]
    for start, end in itertools.pairwise(bounds):
        reading.feed(body[start:end])
    reading.finish()
    return reading


@given(LINES, st.data())
def test_every_line_is_a_record_or_quarantined_wherever_the_wire_cuts(lines: list[bytes], data: st.DataObject) -> None:
    body = b"\n".join(lines) + b"\n"
    reading = read(body, data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    filled = [line.strip() for line in lines if line.strip()]
    bad = [
        line for line in filled if line in {b"{", b"[]", b'{"resourceType":"Goal"}', b"\xff", b'{"id":"x"}', b"null"}
    ]
    assert reading.lines == len(filled)
    assert [record.body for record in reading.records] == [line for line in filled if line not in bad]
    assert [item.raw for item in reading.quarantined] == bad
    assert reading.other_types.get("Patient", 0) == sum(b'"Patient"' in line for line in filled)
    assert reading.take() is not None or not filled


@given(st.lists(st.one_of(GOOD, BLANK), min_size=1, max_size=30), st.integers(0, 2000), st.integers(0, 2000))
def test_a_reading_resumed_at_its_place_misses_and_repeats_nothing(lines: list[bytes], first: int, second: int) -> None:
    body = b"\n".join(lines)
    cut = min(first, len(body))
    begun = FileReading(unit(), BASE)
    begun.feed(body[:cut])
    place = begun.place()
    assert place is not None
    assert place["bytes"] <= cut
    goes_on = FileReading.going_on(unit(), BASE, place)
    rest = body[place["bytes"] :]
    goes_on.feed(rest[: min(second, len(rest))])
    goes_on.feed(rest[min(second, len(rest)) :])
    goes_on.finish()
    whole = read(body, [])
    assert [*begun.records, *goes_on.records] == whole.records
    assert (goes_on.lines, goes_on.fed, goes_on.splitter.number) == (whole.lines, whole.fed, whole.splitter.number)


@given(LINES)
def test_there_is_no_place_beyond_a_line_that_the_files_end_must_know_of(lines: list[bytes]) -> None:
    reading = FileReading(unit(), BASE)
    reading.feed(b"\n".join(lines) + b"\n")
    if reading.quarantined or reading.other_types:
        assert reading.place() is None


def test_a_last_line_that_is_cut_off_says_where() -> None:
    reading = read(b'{"resourceType":"Goal","id":"g"}\n{"resourceT', [])
    assert reading.last_line_unreadable
    assert "middle of line 2" in reading.quarantined[-1].reason


@pytest.mark.parametrize(
    "last",
    [b'{"resourceType":"Bundle","entry":[]}', b'{"resourceType":"Goal"}', b"null", b'{"resourceType":"Goal","id":"a","id":"b"}',
     b'{"resourceType":"Goal","id":"a","x":"\\ud800"}'],
)  # fmt: skip
def test_a_last_line_that_is_whole_json_but_no_resource_was_not_cut(last: bytes) -> None:
    reading = read(b'{"resourceType":"Goal","id":"g"}\n' + last, [])
    assert (reading.unreadable, reading.last_line_unreadable) == (1, False)
    assert "ends in the middle" not in reading.quarantined[-1].reason


GOALS = [b'{"resourceType":"Goal","id":"a"}', b'{"resourceType":"Goal","id":"b"}']


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"[" + b",\n".join(GOALS) + b"]", "one JSON array"),
        (b"[" + b",".join(GOALS) + b"]", "one JSON array"),
        (b"\n".join(orjson.dumps(orjson.loads(goal), option=orjson.OPT_INDENT_2) for goal in GOALS), "over several lines"),
        (b'{ "resourceType": "Goal",\n  "id": "a" }\n', "over several lines"),
        (b'{"resourceType": "Goal", "note": [\r\n  {\r\n  } ],\r\n "id": "a"}', "over several lines"),
        (b"\n".join(GOALS).decode().encode("utf-16"), "UTF-16"),
        (b"\n".join(GOALS).decode().encode("utf-16-le"), "UTF-16"),
        (b"\n".join(GOALS).decode().encode("utf-16-be"), "UTF-16"),
        (b"\n".join(GOALS).decode().encode("utf-32-be"), "UTF-32"),
        (b"".join(GOALS), "without a line feed"),
        (b"\r".join(GOALS) + b"\r", "without a line feed"),
        (b"PK\x03\x04" + bytes(40), "an archive"),
    ],
)  # fmt: skip
def test_a_file_in_another_form_is_reported_as_such_and_not_as_truncated(body: bytes, named: str) -> None:
    reading = read(body, [])
    assert not reading.records
    assert not reading.last_line_unreadable
    assert all(named in item.reason and "ends in the middle" not in item.reason for item in reading.quarantined)
    assert len(reading.quarantined) == reading.unreadable == reading.lines > 0


@pytest.mark.parametrize(
    "body", [GOALS[0][:-4], GOALS[0][:23], b"{", GOALS[0] + b"\n[",
    b'{"resourceType":"Goal","note":"}{', b"[\n" + GOALS[0] + b"\n" + GOALS[1][:-4]]
)  # fmt: skip
def test_a_file_that_has_readable_lines_or_may_be_cut_is_in_no_other_form(body: bytes) -> None:
    reading = read(body, [])
    assert reading.last_line_unreadable
    assert "the file ends in the middle of line" in reading.quarantined[-1].reason


def test_a_bundle_without_an_id_is_named_as_a_bundle() -> None:
    reading = read(b'{"resourceType":"Bundle","type":"collection","entry":[{"resource":' + GOALS[0] + b"}]}\n", [])
    assert [item.reason for item in reading.quarantined] == ["a Bundle instead of a single resource"]


def test_headers_of_blocks_are_counted_and_not_stored() -> None:
    header = b'{"resourceType":"Parameters","parameter":[{"name":"header","valueReference":{"reference":"Patient/p"}}]}'
    body = header + b'\n{"resourceType":"Patient","id":"p"}\n'
    organized = read(body, [], unit("*", organized=True))
    assert (organized.headers, [record.id for record in organized.records]) == (1, ["p"])
    plain = read(body, [], unit("*"))
    assert (plain.headers, len(plain.quarantined)) == (0, 1)


def test_a_line_of_fifty_megabytes_is_a_record() -> None:
    long = b'{"resourceType":"Goal","id":"g","x":"' + b"y" * 50_000_000 + b'"}'
    reading = read(long + b"\n", [1_000_000, 30_000_000])
    assert [len(record.body) for record in reading.records] == [len(long)]


def test_deletions_come_from_bundles_and_nothing_else() -> None:
    bundle = orjson.dumps({"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE", "url": "Goal/g1"}}]})
    reading = read(bundle + b'\n{"resourceType":"Goal","id":"g2"}\n', [], unit("Bundle", "deleted-file"))
    assert [(gone.resource_type, gone.id) for gone in reading.deletions] == [("Goal", "g1")]
    assert (len(reading.quarantined), reading.records) == (1, [])


def test_a_bundle_in_place_of_single_resources_is_quarantined_unless_requested() -> None:
    line = b'{"resourceType":"Bundle","id":"b","type":"collection","entry":[{"resource":{"resourceType":"Goal","id":"g"}}]}'
    for wanted in ("Goal", "*"):
        reading = read(line + b"\n", [], unit(wanted))
        assert ([item.raw for item in reading.quarantined], reading.records, reading.unreadable) == ([line], [], 1)
    assert [record.id for record in read(line, [], unit("Bundle")).records] == ["b"]
