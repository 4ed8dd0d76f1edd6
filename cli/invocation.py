"""The options that every command accepts, before its name or behind it: --config, --json, --as, --reason and their like.

Declares these options once. `configuration` reads the file that they name.
"""

from __future__ import annotations

import functools
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main

PANEL = "Options of every command"


@dataclass
class Invocation:
    """What the shared options say. Filled while the command line is parsed, so that an error knows how to be shown."""

    config: Path | None = None
    tenant: str | None = None
    json: bool = False
    debug: bool = False
    acting_as: str | None = None
    reason: str | None = None
    break_glass: str | None = None

    @property
    def terminal(self) -> bool:
        """Whether stderr is a terminal, so that progress may move and tables may have colours."""
        return sys.stderr.isatty()


def invocation_of(context: typer.Context) -> Invocation:
    """Return the invocation that this context belongs to."""
    return context.ensure_object(Invocation)


def _note(context: typer.Context, option: typer.CallbackParam, value: Any) -> None:
    if value not in (None, False):  # otherwise an option before the command's name would be lost after it
        setattr(invocation_of(context), str(option.name), value)


def _shared(name: str, help_: str, *, metavar: str | None = None, eager: bool = False) -> Any:
    return typer.Option(
        name,
        metavar=metavar,
        help=help_,
        show_default=False,
        callback=_note,
        is_eager=eager,
        expose_value=False,
        rich_help_panel=PANEL,
    )


def _options(
    *,
    config: Annotated[
        Path | None,
        _shared(
            "--config",
            "Configuration file; default: $CHARTFERRY_CONFIG, ./chartferry.toml, then the user's.",
            metavar="FILE",
        ),
    ] = None,
    tenant: Annotated[
        str | None, _shared("--tenant", "Only this tenant's connections and data.", metavar="NAME")
    ] = None,
    json: Annotated[bool, _shared("--json", "Print one JSON object on stdout, for machines.", eager=True)] = False,
    debug: Annotated[bool, _shared("--debug", "Show tracebacks of unexpected errors.", eager=True)] = False,
    acting_as: Annotated[
        str | None,
        _shared(
            "--as",
            "The person for whom you read; the audit records this name beside your account. Default: your account.",
            metavar="NAME",
        ),
    ] = None,
    reason: Annotated[
        str | None, _shared("--reason", "Why you read charts, for the audit; name no patient.", metavar="TEXT")
    ] = None,
    break_glass: Annotated[
        str | None,
        _shared(
            "--break-glass",
            "See what is masked for you, this once; the audit records it separately, with this reason. Name no patient.",
            metavar="REASON",
        ),
    ] = None,
) -> None:
    """Declare the fields of `Invocation` as options."""


@functools.cache
def shared_options() -> tuple[Any, ...]:
    """Return the shared options as parameters of a command."""
    declared = typer.Typer(add_completion=False)
    declared.command()(_options)
    return tuple(typer.main.get_command(declared).params)


def program() -> str:
    """Return what to type for `chartferry`: the bare word if PATH leads to this installation, else its path."""
    ours = Path(sys.executable).with_name("chartferry")
    found = shutil.which("chartferry")
    if not ours.exists() or (found and Path(found).resolve() == ours.resolve()):
        return "chartferry"
    return shlex.quote(str(ours))


def split_words(option: str, values: list[str] | None) -> tuple[str, ...]:
    """Read an option that may be repeated and may hold commas: `--types A,B --types C`; a usage error for commas alone."""
    words = tuple(word.strip() for value in values or () for word in value.split(",") if word.strip())
    if values and not words:
        raise typer.BadParameter(f"{option} names nothing; leave it out for the default")
    return words
