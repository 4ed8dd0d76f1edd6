"""How a hole is named: enough to find it, never an id in the clear."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from snapshots.reports import hole_scope, patient_hash

SECRET = UUID(int=7)


def scope(key: str, *, patient_id: str | None, detail: dict[str, object] | None = None) -> str:
    return hole_scope(SECRET, key=key, kind="search", patient_id=patient_id, detail=detail or {}, place=3)


def test_a_patient_is_named_by_a_keyed_hash_with_the_split_that_is_missing():
    found = scope("search:Observation:mrn-17:category=laboratory", patient_id="mrn-17")
    assert found == f"patient ~{patient_hash(SECRET, 'mrn-17')}, category=laboratory"
    assert patient_hash(SECRET, "mrn-17") != patient_hash(UUID(int=8), "mrn-17")


def test_without_a_patient_the_template_names_the_unit_else_its_place():
    assert (
        scope("file:Observation:1:3", patient_id=None, detail={"template": "Observation file 3"})
        == "Observation file 3"
    )
    assert scope("file:Observation:1:3", patient_id=None) == "search 3"


@given(st.text("abcdef-123", min_size=4, max_size=12), st.integers(1, 3))
def test_the_id_never_shows(patient_id: str, times: int):
    key = "search:X:" + ":".join([patient_id] * times)
    assert patient_id not in scope(key, patient_id=patient_id).partition("~")[2][8:]
