"""In whose charts a resource lies."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.patients.compartment import PATHS
from connectors.fhir.patients.membership import nameless
from connectors.fhir.records import UnreadableResourceError, page_from, record_from
from connectors.fhir.transport.fhir_base import FhirBase
from snapshots.record import Record

URL = "https://ehr.example.org/fhir/r4"
BASE = FhirBase(URL)
SHARED = Path(__file__).resolve().parents[4] / "shared"
IDS = st.text("abcXYZ019-.", min_size=1, max_size=64)
PLACES = [(kind, path) for kind, paths in PATHS.items() for path in paths]


def at(path: str, value: object, *, lists: bool = False) -> dict[str, Any]:
    """An object that holds a value at a path; as single elements, or each one a list of one."""
    for name in reversed(path.split(".")):
        value = {name: [value] if lists else value}
    assert isinstance(value, dict)
    return value


def record(kind: str, *, identity: str = "r1", **elements: object) -> Record:
    return record_from(orjson.dumps({"resourceType": kind, "id": identity, **elements}), BASE)


def whose(found: Record) -> tuple[str, ...]:
    """The patients of a row beside a Patient's own."""
    first = () if found.patient_id is None or found.resource_type == "Patient" else (found.patient_id,)
    return (*first, *found.others)


def reference(patient: str) -> dict[str, str]:
    return {"reference": f"Patient/{patient}"}


# -- where patients are named


@pytest.mark.parametrize(("kind", "path"), PLACES)
@pytest.mark.parametrize("lists", [False, True])
def test_a_patient_named_in_any_compartment_element_owns_the_row(kind: str, path: str, lists: bool) -> None:
    assert whose(record(kind, **at(path, reference("p1"), lists=lists))) == ("p1",)


@pytest.mark.parametrize(("kind", "path"), PLACES)
def test_the_position_of_the_type_and_escaped_slashes_do_not_matter(kind: str, path: str) -> None:
    body = orjson.dumps({"id": "r1", **at(path, reference("p1")), "resourceType": kind})
    assert whose(record_from(body, BASE)) == ("p1",)
    assert whose(record_from(body.replace(b"Patient/p1", rb"Patient\/p1"), BASE)) == ("p1",)
    assert whose(record_from(orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2), BASE)) == ("p1",)


def test_all_listed_patients_own_the_row_once_each_and_in_order() -> None:
    members = [{"entity": reference(one)} for one in ("p2", "p1", "p2", "p3")]
    found = record("Group", member=[*members, {"entity": {"reference": "Practitioner/d1"}}, {"inactive": True}])
    assert (found.patient_id, found.others) == ("p2", ("p1", "p3"))


@pytest.mark.parametrize(
    "value",
    [["Patient/p1", "Patient/p2"], {"0": reference("p1"), "1": reference("p2")}, [reference("p1"), "Patient/p2"]],
)
@pytest.mark.parametrize(("kind", "path"), [("Observation", "subject"), ("Provenance", "target"), ("Task", "for")])
def test_patients_named_in_unusual_shapes_own_the_row(value: object, kind: str, path: str) -> None:
    assert whose(record(kind, **at(path, value))) == ("p1", "p2")


def test_a_text_in_place_of_a_reference_is_read_as_one() -> None:
    assert whose(record("Observation", subject="Patient/p1", performer=["Patient/p2", "Practitioner/d1"])) == (
        "p1",
        "p2",
    )
    assert whose(record("Appointment", participant={"0": {"actor": "Patient/p1"}})) == ("p1",)


def test_the_subject_comes_first_and_other_roles_after_it() -> None:
    found = record(
        "Communication", recipient=[reference("p3"), reference("p1")], sender=reference("p2"), subject=reference("p1")
    )
    assert (found.patient_id, found.others) == ("p1", ("p2", "p3"))
    found = record("Coverage", subscriber=reference("p2"), beneficiary=reference("p1"), payor=[reference("p2")])
    assert (found.patient_id, found.others) == ("p1", ("p2",))


def test_a_patient_owns_its_own_row_first_and_then_linked_patients_do() -> None:
    links = [{"other": reference("p1")}, {"other": reference("p2")}, {"other": {"reference": "RelatedPerson/r"}}]
    found = record("Patient", identity="p1", link=links)
    assert (found.patient_id, found.others) == ("p1", ("p2",))


def test_elements_that_are_not_of_the_compartment_name_nobody() -> None:
    assert whose(record("Observation", focus=[reference("p1")], note=[{"authorReference": reference("p1")}])) == ()
    assert whose(record("Goal", contained=[{"resourceType": "Observation", "subject": reference("p1")}])) == ()


# -- which references are ours


