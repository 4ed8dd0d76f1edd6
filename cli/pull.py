"""`chartferry pull`: one patient's whole chart, from the EHR or from the store, as one file or on stdout.

The patient's id is PHI: it appears in no log line, file name or message.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.acting import actor_of
from cli.choosing import choose_connections
from cli.configuration import settings_of
from cli.exit_codes import OF_STATUS, ExitCode
from cli.heartbeat import shown_if_slow
from cli.in_store import import_connectors, opened_store
from cli.invocation import Invocation, invocation_of
from cli.moments import AsOfOption, checked_moment
from cli.one_patient import PATIENT_HELP, one_patient
from cli.progress import Show, run_progress
from cli.render import emit_json, print_holes, print_message, run_as_json, size
from cli.run_options import RunOptions
from cli.supervise import supervise
from cli.type_words import TypesOption, checked_types
from config.connections import Connection
from config.how_many import how_many
from config.settings import Settings
from exports.chart import check_place, deliver_chart
from exports.delivery.files import DeliveredFile
from exports.delivery.place_name import destination_of
from snapshots.actor import Actor
from snapshots.audit_event import Action
from snapshots.report import RunReport
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.unit import Ending

EXAMPLES = (
    "chartferry pull mercy-epic - --out chart.ndjson.gz",
    "chartferry pull mercy-epic - --stored --format bundle --out - < patient.txt",
    "chartferry pull mercy-epic - --stored --as-of 2026-01-31T00:00:00Z < patient.txt",
    "chartferry pull mercy-epic - --format csv --out chart/ < patient.txt",
    "chartferry pull mercy-epic eq081-VQEgP8drUUqCWzHfw3",
)
SUFFIX = {"ndjson": ".ndjson.gz", "bundle": ".bundle.json.gz", "csv": "-csv"}
STDOUT = "-"


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What the command line requests. `patient` must not appear in the repr."""

    connection: Connection
    patient: str
    out: str
    format: str
    stored: bool
    types: tuple[str, ...]
    actor: Actor
    as_of: int | datetime | None = None

    def __repr__(self) -> str:
        return f"Pull({self.connection.name}, {self.format})"


ConnectionArgument = Annotated[
    str, typer.Argument(metavar="CONNECTION", help="The connection to fetch the patient from.", show_default=False)
]
PatientArgument = Annotated[
    str,
    typer.Argument(
        metavar="PATIENT",
        help=PATIENT_HELP,
        show_default=False,
    ),
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="FILE|-",
        help="Default: CONNECTION-TIME.ndjson.gz in this folder; - is stdout, uncompressed; csv: a folder or a URL.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    str, typer.Option("--format", metavar="ndjson|bundle|csv", help="csv: one file per built-in view.")
]
StoredOption = Annotated[bool, typer.Option("--stored", help="Write what the store has, without asking the EHR.")]


def pull(
    context: typer.Context,
    *,
    connection: ConnectionArgument,
    patient: PatientArgument,
    out: OutOption = None,
    format_: FormatOption = "ndjson",
    stored: StoredOption = False,
    as_of: AsOfOption = None,
    types: TypesOption = None,
) -> int:
    """Fetch one patient's whole chart and write it to a file. A pull never moves a watermark.

    Exit codes: 0 complete, 3 written with holes (each is named), 4 nothing known about this patient, 5 failed, 6 busy.
    """
    if format_ not in SUFFIX:
        raise typer.BadParameter(f"--format {format_}: one of {', '.join(SUFFIX)}")
    invocation = invocation_of(context)
    if out == STDOUT and (format_ == "csv" or invocation.json):
        raise typer.BadParameter("--out -: stdout takes one ndjson or bundle, without --json")
    if as_of is not None and not stored:
        raise typer.BadParameter("--as-of reads the past, which only the store has: add --stored")
    settings = settings_of(invocation)
    (chosen,) = choose_connections(settings, invocation.tenant, [connection])
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    request = Pull(
        connection=chosen,
        patient=one_patient(patient, "pull takes one, `sync --patients -` takes many"),
        out=out or f"{chosen.name}-{moment}{SUFFIX[format_]}",
        format=format_,
        stored=stored,
        types=checked_types(types),
        actor=actor_of(invocation, settings, reads_charts=True),
        as_of=checked_moment(as_of),
    )
    if request.out != STDOUT and format_ != "csv":
        check_place(request.out)
    with run_progress(terminal=invocation.terminal and not stored) as show:
        report, files = supervise(
            lambda: _pull(settings, request, invocation, show), resume="run the same command again"
        )
    return _report(request, report, files, json=invocation.json)


