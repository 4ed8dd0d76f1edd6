"""Reads the command line, runs the command, and turns errors into a message and an exit code. `commands` has the table."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated

import typer

from cli.commands import COMMANDS, CommandGroup, add_commands
from cli.exit_codes import SIGNAL_BASE, ExitCode, explain, leaf
from cli.invocation import Invocation
from cli.render import emit_json, print_line, print_message
from cli.supervise import InterruptedBySignalError

SIGPIPE_EXIT = SIGNAL_BASE + 13
SIGINT_EXIT = SIGNAL_BASE + 2

app = typer.Typer(
    name="chartferry",
    cls=CommandGroup,
    help="Copy patient charts out of EHRs: log in, fetch by bulk or search, store in Postgres, export NDJSON, CSV and Parquet.",
    epilog="First steps: `chartferry demo` needs no preparation; `chartferry init` starts with your own EHR.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"chartferry {version('chartferry')}")
        raise typer.Exit


@app.callback()
def _words(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Show the help of the whole."""


@functools.cache
def command() -> CommandGroup:
    """Return the whole command; each of its commands is loaded when it is invoked."""
    whole = typer.main.get_command(app)
    assert isinstance(whole, CommandGroup)
    return add_commands(whole, COMMANDS)


def call(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error becomes a message on stderr."""
    invocation = Invocation()
    try:
        # not `main`, which ends without a word after Ctrl-C, and with a bug's code if the reader of the output closed the pipe
        with command().make_context("chartferry", list(arguments), obj=invocation) as context:
            result = command().invoke(context)
    except typer.Exit as exc:
        return exc.exit_code
    except typer.TyperException as exc:
        show = getattr(exc, "show", None)  # usage errors know their command's usage line
        if exc.format_message():
            show(file=sys.stderr) if show else print_message(f"chartferry: {exc.format_message()}")
            _emit_error(invocation, ExitCode.USAGE, exc.format_message())
        return ExitCode.USAGE
    except InterruptedBySignalError as exc:
        print_message(f"chartferry: {exc}")
        _emit_error(invocation, SIGNAL_BASE + exc.signal, str(exc))
        return SIGNAL_BASE + exc.signal
    except (KeyboardInterrupt, typer.Abort):
        print_message("chartferry: interrupted")
        return SIGINT_EXIT
    except (BrokenPipeError, SystemExit) as exc:
        # rich raises SystemExit in place of the closed pipe's error
        if isinstance(exc, SystemExit) and not isinstance(exc.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush is silent
        return SIGPIPE_EXIT
    except Exception as exc:  # noqa: BLE001  the outermost handler: any error becomes a message and an exit code
        return _fail(leaf(exc), invocation)
    return result if isinstance(result, int) else ExitCode.COMPLETE


def _fail(error: BaseException, invocation: Invocation) -> int:
    code, message = explain(error)
    if invocation.debug:
        traceback.print_exception(error)
    print_message(f"chartferry: {message}")
    _emit_error(invocation, code, message, error)
    return code


def _emit_error(invocation: Invocation, code: int, message: str, error: BaseException | None = None) -> None:
    if not invocation.json:
        return
    problems = [problem._asdict() for problem in getattr(error, "problems", ())]
    with suppress(OSError):  # stdout may be what failed; stderr has the message, and the exit code is returned anyway
        emit_json(
            {
                "status": "failed",
                "exit_code": int(code),
                "error": message.partition("\n")[0],
                **({"problems": problems} if problems else {}),
            }
        )
