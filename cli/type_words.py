"""Resource types on the command line: the options that name them, and their check."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.invocation import split_words
from config.resource_types import type_problem

TypesOption = Annotated[
    list[str] | None,
    typer.Option("--types", metavar="A,B", help="Resource types; default: the connection's.", show_default=False),
]
OnlyTypesOption = Annotated[
    list[str] | None, typer.Option("--types", metavar="A,B", help="Only these resource types.", show_default=False)
]


def checked_types(types: list[str] | None) -> tuple[str, ...]:
    """Return the resource types of a repeatable, comma-separated option."""
    words = split_words("--types", types)
    for word in words:
        if wrong := type_problem(word):
            raise typer.BadParameter(f"--types {word}: {wrong}")
    return words
