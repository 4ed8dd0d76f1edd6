from __future__ import annotations

from config import errors


def test_the_drawn_tree_names_every_error() -> None:
    classes = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}
    assert all(name in (errors.__doc__ or "") for name in classes)
