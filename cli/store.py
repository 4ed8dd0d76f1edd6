"""`chartferry store`: backs up the embedded store into a file, and makes a store of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.invocation import Invocation, invocation_of
from cli.render import emit_json, tell
from cli.supervise import supervise_blocking
from snapshots.backup import back_up, restore
from snapshots.errors import StoreError
from snapshots.store_url import embedded_directory

BACKUP_EXAMPLES = ("chartferry store backup --out /backup/charts.dump",)
RESTORE_EXAMPLES = ("chartferry store restore /backup/charts.dump --config new.toml",)
_MB = 1_000_000


def backup(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it.", show_default=False)],
) -> int:
    """Write the embedded store, all tenants, to one file, as of one moment; a sync may go on meanwhile.

    The file has charts in plain text, but for values that the store encrypts.

    Exit codes: 0 written, 5 failed.
    """
    invocation = invocation_of(context)
    directory = _directory(invocation)
    size = supervise_blocking(lambda: back_up(directory, out.absolute()), resume="nothing was written")
    if invocation.json:
        emit_json({"status": "complete", "file": str(out), "bytes": size})
    else:
        tell(f"{out}: {size / _MB:,.1f} MB, the store in {directory}")
    return ExitCode.COMPLETE


def restore_store(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `store backup` wrote.", show_default=False)],
) -> int:
    """Make the embedded store of store.url out of a backup. Its folder must be empty, or not there.

    Exit codes: 0 restored, 5 failed.
    """
    invocation = invocation_of(context)
    directory = _directory(invocation)
    supervise_blocking(lambda: restore(file.absolute(), directory), resume="nothing was changed")
    if invocation.json:
        emit_json({"status": "complete", "directory": str(directory)})
    else:
        tell(f"{directory}: restored from {file}")
        tell("next     `chartferry tenants list` and `chartferry audit verify` look at what is there")
    return ExitCode.COMPLETE


def _directory(invocation: Invocation) -> Path:
    directory = embedded_directory(settings_of(invocation).store_url)
    if directory is None:
        raise StoreError(
            "store.url names a server, and this command is for the embedded one: back that up with pg_dump, or as its "
            "administrator does (docs/store.md)."
        )
    return directory.expanduser().resolve()
