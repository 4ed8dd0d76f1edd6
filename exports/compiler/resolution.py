"""Resolution: a syntax tree becomes a typed one.

Owns the meaning of the supported subset (SQL on FHIR v2, required FHIRPath; FHIRPath 2.0.0): names become elements with a type
and a cardinality, constants their values, functions their own nodes. All that can be known to be wrong before data is seen is
refused here. Reading text is left to `fhirpath`, writing SQL to `expression_sql`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from exports.compiler import fhirpath
from exports.compiler.elements import NUMBER_TYPES, PRIMITIVE_TYPES, element
from exports.compiler.typed_tree import (
    Arithmetic,
    At,
    Child,
    Comparison,
    Connection,
    Constant,
    Count,
    Exists,
    Expression,
    Filter,
    Focus,
    Join,
    Logic,
    Not,
    Nothing,
    ReferenceKey,
    Resource,
    RowIndex,
    category,
)
from exports.errors import FhirPathError

MAX_INDEX = 2**31 - 1  # no array is longer
_TYPE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")


@dataclass(frozen=True)
class Scope:
    """What an expression may refer to: the view's resource type and constants, and what is in focus where it stands."""

    resource_type: str
    constants: Mapping[str, Constant]
    focus: Expression


def resolve(node: fhirpath.Node, scope: Scope) -> Expression:
    """The typed expression of a syntax tree.

    Raises:
        FhirPathError: a constant that is not defined, a function that is not supported, types that do not go together.
    """
    match node:
        case fhirpath.Literal(value, type_):
            return Constant(value=value, type=type_)
        case fhirpath.Empty():
            return Nothing()
        case fhirpath.This():
            return scope.focus
        case fhirpath.Variable(name):
            return _variable(name, scope)
        case fhirpath.Member(of, name):
            return _member(of, name, scope)
        case fhirpath.Index(of, at):
            return _index(resolve(of, scope), resolve(at, scope))
        case fhirpath.Call():
            return _call(node, scope)
        case fhirpath.Unary(operator, operand):
            zero = Constant(value=0, type="integer")
            return _arithmetic(operator, zero, resolve(operand, scope))
        case fhirpath.Binary(operator, left, right):
            return _binary(operator, left, right, scope)


def _variable(name: str, scope: Scope) -> Expression:
    if name == "rowIndex":
        return RowIndex()
    if name in scope.constants:
        return scope.constants[name]
    if name == "connection":
        return Connection()
    if name in {"resource", "rootResource"}:
        return Resource(type=scope.resource_type)
    defined = ", ".join(f"%{known}" for known in (*scope.constants, "rowIndex", "connection", "resource"))
    raise FhirPathError(f"%{name} is not defined", allowed=defined)


def _member(of: fhirpath.Node | None, name: str, scope: Scope) -> Expression:
    if of is not None:
        return _child(resolve(of, scope), name)
    at_root = isinstance(scope.focus, Resource)
    if at_root and name == scope.resource_type and element(name, name) is None:
        return scope.focus
    return _child(scope.focus, name)


def _child(of: Expression, name: str) -> Expression:
    if isinstance(of, Nothing):
        return of
    if of.type in PRIMITIVE_TYPES and name not in {"id", "extension"}:
        raise FhirPathError(f"{name!r} is asked of a {of.type}, which has no elements")
    known = element(of.type, name)
    if known is None:
        return Child(of=of, name=name, keys=(name,), repeats=True, known=False, many=True)
    if known.choice:
        keys = tuple(name + type_[0].upper() + type_[1:] for type_ in known.types)
        return Child(of=of, name=name, keys=keys, repeats=False, known=True, many=of.many)
    return Child(
        of=of, name=name, keys=(name,), repeats=known.many, known=True, type=known.types[0], many=of.many or known.many
    )


def _index(of: Expression, at: Expression) -> Expression:
    if not isinstance(at, Constant) or isinstance(at.value, bool) or not isinstance(at.value, int):
        raise FhirPathError("an index must be an integer or a constant", allowed="[0], [1], … [%name]")
    if not 0 <= at.value <= MAX_INDEX:
        return Nothing()
    return At(of=of, index=at.value, type=of.type)


_ARITHMETIC = frozenset({"+", "-", "*", "/", "div", "mod"})
_LOGIC = frozenset({"and", "or", "xor", "implies"})
_COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">="})


def _binary(operator: str, left_node: fhirpath.Node, right_node: fhirpath.Node, scope: Scope) -> Expression:
    if operator not in _ARITHMETIC | _LOGIC | _COMPARISONS:
        allowed = "= != < <= > >= + - * / div mod and or xor implies"
        raise FhirPathError(f"the operator {operator!r} is not supported yet", allowed=allowed)
    left, right = resolve(left_node, scope), resolve(right_node, scope)
    if operator in _LOGIC:
        return Logic(operator=operator, left=left, right=right)
    if operator in _ARITHMETIC:
        return _arithmetic(operator, left, right)
    if operator not in {"=", "!="}:
        _same_category(operator, left, right, ordered=True)
    return Comparison(operator=operator, left=left, right=right)


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


def criterion(node: fhirpath.Node, scope: Scope, *, what: str) -> Expression:
    """An expression that must be boolean: a view's `where`, or the argument of `where()` and `exists()`."""
    found = resolve(node, scope)
    if found.type not in {None, "boolean"}:
        raise FhirPathError(
            f"{what} must be boolean, found {found.type}", allowed="a comparison, exists(), empty(), not(), …"
        )
    return found


