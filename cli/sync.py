"""`chartferry sync`: one run per connection, a table or one JSON object, and the worst run's exit code.

Chooses what to run and prints the results. `wiring` builds the objects, `connectors.fhir.sync` does the run.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import anyio
import typer

from cli.acting import actor_of
from cli.choosing import choose_connections
from cli.configuration import settings_of
from cli.exit_codes import OF_STATUS, ExitCode, explain, worst
from cli.in_store import import_connectors, opened_store
from cli.invocation import Invocation, invocation_of
from cli.log_lines import start_logging
from cli.moments import checked_instant
from cli.patient_file import file_name, read_patients
from cli.progress import Show, run_progress
from cli.render import RUN_COLUMNS, emit_json, print_holes, print_line, print_message, print_table, run_as_json, run_row
from cli.run_options import RunOptions
from cli.supervise import supervise
from cli.type_words import TypesOption, checked_types
from config.connections import STORED, Connection, group_problem
from config.settings import Settings
from connectors.fhir.transport.origins import Origins
from snapshots.actor import Actor
from snapshots.errors import StoreError
from snapshots.report import RunReport
from snapshots.store import Store

EXAMPLES = (
    "chartferry sync",
    "chartferry sync mercy-epic --types Patient,Condition --since 2026-01-01T00:00:00Z",
    "chartferry sync mercy-epic --patients cohort.csv --json",
    "chartferry sync st-lukes --mode bulk --group e3iabhmS8rsueyz7 --plan",
)

# each run has some 30 MB of pages and files in flight; limits towards an EHR are per connection
CONNECTIONS_AT_A_TIME = 4
MODES = ("auto", "bulk", "crawl")
Mode = Literal["auto", "bulk", "crawl"]


@dataclass(frozen=True)
class Outcome:
    """How one connection's run ended: a report, or the error that kept it from having one."""

    connection: Connection
    code: ExitCode
    report: RunReport | None = None
    error: str | None = None


ConnectionsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="CONNECTION", help="Default: all of the tenant's.", show_default=False),
]
ModeOption = Annotated[
    str | None,
    typer.Option("--mode", metavar="auto|bulk|crawl", help="Default: the connection's.", show_default=False),
]
SinceOption = Annotated[
    str,
    typer.Option("--since", metavar="auto|none|INSTANT", help="auto: since the watermark; none: list everything."),
]
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="INSTANT", help="Bulk: only what changed before INSTANT.", show_default=False),
]
GroupOption = Annotated[str | None, typer.Option("--group", metavar="ID", help="Group to export.", show_default=False)]
PatientsOption = Annotated[
    str | None,
    typer.Option(
        "--patients",
        metavar="FILE|-|store",
        help="Patients to fetch, one per line; store: all in the store.",
        show_default=False,
    ),
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Show what would be requested; fetch nothing.")]


def sync(
    context: typer.Context,
    *,
    connections: ConnectionsArgument = None,
    mode: ModeOption = None,
    since: SinceOption = "auto",
    until: UntilOption = None,
    types: TypesOption = None,
    group: GroupOption = None,
    patients: PatientsOption = None,
    plan: PlanOption = False,
) -> int:
    """Fetch what is new from EHRs into the store. Safe to repeat: a run that was stopped resumes where it stopped.

    Exit codes: 0 complete, 3 partial (each hole is named), 4 nothing to do, 5 failed, 6 busy, 2 usage or configuration.
    """
    from cli.plan_report import preview_all, show_plans  # noqa: PLC0415  else the connectors are imported before the store opens

    invocation = invocation_of(context)
    settings = settings_of(invocation)
    chosen = choose_connections(settings, invocation.tenant, connections or [])
    if (group or patients) and len(chosen) != 1:
        raise typer.BadParameter("--group and --patients apply to one connection: name it")
    options = RunOptions(
        mode=checked_mode(mode),
        since=checked_since(since),
        until=checked_until(until),
        types=checked_types(types),
        group=checked_group(group),
        patients=read_patients(patients) if patients not in {None, STORED} else None,
        patients_name=file_name(patients) if patients not in {None, STORED, "-"} else None,
        stored_patients=patients == STORED,
    )
    if plan:
        return show_plans(preview_all(settings, chosen, options, invocation), json=invocation.json)
    outcomes = run_all(settings, chosen, options, invocation)
    code = worst(outcome.code for outcome in outcomes)
    if invocation.json:
        emit_json(outcomes_as_json(outcomes, code))
    else:
        print_outcomes(outcomes)
        if not outcomes:
            whose = f" of tenant {invocation.tenant}" if invocation.tenant else ""
            advice = "`chartferry init examples.toml` writes some to copy from"
            print_line(f"nothing to do: {settings.source} has no connection{whose}; {advice}")
    return code


def run_all(
    settings: Settings,
    connections: Sequence[Connection],
    options: RunOptions,
    invocation: Invocation,
    *,
    log_level: str = "INFO",
) -> list[Outcome]:
    """Run the connections, some at a time, each in its tenant's store; one failure does not affect the others."""
    outcomes: dict[str, Outcome] = {}
    actor = actor_of(invocation, settings, reads_charts=False)

    async def all_of_them(show: Show) -> None:
        places, origins = anyio.CapacityLimiter(CONNECTIONS_AT_A_TIME), Origins()

        async def one(connection: Connection, store: Store) -> None:
            async with places:
                from cli.wiring import run_connection  # noqa: PLC0415  was imported while the store opened

                run = lambda: run_connection(connection, store, options, show, origins)  # noqa: E731
                outcomes[connection.name] = await outcome_of(connection, run, debug=invocation.debug)
                if not invocation.terminal:  # at a terminal, the table shows it
                    log_outcome(outcomes[connection.name], options.kind)

        async with anyio.create_task_group() as tasks:
            for tenant in dict.fromkeys(connection.tenant for connection in connections):
                tasks.start_soon(
                    _tenant, settings, tenant, actor, [each for each in connections if each.tenant == tenant], one
                )

    if connections:
        with run_progress(terminal=invocation.terminal) as show:
            start_logging(invocation, log_level)
            supervise(
                lambda: all_of_them(show), resume="every run stays resumable: run the same command again to resume"
            )
    return [outcomes[connection.name] for connection in connections]


async def _tenant(
    settings: Settings,
    tenant: str,
    actor: Actor,
    connections: Sequence[Connection],
    one: Callable[[Connection, Store], Coroutine[Any, Any, None]],
) -> None:
    async with opened_store(settings, tenant, actor, meanwhile=import_connectors) as store:
        async with anyio.create_task_group() as tasks:
            for connection in connections:
                tasks.start_soon(one, connection, store)
        if settings.export.refresh_views:
            await _refresh_views(store)


async def _refresh_views(store: Store) -> None:
    """Refresh the materialised SQL views with what the runs have left. A failure is reported, and costs no run."""
    try:
        async with store.sql_views() as views:
            await views.refresh()
    except StoreError as error:
        print_message(f"the SQL views were not refreshed: {error}")


async def outcome_of(
    connection: Connection, run: Callable[[], Awaitable[RunReport]], *, debug: bool = False
) -> Outcome:
    """Do one run and return how it ended, whatever happens, so that the other connections continue."""
    try:
        report = await run()
    except Exception as exc:  # noqa: BLE001  ends here: the error becomes this connection's outcome and the exit code
        if debug:
            traceback.print_exception(exc)
        code, message = explain(exc)
        return Outcome(connection, code, error=message)
    return Outcome(connection, OF_STATUS[report.status], report=report)


def log_outcome(outcome: Outcome, kind: str) -> None:
    """Write the run's single log line: counts and how it ended, no PHI."""
    log = logging.getLogger("chartferry")
    connection = outcome.connection
    fields: dict[str, Any] = {"connection": connection.name, "tenant": connection.tenant, "vendor": connection.system}
    report = outcome.report
    if report is None:
        fields |= {"kind": kind, "status": "failed", "exit_code": int(outcome.code), "error": outcome.error}
        log.error("run", extra={"fields": fields})
        return
    fields |= {
        "kind": kind,
        "run": report.id,
        "status": report.status,
        "mode": report.mode,
        "patients": report.patients,
        "resources": sum(report.resources.values()),
        "new": report.new,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "deleted": report.deleted,
        "quarantined": report.quarantined,
        "holes": len(report.holes),
        "requests": report.requests,
        "retries": report.retries,
        "retry_budget_left": report.retries_left,
        "seconds": round(report.seconds, 3),
        **({"error": report.error} if report.error else {}),
    }
    level = {ExitCode.FAILED: logging.ERROR, ExitCode.PARTIAL: logging.WARNING}.get(outcome.code, logging.INFO)
    log.log(level, "run", extra={"fields": fields})


def status_of(code: ExitCode) -> str:
    """Return the status word for the outcome of the whole command."""
    return next((status for status, each in OF_STATUS.items() if each == code), "failed")


def outcomes_as_json(outcomes: Sequence[Outcome], code: ExitCode) -> dict[str, Any]:
    """Return what `sync --json` prints. `errors` lists the connections whose run could not begin."""
    return {
        "status": status_of(code),
        "runs": [run_as_json(outcome.report) for outcome in outcomes if outcome.report],
        "errors": [
            {"connection": outcome.connection.name, "error": outcome.error, "exit_code": int(outcome.code)}
            for outcome in outcomes
            if outcome.error
        ],
    }


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print the table of runs, then what each run could not do."""
    reports = [outcome.report for outcome in outcomes if outcome.report]
    if reports:
        print_table(RUN_COLUMNS, map(run_row, reports))
        print_holes(reports)
    for outcome in outcomes:
        if outcome.error:
            print_line(f"failed   {outcome.connection.name}: {outcome.error}")


def checked_mode(mode: str | None) -> Mode | None:
    """Return the mode; raise a usage error that lists the modes."""
    if mode is not None and mode not in MODES:
        raise typer.BadParameter(f"--mode {mode}: one of {', '.join(MODES)}")
    return cast("Mode | None", mode)


def checked_since(since: str) -> str:
    """Return `auto`, `none` or a FHIR instant; raise a usage error for a time without its zone."""
    if since in ("auto", "none"):
        return since
    checked_instant("--since", since, or_else="auto, none, or ")
    return since


def checked_until(until: str | None) -> str | None:
    """Return an instant with its zone, or None; raise a usage error for anything else."""
    if until is None:
        return None
    checked_instant("--until", until)
    return until


def checked_group(group: str | None) -> str | None:
    """Return the Group's id; raise a usage error that says which part of the value is the id."""
    if group is not None and (wrong := group_problem(group)):
        raise typer.BadParameter(f"--group {group}: {wrong}")
    return group
