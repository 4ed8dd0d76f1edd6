"""Resolution: a syntax tree becomes a typed one.

Owns the meaning of names and constants (SQL on FHIR v2, FHIRPath 2.0.0): names become elements with a type and a cardinality,
constants become their values. Whatever is certainly wrong is refused here, before any data are read, with its position; elements
that R4 lacks are noted. `operators` and `functions` have their own rules, `fhirpath` reads text, and the `*_sql` modules write
the SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple, TypeAlias

from exports.compiler import syntax
from exports.compiler.operators import combined, shifted, signed
from exports.compiler.sealed_elements import focus_on, require_within_reach, sealed_keys
from exports.compiler.type_specifier import is_of_type, of_resource_type, of_type, type_name
from exports.compiler.typed_tree import (
    At,
    Child,
    ComputedSlice,
    Connection,
    Constant,
    Context,
    Expression,
    Nothing,
    Resource,
    RowIndex,
    category,
)
from exports.elements.table import (
    PRIMITIVE_TYPES,
    choice_of_property,
    element,
    is_known,
    is_resource,
    nearest,
    nearest_type,
    properties,
)
from exports.errors import FhirPathError
from snapshots.identifying import SealedElements

MAX_WHOLE = 2**31 - 1  # no array is longer


class Note(NamedTuple):
    """A doubt about an expression, and the character (0-based) that it is about."""

    problem: str
    offset: int


@dataclass(frozen=True)
class Scope:
    """What an expression may refer to: the view's resource type, constants and functions, and what is in focus where it stands.

    `context` is the focus at the expression's start, `as_of` the moment that the data stands for (None: not known), `sealed`
    what is encrypted (None: nothing), `shows` whether columns are decrypted, `of_r4` whether the view is for R4, so that a choice
    has no other types than R4's. `notes` collects what R4 does not have.
    """

    resource_type: str
    constants: Mapping[str, Constant]
    focus: Expression
    functions: Mapping[str, Function]
    context: Expression | None = None
    as_of: datetime | None = None
    sealed: SealedElements | None = None
    shows: bool = False
    of_r4: bool = True
    notes: list[Note] = field(default_factory=list)


Handler: TypeAlias = Callable[[Expression, syntax.Call, Scope], Expression]


@dataclass(frozen=True)
class Function:
    """How many arguments a function takes, and what a call of it becomes."""

    fewest: int
    most: int
    handler: Handler


def resolve(node: syntax.Node, scope: Scope) -> Expression:
    """The typed expression of a syntax tree.

    Raises:
        FhirPathError: a constant that is not defined, a function that is not there, types that do not go together; says where.
    """
    try:
        return _resolved(node, scope)
    except FhirPathError as error:
        if error.offset is not None or node.at < 0:
            raise
        raise type(error)(error.problem, offset=node.at, allowed=error.allowed) from None


def _resolved(node: syntax.Node, scope: Scope) -> Expression:
    match node:
        case syntax.Literal(value, type_):
            return Constant(value=value, type=type_)
        case syntax.Quantity():
            raise FhirPathError("a quantity can only be added to a date or time, or subtracted from one")
        case syntax.Empty():
            return Nothing()
        case syntax.This():
            return scope.focus
        case syntax.Variable(name):
            return _variable(name, scope)
        case syntax.Member(of, name):
            return _member(of, name, scope, node.at)
        case syntax.Index(of, index):
            return _index(resolve(of, scope), resolve(index, scope))
        case syntax.Call():
            return _call(node, scope)
        case syntax.Unary(operator, operand):
            return signed(operator, resolve(operand, scope))
        case syntax.Binary():
            return _binary(node, scope)


def _variable(name: str, scope: Scope) -> Expression:
    if name == "rowIndex":
        return RowIndex()
    if name in scope.constants:
        return scope.constants[name]
    if name == "connection":
        return Connection()
    if name in {"resource", "rootResource"}:
        return Resource(type=scope.resource_type)
    if name == "context" and scope.context is not None:
        at_hand = scope.focus is scope.context or isinstance(scope.context, Resource)
        if at_hand:
            return scope.context
        kept = focus_on(scope.context)
        return Context(type=kept.type, path=kept.path, sealed=kept.sealed, computed=kept.computed)
    defined = ", ".join(f"%{known}" for known in (*scope.constants, "rowIndex", "connection", "context", "resource"))
    raise FhirPathError(f"%{name} is not defined", allowed=defined)


def _member(of: syntax.Node | None, name: str, scope: Scope, offset: int) -> Expression:
    if of is not None:
        return child(resolve(of, scope), name, scope, offset)
    on_it = isinstance(scope.focus, Resource) or scope.focus.type == scope.resource_type
    if on_it and name == scope.resource_type and element(name, name) is None:
        return scope.focus
    if scope.focus.type is None and name == scope.resource_type:
        return of_resource_type(scope.focus, name)
    return child(scope.focus, name, scope, offset)


def child(of: Expression, name: str, scope: Scope, offset: int = -1) -> Expression:
    """The element `name` of the items of `of`; in an encrypted store it is marked where it may be encrypted."""
    found = _child(of, name, scope, offset)
    if scope.sealed is not None and isinstance(found, Child):
        further = scope.sealed.further
        require_within_reach(of, name, scope.resource_type, further)
        keys = sealed_keys(found, of, scope.resource_type, further)
        return replace(found, sealed_at=offset, sealed_keys=keys) if keys else found
    return found


def _child(of: Expression, name: str, scope: Scope, offset: int) -> Expression:
    if isinstance(of, Nothing):
        return of
    if of.type in PRIMITIVE_TYPES and name not in {"id", "extension"}:
        raise FhirPathError(f"{name!r} is not an element of a {of.type}, which has none")
    if name == "resourceType" and (of.type is None or is_resource(of.type)):
        return Child(of=of, name=name, keys=(name,), repeats=False, type="code", many=of.many)
    known = element(of.type, name)
    if known is None and name in {"id", "extension"} and isinstance(of, Child) and len(of.keys) > 1:
        of = replace(of, keys=(*of.keys, *(f"_{key}" for key in of.keys)))  # a choice, maybe of a primitive
    if known is None:
        return _not_in_r4(of, name, scope, offset)
    if known.choice:
        keys = properties(name, known)
        if not scope.of_r4:  # what R4 has as a choice may have one type elsewhere, as `medication` in R5
            return Child(of=of, name=name, keys=(*keys, name), repeats=True, many=True)
        return Child(of=of, name=name, keys=keys, repeats=False, many=of.many)
    holder = of
    if of.type in PRIMITIVE_TYPES:
        # JSON keeps the id and the extensions of a primitive `p` in its sibling `_p` (FHIR R4 §2.6.2.1)
        if not isinstance(of, Child):
            problem = f"the {name} of a {of.type} is found on its element alone"
            raise FhirPathError(
                problem, allowed=f"such as birthDate.{name}, without a function, an index or forEach before it"
            )
        holder = replace(of, keys=tuple(f"_{key}" for key in of.keys), type="Element")
    return Child(
        of=holder,
        name=name,
        keys=(name,),
        repeats=known.many,
        type=known.types[0],
        many=of.many or known.many,
    )


def _not_in_r4(of: Expression, name: str, scope: Scope, offset: int) -> Expression:
    if of.type is not None and is_known(of.type):
        if (written := choice_of_property(of.type, name)) is not None:
            choice, type_ = written
            scope.notes.append(Note(f"{name!r} is written {choice}.ofType({type_}) in FHIRPath", offset))
            return Child(of=of, name=name, keys=(name,), repeats=False, type=type_, many=of.many)
        close = nearest(of.type, name)
        problem = f"{of.type} has no element {name!r} in R4" + (f" (did you mean {close!r}?)" if close else "")
        scope.notes.append(Note(problem, offset))
    return Child(of=of, name=name, keys=(name,), many=True)


def _index(of: Expression, at: Expression) -> Expression:
    whole = whole_number(at)
    if whole is None:
        raise FhirPathError("an index must be an integer", allowed="[0], [1], … [%name], [%rowIndex], [count() - 1]")
    if not isinstance(whole, int):
        one = Constant(value=1, type="integer")
        of = ComputedSlice(of=of, start=whole, length=one, type=of.type, many=of.many)
        return At(of=of, index=0, type=of.type)
    return At(of=of, index=whole, type=of.type) if 0 <= whole <= MAX_WHOLE else Nothing()


def whole_number(node: Expression) -> int | Expression | None:
    """A whole number: its value, or the expression that gives it on the row; None: it cannot be one."""
    if not isinstance(node, Constant):
        return node if category(node.type) in {None, "number"} else None
    return node.value if isinstance(node.value, int) and not isinstance(node.value, bool) else None


def _binary(node: syntax.Binary, scope: Scope) -> Expression:
    left = resolve(node.left, scope)
    if node.operator in {"is", "as"}:
        return typed_by(left, node.right, node.operator, scope)
    if isinstance(node.right, syntax.Quantity):
        return shifted(node.operator, left, node.right)
    return combined(node, left, resolve(node.right, scope))


def criterion(node: syntax.Node, scope: Scope, *, what: str) -> Expression:
    """An expression that must be boolean: a view's `where`, or the argument of `where()` and `exists()`."""
    found = resolve(node, scope)
    if found.type not in {None, "boolean"}:
        raise FhirPathError(
            f"{what} must be boolean, found {found.type}",
            offset=node.at if node.at >= 0 else None,
            allowed="a comparison, exists(), empty(), not(), …",
        )
    return found


