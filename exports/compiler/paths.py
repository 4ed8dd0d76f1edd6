"""Which elements an expression of a typed tree walks down from its focus, and whether it ends at stored data. Pure."""

from __future__ import annotations

from dataclasses import replace

from exports.compiler.typed_tree import (
    At,
    Child,
    ComputedSlice,
    Context,
    Distinct,
    Expression,
    Filter,
    Focus,
    Iif,
    Nothing,
    Path,
    Resource,
    Select,
    Slice,
    Union,
)

WITHIN: Path = (("Resource",),)  # the beginning of paths of a resource within the view's own, whose type is not known


def path_of(node: Expression) -> Path | None:
    """The resource's type, and the JSON properties that lead from it to the items of an expression; None: not known."""
    match node:
        case Resource(type=type_):
            return ((type_,),) if type_ else None
        case Focus(path=path) | Context(path=path):
            return path
        case Child(type="Resource"):
            return WITHIN  # `contained`
        case Child(of=of, keys=keys):
            outer = path_of(of)
            return None if outer is None else (*outer, keys)
        case Filter(of=of) | At(of=of) | Slice(of=of) | ComputedSlice(of=of) | Distinct(of=of):
            return path_of(of)
        case Select(projection=projection):
            return path_of(projection)
        case Union(left=one, right=other) | Iif(then=one, otherwise=other):
            paths = {path_of(side) for side in (one, other) if not isinstance(side, Nothing)}
            return paths.pop() if len(paths) == 1 else None
        case _:
            return None


def is_computed(node: Expression) -> bool:
    """Whether its items are results (or literals) rather than data."""
    match node:
        case Focus(computed=computed) | Context(computed=computed):
            return computed
        case Filter(of=of) | At(of=of) | Slice(of=of) | ComputedSlice(of=of) | Distinct(of=of) | Select(projection=of):
            return is_computed(of)
        case Union(left=one, right=other) | Iif(then=one, otherwise=other):
            return all(is_computed(side) for side in (one, other) if not isinstance(side, Nothing))
        case Child() | Resource():
            return False
        case _:
            return True


def goes_down(node: Expression) -> bool:
    """Whether a path leads from its focus to what is inside it, so that following it repeatedly comes to an end.

    A computed position is none of it: it is computed from the first focus, and `from_any_item` could not move it.
    """
    down = False
    while isinstance(node, (Child, Filter, At, Slice)):
        down = down or isinstance(node, Child)
        node = node.of
    return down and isinstance(node, Focus)


def from_any_item(node: Expression) -> Expression:
    """The same path from any focus."""
    if isinstance(node, (Child, Filter, At, Slice)):
        return replace(node, of=from_any_item(node.of))
    return Focus()
