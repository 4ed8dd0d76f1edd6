"""What expressions give on data, where the official tests leave it open. One table: path, type, value."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.integration.exports.conftest import RunView

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p",
    "active": True,
    "birthDate": "1970-06-15",
    "_birthDate": {"extension": [{"url": "http://time", "valueDateTime": "1970-06-15T14:35:45-05:00"}]},
    "deceasedDateTime": "2015-02-04T14:34:28+09:00",
    "_deceasedDateTime": {"id": "d1", "extension": [{"url": "http://why", "valueString": "unknown"}]},
    "multipleBirthInteger": 2,
    "gender": "female",
    "name": [
        {"use": "official", "family": "A", "given": [None, "B", "C"], "period": {"start": "2001-05"}},
        {"use": "old", "family": "D"},
    ],
    "contact": [{"telecom": [{"value": "1"}, {"value": "2"}]}, {"telecom": [{"value": "3"}]}],
    "generalPractitioner": [
        {"reference": "http://ehr.example/fhir/Practitioner/g1/_history/7"},
        {"reference": "#contained"},
        {"reference": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"},
        {"reference": "Practitioner?identifier=x"},
        {"identifier": {"value": "no reference"}},
        {"reference": "Organization/o1"},
    ],
    "contained": [{"resourceType": "Organization", "id": "c1"}, {"resourceType": "Location", "id": "c2"}],
    "x": [3, 1.50],
    "nothing": None,
}

VALUES: list[tuple[str, str, Any]] = [
    ("name.family.last()", "string", "D"),
    ("name[1].family", "string", "D"),
    ("name[2].family", "string", None),
    ("name.given[0]", "string", "B"),
    ("name[99999999999].family", "string", None),
    ("name[%before].family", "string", None),
    ("name[name.count() - 1].family", "string", "D"),
    ("name[name.count()].family", "string", None),
    ("name[%rowIndex].family", "string", "A"),
    ("name[multipleBirth.ofType(integer) - 1].family", "string", "D"),
    ("name[multipleBirth.ofType(integer) - 9].family", "string", None),
    ("name[multipleBirth.ofType(integer) * 3000000000].family", "string", None),
    ("name[nothing].family", "string", None),
    ("name[{}].family", "string", None),
    ("contact.telecom.value.skip(name.count()).join()", "string", "3"),
    ("contact.telecom.value.skip(name.count() - 9).join()", "string", "123"),
    ("contact.telecom.value.take(name.count()).join()", "string", "12"),
    ("contact.telecom.value.take(name.count() - 9).join()", "string", None),
    ("name.given.count()", "integer", 2),
    ("contact.telecom[2].value", "string", "3"),
    ("contact.telecom.value.join('+')", "string", "1+2+3"),
    ("contact.telecom.where($this.value = '2').value", "string", "2"),
    ("contact.where(telecom.where(value = '3').exists()).telecom.value", "string", "3"),
    ("name.where(use = 'official' and given.exists()).family", "string", "A"),
    ("name.where(use = 'official' or use = 'none').family", "string", "A"),
    ("name.exists(use = 'old')", "boolean", True),
    ("nothing.exists()", "boolean", False),
    ("nothing", "string", None),
    ("name.missing.empty()", "boolean", True),
    ("deceased.exists()", "boolean", True),
    ("deceased.ofType(boolean).exists()", "boolean", False),
    ("multipleBirth.ofType(integer) + 1", "integer", 3),
    ("-multipleBirth.ofType(integer)", "integer", -2),
    ("7 div 2", "integer", 3),
    ("7 mod 2", "integer", 1),
    ("7 / 2", "decimal", 3.5),
    ("7 / 0", "decimal", None),
    ("(123456789012345 / 7).toString()", "string", "17636684144620.71428571"),
    ("x[0] * x[1]", "decimal", 4.5),
    ("x[0] > x[1]", "boolean", True),
    ("'a' + gender", "string", "afemale"),
    ("missing + 1", "decimal", None),
    ("birthDate + {}", "date", None),
    ("{} < active", "boolean", None),
    ("gender = 'female' xor active", "boolean", False),
    ("missing.exists() implies active", "boolean", True),
    ("active and missing", "boolean", None),
    ("active or missing", "boolean", True),
    ("(active and gender)", "boolean", True),
    ("gender > 'f'", "boolean", True),
    ("name.family = 'A'", "boolean", False),
    ("name.first() = name[0]", "boolean", True),
    ("x[1] = 1.5", "boolean", True),
    # an argument is read in the context of the call, not in the function's input; and an empty input decides
    ("name[1].family.replace(name[1].family, gender)", "string", "female"),
    ("name.select(family.union(use)).count()", "integer", 4),
    ("missing.replace(x, 'b')", "string", None),
    ("missing.substring(x)", "string", None),
    ("{}", "string", None),
    ("birthDate.extension('http://time').value.ofType(dateTime)", "dateTime", "1970-06-15T14:35:45-05:00"),
    ("deceased.extension('http://why').value.ofType(string)", "string", "unknown"),
    ("deceased.ofType(dateTime).id", "string", "d1"),
    ("deceased.id", "string", "d1"),
    ("Patient.gender", "code", "female"),
    ("where(Patient.active).select(Patient.gender)", "code", "female"),
    ("%resource.gender", "code", "female"),
    ("%connection", "string", "site"),
    ("generalPractitioner.getReferenceKey(Practitioner)", "id", "g1"),
    ("generalPractitioner.getReferenceKey(Organization)", "id", "o1"),
    ("generalPractitioner.getReferenceKey().count()", "integer", 2),
    ("generalPractitioner.where(getReferenceKey(Organization) = 'o1').exists()", "boolean", True),
    ("contained.ofType(Location).id", "id", "c2"),
    ("where(active).getResourceKey()", "id", "p"),
    ("(Patient | $this).getResourceKey()", "id", "p"),
    ("ofType(Organization).getResourceKey()", "id", None),
    # dates: to the precision that both have, instants where both have a zone
    ("birthDate = @1970-06-15", "boolean", True),
    ("birthDate < @1970-07", "boolean", True),
    ("birthDate > @1970", "boolean", None),
    ("birthDate != @1971", "boolean", True),
    ("birthDate >= '1970-06-15'", "boolean", True),
    ("deceased.ofType(dateTime) = @2015-02-04T05:34:28Z", "boolean", True),
    ("deceased.ofType(dateTime) < @2015-02-04T05:34:29.5Z", "boolean", True),
    ("deceased.ofType(dateTime) > @2015-02-03", "boolean", True),
    ("deceased.ofType(dateTime) > @2015-02-04T10:00", "boolean", None),
    ("name[0].period.start <= @2001-05", "boolean", True),
    ("@T10:00:00 = @T10:00:00.000", "boolean", True),
    ("@T10 < @T11", "boolean", True),
    ("@2020-01-01 + 1.5 weeks", "date", "2020-01-08"),
    ("name[0].period.lowBoundary()", "dateTime", "2001-05-01T00:00:00.000+14:00"),
    ("name[0].period.highBoundary()", "dateTime", None),
    ("gender = @2020", "boolean", False),
    ("'1020-01-01' = @T10", "boolean", False),
    ("deceased = @T20", "boolean", False),
    ("birthDate = 'soon'", "boolean", False),
    ("@2020-02-29T10:00:00 = @2020-02-29T10:00:00.000", "boolean", True),
    ("@2020-02-29T10:00:00.5 > @2020-02-29T10:00:00", "boolean", True),
    ("@2020-02-29T10:00Z = @2020-02-29T10:00:30Z", "boolean", None),
    # collections
    ("(name.family | name.given | name.family).count()", "integer", 4),
    ("name.select(given | family).count()", "integer", 4),
    ("name.select(family & '!').join()", "string", "A!D!"),
    ("contact.telecom.value.tail().join()", "string", "23"),
    ("contact.telecom.value.skip(1).take(1)", "string", "2"),
    ("contact.telecom.value.take(0).exists()", "boolean", False),
    ("(x | x).count()", "integer", 2),
    ("x.distinct().count()", "integer", 2),
    ("name.use.all($this = 'official' or $this = 'old')", "boolean", True),
    ("name.all(given.exists())", "boolean", False),
    ("missing.all(false)", "boolean", True),
    ("iif(gender = 'female', 'f', 'm')", "string", "f"),
    ("iif(missing, 'f')", "string", None),
    ("iif(active, gender, name.family.single())", "string", "female"),
    ("'old' in name.use", "boolean", True),
    ("name.use contains 'none'", "boolean", False),
    ("{} in name.use", "boolean", None),
    ("gender ~ ' FEMALE '", "boolean", True),
    ("name.use ~ ('old' | 'official')", "boolean", True),
    ("missing ~ missing", "boolean", True),
    ("gender !~ 'male'", "boolean", True),
    ("1.2 / 1.8 ~ 0.67", "boolean", True),
    ("0.6 ~ 0.67", "boolean", False),
    ("deceased.ofType(dateTime) ~ @2015-02-04T05:34:28.0Z", "boolean", True),
    ("@2020-02-29T10:00:00 ~ @2020-02-29T10:00:00.000", "boolean", True),
    ("birthDate ~ @1970", "boolean", False),
    ("name.first() ~ name.where(use = 'OFFICIAL' or use.lower() = 'official')", "boolean", True),
    ("gender & missing & '!'", "string", "female!"),
    ("name.where(use = 'old').single().family", "string", "D"),
    ("deceased is dateTime", "boolean", True),
    ("deceased is boolean", "boolean", False),
    ("missing is string", "boolean", None),
    ("Patient.active.is(boolean) and active is FHIR.boolean", "boolean", True),
    ("Patient.active.is(Boolean) or active is System.Boolean", "boolean", False),
    ("Patient.is(FHIR.Patient)", "boolean", True),
    (
        "(1 | 2).all($this is Integer) and 'a'.select($this is String) and today().select($this is Date)",
        "boolean",
        True,
    ),
    ("gender.select($this is code) and gender.select($this is String).not()", "boolean", True),
    ("1 is Integer and 1.0 is System.Decimal and (gender & '') is String and today() is Date", "boolean", True),
    ("1 is integer or true.is(FHIR.boolean) or 1 is Decimal", "boolean", False),
    ("gender is string and gender is code", "boolean", True),
    ("contained.first() is Resource and contained.first() is Organization", "boolean", True),
    ("'a'.ofType(String)", "string", "a"),
    ("(deceased as dateTime).toString()", "string", "2015-02-04T14:34:28+09:00"),
    ("deceased.as(boolean)", "boolean", None),
    ("contained.where(resourceType = 'Location').id", "string", "c2"),
    # texts
    ("gender.startsWith('fe') and gender.endsWith('male') and gender.contains('mal')", "boolean", True),
    ("gender.matches('^f.*e$')", "boolean", True),
    ("'a word'.matches('\\\\bword\\\\b')", "boolean", True),
    ("gender.replace('fe', '')", "string", "male"),
    ("gender.replaceMatches('(fe)(male)', '$2-$1')", "string", "male-fe"),
    ("gender.substring(2)", "string", "male"),
    ("gender.substring(2, 1)", "string", "m"),
    ("gender.substring(9)", "string", None),
    ("gender.substring(2, {})", "string", "male"),
    ("gender.replace('', '-')", "string", "-f-e-m-a-l-e-"),
    ("gender.replace(name.use.last(), 'x')", "string", "female"),
    ("gender.replaceMatches('[ae]', '<$0>')", "string", "f<e>m<a>l<e>"),
    ("'É'.lower() + 'é'.upper()", "string", "éÉ"),
    ("'Bé'.matches('^\\\\w+$')", "boolean", True),
    ("''.split(',').count()", "integer", 1),
    ("contact.telecom.value.join({})", "string", "123"),
    ("gender.matches({})", "boolean", None),
    ("gender.replaceMatches({}, 'x')", "string", None),
    ("gender.upper() + 'X'.lower()", "string", "FEMALEx"),
    ("gender.length()", "integer", 6),
    ("gender.indexOf('male')", "integer", 2),
    ("'  a '.trim()", "string", "a"),
    ("'a,b'.split(',').last()", "string", "b"),
    ("missing.upper()", "string", None),
    # conversions
    ("multipleBirth.ofType(integer).toString()", "string", "2"),
    ("'12'.toInteger() + 1", "integer", 13),
    ("'1.50'.toDecimal()", "decimal", 1.5),
    ("'x'.toInteger()", "integer", None),
    ("'99999999999'.toInteger()", "integer", None),
    ("active.toString()", "string", "true"),
    # where an expression stands
    ("name.where(family = %resource.name.first().family).use", "string", "official"),
    ("name.where(use = 'old' and %context.active).family", "string", "D"),
    ("name.select(given.where($this = %context.name.first().given.first()))", "string", "B"),
    ("today() > birthDate", "boolean", True),
    ("today()", "date", "2024-05-06"),
    ("now()", "dateTime", "2024-05-06T07:08:09.000Z"),
    ("birthDate + 18 years <= today()", "boolean", True),
    ("getResourceKey()", "id", "p"),
    ("contained.getResourceKey().first()", "string", "p#c1"),
]


@pytest.mark.parametrize(("path", "type_", "value"), VALUES)
def test_an_expression_gives_its_value(path: str, type_: str, value: Any, run_view: RunView) -> None:
    select = [{"column": [{"name": "v", "path": path, "type": type_}]}]
    view = {"resource": "Patient", "select": select, "constant": [{"name": "before", "valueInteger": -1}]}
    assert run_view(view, [PATIENT]) == [{"v": value}]


@pytest.mark.parametrize(
    "path",
    ["name.family", "name.family > 'a'", "x + 1", "generalPractitioner.getReferenceKey()", "contact.telecom and true"],
)
def test_two_values_where_one_is_expected_raise_an_error_that_names_the_column(path: str, run_view: RunView) -> None:
    view = {"resource": "Patient", "select": [{"column": [{"name": "v", "path": path}]}]}
    with pytest.raises(psycopg.DataError, match="chartferry: column v has more than one value"):
        run_view(view, [PATIENT])


def test_a_time_of_day_is_not_comparable_with_a_date(run_view: RunView) -> None:
    view = {"resource": "Patient", "select": [{"column": [{"name": "v", "path": "deceased > @T10:00"}]}]}
    with pytest.raises(psycopg.DataError, match="chartferry: column v compares a time of day with a date"):
        run_view(view, [PATIENT])


def test_join_of_a_non_string_raises(run_view: RunView) -> None:
    with pytest.raises(psycopg.DataError, match="chartferry: column v joins something that is not a string"):
        run_view({"resource": "Patient", "select": [{"column": [{"name": "v", "path": "x.join()"}]}]}, [PATIENT])


def test_the_context_of_a_criterion_is_the_focus_at_the_start_of_its_expression(run_view: RunView) -> None:
    column = {"name": "v", "path": "given.where($this = %context.given.last()).select(%context.family & $this)"}
    view = {"resource": "Patient", "select": [{"forEach": "name", "column": [column]}]}
    assert run_view(view, [PATIENT]) == [{"v": "AC"}, {"v": None}]


def test_a_where_computes_with_dates(run_view: RunView) -> None:
    view = {
        "resource": "Patient",
        "where": [{"path": "birthDate + 18 years <= today() and birthDate.highBoundary() ~ birthDate"}],
        "select": [{"column": [{"name": "id", "path": "id"}]}],
    }
    assert run_view(view, [PATIENT, {**PATIENT, "id": "q", "birthDate": "2020-01-01"}]) == [{"id": "p"}]
    with pytest.raises(psycopg.DataError, match="chartferry: where needs a date or a time"):
        run_view(view, [{**PATIENT, "birthDate": "soon"}])


def test_a_where_with_a_non_boolean_raises(run_view: RunView) -> None:
    view = {"resource": "Claim", "where": [{"path": "own"}], "select": [{"column": [{"name": "id", "path": "id"}]}]}
    with pytest.raises(psycopg.DataError, match="chartferry: where needs a boolean"):
        run_view(view, [{"resourceType": "Claim", "id": "c", "own": "active"}])


EMPTY = {"resourceType": "Patient", "id": "e"}
BOTH = [EMPTY, {**EMPTY, "id": "f", "name": [{"given": ["a", "b"]}, {}]}]


def test_the_null_row_is_null_in_every_column_but_the_row_index(run_view: RunView) -> None:
    columns = [
        {"name": "literal", "path": "'x'"},
        {"name": "has", "path": "given.exists()"},
        {"name": "list", "path": "given", "collection": True},
        {"name": "row", "path": "%rowIndex"},
    ]
    nested = {"select": [{"column": [{"name": "count", "path": "given.count()"}]}]}
    view = {"resource": "Patient", "select": [{"forEachOrNull": "name", "column": columns, **nested}]}
    assert run_view(view, BOTH) == [
        {"literal": None, "has": None, "list": None, "row": 0, "count": None},
        {"literal": "x", "has": True, "list": ["a", "b"], "row": 0, "count": 2},
        {"literal": "x", "has": False, "list": [], "row": 1, "count": 0},
    ]


def test_the_null_row_stays_if_it_has_nested_iterations(run_view: RunView) -> None:
    inner = {"forEach": "given", "column": [{"name": "given", "path": "$this"}, {"name": "inner", "path": "%rowIndex"}]}
    outer = {"forEachOrNull": "name", "column": [{"name": "outer", "path": "%rowIndex"}], "select": [inner]}
    view = {"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}, outer]}
    assert run_view(view, BOTH) == [
        {"id": "e", "outer": 0, "given": None, "inner": 0},
        {"id": "f", "outer": 0, "given": "a", "inner": 0},
        {"id": "f", "outer": 0, "given": "b", "inner": 1},
    ]


def test_a_union_of_plain_branches_has_one_null_row(run_view: RunView) -> None:
    branch = {"column": [{"name": "n", "path": "given.count()"}, {"name": "row", "path": "%rowIndex"}]}
    view = {"resource": "Patient", "select": [{"forEachOrNull": "name", "unionAll": [branch, branch]}]}
    assert run_view(view, [EMPTY]) == [{"n": None, "row": 0}]


def test_a_single_item_iterates_once_or_never(run_view: RunView) -> None:
    selections = {
        how: [{how: "name.first()", "column": [{"name": "row", "path": "%rowIndex"}, {"name": "x", "path": "'x'"}]}]
        for how in ("forEach", "forEachOrNull")
    }
    assert run_view({"resource": "Patient", "select": selections["forEach"]}, BOTH) == [{"row": 0, "x": "x"}]
    assert run_view({"resource": "Patient", "select": selections["forEachOrNull"]}, BOTH) == [
        {"row": 0, "x": None},
        {"row": 0, "x": "x"},
    ]


def test_rows_keep_the_order_of_the_data(run_view: RunView) -> None:
    names = [{"given": [f"{n}.{m}" for m in range(12)]} for n in range(12)]
    resources = [{"resourceType": "Patient", "id": id_, "name": names} for id_ in ("b", "a", "B")]
    given = {"forEach": "given", "column": [{"name": "given", "path": "$this"}]}
    union = [{"forEach": "name", "select": [given]}, {"forEach": "name.given.first()", "column": given["column"]}]
    view = {"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}], "unionAll": union}]}
    expected = [
        (id_, value) for id_ in ("B", "a", "b") for value in [*(g for name in names for g in name["given"]), "0.0"]
    ]
    assert [(row["id"], row["given"]) for row in run_view(view, resources)] == expected


def test_resources_of_other_types_are_never_read(run_view: RunView) -> None:
    view = {"resource": "Patient", "select": [{"forEach": "name", "column": [{"name": "f", "path": "family"}]}]}
    assert run_view(view, [{"resourceType": "Organization", "id": "o", "name": "x"}, PATIENT]) == [
        {"f": "A"},
        {"f": "D"},
    ]


def test_a_type_that_r4_lacks_works_in_a_view_for_another_version(run_view: RunView) -> None:
    claim = {
        "resourceType": "Invention",
        "id": "c",
        "item": [{"net": {"value": 1.5}, "encounter": [{"reference": "Encounter/1"}]}],
    }
    columns = [
        {"name": "net", "path": "net.value", "type": "decimal"},
        {"name": "encounter", "path": "encounter.getReferenceKey(Encounter)"},
        {"name": "serviced", "path": "serviced.ofType(date)", "type": "date"},
    ]
    view = {"resource": "Invention", "fhirVersion": ["5.0.0"], "select": [{"forEach": "item", "column": columns}]}
    assert run_view(view, [claim]) == [{"net": 1.5, "encounter": "1", "serviced": None}]


CONCEPT = {"concept": {"text": "x"}}
R5 = [
    ("Observation", "value.ofType(Attachment).url", "url", {"valueAttachment": {"url": "u"}}, "u"),
    ("Observation", "value.ofType(Quantity).unit", "string", {"valueQuantity": {"unit": "kg"}}, "kg"),
    ("Observation", "value.ofType(Attachment).exists()", "boolean", {"valueQuantity": {"unit": "kg"}}, False),
    ("MedicationRequest", "medication.concept.text", "string", {"medication": CONCEPT}, "x"),
    ("MedicationRequest", "medication.ofType(CodeableReference).concept.text", "string", {"medication": CONCEPT}, "x"),
    ("Encounter", "class.ofType(CodeableConcept).coding.code", "code", {"class": [{"coding": [{"code": "IMP"}]}]}, "IMP"),
    ("Attachment", "size", "integer64", {"size": "9007199254740993"}, 9007199254740993),
    ("Basic", "extension.value.ofType(integer64)", "integer64", {"extension": [{"valueInteger64": "-1"}]}, -1),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "path", "type_", "content", "value"), R5)
def test_a_view_for_r5_finds_what_r4_has_as_another_type(
    resource: str, path: str, type_: str, content: dict[str, Any], value: Any, run_view: RunView
) -> None:
    select = [{"column": [{"name": "v", "path": path, "type": type_}]}]
    view = {"resource": resource, "fhirVersion": ["5.0.0"], "select": select}
    assert run_view(view, [{"resourceType": resource, "id": "r", **content}]) == [{"v": value}]


def test_references_to_contained_resources_have_the_key_of_the_contained_resource(run_view: RunView) -> None:
    resource = {
        "resourceType": "Observation",
        "id": "o",
        "contained": [{"resourceType": "Patient", "id": "p1", "gender": "male"}],
        "subject": {"reference": "#p1"},
        "specimen": {"reference": "#gone"},
    }
    columns = [
        {"name": "subject", "path": "subject.getReferenceKey(Patient)", "type": "string"},
        {"name": "other", "path": "subject.getReferenceKey(Group)", "type": "string"},
        {"name": "specimen", "path": "specimen.getReferenceKey()", "type": "string"},
    ]
    inner = [{"name": "key", "path": "getResourceKey()", "type": "string"}, {"name": "gender", "path": "gender"}]
    select = [{"column": columns}, {"forEach": "contained.ofType(Patient)", "column": inner}]
    assert run_view({"resource": "Observation", "select": select}, [resource]) == [
        {"subject": "o#p1", "other": None, "specimen": None, "key": "o#p1", "gender": "male"}
    ]


def test_the_key_of_the_resource_is_its_id_however_the_resource_was_reached(run_view: RunView) -> None:
    inner = [{"name": "within", "path": "getResourceKey()", "type": "string"}]
    column = [{"name": "key", "path": "getResourceKey()", "type": "string"}]
    for path in ("$this", "%resource", "where(active)", "Patient | $this"):
        select = [{"forEach": path, "column": column, "select": [{"forEach": "contained.first()", "column": inner}]}]
        assert run_view({"resource": "Patient", "select": select}, [PATIENT]) == [{"key": "p", "within": "p#c1"}], path


def test_the_key_of_an_entry_is_the_id_of_its_resource(run_view: RunView) -> None:
    bundle = {"resourceType": "Bundle", "id": "b", "entry": [{"resource": {"resourceType": "Patient", "id": "p"}}]}
    column = [{"name": "key", "path": "getResourceKey()", "type": "string"}]
    select = [{"forEach": "entry.resource.ofType(Patient)", "column": column}]
    assert run_view({"resource": "Bundle", "select": select}, [bundle]) == [{"key": "p"}]


def test_data_that_deviates_from_r4_still_gives_its_values(run_view: RunView) -> None:
    resource = {
        "resourceType": "Observation",
        "id": "o",
        "status": ["final"],
        "code": [{"coding": {"code": "a"}}],
        "subject": [{"reference": "Patient/1"}],
        "component": {"code": {"text": "only one"}},
    }
    columns = [
        {"name": "status", "path": "status", "type": "code"},
        {"name": "code", "path": "code.coding.first().code", "type": "code"},
        {"name": "subject", "path": "subject.getReferenceKey(Patient)", "type": "id"},
    ]
    inner = [{"name": "text", "path": "code.text", "type": "string"}]
    select = [{"column": columns}, {"forEach": "component", "column": inner}]
    assert run_view({"resource": "Observation", "select": select}, [resource]) == [
        {"status": "final", "code": "a", "subject": "1", "text": "only one"}
    ]
    with pytest.raises(psycopg.DataError, match="column status has more than one value"):
        run_view({"resource": "Observation", "select": select}, [{**resource, "status": ["final", "amended"]}])


def test_an_empty_iteration_keeps_its_null_row_and_is_evaluated_once(run_view: RunView) -> None:
    inner = {"forEach": "given", "column": [{"name": "given", "path": "$this"}]}
    outer = {
        "forEachOrNull": "name.where(given.count() > 5)",
        "column": [{"name": "use", "path": "use"}],
        "select": [inner],
    }
    assert run_view({"resource": "Patient", "select": [outer]}, BOTH) == [{"use": None, "given": None}] * 2
