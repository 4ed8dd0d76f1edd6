from __future__ import annotations

import pytest

from config.resource_types import RESOURCE_TYPES, type_problem


def test_the_list_is_that_of_r4_without_the_abstract_ones() -> None:
    assert len(RESOURCE_TYPES) == 146
    assert {"Patient", "List", "MedicinalProduct", "VisionPrescription"} <= RESOURCE_TYPES
    assert not {"Resource", "DomainResource", "Citation", "NutritionIntake"} & RESOURCE_TYPES


@pytest.mark.parametrize(
    ("typo", "meant"), [("Patent", "Patient"), ("Pateint", "Patient"), ("observation", "Observation")]
)
def test_a_mistyped_type_is_reported_with_the_nearest_type(typo: str, meant: str) -> None:
    assert type_problem(typo) == f"must be a resource type of FHIR R4; did you mean {meant}?"


def test_an_r4_type_is_accepted_and_a_name_like_no_type_is_reported_with_an_example() -> None:
    assert type_problem("Patient") is None
    assert "such as" in str(type_problem("Xqqzz"))
