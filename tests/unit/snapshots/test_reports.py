"""How a hole is named: enough to find it, never an id in the clear."""

from __future__ import annotations

from uuid import UUID

from snapshots.reports import hole_scope, patient_hash
from snapshots.unit import UnitKind

SECRET = UUID(int=7)


def scope(
    patient_id: str | None, *, kind: str = "search", split: str = "", template: str = "", of_chart: str | None = None
) -> str:
    unit = {
        "kind": kind,
        "patient_id": patient_id,
        "of_chart": of_chart,
        "template": template,
        "split": split,
        "nth": 3,
    }
    return hole_scope(SECRET, unit)


def test_a_patient_in_a_report_is_a_keyed_hash_with_the_missing_split():
    assert (
        scope("mrn-17", split="category=laboratory")
        == f"patient ~{patient_hash(SECRET, 'mrn-17')}, category=laboratory"
    )
    assert patient_hash(SECRET, "mrn-17") != patient_hash(UUID(int=8), "mrn-17")


def test_a_unit_without_a_patient_is_named_by_its_template_or_else_its_place():
    assert scope(None, template="Observation file 3") == "Observation file 3"
    assert scope(None) == "search 3"


def test_a_document_is_named_by_its_place_and_its_chart():
    assert scope(None, kind=UnitKind.ATTACHMENT, template="GET /Binary/{id}") == "document 3"
    named = scope(None, kind=UnitKind.ATTACHMENT, template="GET /Binary/{id}", of_chart="p1")
    assert named == f"patient ~{patient_hash(SECRET, 'p1')}, document 3"
