"""The `chartferry` command: its subcommands, and how errors become a message and an exit code.

Each subcommand has its own module, which imports what it needs when it runs; so `--help` is quick.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, NoReturn

import typer
import typer.core

from cli import (
    audit,
    config_check,
    demo,
    erase,
    export,
    init,
    mock_serve,
    prove,
    pull,
    query,
    runs,
    snapshots,
    sql_views,
    sync,
    tenants,
    verify,
    views,
)
from cli.exit_codes import SIGNAL_BASE, ExitCode, explain, leaf
from cli.invocation import Invocation, share_options
from cli.render import emit_json, say, tell
from cli.supervise import InterruptedBySignalError

# Reference counts free records and pages. With Python's default of 700, the collector would search everything that a plan and the
# libraries hold at every second page: 3 % of a crawl's CPU, in pauses of 30 to 50 ms during which nothing is sent. Imports, too,
# would be searched a hundred times.
_COLLECT_EVERY = 50_000

SIGPIPE_EXIT = SIGNAL_BASE + 13
SIGINT_EXIT = SIGNAL_BASE + 2

app = typer.Typer(
    name="chartferry",
    help="Copy patient charts out of EHRs: log in, fetch by bulk or search, store in Postgres, export NDJSON and CSV.",
    epilog="First steps: `chartferry demo` needs no preparation; `chartferry init` starts with your own EHR.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Check the configuration.", no_args_is_help=True)
mock_app = typer.Typer(help="Serve a mock EHR to experiment with.", no_args_is_help=True)
views_app = typer.Typer(help="Look at views, check them, and create them in the store.", no_args_is_help=True)
tenants_app = typer.Typer(help="List, make, migrate and delete the store's tenants.", no_args_is_help=True)
audit_app = typer.Typer(invoke_without_command=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        tell(f"chartferry {version('chartferry')}")
        raise typer.Exit


@app.callback()
def _words(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Show the help of the whole."""


def _examples(lines: Sequence[str]) -> str:
    return "\n\n".join(["Examples:", *lines])


for _group, _name, _run, _lines in (
    (app, "demo", demo.demo, demo.EXAMPLES),
    (app, "init", init.init, init.EXAMPLES),
    (config_app, "check", config_check.check, config_check.EXAMPLES),
    (app, "sync", sync.sync, sync.EXAMPLES),
    (app, "prove", prove.prove, prove.EXAMPLES),
    (app, "pull", pull.pull, pull.EXAMPLES),
    (app, "snapshots", snapshots.snapshots, snapshots.EXAMPLES),
    (app, "erase", erase.erase, erase.EXAMPLES),
    (app, "export", export.export, export.EXAMPLES),
    (app, "query", query.query, query.EXAMPLES),
    (app, "verify", verify.verify, verify.EXAMPLES),
    (app, "runs", runs.runs, runs.EXAMPLES),
    (audit_app, "verify", audit.verify, audit.VERIFY_EXAMPLES),
    (audit_app, "export", audit.export, audit.EXPORT_EXAMPLES),
    (audit_app, "prune", audit.prune, audit.PRUNE_EXAMPLES),
    (views_app, "list", views.list_views, views.LIST_EXAMPLES),
    (views_app, "show", views.show, views.SHOW_EXAMPLES),
    (views_app, "check", views.check, views.CHECK_EXAMPLES),
    (views_app, "create", sql_views.create, sql_views.CREATE_EXAMPLES),
    (views_app, "drop", sql_views.drop, sql_views.DROP_EXAMPLES),
    (views_app, "refresh", sql_views.refresh, sql_views.REFRESH_EXAMPLES),
    (tenants_app, "list", tenants.list_tenants, tenants.LIST_EXAMPLES),
    (tenants_app, "add", tenants.add, tenants.ADD_EXAMPLES),
    (tenants_app, "migrate", tenants.migrate, tenants.MIGRATE_EXAMPLES),
    (tenants_app, "drop", tenants.drop, tenants.DROP_EXAMPLES),
    (mock_app, "serve", mock_serve.serve, mock_serve.EXAMPLES),
):
    _group.command(_name, epilog=_examples(_lines))(_run)
audit_app.callback(epilog=_examples(audit.EXAMPLES))(audit.audit)
for _name, _group in (
    ("config", config_app),
    ("mock", mock_app),
    ("audit", audit_app),
    ("views", views_app),
    ("tenants", tenants_app),
):
    app.add_typer(_group, name=_name)


@functools.cache
def command() -> typer.core.TyperGroup:
    """Return the whole command, with the shared options at each of its commands."""
    whole = typer.main.get_command(app)  # reads the signature of every command
    assert isinstance(whole, typer.core.TyperGroup)
    share_options(whole)
    return whole


def call(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error becomes a message on stderr."""
    invocation = Invocation()
    try:
        result = command().main(args=list(arguments), prog_name="chartferry", obj=invocation, standalone_mode=False)
    except typer.TyperException as exc:
        show = getattr(exc, "show", None)  # usage errors know their command's usage line
        if exc.format_message():
            show(file=sys.stderr) if show else say(f"chartferry: {exc.format_message()}")
            _tell_machine(invocation, ExitCode.USAGE, exc.format_message())
        return ExitCode.USAGE
    except InterruptedBySignalError as exc:
        say(f"chartferry: {exc}")
        _tell_machine(invocation, SIGNAL_BASE + exc.signal, str(exc))
        return SIGNAL_BASE + exc.signal
    except (KeyboardInterrupt, typer.Abort):
        say("chartferry: interrupted")
        return SIGINT_EXIT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush is silent
        return SIGPIPE_EXIT
    except Exception as exc:  # noqa: BLE001  the outermost handler: any error becomes a message and an exit code
        return _fail(leaf(exc), invocation)
    return result if isinstance(result, int) else ExitCode.COMPLETE


def _fail(error: BaseException, invocation: Invocation) -> int:
    code, message = explain(error)
    if invocation.debug:
        traceback.print_exception(error)
    say(f"chartferry: {message}")
    _tell_machine(invocation, code, message, error)
    return code


def _tell_machine(invocation: Invocation, code: int, message: str, error: BaseException | None = None) -> None:
    if not invocation.json:
        return
    problems = [problem._asdict() for problem in getattr(error, "problems", ())]
    with suppress(OSError):  # stdout may be what failed; stderr has the message, and the code is returned all the same
        emit_json(
            {
                "status": "failed",
                "exit_code": int(code),
                "error": message.partition("\n")[0],
                **({"problems": problems} if problems else {}),
            }
        )


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    gc.set_threshold(_COLLECT_EVERY)
    code = call(sys.argv[1:])
    gc.freeze()  # else the interpreter's end searches all modules for cycles: a fifth of a second, and nothing comes of it
    sys.exit(code)


if __name__ == "__main__":
    main()
