"""`chartferry snapshots`: lists when and how a patient's chart changed; `pull --as-of` reads the chart at each of these runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from cli.acting import actor_of
from cli.exit_codes import ExitCode
from cli.invocation import (
    AsOption,
    ConfigOption,
    DebugOption,
    JsonOption,
    ReasonOption,
    TenantOption,
    invocation_of,
    settings_of,
)
from cli.one_patient import PATIENT_HELP, one_patient
from cli.render import emit_json, print_table, tell
from cli.supervise import supervise

if TYPE_CHECKING:
    from config.settings import Settings
    from snapshots.actor import Actor
    from snapshots.chart_history import ChartChange

EXAMPLES = ("chartferry snapshots mercy-epic - < patient.txt", "chartferry snapshots mercy-epic - --json < patient.txt")


def snapshots(
    context: typer.Context,
    *,
    connection: Annotated[
        str, typer.Argument(metavar="CONNECTION", help="The patient's connection.", show_default=False)
    ],
    patient: Annotated[str, typer.Argument(metavar="PATIENT", help=PATIENT_HELP, show_default=False)],
    config: ConfigOption = None,
    tenant: TenantOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
    acting_as: AsOption = None,
    reason: ReasonOption = None,
) -> int:
    """List the runs that changed one patient's chart, oldest first, with what each did.

    Exit codes: 0 listed, 4 the store has nothing about this patient, 5 failed.
    """
    from cli.choosing import choose_connections

    settings = settings_of(config)
    (chosen,) = choose_connections(settings, tenant, [connection])
    who = one_patient(patient, "snapshots takes one")
    actor = actor_of(invocation_of(context), settings, reads_charts=True)
    changes = supervise(lambda: _read(settings, chosen.tenant, actor, chosen.name, who), resume="nothing was changed")
    code = ExitCode.COMPLETE if changes else ExitCode.NOTHING
    if json:
        emit_json({"status": "complete" if changes else "nothing", "snapshots": _as_json(changes)})
    elif not changes:
        tell(f"{chosen.name}: the store has nothing about this patient; check the id (a FHIR id, not an MRN)")
    else:
        columns = ("run", "began", "type", "new#", "changed#", "deleted#")
        print_table(columns, [(one.run, f"{one.began:%Y-%m-%d %H:%M} UTC", *one[2:]) for one in changes])
        tell(f"next     `chartferry pull {chosen.name} - --stored --as-of RUN` writes the chart as it was after a run")
    return code


async def _read(settings: Settings, tenant: str, actor: Actor, connection: str, patient: str) -> list[ChartChange]:
    from cli.wiring import opened_store

    async with opened_store(settings, tenant, actor) as store:
        return await store.chart_history(connection, patient)


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
