"""Odd values: a cell holds a value of its column's type as it was written, or is marked; nothing is rounded, nothing raises."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from exports.compiler import MARK, compile_view
from exports.errors import ViewError

Postgres = psycopg.Connection[Any]
ODD = "odd"
# type: the JSON texts and what the cell holds; None: empty, as where there is nothing
FITS: dict[str, dict[str, str | None]] = {
    "integer": {
        "7": "7",
        "-7": "-7",
        "0": "0",
        "3.0": "3",
        "2147483647": "2147483647",
        "-2147483648": "-2147483648",
        "null": None,
        **dict.fromkeys(
            ["3.5", "0.1", '"q12h"', '"7"', '""', "99999999999", "2147483648", "-2147483649", "1e400"], ODD
        ),
        **dict.fromkeys(["true", "{}", '{"value": 7}', "[7, 8]", '"<5"'], ODD),
    },
    "integer64": {
        **{one: one for one in ("99999999999", "9223372036854775807")},
        **dict.fromkeys(["9223372036854775808", "1.5"], ODD),
    },
    "positiveInt": {"3": "3", "3.2": ODD, '"3"': ODD},
    "decimal": {
        "1.50": "1.50",
        "-0.001": "-0.001",
        "12345678901234567890.12": "12345678901234567890.12",
        "3": "3",
        "null": None,
        **dict.fromkeys(['"1.5"', '"<5"', '""', "false", "{}", "[1.5, 2]"], ODD),
    },
    "boolean": {
        "true": "true",
        "false": "false",
        "null": None,
        **dict.fromkeys(['"yes"', '"true"', "1", "0", '""', "{}"], ODD),
    },
    "date": {
        **{f'"{one}"': one for one in ("2020", "2020-02", "2020-02-29")},
        **dict.fromkeys(['"unknown"', '""', '"2020-02-29T10:00:00Z"', '"20200229"', '"2020-2-9"', "true", "{}"], ODD),
    },
    "dateTime": {
        **{f'"{one}"': one for one in ("2020", "2020-02-29", "2020-02-29T10:00:00Z", "2020-02-29T10:00:00.123+01:00")},
        **{
            f'"{one}"': one
            for one in ("2020-02-29T10:00", "2020-02-29T10:00:00", "2020-02-29T10:00:00+0100", "2020-02-29T10:00Z")
        },
        **dict.fromkeys(
            ['"yesterday"', '"2020-02-29 10:00:00"', '"2020-02-29T10"', '"10:00"', '"????-??-??T??:??:??"'], ODD
        ),
    },
    "instant": {'"2020-02-29T10:00:00.1Z"': "2020-02-29T10:00:00.1Z", '"now"': ODD},
    "time": {'"10:00:00"': "10:00:00", '"10:00"': "10:00", '"noon"': ODD, '"2020-01-01"': ODD},
    "string": {'"x"': "x", "3.50": "3.50", "true": "true", '{"a": [1.0]}': '{"a": [1.0]}', "null": None},
}


def query(view: dict[str, Any], *bodies: str, marked: bool = True) -> sql.Composable:
    """A view over resources that are given as JSON text, so that numbers stay as they are written."""
    listed = sql.SQL(", ").join([sql.SQL("({}::int, {}::jsonb)").format(at, body) for at, body in enumerate(bodies)])
    source = sql.SQL(
        "(SELECT 'site'::text AS connection, lpad(n::text, 6, '0') AS id, body FROM (VALUES {}) AS t(n, body))"
    ).format(listed)
    return compile_view(view, source, marked=marked).query


def column(path: str, type_: str | None = None, **more: Any) -> dict[str, Any]:
    declared = {"type": type_} if type_ else {}
    return {"resource": "Patient", "select": [{"column": [{"name": "v", "path": path, **declared, **more}]}]}


def patient(content: str, name: str = "x") -> str:
    return f'{{"resourceType": "Patient", "id": "p", {json.dumps(name)}: {content}}}'


def cells(postgres: Postgres, view: dict[str, Any], *bodies: str) -> list[Any]:
    return [ODD if row[0] == MARK else row[0] for row in postgres.execute(query(view, *bodies))]


@pytest.mark.parametrize("type_", FITS)
def test_a_cell_holds_only_values_that_fit_its_column(type_: str, postgres: Postgres) -> None:
    table = FITS[type_]
    bodies = [patient(content) for content in table]
    for path in ("x", "x.first()", "x.where($this.exists())"):
        unwrapped = [content.startswith("[") for content in table]
        found = cells(postgres, column(path, type_), *bodies)
        wanted = list(table.values())
        kept = [at for at, many in enumerate(unwrapped) if not many or path == "x"]
        assert [found[at] for at in kept] == [wanted[at] for at in kept], path


@pytest.mark.parametrize(
    ("path", "element", "type_"),
    [
        ("multipleBirth.ofType(integer)", "multipleBirthInteger", "integer"),
        ("deceased.ofType(boolean)", "deceasedBoolean", "boolean"),
        ("birthDate", "birthDate", "date"),
        ("deceased.ofType(dateTime)", "deceasedDateTime", "dateTime"),
    ],
)
def test_a_known_single_element_is_judged_like_any_other(
    path: str, element: str, type_: str, postgres: Postgres
) -> None:
    table = FITS[type_]
    assert cells(postgres, column(path, type_), *[patient(content, element) for content in table]) == list(
        table.values()
    )


FIRST_OF = {  # the codes of system a among codings, however they are written
    '[{"system": "http://a", "code": "1"}]': "1",
    '[{"system": "http://a", "code": "1"}, {"system": "http://a", "code": "2"}]': "1",
    '[{"system": "http://b", "code": "1"}, {"system": "http://a", "code": "2"}]': "2",
    '[{"system": "http://b", "code": "1"}]': None,
    '[{"system": "http://b", "code": "1"}, null]': None,
    '[null, {"system": "http://a", "code": "2"}]': "2",
    '[{"system": "http://a"}, {"system": "http://a", "code": "2"}]': "2",
    '[{"system": ["http://a"], "code": "1"}]': "1",
    '[{"system": "http://a", "code": ["1", "2"]}]': "1",
    '[{"system": "http://a", "code": {"x": 1}}]': '{"x": 1}',
    '[{"system": "http://a", "code": []}]': None,
    '[{"system": 5, "code": "1"}]': None,
    '[{"code": "1"}]': None,
    '{"system": "http://a", "code": "1"}': "1",
    '"http://a"': None,
    "[]": None,
}


def test_the_first_coding_of_a_system_is_found_in_any_shape_of_codings(postgres: Postgres) -> None:
    for within in ('{"coding": %s}', '[{"coding": %s}]'):
        bodies = [patient(within % codings, "maritalStatus") for codings in FIRST_OF]
        view = column("maritalStatus.coding.where(system = 'http://a').code.first()", "code")
        assert cells(postgres, view, *bodies) == list(FIRST_OF.values()), within
    several = (
        '[{"relationship": [{"coding": [{"system": "http://b"}]}, {"coding": [{"system": "http://a", "code": "2"}]}]}]'
    )
    view = column("contact.relationship.coding.where(system = 'http://a').code.first()", "code")
    assert cells(postgres, view, patient(several, "contact")) == ["2"]


@pytest.mark.parametrize("type_", sorted(set(FITS) - {"string"}))
def test_a_query_without_marks_raises_with_column_and_type_but_no_value(type_: str, postgres: Postgres) -> None:
    for content, wanted in FITS[type_].items():
        statement = query(column("x", type_), patient(content), marked=False)
        if wanted != ODD:
            assert len(postgres.execute(statement).fetchall()) == 1
            continue
        with pytest.raises(
            psycopg.DataError, match=rf"chartferry: column v (holds a value that is not of type {type_}|has more)"
        ) as caught:
            postgres.execute(statement)
        assert "q12h" not in str(caught.value)


ANSI = [
    ("birthDate", "date", "DATE", '"2020-02-29"', "2020-02-29"),
    ("birthDate", "date", "DATE", '"2020-02"', ODD),
    ("birthDate", "date", "DATE", '"2021-02-29"', ODD),
    ("x", "dateTime", "DATE", '"2020-02-29T10:00:00Z"', "2020-02-29"),
    ("x", "dateTime", "TIMESTAMP WITH TIME ZONE", '"2020-02-29T10:00:00Z"', "2020-02-29T10:00:00Z"),
    ("x", "decimal", "NUMERIC(5, 2)", "123.4", "123.40"),
    ("x", "decimal", "NUMERIC(5,2)", "123.456", ODD),
    ("x", "decimal", "NUMERIC(5,2)", "1234", ODD),
    ("x", "integer", "smallint", "32767", "32767"),
    ("x", "integer", "SMALLINT", "32768", ODD),
    ("x", "integer", "SMALLINT", '"a"', ODD),
    ("x", "string", "CHARACTER VARYING(3)", '"abc"', "abc"),
    ("x", "string", "VARCHAR(3)", '"abcd"', ODD),
    ("x", "string", "VARCHAR(3)", "null", None),
]


@pytest.mark.parametrize(("path", "type_", "ansi", "content", "wanted"), ANSI)
def test_a_column_with_a_sql_type_holds_only_values_that_fit_it(
    path: str, type_: str, ansi: str, content: str, wanted: str | None, postgres: Postgres
) -> None:
    view, body = column(path, type_, tag=[{"name": "ansi/type", "value": ansi}]), patient(content, path)
    assert cells(postgres, view, body) == [wanted]
    if wanted == ODD:
        with pytest.raises(psycopg.DataError, match="chartferry: column v holds a value that"):
            postgres.execute(query(view, body, marked=False))
    else:
        assert len(postgres.execute(query(view, body, marked=False)).fetchall()) == 1


SEVERAL = patient(
    '[{"family": "A", "given": ["x", 1], "period": {"start": "soon"}, "rank": "q12h"}, {"family": "B"}]', "name"
)
COMPUTED = [
    ("name.family", None, ODD),
    ("name.family.first()", None, "A"),
    ("name.given.join(' ')", None, ODD),
    ("name.rank.first() + 1", "decimal", ODD),
    ("name.rank.first() > 1", "boolean", ODD),
    ("name.where(rank > 1).family", None, ODD),
    ("name.where(rank > 1).exists()", "boolean", ODD),
    ("name.where(period.start > @2020).family", None, ODD),
    ("name.where(rank).family", None, ODD),
    ("name.first().period.start < @2020-01-01T00:00:00Z", "boolean", ODD),
    ("name.family > 'a'", "boolean", ODD),
    ("name.where(rank > 1).family", "string", ODD),
    ("1 / 2", "decimal", "0.5"),
    ("7 / 2", "integer", ODD),
    ("2147483647 + 1", "integer", ODD),
    ("name.count()", "integer", "2"),
    ("(name.count() > 1) and (name.rank.first() = 1)", "boolean", "false"),
]


@pytest.mark.parametrize(("path", "type_", "value"), COMPUTED)
def test_a_value_computed_from_an_odd_value_is_odd(
    path: str, type_: str | None, value: str, postgres: Postgres
) -> None:
    assert cells(postgres, column(path, type_), SEVERAL) == [value]


def test_numbers_too_large_to_calculate_with_are_odd(postgres: Postgres) -> None:
    huge = patient("[1e70000, 1e70000]")
    assert cells(postgres, column("x.first() * x.last()"), huge) == [ODD]
    assert cells(postgres, column("x.first() > 1"), huge) == [ODD]


def test_a_list_filtered_by_an_undecided_criterion_is_odd(postgres: Postgres) -> None:
    assert cells(postgres, column("name.where(rank > 1).family", collection=True), SEVERAL) == [ODD]


NULLS = patient('[null, {"family": "A", "given": [null, "B"]}, null, {"family": "C"}]', "name")


@pytest.mark.parametrize(
    ("path", "type_", "value"),
    [
        ("name.first().family", None, "A"),
        ("name[0].family", None, "A"),
        ("name[1].family", None, "C"),
        ("name.last().family", None, "C"),
        ("name.count()", "integer", "2"),
        ("name.where(family.exists()).first().given.first()", None, "B"),
        ("name.where(use.empty()).first().family", None, "A"),
        ("name.where(use = 'x').exists()", "boolean", "false"),
    ],
)
def test_nulls_in_a_list_are_no_items(path: str, type_: str | None, value: str, postgres: Postgres) -> None:
    assert cells(postgres, column(path, type_), NULLS) == [value]


def test_nulls_in_a_list_give_no_rows_and_do_not_exist(postgres: Postgres) -> None:
    family = {"column": [{"name": "v", "path": "family"}]}
    for how in ("forEach", "forEachOrNull"):
        assert cells(postgres, {"resource": "Patient", "select": [{how: "name", **family}]}, NULLS) == ["A", "C"]
    empty = patient("[null]", "name")
    assert cells(postgres, {"resource": "Patient", "select": [{"forEach": "name", **family}]}, empty) == []
    assert cells(postgres, column("name.exists()"), empty, patient("null", "name")) == ["false", "false"]


def test_resources_that_a_where_cannot_judge_are_omitted_and_counted(postgres: Postgres) -> None:
    bodies = [patient(content, "multipleBirthInteger") for content in ("2", "1", '"q12h"', "[1, 2]", "[1]", "null")]
    view = {**column("id"), "where": [{"path": "multipleBirth.ofType(integer) > 1"}]}
    source = sql.SQL("(SELECT 'site' AS connection, 'p' AS id, b.body FROM (VALUES {}) AS b(body))").format(
        sql.SQL(", ").join([sql.SQL("({}::jsonb)").format(body) for body in bodies])
    )
    compiled = compile_view(view, source, marked=True)
    assert len(postgres.execute(compiled.query).fetchall()) == 1
    assert compiled.undecided is not None
    assert postgres.execute(compiled.undecided).fetchall() == [(2,)]
    with pytest.raises(psycopg.DataError, match="chartferry: where needs a number"):
        postgres.execute(compile_view(view, source).query)


def test_items_that_an_iterations_criterion_cannot_judge_are_counted(postgres: Postgres) -> None:
    inner = {"forEach": "x.where($this > 3)", "column": [{"name": "v", "path": "$this"}]}
    view = {"resource": "Patient", "select": [{"forEach": "name", "select": [inner]}]}
    source = sql.SQL("(SELECT 'site' AS connection, 'p' AS id, {}::jsonb AS body)")
    odd = compile_view(view, source.format(patient('[{"x": [4, true]}]', "name")), marked=True)
    assert odd.undecided is not None
    assert postgres.execute(odd.undecided).fetchall() == [(1,)]
    with pytest.raises(psycopg.DataError, match="chartferry: an iteration"):
        postgres.execute(compile_view(view, source.format(patient('[{"x": [4, true]}]', "name"))).query)


def test_a_view_whose_criteria_can_always_judge_needs_no_second_query() -> None:
    source = sql.SQL("x")
    view = {**column("id"), "where": [{"path": "gender = 'female' and name.exists(use = 'old')"}]}
    assert compile_view(view, source, marked=True).undecided is None


_TEXT = st.text(st.characters(exclude_characters="\x00\x01", exclude_categories=["Cs"]), max_size=6)
_ODDITIES = st.sampled_from(
    [
        "",
        "q12h",
        "<5",
        "7",
        "true",
        "2020-02-30",
        "2020-02-29T25:00:00Z",
        "9999-12-31T23:59:60+14:59",
        "0000",
        "24:00",
        "1e5",
        "T",
    ]
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
    | _ODDITIES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["family", "value", "x"]) | _TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)
PATHS = [
    "x", "x.first()", "x.value", "x.join(',')", "x + 1", "x > 1", "x < @2020-02-02", "x = @2020-02-02", "x >= @T10:00", "x > '1'",
    "x > @2020-02-02T10:00:00Z", "x.where($this > 1)", "x.where($this)", "x.first() * x.last()", "x and true", "x.not()",
    "x > x.value", "x.count() / 3", "name.family", "name.first().given.join()", "name.where(use = 'x').first().period.start",
    "birthDate", "birthDate > x.first()", "deceased.ofType(boolean)", "multipleBirth.ofType(integer) div x.first()",
    "x.getReferenceKey()",
]  # fmt: skip


@settings(max_examples=60)
@given(
    values=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(["x", "name", "birthDate", "deceasedBoolean", "multipleBirthInteger"], _JSON)
    )
)
def test_no_data_makes_a_marked_view_raise(values: dict[str, Any], postgres: Postgres) -> None:
    body = json.dumps({"resourceType": "Patient", "id": "p", **values})
    postgres.execute("DROP TABLE IF EXISTS only_row")
    postgres.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE only_row AS SELECT 'site'::text AS connection, 'p'::text AS id, {}::jsonb AS body"
        ).format(body)
    )
    for (path, type_), of_row in columns_of_only_row().items():
        for (cell,) in postgres.execute(of_row):
            assert fits(ODD if cell == MARK else cell, type_), (path, type_)
    for path in ("x > 1", "x < @2020", "x", "name.where(period.start > @2020).exists()"):
        view = {**column("id"), "where": [{"path": path}]}
        assert cells(postgres, view, body) in (["p"], [])


@cache
def columns_of_only_row() -> dict[tuple[str, str | None], sql.Composable]:
    """Each path as each type, of the row in a temporary table; a path that gives no such type is refused before data is seen."""
    found: dict[tuple[str, str | None], sql.Composable] = {}
    for path in PATHS:
        for type_ in ("integer", "decimal", "boolean", "date", "dateTime", "string", None):
            try:
                compiled = compile_view(column(path, type_), sql.SQL("only_row"), marked=True)
            except ViewError:
                continue
            found[path, type_] = compiled.query
    return found


def fits(cell: str | None, type_: str | None) -> bool:
    """Whether a reader that knows the column's type can read the cell; decided without the compiler."""
    pattern = {
        "integer": r"-?\d{1,10}",
        "decimal": r"-?\d+(\.\d+)?",
        "boolean": "true|false",
        "date": r"\d{4}(-\d\d(-\d\d)?)?",
        "dateTime": r"(?s)\d{4}(-\d\d(-\d\d(T\d\d:\d\d.*)?)?)?",
    }.get(type_ or "", "(?s).*")
    return cell in (None, ODD) or re.fullmatch(pattern, cell) is not None
