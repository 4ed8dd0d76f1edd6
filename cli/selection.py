"""The options that say what a command reads of the store: of which connections, of which patients."""

from __future__ import annotations

from typing import Annotated

import typer

OnlyConnectionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--connection", metavar="NAME", help="Only from this connection; may be repeated.", show_default=False
    ),
]
OnlyPatientsOption = Annotated[
    str | None,
    typer.Option("--patients", metavar="FILE|-", help="Only these FHIR ids, one per line.", show_default=False),
]
