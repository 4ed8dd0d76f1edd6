"""Checks a view without a store: whether it compiles, and what its author should know."""

from __future__ import annotations

from datetime import UTC, datetime

from psycopg.sql import SQL

from exports.catalogue import LoadedView
from exports.compiler import CompiledView, compile_view

__all__ = ["CompiledView", "compiled_over_nothing"]


def compiled_over_nothing(view: LoadedView) -> CompiledView:
    """Compile a view over no rows, at an arbitrary moment.

    Raises:
        ViewError: the view is wrong; the message names the place in it.
    """
    return compile_view(view.definition, SQL("nothing"), as_of=datetime.fromtimestamp(0, UTC))
