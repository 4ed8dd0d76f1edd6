"""The functions of FHIRPath on plain Python values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from exports.compiler import syntax
from tests.judge.fhirpath import (
    DishonestError,
    Item,
    World,
    _moment,
    _text,
    boolean,
    children,
    distinct,
    evaluate,
    is_number,
    one,
    truth,
    whole,
)
from tests.judge.moments import boundary

Function = Callable[[list[Item], syntax.Call, World], list[Item]]
WHOLE = re.compile(r"[+-]?[0-9]{1,10}")
DECIMAL = re.compile(r"[+-]?[0-9]{1,250}(\.[0-9]{1,250})?")


def criterion(node: syntax.Node, item: Item, world: World) -> bool | None:
    return truth(evaluate(node, [item], replace(world, lenient=False)))


def where(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    kept, doubt = [], False
    for item in of:
        try:
            if criterion(call.arguments[0], item, world):
                kept.append(item)
        except DishonestError:
            doubt = True
    if doubt and not world.lenient:
        raise DishonestError("a criterion")
    return kept


def exists(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    found = where(of, call, world) if call.arguments else of
    return boolean(bool(found))


def every(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    met = [criterion(call.arguments[0], item, world) for item in of]
    return boolean(all(one is True for one in met))


def negated(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    from tests.judge.fhirpath import _is_boolean

    value = truth(of, strict=call.of is not None and _is_boolean(call.of))
    return boolean(None if value is None else not value)


def iif(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    if truth(evaluate(call.arguments[0], of, world)):
        return evaluate(call.arguments[1], of, world)
    return evaluate(call.arguments[2], of, world) if len(call.arguments) > 2 else []


def select(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    return [found for item in of for found in evaluate(call.arguments[0], [item], world)]


def single(of: list[Item], _call: syntax.Call, _world: World) -> list[Item]:
    one(of)
    return of


def extension(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    url = evaluate(call.arguments[0], world.outer, world)[0].value
    return [item for item in children(of, "extension") if [one.value for one in children([item], "url")] == [url]]


def join(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    separator = evaluate(call.arguments[0], world.outer, world)[0].value if call.arguments else ""
    if any(not isinstance(item.value, str) for item in of):
        raise DishonestError("no string")
    return [Item(separator.join(item.value for item in of), "string")] if of else []


def reference_key(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    wanted = call.arguments[0].name if call.arguments else None  # type: ignore[union-attr]  # a type's name
    return [found for item in of for found in _key(item, wanted, world)]


def _key(item: Item, wanted: str | None, world: World) -> list[Item]:
    reference = item.value.get("reference") if isinstance(item.value, dict) else None
    if not isinstance(reference, str):
        return []
    if reference.startswith("#"):
        held = [one.value for one in children([world.resource], "contained") if isinstance(one.value, dict)]
        fits = [one for one in held if one.get("id") == reference[1:] and wanted in {None, one.get("resourceType")}]
        return [Item(f"{world.resource.value['id']}{reference}", "string")] if fits else []
    parts = reference.split("/")
    if len(parts) > 3 and parts[-2] == "_history":
        parts = parts[:-2]
    if len(parts) < 2 or not parts[-1] or not re.fullmatch(wanted or "[A-Z][A-Za-z]*", parts[-2]):
        return []
    return [Item(parts[-1], "string")]


def resource_key(of: list[Item], _call: syntax.Call, world: World) -> list[Item]:
    (own,) = children([world.resource], "id")
    found = []
    for item in of:
        if item.value is world.resource.value:
            found.append(own)
        else:
            found += [replace(own, value=f"{own.value}#{inner.value}") for inner in children([item], "id")]
    return found


def low_or_high(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    found = one(of)
    if found is None:
        return []
    precision = evaluate(call.arguments[0], world.outer, world)[0].value if call.arguments else None
    if not is_number(found.value):
        _moment(found)
    value = boundary(found.value, found.type, high=call.name == "highBoundary", precision=precision)
    return [] if value is None else [Item(value, found.type)]


def to_string(of: list[Item], _call: syntax.Call, _world: World) -> list[Item]:
    found = one(of)
    if found is None or isinstance(found.value, (dict, list)):
        return []
    return [Item(text_of(found.value), "string")]


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return format(Decimal(value), "f") if is_number(value) else str(value)


def to_integer(of: list[Item], _call: syntax.Call, _world: World) -> list[Item]:
    found = one(of)
    if found is None or isinstance(found.value, (dict, list)):
        return []
    if isinstance(found.value, bool):
        return [Item(int(found.value), "integer")]
    text = text_of(found.value)
    fits = WHOLE.fullmatch(text) and -(2**31) <= int(text) < 2**31
    return [Item(int(text), "integer")] if fits else []


def to_decimal(of: list[Item], _call: syntax.Call, _world: World) -> list[Item]:
    found = one(of)
    if found is None or isinstance(found.value, (dict, list)):
        return []
    if isinstance(found.value, bool):
        return [Item(Decimal("1.0" if found.value else "0.0"), "decimal")]
    text = text_of(found.value)
    return [Item(Decimal(text), "decimal")] if DECIMAL.fullmatch(text) else []


def to_boolean(of: list[Item], _call: syntax.Call, _world: World) -> list[Item]:
    found = one(of)
    if found is None or isinstance(found.value, (dict, list)):
        return []
    text = text_of(found.value).lower()
    if text in {"true", "t", "yes", "y", "1", "1.0"}:
        return boolean(True)
    return boolean(False) if text in {"false", "f", "no", "n", "0", "0.0"} else []


def on_text(use: Callable[..., Any], type_: str) -> Function:
    """A function of one text; empty where it is, whatever the arguments are, or where one of them is."""

    def function(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
        if not of:
            return []
        given = [_text(of), *[_text(evaluate(argument, world.outer, world)) for argument in call.arguments]]
        if None in given:
            return []
        found = use(*given)
        return [Item(one, type_) for one in (found if isinstance(found, list) else [found])]

    return function


def substring(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    text = _text(of)
    if text is None:
        return []
    bounds = [one(evaluate(argument, world.outer, world)) for argument in call.arguments]
    if any(bound is not None and not is_number(bound.value) for bound in bounds):
        raise DishonestError("no number")
    if bounds[0] is None:
        return []
    start, *length = [bound.value for bound in bounds if bound is not None]  # an empty length means no length
    if not 0 <= start < len(text):
        return []
    return [Item(text[int(start) :][: max(int(length[0]), 0)] if length else text[int(start) :], "string")]


def skip(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    number = whole(evaluate(call.arguments[0], world.outer, world))
    return [] if number is None else of[max(number, 0) :]


def take(of: list[Item], call: syntax.Call, world: World) -> list[Item]:
    number = whole(evaluate(call.arguments[0], world.outer, world))
    return [] if number is None else of[: max(number, 0)]


FUNCTIONS: dict[str, Function] = {
    "where": where,
    "exists": exists,
    "empty": lambda of, _call, _world: boolean(not of),
    "not": negated,
    "all": every,
    "first": lambda of, _call, _world: of[:1],
    "last": lambda of, _call, _world: of[-1:],
    "single": single,
    "tail": lambda of, _call, _world: of[1:],
    "skip": skip,
    "take": take,
    "count": lambda of, _call, _world: [Item(len(of), "integer")],
    "distinct": lambda of, _call, _world: distinct(of),
    "union": lambda of, call, world: distinct(of + evaluate(call.arguments[0], world.outer, world)),
    "select": select,
    "iif": iif,
    "extension": extension,
    "join": join,
    "getReferenceKey": reference_key,
    "getResourceKey": resource_key,
    "lowBoundary": low_or_high,
    "highBoundary": low_or_high,
    "toString": to_string,
    "toInteger": to_integer,
    "toDecimal": to_decimal,
    "toBoolean": to_boolean,
    "startsWith": on_text(str.startswith, "boolean"),
    "endsWith": on_text(str.endswith, "boolean"),
    "contains": on_text(lambda text, part: part in text, "boolean"),
    "matches": on_text(lambda text, pattern: re.search(pattern, text, re.DOTALL) is not None, "boolean"),
    "indexOf": on_text(str.find, "integer"),
    "length": on_text(len, "integer"),
    "upper": on_text(str.upper, "string"),
    "lower": on_text(str.lower, "string"),
    "trim": on_text(lambda text: text.strip(" \t\n\r\f\v"), "string"),
    "replace": on_text(str.replace, "string"),
    "split": on_text(str.split, "string"),
    "substring": substring,
}
