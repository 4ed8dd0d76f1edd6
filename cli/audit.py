"""`chartferry audit`: who saw a patient; whether anything was tampered with; the audit as FHIR or JSON lines; pruning."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from cli.choosing import choose_tenant
from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.in_store import in_store
from cli.invocation import Invocation, invocation_of
from cli.moments import checked_instant
from cli.one_patient import PATIENT_HELP, one_patient
from cli.render import emit_json, number, print_line, print_message, print_table
from config.how_many import how_many
from exports.audit_file import write_audit
from exports.chart import check_place
from exports.formats.audit_lines import AUDIT_FORMATS, read_as_json
from snapshots.audit_event import FAULTS, Action, ReadEvent, Verified
from snapshots.audit_reader import AuditReader

EXAMPLES = (
    "chartferry audit --patient - < patient.txt",
    "chartferry audit --patient - --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z --json < patient.txt",
)
VERIFY_EXAMPLES = ("chartferry audit verify", "chartferry audit verify --head 41:9f86d081… --json")
EXPORT_EXAMPLES = (
    "chartferry audit export --out audit.ndjson",
    "chartferry audit export --format json --from 2026-01-01T00:00:00Z --out -",
)
PRUNE_EXAMPLES = ("chartferry audit prune",)
STDOUT = "-"
SHOWN_FAULTS = 20
SinceOption = Annotated[
    str | None, typer.Option("--from", metavar="INSTANT", help="At or after this moment.", show_default=False)
]
UntilOption = Annotated[
    str | None, typer.Option("--to", metavar="INSTANT", help="Before this moment.", show_default=False)
]
T = TypeVar("T")


def _between(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    return (
        None if since is None else checked_instant("--from", since),
        None if until is None else checked_instant("--to", until),
    )


def _of_audit(invocation: Invocation, question: Callable[[AuditReader], Awaitable[T]]) -> T:
    settings = settings_of(invocation)
    tenant = choose_tenant(settings, invocation.tenant)
    return in_store(invocation, settings, tenant, lambda store: question(store.audit))


def audit(
    context: typer.Context,
    *,
    patient: Annotated[
        str | None, typer.Option("--patient", metavar="-|ID", help=PATIENT_HELP, show_default=False)
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
) -> int:
    """Show who saw a patient between two moments; check, export or prune the audit. The question is itself noted in the audit.

    Exit codes: 0 listed, 4 nobody, 5 failed.
    """
    if context.invoked_subcommand is not None:
        return ExitCode.COMPLETE
    if patient is None:
        raise typer.BadParameter(
            "name a patient: --patient - reads the FHIR id from stdin; or use verify, export or prune"
        )
    who = one_patient(patient, "audit takes one")
    between = _between(since, until)
    invocation = invocation_of(context)
    events = _of_audit(invocation, lambda kept: kept.who_saw(who, *between))
    code = ExitCode.COMPLETE if events else ExitCode.NOTHING
    if invocation.json:
        emit_json({"status": "complete" if events else "nothing", "reads": [read_as_json(one) for one in events]})
    elif events:
        print_table(("at", "who", "account", "from", "action", "what", "why"), map(_row, events))
    else:
        print_line("nobody has read this patient's data in that time; check the id (a FHIR id, not an MRN)")
    return code


def _row(event: ReadEvent) -> tuple[str, ...]:
    what = ", ".join(event.types) or "(no types)"
    if event.everyone:
        what = "all charts" if event.action is Action.BACKUP else "ids of all patients"
    return (
        f"{event.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        event.actor,
        event.account,
        event.origin,
        event.action.value,
        f"{', '.join(event.connections)}: {what}" if event.connections else what,
        f"BREAK-GLASS: {event.broke_glass}" if event.broke_glass else event.reason or "",
    )


def verify(
    context: typer.Context,
    *,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            metavar="N:HASH",
            help="Also check that this head, noted earlier, is still in the audit.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Check that no event of the audit was altered or deleted. Note the head that it prints in another place.

    Exit codes: 0 whole, 3 tampered with, 4 the audit is empty, 5 failed.
    """
    invocation = invocation_of(context)
    found = _of_audit(invocation, lambda kept: kept.verify(head))
    code = ExitCode.PARTIAL if found.faults else ExitCode.COMPLETE if found.seals else ExitCode.NOTHING
    if invocation.json:
        emit_json({"status": code.name.lower(), **_verified_as_json(found)})
    else:
        _print_verified(found)
    return code