def _filtered(of: Expression, node: fhirpath.Node, scope: Scope) -> Expression:
    inner = replace(scope, focus=Focus(type=of.type))
    return Filter(of=of, criterion=criterion(node, inner, what="a criterion"), type=of.type, many=of.many)


def _type_name(node: fhirpath.Node, function: str) -> str:
    match node:
        case fhirpath.Member(None | fhirpath.Member(None, "FHIR" | "System"), name) if _TYPE_NAME.fullmatch(name):
            return name
        case _:
            raise FhirPathError(f"{function}() takes the name of a type", allowed=f"such as {function}(Patient)")


def _of_type(of: Expression, call: fhirpath.Call, _: Scope) -> Expression:
    wanted = _type_name(call.arguments[0], "ofType")
    if isinstance(of, Child) and (of.type == "Resource" or (not of.known and of.name in {"resource", "contained"})):
        kind = Child(of=Focus(), name="resourceType", keys=("resourceType",), repeats=False, known=True, type="code")
        is_wanted = Comparison(operator="=", left=kind, right=Constant(value=wanted, type="string"))
        return Filter(of=of, criterion=is_wanted, type=wanted, many=of.many)
    if of.type is not None or isinstance(of, Nothing):
        return of if of.type == wanted else Nothing()
    if not isinstance(of, Child):
        raise FhirPathError("ofType() works on an element", allowed="such as value.ofType(Quantity)")
    key = of.name + wanted[0].upper() + wanted[1:]
    return Child(of=of.of, name=of.name, keys=(key,), repeats=False, known=of.known, type=wanted, many=of.of.many)


def _extension(of: Expression, call: fhirpath.Call, scope: Scope) -> Expression:
    url = resolve(call.arguments[0], scope)
    if not isinstance(url, Constant) or not isinstance(url.value, str):
        raise FhirPathError("extension() takes a URL", allowed="a string or a constant")
    holder = of
    if isinstance(of, Child) and of.type in PRIMITIVE_TYPES and len(of.keys) == 1:
        # JSON keeps the extensions of a primitive `p` in its sibling `_p` (FHIR R4 §2.6.2.1)
        holder = replace(of, keys=(f"_{of.keys[0]}",), type="Element")
    all_of_them = Child(
        of=holder, name="extension", keys=("extension",), repeats=True, known=True, type="Extension", many=True
    )
    is_it = Comparison(
        operator="=", left=_child(Focus(type="Extension"), "url"), right=Constant(value=url.value, type="uri")
    )
    return Filter(of=all_of_them, criterion=is_it, type="Extension", many=True)


def _join(of: Expression, call: fhirpath.Call, scope: Scope) -> Expression:
    separator = resolve(call.arguments[0], scope) if call.arguments else Constant(value="", type="string")
    if not isinstance(separator, Constant) or not isinstance(separator.value, str):
        raise FhirPathError("join() takes a separator", allowed="a string or a constant")
    if category(of.type) not in {None, "string", "temporal"}:
        raise FhirPathError(f"join() works on strings, found {of.type}")
    return Join(of=of, separator=separator.value)


def _reference_key(of: Expression, call: fhirpath.Call, _: Scope) -> Expression:
    if of.type not in {None, "Reference"}:
        raise FhirPathError(f"getReferenceKey() works on a Reference, found {of.type}")
    target = _type_name(call.arguments[0], "getReferenceKey") if call.arguments else None
    return ReferenceKey(of=of, target=target, many=of.many)


def _resource_key(of: Expression, _: fhirpath.Call, scope: Scope) -> Expression:
    if not isinstance(of, Resource):
        raise FhirPathError("getResourceKey() works on the resource itself", allowed="%resource.getResourceKey()")
    return Child(of=of, name="id", keys=("id",), repeats=False, known=True, type="id")


def _exists(of: Expression, call: fhirpath.Call, scope: Scope) -> Expression:
    return Exists(of=_filtered(of, call.arguments[0], scope) if call.arguments else of)


Handler: TypeAlias = Callable[[Expression, fhirpath.Call, Scope], Expression]

# name -> (fewest arguments, most arguments, what it becomes)
_FUNCTIONS: dict[str, tuple[int, int, Handler]] = {
    "where": (1, 1, lambda of, call, scope: _filtered(of, call.arguments[0], scope)),
    "exists": (0, 1, _exists),
    "empty": (0, 0, lambda of, _call, _scope: Exists(of=of, negated=True)),
    "not": (0, 0, lambda of, _call, _scope: Not(of=of)),
    "first": (0, 0, lambda of, _call, _scope: At(of=of, index=0, type=of.type)),
    "last": (0, 0, lambda of, _call, _scope: At(of=of, index=-1, type=of.type)),
    "count": (0, 0, lambda of, _call, _scope: Count(of=of)),
    "ofType": (1, 1, _of_type),
    "extension": (1, 1, _extension),
    "join": (0, 1, _join),
    "getResourceKey": (0, 0, _resource_key),
    "getReferenceKey": (0, 1, _reference_key),
}


def _call(call: fhirpath.Call, scope: Scope) -> Expression:
    if call.name not in _FUNCTIONS:
        raise FhirPathError(f"the function {call.name}() is not supported yet", allowed=", ".join(sorted(_FUNCTIONS)))
    fewest, most, handler = _FUNCTIONS[call.name]
    if not fewest <= len(call.arguments) <= most:
        allowed = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise FhirPathError(f"{call.name}() has {len(call.arguments)} arguments", allowed=allowed)
    of = scope.focus if call.of is None else resolve(call.of, scope)
    return handler(of, call, scope)
