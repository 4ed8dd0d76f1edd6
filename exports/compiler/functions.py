"""The functions of FHIRPath that views may call: which arguments each takes, and what it becomes in the typed tree.

These are the required and experimental functions of SQL on FHIR v2, and those of FHIRPath 2.0.0 on collections, texts and
conversions. A function that is not in `FUNCTIONS` is refused.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from datetime import UTC

from exports.compiler import syntax
from exports.compiler.operators import union
from exports.compiler.paths import path_of
from exports.compiler.resolution import (
    MAX_WHOLE,
    Function,
    Scope,
    child,
    criterion,
    note_resource,
    resolve,
    typed_by,
    whole_number,
)
from exports.compiler.sealed_elements import focus_on
from exports.compiler.type_specifier import type_name
from exports.compiler.typed_tree import (
    All,
    At,
    Boundary,
    Child,
    Comparison,
    ComputedSlice,
    Constant,
    ContainedKey,
    Conversion,
    Count,
    Distinct,
    Exists,
    Expression,
    Filter,
    Focus,
    Iif,
    Join,
    Not,
    Nothing,
    ReferenceKey,
    Resource,
    ResourceKey,
    Select,
    Slice,
    TextFunction,
    category,
)
from exports.elements.table import element, is_resource
from exports.errors import FhirPathError

_NOT_IN_POSTGRES = re.compile(r"\(\?(?!:|=|!)|\\[pPGKkzZNx]|[*+?}]\+|\{,|\[[^]]*\\b")
_REPEATED = re.compile(r"\{([0-9]+)(?:,([0-9]*))?\}")
_MOST_REPEATED = 255  # in Postgres


def _inner(of: Expression, scope: Scope) -> Scope:
    return replace(scope, focus=focus_on(of))


def _filtered(of: Expression, node: syntax.Node, scope: Scope) -> Expression:
    inside = criterion(node, _inner(of, scope), what="a criterion")
    return Filter(of=of, criterion=inside, type=of.type, many=of.many)


def _where(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    return _filtered(of, call.arguments[0], scope)


def _exists(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    return Exists(of=_filtered(of, call.arguments[0], scope) if call.arguments else of)


def _all(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    return All(of=of, criterion=criterion(call.arguments[0], _inner(of, scope), what="a criterion"))


def _select(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    projection = resolve(call.arguments[0], _inner(of, scope))
    return Select(of=of, projection=projection, type=projection.type, many=of.many or projection.many)


def _iif(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    inside = replace(scope, focus=of)
    then = resolve(call.arguments[1], inside)
    otherwise = resolve(call.arguments[2], inside) if len(call.arguments) > 2 else Nothing()  # noqa: PLR2004 - the third
    branches = [branch for branch in (then, otherwise) if not isinstance(branch, Nothing)]
    types = {branch.type for branch in branches}
    return Iif(
        criterion=criterion(call.arguments[0], inside, what="the criterion of iif()"),
        then=then,
        otherwise=otherwise,
        type=types.pop() if len(types) == 1 else None,
        many=any(branch.many for branch in branches),
    )


def _whole(call: syntax.Call, scope: Scope) -> int | Expression:
    argument = call.arguments[0]
    found = whole_number(resolve(argument, scope))
    if found is None:
        allowed = "an integer, a constant, or a computed whole number"
        raise FhirPathError(f"{call.name}() takes a whole number", offset=argument.at, allowed=allowed)
    return max(-MAX_WHOLE, min(found, MAX_WHOLE)) if isinstance(found, int) else found


def _slice(of: Expression, start: int, length: int | None) -> Expression:
    return Slice(of=of, start=max(start, 0), length=length, type=of.type, many=of.many)


def _skip(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    start = _whole(call, scope)
    if isinstance(start, int):
        return _slice(of, start, None)
    return ComputedSlice(of=of, start=start, type=of.type, many=of.many)


def _take(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    number = _whole(call, scope)
    if isinstance(number, int):
        return _slice(of, 0, number) if number > 0 else Nothing()
    zero = Constant(value=0, type="integer")
    return ComputedSlice(of=of, start=zero, length=number, type=of.type, many=of.many)


def _distinct(of: Expression, _call: syntax.Call, _scope: Scope) -> Expression:
    return Distinct(of=of, type=of.type, many=of.many)


def _union(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    return union(of, resolve(call.arguments[0], scope))


def _of_type(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    return typed_by(of, call.arguments[0], "ofType()", scope)


def _is(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    return typed_by(of, call.arguments[0], "is", scope)


def _extension(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    url = resolve(call.arguments[0], scope)
    if not isinstance(url, Constant) or not isinstance(url.value, str):
        raise FhirPathError("extension() takes a URL", allowed="a string or a constant")
    if isinstance(of, Nothing):
        return of
    all_of_them = child(of, "extension", scope)
    if isinstance(all_of_them, Child):
        all_of_them = replace(all_of_them, type="Extension", repeats=True, many=True)
    is_it = Comparison(
        operator="=", left=child(Focus(type="Extension"), "url", scope), right=Constant(value=url.value, type="uri")
    )
    return Filter(of=all_of_them, criterion=is_it, type="Extension", many=True)


def _join(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    none = Constant(value="", type="string")
    separator = resolve(call.arguments[0], scope) if call.arguments else none
    if isinstance(separator, Nothing):
        separator = none
    if not isinstance(separator, Constant) or not isinstance(separator.value, str):
        raise FhirPathError("join() takes a separator", allowed="a string or a constant")
    if category(of.type) not in {None, "string", "temporal"}:
        raise FhirPathError(f"join() works on strings, found {of.type}")
    return Join(of=of, separator=separator.value)


def _reference_key(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    if of.type not in {None, "Reference"}:
        raise FhirPathError(f"getReferenceKey() works on a Reference, found {of.type}")
    target = type_name(call.arguments[0], "getReferenceKey()").name if call.arguments else None
    if target is not None:
        note_resource(target, call.arguments[0].at, scope)
    return ReferenceKey(of=of, target=target, many=of.many)


def _resource_key(of: Expression, _: syntax.Call, scope: Scope) -> Expression:
    if isinstance(of, Nothing):
        return of
    if path_of(of) == ((scope.resource_type,),):  # the resource itself, however it was reached
        return (
            ResourceKey()
            if isinstance(of, (Resource, Focus))
            else Select(of=of, projection=ResourceKey(), many=of.many)
        )
    if is_resource(of.type):
        if element(scope.resource_type, "contained") is None:  # the entries of a Bundle are no parts of it
            return child(of, "id", scope)
        return ContainedKey(of=of, many=of.many)
    raise FhirPathError("getResourceKey() works on the resource itself", allowed="%resource.getResourceKey()")


def _boundary(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    if of.type == "Period":
        of = child(of, "start" if call.name == "lowBoundary" else "end", scope)
    sort = category(of.type)
    if sort not in {None, "number", "temporal"}:
        raise FhirPathError(f"{call.name}() works on decimals, dates, times and Periods, found {of.type}")
    precision = _whole(call, scope) if call.arguments else None
    if isinstance(precision, Expression):
        raise FhirPathError(
            f"{call.name}() takes a precision", offset=call.arguments[0].at, allowed="an integer or a constant"
        )
    type_ = "decimal" if sort == "number" else of.type
    return Boundary(of=of, high=call.name == "highBoundary", precision=precision, type=type_)


def _moment(_of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    if scope.as_of is None:
        raise FhirPathError(f"{call.name}() needs the moment that the data represent, and none was given")
    moment = scope.as_of.astimezone(UTC)
    if call.name == "today":
        return Constant(value=moment.strftime("%Y-%m-%d"), type="date")
    return Constant(value=moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z", type="dateTime")


def _conversion(of: Expression, call: syntax.Call, _: Scope) -> Expression:
    if isinstance(of, Nothing):
        return of
    type_ = {"toString": "string", "toInteger": "integer", "toDecimal": "decimal", "toBoolean": "boolean"}[call.name]
    return Conversion(of=of, type=type_)


_TEXT_TYPES = {
    **dict.fromkeys(("startsWith", "endsWith", "contains", "matches"), "boolean"),
    **dict.fromkeys(("length", "indexOf"), "integer"),
}


def _text(of: Expression, call: syntax.Call, scope: Scope) -> Expression:
    if category(of.type) not in {None, "string", "temporal"}:
        raise FhirPathError(f"{call.name}() works on a string, found {of.type}")
    arguments = tuple(resolve(argument, scope) for argument in call.arguments)
    wanted = {None, "number"} if call.name == "substring" else {None, "string", "temporal"}
    for argument, node in zip(arguments, call.arguments, strict=True):
        if not isinstance(argument, Nothing) and category(argument.type) not in wanted:
            sort = "number" if call.name == "substring" else "string"
            raise FhirPathError(f"{call.name}() takes a {sort}, found {argument.type}", offset=node.at)
    if call.name in {"matches", "replaceMatches"} and not isinstance(arguments[0], Nothing):
        _check_pattern(arguments[0], call)
    if call.name == "split" and not (isinstance(arguments[0], Constant) and arguments[0].value):
        raise FhirPathError("split() takes a constant text of at least one character")
    return TextFunction(
        name=call.name, of=of, arguments=arguments, type=_TEXT_TYPES.get(call.name, "string"), many=call.name == "split"
    )


def _check_pattern(pattern: Expression, call: syntax.Call) -> None:
    at = call.arguments[0].at
    if not isinstance(pattern, Constant) or not isinstance(pattern.value, str):
        raise FhirPathError(f"{call.name}() takes a constant pattern", offset=at, allowed="a string or a constant")
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # `[[:alpha:]]` is none of Python's
            re.compile(pattern.value)
    except (re.error, RecursionError, OverflowError) as error:
        raise FhirPathError(f"the pattern is not a regular expression: {error}", offset=at) from None
    plain = pattern.value.replace("\\\\", "")  # a backslash that is meant as one begins nothing
    if _NOT_IN_POSTGRES.search(plain):
        allowed = "what Postgres has too: no lookbehind, named groups, flags, \\p, \\x, {,n}, possessive quantifiers"
        raise FhirPathError(
            "the pattern uses something that Postgres' regular expressions lack", offset=at, allowed=allowed
        )
    if any(int(number or 0) > _MOST_REPEATED for found in _REPEATED.findall(plain) for number in found):
        raise FhirPathError(
            "the pattern repeats something too often", offset=at, allowed=f"at most {{{_MOST_REPEATED}}}"
        )


FUNCTIONS: dict[str, Function] = {
    "where": Function(1, 1, _where),
    "exists": Function(0, 1, _exists),
    "empty": Function(0, 0, lambda of, _call, _scope: Exists(of=of, negated=True)),
    "not": Function(0, 0, lambda of, _call, _scope: Not(of=of)),
    "all": Function(1, 1, _all),
    "first": Function(0, 0, lambda of, _call, _scope: At(of=of, index=0, type=of.type)),
    "last": Function(0, 0, lambda of, _call, _scope: At(of=of, index=-1, type=of.type)),
    "single": Function(0, 0, lambda of, _call, _scope: At(of=of, index=0, only=True, type=of.type)),
    "tail": Function(0, 0, lambda of, _call, _scope: _slice(of, 1, None)),
    "skip": Function(1, 1, _skip),
    "take": Function(1, 1, _take),
    "count": Function(0, 0, lambda of, _call, _scope: Count(of=of)),
    "distinct": Function(0, 0, _distinct),
    "union": Function(1, 1, _union),
    "select": Function(1, 1, _select),
    "iif": Function(2, 3, _iif),
    "ofType": Function(1, 1, _of_type),
    "as": Function(1, 1, _of_type),
    "is": Function(1, 1, _is),
    "extension": Function(1, 1, _extension),
    "join": Function(0, 1, _join),
    "getResourceKey": Function(0, 0, _resource_key),
    "getReferenceKey": Function(0, 1, _reference_key),
    "lowBoundary": Function(0, 1, _boundary),
    "highBoundary": Function(0, 1, _boundary),
    "today": Function(0, 0, _moment),
    "now": Function(0, 0, _moment),
    **{name: Function(0, 0, _conversion) for name in ("toString", "toInteger", "toDecimal", "toBoolean")},
    **{name: Function(0, 0, _text) for name in ("upper", "lower", "length", "trim")},
    **{name: Function(1, 1, _text) for name in ("startsWith", "endsWith", "contains", "matches", "split", "indexOf")},
    **{name: Function(2, 2, _text) for name in ("replace", "replaceMatches")},
    "substring": Function(1, 2, _text),
}
