"""`chartferry runs`: the runs of a tenant, everything about one, or the giving up of one that is in the way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli.certificate import print_certificate
from cli.exit_codes import ExitCode
from cli.invocation import ConfigOption, DebugOption, JsonOption, TenantOption, settings_of
from cli.render import RUN_COLUMNS, emit_json, print_holes, print_table, run_as_json, run_row, tell
from cli.supervise import supervise

if TYPE_CHECKING:
    from config.settings import Settings
    from snapshots.given_up import Discarded
    from snapshots.record import Down, RunReport

EXAMPLES = (
    "chartferry runs",
    "chartferry runs 12 --json",
    "chartferry runs --connection mercy-epic --limit 5",
    "chartferry runs discard 12",
)
DISCARD = "discard"
MOST = 1 << 63  # a run's number is a bigint


def runs(
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[discard] RUN]",
            help="A run's number; with `discard`: give it up if it is open, else the export job that it left.",
            show_default=False,
        ),
    ] = None,
    connection: Annotated[
        str | None, typer.Option("--connection", metavar="NAME", help="Only this connection's.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest first.")] = 20,
    config: ConfigOption = None,
    tenant: TenantOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """List the newest runs, show one with its holes, notes and counts by type, or give one up (discard)."""
    from cli.wiring import choose_connections, choose_tenant

    run, discards = read_words(words or [])
    settings = settings_of(config)
    if connection is not None:
        tenant = choose_connections(settings, tenant, [connection])[0].tenant
    chosen = choose_tenant(settings, tenant)
    if discards and run is not None:
        given_up = supervise(lambda: _discard(settings, chosen, run), resume="run the same command again")
        return _tell_discarded(run, given_up, json=json)
    reports, down = supervise(lambda: _read(settings, chosen, run, connection, limit), resume="nothing was changed")
    if json:
        listed = [run_as_json(report) for report in reports]
        emit_json(
            {"status": "complete" if reports else "nothing", "runs": listed, "down": [one._asdict() for one in down]}
        )
    elif not reports:
        tell("no runs yet: `chartferry sync` makes the first")
    else:
        print_table(RUN_COLUMNS, map(run_row, reports))
        if run is not None:
            _print_details(reports[0])
        for one in down:
            until, found = f"{one.until.astimezone(UTC):%H:%M} UTC", f": {one.reason}" if one.reason else ""
            tell(f"down     {one.connection}: until {until}{found}; a sync before then asks once")
    return ExitCode.COMPLETE if reports else ExitCode.NOTHING


def read_words(words: list[str]) -> tuple[int | None, bool]:
    """Return the run that is meant, if any, and whether it is to be given up; a usage error for anything else."""
    discards = words[:1] == [DISCARD]
    numbers = words[1:] if discards else words
    if discards and not numbers:
        raise typer.BadParameter("which run? `chartferry runs` lists them; then: `chartferry runs discard RUN`")
    if len(numbers) > 1 or not all(number.isascii() and number.isdigit() and int(number) < MOST for number in numbers):
        raise typer.BadParameter(f"{' '.join(words)}: a run's number, or `discard` and a run's number")
    return (int(numbers[0]) if numbers else None), discards


async def _discard(settings: Settings, tenant: str, run: int) -> Discarded:
    from cli.wiring import opened_store

    async with opened_store(settings, tenant) as store:
        return await store.discard(run)


def _tell_discarded(run: int, found: Discarded, *, json: bool) -> ExitCode:
    nothing = not found.run_closed and found.job is None
    code = ExitCode.NOTHING if nothing else ExitCode.COMPLETE
    if json:
        status = "nothing" if nothing else "complete"
        emit_json({"status": status, "run": run, "run_closed": found.run_closed, "job": found.job})
        return code
    if nothing:
        tell(f"run {run} has ended and left no export job: there is nothing to give up")
        return code
    if found.run_closed:
        tell(f"run {run} is closed; what it stored stays, and the next sync asks anew")
    if found.job == "dropped":
        tell(f"run {run}: its export job is forgotten here; if the EHR still keeps it, it ends there by itself")
    elif found.job is not None:
        tell(f"run {run}: its export job is left for the next sync, which deletes it at the EHR")
    return code


async def _read(
    settings: Settings, tenant: str, run: int | None, connection: str | None, limit: int
) -> tuple[list[RunReport], list[Down]]:
    from cli.wiring import opened_store

    async with opened_store(settings, tenant) as store:
        reports = [await store.run(run)] if run is not None else await store.runs(limit, connection)
        now = datetime.now(UTC)
        return reports, [one for one in await store.down() if one.until > now and connection in (None, one.connection)]


def _print_details(report: RunReport) -> None:
    if report.resources:
        print_table(("type", "resources#"), sorted(report.resources.items()))
    print_holes([report], every=True)
    for certificate in report.certificates:
        print_certificate(certificate, every=True)
    if said := what_next(report):
        tell(f"next     {said}")


def what_next(report: RunReport) -> str:
    """Return the command to give now, and why; nothing for a run that is complete or at work."""
    pulled = report.kind == "pull"
    again = f"`chartferry pull {report.connection} -`" if pulled else f"`chartferry sync {report.connection}`"
    match report.status:
        case "partial":
            return f"{again} asks {'again' if pulled else 'for the holes first'}"
        case "interrupted":
            return f"{again} goes on with it; `chartferry runs discard {report.id}` gives it up"
        case "failed":
            return f"{again}, once what it failed for is mended; `chartferry config check` looks at the configuration"
    return ""
