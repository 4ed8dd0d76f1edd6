"""The options that commands share: --config, --tenant, --json, --debug, and for those that open the store --as and --reason.

Owns these options and is the only place that reads the configuration for a command. `wiring` builds the rest.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import typer.core

if TYPE_CHECKING:
    from config.settings import Settings


@dataclass
class Invocation:
    """The options' callbacks fill it while the command line is parsed; `main` reads it when something fails."""

    json: bool = False
    debug: bool = False
    acting_as: str | None = None
    reason: str | None = None

    @property
    def terminal(self) -> bool:
        """Whether stderr is a terminal, so that progress may move and tables may have colours."""
        return sys.stderr.isatty()


def _note_json(context: typer.Context, value: bool) -> bool:
    invocation_of(context).json = value
    return value


def _note_debug(context: typer.Context, value: bool) -> bool:
    invocation_of(context).debug = value
    return value


def _note_as(context: typer.Context, value: str | None) -> str | None:
    invocation_of(context).acting_as = value
    return value


def _note_reason(context: typer.Context, value: str | None) -> str | None:
    invocation_of(context).reason = value
    return value


def invocation_of(context: typer.Context) -> Invocation:
    """Return the invocation that this context belongs to."""
    found = context.find_object(Invocation)
    return found if found is not None else Invocation()


def program() -> str:
    """Return what to type for `chartferry`: the bare word if PATH leads to this installation, else its path."""
    ours = Path(sys.executable).with_name("chartferry")
    found = shutil.which("chartferry")
    if not ours.exists() or (found and Path(found).resolve() == ours.resolve()):
        return "chartferry"
    return shlex.quote(str(ours))


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Configuration file; default: $CHARTFERRY_CONFIG, ./chartferry.toml, then the user's.",
        show_default=False,
    ),
]
TenantOption = Annotated[
    str | None,
    typer.Option("--tenant", metavar="NAME", help="Only this tenant's connections and data.", show_default=False),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout, for machines.", callback=_note_json, is_eager=True),
]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show tracebacks of unexpected errors.", callback=_note_debug, is_eager=True, hidden=False
    ),
]
AsOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        help="On whose behalf; the audit has this name beside your account. Default: your account.",
        show_default=False,
        callback=_note_as,
    ),
]
ReasonOption = Annotated[
    str | None,
    typer.Option(
        "--reason",
        metavar="TEXT",
        help="Why you read charts, for the audit; name no patient.",
        show_default=False,
        callback=_note_reason,
    ),
]


def settings_of(config: Path | None) -> Settings:
    """Read the configuration for this call; ConfigError names every problem."""
    from config.settings import load_settings
    from connectors.fhir.vendors import PROFILES

    return load_settings(config, os.environ, vendors=PROFILES)


def start_logging(invocation: Invocation, level: str = "INFO") -> None:
    """Send log lines to stderr: JSON unless it is a terminal."""
    from config.logs import configure_logging

    configure_logging(json=not invocation.terminal, level=level, stream=sys.stderr)


# option -> whether it takes a value
_SHARED = {"--config": True, "--tenant": True, "--json": False, "--debug": False, "--as": True, "--reason": True}


def placed(arguments: Sequence[str], command: typer.core.TyperGroup) -> list[str]:
    """Return the command line with the shared options before a command moved behind its name, where the command reads them."""
    words: list[str] = []
    early: list[str] = []
    rest = list(arguments)
    group: object = command
    while rest and isinstance(group, typer.core.TyperGroup):
        word = rest[0]
        name, equals, _ = word.partition("=")
        if name in _SHARED:
            length = 2 if _SHARED[name] and not equals else 1
            early += rest[:length]
            del rest[:length]
            continue
        if word.startswith("-") or word not in group.commands:
            break
        words.append(rest.pop(0))
        group = group.commands[word]
    return [*words, *early, *rest]


def split_words(values: list[str] | None) -> tuple[str, ...]:
    """Read an option that may be repeated and may hold commas: `--types A,B --types C`."""
    return tuple(word.strip() for value in values or () for word in value.split(",") if word.strip())
