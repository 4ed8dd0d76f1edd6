from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.sql import SQL

from exports.compiler import Column, compile_view
from exports.errors import ViewError

ID = {"name": "id", "path": "id"}
SOURCE = SQL("(SELECT 'c' AS connection, 'i' AS id, '{{}}'::jsonb AS body)")


def view(*select: Any, **more: Any) -> dict[str, Any]:
    return {"name": "v", "resource": "Patient", "select": list(select), **more}


def columns(*listed: Any) -> dict[str, Any]:
    return {"column": list(listed)}


def path(text: str, **more: Any) -> dict[str, Any]:
    return view(columns({"name": "x", "path": text, **more}))


@pytest.mark.parametrize(
    ("definition", "where"),
    [
        ({}, ""),
        ([], ""),
        ({"name": "v", "select": [columns(ID)]}, "resource"),
        ({"name": "v", "resource": "Patient"}, "select"),
        (view(), "select"),
        (view("id"), "select"),
        (view({}), "select[0]"),
        (view(columns(ID), resourceType="Patient"), "resourceType"),
        (view(columns(ID), name="no name"), "name"),
        (view(columns(ID), resource="Patiant"), "resource"),
        (view({"forEach": 1, **columns(ID)}), "select[0].forEach"),
        (view({"forEach": "name", "forEachOrNull": "name", **columns(ID)}), "select[0]"),
        (view({"repeat": "link", **columns(ID)}), "select[0].repeat"),
        (view({"repeat": [], **columns(ID)}), "select[0].repeat"),
        (view({"repeat": ["link", "$this"], **columns(ID)}), "select[0].repeat[1]"),
        (view({"repeat": ["%resource"], **columns(ID)}), "select[0].repeat[0]"),
        (view({"repeat": ["%resource.link"], **columns(ID)}), "select[0].repeat[0]"),
        (view({"repeat": ["'x'"], **columns(ID)}), "select[0].repeat[0]"),
        (view({"repeat": ["link[link.count() - 1]"], **columns(ID)}), "select[0].repeat[0]"),
        (view({"repeat": ["link"], "forEach": "link", **columns(ID)}), "select[0]"),
        (view({"foreach": "name", **columns(ID)}), "select[0].foreach"),
        (view(columns({"name": "x"})), "select[0].column[0].path"),
        (view(columns({"path": "id"})), "select[0].column[0].name"),
        (view(columns({"name": "1x", "path": "id"})), "select[0].column[0].name"),
        (view(columns({"name": "x" * 64, "path": "id"})), "select[0].column[0].name"),
        (view(columns({**ID, "collection": "yes"})), "select[0].column[0].collection"),
        (view(columns({**ID, "typo": 1})), "select[0].column[0].typo"),
        (view(columns(ID), columns(ID)), "select[1].column[0].name"),
        (view({**columns(ID), "select": [columns(ID)]}), "select[0].select[0].column[0].name"),
        (view({"unionAll": [columns(ID), columns({"name": "y", "path": "id"})]}), "select[0].unionAll[1]"),
        (view({"unionAll": [columns(ID), columns({**ID, "path": "active"})]}), "select[0].unionAll[1]"),
        (view({**columns(ID), "unionAll": [columns(ID)]}), "select[0].unionAll[0].column[0].name"),
        (view(columns(ID), where=[{"path": "name.family"}]), "where[0].path"),
        (view(columns(ID), where=[{"path": ""}]), "where[0].path"),
        (view(columns(ID), constant=[{"name": "c"}]), "constant[0]"),
        (view(columns(ID), constant=[{"name": "c", "valueString": "a", "valueCode": "b"}]), "constant[0]"),
        (view(columns(ID), constant=[{"name": "c", "valueInteger": True}]), "constant[0].valueInteger"),
        (view(columns(ID), constant=[{"name": "c", "valueQuantity": {}}]), "constant[0].valueQuantity"),
        (view(columns(ID), constant=[{"name": "c", "valueDate": "2020-13-01"}]), "constant[0].valueDate"),
        (view(columns(ID), constant=[{"name": "c", "valueCode": "b"}] * 2), "constant[1].name"),
        (view(columns(ID), constant=[{"name": "c", "valueString": "\0"}]), "constant[0].valueString"),
        (view(columns(ID), constant=[{"name": "c", "valueDecimal": float("nan")}]), "constant[0].valueDecimal"),
        (view(columns(ID), constant=[{"name": "c", "valueDecimal": Decimal("1e400000")}]), "constant[0].valueDecimal"),
        (view(columns({**ID, "tag": [{"name": "ansi/type", "value": "VARCHAR; DROP"}]})), "select[0].column[0].tag[0]"),
        (view(columns({**ID, "tag": [{"name": "ansi/type", "value": "INTEGER"}]})), "select[0].column[0].tag[0]"),
        (view(columns({**ID, "tag": [{"name": "ansi/type", "value": "NUMERIC(2,3)"}]})), "select[0].column[0].tag[0]"),
        (view(columns(*[{"name": f"c{n}", "path": "id"} for n in range(1_700)])), "select"),
        (view(columns(ID), constant=[{"name": "c", "valueString": "\ud800"}]), "constant[0].valueString"),
    ],
)
def test_a_wrong_definition_is_refused_with_its_place(definition: Any, where: str) -> None:
    with pytest.raises(ViewError) as caught:
        compile_view(definition, SOURCE)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name.where(use = %typo).family", "%typo is not defined"),
        ("name.family.shout()", "no function shout\\(\\) here at character 13 in .*; allowed: .*first"),
        ("name.lowBoundary()", "works on decimals, dates, times and Periods, found HumanName at character 6"),
        ("birthDate > @2020-13-45", "no such day or time as 2020-13-45 at character 13"),
        ("birthDate > @2021-02-29T10:00:00Z", "no such day or time"),
        ("birthDate > @T10:00", "'>' does not work on a time of day and a date at character 11"),
        ("birthDate > '10:00'", "'>' does not work on a time of day and a date at character 11"),
        (
            "name.given.first().extension('u').url",
            "the extension of a string is found on its element alone at character 20",
        ),
        ("name.family + 3 days", "does not work on string and a quantity"),
        ("birthDate + 3 'mm'", "'mm' is not a calendar unit of time at character 13"),
        ("3 days", "a quantity can only be added"),
        ("name.family.matches('[')", "not a regular expression"),
        ("name.family.matches('(?<=a)b')", "something that Postgres' regular expressions lack"),
        ("name.family.matches('a{,3}')", "something that Postgres' regular expressions lack"),
        (r"name.family.matches('\\x41B')", "something that Postgres' regular expressions lack"),
        (r"name.family.matches('[a\\b]')", "something that Postgres' regular expressions lack"),
        ("name.family.matches('a{2,256}')", "repeats something too often"),
        ("name.take('x')", "take\\(\\) takes a whole number at character 11"),
        ("gender.length() = birthDate.now()", "needs the moment"),
        ("name.where(family)", "criterion must be boolean, found string"),
        ("gender > 1", "'>' does not work on code and integer"),
        ("gender * 2", "does not work"),
        ("name[gender]", "index must be an integer"),
        ("name[1.5]", "index must be an integer"),
        ("name.skip(gender)", "takes a whole number"),
        ("1.5.lowBoundary(id.length())", "takes a precision"),
        ("gender.code", "which has none"),
        ("first(1)", "first\\(\\) has 1 arguments"),
        ("deceased.ofType(1)", "takes the name of a type"),
        ("deceased.ofType(``)", "takes the name of a type"),
        ("managingOrganization.getReferenceKey(`.*|`)", "takes the name of a type"),
        ("name.getReferenceKey()", "works on a Reference, found HumanName"),
        ("name.getResourceKey()", "works on the resource itself"),
        ("extension(1)", "takes a URL"),
        ("name.join(',')", "works on strings, found HumanName"),
    ],
)
def test_an_expression_that_cannot_work_is_refused_at_compile_time(text: str, message: str) -> None:
    with pytest.raises(ViewError, match=message) as caught:
        compile_view(path(text), SOURCE)
    assert caught.value.where == "select[0].column[0].path"


