"""What leaves by the profile `safe-harbor`: nothing that the list does not allow, whatever the shape, and nothing of anybody."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exports.elements.table import element, elements_of
from exports.safe_harbor.allow_list import allowed_paths
from exports.safe_harbor.datatypes import CODES, RULES, SMALL_ZIP3
from exports.safe_harbor.dates import days_of
from exports.safe_harbor.deidentify import Deidentifier, SafeHarbor
from mocks.synthetic.generator import generate
from mocks.synthetic.json_bytes import to_json_bytes
from tests.identifying_values import leaves, values_of_people, words_of_names

PROFILE = SafeHarbor(b"k" * 32, 2026)
KEYED = re.compile(r"(?:[A-Z][A-Za-z]+/)?[0-9a-f]{32}")
LEAVES = {
    *("code", "system", "value", "comparator", "start", "end", "reference", "state", "postalCode", "currency"),
    *("sequence", "asNeededBoolean"),
}
LOINC_AGE = {"coding": [{"system": "http://loinc.org", "code": "30525-0"}]}
HEIGHT = {"coding": [{"system": "http://loinc.org", "code": "8302-2"}]}


def released(resource: dict[str, Any], profile: SafeHarbor = PROFILE) -> Any:
    found = Deidentifier(profile).line(resource["resourceType"], json.dumps(resource).encode())
    return None if found is None else json.loads(found.text)


def patient(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "p1", **more}


def test_each_listed_path_is_an_r4_element_whose_type_has_a_rule() -> None:
    for resource_type, paths in allowed_paths().items():
        for path in paths:
            of = resource_type
            *above, last = path.split(".")
            for name in above:
                found = element(of, name)
                assert found is not None, (resource_type, path)
                (of,) = found.types
            found = element(of, last.removesuffix("[x]"))
            assert found is not None, (resource_type, path)
            assert found.choice == last.endswith("[x]"), (resource_type, path)
            assert set(found.types) & RULES.keys(), (resource_type, path)
    assert not {"string", "markdown", "Identifier", "Extension", "Attachment", "HumanName", "uri", "url"} & RULES.keys()


def search(resources: Iterable[dict[str, Any]], encode: Any = lambda one: json.dumps(one).encode()) -> int:
    """De-identify all, and search what leaves for everything by which somebody could be known; the number of what left."""
    everything = list(resources)
    values, words = values_of_people(everything), words_of_names(everything)
    deidentifier = Deidentifier(PROFILE)
    left = 0
    for one in everything:
        found = deidentifier.line(one["resourceType"], encode(one))
        if found is None:
            continue
        left += 1
        text = json.loads(found.text)
        assert not re.search(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}|[^ -~\n]|@|urn:oid", found.text), (
            "no day, no name in it, no URL"
        )
        for path, value in leaves({**text, "resourceType": None}):
            if path[-1] in {"id", "reference"}:
                assert KEYED.fullmatch(value), path
                continue
            word = str(value).lower()
            assert not words & set(re.split(r"\W+", word)), path
            assert path[-1] in {"code", "system", "value"} or word not in values, path
            if path[-1] == "postalCode":
                assert re.fullmatch("[0-9]{3}", value)
    return left


def test_no_identifying_value_of_a_synthetic_patient_is_exported() -> None:
    assert search(generate(12), to_json_bytes) > 1000


def test_no_identifying_value_of_a_synthea_patient_is_exported(synthea_dir: Path) -> None:
    def read() -> Iterator[dict[str, Any]]:
        for path in sorted(synthea_dir.glob("*.ndjson.gz")):
            lines = gzip.decompress(path.read_bytes()).splitlines()
            yield from (json.loads(line) for line in (lines if path.name.startswith("Patient") else lines[:300]))

    assert search(read()) > 1000


CANARIES = (
    "Zebulon", "Zebulon Quill-Wren", "1950-02-03", "1950-02-03T04:05:06Z", "555-12-3456", "617-555-0123", "MRN777", "z@quill.org",
    "https://ehr.example.org/fhir/Patient/MRN777", "12 Larch Lane", "02139-1234", "#MRN777", "urn:uuid:zebulon", "MRN777\n2020",
)  # fmt: skip
VALID = (
    "2020",
    "1.5",
    "male",
    "final",
    "MA",
    "http://loinc.org",
    "8302-2",
    "Patient/MRN777",
    "http://unitsofmeasure.org",
    "cm",
)
OF_TYPES = ("Patient", "Observation", "Address", "CodeableConcept", "Quantity", "Element")
CHOICES = (
    "valueString",
    "valueQuantity",
    "valueCodeableConcept",
    "valueDateTime",
    "deceasedDateTime",
    "effectiveDateTime",
)
INNER = ("coding", "system", "display", "start", "reference")
UNKNOWN = ("_birthDate", "_status", "Zebulon", "MRN777", "1950-02-03")
PROPERTIES = st.sampled_from(
    [*sorted({name for of in OF_TYPES for name in elements_of(of)}), *CHOICES, *INNER, *UNKNOWN]
)
ANYTHING = st.recursive(
    st.sampled_from([*CANARIES, *VALID, 6175550123, 19500203, 7, 1.5, True, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PROPERTIES, inner, max_size=5),
    max_leaves=20,
)


@example("Patient", {"address": [{"country": [{}], "state": {}, "postalCode": []}]})
@example("Observation", {"code": HEIGHT, "valueQuantity": {"value": 1, "comparator": {}, "code": [], "system": {}}})
@example("Observation", {"code": {"coding": [{"system": [], "code": {}}]}, "component": [{"code": []}]})
@given(st.sampled_from(sorted(allowed_paths())), st.dictionaries(PROPERTIES, ANYTHING, max_size=8))
def test_no_forbidden_leaf_is_exported_from_a_resource_of_any_shape(resource_type: str, fields: dict[str, Any]) -> None:
    resource = {**fields, "resourceType": resource_type, "id": "MRN777"}
    deidentifier = Deidentifier(PROFILE)
    found = deidentifier.line(resource_type, json.dumps(resource).encode())
    if found is None:
        return
    assert not re.search(rb"zebulon|quill|mrn777|1950-?02|555|larch|02139|@|urn:|\n.", found.text, re.IGNORECASE)
    for path, value in leaves(json.loads(found.text)):
        if path in {("resourceType",), ("id",)}:
            continue
        steps = ".".join(re.sub(r"^(value|deceased|effective)[A-Z].*", r"\1[x]", step) for step in path)
        assert any(steps == one or steps.startswith(f"{one}.") for one in allowed_paths()[resource_type]), path
        assert path[-1] in LEAVES or not isinstance(value, str) or value in CODES or re.fullmatch("[0-9]{4}", value), (
            path
        )
    report = json.dumps([deidentifier.dropped, deidentifier.left_out])
    assert not re.search("zebulon|mrn777|1950", report, re.IGNORECASE), "what was dropped is told by R4's names alone"


def test_dates_are_cut_to_the_year_and_ages_over_89_are_one_group() -> None:
    births = {
        date: released(patient(birthDate=date)).get("birthDate")
        for date in ("1937-12-31", "1936-01-01", "1900", "x", 7)
    }
    assert births == {"1937-12-31": "1937", "1936-01-01": "1936", "1900": "1936", "x": None, 7: None}
    deaths = [released(patient(deceasedDateTime=date)) for date in ("1999-08-07T06:05:04Z", "1936-05-05")]
    assert [one.get("deceasedDateTime") for one in deaths] == ["1999", None]
    ages = [{"value": 89, "code": "a"}, {"value": 90, "code": "a"}, {"value": 1080, "code": "mo"}, {"value": 40}]
    ages.append({"value": 85, "code": "a", "comparator": ">"})
    unit = {"system": "http://unitsofmeasure.org"}
    onsets = [
        released({"resourceType": "Condition", "id": "c", "onsetAge": {**unit, **age}}).get("onsetAge") for age in ages
    ]
    assert [one and one["value"] for one in onsets] == [89, None, None, None, None]
    for value in (
        {"valueInteger": 95},
        {"valueQuantity": {"value": 95}},
        {"valueQuantity": {"value": 95, **unit, "code": "a"}},
    ):
        observed = released({"resourceType": "Observation", "id": "o", "code": LOINC_AGE, **value})
        assert not any(name.startswith("value") for name in observed)


@pytest.mark.parametrize(
    ("age", "year", "leaves_"), [(85, "2015-01-01", False), (85, "2022", True), (78, "2015", True), (79, "2015", False)]
)
def test_an_age_that_makes_somebody_over_89_today_is_removed(age: int, year: str, leaves_: bool) -> None:
    years = {"value": age, "system": "http://unitsofmeasure.org", "code": "a"}
    condition: dict[str, Any] = {"resourceType": "Condition", "id": "c", "recordedDate": year}
    assert ("onsetAge" in released({**condition, "onsetAge": years})) == leaves_
    assert ("onsetRange" in released({**condition, "onsetRange": {"high": years}})) == leaves_
    observed: dict[str, Any] = {
        "resourceType": "Observation",
        "id": "o",
        "code": LOINC_AGE,
        "effectivePeriod": {"start": year},
    }
    assert ("valueQuantity" in released({**observed, "valueQuantity": years})) == leaves_


def test_a_year_more_than_ten_years_ahead_does_not_count_as_a_year() -> None:
    assert "birthDate" not in released(patient(birthDate="6789"))
    period = {"start": "2036-01-01", "end": "2037-01-01"}
    assert released({"resourceType": "CarePlan", "id": "c", "period": period})["period"] == {"start": "2036"}


@pytest.mark.parametrize(("system", "code"), [("http://loinc.org", "39016-1"), ("http://snomed.info/sct", "424144002")])
def test_an_age_at_death_or_of_snomed_ct_is_an_age_too(system: str, code: str) -> None:
    observed = {"resourceType": "Observation", "id": "o", "code": {"coding": [{"system": system, "code": code}]}}
    assert "valueInteger" not in released({**observed, "valueInteger": 95})
    years = {"value": 40, "system": "http://unitsofmeasure.org", "code": "a"}
    assert released({**observed, "valueQuantity": years})["valueQuantity"] == years


def test_zip_codes_keep_three_digits_or_none_where_few_people_live() -> None:
    assert len(SMALL_ZIP3) == 17
    written = ("02139", "02139-4307", "03601", "2139", "SW1A 1AA", 2139)
    found = [released(patient(address=[{"postalCode": code, "city": "Larch"}])).get("address") for code in written]
    assert found == [[{"postalCode": "021"}], [{"postalCode": "021"}], [{"postalCode": "000"}], None, None, None]
    abroad = patient(
        address=[{"postalCode": "02139", "country": "DE", "state": "MA"}, {"state": "MA"}, {"state": "Bavaria"}]
    )
    assert released(abroad)["address"] == [{"state": "MA"}]


def test_a_postal_code_of_an_unknown_us_state_is_removed() -> None:
    assert "address" not in released(patient(address=[{"postalCode": "80331", "state": "Bavaria"}]))
    written = patient(address=[{"postalCode": "80331", "state": "Colorado", "country": "US"}])
    assert released(written)["address"] == [{"postalCode": "803"}]


def test_a_zip_code_of_the_armed_forces_has_no_digits() -> None:
    found = released(patient(address=[{"postalCode": code, "country": "US"} for code in ("09096", "34002", "96349")]))
    assert found["address"] == [{"postalCode": "000"}] * 3


def test_references_still_lead_to_their_targets_and_another_key_gives_other_ids() -> None:
    observed = {
        "resourceType": "Observation",
        "id": "o1",
        "code": HEIGHT,
        "subject": {"reference": "Patient/p1", "display": "Z"},
    }
    assert released(observed)["subject"] == {"reference": f"Patient/{released(patient())['id']}"}
    assert released(patient())["id"] != released(patient(), SafeHarbor(b"o" * 32, 2026))["id"]
    assert released(patient())["id"] != released({"resourceType": "Observation", "id": "p1"})["id"]
    for elsewhere in ("https://ehr.example.org/Patient/p1", "#p1", "urn:uuid:p1", "Somebody/p1", "Patient?name=z"):
        assert "subject" not in released({**observed, "subject": {"reference": elsewhere}})


def test_numbers_keep_their_digits_and_local_codes_are_removed() -> None:
    line = (
        b'{"resourceType": "Observation", "id": "o1", "status": "final", "code": {"text": "Height", "coding": ['
        b'{"system": "urn:oid:1.2", "code": "MRN777"}, {"system": "http://loinc.org", "code": "8302-2", "display": "Z"}]},'
        b' "valueQuantity": {"value": 1.50, "unit": "of Zebulon", "system": "http://unitsofmeasure.org", "code": "m"}}'
    )
    found = Deidentifier(PROFILE).line("Observation", line)
    assert found is not None
    assert b'"value":1.50,' in found.text
    assert json.loads(found.text)["code"] == HEIGHT
    unnamed = {"resourceType": "Observation", "id": "o1", "code": {"text": "telephone"}, "valueInteger": 5550123}
    assert "valueInteger" not in released(unnamed), "nothing says what it is"


@pytest.mark.parametrize(
    ("system", "code"),
    [("http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "UNK"), ("urn:ietf:bcp:47", "mrn")],
)
def test_a_value_with_an_uninformative_code_is_removed(system: str, code: str) -> None:
    unnamed = {"code": {"coding": [{"system": system, "code": code}], "text": "record number"}, "valueInteger": 7}
    found = released({"resourceType": "Observation", "id": "o1", **unnamed, "component": [unnamed]})
    assert "valueInteger" not in found
    assert "valueInteger" not in found["component"][0]


@pytest.mark.parametrize("value", [{"valueInteger": 90210}, {"valueQuantity": {"value": 5550123, "unit": "telephone"}}])
def test_a_number_without_a_unit_that_may_be_a_telephone_number_or_zip_code_is_removed(value: dict[str, Any]) -> None:
    assert not released({"resourceType": "Observation", "id": "o1", "code": HEIGHT, **value}).keys() & value.keys()
    unit = {"system": "http://unitsofmeasure.org", "code": "/uL"}
    counted = {"resourceType": "Observation", "id": "o1", "code": HEIGHT, "valueQuantity": {"value": 250000, **unit}}
    assert released(counted)["valueQuantity"] == {"value": 250000, **unit}


@pytest.mark.parametrize("unit", ["1", "10*", "10*3", "10*.10^2", "1/1", "/1", "%"])
def test_a_dimensionless_unit_allows_no_more_digits_than_no_unit(unit: str) -> None:
    def left(value: int) -> bool:
        quantity = {"value": value, "system": "http://unitsofmeasure.org", "code": unit}
        observation = {"resourceType": "Observation", "id": "o1", "code": HEIGHT, "valueQuantity": quantity}
        return "valueQuantity" in released(observation)

    assert (left(9999), left(5550123)) == (True, False)


@pytest.mark.parametrize(
    ("unit", "leaves"),
    [("10*.a", False), ("1/1.a", False), ("a.1", False), ("a2", False), ("10*3/h", True), ("/min", True), ("min", True),
     ("mL/a", True)],
)  # fmt: skip
def test_a_multiple_of_a_time_may_be_an_age_in_disguise(unit: str, leaves: bool) -> None:
    quantity = {"value": 9, "system": "http://unitsofmeasure.org", "code": unit}
    observation = {"resourceType": "Observation", "id": "o1", "code": HEIGHT, "valueQuantity": quantity}
    assert ("valueQuantity" in released(observation)) == leaves


@pytest.mark.parametrize(
    "resource",
    [
        patient(modifierExtension=[{"url": "https://example.org/not"}]),
        patient(address=[{"state": "MA", "modifierExtension": []}]),
        {"resourceType": "Immunization", "id": "i", "status": "never given"},
        {"resourceType": "MedicationRequest", "id": "m", "doNotPerform": "true"},
        {"resourceType": "ServiceRequest", "id": "s", "intent": "wish"},
        {"resourceType": "Condition", "id": "c", "clinicalStatus": {"coding": [{"system": "urn:local", "code": "1"}]}},
        {"resourceType": "DocumentReference", "id": "d"},
        {"resourceType": "Patient"},
    ],
)
def test_a_resource_that_is_misleading_without_a_dropped_element_is_omitted_and_counted(
    resource: dict[str, Any],
) -> None:
    deidentifier = Deidentifier(PROFILE)
    assert deidentifier.line(resource["resourceType"], json.dumps(resource).encode()) is None
    assert deidentifier.left_out == {resource["resourceType"]: 1}


def test_dropped_elements_are_counted_by_path() -> None:
    deidentifier = Deidentifier(PROFILE)
    resource = patient(
        name=[{"family": "Z"}], gender=7, _birthDate={"extension": []}, contained=[], secret=1, birthDate="2000"
    )
    deidentifier.line("Patient", json.dumps(resource).encode())
    assert deidentifier.dropped == {
        "Patient.name": 1, "Patient.gender": 1, "Patient.contained": 1, "Patient: elements that R4 does not have": 2,
    }  # fmt: skip


SHIFTED = SafeHarbor(b"k" * 32, 2026, shifts_dates=True)


def moment_of(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def days_by_patient(resources: Iterable[dict[str, Any]]) -> dict[str, set[timedelta]]:
    """By how much the days and moments of each patient's resources were moved."""
    deidentifier = Deidentifier(SHIFTED)
    moved: dict[str, set[timedelta]] = {}
    for one in resources:
        found = deidentifier.resource(one["resourceType"], json.loads(to_json_bytes(one)))
        owners = [one[name]["reference"] for name in ("subject", "patient", "beneficiary") if name in one]
        owner = one["id"] if one["resourceType"] == "Patient" else "".join(owners)
        for name, value in (found or {}).items():
            dates = [(one[name], value)] if isinstance(value, str) else []
            if name.endswith("Period") or name == "period":
                dates = [(one[name][end], value[end]) for end in value]
            for before, after in dates:
                if re.match("[0-9]{4}-[0-9]{2}-[0-9]{2}", after):
                    days = moved.setdefault(owner.removeprefix("Patient/"), set())
                    days.add(moment_of(before) - moment_of(after))
    return moved


