"""What the optional check against FHIR R4B counts and says."""

from __future__ import annotations

from connectors.fhir.records import record_from
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.validation import Validator

BASE = FhirBase("https://ehr.example.org/fhir")
GOOD = record_from(b'{"resourceType":"Patient","id":"p1","gender":"female"}', BASE)
BAD = record_from(b'{"resourceType":"Patient","id":"p2","birthDate":"Doe, Jane"}', BASE)
UNKNOWN = record_from(b'{"resourceType":"Patiant","id":"p3"}', BASE)


def test_invalid_resources_are_counted_by_type_without_a_value() -> None:
    notes = Validator.notes_of(Validator("all").inspect([GOOD, BAD, GOOD, UNKNOWN]))
    assert [note.split(" (")[0] for note in notes] == [
        "1 of 1 Patiant checked are not valid R4B",
        "1 of 3 Patient checked are not valid R4B",
    ]
    assert "Jane" not in " ".join(notes)


def test_a_sample_takes_the_first_of_each_type_and_then_one_in_a_hundred() -> None:
    (note,) = Validator.notes_of(Validator("sample").inspect([BAD] * 201))
    assert note.startswith("3 of 3 Patient checked")


def test_valid_resources_leave_no_note() -> None:
    assert Validator.notes_of(Validator("all").inspect([GOOD])) == []