async def _pull(
    settings: Settings, request: Pull, invocation: Invocation, show: Show
) -> tuple[RunReport | None, list[DeliveredFile]]:
    meanwhile = (lambda: None) if request.stored else import_connectors
    async with opened_store(settings, request.connection.tenant, request.actor, meanwhile=meanwhile) as store:
        report = None
        if not request.stored:
            report = await _fetch(store, request, invocation, show)
            if OF_STATUS[report.status] not in (ExitCode.COMPLETE, ExitCode.PARTIAL):
                return report, []
        async with shown_if_slow("reading the chart from the store"):
            return report, await _deliver(store, request)


async def _fetch(store: Store, request: Pull, invocation: Invocation, show: Show) -> RunReport:
    # a chart from the store needs no connector and writes no log line, and is there before these would be
    from cli.log_lines import start_logging
    from cli.sync import Outcome, log_outcome
    from cli.wiring import run_connection

    start_logging(invocation)
    options = RunOptions(
        kind="pull", mode="crawl", types=request.types, patients=(request.patient,), patients_are_ids=True
    )
    report = await run_connection(request.connection, store, options, show)
    if not invocation.terminal:
        log_outcome(Outcome(request.connection, OF_STATUS[report.status], report=report), "pull")
    return report


async def _deliver(store: Store, request: Pull) -> list[DeliveredFile]:
    selection = Selection(
        connections=(request.connection.name,),
        patients=(request.patient,),
        types=request.types,
        mentioned=True,
        as_of=request.as_of,
    )
    async with store.snapshot(selection, Action.PULL) as snapshot:
        if not await snapshot.types():
            return []
        if request.format == "csv":
            from exports.plan import ExportRequest  # only tables need views, and what compiles them
            from exports.run import export

            out_folder = destination_of(request.out)
            export_request = ExportRequest(
                out=out_folder, formats=("csv",), types=request.types, patients=(request.patient,)
            )
            return list((await export(export_request, snapshot)).files)

        out = sys.stdout.buffer if request.out == STDOUT else Path(request.out)
        return [await deliver_chart(snapshot, out, request.format)]


def _report(request: Pull, report: RunReport | None, files: list[DeliveredFile], *, json: bool) -> ExitCode:
    code = OF_STATUS[report.status] if report is not None else ExitCode.COMPLETE
    if not files and code in (ExitCode.COMPLETE, ExitCode.PARTIAL):
        code = ExitCode.NOTHING if code == ExitCode.COMPLETE else code
    if report is not None and _is_unknown(report) and not files:
        code = ExitCode.NOTHING
    if json:
        status = next(status for status, each in OF_STATUS.items() if each == code)
        emit_json(
            {
                "status": status,
                "run": run_as_json(report) if report else None,
                "out": request.out if files else None,
                "files": [asdict(file) for file in files],
            }
        )
        return code
    if report is not None and _is_unknown(report) and not files:
        print_message(
            f"{request.connection.name}: the EHR does not know this patient; check the id (a FHIR id, not an MRN)"
        )
        return code
    if report is not None:
        print_holes([report], write=print_message)
    if files:
        print_message(_summary(request, report, files))
        for line in _table_lines(request, files):
            print_message(line)
    elif code != ExitCode.FAILED:
        where = "the store has" if request.stored else "the EHR returned"
        advice = "check the id (a FHIR id, not an MRN)"
        if request.as_of is not None:
            where, advice = "at that moment the store had", f"{advice}, or list its runs with `chartferry snapshots`"
        if report is not None and report.holes:
            advice = "see the holes above"
        print_message(f"{request.connection.name}: {where} nothing about this patient; {advice}")
    return code


def _table_lines(request: Pull, files: list[DeliveredFile]) -> list[str]:
    if request.format != "csv":
        return []
    from cli.export_summary import odd_value_lines  # only of tables is there anything to say

    return list(odd_value_lines(files))


def _is_unknown(report: RunReport) -> bool:
    """Whether the EHR itself says that it has no Patient with this id; its other refusals then add nothing."""
    return report.error is None and any(
        hole.resource_type == "Patient" and hole.ending is Ending.NOT_FOUND for hole in report.holes
    )


def _summary(request: Pull, report: RunReport | None, files: list[DeliveredFile]) -> str:
    total: dict[str, Any] = {
        key: sum(getattr(file, key) for file in files) for key in ("rows", "bytes", "uncompressed_bytes")
    }
    packed = f", {size(total['bytes'])} gzip" if total["bytes"] != total["uncompressed_bytes"] else ""
    fetched = f", {how_many(report.requests, 'request')} in {report.seconds:.1f} s" if report else ", from the store"
    where = "stdout" if request.out == STDOUT else request.out
    return f"{where}: {how_many(total['rows'], 'row')}, {size(total['uncompressed_bytes'])}{packed}{fetched}"