def test_all_dates_of_a_patient_shift_by_the_same_whole_days_and_other_patients_by_others() -> None:
    moved = days_by_patient(generate(12))
    assert len(moved) == 12
    by = [days.pop() for days in moved.values() if len(days) == 1]
    assert len(by) == 12, "each patient's dates were moved by one number of days"
    assert all(timedelta(1) <= one <= timedelta(364) and not one % timedelta(1) for one in by)
    assert len(set(by)) > 9


def test_a_shifted_date_keeps_its_precision_and_a_moment_is_in_utc() -> None:
    written = (
        "2020-03-01",
        "2020-03-01T23:30:00-05:00",
        "2020-03-01T08:00:00.250Z",
        "2020-03-01T08:00:00",
        "2020-03",
        "2020",
    )
    keyed = Deidentifier(SHIFTED)
    days = timedelta(days_of(b"k" * 32, "p1"))

    def shifted(value: str) -> Any:
        found = keyed.resource("Patient", patient(deceasedDateTime=value))
        assert found is not None
        return found.get("deceasedDateTime")

    day = (date(2020, 3, 1) - days).isoformat()
    next_day = (date(2020, 3, 2) - days).isoformat()
    middle = date(2020, 3, 16) - days
    year = str((date(2020, 7, 1) - days).year)
    expected = [day, f"{next_day}T04:30:00Z", f"{day}T08:00:00.250000Z", day, f"{middle:%Y-%m}", year]
    assert [shifted(value) for value in written] == expected
    assert [shifted(value) for value in ("2020-02-30", "2020-03-01Tx", "2037", "x")] == [None, day, None, None]


