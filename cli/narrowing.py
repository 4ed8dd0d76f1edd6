"""The options that make an export smaller: which resources, which patients, how many rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from exports.plan import ExportRequest

WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="FHIRPATH",
        help="Keep only those resources of a type for which this is true: \"Observation.status = 'final'\". May be repeated.",
        show_default=False,
    ),
]
SampleOption = Annotated[
    int | None,
    typer.Option(
        "--sample",
        metavar="PATIENTS",
        min=1,
        help="Only this many patients: their whole charts, and what these refer to.",
        show_default=False,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", metavar="NUMBER", help="Chooses the patients of --sample; default: 0.", show_default=False),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", metavar="ROWS", min=1, help="At most this many rows in each file.", show_default=False),
]
FreezeOption = Annotated[
    bool,
    typer.Option("--freeze", help="Fail if columns differ from those of the last export in DIR; default: name them."),
]


def narrowed(
    request: ExportRequest, *, where: list[str] | None, sample: int | None, seed: int | None, limit: int | None
) -> ExportRequest:
    """Return the request with what the options say; a usage error for a seed of no sample."""
    if seed is not None and sample is None:
        raise typer.BadParameter("--seed chooses the patients of --sample: give both")
    return replace(request, where=tuple(where or ()), sample=sample, seed=seed or 0, limit=limit)
