"""Where an expression of a typed tree leads: down from its focus, and by which elements. Pure."""

from __future__ import annotations

from dataclasses import replace

from exports.compiler.typed_tree import At, Child, Context, Expression, Filter, Focus, Path, Resource, Select, Slice

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
        case Filter(of=of) | At(of=of) | Slice(of=of):
            return path_of(of)
        case Select(projection=projection):
            return path_of(projection)
        case _:
            return None


def goes_down(node: Expression) -> bool:
    """Whether a path leads from its focus to what is inside it, so that to follow it again and again comes to an end."""
    down = False
    while isinstance(node, (Child, Filter, At, Slice)):
        down = down or isinstance(node, Child)
        node = node.of
    return down and isinstance(node, Focus)


def from_any_item(node: Expression) -> Expression:
    """The same path from whatever is in focus."""
    if isinstance(node, (Child, Filter, At, Slice)):
        return replace(node, of=from_any_item(node.of))
    return Focus()