def test_a_patient_who_may_be_90_keeps_no_birth_date_and_no_date_of_those_years() -> None:
    keyed = Deidentifier(SHIFTED)
    old = keyed.resource("Patient", patient(birthDate="1936-12-31", deceasedDateTime="1936-05-05"))
    assert old is not None
    assert (old["birthDate"], "deceasedDateTime" in old) == ("1936", False)
    seems_old = keyed.resource("Patient", patient(birthDate="1937-01-01", deceasedDateTime="1937-01-02"))
    assert seems_old is not None
    assert (seems_old["birthDate"], "deceasedDateTime" in seems_old) == ("1936", False)
    young = keyed.resource("Patient", patient(birthDate="1938-01-01"))
    assert young is not None
    assert young["birthDate"] == (date(1938, 1, 1) - timedelta(days_of(b"k" * 32, "p1"))).isoformat()


@pytest.mark.parametrize(
    "owner",
    [
        {},
        {"subject": {"reference": "Group/g1"}},
        {"subject": {"reference": "https://ehr.example.org/Patient/p1"}},
        {"subject": {"reference": "Patient/p1"}, "patient": {"reference": "Patient/p2"}},
        {"subject": {"reference": "Patient/p1"}, "patient": ["Patient/p1"]},
        {"subject": {"display": "Zebulon"}},
    ],
)
def test_a_resource_without_a_patient_keeps_no_dates(owner: dict[str, Any]) -> None:
    """Its true year, beside moved dates of what it is linked with, would tell how far these were moved."""
    found = Deidentifier(SHIFTED).resource(
        "Condition", {"resourceType": "Condition", "id": "c", "recordedDate": "2020-03-01", **owner}
    )
    assert found is not None
    assert "recordedDate" not in found