def test_a_column_type_that_its_path_cannot_have_is_refused() -> None:
    with pytest.raises(ViewError, match="declared integer, its path gives code"):
        compile_view(path("gender", type="integer"), SOURCE)


def test_columns_are_in_the_order_of_the_specification() -> None:
    union = {"unionAll": [columns({"name": "d", "path": "id"}), columns({"name": "d", "path": "id"})]}
    first = {**union, "select": [columns({"name": "c", "path": "id"})], **columns({"name": "b", "path": "active"})}
    compiled = compile_view(view(first, columns({"name": "a", "path": "name.given", "collection": True})), SOURCE)
    assert compiled.columns == (
        Column("b", "boolean", False),
        Column("c", "id", False),
        Column("d", "id", False),
        Column("a", "string", True),
    )


@pytest.mark.parametrize(
    "kind", ["ViewDefinition", "https://sql-on-fhir.org/ig/StructureDefinition/ViewDefinition", None]
)
def test_each_spelling_of_the_resource_type_is_accepted(kind: str | None) -> None:
    more = {"resourceType": kind} if kind else {}
    assert compile_view(view(columns(ID), **more), SOURCE).resource == "Patient"


def test_metadata_of_any_kind_is_accepted() -> None:
    plain = compile_view(view(columns(ID)), SOURCE)
    more = view(columns(ID), fhirVersion=["4.0.1"], contact=[{"name": "x"}], anything={"new": 1})
    assert compile_view(more, SOURCE) == plain


