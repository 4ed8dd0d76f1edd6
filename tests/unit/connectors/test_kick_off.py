"""How an export is requested, in every form, and what is tried after a refusal."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, parse_qsl, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.core.errors import PlanError
from connectors.fhir.bulk.kick_off import (
    DISPENSABLE,
    ExportParameters,
    Form,
    KickOffRefusal,
    check,
    first_form,
    kick_off,
    next_try,
    proofs,
    proofs_from,
    refusal_from,
    wants_partial,
    with_company,
)
from connectors.fhir.capability import Capability, capability_from
from connectors.fhir.vendors.cerner import CERNER
from connectors.fhir.vendors.epic import EPIC
from connectors.fhir.vendors.generic import GENERIC
from snapshots.export_job import BulkJob

BASE = "https://x/r4"
TYPES = st.lists(st.sampled_from(["Patient", "Condition", "Goal", "Observation"]), unique=True, max_size=4).map(tuple)
FILTERS = st.lists(
    st.sampled_from(
        ["Observation?category=a,b", "Condition?code=http://x|1&x=2", "Goal?status=active", "Patient?name=ü%2C"]
    ),
    unique=True,
    max_size=3,
).map(tuple)
INSTANTS = st.none() | st.sampled_from(["2024-01-01T00:00:00.000+01:00", "2024-01-01T00:00:00Z"])
ASKED = st.builds(
    ExportParameters,
    level=st.sampled_from(["system", "patient", "group"]),
    group=st.just("g/1"),
    types=TYPES,
    since=INSTANTS,
    until=INSTANTS,
    type_filters=FILTERS,
    elements=st.sampled_from([(), ("id",), ("id", "Patient.name")]),
    include=st.sampled_from([(), ("LatestProvenanceResources",)]),
    organize_by=st.sampled_from([None, "Patient"]),
    partial=st.booleans(),
)
FORMS = st.builds(
    Form,
    method=st.sampled_from(["GET", "POST"]),
    repeated=st.booleans(),
    comma=st.sampled_from(["percent", "backslash"]),
    version=st.sampled_from([1, 2, 3, 4]),
)


def test_a_get_joins_types_with_bare_commas_and_names_the_group_only_in_its_url() -> None:
    parameters = ExportParameters(
        level="group", group="g/1", types=("Patient", "Condition"), since="2024-01-01T00:00:00.000+01:00"
    )
    request = kick_off(BASE, parameters, Form())
    assert request.url == (
        "https://x/r4/Group/g%2F1/$export?_type=Patient,Condition&_since=2024-01-01T00:00:00.000%2B01:00"
    )
    assert "g%2F1" not in request.template
    assert request.headers == {"Prefer": "respond-async"}


@pytest.mark.parametrize(("comma", "leaves"), [("percent", "%252C"), ("backslash", "%5C,")])
def test_a_comma_within_a_filter_is_encoded_as_the_vendor_requires(comma: str, leaves: str) -> None:
    parameters = ExportParameters(level="system", types=("Goal",), type_filters=("Goal?status=a,b", "Goal?status=c"))
    url = kick_off(BASE, parameters, Form(comma=comma)).url
    assert url.endswith(f"_typeFilter=Goal%3Fstatus%3Da{leaves}b,Goal%3Fstatus%3Dc")


@given(ASKED, FORMS)
def test_every_form_carries_the_whole_request(parameters: ExportParameters, form: Form) -> None:
    request = kick_off(BASE, parameters, form)
    if request.method == "GET":
        sent = [(name, value) for name, value in parse_qsl(urlsplit(request.url).query)]
    else:
        assert "?" not in request.url
        sent = []
        for parameter in orjson.loads(request.body or b"")["parameter"]:
            (value,) = [value for name, value in parameter.items() if name != "name"]
            value = value.get("code") if isinstance(value, dict) else value
            sent.append((parameter["name"], {True: "true"}.get(value, value) if isinstance(value, bool) else value))
    by_name: dict[str, list[str]] = {}
    for name, value in sent:
        by_name.setdefault(name, []).append(value)
    assert ",".join(by_name.get("_type", [])) == ",".join(parameters.types)
    assert by_name.get("_since") == ([parameters.since] if parameters.since else None)
    assert by_name.get("_until") == ([parameters.until] if parameters.until else None)
    assert by_name.get("organizeOutputBy") == ([parameters.organize_by] if parameters.organize_by else None)
    assert by_name.get("allowPartialManifests") == (["true"] if parameters.partial else None)
    filters = by_name.get("_typeFilter", [])
    assert len(filters) == (len(parameters.type_filters) if form.repeated else bool(parameters.type_filters))


@given(ASKED, FORMS)
def test_the_displayed_form_contains_no_group_or_filter(parameters: ExportParameters, form: Form) -> None:
    template = kick_off(BASE, parameters, form).template
    assert "g/1" not in template
    assert not any(each in template for each in parameters.type_filters)


@given(ASKED, FORMS, st.data())
def test_any_refusals_end_the_attempts_and_never_narrow_the_request(
    parameters: ExportParameters, form: Form, data: st.DataObject
) -> None:
    first, tried = parameters, [(parameters, form)]
    for _ in range(200):
        named = data.draw(st.frozensets(st.sampled_from([*DISPENSABLE, "_type", "includeAssociatedData"]), max_size=2))
        status = data.draw(st.sampled_from([400, 405, 415, 422]))
        step = next_try(parameters, form, KickOffRefusal(status=status, named=named), tried)
        if step is None:
            break
        parameters, form = step[0], step[1]
        assert (parameters, form) not in tried
        tried.append((parameters, form))
    else:
        pytest.fail("the tries do not end")
    assert (parameters.types, parameters.include, parameters.patients, parameters.level) == (
        first.types,
        first.include,
        first.patients,
        first.level,
    )


def job_of(parameters: ExportParameters, form: Form) -> BulkJob:
    """The job as the store gives it back."""
    kept = orjson.loads(orjson.dumps(dict(proofs(parameters, form))))
    return BulkJob(
        kicked_off_at=datetime(2026, 1, 1, tzinfo=UTC), request="", asked=kept, elements=bool(parameters.elements)
    )


@given(ASKED, FORMS)
def test_a_stored_request_is_read_back_with_what_it_proves(parameters: ExportParameters, form: Form) -> None:
    kept = proofs_from(job_of(parameters, form))
    for resource_type in ("Patient", "Observation", "Goal"):
        whole = parameters.since is None and parameters.until is None and not parameters.elements
        filtered = any(each.startswith(f"{resource_type}?") for each in parameters.type_filters)
        assert kept.lists_all(resource_type) == (whole and not filtered)


def test_a_form_that_was_only_tried_is_not_assumed_to_be_understood() -> None:
    parameters = ExportParameters(level="system", types=("Patient", "Goal"))
    step = next_try(parameters, Form(), KickOffRefusal(status=400), [(parameters, Form())])
    assert step is not None
    assert not proofs_from(job_of(step[0], step[1])).all_types_understood


def test_named_patients_are_sent_in_a_body_and_never_by_get() -> None:
    parameters = ExportParameters(level="patient-list", patients=("p1", "p2"))
    form = first_form(CERNER, Capability(), parameters)
    request = kick_off(BASE, parameters, form)
    assert (request.method, request.url) == ("POST", "https://x/r4/Patient/$export")
    references = [each["valueReference"]["reference"] for each in orjson.loads(request.body or b"")["parameter"]]
    assert references == ["Patient/p1", "Patient/p2"]
    assert next_try(parameters, form, KickOffRefusal(status=405), [(parameters, form)]) is None


@pytest.mark.parametrize(
    ("version", "form"), [("1.0.1", ("GET", False)), ("3.0.0", ("GET", False)), ("4.0.0", ("POST", True))]
)
def test_the_declared_version_chooses_the_form(version: str, form: tuple[str, bool]) -> None:
    statement = {"instantiates": [f"http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data|{version}"]}
    found = first_form(GENERIC, capability_from(statement), ExportParameters(level="system"))
    assert (found.method, found.repeated) == form


@pytest.mark.parametrize(
    "text", ["|4", "bulkdata|", "bulkdata|x", "bulkdata|-1.0", "bulkdata|٤.0", "bulkdata|999999.0"]
)
def test_an_invalid_version_is_ignored(text: str) -> None:
    assert capability_from({"instantiates": [text]}).bulk_version is None


def test_partial_manifests_are_requested_where_the_declared_version_has_them() -> None:
    assert [wants_partial(GENERIC, Capability(bulk_version=version)) for version in (None, 1, 2, 3, 4)] == [
        False,
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("body", "named", "too_soon"),
    [
        (b'{"diagnostics":"Unknown parameter: _TYPEFILTER."}', {"_typeFilter"}, False),
        (b'{"diagnostics":"_type contains an unsupported type"}', {"_type"}, False),
        (b"Request not allowed: The Client requested this Group too recently.", set(), True),
        (b"the patient-list and my_type are fine", {"patient"} - {"patient"}, False),
    ],
)
def test_a_refusal_is_read_for_our_parameters_and_for_too_soon_only(
    body: bytes, named: set[str], too_soon: bool
) -> None:
    found = refusal_from(400, body, EPIC)
    assert (set(found.named) - {"patient"}, found.too_soon) == (named, too_soon)


@given(st.binary(max_size=300))
def test_a_refusal_of_any_bytes_can_be_read(body: bytes) -> None:
    assert refusal_from(400, body, GENERIC).status == 400


def test_types_that_a_vendor_refuses_alone_are_requested_with_others() -> None:
    assert with_company(("Patient",), EPIC) == ("Patient", "AllergyIntolerance")
    assert with_company(("Patient", "Goal"), EPIC) == ("Patient", "Goal")
    assert with_company(("Location", "Organization"), CERNER)[-1] == "Patient"
    assert with_company((), EPIC) == ()


def test_too_many_patients_for_one_kick_off_are_refused_with_the_next_step() -> None:
    parameters = ExportParameters(level="patient-list", patients=tuple(str(n) for n in range(10_001)))
    with pytest.raises(PlanError, match="make a Group"):
        check(parameters, CERNER)


def test_the_prefer_header_follows_the_profile() -> None:
    headers = kick_off(BASE, ExportParameters(level="system"), Form(lenient=True, separate_status=True)).headers
    assert headers["Prefer"] == "respond-async, handling=lenient, separate-export-status"


def test_a_query_holds_no_parameter_twice_unless_it_is_repeated_on_purpose() -> None:
    parameters = ExportParameters(level="system", types=("Patient", "Goal"), elements=("id", "name"))
    assert all(len(values) == 1 for values in parse_qs(urlsplit(kick_off(BASE, parameters, Form()).url).query).values())
