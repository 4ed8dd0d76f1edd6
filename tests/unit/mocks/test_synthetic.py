"""Made-up charts are valid R4, equal for equal seeds, whole, and rich enough to fill every built-in view."""

from __future__ import annotations

import base64
import gzip
import importlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocks.synthetic import generate, generate_chart, generate_patient, patient_id, to_json_bytes, write_ndjson

SEARCHABLE_BY_EPIC = {"social-history", "vital-signs", "imaging", "laboratory", "survey", "exam"}
ALL_TYPES = {
    "AllergyIntolerance", "CarePlan", "CareTeam", "Condition", "Device", "DiagnosticReport", "DocumentReference", "Encounter",
    "Goal", "Group", "Immunization", "Location", "Medication", "MedicationRequest", "Observation", "Organization", "Patient",
    "Practitioner", "Procedure",
}  # fmt: skip
SAMPLE_EVERY = 23


@pytest.fixture(scope="module")
def resources() -> list[dict[str, Any]]:
    return list(generate(40, seed=7))


@pytest.fixture(scope="module")
def by_type(resources: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    ordered = sorted(resources, key=lambda r: r["resourceType"])
    return {name: list(rows) for name, rows in itertools.groupby(ordered, key=lambda r: r["resourceType"])}


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def shape(value: Any) -> Any:
    """Which elements a resource has, whatever they say: one of each shape is worth validating."""
    if isinstance(value, dict):
        return tuple((key, shape(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return frozenset(shape(inner) for inner in value)
    return type(value).__name__


def test_a_few_dozen_patients_have_a_resource_of_every_type(by_type: dict[str, list[dict[str, Any]]]) -> None:
    assert set(by_type) == ALL_TYPES


@pytest.mark.parametrize("resource_type", sorted(ALL_TYPES))
def test_resources_of_every_shape_are_valid_r4b(by_type: dict[str, list[dict[str, Any]]], resource_type: str) -> None:
    model = getattr(importlib.import_module(f"fhir.resources.R4B.{resource_type.lower()}"), resource_type)
    rows = by_type[resource_type]
    sample = {shape(row): row for row in rows} | {row["id"]: row for row in rows[::SAMPLE_EVERY][:40]}
    for row in sample.values():
        assert model.model_validate_json(to_json_bytes(row)).id == row["id"]


def test_ids_are_unique_and_valid(resources: list[dict[str, Any]]) -> None:
    counted = Counter((r["resourceType"], r["id"]) for r in resources)
    assert max(counted.values()) == 1
    assert all(re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", r["id"]) for r in resources)


def test_every_reference_resolves_within_the_whole(resources: list[dict[str, Any]]) -> None:
    known = {f"{r['resourceType']}/{r['id']}" for r in resources}
    assert {ref for key, ref in walk(resources) if key == "reference"} <= known


def test_a_chart_refers_to_no_other_patient() -> None:
    ids = {patient_id(k, 3) for k in range(5)}
    for k in range(5):
        mine = {
            ref for key, ref in walk(list(generate_patient(k, 3))) if key == "reference" and ref.startswith("Patient/")
        }
        assert mine == {f"Patient/{patient_id(k, 3)}"}
    assert len(ids) == 5


def test_every_observation_and_condition_can_be_searched_by_category(by_type: dict[str, list[dict[str, Any]]]) -> None:
    used = {r["category"][0]["coding"][0]["code"] for r in by_type["Observation"]}
    assert used == SEARCHABLE_BY_EPIC
    assert {r["category"][0]["coding"][0]["code"] for r in by_type["Condition"]} == {
        "problem-list-item",
        "encounter-diagnosis",
    }


def test_observations_carry_every_kind_of_value(by_type: dict[str, list[dict[str, Any]]]) -> None:
    keys = {key for r in by_type["Observation"] for key in r}
    assert {
        "valueQuantity", "valueCodeableConcept", "valueString", "valueInteger", "component", "dataAbsentReason", "referenceRange",
        "interpretation",
    } <= keys  # fmt: skip


def test_every_laboratory_panel_is_gathered_by_a_report_on_the_same_encounter(
    by_type: dict[str, list[dict[str, Any]]],
) -> None:
    observations = {r["id"]: r for r in by_type["Observation"]}
    for report in by_type["DiagnosticReport"]:
        results = [observations[ref["reference"].partition("/")[2]] for ref in report["result"]]
        assert results
        assert all(r["encounter"] == report["encounter"] and r["subject"] == report["subject"] for r in results)


def test_medication_requests_name_drugs_by_code_and_by_reference(by_type: dict[str, list[dict[str, Any]]]) -> None:
    keys = Counter(key for r in by_type["MedicationRequest"] for key in r if key.startswith("medication"))
    assert set(keys) == {"medicationCodeableConcept", "medicationReference"}
    assert sum(keys.values()) == len(by_type["MedicationRequest"])


def test_attachments_state_their_true_size(by_type: dict[str, list[dict[str, Any]]]) -> None:
    for document in by_type["DocumentReference"]:
        attachment = document["content"][0]["attachment"]
        assert len(base64.b64decode(attachment["data"])) == attachment["size"]


def test_identifiers_cannot_be_mistaken_for_real_ones(by_type: dict[str, list[dict[str, Any]]]) -> None:
    numbers = [i for r in by_type["Patient"] for i in r["identifier"]]
    assert all(i["value"].startswith("999-") for i in numbers if i.get("system", "").endswith("us-ssn"))
    assert all(".999." in i["system"] for i in numbers if i.get("system", "").startswith("urn:oid"))


def test_values_move_with_the_illness(by_type: dict[str, list[dict[str, Any]]]) -> None:
    diabetic = {r["subject"]["reference"] for r in by_type["Condition"] if r["code"]["coding"][0]["code"] == "44054006"}
    last: dict[str, Decimal] = {
        r["subject"]["reference"]: r["valueQuantity"]["value"]
        for r in by_type["Observation"]
        if r["code"]["coding"][0]["code"] == "2345-7"
    }
    sick = [value for subject, value in last.items() if subject in diabetic]
    well = [value for subject, value in last.items() if subject not in diabetic]
    assert sum(sick) / len(sick) > sum(well) / len(well) + 20


def test_meta_has_last_updated_unless_it_is_switched_off(resources: list[dict[str, Any]]) -> None:
    assert all(r["meta"]["lastUpdated"].endswith("Z") for r in resources)
    assert not any("meta" in r for r in generate(2, last_updated=False))


def test_the_written_form_of_decimals_survives() -> None:
    assert to_json_bytes({"a": Decimal("36.60"), "b": Decimal("1.0"), "c": 3}) == b'{"a":36.60,"b":1.0,"c":3}'


def test_trailing_zeros_occur_in_the_charts(resources: list[dict[str, Any]]) -> None:
    text = b"\n".join(map(to_json_bytes, resources))
    assert re.search(rb'"value":\d+\.0[,}]', text)
    assert re.search(rb'"value":\d+\.\d0[,}]', text)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), fewer=st.integers(0, 2), more=st.integers(0, 2))
def test_asking_for_more_patients_changes_only_the_group(seed: int, fewer: int, more: int) -> None:
    short = [to_json_bytes(r) for r in generate(fewer, seed)][:-1]
    long = [to_json_bytes(r) for r in generate(fewer + more, seed)]
    assert long[: len(short)] == short
    assert b'"resourceType":"Group"' in long[-1]


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), number=st.integers(0, 10**6))
def test_any_patient_can_be_made_alone_and_has_a_history(seed: int, number: int) -> None:
    first, *rest = generate_patient(number, seed)
    assert first["resourceType"] == "Patient"
    assert first["id"] == patient_id(number, seed)
    assert {"Encounter", "Observation", "DocumentReference"} <= {r["resourceType"] for r in rest}
    visits = [r["period"]["start"] for r in rest if r["resourceType"] == "Encounter"]
    assert [v[:10] for v in visits] == sorted(v[:10] for v in visits)
    assert first["birthDate"] <= visits[0][:10]


def test_different_seeds_make_different_people() -> None:
    assert patient_id(0, 1) != patient_id(0, 2)


@pytest.mark.parametrize("megabytes", [0.5, 2])
def test_a_chart_has_one_patient_and_about_the_requested_size(megabytes: float) -> None:
    chart = list(generate_chart(seed=1, megabytes=megabytes))
    size = sum(len(to_json_bytes(r)) + 1 for r in chart)
    assert sum(r["resourceType"] == "Patient" for r in chart) == 1
    assert {r["resourceType"] for r in chart} == ALL_TYPES
    assert size == pytest.approx(megabytes * 1e6, abs=120_000)


def test_files_by_type_hold_every_resource_and_are_equal_for_equal_seeds(tmp_path: Path) -> None:
    rows = write_ndjson(tmp_path / "a", patients=2, seed=5)
    write_ndjson(tmp_path / "b", patients=2, seed=5)
    found: dict[str, int] = {}
    for path in (tmp_path / "a").iterdir():
        lines = gzip.decompress(path.read_bytes()).splitlines()
        name = path.name.removesuffix(".ndjson.gz")
        assert all(json.loads(line)["resourceType"] == name for line in lines)
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        found[name] = len(lines)
    assert found == rows
    assert sum(rows.values()) == sum(1 for _ in generate(2, 5))
