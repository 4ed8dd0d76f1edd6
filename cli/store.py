"""`chartferry store`: backs up the embedded store into a file, makes a store of one, and moves it to a newer Postgres."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.acting import actor_of
from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.invocation import Invocation, invocation_of
from cli.render import emit_json, print_line, size
from cli.supervise import supervise_blocking
from snapshots.backup import back_up, restore, upgrade
from snapshots.errors import StoreError
from snapshots.store_url import embedded_directory

BACKUP_EXAMPLES = ("chartferry store backup --out /backup/charts.dump",)
RESTORE_EXAMPLES = ("chartferry store restore /backup/charts.dump --config new.toml",)
UPGRADE_EXAMPLES = ("chartferry store upgrade", "chartferry store upgrade --programs /usr/lib/postgresql/17/bin")


def backup(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it.", show_default=False)],
) -> int:
    """Write the embedded store, all tenants, to one file, as of one moment; a sync may be in progress.

    The file has charts in plain text, except for values that the store encrypts. The audit of each tenant notes the backup.

    Exit codes: 0 written, 5 failed.
    """
    invocation = invocation_of(context)
    directory = _directory(invocation)
    actor = actor_of(invocation, settings_of(invocation), reads_charts=True, opens_values=False)
    written = supervise_blocking(lambda: back_up(directory, out.absolute(), actor), resume="nothing was written")
    if invocation.json:
        emit_json({"status": "complete", "file": str(out), "bytes": written})
    else:
        print_line(f"{out}: {size(written)}, the store in {directory}")
    return ExitCode.COMPLETE


def restore_store(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `store backup` wrote.", show_default=False)],
) -> int:
    """Restore a backup as the embedded store of store.url. Its folder must be empty, or not there.

    Exit codes: 0 restored, 5 failed.
    """
    invocation = invocation_of(context)
    directory = _directory(invocation)
    supervise_blocking(lambda: restore(file.absolute(), directory), resume="nothing was changed")
    if invocation.json:
        emit_json({"status": "complete", "directory": str(directory)})
    else:
        print_line(f"{directory}: restored from {file}")
        print_line("next     `chartferry tenants list` and `chartferry audit verify` check what was restored")
    return ExitCode.COMPLETE


def upgrade_store(
    context: typer.Context,
    *,
    programs: Annotated[
        Path | None,
        typer.Option(
            "--programs",
            metavar="DIR",
            help="Folder with the programs of the Postgres that wrote the store; default: this installation's.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Move the embedded store to the Postgres of this chartferry. It is dumped and restored; the old data stay beside it.

    Exit codes: 0 upgraded, 4 nothing to upgrade, 5 failed.
    """
    invocation = invocation_of(context)
    directory = _directory(invocation)
    where = None if programs is None else programs.absolute()
    former = supervise_blocking(lambda: upgrade(directory, where), resume="run it again to continue")
    code = ExitCode.NOTHING if former is None else ExitCode.COMPLETE
    if invocation.json:
        facts = {} if former is None else {"former": str(former)}
        emit_json({"status": "nothing" if former is None else "complete", "directory": str(directory), **facts})
    elif former is None:
        print_line(f"{directory}: the store already has this Postgres")
    else:
        print_line(f"{directory}: upgraded; the old data are in {former}")
        print_line("next     check the store (`chartferry runs`, `chartferry audit verify`), then delete that folder")
    return code


def _directory(invocation: Invocation) -> Path:
    directory = embedded_directory(settings_of(invocation).store_url)
    if directory is None:
        raise StoreError(
            "store.url names your own server, but this command is for the embedded server: back up your own with pg_dump, "
            "or as its administrator does (docs/store.md)."
        )
    return directory.expanduser().resolve()
