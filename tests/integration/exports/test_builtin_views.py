"""Ten of the built-in views, against plain loops over the same resources that share nothing with the compiler.

All of them are judged in `test_judged_builtin_views.py`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from exports.catalogue import builtin_names, load_view
from exports.compiler import compile_view
from tests.integration.exports.conftest import RunView

Json = dict[str, Any]
VIEW_OF = {
    "AllergyIntolerance": "allergy_intolerance",
    "Condition": "condition",
    "DiagnosticReport": "diagnostic_report",
    "DocumentReference": "document_reference",
    "Encounter": "encounter",
    "Immunization": "immunization",
    "MedicationRequest": "medication_request",
    "Observation": "observation",
    "Patient": "patient",
    "Procedure": "procedure",
}


def load(folder: Path, resource_type: str) -> list[Json]:
    path = folder / f"{resource_type}.ndjson.gz"
    if not path.exists():  # this set has no DocumentReference
        return []
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def walk(node: Any, *keys: str) -> Iterator[Any]:
    """Every value at the end of a path, arrays opened on the way."""
    if isinstance(node, list):
        for item in node:
            yield from walk(item, *keys)
    elif not keys:
        yield node
    elif isinstance(node, dict) and keys[0] in node:
        yield from walk(node[keys[0]], *keys[1:])


def first(node: Any, *keys: str) -> Any:
    return next(walk(node, *keys), None)


def id_in(reference: str | None, target: str) -> str | None:
    return reference.removeprefix(f"{target}/") if reference and reference.startswith(f"{target}/") else None


def rows_of(run_view: RunView, resource_type: str, resources: list[Json]) -> list[Json]:
    return run_view(load_view(VIEW_OF[resource_type]).definition, resources)


def by_id(resources: list[Json]) -> list[Json]:
    return sorted(resources, key=lambda resource: str(resource["id"]))


@pytest.mark.parametrize("resource_type", sorted(set(VIEW_OF) - {"Observation"}))
def test_a_view_has_one_row_per_resource_ordered_by_id(
    resource_type: str, synthea_dir: Path, run_view: RunView
) -> None:
    resources = load(synthea_dir, resource_type)
    rows = rows_of(run_view, resource_type, resources)
    assert [row["key"] for row in rows] == sorted(resource["id"] for resource in resources)
    holders = [resource.get("subject", resource.get("patient", {})) for resource in by_id(resources)]
    expected = [id_in(holder.get("reference"), "Patient") for holder in holders]
    if resource_type != "Patient":
        assert [row["patient_key"] for row in rows] == expected


def test_patients_have_the_demographics_of_their_resource(synthea_dir: Path, run_view: RunView) -> None:
    resources = load(synthea_dir, "Patient")
    for row, resource in zip(rows_of(run_view, "Patient", resources), by_id(resources), strict=True):
        name = resource["name"][0]
        assert (row["family_name"], row["given_names"]) == (name["family"], " ".join(name["given"]))
        assert (row["gender"], row["birth_date"]) == (resource["gender"], resource["birthDate"])
        assert row["deceased_at"] == resource.get("deceasedDateTime")
        assert row["city"] == first(resource, "address", "city")
        shown = [one for one in resource["identifier"] if first(one, "type", "coding", "code") != "SS"]
        assert row["identifiers"] == list(walk(shown, "value"))
        medical = [one for one in resource["identifier"] if first(one, "type", "coding", "code") == "MR"]
        assert row["mrn"] == medical[0]["value"]


CODED: list[tuple[str, str, tuple[str, ...]]] = [
    ("Condition", "code", ("code",)),
    ("Procedure", "code", ("code",)),
    ("DiagnosticReport", "code", ("code",)),
    ("AllergyIntolerance", "code", ("code",)),
    ("Immunization", "vaccine", ("vaccineCode",)),
    ("MedicationRequest", "medication", ("medicationCodeableConcept",)),
    ("Encounter", "type", ("type",)),
]


@pytest.mark.parametrize(("resource_type", "prefix", "path"), CODED)
def test_the_first_coding_fills_its_three_columns(
    resource_type: str, prefix: str, path: tuple[str, ...], synthea_dir: Path, run_view: RunView
) -> None:
    resources = load(synthea_dir, resource_type)
    for row, resource in zip(rows_of(run_view, resource_type, resources), by_id(resources), strict=True):
        coding = first(resource, *path, "coding") or {}
        found = [row[f"{prefix}_{part}"] for part in ("system", "code", "display")]
        assert found == [coding.get(part) for part in ("system", "code", "display")]


def test_each_code_system_has_a_column_of_its_own(run_view: RunView) -> None:
    systems = {
        "snomed": "http://snomed.info/sct",
        "icd10cm": "urn:oid:2.16.840.1.113883.6.90",
    }
    codings = [{"system": "urn:local", "code": "L"}, *[{"system": url, "code": name} for name, url in systems.items()]]
    [row] = rows_of(run_view, "Condition", [{"resourceType": "Condition", "id": "c", "code": {"coding": codings}}])
    assert (row["code_code"], row["code_snomed"], row["code_icd10cm"]) == ("L", "snomed", "icd10cm")
    assert row["code_codes"] == ["L", "snomed", "icd10cm"]
    assert row["code_codings"] == codings


EFFECTIVE: list[tuple[Json, str | None]] = [
    ({"effectiveDateTime": "2020-01-02"}, "2020-01-02"),
    ({"effectiveInstant": "2020-01-02T03:04:05Z"}, "2020-01-02T03:04:05Z"),
    ({"effectivePeriod": {"start": "2020-01", "end": "2021"}}, "2020-01"),
    ({"effectiveTiming": {"event": ["2020-01-02", "2020-01-03"]}}, "2020-01-02"),
    ({"effectivePeriod": {"end": "2021"}}, None),
]


@pytest.mark.parametrize(("given", "expected"), EFFECTIVE)
def test_one_column_has_the_time_of_observation_from_any_element(
    given: Json, expected: str | None, run_view: RunView
) -> None:
    [row] = rows_of(run_view, "Observation", [{"resourceType": "Observation", "id": "o", **given}])
    assert row["effective_at"] == expected
    assert row["effective_datetime"] == given.get("effectiveDateTime")


SSN: list[Json] = [
    {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "1"},
    {"system": "urn:oid:2.16.840.1.113883.4.1", "value": "2"},
    {"type": {"coding": [{"code": "SS"}]}, "value": "3"},
    {"type": {"text": "SSN"}, "value": "4"},
]


def test_social_security_numbers_are_exported_only_on_request(run_view: RunView) -> None:
    others: list[Json] = [{"value": "5"}, {"system": "urn:x", "type": {"coding": [{"code": "MR"}]}, "value": "6"}]
    patient = {"resourceType": "Patient", "id": "p", "identifier": [*SSN, *others]}
    found = {name: run_view(load_view(name).definition, [patient]) for name in (*builtin_names(), "patient_ssn")}
    assert [row["value"] for row in found["patient_ssn"]] == ["1", "2", "3", "4"]
    assert [row["value"] for row in found["patient_identifier"]] == ["5", "6"]
    assert found["patient"][0]["identifiers"] == ["5", "6"]


# what a resource has several of, each with a part that the others lack; and what the columns show
SEVERAL: list[tuple[str, Json, Json]] = [
    (
        "observation",
        {"valueCodeableConcept": {"coding": [{"code": "H"}, {"system": "http://x", "code": "9", "display": "nine"}]}},
        {"value_system": None, "value_code": "H", "value_display": None},
    ),
    (
        "medication_request",
        {"dosageInstruction": [{"doseAndRate": [{"doseQuantity": {"value": 5}}, {"doseQuantity": {"unit": "mg"}}]}]},
        {"dose_value": 5, "dose_unit": None},
    ),
    (
        "encounter",
        {
            "type": [{"coding": [{"code": "a"}]}, {"text": "B"}],
            "location": [{"location": {"display": "here"}}, {"location": {"reference": "Location/1"}}],
        },
        {"type_code": "a", "type_text": None, "location_key": None, "location_display": "here"},
    ),
    (
        "coverage",
        {"class": [{"type": {"coding": [{"code": "plan"}]}, "value": "1"},
                   {"type": {"coding": [{"code": "plan"}]}, "name": "Gold"}]},
        {"plan_number": "1", "plan_name": None},
    ),
    (
        "omop_condition_occurrence",
        {"code": {"coding": [{"system": "http://x"}, {"system": "http://y", "code": "1"}]}},
        {"condition_source_value": "1", "condition_source_vocabulary": "http://y"},
    ),
    (
        "patient",
        {
            "address": [{"use": "old", "city": "There"}, {"city": "Here"}],
            "telecom": [{"system": "phone", "use": "old", "value": "1"}, {"system": "phone", "value": "2"}],
        },
        {"city": "Here", "phone": "2"},
    ),
    ("omop_measurement", {"category": [{"coding": [{"code": "laboratory"}]}],
                          "valueQuantity": {"comparator": "<", "value": 5}},
     {"value_as_number": 5, "operator_source_value": "<"}),
    ("omop_observation", {"valueQuantity": {"comparator": "<", "value": 5}}, {"operator_source_value": "<"}),
    ("claim_line", {"total": {"value": 9, "currency": "USD"},
                    "item": [{"unitPrice": {"value": 3, "currency": "EUR"}}]},
     {"claim_currency": "USD", "unit_price_currency": "EUR", "currency": None}),
    ("explanation_of_benefit_line", {"payment": {"amount": {"value": 9, "currency": "USD"}}, "item": [
        {"unitPrice": {"value": 3, "currency": "EUR"}}]},
     {"payment_currency": "USD", "unit_price_currency": "EUR"}),
    ("goal", {"target": [{"detailQuantity": {"comparator": "<", "value": 7}}]}, {"target_comparator": "<"}),
    ("goal", {"target": [{"detailRange": {"high": {"value": 7, "unit": "%"}}}]}, {"target_unit": "%"}),
    ("condition", {"onsetAge": {"comparator": ">", "value": 60}}, {"onset_age_comparator": ">"}),
    ("medication_request", {"dispenseRequest": {"expectedSupplyDuration": {"value": 3, "unit": "months"}}},
     {"days_supply_unit": "months"}),
    ("smoking_status", {"code": {"coding": [{"system": "http://loinc.org", "code": "72166-2"}]},
                        "valueQuantity": {"comparator": ">", "value": 20}}, {"value_comparator": ">"}),
    ("questionnaire_answer", {"item": [{"answer": [{"valueQuantity": {"comparator": "<", "value": 3}}]}]},
     {"answer_comparator": "<"}),
    ("blood_pressure", {"code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]}, "component": [
        {"code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
         "valueQuantity": {"comparator": ">", "value": 300}}]},
     {"systolic_comparator": ">", "diastolic_comparator": None}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "wanted"), SEVERAL)
def test_the_columns_of_one_item_stay_together(name: str, content: Json, wanted: Json, run_view: RunView) -> None:
    view = load_view(name)
    (row, *_) = run_view(view.definition, [{"resourceType": view.resource, "id": "r", **content}])
    assert {column: row[column] for column in wanted} == wanted


def test_findings_show_values_of_every_type_with_their_unit_and_whether_they_are_bounds(run_view: RunView) -> None:
    below = {"comparator": "<", "value": 8, "unit": "mg"}
    values: list[tuple[Json, Json]] = [
        (
            {"valueRatio": {"numerator": {"value": 1, "unit": "g"}, "denominator": below}},
            {
                "value_numerator": 1,
                "value_numerator_comparator": None,
                "value_numerator_unit": "g",
                "value_denominator": 8,
                "value_denominator_comparator": "<",
                "value_denominator_unit": "mg",
            },
        ),
        ({"valueRange": {"low": {"value": 3, "unit": "mg"}}}, {"value_low": 3, "value_range_unit": "mg"}),
        ({"valueRange": {"high": {"value": 5, "unit": "mg"}}}, {"value_high": 5, "value_range_unit": "mg"}),
        ({"valueBoolean": False}, {"value_boolean": False}),
        ({"valueTime": "08:30:00"}, {"value_time": "08:30:00"}),
        ({"valuePeriod": {"end": "2020-01-01"}}, {"value_start": None, "value_end": "2020-01-01"}),
        ({"referenceRange": [{"high": {"value": 5, "unit": "mg"}}]}, {"reference_high": 5, "reference_unit": "mg"}),
    ]
    laboratory = {"category": [{"coding": [{"code": "laboratory"}]}], "resourceType": "Observation", "id": "o"}
    for name in ("observation", "laboratory_result"):
        for content, wanted in values:
            observed = {**laboratory, **content, "component": [content]}
            for row in run_view(load_view(name).definition, [observed]):
                assert {column: row[column] for column in wanted} == wanted


@pytest.mark.parametrize(
    ("content", "dead"),
    [
        ({"deceasedDateTime": "2020"}, True),
        ({"deceasedBoolean": True}, True),
        ({"deceasedBoolean": False}, False),
        ({}, None),
    ],
)
def test_a_patient_with_a_time_of_death_is_dead(content: Json, dead: bool | None, run_view: RunView) -> None:
    (row,) = run_view(load_view("patient").definition, [{"resourceType": "Patient", "id": "p", **content}])
    assert row["deceased"] is dead


def test_omop_has_no_visit_that_was_not_made_and_no_drug_that_was_forbidden(run_view: RunView) -> None:
    visits = [
        {"resourceType": "Encounter", "id": status, "status": status}
        for status in ("finished", "cancelled", "planned", "entered-in-error", "in-progress")
    ]
    rows = run_view(load_view("omop_visit_occurrence").definition, visits)
    assert [row["visit_occurrence_id"] for row in rows] == ["finished", "in-progress"]
    drugs = [{"resourceType": "MedicationRequest", "id": str(no), "doNotPerform": no} for no in (True, False)]
    rows = run_view(load_view("omop_drug_exposure").definition, drugs)
    assert [row["drug_exposure_id"] for row in rows] == ["False"]


def test_each_observation_and_each_component_gives_a_row(synthea_dir: Path, run_view: RunView) -> None:
    resources = load(synthea_dir, "Observation")
    expected = []
    for resource in by_id(resources):
        expected.append((resource["id"], -1, resource))
        expected += [(resource["id"], at, part) for at, part in enumerate(resource.get("component", []))]
    rows = rows_of(run_view, "Observation", resources)
    assert [(row["key"], row["part_index"]) for row in rows] == [(key, at) for key, at, _ in expected]
    for row, (_, at, part) in zip(rows, expected, strict=True):
        assert row["part"] == ("observation" if at == -1 else "component")
        assert row["code_code"] == first(part, "code", "coding", "code")
        quantity = part.get("valueQuantity", {})
        assert (row["value_quantity"], row["value_unit"]) == (quantity.get("value"), quantity.get("unit"))
        assert row["value_code"] == first(part, "valueCodeableConcept", "coding", "code")
        assert row["value_string"] == part.get("valueString")


@pytest.mark.parametrize("resource_type", sorted(VIEW_OF))
def test_a_resource_with_only_an_id_gives_one_row_of_nulls(resource_type: str, run_view: RunView) -> None:
    [row] = rows_of(run_view, resource_type, [{"resourceType": resource_type, "id": "only"}])
    filled = {name: value for name, value in row.items() if value not in (None, [], 0)}
    assert {**filled, "part": None, "part_index": None} == {
        "connection": "site",
        "key": "only",
        "part": None,
        "part_index": None,
    }


def _concept(number: int) -> Json:
    codings = [{"system": f"http://s{n}", "code": f"c{number}{n}", "display": f"d{n}"} for n in range(2)]
    return {"coding": codings, "text": f"t{number}"}


CONCEPTS, REFERENCE = [_concept(n) for n in range(2)], {"reference": "Practitioner/a"}
REFERENCES = [REFERENCE, {"reference": "http://ehr/fhir/Practitioner/b/_history/2"}, {"display": "no reference"}]
SEVERAL_OF_EVERYTHING: list[Json] = [
    {
        "resourceType": "Patient",
        "id": "p",
        "identifier": [
            {"type": _concept(1), "value": "1"},
            {"type": {"text": "MRN"}, "value": "2"},
            {"type": {"coding": [{"code": "MR"}]}, "value": "3"},
        ],
        "name": [{"use": "old", "family": "A"}, {"family": "B", "given": [None, "C", "D"]}, {"use": "official"}],
        "telecom": [{"system": "phone", "value": "1"}, {"system": "phone", "value": "2"}],
        "address": [{"line": ["x", "y"]}, {"line": ["z"]}],
        "communication": [{"language": concept} for concept in CONCEPTS],
        "maritalStatus": CONCEPTS[0],
        "generalPractitioner": REFERENCES,
        "extension": [
            {"url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race", "extension": extensions}
            for extensions in [[{"url": "ombCategory", "valueCoding": {"code": code}} for code in "ab"]] * 2
        ],
    },
    {
        "resourceType": "Encounter",
        "id": "e",
        "type": CONCEPTS,
        "reasonCode": CONCEPTS,
        "participant": [{"individual": ref} for ref in REFERENCES],
        "location": [{"location": {"reference": f"Location/{n}", "display": f"l{n}"}} for n in range(2)],
        "hospitalization": {"admitSource": CONCEPTS[0], "dischargeDisposition": CONCEPTS[1]},
    },
    {
        "resourceType": "Condition",
        "id": "c",
        "category": CONCEPTS,
        "code": CONCEPTS[0],
        "clinicalStatus": CONCEPTS[0],
        "severity": CONCEPTS[1],
    },
    {
        "resourceType": "Observation",
        "id": "o",
        "category": CONCEPTS,
        "code": CONCEPTS[0],
        "interpretation": CONCEPTS,
        "referenceRange": [{"low": {"value": 1}}, {"low": {"value": 2}}],
        "valueCodeableConcept": CONCEPTS[1],
        "component": [{"code": concept, "interpretation": CONCEPTS} for concept in CONCEPTS],
    },
    {
        "resourceType": "MedicationRequest",
        "id": "m",
        "category": CONCEPTS,
        "medicationCodeableConcept": CONCEPTS[0],
        "reasonCode": CONCEPTS,
        "reasonReference": [{"reference": "Condition/1"}, {"reference": "Condition/2"}],
        "dosageInstruction": [
            {"route": CONCEPTS[0], "doseAndRate": [{"doseQuantity": {"value": n, "unit": "mg"}} for n in range(2)]},
            {"text": "second"},
        ],
    },
    {
        "resourceType": "AllergyIntolerance",
        "id": "a",
        "category": ["food", "medication"],
        "code": CONCEPTS[0],
        "reaction": [{"manifestation": CONCEPTS}, {"manifestation": CONCEPTS}],
    },
    {
        "resourceType": "Immunization",
        "id": "i",
        "vaccineCode": CONCEPTS[0],
        "protocolApplied": [{"series": "a", "doseNumberPositiveInt": 1}, {"series": "b"}],
        "site": CONCEPTS[0],
    },
    {
        "resourceType": "Procedure",
        "id": "r",
        "code": CONCEPTS[0],
        "reasonCode": CONCEPTS,
        "bodySite": CONCEPTS,
        "performer": [{"actor": ref} for ref in REFERENCES],
        "reasonReference": [{"reference": "Condition/1"}, {"reference": "Condition/2"}],
    },
    {
        "resourceType": "DiagnosticReport",
        "id": "d",
        "category": CONCEPTS,
        "code": CONCEPTS[0],
        "performer": REFERENCES,
        "result": [{"reference": "Observation/1"}, {"reference": "Observation/2"}],
        "conclusionCode": CONCEPTS,
        "presentedForm": [{"contentType": "a/b"}, {"contentType": "c/d"}],
    },
    {
        "resourceType": "DocumentReference",
        "id": "x",
        "type": CONCEPTS[0],
        "category": CONCEPTS,
        "author": REFERENCES,
        "content": [{"attachment": {"contentType": "a/b", "data": "eA=="}}, {"attachment": {"url": "u"}}],
        "context": {"encounter": [{"reference": "Encounter/1"}, {"reference": "Encounter/2"}]},
    },
]


def test_multiple_values_everywhere_break_no_view(run_view: RunView) -> None:
    rows = {kind: rows_of(run_view, kind, SEVERAL_OF_EVERYTHING) for kind in VIEW_OF}
    assert {kind: len(found) for kind, found in rows.items()} == {**dict.fromkeys(VIEW_OF, 1), "Observation": 3}
    patient = rows["Patient"][0]
    assert (patient["mrn"], patient["given_names"], patient["address_line"]) == ("2", "C D", "x, y")
    assert patient["race_code"] == "a"
    assert rows["Encounter"][0]["type_codes"] == ["c00", "c01", "c10", "c11"]
    assert rows["Encounter"][0]["practitioner_key"] == "a"
    assert rows["DiagnosticReport"][0]["result_keys"] == ["1", "2"]
    assert rows["DiagnosticReport"][0]["result_count"] == 2
    assert rows["DocumentReference"][0]["content_inline"] is True
    assert rows["MedicationRequest"][0]["dose_unit"] == "mg"


def _cut(node: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    """The same JSON with some of its nodes absent, null or empty."""
    fate = draw(st.sampled_from(["keep"] * 8 + ["null", "empty", "bare"]))
    if fate == "null":
        return None
    if isinstance(node, dict):
        kept = [key for key in node if draw(st.integers(0, 9))]
        return {} if fate == "empty" else {key: _cut(node[key], draw) for key in kept}
    if isinstance(node, list):
        # some EHRs write an object where the specification wants an array of one
        return [] if fate == "empty" else _cut(node[0], draw) if fate == "bare" else [_cut(item, draw) for item in node]
    return node


@settings(max_examples=60)
@given(data=st.data(), whole=st.sampled_from(SEVERAL_OF_EVERYTHING))
def test_missing_data_breaks_no_view(data: st.DataObject, whole: Json, run_view: RunView) -> None:
    kind = whole["resourceType"]
    resource = {key: _cut(value, data.draw) for key, value in whole.items()} | {"resourceType": kind, "id": "x"}
    assert len(rows_of(run_view, kind, [resource])) >= 1


def test_numbers_reach_the_table_with_their_digits_unchanged(postgres: Any) -> None:
    body = '{"resourceType": "Observation", "id": "o", "valueQuantity": {"value": 1.500}}'
    source = sql.SQL("(SELECT 'site'::text AS connection, 'o'::text AS id, {}::jsonb AS body)").format(
        sql.Literal(body)
    )
    query = compile_view(load_view("observation").definition, source).query
    cursor = postgres.execute(query)
    row = dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))
    assert str(row["value_quantity"]) == str(Decimal("1.500"))
