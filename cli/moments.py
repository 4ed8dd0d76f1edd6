"""Instants on the command line, and the option that names a moment in the past: a run or an instant."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="RUN|INSTANT",
        help="Read the store as it was after this run, or at this instant.",
        show_default=False,
    ),
]


def checked_moment(word: str | None) -> int | datetime | None:
    """Return a run's number, a moment, or None; raise a usage error for anything else."""
    if word is None:
        return None
    if word.isascii() and word.isdigit():
        return int(word)
    return checked_instant("--as-of", word, or_else="a run's number, or ")


def checked_instant(option: str, word: str, *, or_else: str = "") -> datetime:
    """Return an instant with its time zone; raise a usage error that names the option and what else it accepts."""
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        raise typer.BadParameter(f"{option} {word}: {or_else}an instant such as 2026-01-31T00:00:00Z") from None
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{option} {word}: which time zone? For UTC: {moment.isoformat()}Z")
    return moment