def test_values_are_quoted_and_never_code() -> None:
    evil = "x'); DROP TABLE resource; --\\"
    definition = view(
        columns({"name": "x", "path": "name.where(use = %c).family.first()"}),
        constant=[{"name": "c", "valueString": evil}],
    )
    written = compile_view(definition, SOURCE).query.as_string(None)
    assert "x'')" in written
    assert "x')" not in written.replace("x'')", "")


_KEYS = st.sampled_from(
    [
        "name",
        "path",
        "resource",
        "select",
        "column",
        "unionAll",
        "forEach",
        "forEachOrNull",
        "where",
        "constant",
        "type",
    ]
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["id", "name", "name.given", "x", "Patient", "%c", "@@"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(_JSON, st.dictionaries(_KEYS, _JSON))
def test_any_json_compiles_or_is_refused(select: Any, more: dict[str, Any]) -> None:
    for definition in (select, {"name": "v", "resource": "Patient", "select": [select], **more}):
        try:
            compiled = compile_view(definition, SOURCE)
        except ViewError:
            continue
        assert compiled.columns


_WORDS = [
    "name",
    "given",
    ".",
    "(",
    ")",
    "first()",
    "where(",
    "'a'",
    "=",
    "and",
    "[0]",
    "exists()",
    "not()",
    "+",
    "1",
    "%rowIndex",
]


@given(st.lists(st.sampled_from(_WORDS)))
def test_any_path_compiles_or_is_refused(words: list[str]) -> None:
    with suppress(ViewError):
        assert len(compile_view(path(" ".join(words)), SOURCE).columns) == 1


def test_each_chained_where_adds_as_much_as_the_one_before() -> None:
    def length(wheres: int) -> int:
        text = "name" + "".join(f".where(rank > {n})" for n in range(10, 10 + wheres))
        return len(compile_view(path(f"{text}.family"), SOURCE, marked=True).query.as_string(None))

    assert length(32) - length(16) < 1.1 * 2 * (length(16) - length(8))


def test_nested_unions_do_not_grow_slower_with_each_level() -> None:
    """Forty would hang if the time doubled with each."""
    selection = columns(ID)
    for number in range(40):
        selection = {
            "unionAll": [selection, {"forEach": "name", **columns({"name": "id", "path": f"use & '{number}'"})}]
        }
    assert [column.name for column in compile_view(view(selection), SOURCE).columns] == ["id"]


def test_an_endlessly_nested_view_is_refused() -> None:
    definition = columns(ID)
    for _ in range(600):
        definition = {"select": [definition]}
    with pytest.raises(ViewError, match="nested too deeply"):
        compile_view(view(definition), SOURCE)
    with pytest.raises(ViewError, match="nested too deeply"):
        compile_view(path("a" + ".a.first()" * 2000), SOURCE)


@pytest.mark.parametrize(
    ("text", "close"),
    [
        ("deceased.ofType(datetime)", "dateTime"),
        ("extension('a').value.ofType(Quantty).value", "Quantity"),
        ("birthDate is Boolen", "boolean"),
        ("(deceased as Quantity)", None),
        ("contained.ofType(Organisation).name", "Organization"),
        ("managingOrganization.getReferenceKey(Organisation)", "Organization"),
    ],
)
def test_a_type_that_r4_never_has_there_is_reported_with_the_closest_name(text: str, close: str | None) -> None:
    (note,) = compile_view(path(text), SOURCE).notes
    assert " in R4" in note
    assert (f" (did you mean {close!r}?)" in note) if close else ("did you mean" not in note)
    assert compile_view(path(text, type="string") | {"fhirVersion": ["5.0.0"]}, SOURCE).notes == ()


def test_a_repeat_path_that_is_valid_from_its_items_is_accepted() -> None:
    answers = {"repeat": ["item", "answer.item"], **columns({"name": "text", "path": "text"})}
    misspelt = {"repeat": ["item", "answr.item"], **columns({"name": "text", "path": "text"})}
    right, wrong = (
        compile_view(view(one, resource="QuestionnaireResponse"), SOURCE).notes for one in (answers, misspelt)
    )
    assert right == ()
    assert [note.split(":")[0] for note in wrong] == ["select[0].repeat[1]"]
