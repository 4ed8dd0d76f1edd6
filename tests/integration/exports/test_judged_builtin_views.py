"""The built-in views, judged row for row: over synthetic charts, over Synthea's, and over resources of any shape made from R4."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports.catalogue import builtin_names, load_view, view_sets
from exports.elements.table import NUMBER_TYPES, TEMPORAL_TYPES, elements_of
from mocks.synthetic.generator import generate
from mocks.synthetic.json_bytes import to_json_bytes
from tests.judge.comparison import Json, Postgres, comparable, judged
from tests.judge.views import columns, judge

NAMES = (*builtin_names(), *[name for names in view_sets().values() for name in names])
ENOUGH = 20  # resources of a type


def read_exactly(line: bytes) -> Json:
    return json.loads(line, parse_float=Decimal, parse_int=Decimal)


def agree(name: str, resources: list[Json], postgres: Postgres) -> int:
    """Rows of the view, which are the judge's."""
    view = load_view(name).definition
    found = judge(view, resources)
    assert comparable(judged(postgres, view, resources), view) == comparable(found, view)
    return len(found.rows)


def agree_on(charts: dict[str, list[Json]], postgres: Postgres) -> int:
    """Views that have a row."""
    rows = {}
    for name in NAMES:
        if resources := charts.get(load_view(name).resource):
            rows[name] = agree(name, resources[:: max(1, len(resources) // ENOUGH)], postgres)
    return sum(1 for found in rows.values() if found)


def test_built_in_views_agree_with_the_judge_on_synthetic_charts(postgres: Postgres) -> None:
    charts: dict[str, list[Json]] = {}
    for resource in generate(3, seed=7):
        charts.setdefault(resource["resourceType"], []).append(read_exactly(to_json_bytes(resource)))
    assert agree_on(charts, postgres) >= 30


def test_built_in_views_agree_with_the_judge_on_synthea(synthea_dir: Path, postgres: Postgres) -> None:
    charts = {}
    for path in synthea_dir.glob("*.ndjson.gz"):
        with gzip.open(path) as lines:
            charts[path.name.split(".")[0]] = [read_exactly(line) for line in islice(lines, 500)]
    assert agree_on(charts, postgres) >= 25


# --- resources made from R4's table: of what a view asks for, mostly of the right shape -----------------------------------------

_WORD = re.compile(r"[A-Za-z]+")
_LITERAL = re.compile(r"'([^']*)'")
_MOMENTS = [
    "2020",
    "2019-12",
    "2020-02-29",
    "2020-02-29T10:00:00Z",
    "2020-02-29T11:00:00.000+01:00",
    "10:00:00",
    "soon",
]
_NUMBERS = [Decimal(text) for text in ("0", "1", "2", "1.50", "-2", "3000000000")]
_DEEPEST = 6


def expressions(definition: Json) -> Iterator[str]:
    """Every FHIRPath expression of a view."""
    for key, value in definition.items():
        if key in {"path", "forEach", "forEachOrNull"}:
            yield value
        elif key == "repeat":
            yield from value
        elif isinstance(value, list):
            for inner in value:
                if isinstance(inner, dict):
                    yield from expressions(inner)


class Maker:
    """Makes resources that have what a view names, and its codes and systems among their texts."""

    def __init__(self, definition: Json) -> None:
        paths = " ".join(expressions(definition))
        self.resource = definition["resource"]
        self._asked = set(_WORD.findall(paths))
        self._texts = ["a", "b", "", "7", "Patient/1", "http://x/Practitioner/2/_history/1", *_LITERAL.findall(paths)]

    def resources(self, draw: st.DrawFn) -> list[Json]:
        ids = draw(st.lists(st.sampled_from(["1", "B", "a"]), min_size=1, max_size=2, unique=True))
        return [{**self._complex(self.resource, draw, 0), "resourceType": self.resource, "id": id_} for id_ in ids]

    def _complex(self, type_: str, draw: st.DrawFn, depth: int) -> Json:
        made = {}
        for name, known in elements_of(type_).items():
            if name not in self._asked or draw(st.integers(0, 9)) < 2 + depth:
                continue
            wanted = [one for one in known.types if one in self._asked] if known.choice else []
            kind = draw(st.sampled_from(wanted or known.types[:6]))
            key = name + kind[0].upper() + kind[1:] if known.choice else name
            made[key] = self._shaped(kind, draw, depth + 1, many=known.many)
        return made

    def _shaped(self, type_: str, draw: st.DrawFn, depth: int, *, many: bool) -> object:
        how = draw(st.integers(0, 30))
        if how == 0:
            return draw(st.sampled_from([None, True, "odd", Decimal("1.5"), [], {}]))
        listed = many if how > 1 else not many
        count = draw(st.integers(1, 2)) if listed else 1
        values = [self._value(type_, draw, depth) for _ in range(count)]
        return values if listed else values[0]

    def _value(self, type_: str, draw: st.DrawFn, depth: int) -> object:
        if elements_of(type_) and type_ not in {"Element"}:
            return self._complex(type_, draw, depth) if depth < _DEEPEST else {}
        if type_ == "boolean":
            return draw(st.booleans())
        if type_ in NUMBER_TYPES:
            return draw(st.sampled_from(_NUMBERS))
        return draw(st.sampled_from(_MOMENTS if type_ in TEMPORAL_TYPES else self._texts))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=6)
@given(data=st.data())
def test_built_in_views_agree_with_the_judge_on_resources_of_any_shape(
    name: str, postgres: Postgres, data: st.DataObject
) -> None:
    definition = load_view(name).definition
    agree(name, data.draw(st.composite(Maker(definition).resources)()), postgres)


@pytest.mark.parametrize("name", NAMES)
def test_every_column_of_a_built_in_view_says_what_it_means(name: str) -> None:
    definition = load_view(name).definition
    assert definition["name"] == name
    assert definition["description"]
    assert not [column["name"] for column in columns(definition) if not column.get("description")]