@pytest.mark.parametrize(
    ("text", "patient"),
    [
        ("Patient/p1", "p1"),
        ("/Patient/p1", "p1"),
        ("Patient/p1/_history/2", "p1"),
        (" Patient/p1\n", "p1"),
        ("Patient/p1/", "p1"),
        (f"{URL}/Patient/p1", "p1"),
        (f"{URL}//Patient/p1", "p1"),
        (f"{URL}/Patient/p1/_history/2", "p1"),
        ("HTTPS://EHR.Example.org:443/fhir/r4/Patient/p1", "p1"),
        ("http://ehr.example.org/fhir/r4/Patient/p1", "p1"),
        ("http://ehr.example.org:80/fhir/r4/Patient/p1", "p1"),
        ("//ehr.example.org/fhir/r4/Patient/p1", "p1"),
        ("/fhir/r4/Patient/p1", "p1"),
        ("Patient/eXK~_=:|+%", "eXK~_=:|+%"),
        ("https://other-hospital.example/fhir/r4/Patient/p1", None),
        ("https://other-hospital.example/Patient/p1", None),
        ("https://ehr.example.org/fhir/dstu2/Patient/p1", None),
        ("https://ehr.example.org/FHIR/R4/Patient/p1", None),
        ("https://ehr.example.org/Patient/p1", None),
        ("https://ehr.example.org:8443/fhir/r4/Patient/p1", None),
        ("https://ehr.example.org.evil.example/fhir/r4/Patient/p1", None),
        ("https://ehr.example.org@evil.example/fhir/r4/Patient/p1", None),
        ("https://evil.example?https://ehr.example.org/fhir/r4/Patient/p1", None),
        ("https://ehr.example.org?x=/fhir/r4/Patient/p1", None),
        ("//other-hospital.example/fhir/r4/Patient/p1", None),
        ("../dstu2/Patient/p1", None),
        ("Practitioner/Patient/p1", None),
        ("RelatedPatient/p1", None),
        ("Patient/p1/Observation/o1", None),
        ("Patient?identifier=x|7", None),
        ("urn:uuid:Patient/p1", None),
        ("#p1", None),
        ("#Patient/p1", None),
        ("Patient/", None),
        ("Patient/p 1", None),
        ("Patient/p1\u0000", None),
        ("p1", None),
        ("", None),
    ],
)
def test_a_reference_names_our_patient_only_below_our_base(text: str, patient: str | None) -> None:
    assert record("Observation", subject={"reference": text}).patient_id == patient
    assert record("Provenance", target=[{"reference": text}]).patient_id == patient


BASES = ("http://127.0.0.1:8080/fhir", "https://h", "https://H:443/a/b/", "http://[::1]:9/f", "http://h.example/f")


@pytest.mark.parametrize("base", BASES)
def test_any_base_knows_its_own_patients_and_no_others(base: str) -> None:
    own = FhirBase(base)
    for written in BASES:
        assert own.patient(f"{written.rstrip('/')}/Patient/p1") == ("p1" if written == base else None)
        assert own.patient(f"{written.rstrip('/')}/x/Patient/p1") is None
    assert FhirBase(f"{base.rstrip('/')}/").patient(f"{base.rstrip('/')}/Patient/p1") == "p1"


def test_an_http_reference_to_a_server_reached_by_https_at_another_port_is_local() -> None:
    assert FhirBase("https://h:8443/f").patient("http://h/f/Patient/p1") == "p1"
    assert FhirBase("https://h:8443/f").patient("http://h:8080/f/Patient/p1") is None


def test_nobody_is_named_by_an_identifier_a_display_or_a_contained_patient() -> None:
    contained = [{"resourceType": "Patient", "id": "p1"}]
    assert record("Condition", subject={"reference": "#p1"}, contained=contained).patient_id is None
    assert record("Condition", subject={"identifier": {"value": "Patient/p1"}, "type": "Patient"}).patient_id is None
    assert record("Condition", subject={"display": "Patient/p1"}).patient_id is None


FORMS = st.sampled_from(
    [
        ("Patient/{}", True), ("Patient/{}/_history/3", True), (URL + "/Patient/{}", True), ("/Patient/{}", True),
        ("https://other-hospital.example/fhir/r4/Patient/{}", False), ("#{}", False), ("urn:uuid:{}", False),
        ("Practitioner/{}", False), ("Patient?identifier={}", False),
    ]
)  # fmt: skip
SHAPES = st.builds(lambda form, one: ({"reference": form[0].format(one)}, one if form[1] else None), FORMS, IDS)
ODD = st.sampled_from(
    [None, 7, "p1", {}, [], [[{"reference": "Patient/p1"}]], {"reference": 7}, {"identifier": {"value": "1"}}]
)


