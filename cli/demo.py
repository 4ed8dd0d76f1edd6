"""`chartferry demo`: everything from EHR to files, with synthetic patients, in one folder, without preparation.

Starts four mock EHRs (one process each) and an embedded Postgres, syncs and exports all, and shows what each EHR delivered and
which files were written. It calls the same code as `sync` and `export`.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli.acting import actor_of
from cli.exit_codes import ExitCode, worst
from cli.export import run_export
from cli.export_summary import print_result, result_as_json
from cli.in_store import opened_store
from cli.invocation import Invocation, invocation_of, program
from cli.mock_connection import write_private
from cli.mock_processes import mock_ehrs
from cli.render import emit_json, print_holes, print_line, print_message, print_table
from cli.run_options import RunOptions
from cli.supervise import supervise
from cli.sync import Outcome, outcomes_as_json, run_all
from config.how_many import how_many
from config.settings import Settings, load_settings
from exports.delivery.destination import LocalFolder
from exports.plan import ExportRequest
from exports.run import ExportResult
from snapshots.embedded import embedded_postgres
from snapshots.selection import Selection

EXAMPLES = ("chartferry demo", "chartferry demo --dir /tmp/charts --patients 100")
VENDORS = {"epic": "north-epic", "cerner": "east-cerner", "allscripts": "south-allscripts", "va": "west-va"}
STORE = "store"
FAULTS = """\
# the demo's Epic fails now and then, so that you see retries
[[rules]]
match = { purpose = "search" }
every = 60
action = { status = 503, headers = { Retry-After = "0" } }
"""


def demo(
    context: typer.Context,
    *,
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Folder for everything that the demo writes.")
    ] = Path("chartferry-demo"),
    patients: Annotated[
        int, typer.Option("--patients", metavar="N", min=1, help="Synthetic patients in each EHR.")
    ] = 20,
) -> int:
    """See chartferry at work: four mock EHRs, an embedded Postgres, sync, NDJSON and CSV. Safe to repeat."""
    began = time.monotonic()
    invocation = invocation_of(context)
    if invocation.config or invocation.tenant:
        raise typer.BadParameter("--config and --tenant are not for the demo, which writes its own configuration")
    root = folder.resolve()
    print_message(f"All data below are synthetic and stay in {root}")
    with embedded_postgres(root / STORE):  # kept running from sync to export: a restart takes seconds
        print_message(
            f"1/3  starting {len(VENDORS)} mock EHRs with {how_many(patients, 'patient')} each ({_since(began)} so far)"
        )
        with mock_ehrs(VENDORS, patients=patients, folder=root / "mocks", faults={"epic": FAULTS}) as tables:
            settings = load_settings(_write_config(root, tables), {})
            print_message(f"2/3  sync: login, bulk export or search, Postgres ({_since(began)} so far)")
            outcomes = run_all(
                settings, list(settings.connections.values()), RunOptions(), invocation, log_level="WARNING"
            )
        print_message(f"3/3  export: NDJSON by resource type, CSV by view ({_since(began)} so far)")
        result = _export(settings, folder / "export", invocation)
    code = worst(outcome.code for outcome in outcomes)
    if invocation.json:
        emit_json(
            {**outcomes_as_json(outcomes, code), "export": result_as_json(result), "seconds": time.monotonic() - began}
        )
    else:
        _print(outcomes, result)
        print_next(root, settings, _since(began), code)
    return code


def _write_config(root: Path, tables: Sequence[str]) -> Path:
    head = f'# written by `chartferry demo`; the mock EHRs run only while the demo does\n\n[store]\nurl = "embedded:{STORE}"\n'
    path = root / "chartferry.toml"
    write_private(path, "\n".join([head, *tables]))
    return path


def _export(settings: Settings, out: Path, invocation: Invocation) -> ExportResult:
    request = ExportRequest(out=LocalFolder(out), formats=("ndjson", "csv"))
    actor = actor_of(invocation, settings, reads_charts=True)
    opening = opened_store(settings, "default", actor)
    result, _ = supervise(
        lambda: run_export(opening, Selection(), request, terminal=invocation.terminal),
        resume="run the same command again",
    )
    return result


def _print(outcomes: Sequence[Outcome], result: ExportResult) -> None:
    reports = [outcome.report for outcome in outcomes if outcome.report]
    print_table(
        ("vendor", "mode", "status", "patients#", "resources#", "new#", "unchanged#", "requests#", "retries#", "seconds#"),
        [
            (
                outcome.connection.system, report.mode, report.status, report.patients, sum(report.resources.values()),
                report.new, report.unchanged, report.requests, report.retries, float(report.seconds),
            )
            for outcome in outcomes
            if (report := outcome.report)
        ],
        title="what each EHR delivered",
    )  # fmt: skip
    types = sorted({name for report in reports for name in report.resources})
    print_table(
        ("resources by type", *(f"{outcome.connection.system}#" for outcome in outcomes if outcome.report)),
        [(name, *(report.resources.get(name) for report in reports)) for name in types],
    )
    print_holes(report for report in reports if report.status != "complete")
    for outcome in outcomes:
        if outcome.error:
            print_line(f"failed   {outcome.connection.name}: {outcome.error}")
    print_result(result)


def print_next(root: Path, settings: Settings, took: str, code: ExitCode) -> None:
    """Say what to do next: look at the results, or, if not all went well, run it again."""
    # absolute: `./run demo` changes to the checkout, but its caller may be in another folder
    folder = shlex.quote(str(root))
    if code != ExitCode.COMPLETE:
        print_line(
            f"\nThe demo did not end well (after {took}); the reason is above. Run it again: it resumes where it was."
        )
        print_line(f"  {program()} runs --config {folder}/{settings.source.name}")
        print_line(f"If it fails again, start over in another folder (--dir), or remove {folder}.")
        return
    print_line(f"\nDone in {took}. Look around:")
    print_line(f"  zcat {folder}/export/Patient.ndjson.gz | head -1")
    print_line(f"  zcat {folder}/export/observation.csv.gz | head -3")
    print_line(f"  {program()} runs --config {folder}/{settings.source.name}")
    print_line(f"Your own EHR:  {program()} init")


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.0f} s"
