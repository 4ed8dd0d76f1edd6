"""`chartferry erase`: deletes every trace of one patient but the audit's."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.exit_codes import ExitCode
from cli.in_store import in_chart
from cli.one_patient import ConnectionArgument, PatientArgument
from cli.render import emit_json, print_table, tell

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

    The audit keeps who saw the patient, and how many rows were erased. All tables are searched before it is done.

    Exit codes: 0 erased, 2 without --yes, 4 the store has nothing about this patient, 5 failed, 6 a run is in progress.
    """
    if not yes:
        raise typer.BadParameter("this deletes the patient's chart and its whole history; repeat it with --yes")
    invocation, name, erased = in_chart(
        context,
        connection,
        patient,
        lambda store, of, who: store.erase(of, who),
        command="erase",
        resume="nothing was erased",
    )
    if invocation.json:
        emit_json(
            {"status": "complete" if erased.rows else "nothing", "rows": dict(erased.rows), "shared": erased.shared}
        )
    elif not erased.rows:
        tell(f"{name}: the store has nothing about this patient; check the id (a FHIR id, not an MRN)")
    else:
        print_table(("erased from", "rows#"), [(table, str(count)) for table, count in erased.rows.items()])
        if erased.shared:
            tell(
                f"{erased.shared} of them were other patients' as well: the next full sync brings what the EHR still has"
            )
    return ExitCode.COMPLETE if erased.rows else ExitCode.NOTHING
