from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.compiler.fhirpath import parse, without_literals
from exports.compiler.syntax import (
    Binary,
    Call,
    Empty,
    Index,
    Literal,
    Member,
    Node,
    This,
    Unary,
    Variable,
    unparse,
)
from exports.errors import FhirPathError

name = Member(None, "a")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a.b", Member(name, "b")),
        ("a[0].b", Member(Index(name, Literal(0, "integer")), "b")),
        ("$this", This()),
        ("{}", Empty()),
        ("%one", Variable("one")),
        ("%'a b'", Variable("a b")),
        ("`a b`", Member(None, "a b")),
        ("a.contains", Member(name, "contains")),
        ("join(', ' )", Call(None, "join", (Literal(", ", "string"),))),
        ("1.50", Literal(Decimal("1.50"), "decimal")),
        ("@2020-02", Literal("2020-02", "date")),
        ("@2020-02T", Literal("2020-02", "dateTime")),
        ("@2020-02-03T10:11:12.5+01:00", Literal("2020-02-03T10:11:12.5+01:00", "dateTime")),
        ("@T10:11", Literal("10:11", "time")),
        (r"'it\'s é \\ \u00e9\ud83d\ude00'", Literal("it's é \\ é😀", "string")),
        ("a // a comment", name),
        ("a /* a\ncomment */ . b", Member(name, "b")),
        ("-1", Unary("-", Literal(1, "integer"))),
    ],
)
def test_an_expression_is_parsed_into_its_tree(text: str, tree: Node) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "bracketed"),
    [
        ("a or b and c", "a or (b and c)"),
        ("a and b = c", "a and (b = c)"),
        ("a = b < c", "a = (b < c)"),
        ("a < b + c", "a < (b + c)"),
        ("a - b - c", "(a - b) - c"),
        ("a + b * c", "a + (b * c)"),
        ("a implies b or c", "a implies (b or c)"),
        ("-a.b + c", "(-(a.b)) + c"),
    ],
)
def test_operators_bind_as_the_grammar_says(text: str, bracketed: str) -> None:
    assert parse(text) == parse(bracketed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unexpected end"),
        ("@@", "'@' cannot start an expression"),
        ("a.", "unexpected end"),
        ("a b", "unexpected 'b' at character 3"),
        ("a[0", "unexpected end"),
        ("f(a,)", "unexpected '\\)'"),
        ("'open", '"\'" cannot start an expression'),
        (r"'\q'", "is not an escape"),
        (r"'\u12'", "four hexadecimal digits"),
        (r"'\ud800'", "surrogate"),
        (r"'\u0000'", r"U\+0000"),
        ("$total", "not supported yet"),
        ("@T10:60:00", "no such day or time as 10:60:00 at character 1"),
        ("@2020-01-01T23:60:00Z", "no such day or time"),
        ("and", "unexpected 'and'"),
        ("(" * 500, "nested too deeply"),
        ("-" * 500 + "1", "nested too deeply"),
    ],
)
def test_an_invalid_expression_is_refused_with_its_position(text: str, message: str) -> None:
    with pytest.raises(FhirPathError, match=message):
        parse(text)


_NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
_LITERALS = st.one_of(
    st.builds(Literal, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.just("string")),
    st.builds(Literal, st.booleans(), st.just("boolean")),
    st.builds(Literal, st.integers(0, 10**9), st.just("integer")),
    st.builds(Literal, st.decimals(0, 10**6, places=2), st.just("decimal")),
    st.builds(Literal, st.dates().map(str), st.just("date")),
    st.builds(Literal, st.times().map(lambda time: time.strftime("%H:%M:%S")), st.just("time")),
)
_OPERATORS = st.sampled_from(
    ["and", "or", "xor", "implies", "=", "!=", "~", "<", ">=", "|", "+", "-", "&", "*", "div", "in"]
)


def test_masking_the_literals_of_an_expression_moves_nothing_else() -> None:
    text = r"name.where(use = 'it\'s' and %x < @1940-12-21T07).given[10] = 'Zappa'"
    assert without_literals(text) == "name.where(use = '***'*' and %x < **************).given[**] = '*****'"


def _deeper(nodes: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.one_of(
        st.builds(Member, st.none() | nodes, _NAMES),
        st.builds(Index, nodes, nodes),
        st.builds(Call, st.none() | nodes, _NAMES, st.lists(nodes, max_size=2).map(tuple)),
        st.builds(Unary, st.sampled_from("+-"), nodes),
        st.builds(Binary, _OPERATORS, nodes, nodes),
    )


_TREES: st.SearchStrategy[Node] = st.recursive(
    st.one_of(
        _LITERALS, st.builds(Empty), st.builds(This), st.builds(Variable, _NAMES), st.builds(Member, st.none(), _NAMES)
    ),
    _deeper,
    max_leaves=12,
)


@given(_TREES)
def test_a_tree_that_is_written_and_read_is_the_same_tree(tree: Node) -> None:
    assert parse(unparse(tree)) == tree


@given(st.text() | st.text(alphabet="ab.()[]'`%$@0123456789 \\-+=<>andorT:{}|~!,\"u"))
def test_garbage_is_parsed_or_refused_and_never_crashes(text: str) -> None:
    try:
        tree = parse(text)
    except FhirPathError:
        return
    assert parse(unparse(tree)) == tree