def typed_by(of: Expression, specifier: syntax.Node, operator: str, scope: Scope) -> Expression:
    """`of is T`, `of as T` and `of.ofType(T)`; a type that R4 never has there is noted."""
    wanted = type_name(specifier, operator)
    if isinstance(of, Nothing):
        return of
    found = of_type(of, wanted, of_r4=scope.of_r4)
    if isinstance(found, Nothing):
        note_type(wanted.name, f"{wanted.name!r} is not a type that this can have in R4", specifier.at, scope)
    elif of.type == "Resource":
        note_resource(wanted.name, specifier.at, scope)
    return is_of_type(of, found) if operator == "is" else found


def note_type(wanted: str, problem: str, offset: int, scope: Scope) -> None:
    """Note what is doubtful about the name of a type, with the closest one that R4 has."""
    close = nearest_type(wanted)
    scope.notes.append(Note(problem + (f" (did you mean {close!r}?)" if close else ""), offset))


def note_resource(wanted: str, offset: int, scope: Scope) -> None:
    """Note a type of resource that R4 does not have."""
    if not is_resource(wanted):
        note_type(wanted, f"{wanted!r} is not a resource type in R4", offset, scope)


def _call(call: syntax.Call, scope: Scope) -> Expression:
    found = scope.functions.get(call.name)
    if found is None:
        raise FhirPathError(f"there is no function {call.name}() here", allowed=", ".join(sorted(scope.functions)))
    if not found.fewest <= len(call.arguments) <= found.most:
        allowed = str(found.fewest) if found.fewest == found.most else f"{found.fewest} to {found.most}"
        raise FhirPathError(f"{call.name}() has {len(call.arguments)} arguments", allowed=allowed)
    of = scope.focus if call.of is None else resolve(call.of, scope)
    return found.handler(of, call, scope)
