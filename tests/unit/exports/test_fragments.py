from __future__ import annotations

from decimal import Decimal

import pytest
from psycopg import sql

from exports.compiler.fragments import SQL, Fragment, Identifier, Literal, read, written


def test_a_fragment_accepts_only_fragments() -> None:
    with pytest.raises(TypeError):
        SQL("SELECT {}").format("x; DROP TABLE resource")  # type: ignore[arg-type]  # the mistake that is refused
    with pytest.raises(TypeError):
        SQL(", ").join([SQL("a"), "b"])  # type: ignore[list-item]  # the mistake that is refused


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("it's", "'it''s'"),
        ("a\\b'", " E'a\\\\b'''"),
        ("{0}", "'{0}'"),
        (True, "true"),
        (7, "7"),
        (-7, "(-7)"),
        (Decimal("1.50"), "1.50"),
    ],
)
def test_a_value_is_quoted(value: str | bool | int | Decimal, quoted: str) -> None:
    assert SQL("{}").format(Literal(value)) == quoted


def test_a_name_is_quoted() -> None:
    assert Identifier('a"b') == '"a""b"'


def test_psycopg_compositions_survive_a_round_trip() -> None:
    piece = read(sql.SQL("SELECT {}").format(sql.Literal("x'")))
    assert isinstance(piece, Fragment)
    assert written(piece).as_string(None) == "SELECT 'x'''"
