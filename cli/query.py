"""`chartferry query`: runs a SQLQuery over the store, and writes its rows as CSV or Parquet. Contacts no EHR."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.choosing import choose_connections, choose_tenant
from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.file_options import CsvDialectName, CsvOption
from cli.in_store import in_store
from cli.invocation import invocation_of, split_words
from cli.moments import AsOfOption, checked_moment
from cli.patient_file import read_patients
from cli.render import emit_json, print_message
from cli.selection import OnlyConnectionsOption, OnlyPatientsOption
from config.how_many import how_many
from exports.chart import check_place
from exports.delivery.files import DeliveredFile
from exports.queries.run import Limits, run_query
from exports.queries.statement import Statement
from snapshots.selection import Selection
from snapshots.store import Store

EXAMPLES = (
    "chartferry query a1c.sql --param since=2026-01-01",
    "chartferry query a1c.json --param since=2026-01-01 --out a1c.parquet --connection mercy-epic",
)
STDOUT = "-"

ParamOption = Annotated[
    list[str] | None,
    typer.Option(
        "--param", metavar="NAME=VALUE", help="A parameter of the query; may be repeated.", show_default=False
    ),
]


@dataclass(frozen=True, repr=False)
class _Request:
    """The request; its parameters may be PHI."""

    file: Path
    parameters: dict[str, str]
    selection: Selection
    out: str
    dialect: str


FileArgument = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="A SQLQuery: annotated .sql, or a Library as JSON.", show_default=False),
]
OutOption = Annotated[
    str,
    typer.Option("--out", metavar="FILE|-", help="FILE.parquet, .csv, .csv.gz or .csv.zst; - is stdout, as CSV."),
]
TimeoutOption = Annotated[
    int, typer.Option("--timeout", metavar="SECONDS", min=1, max=86_400, help="Stop the query after this time.")
]
MemoryOption = Annotated[
    int,
    typer.Option(
        "--memory", metavar="MB", min=1, max=1 << 20, help="Memory for each sort and hash; more goes to disk."
    ),
]


def query(
    context: typer.Context,
    *,
    file: FileArgument,
    params: ParamOption = None,
    out: OutOption = STDOUT,
    csv: CsvOption = CsvDialectName.postgres,
    connections: OnlyConnectionsOption = None,
    patients: OnlyPatientsOption = None,
    as_of: AsOfOption = None,
    timeout: TimeoutOption = 300,
    memory: MemoryOption = 256,
) -> int:
    """Run one SELECT over views, read-only, on one snapshot of the store.

    The file names the views and libraries that it reads. Exit codes: 0 complete, 4 no rows, 5 failed, 2 usage.
    """
    invocation = invocation_of(context)
    if out == STDOUT and invocation.json:
        raise typer.BadParameter("--out -: stdout takes the rows, without --json")
    if out != STDOUT:
        check_place(out)
    settings = settings_of(invocation)
    names = split_words("--connection", connections)
    choose_connections(settings, invocation.tenant, list(names))
    selection = Selection(
        connections=names, patients=tuple(read_patients(patients)) if patients else None, as_of=checked_moment(as_of)
    )
    request = _Request(file, checked_params(params), selection, out, csv.value)
    limits = Limits(seconds=timeout, memory_mb=memory)
    tenant = choose_tenant(settings, invocation.tenant)
    delivered, statement = in_store(
        invocation, settings, tenant, lambda store: _run(store, request, limits), reads_charts=True
    )
    for note in statement.notes:
        print_message(note)
    if invocation.json:
        emit_json({"status": "complete" if delivered.rows else "nothing", "rows": delivered.rows, "out": out})
    elif out != STDOUT:
        print_message(f"{out}: {how_many(delivered.rows, 'row')}")
    return ExitCode.COMPLETE if delivered.rows else ExitCode.NOTHING


async def _run(store: Store, request: _Request, limits: Limits) -> tuple[DeliveredFile, Statement]:
    async with store.snapshot(request.selection) as snapshot:
        target = sys.stdout.buffer if request.out == STDOUT else Path(request.out)
        return await run_query(request.file, request.parameters, snapshot, target, limits, dialect=request.dialect)


def checked_params(words: list[str] | None) -> dict[str, str]:
    """Read `name=value` words; a usage error for anything else, and for a name that comes twice."""
    found: dict[str, str] = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise typer.BadParameter("--param: expected NAME=VALUE")
        if name in found:
            raise typer.BadParameter(f"--param {name}: given twice")
        found[name] = value
    return found