def test_a_coverage_that_begins_with_the_year_does_not_reveal_the_date_shift() -> None:
    covered = {"resourceType": "Coverage", "id": "c", "period": {"start": "2025-01-01", "end": "2025-12-31"}}
    periods = [
        released({**covered, "beneficiary": {"reference": f"Patient/p{at}"}}, SHIFTED)["period"] for at in range(40)
    ]
    assert periods == [{"start": "2024", "end": "2025"}] * 40


@pytest.mark.parametrize(
    ("start", "end", "digits"),
    [
        ("2024-02-01", "2024-02-29", 4),
        ("2024-04-01T00:00:00-05:00", "2024-06-30T23:59:59-05:00", 4),
        ("2024-04-01", "2024-06-29", 10),
        ("2024-04-02", "2024-04-30", 10),
    ],
)
def test_the_length_of_a_period_of_whole_months_does_not_reveal_the_date_shift(
    start: str, end: str, digits: int
) -> None:
    claim = {"resourceType": "ExplanationOfBenefit", "id": "e", "patient": {"reference": "Patient/p1"}}
    found = released({**claim, "billablePeriod": {"start": start, "end": end}}, SHIFTED)
    assert {len(day) for day in found["billablePeriod"].values()} == {digits}


@given(st.text("abc123-.", min_size=1, max_size=9), st.binary(min_size=32, max_size=40))
def test_days_are_bounded_whatever_the_id_and_the_key(id_: str, key: bytes) -> None:
    assert 1 <= days_of(key, id_) <= 364
