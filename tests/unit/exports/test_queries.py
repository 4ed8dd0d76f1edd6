"""SQLQuery and SQLView libraries: what is read out of them, and what their SQL may not do."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.errors import QueryError
from exports.queries.guard import check
from exports.queries.library import Dependency, Library, Parameter, check_values, read_library

ANNOTATED = b"""/*
 * @name: a1c
 * @title: Latest HbA1c
 * @relatedDependency: https://chartferry.example/fhir/ViewDefinition/observation|1 as Obs
 */
-- @param: since date  the first day
-- @param: code string
-- @flavour: vanilla
SELECT ':code' AS text, o.key FROM obs o WHERE o.effective_at >= :since::text AND o.code = :code -- :code
;
"""


def library(sql: str, *labels: str, parameters: tuple[Parameter, ...] = ()) -> Library:
    return Library("q", "q.sql", "query", sql, parameters, tuple(Dependency(label, label) for label in labels))


def document(**more: Any) -> dict[str, Any]:
    coding = {"system": "http://hl7.org/fhir/uv/sql-on-fhir/CodeSystem/LibraryTypesCodes", "code": "sql-query"}
    return {
        "resourceType": "Library",
        "name": "people",
        "type": {"coding": [coding]},
        "relatedArtifact": [
            {"type": "depends-on", "resource": "patient", "label": "p"},
            {"type": "documentation", "url": "https://example.org"},
        ],
        "parameter": [{"name": "born", "type": "date", "use": "in"}],
        "content": [
            {"contentType": "application/sql", "data": base64.b64encode(b"SELECT 1").decode()},
            {
                "contentType": "application/sql;dialect=postgresql",
                "data": base64.b64encode(b"SELECT key FROM p WHERE birth_date > :born::text").decode(),
            },
            {"contentType": "application/sql;dialect=duckdb", "data": "!"},
        ],
        **more,
    }


def test_an_annotated_file_declares_its_views_and_parameters() -> None:
    found = read_library(ANNOTATED, "a1c.sql")
    assert (found.name, found.kind) == ("a1c", "query")
    assert found.parameters == (Parameter("since", "date"), Parameter("code", "string"))
    assert found.dependencies == (Dependency("https://chartferry.example/fhir/ViewDefinition/observation|1", "obs"),)
    assert found.notes == ("a1c.sql: unknown annotation @flavour",)
    checked = check(found)
    assert checked.parameters == ("since", "code")  # not in texts and comments
    assert checked.pieces[1].startswith("::text AND")
    assert not checked.pieces[-1].rstrip().endswith(";")


def test_a_library_prefers_postgres_sql_to_sql_of_no_dialect() -> None:
    found = read_library(json.dumps(document()).encode(), "people.json")
    assert found.sql.startswith("SELECT key FROM p")
    assert (found.parameters, found.dependencies) == ((Parameter("born", "date"),), (Dependency("patient", "p"),))
    assert check(found).parameters == ("born",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resourceType": "Measure"}, "not a FHIR Library"),
        ({"type": {"coding": [{"code": "logic-library"}]}}, "neither sql-query nor sql-view"),
        ({"type": {"coding": [{"code": "sql-view"}]}}, "takes no parameters"),
        ({"content": []}, "no content"),
        ({"content": [{"contentType": "application/sql", "data": "\x00"}]}, "no content|base64"),
        ({"name": "../x"}, "needs a name"),
        ({"parameter": [{"name": "x", "type": "Quantity"}]}, "its type is one of string"),
        ({"relatedArtifact": [{"type": "depends-on", "resource": "patient", "label": "a b"}]}, "a label"),
        ({"relatedArtifact": [{"type": "depends-on", "resource": "patient", "label": "a"}] * 2}, "the same label"),
    ],
)
def test_an_invalid_library_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        read_library(json.dumps(document(**change)).encode(), "people.json")


@given(st.recursive(st.none() | st.text(max_size=4), lambda x: st.lists(x) | st.dictionaries(st.text(max_size=4), x)))
def test_any_json_in_any_member_is_read_or_refused(value: Any) -> None:
    for member in document():
        content = json.dumps({**document(), member: value}).encode()
        message = None
        try:
            read_library(content, "x.json")
        except QueryError as error:
            message = str(error)
        assert message is None or message.startswith("x.json")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM p",
        "WITH a AS (SELECT * FROM p), b AS (SELECT * FROM a) SELECT * FROM b JOIN p USING (key)",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT * FROM n, p",
        "SELECT (SELECT max(x.key) FROM p x), lower(p.key), now(), p.birth_date::date FROM p;",
        "TABLE p",
        "VALUES (1)",
    ],
)
def test_a_select_over_the_declared_views_is_allowed(sql: str) -> None:
    check(library(sql, "p"))


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("DELETE FROM p", "only SELECT"),
        ("WITH gone AS (DELETE FROM p RETURNING *) SELECT * FROM gone", "only SELECT"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("", "one statement"),
        ("SELECT 1) AS x; DROP TABLE resource; --", "syntax error"),
        ("SELECT * INTO x FROM p", "SELECT INTO"),
        ("SELECT * FROM p FOR UPDATE", "FOR UPDATE"),
        ("COPY p TO PROGRAM 'id'", "only SELECT"),
        ("SELECT * FROM resource", "table resource is not declared"),
        ("SELECT * FROM tenant_other.p", "table tenant_other.p is not declared"),
        ("SELECT * FROM pg_authid", "not declared"),
        # a name of WITH is one only where it holds
        ("SELECT (WITH pg_authid AS (SELECT 1) SELECT 1), * FROM pg_authid", "not declared"),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a", "table b is not declared"),
        ("SELECT public.f(1)", "function public.f"),
        ("SELECT 1 OPERATOR(public.+) 2", "operator with a schema"),
        ("SELECT * FROM p TABLESAMPLE evil (1)", "TABLESAMPLE"),
    ],
)
def test_anything_more_than_a_select_is_refused_by_name(sql: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        check(library(sql, "p"))


def test_forbidden_functions_are_found_anywhere_in_a_query() -> None:
    sql = "SELECT * FROM pg_ls_dir('.') d, p WHERE length(query_to_xml('SELECT 1', true, true, '')::text) > 0 ORDER BY md5(d)"
    assert check(library(sql, "p")).functions == {"pg_ls_dir", "length", "query_to_xml", "md5"}


def test_a_message_quotes_nothing_that_was_pasted_into_the_query() -> None:
    with pytest.raises(QueryError) as caught:
        check(library("SELECT * FROM p WHERE name = Quill 'Wren"))
    assert "Quill" not in str(caught.value)
    assert "Wren" not in str(caught.value)


def test_an_unused_parameter_is_refused() -> None:
    with pytest.raises(QueryError, match="does not use the parameter x"):
        check(library("SELECT 1", parameters=(Parameter("x", "date"),)))


@pytest.mark.parametrize(
    ("type_", "right", "wrong"),
    [
        ("integer", "-7", "7.5"),
        ("integer", "2147483647", "2147483648"),
        ("date", "2026-01-31", "January"),
        ("date", "2024-02-29", "2026-02-29"),
        ("dateTime", "2026-01-31T10:00:00Z", "2026-01-31T25"),
        ("dateTime", "2026-01-31", "2026-01-31T24:00Z"),
        ("boolean", "true", "yes"),
        ("decimal", "1.50", "1,5"),
        ("string", "'; --", None),
    ],
)
def test_a_value_must_have_its_parameters_type(type_: str, right: str, wrong: str | None) -> None:
    one = library("SELECT :x", parameters=(Parameter("x", type_),))
    check_values(one, {"x": right})
    if wrong is not None:
        with pytest.raises(QueryError, match=f"parameter x is not a valid {type_}") as caught:
            check_values(one, {"x": wrong})
        assert wrong not in str(caught.value)
    with pytest.raises(QueryError, match="needs --param x"):
        check_values(one, {})
    with pytest.raises(QueryError, match="has no parameter y; it has x"):
        check_values(one, {"x": right, "y": ""})
