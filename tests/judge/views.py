"""What a ViewDefinition gives on a list of resources, row by row, as an export writes it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from exports.compiler.fhirpath import parse
from tests.judge.fhirpath import DishonestError, Item, World, evaluate, is_number, one, truth
from tests.judge.functions import text_of

ODD = "odd"
Row = dict[str, Any]
_CONSTANT = re.compile("value(.)(.*)")
_PATTERN = {
    "date": r"\d{4}(-\d\d(-\d\d)?)?",
    "dateTime": r"(?s)\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d.*|Z|[+-][0-9:]*)?)?)?)?",
    "instant": r"(?s)\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d.*|Z|[+-][0-9:]*)?)?)?)?",
    "time": r"\d\d(:\d\d(:\d\d(\.\d+)?)?)?",
}
_RANGE = {"integer": 2**31, "positiveInt": 2**31, "unsignedInt": 2**31, "integer64": 2**63}


@dataclass
class Judgement:
    """The rows in order, and how many resources nobody can say of whether they belong in the view."""

    rows: list[Row] = field(default_factory=list)
    undecided: int = 0


def judge(view: dict[str, Any], resources: list[dict[str, Any]]) -> Judgement:
    """The rows of a view, resources ordered by id; cells as text, lists as JSON values, `ODD` for what is not honest."""
    found = Judgement()
    for resource in sorted(resources, key=lambda one: str(one["id"]).encode()):
        if resource.get("resourceType") != view["resource"]:
            continue
        root = Item(resource, view["resource"], found=True)
        run = _Run(World(root, _constants(view)))
        met = [run.criterion(where["path"]) for where in view.get("where", [])]
        if False in met:
            continue
        rows = list(run.rows({"select": view["select"]}, root, 0))
        found.undecided += None in met or run.doubt
        if None not in met:
            found.rows += rows
    return found


def _constants(view: dict[str, Any]) -> dict[str, Item]:
    constants = {}
    for constant in view.get("constant", []):
        (name,) = (key for key in constant if key.startswith("value"))
        first, rest = _CONSTANT.fullmatch(name).groups()  # type: ignore[union-attr]
        constants[constant["name"]] = Item(constant[name], first.lower() + rest, literal=True)
    return constants


class _Run:
    """One resource."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.doubt = False

    def criterion(self, path: str) -> bool | None:
        """Whether it is met; None: nobody can say."""
        try:
            return truth(evaluate(parse(path), [self._world.resource], self._world)) is True
        except DishonestError:
            return None

    def rows(self, selection: dict[str, Any], focus: Item, index: int) -> Iterator[Row]:
        items = self._items(selection, focus)
        if items is None:
            yield from self._contents(selection, focus, index)
            return
        for at, item in enumerate(items):
            yield from self._contents(selection, item, at)
        if not items and "forEachOrNull" in selection:
            yield {
                column["name"]: self._cell(column, focus, 0) if column["path"] == "%rowIndex" else None
                for column in columns(selection)
            }

    def _items(self, selection: dict[str, Any], focus: Item) -> list[Item] | None:
        """The items of an iteration; None if the selection does not iterate."""
        if "repeat" in selection:
            return list(self._below(selection["repeat"], focus))
        path = selection.get("forEach", selection.get("forEachOrNull"))
        return None if path is None else self._leniently(path, focus)

    def _below(self, paths: list[str], focus: Item) -> Iterator[Item]:
        # items of several types have none that is known beforehand
        mixed = len({re.split(r"\W", path)[0] for path in paths}) > 1
        for path in paths:
            for found in self._leniently(path, focus):
                item = replace(found, type=None) if mixed else found
                yield item
                yield from self._below(paths, item)

    def _leniently(self, path: str, focus: Item) -> list[Item]:
        try:
            return evaluate(parse(path), [focus], self._world)
        except DishonestError:
            self.doubt = True
        try:
            return evaluate(parse(path), [focus], replace(self._world, lenient=True))
        except DishonestError:
            return []

    def _contents(self, selection: dict[str, Any], focus: Item, index: int) -> Iterator[Row]:
        own = {column["name"]: self._cell(column, focus, index) for column in selection.get("column", [])}
        parts: list[list[Row]] = [[own]]
        parts += [list(self.rows(inner, focus, index)) for inner in selection.get("select", [])]
        if "unionAll" in selection:
            parts.append([row for branch in selection["unionAll"] for row in self.rows(branch, focus, index)])
        for combined in itertools.product(*parts):
            yield {name: cell for part in combined for name, cell in part.items()}

    def _cell(self, column: dict[str, Any], focus: Item, index: int) -> Any:
        try:
            items = evaluate(parse(column["path"]), [focus], replace(self._world, row_index=index))
            if column.get("collection"):
                return [item.value for item in items]
            found = one(items)
        except DishonestError:
            return ODD
        return None if found is None else written(found.value, column["type"])


def columns(selection: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All columns of a selection, in their order."""
    yield from selection.get("column", [])
    for inner in selection.get("select", []):
        yield from columns(inner)
    if "unionAll" in selection:
        yield from columns(selection["unionAll"][0])


def written(value: Any, type_: str) -> Any:
    """What a cell of a column holds: the value as text, or `ODD` where it does not fit."""
    if type_ == "boolean":
        return text_of(value) if isinstance(value, bool) else ODD
    if type_ == "decimal":
        return text_of(value) if is_number(value) else ODD
    if type_ == "integer64" and isinstance(value, str) and re.fullmatch("-?[0-9]{1,19}", value):
        value = int(value)
    if type_ in _RANGE:
        fits = is_number(value) and Decimal(value) % 1 == 0 and -_RANGE[type_] <= value < _RANGE[type_]
        return str(int(value)) if fits else ODD
    text = json_text(value) if isinstance(value, (dict, list)) else text_of(value)
    return text if type_ not in _PATTERN or re.fullmatch(_PATTERN[type_], text) else ODD


def json_text(value: Any) -> str:
    """JSON whose numbers keep their digits."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {json_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(json_text, value)) + "]"
    return json.dumps(value)
