"""Paths into a resource as SQL: by jsonpath, which is right for data of any shape, and by plain operators where these suffice.

Both read JSON as FHIRPath does: an array is its items, whatever R4 says of the element, and nulls count as absent. What R4 says
only decides whether plain operators are tried first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import Decimal

from exports.compiler.collection_sql import filtered, selected
from exports.compiler.fragments import SQL, Fragment, Literal
from exports.compiler.typed_tree import (
    At,
    Child,
    Comparison,
    Constant,
    Exists,
    Expression,
    Filter,
    Focus,
    Logic,
    Not,
    Resource,
    Select,
    Slice,
    category,
)
from exports.compiler.value_sql import Environment, Value, as_item, as_items, bound, computed, items, lower, lowers

# Types whose JSON is small, wherever R4 has them: no text of any length, no attachment, no list of further elements
_SMALL_TYPES = frozenset({
    "Address", "Age", "CodeableConcept", "Coding", "ContactPoint", "Duration", "HumanName", "Identifier", "Meta", "Money",
    "Period", "Quantity", "Range", "Ratio", "Reference", "Timing",
})  # fmt: skip


@dataclass(frozen=True)
class Fast:
    """A look-up by plain operators: `keys` into `base`.

    What it finds is right unless it is an array. Where it finds nothing, there is nothing if `base` does not have the first key.
    """

    base: Fragment
    keys: tuple[str | int, ...]  # the first is a text
    by_step: bool = True  # what lies on the way is small

    @property
    def json(self) -> Fragment:
        """The value, as jsonb."""
        return self._looked_up("->", "#>")

    @property
    def text(self) -> Fragment:
        """The value, as text; SQL NULL also for JSON null."""
        return self._looked_up("->>", "#>>")

    def _looked_up(self, last: str, all_: str) -> Fragment:
        """The look-up as nested steps. Each copies what it finds; reading a list of keys takes as long as copying 3 kB."""
        if len(self.keys) == 1 or self.by_step:
            steps = [SQL(" -> ").join([self.base, *map(Literal, self.keys[:-1])]), Literal(self.keys[-1])]
            return SQL("({} {} {})").format(steps[0], SQL(last), steps[1])
        written = ",".join(json.dumps(str(key), ensure_ascii=False) for key in self.keys)
        return SQL("({} {} {}::text[])").format(self.base, SQL(all_), Literal("{" + written + "}"))

    def may_be_elsewhere(self, found: Fragment) -> Fragment:
        """Whether there may be something that the look-up did not find, or found in another form."""
        if len(self.keys) == 1:  # where it finds nothing, there is none, or a null
            return SQL("{} IS NOT NULL").format(found)
        return SQL("{} IS NOT NULL OR {} ? {}").format(found, self.base, Literal(self.keys[0]))


def fast(node: Expression, environment: Environment, *, repeated: bool = False) -> Fast | None:
    """Look up a path by plain operators; None if they cannot find it. `repeated`: its last step may be one that repeats."""
    found = _keys(node, first=False, last=True, repeated=repeated)
    if not found or not found[1]:
        return None
    root, keys = found
    base = environment.focus if isinstance(root, Focus) else environment.resource
    return Fast(base, keys, _is_small_on_the_way(node))


def _is_small_on_the_way(node: Expression) -> bool:
    """Whether a path leads only through small types: each step through an attachment of 1 MB takes 100 us or more."""
    while isinstance(node, At):
        node = node.of
    # a list that is looked into is on the way itself
    on_the_way = node.of if isinstance(node, Child) and not node.repeats else node
    while isinstance(on_the_way, (At, Child)):
        if isinstance(on_the_way, Child) and on_the_way.type not in _SMALL_TYPES:
            return False
        on_the_way = on_the_way.of
    return True


def _keys(
    node: Expression, *, first: bool, last: bool, repeated: bool = False
) -> tuple[Expression, tuple[str | int, ...]] | None:
    match node:
        case Focus() | Resource():
            return node, ()
        case At(of=of, index=0, only=False):
            return _keys(of, first=True, last=True, repeated=repeated)
        case Child(of=of, keys=(key,), repeats=repeats, type=type_):
            known_to_repeat = repeats and type_ is not None
            if known_to_repeat and not first and not (last and repeated):
                return None
            before = _keys(of, first=first, last=False)
            if before is None:
                return None
            # of elements that R4 does not have, only the step before first() is taken to repeat
            zero = (0,) if first and repeats and (known_to_repeat or last) else ()
            return before[0], (*before[1], key, *zero)
    return None


def path(node: Expression, environment: Environment) -> tuple[Value, str]:
    """A jsonb value, and the (lax) jsonpath that finds the items in it; JSON nulls are among them."""
    match node:
        case Focus():
            return Value(environment.focus, "item"), "$"
        case Resource():
            return Value(environment.resource, "item"), "$"
        case Child(of=of, keys=(key,)):
            base, steps = path(of, environment)
            return base, f"{steps}.{quoted(key)}[*]"
        case Filter(of=of, criterion=criterion) if (inside := predicate(criterion)) is not None:
            base, steps = path(of, environment)
            return base, f"{steps} ? ({inside})"
        case Select(of=of, projection=projection) if (inner := steps_from_focus(projection)) is not None:
            base, steps = path(of, environment)
            return base, steps + inner
        case Slice(of=of, start=start, length=length):
            last = "last" if length is None else str(start + length - 1)
            return as_items(lower(of, environment), environment), f"$[{start} to {last}]"
    found = lower(node, environment)
    return (found, "$") if found.kind == "item" else (as_items(found, environment), "$[*]")


def jsonpath(steps: str) -> Fragment:
    """A jsonpath that leaves JSON nulls out."""
    return SQL("{}::jsonpath").format(Literal(f"{steps} ? (@ != null)"))


@lowers(Child, Filter, Select, Slice)
def _path_items(node: Expression, environment: Environment) -> Value:
    match node:
        case Child(keys=keys) if len(keys) > 1:
            return _choice(node, environment)
        case Filter(criterion=criterion) if predicate(criterion) is None:
            return filtered(node, environment)
        case Select(projection=projection) if steps_from_focus(projection) is None:
            return selected(node, environment)
    base, steps = path(node, environment)
    return Value(SQL("jsonb_path_query_array({}, {})").format(base.sql, jsonpath(steps)), "items", base.safe)


def _choice(node: Child, environment: Environment) -> Value:
    """A choice that is not narrowed: whichever of its properties each item has."""
    if isinstance(node.of, (Focus, Resource)):
        parts = [lower(replace(node, keys=(key,)), environment).sql for key in node.keys]
        return Value(SQL("({})").format(SQL(" || ").join(parts)), "items")
    return selected(Select(of=node.of, projection=replace(node, of=Focus())), environment)


@lowers(At)
def _at(node: At, environment: Environment) -> Value:
    if node.only:
        return as_item(items(node.of, environment), environment)
    if node.index == 0:
        base, steps = path(node.of, environment)
        first = SQL("COALESCE(jsonb_path_query_first({}, {}), 'null')")
        if base.safe:
            return Value(first.format(base.sql, jsonpath(steps)), "item")
        template = SQL("CASE WHEN {} IS NOT NULL THEN {} END")
        one = bound(environment, [base.sql], lambda b: template.format(b, first.format(b, jsonpath(steps))))
        return Value(one, "item", safe=False)
    index = Literal(node.index)
    return computed(
        environment,
        [(items(node.of, environment), "items")],
        "item",
        lambda array: SQL("COALESCE({} -> {}::integer, 'null')").format(array, index),
    )


@lowers(Exists)
def _exists(node: Exists, environment: Environment) -> Value:
    word = SQL("NOT " if node.negated else "")
    base, steps = path(node.of, environment)
    if base.kind in {"boolean", "number", "text"}:
        return Value(SQL("({}{} IS NOT NULL)").format(word, base.sql), "boolean")
    template = SQL("({}jsonb_path_exists({}, {}))")
    return computed(
        environment, [(base, base.kind)], "boolean", lambda value: template.format(word, value, jsonpath(steps))
    )


def quoted(text: str) -> str:
    """A text as a string of jsonpath, which is a string of JSON."""
    return json.dumps(text)


def steps_from_focus(node: Expression) -> str | None:
    """The jsonpath steps of a path that begins at the focus and has nothing in it that jsonpath cannot express."""
    match node:
        case Focus():
            return ""
        case Child(of=of, keys=(key,)):
            before = steps_from_focus(of)
            return None if before is None else f"{before}.{quoted(key)}[*]"
        case Filter(of=of, criterion=criterion):
            before, inside = steps_from_focus(of), predicate(criterion)
            return None if before is None or inside is None else f"{before} ? ({inside})"
    return None


def predicate(node: Expression) -> str | None:
    """A criterion as jsonpath, if that is true for the same items; otherwise None."""
    match node:
        case Comparison(operator="=", left=left, right=Constant(value=value, type=type_)):
            if category(type_) == "temporal" or category(left.type) == "temporal":
                return None
            return _equal(left, value)
        case Exists(of=of, negated=negated):
            steps = steps_from_focus(of)
            return None if steps is None else f"{'!' if negated else ''}exists(@{steps} ? (@ != null))"
        case Not(of=Exists() as inner):
            inside = predicate(inner)
            return None if inside is None else f"!({inside})"
        case Logic(operator="and" | "or" as operator, left=left, right=right):
            sides = [predicate(side) if side.type == "boolean" else None for side in (left, right)]
            mark = " && " if operator == "and" else " || "
            # what stands last in `system = … and code = …` tells more, and is looked at first
            return mark.join(f"({side})" for side in reversed(sides) if side) if all(sides) else None
    return None


def _equal(left: Expression, value: str | bool | int | Decimal) -> str | None:
    """One step equal to a constant: jsonpath accepts any of several values, so there must be only one."""
    written = str(value) if isinstance(value, Decimal) else json.dumps(value)
    match left:
        case Focus():
            return f"@ == {written}"
        case Child(of=Focus(), keys=(key,)):
            return f"@.{quoted(key)} == {written} && @.{quoted(key)}.size() == 1"
    return None
