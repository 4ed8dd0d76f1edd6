"""The table of commands, and how one is loaded: its module is imported when it is invoked, and only then.

So `--help`, a typo and `--version` start at once, and a command's module imports at its top what the command needs. `main` builds
the whole from here; what a command is, its own module says.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import typer
import typer.core
import typer.main

from cli.invocation import shared_options
from cli.misspelt_words import as_typed, options_meant, showable, with_long_dash
from cli.refused_words import lacking_value, no_command, no_stream, refused_value, too_many

_STREAM = Path("-")  # stdin or stdout, where a command has them: then its value is text


class Command(NamedTuple):
    """One command: where it is, and what the list of commands says of it, which is how its docstring begins."""

    name: str
    function: str  # as "module:name"
    summary: str
    examples: str = "EXAMPLES"  # what its module calls them


class Group(NamedTuple):
    """Commands under one word. `alone` is what the word does by itself."""

    name: str
    summary: str
    commands: tuple[Command, ...]
    alone: Command | None = None


COMMANDS: tuple[Command | Group, ...] = (
    Command(
        "demo", "cli.demo:demo", "See chartferry at work: four mock EHRs, an embedded Postgres, sync, NDJSON and CSV."
    ),
    Command("init", "cli.init:init", "Write a commented chartferry.toml."),
    Command("sync", "cli.sync:sync", "Fetch what is new from EHRs into the store."),
    Command(
        "prove",
        "cli.prove:prove",
        "After a sync, compare what the EHR has with what the store holds, patient by patient and type by type.",
    ),
    Command("pull", "cli.pull:pull", "Fetch one patient's whole chart and write it to a file."),
    Command(
        "snapshots",
        "cli.snapshots:snapshots",
        "List the runs that changed one patient's chart, oldest first, with what each did.",
    ),
    Command(
        "find",
        "cli.find:find",
        "List the ids of a connection's patients who have exactly this identifier, number, or name and birth date.",
    ),
    Command(
        "diff",
        "cli.diff:diff",
        "List what was added, changed and deleted between the ends of two runs; for changes, the JSON pointers of what changed.",
    ),
    Command(
        "erase",
        "cli.erase:erase",
        "Delete every version of a patient's chart, with attachments, quarantined lines and whatever refers to the patient.",
    ),
    Command(
        "prune",
        "cli.prune:prune",
        "Delete old versions, quarantined input and the units of old runs.",
    ),
    Command(
        "export",
        "cli.export:export",
        "Write NDJSON by type, tables by view, and a manifest.json with counts and checksums; or publish a dataset.",
    ),
    Command("query", "cli.query:query", "Run one SELECT over views, read-only, on one snapshot of the store."),
    Command(
        "verify",
        "cli.verify:verify",
        "Follow a Bulk Publish dataset from its root to its end: links, counts, checksums, every line of every file.",
    ),
    Command(
        "submit",
        "cli.submit:submit",
        "Submit a published dataset to a receiver ($bulk-submit), follow it, and count what was refused.",
    ),
    Command(
        "runs",
        "cli.runs:runs",
        "List the newest runs; show one with its holes, notes and counts by type; or give one up (discard).",
    ),
    Group(
        "keys",
        "Encrypt the store with the current key.",
        (
            Command(
                "rotate-store",
                "cli.keys:rotate_store",
                "Encrypt a plain store, or what older keys have encrypted, with the current key.",
            ),
        ),
    ),
    Group(
        "store",
        "Back up the embedded store, restore a backup, or move the store to a newer Postgres.",
        (
            Command(
                "backup",
                "cli.store:backup",
                "Write the embedded store, all tenants, to one file, as of one moment; a sync may be in progress.",
                "BACKUP_EXAMPLES",
            ),
            Command(
                "restore",
                "cli.store:restore_store",
                "Restore a backup as the embedded store of store.url.",
                "RESTORE_EXAMPLES",
            ),
            Command(
                "upgrade",
                "cli.store:upgrade_store",
                "Move the embedded store to the Postgres of this chartferry.",
                "UPGRADE_EXAMPLES",
            ),
        ),
    ),
    Group(
        "config",
        "Check the configuration.",
        (
            Command(
                "check",
                "cli.config_check:check",
                "Check the configuration; report each problem with its key, what was found and what is allowed.",
            ),
        ),
    ),
    Group(
        "mock",
        "Serve a mock EHR to experiment with.",
        (
            Command(
                "serve",
                "cli.mock_serve:serve",
                "Serve a mock EHR that imitates a vendor, until interrupted; prints the connection to it.",
            ),
        ),
    ),
    Group(
        "audit",
        "Show who saw a patient between two moments; check, export or prune the audit.",
        (
            Command(
                "verify",
                "cli.audit:verify",
                "Check that no event of the audit was altered or deleted.",
                "VERIFY_EXAMPLES",
            ),
            Command("export", "cli.audit:export", "Write the audit, one line per read and patient.", "EXPORT_EXAMPLES"),
            Command(
                "prune",
                "cli.audit:prune",
                "Delete what was kept longer than audit.keep_years (six by default).",
                "PRUNE_EXAMPLES",
            ),
        ),
        alone=Command(
            "audit", "cli.audit:audit", "Show who saw a patient between two moments; check, export or prune the audit."
        ),
    ),
    Group(
        "views",
        "Look at views, check them, and create them in the store.",
        (
            Command(
                "list",
                "cli.views:list_views",
                "List the built-in views: name, resource type, columns and subject.",
                "LIST_EXAMPLES",
            ),
            Command(
                "show",
                "cli.views:show",
                "Show the columns of a view: name, FHIR type and meaning; with --json its whole definition.",
                "SHOW_EXAMPLES",
            ),
            Command(
                "check",
                "cli.views:check",
                "Check views: every element that they name must exist in R4, and every expression must be executable.",
                "CHECK_EXAMPLES",
            ),
            Command(
                "create",
                "cli.sql_views:create",
                "Create SQL views in the tenant's schema, or replace those that chartferry created before.",
                "CREATE_EXAMPLES",
            ),
            Command(
                "drop", "cli.sql_views:drop", "Drop SQL views that chartferry created, all or none.", "DROP_EXAMPLES"
            ),
            Command("refresh", "cli.sql_views:refresh", "Refresh the rows of materialised views.", "REFRESH_EXAMPLES"),
        ),
    ),
    Group(
        "tenants",
        "List, create, migrate, move and delete the store's tenants.",
        (
            Command(
                "list",
                "cli.tenants:list_tenants",
                "List the store's tenants: size, migration, whether their walls stand, and what was opened in them.",
                "LIST_EXAMPLES",
            ),
            Command(
                "add",
                "cli.tenants:add",
                "Create a tenant's schema, its roles and policies; a tenant's first sync does it too.",
                "ADD_EXAMPLES",
            ),
            Command(
                "migrate",
                "cli.tenants:migrate",
                "Bring the tenants' schemas and walls up to date, each in its own transaction; run it again to finish.",
                "MIGRATE_EXAMPLES",
            ),
            Command(
                "export",
                "cli.tenants:export",
                "Write a whole tenant to one file, as of one moment, for `tenants import` into another store.",
                "EXPORT_EXAMPLES",
            ),
            Command(
                "import",
                "cli.tenants:import_file",
                "Restore a tenant from a file into a store that has none of that name, and build its walls.",
                "IMPORT_EXAMPLES",
            ),
            Command(
                "drop",
                "cli.tenants:drop",
                "Delete a tenant: all its charts, their history, its audit, and its roles.",
                "DROP_EXAMPLES",
            ),
        ),
    ),
)


class Unloaded(typer.core.TyperCommand):
    """A command that is listed, and loaded only when it is invoked."""

    def __init__(self, name: str, summary: str, load: Callable[[], typer.core.TyperCommand | CommandGroup]) -> None:
        super().__init__(name, help=summary)
        self.load = load


class PlainCommand(typer.core.TyperCommand):
    """A command whose help is in people's words."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return its parameters, `--help` among them."""
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as typer does; a misspelt option is answered with the one that is meant."""
        return _parsed(super().parse_args, self, ctx, args)


class CommandGroup(typer.core.TyperGroup):
    """Lists its commands without loading them."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return its parameters, `--help` among them."""
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as typer does; a misspelt option is answered with the one that is meant."""
        return _parsed(super().parse_args, self, ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find a command by name as typer does, and load it."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(no_command(args[0], self.commands, _long_options(self, ctx)))
        name, found, rest = super().resolve_command(ctx, args)
        return name, found.load() if isinstance(found, Unloaded) else found, rest


def add_commands(group: CommandGroup, commands: Sequence[Command | Group]) -> CommandGroup:
    """Put these commands into the group, unloaded, and the shared options before them; return the group."""
    for each in commands:
        group.add_command(Unloaded(each.name, each.summary, functools.partial(_loaded, each)))
    group.params = [*group.params, *shared_options()]
    return group


def _loaded(listed: Command | Group) -> typer.core.TyperCommand | CommandGroup:
    alone = typer.Typer(name=listed.name, cls=CommandGroup, add_completion=False)
    if isinstance(listed, Command):
        alone.command(listed.name, cls=PlainCommand, epilog=_examples(listed))(resolve_name(listed.function))
    elif listed.alone is None:
        alone.callback(help=listed.summary, no_args_is_help=True)(_nothing)
    else:
        alone.callback(invoke_without_command=True, epilog=_examples(listed.alone))(resolve_name(listed.alone.function))
    made = typer.main.get_command(alone)
    if isinstance(made, CommandGroup) and isinstance(listed, Group):
        return add_commands(made, listed.commands)
    assert isinstance(made, typer.core.TyperCommand)
    made.params = [*made.params, *shared_options()]
    return made


def _parsed(
    parse: Callable[[Any, list[str]], list[str]], command: PlainCommand | CommandGroup, ctx: Any, args: list[str]
) -> list[str]:
    options = _long_options(command, ctx)
    typed = list(args)  # the parser takes the words out of its list
    if (found := with_long_dash(typed, options)) is not None:
        ctx.fail(f"No such option: {found[0]}, whose dash is not a hyphen (Possible options: {found[1]})")
    if lacking := lacking_value(_words_of(command, typed), _flags(command, ctx), options):
        ctx.fail(lacking)
    more_allowed, ctx.allow_extra_args = ctx.allow_extra_args, True  # else typer quotes what is too much
    try:
        left = parse(ctx, args)
    except typer.BadParameter as error:
        errors = getattr(error.__cause__, "errors", None)
        wanted = refused_value(errors()) if errors is not None else None
        if wanted is not None:
            error.message = wanted
        elif (help_ := getattr(error.param, "help", None)) and not error.message:
            error.message = help_.replace("\\[", "[")  # of a missing argument; \\[ is for the screen of --help
        raise
    except typer.TyperException as error:
        refused = getattr(error, "option_name", None)
        if not hasattr(error, "possibilities") or not isinstance(refused, str):
            raise  # of another kind than an unknown option, whose class typer does not export
        word = as_typed(typed, refused)
        meant = ", ".join(options_meant(word, options))
        shown = showable(word, refused, options)
        error.message = f"No such option: {shown}" + (f" (Possible options: {meant})" if meant else "")
        error.possibilities = ()  # they are in the message
        raise
    ctx.allow_extra_args = more_allowed
    for one in command.get_params(ctx):
        value = ctx.params.get(one.name)
        if _STREAM in (value if isinstance(value, list) else [value]):
            ctx.fail(no_stream(one.opts[0] if one.param_type_name == "option" else one.metavar or one.name))
    if left and not more_allowed:
        takes = [
            one.metavar or one.name.upper() for one in command.get_params(ctx) if one.param_type_name == "argument"
        ]
        ctx.fail(too_many(len(left), takes, options))
    return left


def _words_of(command: PlainCommand | CommandGroup, typed: list[str]) -> list[str]:
    """The words that this command reads: a group leaves those behind a command's name to that command."""
    commands = getattr(command, "commands", {})
    return list(itertools.takewhile(lambda word: word not in commands, typed))


def _long_options(command: PlainCommand | CommandGroup, ctx: Any) -> set[str]:
    return {name for one in command.get_params(ctx) for name in one.opts if name.startswith("--")}


def _flags(command: PlainCommand | CommandGroup, ctx: Any) -> set[str]:
    return {name for one in command.get_params(ctx) if getattr(one, "is_flag", False) for name in one.opts}


def _without_types(params: list[Any]) -> list[Any]:
    """Leave Python's types out of the help: `<bool>` beside a flag and `<list[str]>` beside a name tell people nothing."""
    for one in params:
        if one.param_type_name == "argument" or one.is_flag:
            one.display_type_rich = _no_type  # typer has no setting for it
    return params


def _no_type(ctx: Any) -> None:
    """Return nothing to show."""


def _examples(command: Command) -> str:
    module = import_module(command.function.partition(":")[0])
    return "\n\n".join(["Examples:", *getattr(module, command.examples)])


def _nothing() -> None:
    """Do nothing: only the group's commands do."""
