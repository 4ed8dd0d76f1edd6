"""`chartferry snapshots`: lists when and how a patient's chart changed; `pull --as-of` reads the chart at each of these runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import typer

from cli.exit_codes import ExitCode
from cli.in_store import in_chart
from cli.one_patient import ConnectionArgument, PatientArgument
from cli.render import emit_json, print_line, print_table
from snapshots.chart_history import ChartChange

EXAMPLES = ("chartferry snapshots mercy-epic - < patient.txt", "chartferry snapshots mercy-epic - --json < patient.txt")


def snapshots(
    context: typer.Context,
    *,
    connection: ConnectionArgument,
    patient: PatientArgument,
) -> int:
    """List the runs that changed one patient's chart, oldest first, with what each did.

    Exit codes: 0 listed, 4 the store has nothing about this patient, 5 failed.
    """
    invocation, name, history = in_chart(
        context,
        connection,
        patient,
        lambda store, of, who: store.chart_history(of, who),
        command="snapshots",
        resume="nothing was changed",
    )
    changes = history.changes
    code = ExitCode.COMPLETE if changes else ExitCode.NOTHING
    if invocation.json:
        emit_json(
            {
                "status": "complete" if changes else "nothing",
                "snapshots": _as_json(changes),
                "kept_from": history.kept_from,
            }
        )
    elif not changes:
        kept = "" if history.kept_from is None else f", or nothing has changed since run {history.kept_from}"
        print_line(f"{name}: the store has nothing about this patient{kept}; check the id (a FHIR id, not an MRN)")
    else:
        columns = ("run", "began", "type", "new#", "changed#", "deleted#")
        print_table(columns, [(one.run, f"{one.began:%Y-%m-%d %H:%M} UTC", *one[2:]) for one in changes])
        if history.kept_from is not None:
            print_line(f"note     what runs before {history.kept_from} changed was pruned")
        print_line(f"next     `chartferry pull {name} - --stored --as-of RUN` writes the chart as it was after a run")
    return code


def _as_json(changes: Sequence[ChartChange]) -> list[dict[str, object]]:
    return [
        {
            "run": run,
            "began": began,
            "types": {
                one.resource_type: {"new": one.new, "changed": one.changed, "deleted": one.deleted} for one in some
            },
        }
        for (run, began), some in groupby(changes, lambda one: (one.run, one.began))
    ]
