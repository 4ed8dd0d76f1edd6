"""`chartferry export --format postgres|delta`: loads views into tables elsewhere, and prints what was done.

`export` reads the command line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.exit_codes import ExitCode
from cli.progress import file_progress
from cli.refused_words import no_stream
from cli.render import emit_json, number, print_line, print_table
from config.how_many import how_many
from config.secret_refs import SecretRef
from exports.delivery.manifest import instant, states
from exports.formats.file_formats import DATABASES
from exports.warehouse.load import Loaded, WarehouseRequest, load_warehouse
from exports.warehouse.place_of_tables import delta_folder
from exports.warehouse.target import PostgresSchema, has_password
from exports.warehouse.warehouse_port import Warehouse
from snapshots.selection import Selection
from snapshots.store import Store

DEFAULT_SCHEMA = "charts"

ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="URL|env:NAME|DIR",
        help="The database of --format postgres (a password from env:NAME or ~/.pgpass), or the folder of --format delta.",
        show_default=False,
    ),
]
SchemaOption = Annotated[
    str | None,
    typer.Option(
        "--schema",
        metavar="NAME",
        help=f"With --format postgres: the schema of the tables; default: {DEFAULT_SCHEMA}.",
        show_default=False,
    ),
]


def checked_warehouse(to: str | None, schema: str | None, formats: Sequence[str]) -> Warehouse:
    """Return where views are loaded to; a usage error without --to, with other formats, or with a password that others could see.

    Raises:
        SecretUnreadableError: `env:NAME` or `file:PATH` cannot be read.
        PlanError: it is no such place, or nothing is installed that writes there.
    """
    if to is None:
        found = "a folder or a URL" if "delta" in formats else "the database, as --to env:NAME or --to service=NAME"
        raise typer.BadParameter(f"--format {','.join(formats)} needs --to: {found}")
    if len({*formats}) != 1 or not {*formats} <= {*DATABASES}:
        raise typer.BadParameter(f"--to needs --format {' or '.join(DATABASES)}, and no other format")
    if to == "-":
        raise typer.BadParameter(no_stream("--to"))
    if "delta" in formats:
        if schema is not None:
            raise typer.BadParameter("--schema needs --format postgres; with --format delta each table is a folder")
        return delta_folder(SecretRef.parse(to, Path.cwd()).read(os.environ).reveal() if to.startswith("env:") else to)
    return PostgresSchema(_url(to), schema or DEFAULT_SCHEMA)


def _url(to: str) -> str:
    if to.startswith(("env:", "file:")):
        url = SecretRef.parse(to, Path.cwd()).read(os.environ).reveal()
        has_password(url)
        return url
    if has_password(to):
        raise typer.BadParameter(
            "--to: others on this machine can see a password on the command line; put the URL into the environment and write "
            "--to env:NAME, or the password into ~/.pgpass"
        )
    return to


async def run_load(
    opening: AbstractAsyncContextManager[Store], selection: Selection, request: WarehouseRequest, *, terminal: bool
) -> Loaded:
    """Load from the store, with progress on stderr."""
    with file_progress(terminal=terminal) as show:
        async with opening as store, store.snapshot(selection) as snapshot:
            return await load_warehouse(request, snapshot, on_progress=show)


def show_loaded(done: Loaded, *, json: bool) -> int:
    """Print what was loaded, and return the exit code."""
    code = ExitCode.COMPLETE if done.tables else ExitCode.NOTHING
    if json:
        emit_json(
            {
                "status": "complete" if done.tables else "nothing",
                "to": done.where,
                "as_of": instant(done.as_of),
                "runs": [one.run for one in done.runs],
                "left_by": done.left_by,
                "states": states(done.runs),
                "not_included": [{"run": one.run, "connection": one.connection} for one in done.not_included],
                "notes": list(done.notes),
                "tables": [asdict(one) for one in done.tables],
            }
        )
        return code
    if not done.tables:
        print_line("no run has ended yet: there is nothing to load, and no table was touched")
        return code
    print_table(
        ("table", "rows#", "deleted#"), [(one.name, number(one.rows), number(one.deleted)) for one in done.tables]
    )
    for line in done.notes:
        print_line(line)
    for one in done.tables:
        if one.added:
            print_line(f"{one.name}: new columns {', '.join(one.added)}")
        if one.unfilled:
            print_line(f"{one.name}: the view no longer has {', '.join(one.unfilled)}; the columns stay, and are empty")
        if one.left_empty:
            cells = ", ".join(f"{name} {number(count)}" for name, count in one.left_empty.items())
            print_line(f"{one.name}: cells left empty, because their values do not fit: {cells}")
        if one.left_out:
            print_line(
                f"{one.name}: {how_many(one.left_out, 'resource')} left out, because a criterion could not decide"
            )
    if done.not_included:
        print_line(f"not included: {', '.join(f'run {one.run} of {one.connection}' for one in done.not_included)}")
    print_line(
        f"{done.where}: loaded, as of {done.as_of.isoformat()}; next time --changed-since {done.left_by} loads the changes"
    )
    return code
