"""`repeat`: all that paths lead to, and what they lead to from there, in the order of the document."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.exports.conftest import RunView

Json = dict[str, Any]


def item(link: str, *items: Json, **more: Any) -> Json:
    return {"linkId": link, **({"item": list(items)} if items else {}), **more}


ANSWERED = item("1.2", answer=[{"valueString": "yes", "item": [item("1.2.1"), item("1.2.2")]}, {"valueString": "no"}])
FORM: Json = {
    "resourceType": "QuestionnaireResponse",
    "id": "f",
    "item": [item("1", item("1.1", item("1.1.1")), ANSWERED), item("2")],
}
LINK: Json = {"name": "link", "path": "linkId", "type": "string"}
ROW: Json = {"name": "row", "path": "%rowIndex", "type": "integer"}


def links(run_view: RunView, selection: Json, *resources: Json) -> list[Any]:
    view = {"resource": "QuestionnaireResponse", "select": [selection]}
    return [tuple(row.values()) if len(row) > 1 else row["link"] for row in run_view(view, list(resources or [FORM]))]


def test_items_come_before_their_children(run_view: RunView) -> None:
    assert links(run_view, {"repeat": ["item"], "column": [LINK]}) == ["1", "1.1", "1.1.1", "1.2", "2"]


def test_several_paths_are_followed_at_each_item_in_order(run_view: RunView) -> None:
    found = links(run_view, {"repeat": ["item", "answer.item"], "column": [LINK]})
    assert found == ["1", "1.1", "1.1.1", "1.2", "1.2.1", "1.2.2", "2"]


def test_a_path_that_begins_with_the_resource_type_is_followed_once(run_view: RunView) -> None:
    assert links(run_view, {"repeat": ["QuestionnaireResponse.item"], "column": [LINK]}) == ["1", "2"]
    found = links(run_view, {"repeat": ["QuestionnaireResponse.item", "answer.item"], "column": [LINK]})
    assert found == ["1", "2"]


def test_the_row_index_counts_over_all_depths_and_orders_as_a_number(run_view: RunView) -> None:
    wide = {**FORM, "item": [item(str(n), item(f"{n}.1")) for n in range(12)]}
    found = links(run_view, {"repeat": ["item"], "column": [LINK, ROW]}, wide)
    assert found == [(link, at) for at, link in enumerate(name for n in range(12) for name in (str(n), f"{n}.1"))]


def test_a_path_that_leads_nowhere_gives_no_rows(run_view: RunView) -> None:
    column = {"name": "id", "path": "id", "type": "id"}
    assert links(run_view, {"column": [column], "select": [{"repeat": ["part"], "column": [LINK]}]}) == []


def test_nested_iterations_drop_or_keep_items_without_rows(run_view: RunView) -> None:
    def inner(how: str) -> Json:
        return {how: "answer", "column": [{"name": "answer", "path": "value.ofType(string)", "type": "string"}]}

    for how, more in (("forEach", []), ("forEachOrNull", [("1", None), ("1.1", None), ("1.1.1", None)])):
        found = links(run_view, {"repeat": ["item"], "column": [LINK], "select": [inner(how)]})
        assert found == [*more, ("1.2", "yes"), ("1.2", "no"), *([("2", None)] if more else [])]


def test_a_nested_repeat_begins_at_the_items_of_the_outer_one(run_view: RunView) -> None:
    below = {"repeat": ["item"], "column": [{"name": "below", "path": "linkId", "type": "string"}]}
    found = links(run_view, {"repeat": ["item"], "column": [LINK], "select": [below]})
    assert found == [("1", "1.1"), ("1", "1.1.1"), ("1", "1.2"), ("1.1", "1.1.1")]


def test_a_repeat_works_within_a_for_each_and_a_union(run_view: RunView) -> None:
    repeat = {"repeat": ["item"], "column": [LINK]}
    assert links(run_view, {"forEach": "item", "select": [repeat]}) == ["1.1", "1.1.1", "1.2"]
    first = {"forEach": "item.first()", "column": [LINK]}
    assert links(run_view, {"unionAll": [first, repeat, repeat]}) == ["1", *["1", "1.1", "1.1.1", "1.2", "2"] * 2]


def test_criteria_apply_at_every_depth(run_view: RunView) -> None:
    found = links(run_view, {"repeat": ["item.where(linkId != '1.1')"], "column": [LINK]})
    assert found == ["1", "1.2", "2"]


def test_depth_has_no_limit(run_view: RunView) -> None:
    deep = item("0")
    for depth in range(1, 400):
        deep = item(str(depth), deep)
    found = links(run_view, {"repeat": ["item"], "column": [LINK]}, {**FORM, "item": [deep]})
    assert found == [str(depth) for depth in reversed(range(400))]


@pytest.mark.parametrize("selection", [{"forEachOrNull": "item"}, {"forEach": "item"}])
def test_an_inherited_row_index_is_that_of_the_iteration(selection: Json, run_view: RunView) -> None:
    union = {"unionAll": [{"column": [ROW]}, {"repeat": ["item"], "column": [ROW]}]}
    rows = run_view({"resource": "QuestionnaireResponse", "select": [{**selection, **union}]}, [FORM])
    assert [row["row"] for row in rows] == [0, 0, 1, 2, 1]
