"""Which elements of which types name the patients of a chart."""

from __future__ import annotations

import json

import pytest

from connectors.fhir.capability import ASKED_BY_PATIENT
from connectors.fhir.patients.compartment import PATHS, PATIENT_COMPARTMENT
from tests.unit.connectors.r4_compartment import KEPT, path_of, table

DEFINITIONS = json.loads(KEPT.read_text())
SEARCHED = "outside, with a parameter patient"
PARAMETERS = [
    (kind, name, part)
    for kind, named in (DEFINITIONS["compartment"] | DEFINITIONS[SEARCHED]).items()
    for name, parts in named.items()
    for part in parts
]


@pytest.mark.parametrize(("kind", "name", "part"), PARAMETERS, ids=[f"{kind}-{name}" for kind, name, _ in PARAMETERS])
def test_every_parameter_of_r4s_patient_compartment_has_its_path_in_the_table(kind: str, name: str, part: str) -> None:
    assert path_of(part) in PATHS[kind]


def test_the_table_holds_what_the_definitions_give_and_nothing_more() -> None:
    assert table(DEFINITIONS["compartment"]) | table(DEFINITIONS[SEARCHED]) == PATHS
    assert set(DEFINITIONS["compartment"]) == PATIENT_COMPARTMENT


def test_every_parameter_of_the_definitions_has_a_path() -> None:
    assert all(parts for named in DEFINITIONS["compartment"].values() for parts in named.values())
    assert len(PARAMETERS) > 100


def test_types_outside_the_compartment_count_only_where_they_are_searched_by_patient() -> None:
    assert set(PATHS) - PATIENT_COMPARTMENT == {"Contract", "Device", "GuidanceResponse", "Task"}


def test_undeclared_searches_by_patient_are_those_of_the_compartment_and_exceptions_are_named() -> None:
    assert {"Device"} == ASKED_BY_PATIENT - PATIENT_COMPARTMENT
    assert {"Group", "Schedule"} == PATIENT_COMPARTMENT - ASKED_BY_PATIENT
    unsearchable = PATIENT_COMPARTMENT - set(DEFINITIONS["with a parameter patient"])
    assert unsearchable >= {"Group", "Schedule"}
