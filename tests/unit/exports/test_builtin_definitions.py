"""The definitions of the built-in views, as they are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg.sql import SQL

from exports.catalogue import builtin_names, load_view, view_sets
from exports.compiler import ANY_ROWS, Source, compile_view

# `x.y.first()`: the first y of any x, `y` being an element or a key
_FIRST_OF_ALL = re.compile(r"(?P<of>.+)\.[A-Za-z]+(?:\([A-Za-z]*\))?\.first\(\)")


def paths(selection: dict[str, Any]) -> Iterator[str]:
    yield from (column["path"] for column in selection.get("column", []))
    yield from (selection[key] for key in ("forEach", "forEachOrNull") if key in selection)
    for inner in (*selection.get("select", []), *selection.get("unionAll", [])):
        yield from paths(inner)


@pytest.mark.parametrize("name", [*builtin_names(), *(name for names in view_sets().values() for name in names)])
def test_columns_side_by_side_show_one_item(name: str) -> None:
    """The first value beside the first unit of a list may be of two items."""
    every = [path for path in dict.fromkeys(paths(load_view(name).definition)) if ".where(system = " not in path]
    mixed = [
        (path, other)
        for path in every
        if (found := _FIRST_OF_ALL.fullmatch(path))
        for other in every
        if other != path
        and other.startswith(f"{found['of']}.")
        and (other.endswith(".first()") or other.startswith(f"{found['of']}.first()"))
    ]
    assert mixed == []


@pytest.mark.parametrize("name", builtin_names())
def test_a_view_compiled_once_is_the_same_over_the_rows_of_each_connection(name: str) -> None:
    definition, as_of = load_view(name).definition, datetime(2026, 1, 1, tzinfo=UTC)
    rows = SQL("(SELECT 'a{0}\\' AS connection, id, body FROM resource)")

    def over(rows: SQL) -> Source:
        return Source(rows, of_type=True, one_connection=True, divisible=True)

    once = compile_view(definition, over(ANY_ROWS), marked=True, as_of=as_of)
    assert once.over(rows) == compile_view(definition, over(rows), marked=True, as_of=as_of)
