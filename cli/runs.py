"""`chartferry runs`: the runs of a tenant, or everything about one."""

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
    from snapshots.record import Down, RunReport

EXAMPLES = ("chartferry runs", "chartferry runs 12 --json", "chartferry runs --connection mercy-epic --limit 5")


def runs(
    *,
    run: Annotated[int | None, typer.Argument(metavar="[RUN]", help="A run's number.", show_default=False)] = None,
    connection: Annotated[
        str | None, typer.Option("--connection", metavar="NAME", help="Only this connection's.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest first.")] = 20,
    config: ConfigOption = None,
    tenant: TenantOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """List the newest runs, or show one with its holes, notes and counts by type."""
    from cli.wiring import choose_connections, choose_tenant

    settings = settings_of(config)
    if connection is not None:
        tenant = choose_connections(settings, tenant, [connection])[0].tenant
    chosen = choose_tenant(settings, tenant)
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
