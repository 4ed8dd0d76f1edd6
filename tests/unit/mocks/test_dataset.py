from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import pytest

from mocks.dataset import DataError, Dataset, instant


def test_a_directory_of_ndjson_is_served_line_by_line_as_it_is(tmp_path: Path) -> None:
    lines = [
        b'{ "resourceType":"Patient", "id":"p1", "x": 1.0 }',
        b'{"id":"o1","resourceType":"Observation","subject":{"reference":"Patient/p1"}}',
    ]
    (tmp_path / "Patient.ndjson").write_bytes(lines[0] + b"\r\n\n")
    (tmp_path / "Observation.0001.ndjson.gz").write_bytes(gzip.compress(lines[1]))
    data = Dataset.load(tmp_path)
    assert data.types == ["Observation", "Patient"]
    assert [row.raw for kind in ("Patient", "Observation") for row in data.of_type(kind)] == lines
    assert [row.id for row in data.of_patient("Observation", "p1")] == ["o1"]


def test_an_empty_directory_and_a_bad_line_are_reported_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*\.ndjson"):
        Dataset.load(tmp_path)
    (tmp_path / "Patient.ndjson").write_bytes(b'{"resourceType":"Patient","id":"p"}\n{"resourceType":')
    with pytest.raises(DataError, match=r"Patient\.ndjson:2: not a FHIR resource"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize(
    "element",
    [
        {"subject": {"reference": "Patient/p1"}},
        {"patient": {"reference": "https://ehr.example.org/r4/Patient/p1"}},
        {"beneficiary": {"reference": "Patient/p1/_history/2"}},
        {"subject": [{"reference": "Group/g"}, {"reference": "Patient/p1"}]},
        {"for": {"reference": "Patient/p1"}},
    ],
)
def test_the_patient_is_found_in_every_form_of_reference(element: dict) -> None:
    data = Dataset.load([{"resourceType": "Task", "id": "t", **element}])
    assert [row.id for row in data.of_patient("Task", "p1")] == ["t"]


def test_a_provenance_belongs_to_the_patient_of_its_target() -> None:
    data = Dataset.load(
        [
            {"resourceType": "Provenance", "id": "v", "target": [{"reference": "Condition/c"}]},
            {"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p1"}},
        ]
    )
    assert [row.id for row in data.of_patient("Provenance", "p1")] == ["v"]


def test_decimals_keep_their_written_form() -> None:
    data = Dataset.load([{"resourceType": "Observation", "id": "o", "value": Decimal("1.00"), "float": 1.0}])
    assert data.of_type("Observation")[0].raw == b'{"resourceType":"Observation","id":"o","value":1.00,"float":1.0}'


def test_a_change_moves_a_resource_to_its_new_patient_and_a_deletion_takes_it_away() -> None:
    data = Dataset.load([{"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p1"}}])
    data.replace({"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p2"}})
    assert data.of_patient("Condition", "p1") == []
    assert len(data.of_patient("Condition", "p2")) == 1
    data.delete("Condition", "c")
    assert data.of_patient("Condition", "p2") == []
    assert ("Condition", "c") in data.deleted
    assert data.version == 2


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026", "2026-01-01T00:00:00+00:00"),
        ("2026-03", "2026-03-01T00:00:00+00:00"),
        ("2026-03-04T05:06:07.891Z", "2026-03-04T05:06:07.891000+00:00"),
        ("2026-03-04T05:06:07+02:00", "2026-03-04T05:06:07+02:00"),
    ],
)
def test_every_precision_of_a_date_is_an_instant(text: str, iso: str) -> None:
    found = instant(text)
    assert found is not None
    assert found.isoformat() == iso


def test_a_value_that_is_no_date_gives_none() -> None:
    assert instant("yesterday") is None
    assert instant("") is None
