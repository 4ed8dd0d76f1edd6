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
    verify,
    views,
)
from cli.exit_codes import SIGNAL_BASE, ExitCode, explain, leaf
from cli.invocation import (
    AsOption,
    ConfigOption,
    DebugOption,
    Invocation,
    JsonOption,
    ReasonOption,
    TenantOption,
    placed,
)
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
app.add_typer(config_app, name="config")
views_app = typer.Typer(help="Look at views, and check them.", no_args_is_help=True)
app.add_typer(mock_app, name="mock")
audit_app = typer.Typer(invoke_without_command=True)
app.add_typer(audit_app, name="audit")
app.add_typer(views_app, name="views")


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
    config: ConfigOption = None,
    tenant: TenantOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
    acting_as: AsOption = None,
    reason: ReasonOption = None,
) -> None:
    """Show the shared options in the help; `placed` moves those before a command behind it."""


def _examples(lines: Sequence[str]) -> str:
    return "\n\n".join(["Examples:", *lines])


app.command("demo", epilog=_examples(demo.EXAMPLES))(demo.demo)
app.command("init", epilog=_examples(init.EXAMPLES))(init.init)
config_app.command("check", epilog=_examples(config_check.EXAMPLES))(config_check.check)
app.command("sync", epilog=_examples(sync.EXAMPLES))(sync.sync)
app.command("prove", epilog=_examples(prove.EXAMPLES))(prove.prove)
app.command("pull", epilog=_examples(pull.EXAMPLES))(pull.pull)
app.command("snapshots", epilog=_examples(snapshots.EXAMPLES))(snapshots.snapshots)
app.command("export", epilog=_examples(export.EXAMPLES))(export.export)
app.command("query", epilog=_examples(query.EXAMPLES))(query.query)
app.command("verify", epilog=_examples(verify.EXAMPLES))(verify.verify)
audit_app.callback(epilog=_examples(audit.EXAMPLES))(audit.audit)
audit_app.command("verify", epilog=_examples(audit.VERIFY_EXAMPLES))(audit.verify)
audit_app.command("export", epilog=_examples(audit.EXPORT_EXAMPLES))(audit.export)
audit_app.command("prune", epilog=_examples(audit.PRUNE_EXAMPLES))(audit.prune)
app.command("runs", epilog=_examples(runs.EXAMPLES))(runs.runs)
views_app.command("list", epilog=_examples(views.LIST_EXAMPLES))(views.list_views)
views_app.command("show", epilog=_examples(views.SHOW_EXAMPLES))(views.show)
views_app.command("check", epilog=_examples(views.CHECK_EXAMPLES))(views.check)
views_app.command("create", epilog=_examples(sql_views.CREATE_EXAMPLES))(sql_views.create)
views_app.command("drop", epilog=_examples(sql_views.DROP_EXAMPLES))(sql_views.drop)
views_app.command("refresh", epilog=_examples(sql_views.REFRESH_EXAMPLES))(sql_views.refresh)
mock_app.command("serve", epilog=_examples(mock_serve.EXAMPLES))(mock_serve.serve)


@functools.cache
def _command() -> typer.core.TyperGroup:
    command = typer.main.get_command(app)  # reads the signature of every command
    assert isinstance(command, typer.core.TyperGroup)
    return command


def call(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error becomes a message on stderr."""
    invocation = Invocation()
    command = _command()
    try:
        result = command.main(
            args=placed(arguments, command), prog_name="chartferry", obj=invocation, standalone_mode=False
        )
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
