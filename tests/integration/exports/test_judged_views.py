"""Views that hypothesis makes, over resources of any shape: the compiled query and the judge agree row for row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from exports.errors import ViewError
from tests.judge.comparison import Json, Postgres, comparable, compiled_view, judged
from tests.judge.views import ODD, judge

# --- resources: of the shape that R4 says, and of any other -------------------------------------------------------------------

_TEXTS = st.sampled_from(
    ["a", "b", "A", " b  a ", "", "official", "7", "-3", "1.5", "true", "[a", "x/y", "#c1", "2020", "ab ab"]
)
_MOMENTS = st.sampled_from(
    [
        "2020", "2019-12", "2020-02-29", "2020-02-29T10:00:00Z", "2020-02-29T11:00:00.000+01:00", "2020-02-29T10:00:00",
        "2020-02-29T10:00:00.000", "2020-02-29T10:00", "2020-13-45", "soon", "10:00:00", "10:00", "9999-12-31", "0001-01-01",
    ]
)  # fmt: skip
_NUMBERS = st.sampled_from([Decimal(text) for text in ("0", "1", "1.0", "1.50", "-2", "3000000000", "0.001", "12.30")])
_REFERENCES = st.sampled_from(
    [
        "Patient/1", "Patient/2/_history/3", "http://x.example/fhir/Patient/1", "#c1", "urn:uuid:1", "Patient?a=b", "Patient/",
        "Organization/1", "1/2", "Patient",
    ]
)  # fmt: skip
_SCALARS = _TEXTS | _MOMENTS | _NUMBERS | st.booleans()
Draw = st.DrawFn
Make = Callable[[Draw], Any]


def _any(strategy: st.SearchStrategy[Any]) -> Make:
    return lambda draw: draw(strategy)


def _loosely(make: Make) -> Make:
    """Mostly what it should be; else several of it, a null among them, or something else."""

    def loosely(draw: Draw) -> Any:
        how = draw(st.integers(0, 9))
        if how == 0:
            return [None if draw(st.integers(0, 3)) == 0 else make(draw) for _ in range(draw(st.integers(0, 3)))]
        if how == 1:
            return draw(st.none() | _SCALARS)
        return {"x": make(draw)} if how == 2 else make(draw)

    return loosely


def _of(**elements: Make) -> Make:
    return lambda draw: {name: make(draw) for name, make in elements.items() if draw(st.booleans())}


def _list(make: Make) -> Make:
    """A list, with nulls now and then; else one item without the list, or something else. Lists in lists are no FHIR."""

    def some(draw: Draw) -> Any:
        how = draw(st.integers(0, 9))
        if how == 0:
            return draw(st.none() | _SCALARS)
        listed = [None if how == 1 and draw(st.booleans()) else make(draw) for _ in range(draw(st.integers(0, 3)))]
        return {"x": listed} if how == 2 else make(draw) if how == 3 else listed

    return some


_text, _moment, _number = _loosely(_any(_TEXTS)), _loosely(_any(_MOMENTS)), _loosely(_any(_NUMBERS))
_period = _of(start=_moment, end=_moment)
_coding = _of(system=_text, code=_text)
_concept = _of(coding=_list(_coding), text=_text)
_reference = _of(reference=_loosely(_any(_REFERENCES)), display=_text)
_name = _of(use=_text, family=_text, given=_list(_any(_TEXTS)), period=_loosely(_period), rank=_number)
_extension = _of(url=_text, valueString=_text, valueDecimal=_number)


def _link(draw: Draw) -> Any:
    inside = {"link": _list(_link)(draw)} if draw(st.integers(0, 2)) == 0 else {}
    return {**_of(other=_loosely(_reference), name=_list(_name), n=_number)(draw), **inside}


_elements = _of(
    active=_loosely(_any(st.booleans())), gender=_text, birthDate=_moment, name=_list(_name),
    deceasedBoolean=_loosely(_any(st.booleans())), deceasedDateTime=_moment, multipleBirthInteger=_number,
    maritalStatus=_loosely(_concept), extension=_list(_extension), generalPractitioner=_list(_reference),
    managingOrganization=_loosely(_reference), link=_list(_link), _birthDate=_loosely(_of(extension=_list(_extension))),
    own=_list(_any(_SCALARS)),
)  # fmt: skip


@st.composite
def _resources(draw: Draw) -> list[Json]:
    found = []
    for id_ in draw(st.lists(st.sampled_from(["1", "2", "a", "B", "é"]), min_size=1, max_size=3, unique=True)):
        held = {"resourceType": draw(st.sampled_from(["Patient", "Organization"])), "id": "c1"}
        contained = {"contained": [held]} if draw(st.booleans()) else {}
        found.append({"resourceType": "Patient", "id": id_, **contained, **_elements(draw)})
    return found


# --- paths, by what they are said of and what they give -----------------------------------------------------------------------

_AT = st.sampled_from(
    [
        "", "", "", ".first()", ".last()", "[1]", ".tail()", ".skip(1)", ".take(2)", ".distinct()", ".single()",
        "[%rowIndex]", "[own.count() - 1]", "[own]", ".skip(own.first())", ".take(own.count())", "[1 / 2]",
    ]
)  # fmt: skip
_WORD = st.sampled_from(["'a'", "'official'", "'7'", "''", "%word", "'A'", "'2020'"])


def _join(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map("".join)


_LEAF = {
    "name": st.sampled_from(["use", "family", "given", "given.first()", "period.start", "rank", "missing", "period", "$this"]),
    "coding": st.sampled_from(["system", "code"]),
    "root": st.sampled_from(
        [
            "gender", "active", "birthDate", "own", "id", "deceased", "deceased.ofType(boolean)", "deceased.ofType(dateTime)",
            "multipleBirth.ofType(integer)", "maritalStatus.text", "maritalStatus.coding.code",
            "maritalStatus.coding.first().code",
            "name.family", "name.given", "name.given.first()", "name.first().given.first()", "name.period.start", "name.rank",
            "extension('a').value.ofType(string)", "birthDate.extension('b').value.ofType(decimal)", "Patient.gender",
            "generalPractitioner.getReferenceKey()", "generalPractitioner.getReferenceKey(Patient)", "contained.id",
            "managingOrganization.getReferenceKey(Organization)", "managingOrganization.reference",
            "contained.ofType(Patient).id",
            "name", "link.name.family", "link.link.n", "maritalStatus", "name.select(given | family)", "%resource.gender",
        ]
    ),
}  # fmt: skip


def _criteria(kind: str) -> st.SearchStrategy[str]:
    """Criteria on items of a kind."""
    leaf = _LEAF[kind]
    plain = st.one_of(
        _join(leaf, st.sampled_from([" = ", " != ", " ~ ", " > ", " <= "]), _WORD),
        _join(
            leaf, st.sampled_from([".exists()", ".empty()", " in own", ".toString().startsWith('a')", ".count() > 1"])
        ),
        _join(
            leaf,
            st.sampled_from(
                [" > 1", " = 1", " >= @2020-02-29", " = @2020", " < @2020-02-29T10:00:00Z", " = @T10:00:00"]
            ),
        ),
        _join(leaf, st.just(".exists($this = "), _WORD, st.just(")")),
        _join(leaf, st.sampled_from([".all($this = 'a')", " is string", " is String", ".exists().not()"])),
        leaf.filter(lambda path: path in {"active", "deceased.ofType(boolean)", "missing"})
        if kind == "root"
        else st.just("missing"),
    )
    return st.recursive(
        plain,
        lambda inner: _join(
            st.just("("), inner, st.sampled_from([" and ", " or ", " xor ", " implies "]), inner, st.just(")")
        ),
        max_leaves=3,
    )


def _filters(kind: str) -> st.SearchStrategy[str]:
    return st.just("") | _join(st.just(".where("), _criteria(kind), st.just(")"))


_ITEMS = st.one_of(
    _join(st.just("name"), _filters("name"), _AT),
    _join(st.sampled_from(["maritalStatus.coding", "maritalStatus.first().coding"]), _filters("coding"), _AT),
    st.sampled_from(
        [
            "own",
            "link",
            "maritalStatus",
            "name.given",
            "deceased.ofType(dateTime)",
            "managingOrganization",
            "name.period",
        ]
    ),
    _join(st.just("name"), _filters("name"), _filters("name")),
)
_SCALAR_PATH = st.one_of(
    _LEAF["root"],
    _join(st.just("name"), _filters("name"), _AT, st.just("."), _LEAF["name"].filter(lambda path: path != "$this")),
    _join(_LEAF["root"], _AT),
)
_COMPUTED = st.one_of(
    _criteria("root"),
    _join(_ITEMS, st.sampled_from([".count()", ".exists()", ".empty()"])),
    _join(_SCALAR_PATH, st.sampled_from([".toString()", ".toInteger()", ".toDecimal()", ".toBoolean()", ".count()", " | own"])),
    _join(
        st.sampled_from(["name.family", "name.given.first()", "own", "own.first()", "maritalStatus.text", "gender"]),
        st.sampled_from(
            [
                ".upper()", ".lower()", ".length()", ".trim()", ".split(' ')", ".substring(1)",
                ".substring(1, {})", ".replace('', '-')", ".replace(own.first(), 'b')",
                ".substring(0, 2)", ".indexOf('b')",
                ".replace('a', 'c')", ".contains('a')", ".endsWith('b')", ".matches('^[a-b]+$')",
                ".join('+')", " & 'x'", " + 'x'",
            ]
        ),
    ),
    _join(
        st.sampled_from(["multipleBirth.ofType(integer)", "name.rank", "name.rank.first()", "own.first()", "own"]),
        st.sampled_from([" ~ 1", " ~ 1.5", " + 1", " * 1.5", " - 2.50", " div 2", " mod 2", ".lowBoundary()",
        ".highBoundary(1)", ".lowBoundary(0)"]),
    ),
    _join(
        st.sampled_from(["birthDate", "deceased.ofType(dateTime)", "name.first().period.start"]),
        st.sampled_from(
            [
                ".lowBoundary()", ".highBoundary()", ".lowBoundary(6)", ".highBoundary(12)", " + 1 month",
                " - 13 months", " + 40 days",
                " + 3 hours", " - 1 year", " + 90 minutes", " < @2020-02-29T10:00:00.000", " > @2019-12",
                " != @2020-02-29T10:00:00Z", " ~ @2020-02-29T10:00:00Z", " !~ @2020-02-29T10:00:00.0", " + 1.5 weeks",
            ]
        ),
    ),
    _join(st.just("iif("), _criteria("root"), st.just(", "), _SCALAR_PATH, st.just(", "), _SCALAR_PATH, st.just(")")),
    st.sampled_from(["'x'", "1.50", "true", "%word", "%rowIndex", "{}", "-1", "getResourceKey()"]),
)  # fmt: skip
_TYPES = st.sampled_from(
    ["string", "string", "code", "integer", "decimal", "boolean", "date", "dateTime", "time", "id"]
)


@st.composite
def _columns(draw: st.DrawFn, kind: str, names: list[str]) -> list[Json]:
    paths = _LEAF["name"] | st.just("%rowIndex") | _criteria("name") if kind == "name" else _SCALAR_PATH | _COMPUTED
    found = []
    for _ in range(draw(st.integers(1, 3))):
        names.append(f"c{len(names)}")
        path = draw(paths)
        column: Json = {"name": names[-1], "path": path, "type": "integer" if path == "%rowIndex" else draw(_TYPES)}
        if draw(st.integers(0, 4)) == 0:
            column["collection"] = True
        found.append(column)
    return found


@st.composite
def _iteration(draw: st.DrawFn, names: list[str]) -> Json:
    how = draw(st.sampled_from(["forEach", "forEachOrNull", "repeat"]))
    if how == "repeat":
        paths = draw(st.sampled_from([["link"], ["link", "link.link"], ["link.where(n > 0)"], ["name", "link"]]))
        return {"repeat": paths, "column": draw(_columns("name", names))}
    if draw(st.booleans()):
        return {
            how: draw(_ITEMS),
            "column": [{"name": names.append(f"c{len(names)}") or names[-1], "path": "$this", "type": draw(_TYPES)}],
        }  # type: ignore[func-returns-value]
    found: Json = {how: draw(_join(st.just("name"), _filters("name"), _AT)), "column": draw(_columns("name", names))}
    if draw(st.booleans()):
        names.append(f"c{len(names)}")
        inner = {"name": names[-1], "path": draw(st.sampled_from(["$this", "%rowIndex"])), "type": "string"}
        found["select"] = [{draw(st.sampled_from(["forEach", "forEachOrNull"])): "given", "column": [inner]}]
    return found


@st.composite
def _views(draw: st.DrawFn) -> Json:
    names: list[str] = []
    select = [{"column": draw(_columns("root", names))}]
    select += [draw(_iteration(names)) for _ in range(draw(st.integers(0, 2)))]
    if draw(st.integers(0, 3)) == 0:
        names.append(f"c{len(names)}")
        branches = [
            {how: "name", "column": [{"name": names[-1], "path": path, "type": "string"}]}
            for how, path in (("forEach", "family"), ("forEachOrNull", "use"), ("forEach", "given.first()"))
        ]
        select.append({"unionAll": branches[: draw(st.integers(1, 3))]})
    view: Json = {
        "name": "v",
        "resource": "Patient",
        "select": select,
        "constant": [{"name": "word", "valueString": "a"}],
    }
    if draw(st.booleans()):
        view["where"] = [{"path": path} for path in draw(st.lists(_criteria("root"), min_size=1, max_size=2))]
    return view


# --- the comparison -----------------------------------------------------------------------------------------------------------


def _accepted(view: Json) -> Json:
    """The view, or where its types are refused before data is seen, the same with texts in all columns."""
    try:
        compiled_view(view, [])
    except ViewError:
        for column in _every_column(view):
            column["type"] = "string"
    try:
        compiled_view(view, [])
    except ViewError:
        reject()
    return view


def _every_column(selection: Json) -> Iterator[Json]:
    yield from selection.get("column", [])
    for inner in (*selection.get("select", []), *selection.get("unionAll", [])):
        yield from _every_column(inner)


@settings(max_examples=200)
@given(view=_views(), resources=_resources())
def test_the_compiler_and_the_judge_agree(view: Json, resources: list[Json], postgres: Postgres) -> None:
    view = _accepted(view)
    assert comparable(judged(postgres, view, resources), view) == comparable(judge(view, resources), view)


@settings(max_examples=100)
@given(view=_views(), resources=_resources())
def test_a_query_without_marks_raises_where_the_judge_finds_an_odd_value(
    view: Json, resources: list[Json], postgres: Postgres
) -> None:
    view = _accepted(view)
    judgement = judge(view, resources)
    query = compiled_view(view, resources, marked=False).query
    if judgement.undecided or any(cell == ODD for row in judgement.rows for cell in row.values()):
        with pytest.raises(psycopg.DataError, match="chartferry: "):
            postgres.execute(query)
    elif "where" not in view:  # Postgres chooses which of several criteria it evaluates first, and so which one raises
        assert len(postgres.execute(query).fetchall()) == len(judgement.rows)


def test_a_disagreement_with_the_judge_fails_the_comparison(postgres: Postgres) -> None:
    """Most views that are made are run, and a wrong row would be seen."""
    view = {"resource": "Patient", "select": [{"column": [{"name": "c", "path": "gender", "type": "code"}]}]}
    resource = {"resourceType": "Patient", "id": "1", "gender": "a"}
    assert judge(view, [resource]).rows == [{"c": "a"}]
    assert judged(postgres, view, [{**resource, "gender": "b"}]).rows != [{"c": "a"}]
