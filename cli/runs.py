"""`chartferry runs`: lists a tenant's runs, shows everything about one, or discards one that is in the way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.certificate import print_certificate
from cli.choosing import choose_connections, choose_tenant
from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.in_store import in_store
from cli.invocation import invocation_of
from cli.render import RUN_COLUMNS, emit_json, print_holes, print_line, print_table, run_as_json, run_row
from snapshots.given_up import Discarded
from snapshots.report import RunReport
from snapshots.store import Store
from snapshots.traffic import Down
from snapshots.unit import Ending

EXAMPLES = (
    "chartferry runs",
    "chartferry runs 12 --json",
    "chartferry runs --connection mercy-epic --limit 5",
    "chartferry runs discard 12",
)
DISCARD = "discard"
MOST = 1 << 63  # a run's number is a bigint


def runs(
    context: typer.Context,
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|discard RUN",
            help="A run's number; `discard`: give up the run if it is open, else the export job that it left.",
            show_default=False,
        ),
    ] = None,
    connection: Annotated[
        str | None,
        typer.Option("--connection", metavar="NAME", help="Only this connection's runs.", show_default=False),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="How many runs at most, newest first.")
    ] = 20,
) -> int:
    """List the newest runs; show one with its holes, notes and counts by type; or give one up (discard)."""
    run, discards = read_words(words or [])
    invocation = invocation_of(context)
    settings, tenant, json = settings_of(invocation), invocation.tenant, invocation.json
    if connection is not None:
        tenant = choose_connections(settings, tenant, [connection])[0].tenant
    chosen = choose_tenant(settings, tenant)
    if discards and run is not None:
        given_up = in_store(invocation, settings, chosen, lambda store: store.discard(run))
        return _report_discarded(run, given_up, json=json)
    reports, down = in_store(
        invocation, settings, chosen, lambda store: _read(store, run, connection, limit), resume="nothing was changed"
    )
    if json:
        listed = [run_as_json(report) for report in reports]
        emit_json(
            {"status": "complete" if reports else "nothing", "runs": listed, "down": [one._asdict() for one in down]}
        )
    elif not reports:
        print_line("no runs yet: `chartferry sync` starts the first")
    else:
        _print_runs(reports)
        if run is not None:
            _print_details(reports[0])
        for one in down:
            until, found = f"{one.until.astimezone(UTC):%H:%M} UTC", f": {one.reason}" if one.reason else ""
            print_line(f"down     {one.connection}: until {until}{found}; a sync before then sends one request")
    return ExitCode.COMPLETE if reports else ExitCode.NOTHING


def read_words(words: list[str]) -> tuple[int | None, bool]:
    """Return the run's number, if any, and whether to discard it; raise a usage error for anything else."""
    discards = words[:1] == [DISCARD]
    numbers = words[1:] if discards else words
    if discards and not numbers:
        raise typer.BadParameter("which run? `chartferry runs` lists them; then: `chartferry runs discard RUN`")
    if len(numbers) > 1 or not all(number.isascii() and number.isdigit() and int(number) < MOST for number in numbers):
        raise typer.BadParameter(
            "give a run's number, or `discard` and a run's number; --connection NAME lists one connection's runs"
        )
    return (int(numbers[0]) if numbers else None), discards


def _report_discarded(run: int, found: Discarded, *, json: bool) -> ExitCode:
    nothing = not found.run_closed and found.job is None
    code = ExitCode.NOTHING if nothing else ExitCode.COMPLETE
    if json:
        status = "nothing" if nothing else "complete"
        emit_json({"status": status, "run": run, "run_closed": found.run_closed, "job": found.job})
        return code
    if nothing:
        print_line(f"run {run} has ended and left no export job: there is nothing to give up")
        return code
    if found.run_closed:
        print_line(f"run {run} is closed; what it stored stays, and the next sync starts a new run")
    if found.job == "dropped":
        print_line(
            f"run {run}: chartferry has forgotten its export job; if the EHR still keeps the job, it expires there"
        )
    elif found.job is not None:
        print_line(f"run {run}: the next sync deletes its export job at the EHR")
    return code


async def _read(
    store: Store, run: int | None, connection: str | None, limit: int
) -> tuple[list[RunReport], list[Down]]:
    reports = [await store.run(run)] if run is not None else await store.runs(limit, connection)
    now = datetime.now(UTC)
    return reports, [one for one in await store.down() if one.until > now and connection in (None, one.connection)]


def _print_runs(reports: list[RunReport]) -> None:
    """Print the table of runs. A pull among them looks like a sync of one patient, so then a column says which is which."""
    rows = [run_row(report) for report in reports]
    if all(report.kind == "sync" for report in reports):
        print_table(RUN_COLUMNS, rows)
        return
    with_kind = [(*row[:2], report.kind, *row[2:]) for row, report in zip(rows, reports, strict=True)]
    print_table((*RUN_COLUMNS[:2], "kind", *RUN_COLUMNS[2:]), with_kind)


def _print_details(report: RunReport) -> None:
    if report.resources:
        print_table(("type", "resources#"), sorted(report.resources.items()))
    print_holes([report], every=True)
    for certificate in report.certificates:
        print_certificate(certificate, every=True)
    if next_step := what_next(report):
        print_line(f"next     {next_step}")


def what_next(report: RunReport) -> str:
    """Return the next command, and why; nothing for a run that is complete, in progress, or long past."""
    pulled = report.kind == "pull"
    again = f"`chartferry pull {report.connection} -`" if pulled else f"`chartferry sync {report.connection}`"
    match report.status:
        case "partial" if pulled and any(hole.ending is Ending.NOT_FOUND for hole in report.holes):
            return f"check the patient's id, then {again}"
        case "partial" if not report.units_pruned:
            return f"{again} {'tries again' if pulled else 'requests the holes first'}"
        case "interrupted":
            return (
                f"{again}, with the options that it had, resumes it; `chartferry runs discard {report.id}` gives it up"
            )
        case "failed":
            return f"fix the cause, then {again}; `chartferry config check` checks the configuration"
    return ""
