"""Operators: what each FHIRPath operator makes of its typed operands (FHIRPath 2.0.0, SQL on FHIR v2).

Pure. Decides which operands go together, and refuses the others before any data are read. `resolution` resolves the operands, and
`is` and `as`; the `*_sql` modules write the SQL.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from exports.compiler import syntax
from exports.compiler.moments import is_moment
from exports.compiler.typed_tree import (
    Ampersand,
    Arithmetic,
    Comparison,
    Constant,
    Distinct,
    Equivalence,
    Expression,
    Logic,
    Membership,
    Nothing,
    Shifted,
    Union,
    category,
)
from exports.elements.table import NUMBER_TYPES
from exports.errors import FhirPathError

_ARITHMETIC = frozenset({"+", "-", "*", "/", "div", "mod"})
_ORDER = frozenset({"<", "<=", ">", ">="})
_LOGIC = frozenset({"and", "or", "xor", "implies"})
_SECONDS_AND_MORE = {
    "s": "second",
    "ms": "millisecond",
    "min": "minute",
    "h": "hour",
    "d": "day",
    "wk": "week",
    **{unit: unit for unit in ("year", "month", "week", "day", "hour", "minute", "second", "millisecond")},
}


def combined(node: syntax.Binary, left: Expression, right: Expression) -> Expression:
    """Return what a binary operator makes of two operands; `is`, `as` and calendar durations are not among them.

    Raises:
        FhirPathError: the operands do not go together.
    """
    operator = node.operator
    if operator in _ARITHMETIC | _ORDER and (isinstance(left, Nothing) or isinstance(right, Nothing)):
        return Nothing()
    if operator in _LOGIC:
        return Logic(operator=operator, left=left, right=right)
    if operator in _ARITHMETIC:
        return _arithmetic(operator, left, right)
    if operator in _ORDER:
        _check_order(node, left, right)
    elif operator not in {"=", "!="}:
        return _on_collections(operator, left, right)
    return Comparison(operator=operator, left=left, right=right)


def signed(operator: str, operand: Expression) -> Expression:
    """Return a number with a sign before it; a constant gets it at once.

    Raises:
        FhirPathError: the operand is no number.
    """
    if (
        isinstance(operand, Constant)
        and isinstance(operand.value, (int, Decimal))
        and not isinstance(operand.value, bool)
    ):
        return replace(operand, value=-operand.value if operator == "-" else operand.value)
    return _arithmetic(operator, Constant(value=0, type="integer"), operand)


def _on_collections(operator: str, left: Expression, right: Expression) -> Expression:
    match operator:
        case "|":
            return union(left, right)
        case "&":
            return Ampersand(left=left, right=right)
        case "in":
            return Membership(item=left, collection=right)
        case "contains":
            return Membership(item=right, collection=left)
    return Equivalence(left=left, right=right, negated=operator == "!~")


def _check_order(node: syntax.Binary, left: Expression, right: Expression) -> None:
    if _same_category(node.operator, left, right, ordered=True) == "temporal":
        for side, part in ((left, node.left), (right, node.right)):
            if isinstance(side, Constant) and not is_moment(str(side.value)):
                raise FhirPathError(f"{side.value!r} is not a date or time", offset=part.at)
        if {_is_time_of_day(side) for side in (left, right)} == {True, False}:
            raise FhirPathError(f"{node.operator!r} does not work on a time of day and a date")


def _is_time_of_day(side: Expression) -> bool | None:
    """Whether it has no date; None: only the data show that."""
    if isinstance(side, Constant):
        return str(side.value)[2:3] in {"", ":"}
    return side.type == "time" if category(side.type) == "temporal" else None


def union(left: Expression, right: Expression) -> Expression:
    """The items of both sides, equal ones once."""
    type_ = left.type if left.type == right.type else None
    return Distinct(of=Union(left=left, right=right, type=type_, many=True), type=type_, many=True)


def shifted(operator: str, left: Expression, by: syntax.Quantity) -> Expression:
    """Return a date or time plus or minus a calendar duration.

    Raises:
        FhirPathError: the left operand is no date or time, or the unit is none of the calendar.
    """
    unit = _SECONDS_AND_MORE.get(by.unit)
    if operator not in {"+", "-"} or category(left.type) not in {None, "temporal"}:
        raise FhirPathError(
            f"{operator!r} does not work on {left.type} and a quantity", allowed="a date or time, + or -"
        )
    if unit is None:
        raise FhirPathError(
            f"{by.unit!r} is not a calendar unit of time", offset=by.at, allowed=", ".join(_SECONDS_AND_MORE)
        )
    amount = Decimal(by.value)
    return Shifted(of=left, amount=amount if operator == "+" else -amount, unit=unit, type=left.type or "dateTime")


def _same_category(operator: str, left: Expression, right: Expression, *, ordered: bool) -> str | None:
    sides = [category(side.type) for side in (left, right) if not isinstance(side, Nothing)]
    allowed = ("number", "string", "temporal") if ordered else ("number", "string")
    known = {side for side in sides if side is not None}
    # a string may hold a date: FHIR writes dates as strings, and a view may write them as 'YYYY-MM-DD'
    if ordered and known == {"string", "temporal"}:
        return "temporal"
    if len(known) > 1 or not known <= set(allowed):
        found = " and ".join(str(side.type or "unknown") for side in (left, right))
        raise FhirPathError(
            f"{operator!r} does not work on {found}", allowed=f"two of the same sort: {', '.join(allowed)}"
        )
    return known.pop() if known else None


def _arithmetic(operator: str, left: Expression, right: Expression) -> Expression:
    sort = _same_category(operator, left, right, ordered=False)
    if sort == "string" and operator != "+":
        raise FhirPathError(f"{operator!r} does not work on strings", allowed="+")
    if sort == "string":
        return Arithmetic(operator=operator, left=left, right=right, type="string")
    whole = operator != "/" and all(side.type in NUMBER_TYPES - {"decimal"} for side in (left, right))
    return Arithmetic(operator=operator, left=left, right=right, type="integer" if whole else "decimal")