def _verified_as_json(found: Verified) -> dict[str, object]:
    return {
        "seals": found.seals,
        "events": found.events,
        "unsealed": found.unsealed,
        "unused": found.unused,
        "pruned_through": found.pruned_through,
        "head": found.head,
        "faults": [{"kind": one.kind, "seal": one.seal, "event": one.event} for one in found.faults],
    }


def _print_verified(found: Verified) -> None:
    print_line(
        f"{how_many(found.events, 'event')} under {how_many(found.seals, 'seal')}, {number(found.unsealed)} not sealed yet"
    )
    if found.unused:
        print_line(f"{how_many(found.unused, 'number')} never used: reads failed or were stopped, or Postgres crashed")
    if found.pruned_through:
        print_line(f"events up to {found.pruned_through} were pruned, because their retention had ended")
    for one in found.faults[:SHOWN_FAULTS]:
        where = ", ".join(
            f"{name} {value}" for name, value in (("event", one.event), ("seal", one.seal)) if value is not None
        )
        print_message(f"tampered with: {FAULTS[one.kind]}{f' ({where})' if where else ''}")
    if len(found.faults) > SHOWN_FAULTS:
        print_message(f"… and {number(len(found.faults) - SHOWN_FAULTS)} more; --json lists all")
    if found.head:
        print_line(f"head     {found.head}")


def export(
    context: typer.Context,
    *,
    out: Annotated[
        str, typer.Option("--out", metavar="FILE|-", help="File to write; - is stdout.", show_default=False)
    ],
    format_: Annotated[
        str, typer.Option("--format", metavar="fhir|json", help="AuditEvents (IHE BALP), or plain JSON lines.")
    ] = "fhir",
    since: SinceOption = None,
    until: UntilOption = None,
) -> int:
    """Write the audit, one line per read and patient. This export is itself noted in the audit.

    Exit codes: 0 written, 4 nothing in that time, 5 failed.
    """
    if format_ not in AUDIT_FORMATS:
        raise typer.BadParameter(f"--format {format_}: one of {', '.join(AUDIT_FORMATS)}")
    invocation = invocation_of(context)
    if out == STDOUT and invocation.json:
        raise typer.BadParameter("--out - writes the lines to stdout, so leave out --json")
    if out != STDOUT:
        check_place(out)
    tenant = choose_tenant(settings_of(invocation), invocation.tenant)
    between = _between(since, until)
    lines = _of_audit(invocation, lambda kept: _export(kept, tenant, out=out, format_=format_, between=between))
    if invocation.json:
        emit_json({"status": "complete" if lines else "nothing", "out": out, "lines": lines})
    else:
        print_message(f"{'stdout' if out == STDOUT else out}: {how_many(lines, 'line')}")
    return ExitCode.COMPLETE if lines else ExitCode.NOTHING


async def _export(
    audit: AuditReader, tenant: str, *, out: str, format_: str, between: tuple[datetime | None, datetime | None]
) -> int:
    async with audit.reads(*between) as reads:
        to = sys.stdout.buffer if out == STDOUT else Path(out)
        return (await write_audit(reads, tenant, to, format_)).rows


def prune(context: typer.Context) -> int:
    """Delete what was kept longer than audit.keep_years (six by default). The chain stays whole, and notes it.

    Exit codes: 0 deleted, 4 nothing is that old, 5 failed.
    """
    invocation = invocation_of(context)
    years = settings_of(invocation).audit.keep_years
    now = datetime.now(UTC)
    before = now.replace(year=now.year - years, day=min(now.day, 28))
    count = _of_audit(invocation, lambda kept: kept.prune(before))
    if invocation.json:
        emit_json({"status": "complete" if count else "nothing", "events": count, "before": before})
    else:
        print_line(
            f"deleted {how_many(count, 'event')} older than {years} years"
            if count
            else f"no event is older than {years} years"
        )
    return ExitCode.COMPLETE if count else ExitCode.NOTHING
