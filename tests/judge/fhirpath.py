"""FHIRPath on plain Python values: what an expression gives, read off the specification and nothing else.

Shares with the compiler the syntax tree and the table of R4's elements, and none of their use. A collection is a list of `Item`s;
where an expression has no honest value, `DishonestError` is raised. Left out: today() and now(), which are constants.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

from exports.compiler import syntax
from exports.compiler.moments import is_moment
from exports.elements.table import PRIMITIVE_TYPES, element, is_a
from tests.judge.moments import compare_moments, shifted

TEMPORAL = {"date", "dateTime", "instant", "time"}
NUMBERS = {"decimal", "integer", "positiveInt", "unsignedInt", "integer64"}
LARGEST = Decimal("1e308")
CONNECTION = "site"  # all resources of the judge are of one


class DishonestError(Exception):
    """The data leaves the expression without an honest value."""


@dataclass(frozen=True)
class Item:
    """A JSON value and its FHIR type, where that is known.

    `literal`: it is written in the expression. `found`: it is in the data, so its type is FHIR's, and none of FHIRPath's own.
    """

    value: Any
    type: str | None = None
    literal: bool = False
    found: bool = False


@dataclass(frozen=True)
class World:
    """What an expression may refer to. `lenient`: a filter drops items that it cannot decide, and reports to `doubt`.

    `outer`: the context in which a function's arguments are read, unless it reads them item by item: that of the call, not the
    function's input (FHIRPath 2.0.0, union: `name.select(use.union(given))`).
    """

    resource: Item
    constants: dict[str, Item]
    row_index: int = 0
    lenient: bool = False
    outer: list[Item] = field(default_factory=list)


def evaluate(node: syntax.Node, focus: list[Item], world: World) -> list[Item]:
    """The collection that an expression gives on a focus."""
    match node:
        case syntax.Literal(value, type_):
            return [Item(value, type_, literal=True)]
        case syntax.Empty():
            return []
        case syntax.This():
            return focus
        case syntax.Variable(name):
            return _variable(name, world)
        case syntax.Member(None, name) if name == world.resource.type and focus == [world.resource]:
            return focus
        case syntax.Member(of, name):
            return children(focus if of is None else holders(of, name, focus, world), name)
        case syntax.Index(of, index):
            found, at = evaluate(of, focus, world), whole(evaluate(index, focus, world))
            return found[at : at + 1] if at is not None and at >= 0 else []
        case syntax.Unary(operator, operand):
            return _arithmetic(operator, [Item(0, "integer")], evaluate(operand, focus, world))
        case syntax.Binary():
            return _binary(node, focus, world)
        case syntax.Call():
            return _call(node, focus, world)
    raise AssertionError(node)


def holders(node: syntax.Node, name: str, focus: list[Item], world: World) -> list[Item]:
    """The items whose element or function `name` is asked for.

    Of a primitive `p` JSON has the id and the extensions beside it, in `_p` (FHIR R4, 2.6.2.1).
    """
    found = evaluate(node, focus, world)
    match node:
        case syntax.Member(of, element_name):
            wanted = None
        case syntax.Call(syntax.Member(of, element_name), "ofType", (syntax.Member(None, wanted),)):
            pass
        case _:
            return found
    if name not in {"id", "extension"}:
        return found
    beside: list[Item] = []
    for parent in focus if of is None else evaluate(of, focus, world):
        known = element(parent.type, element_name)
        for type_ in () if known is None else known.types:
            if type_ in PRIMITIVE_TYPES and wanted in {None, type_}:
                property_ = key(element_name, type_) if known is not None and known.choice else element_name
                beside += _opened(parent.value, f"_{property_}", "Element")
                found = [item for item in found if item.type != type_]
    return found + beside


def _variable(name: str, world: World) -> list[Item]:
    if name == "rowIndex":
        return [Item(world.row_index, "integer")]
    if name == "resource":
        return [world.resource]
    if name == "connection":
        return [Item(CONNECTION, "string")]
    return [world.constants[name]]


def children(of: list[Item], name: str) -> list[Item]:
    """The elements of that name of all items."""
    found = []
    for item in of:
        known = element(item.type, name)
        if name == "resourceType":
            found += _opened(item.value, name, "code")
        elif known is not None and known.choice:
            for type_ in known.types:
                found += _opened(item.value, key(name, type_), None)  # which type it has is known once ofType() says so
        else:
            found += _opened(item.value, name, known.types[0] if known else None)
    return found


def key(name: str, type_: str) -> str:
    return name + type_[0].upper() + type_[1:]


def _opened(value: Any, name: str, type_: str | None) -> list[Item]:
    inside = value.get(name) if isinstance(value, dict) else None
    listed = inside if isinstance(inside, list) else [inside]
    return [Item(one, type_, found=True) for one in listed if one is not None]


def one(items: list[Item]) -> Item | None:
    if len(items) > 1:
        raise DishonestError("several")
    return items[0] if items else None


def truth(items: list[Item], *, strict: bool = True) -> bool | None:
    """Three-valued: true, false, or None for empty."""
    found = one(items)
    if found is None:
        return None
    if isinstance(found.value, bool):
        return found.value
    if strict or found.type == "boolean":
        raise DishonestError("no boolean")
    return True


def is_number(value: Any) -> bool:
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)


def _number(items: list[Item]) -> Decimal | None:
    found = one(items)
    if found is None:
        return None
    if not is_number(found.value) or (not found.literal and abs(found.value) >= LARGEST):
        raise DishonestError("no number")
    return Decimal(found.value)


def whole(items: list[Item]) -> int | None:
    found = _number(items)
    if found is not None and found % 1:
        raise DishonestError("not whole")
    return None if found is None else int(found)


def _text(items: list[Item]) -> str | None:
    found = one(items)
    if found is None:
        return None
    if not isinstance(found.value, str):
        raise DishonestError("no string")
    return found.value


def boolean(value: bool | None) -> list[Item]:
    return [] if value is None else [Item(value, "boolean")]


def same(left: Any, right: Any) -> bool:
    """Equality of JSON: 1 is 1.0, and true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool) or type(left) is not type(right):
        return (is_number(left) and is_number(right) and left == right) or (type(left) is type(right) and left == right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def _binary(node: syntax.Binary, focus: list[Item], world: World) -> list[Item]:
    operator = node.operator
    if operator in {"is", "as"}:
        call = syntax.Call(node.left, "is" if operator == "is" else "ofType", (node.right,))
        return _call(call, focus, world)
    left = evaluate(node.left, focus, world)
    if isinstance(node.right, syntax.Quantity):
        return _moved(operator, left, node.right)
    right = evaluate(node.right, focus, world)
    if operator in {"and", "or", "xor", "implies"}:
        sides = [truth(side, strict=_is_boolean(part)) for side, part in ((left, node.left), (right, node.right))]
        return boolean(_logic(operator, *sides))
    if operator in {"=", "!="}:
        equal = _equal(left, right)
        return boolean(equal if equal is None or operator == "=" else not equal)
    if operator in {"<", "<=", ">", ">="}:
        return boolean(_ordered(operator, left, right))
    if operator == "|":
        return distinct(left + right)
    if operator == "&":
        return [Item((_text(left) or "") + (_text(right) or ""), "string")]
    if operator in {"in", "contains"}:
        item, among = (left, right) if operator == "in" else (right, left)
        found = one(item)
        return [] if found is None else boolean(any(same(found.value, other.value) for other in among))
    if operator in {"~", "!~"}:
        return boolean(_alike(left, right) == (operator == "~"))
    return _arithmetic(operator, left, right)


def _is_boolean(node: syntax.Node) -> bool:
    """Whether the expression can give nothing but booleans, so that anything else is a mistake of the data."""
    match node:
        case syntax.Binary(operator=operator):
            return operator not in {"|", "&", "+", "-", "*", "/", "div", "mod", "as"}
        case syntax.Call(name=name):
            return name in BOOLEAN_FUNCTIONS
    return False


BOOLEAN_FUNCTIONS = {
    "exists", "empty", "not", "all", "is", "startsWith", "endsWith", "contains", "matches", "toBoolean",
}  # fmt: skip


def _logic(operator: str, left: bool | None, right: bool | None) -> bool | None:
    if operator == "and":
        return False if left is False or right is False else None if None in (left, right) else True
    if operator == "or":
        return True if left is True or right is True else None if None in (left, right) else False
    if operator == "implies":
        return _logic("or", None if left is None else not left, right)
    return None if left is None or right is None else left != right


def _equal(left: list[Item], right: list[Item]) -> bool | None:
    if not left or not right:
        return None
    if len(left) != len(right):
        return False
    if len(left) == 1 and TEMPORAL & {left[0].type, right[0].type} and all(map(_may_be_moment, left + right)):
        return compare_moments("=", _moment(left[0]), _moment(right[0]))
    return all(same(a.value, b.value) for a, b in zip(left, right, strict=True))


def _may_be_moment(item: Item) -> bool:
    return is_moment(str(item.value)) if item.literal else item.type is None or item.type in TEMPORAL


def _moment(item: Item) -> str:
    if item.literal and isinstance(item.value, str):
        return item.value
    if not isinstance(item.value, str) or not is_moment(item.value):
        raise DishonestError("no moment")
    return item.value


def _ordered(operator: str, left: list[Item], right: list[Item]) -> bool | None:
    a, b = one(left), one(right)
    if (a and a.type in TEMPORAL) or (b and b.type in TEMPORAL):
        moments = [None if item is None else _moment(item) for item in (a, b)]
        if None in moments:
            return None
        if len({moment[2:3] in {":", ""} for moment in moments}) > 1:  # type: ignore[index]
            raise DishonestError("a time of day and a date")
        return compare_moments(operator, *moments)  # type: ignore[arg-type]
    if a is None or b is None:
        return None
    if not (is_number(a.value) and is_number(b.value)) and not (isinstance(a.value, str) and isinstance(b.value, str)):
        raise DishonestError("neither numbers nor strings")
    if is_number(a.value) and any(abs(item.value) >= LARGEST for item in (a, b)):
        raise DishonestError("too large")
    return {"<": a.value < b.value, "<=": a.value <= b.value, ">": a.value > b.value, ">=": a.value >= b.value}[
        operator
    ]


def _arithmetic(operator: str, left: list[Item], right: list[Item]) -> list[Item]:
    if operator == "+" and any(isinstance(item.value, str) for item in left + right if item.literal or item.type):
        a, b = _text(left), _text(right)
        return [] if a is None or b is None else [Item(a + b, "string")]
    x, y = _number(left), _number(right)
    if x is None or y is None or (operator in {"/", "div", "mod"} and y == 0):
        return []
    with localcontext(prec=400):
        value = {
            "+": lambda: x + y,
            "-": lambda: x - y,
            "*": lambda: x * y,
            "/": lambda: x / y,
            "div": lambda: x // y,
            "mod": lambda: x % y,
        }[operator]()
    whole = operator != "/" and all(item.type in NUMBERS - {"decimal"} for item in left + right)
    return [Item(value, "integer" if whole else "decimal")]


def _moved(operator: str, left: list[Item], by: syntax.Quantity) -> list[Item]:
    found = one(left)
    if found is None:
        return []
    moved = shifted(_moment(found), Decimal(by.value) * (1 if operator == "+" else -1), by.unit)
    return [] if moved is None else [Item(moved, found.type)]


def distinct(items: list[Item]) -> list[Item]:
    found: list[Item] = []
    for item in items:
        if not any(same(item.value, other.value) for other in found):
            found.append(item)
    return found


def _alike(left: list[Item], right: list[Item]) -> bool:
    """Whether each item has one of the other side to itself, in any order."""
    temporal = bool(TEMPORAL & {item.type for item in left + right})
    rest = list(right)
    for item in left:
        found = next((other for other in rest if _equivalent(item.value, other.value, temporal)), None)
        if found is None:
            return False
        rest.remove(found)
    return not rest


def _equivalent(a: Any, b: Any, temporal: bool) -> bool:
    if is_number(a) and is_number(b):
        fewest = min(max(-int(Decimal(one).normalize().as_tuple().exponent), 0) for one in (a, b))
        with localcontext(prec=400):
            return round_half_up(Decimal(a), fewest) == round_half_up(Decimal(b), fewest)
    if isinstance(a, str) and isinstance(b, str):
        if temporal and is_moment(a) and is_moment(b) and compare_moments("=", a, b):
            return True
        return bool(re.sub(r"\s+", " ", a).strip(" ").lower() == re.sub(r"\s+", " ", b).strip(" ").lower())
    return same(_in_lower_case(a), _in_lower_case(b))


def round_half_up(value: Decimal, digits: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)


def _in_lower_case(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.lower(): _in_lower_case(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_in_lower_case(one) for one in value]
    return value.lower() if isinstance(value, str) else value


def _call(call: syntax.Call, focus: list[Item], world: World) -> list[Item]:
    if (
        call.name in {"ofType", "as", "is"}
        and isinstance(call.of, syntax.Member)
        and call.of.name != world.resource.type
    ):
        parent = focus if call.of.of is None else evaluate(call.of.of, focus, world)
        return _typed(call, parent, call.of.name)
    from tests.judge.functions import FUNCTIONS

    of = focus if call.of is None else holders(call.of, call.name, focus, world)
    if call.name in {"ofType", "as", "is"}:
        found = [item for item in of if _is(item, *_asked(call))]
        return (boolean(bool(found)) if of else []) if call.name == "is" else found
    function: Callable[..., list[Item]] = FUNCTIONS[call.name]
    return function(of, call, replace(world, outer=focus))


FHIRPATH_TYPES = {"Boolean", "String", "Integer", "Decimal", "Date", "DateTime", "Time"}


def _asked(call: syntax.Call) -> tuple[str, bool]:
    """The type that a call names, and whether it is one of FHIRPath's own."""
    specifier = call.arguments[0]
    assert isinstance(specifier, syntax.Member)
    if isinstance(specifier.of, syntax.Member):
        return specifier.name, specifier.of.name == "System"
    return specifier.name, specifier.name in FHIRPATH_TYPES


def _is(item: Item, wanted: str, of_fhirpath: bool) -> bool:
    if item.type is None or of_fhirpath == item.found:
        return False
    if item.found and item.type == "Resource" != wanted:
        return [kind.value for kind in children([item], "resourceType")] == [wanted]
    if item.found:
        return is_a(item.type, wanted)
    if item.type in NUMBERS - {"decimal"}:
        return wanted == "Integer"
    return wanted == {"boolean": "Boolean", "decimal": "Decimal", "date": "Date", "dateTime": "DateTime",
                      "instant": "DateTime", "time": "Time"}.get(item.type, "String")  # fmt: skip


def _typed(call: syntax.Call, parents: list[Item], name: str) -> list[Item]:
    """ofType() and is() of an element: of a choice the property that is named so, else by its type in R4."""
    (wanted, of_fhirpath), found, whole = _asked(call), [], children(parents, name)
    for parent in [] if of_fhirpath else parents:
        known = element(parent.type, name)
        if known is None:
            found += _opened(parent.value, key(name, wanted), wanted)
        elif known.choice:
            fitting = [type_ for type_ in known.types if is_a(type_, wanted)]
            found += [item for type_ in fitting for item in _opened(parent.value, key(name, type_), type_)]
        else:
            found += [item for item in children([parent], name) if _is(item, wanted, of_fhirpath)]
    if call.name == "is":
        return boolean(bool(found)) if whole else []
    return [replace(item, type=wanted) for item in found]
