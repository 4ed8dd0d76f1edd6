"""Views whose unions do the same with an observation and its components, on data of any shape: as the judge says."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from typing import Any

import pytest

from tests.judge.comparison import Json, Postgres, comparable, judged
from tests.judge.views import judge

CODING = [
    {"forEachOrNull": "code.coding.first()", "column": [{"name": "code", "path": "code", "type": "code"}]},
    {
        "forEachOrNull": "value.ofType(Quantity)",
        "column": [
            {"name": "value", "path": "value", "type": "decimal"},
            {"name": "literal", "path": "'x'", "type": "string"},
            {"name": "at", "path": "%rowIndex", "type": "integer"},
        ],
    },
    {"column": [{"name": "codes", "path": "code.coding.code", "type": "code", "collection": True}]},
]
OWN = [[{"name": "part", "path": path, "type": "integer"}] for path in ("-1", "%rowIndex")]
OBSERVATION: dict[str, Any] = {"column": OWN[0], "select": CODING}
COMPONENT: dict[str, Any] = {"forEach": "component", "column": OWN[1], "select": CODING}
# with other contents, so not equal
OTHER: dict[str, Any] = {
    **COMPONENT,
    "select": [CODING[0], {**CODING[1], "forEachOrNull": "value.ofType(Range).low"}, CODING[2]],
}
SWAPPED: list[Json] = [
    {"column": [{"name": name, "path": path, "type": "string"} for name, path in zip("ab", paths, strict=True)]}
    for paths in (("'k'", "id"), ("id", "'k'"))
]
WITHIN_REPEATED: dict[str, Any] = {"forEach": "component", "unionAll": [OBSERVATION, COMPONENT]}

CODINGS = [
    None,
    [],
    [{"code": "a"}],
    [None, {"code": "a"}],
    [{"code": "a"}, {"code": "b"}],
    {"code": "a"},
    [{"code": ["a"]}],
    "a",
]
QUANTITIES = [
    None,
    {"value": Decimal("1.50")},
    [{"value": Decimal(1)}, {"value": Decimal(2)}],
    {"unit": "kg"},
    "1",
    {"value": [Decimal(1), Decimal(2)]},
]


def parts() -> list[Json]:
    return [
        {"code": {"coding": coding}, "valueQuantity": quantity} for coding, quantity in product(CODINGS, QUANTITIES)
    ]


def resources() -> list[Json]:
    """An Observation with its own values, and with components: none, one, several, and one that is no array."""
    shapes = [[], [{"code": {"text": "t"}}], parts()[10:13], parts()[14], [None, {"component": parts()[:3]}]]
    return [
        {"resourceType": "Observation", "id": f"{at:03d}", **part, "component": shapes[at % len(shapes)]}
        for at, part in enumerate(parts())
    ]


@pytest.mark.parametrize(
    "union",
    [[OBSERVATION, COMPONENT], [COMPONENT, OBSERVATION, COMPONENT], [OBSERVATION, OTHER], [WITHIN_REPEATED], SWAPPED],
    ids=["alike", "alike thrice", "unlike", "within another iteration", "alike but for their columns"],
)
def test_a_union_gives_the_rows_of_its_branches_in_their_order(union: list[Json], postgres: Postgres) -> None:
    view = {
        "name": "v",
        "resource": "Observation",
        "select": [{"column": [{"name": "id", "path": "id", "type": "id"}]}, {"unionAll": union}],
    }
    found = judge(view, resources())
    assert len(found.rows) > len(parts())
    assert comparable(judged(postgres, view, resources()), view) == comparable(found, view)