@given(place=st.sampled_from(PLACES), shapes=st.lists(SHAPES, max_size=6), odd=st.lists(ODD, max_size=3))
def test_only_our_patients_own_a_row_whatever_a_list_contains(
    place: tuple[str, str], shapes: list[tuple[dict, str | None]], odd: list[object]
) -> None:
    kind, path = place
    *above, last = path.split(".")
    values = [one for one, _ in shapes] + odd
    body = at(".".join(above), [{last: one} for one in values]) if above else {last: values}
    found = record(kind, identity="of nobody".replace(" ", "-"), **body)
    assert whose(found) == tuple(dict.fromkeys(one for _, one in shapes if one is not None))


@given(st.text(max_size=60), st.sampled_from(PLACES))
def test_any_reference_text_gives_one_of_our_patients_or_nobody(text: str, place: tuple[str, str]) -> None:
    found = whose(record(place[0], **at(place[1], {"reference": text})))
    assert all(one and "/" not in one and one in text for one in found)


def test_invalid_json_in_an_element_makes_the_resource_unreadable_and_not_ownerless() -> None:
    body = b'{"resourceType":"Appointment","id":"a","participant":[{"actor":{"reference":"Patient/\xff"}}]}'
    with pytest.raises(UnreadableResourceError):
        record_from(body, BASE)


# -- whose search returned it


def test_a_row_without_a_patient_belongs_to_the_patient_whose_search_returned_it() -> None:
    rows = [
        record("Condition", subject={"identifier": {"value": "7"}}),
        record("Condition", subject={"reference": "#p"}),
        record("Condition", subject={"reference": "https://inside.example:8080/r4/Patient/p1"}),
    ]
    assert all(nameless(one, "Condition", "p1") for one in rows)


def test_a_row_that_names_a_patient_belongs_to_that_patient() -> None:
    rows = [record("Condition", subject=reference("p1")), record("Condition", subject=reference("p2"))]
    assert not any(nameless(one, "Condition", "p1") for one in rows)


def test_included_rows_and_patients_do_not_belong_to_the_search() -> None:
    rows = [record("Medication"), record("Patient", identity="p2")]
    assert not any(nameless(one, "MedicationRequest", "p1") or nameless(one, "Patient", "p1") for one in rows)
    assert not nameless(record("Organization"), "Organization", None)


# -- as seen in the wild


def test_another_servers_patient_with_the_same_id_is_not_ours() -> None:
    """Night n10: another hospital's Patient/p1, in an export of ours."""
    found = record("Observation", subject={"reference": "https://other-hospital.example/fhir/Patient/p1"})
    assert (found.patient_id, found.others) == (None, ())


def test_every_row_of_a_chart_has_its_patient_however_named() -> None:
    """Case 03: of seven resources, five name their patient elsewhere than in one literal subject."""
    page = page_from(
        orjson.dumps(
            {
                "resourceType": "Bundle",
                "entry": [
                    {"resource": {"id": "1", **one}}
                    for one in (
                        {"resourceType": "Account", "subject": [reference("p1")]},
                        {"resourceType": "Appointment", "participant": [{"actor": reference("p1")}]},
                        {"resourceType": "Provenance", "target": [reference("p1")]},
                        {"resourceType": "ResearchSubject", "individual": reference("p1")},
                        {
                            "resourceType": "Condition",
                            "subject": {"identifier": {"system": "urn:example:mrn", "value": "7"}},
                        },
                        {"resourceType": "Communication", "subject": reference("p1")},
                        {"resourceType": "Patient", "id": "p1"},
                    )
                ],
            }
        ),
        BASE,
        where="page 1",
    )
    assert {one.resource_type: one.patient_id for one in page.records} == {
        "Account": "p1", "Appointment": "p1", "Provenance": "p1", "ResearchSubject": "p1", "Condition": None,
        "Communication": "p1", "Patient": "p1",
    }  # fmt: skip
    assert {one.resource_type for one in page.records if nameless(one, "Condition", "p1")} == {"Condition"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data beside the checkout (../shared) is not here")
def test_the_synthetic_charts_belong_to_their_subjects() -> None:
    charts = SHARED / "data" / "synthea-40"
    for kind, element in (("Observation", "subject"), ("Claim", "patient"), ("ExplanationOfBenefit", "patient")):
        lines = gzip.decompress((charts / f"{kind}.ndjson.gz").read_bytes()).splitlines()[:200]
        for line in lines:
            found = record_from(line, BASE)
            assert f"Patient/{found.patient_id}" == orjson.loads(line)[element]["reference"]
            assert found.others == ()
