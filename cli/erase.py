"""`chartferry erase`: deletes every trace of one patient but the audit's."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.exit_codes import ExitCode
from cli.in_store import in_chart
from cli.one_patient import ConnectionArgument, PatientArgument
from cli.render import emit_json, print_line, print_message, print_table
from config.how_many import how_many
from snapshots.erasure import Erased

_NAMED = 20  # of what cannot be decrypted; --json names all
_CODES = {"partial": ExitCode.PARTIAL, "complete": ExitCode.COMPLETE, "nothing": ExitCode.NOTHING}
EXAMPLES = ("chartferry erase mercy-epic - --yes --reason 'request 17' < patient.txt",)


def erase(
    context: typer.Context,
    *,
    connection: ConnectionArgument,
    patient: PatientArgument,
    yes: Annotated[
        bool, typer.Option("--yes", help="Confirm: only a backup or a sync can bring the chart back.")
    ] = False,
) -> int:
    """Delete every version of a patient's chart, with attachments, quarantined lines and whatever refers to the patient.

    The audit keeps who saw the patient, and how many rows were erased. All tables are searched before it commits.

    Exit codes: 0 erased, 2 without --yes, 3 some values could not be searched or views not refreshed, 4 nothing is stored,
    5 failed, 6 a run is in progress.
    """
    if not yes:
        raise typer.BadParameter("this deletes the patient's chart and its whole history; repeat it with --yes")
    invocation, name, erased = in_chart(
        context,
        connection,
        patient,
        lambda store, of, who: store.erase(of, who),
        command="erase",
        resume="the chart was erased whole, or not at all: run the same command again, which ends what is left to do",
    )
    status = (
        "partial"
        if erased.unread or erased.views or not erased.copies_known
        else "complete"
        if erased.rows
        else "nothing"
    )
    if invocation.json:
        facts = {
            "rows": dict(erased.rows),
            "shared": erased.shared,
            "unread": list(erased.unread),
            "views": list(erased.views),
            "copies_known": erased.copies_known,
            "resampled": erased.resampled,
        }
        emit_json({"status": status, **facts})
    else:
        _print(name, erased)
    return _CODES[status]


def _print(name: str, erased: Erased) -> None:
    if erased.rows:
        print_table(("erased from", "rows#"), [(table, str(count)) for table, count in erased.rows.items()])
    else:
        print_line(f"{name}: the store has nothing about this patient; check the id (a FHIR id, not an MRN)")
    if erased.rows:
        print_line("exports, datasets and warehouses made before still have the chart: export and load them again")
    if erased.rows and not erased.resampled:
        print_line(
            "the planner's samples (pg_stats) may have values of the chart until the tables' owner runs ANALYZE on the schema"
        )
    if not erased.copies_known:
        print_line(
            "after that the store could not be reached: materialised views may still have the chart. Run the same command again"
        )
    if erased.views:
        print_line(
            f"materialised views could not be refreshed, and may still have the chart: {', '.join(erased.views)}. Run "
            "`chartferry views refresh` as their owner"
        )
    if erased.shared:
        print_line(
            f"{erased.shared} of them also belonged to other patients: the next sync fetches what the EHR still has"
        )
    if erased.unread:
        print_line(
            f"not shown to be complete: {how_many(len(erased.unread), 'value')} cannot be decrypted, so nobody can tell "
            "whether the patient is named there. Restore the rows from a backup, or add the key, and erase again:"
        )
        for place in erased.unread[:_NAMED]:
            print_message(f"  {place}")
