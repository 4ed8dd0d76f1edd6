"""`chartferry diff`: lists what differs between two runs of a connection, by patient, type and element."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from cli.choosing import choose_connections
from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.in_store import in_store
from cli.invocation import invocation_of
from cli.one_patient import PATIENT_HELP, one_patient
from cli.render import printable
from cli.type_words import OnlyTypesOption, checked_types
from exports.chart_differences import CHANGES, Counts, Difference, deliver_differences
from snapshots.audit_event import Action
from snapshots.selection import Selection
from snapshots.store import Store

EXAMPLES = (
    "chartferry diff mercy-epic 41 42",
    "chartferry diff mercy-epic 41 42 --patient - --values < patient.txt",
    "chartferry diff mercy-epic 41 42 --types Condition --json",
)
MASK = "***"


def diff(
    context: typer.Context,
    *,
    connection: Annotated[
        str, typer.Argument(metavar="CONNECTION", help="The connection whose runs to compare.", show_default=False)
    ],
    earlier: Annotated[int, typer.Argument(metavar="RUN", help="The earlier run.", show_default=False)],
    later: Annotated[int, typer.Argument(metavar="RUN", help="The later run.", show_default=False)],
    patient: Annotated[
        str | None, typer.Option("--patient", metavar="-|ID", help=PATIENT_HELP, show_default=False)
    ] = None,
    types: OnlyTypesOption = None,
    values: Annotated[
        bool, typer.Option("--values", help="Also show old and new values; default: only where they differ.")
    ] = False,
) -> int:
    """List what was added, changed and deleted between the ends of two runs; for changes, the JSON pointers of what changed.

    Exit codes: 0 listed, 4 nothing differs, 2 there is no such run, 5 failed.
    """
    invocation = invocation_of(context)
    settings = settings_of(invocation)
    (chosen,) = choose_connections(settings, invocation.tenant, [connection])
    selection = Selection(
        connections=(chosen.name,),
        patients=None if patient is None else (one_patient(patient, "diff takes one"),),
        types=checked_types(types),
        as_of=later,
        changed_since=earlier,
    )
    form = _AsJson(chosen.name, earlier, later, values=values) if invocation.json else _AsText(values=values)
    counts = in_store(
        invocation,
        settings,
        chosen.tenant,
        lambda store: _delivered(store, selection, form),
        reads_charts=True,
        resume="nothing was changed",
    )
    return ExitCode.COMPLETE if counts else ExitCode.NOTHING


async def _delivered(store: Store, selection: Selection, form: _AsText | _AsJson) -> Counts:
    async with store.snapshot(selection, Action.DIFF) as snapshot:
        return await deliver_differences(snapshot, sys.stdout.buffer, form)


class _AsText:
    """For people: by patient, one line a resource, and below it one an element."""

    def __init__(self, *, values: bool) -> None:
        self._values = values
        self._patient: tuple[str | None] | None = None  # of the lines so far

    def head(self) -> bytes:
        return b""

    def line(self, difference: Difference) -> bytes:
        lines = []
        if self._patient != (difference.patient,):
            self._patient = (difference.patient,)
            lines.append("of no patient" if difference.patient is None else f"patient {difference.patient}")
        lines.append(f"  {difference.change:9}{difference.resource_type}/{difference.id}")
        for one in difference.elements:
            old, new = (None if value is None else self._shown(value) for value in (one.old, one.new))
            change = f"added {new}" if old is None else f"deleted {old}" if new is None else f"{old} -> {new}"
            lines.append(f"           {one.pointer or 'the whole resource'}: {change}")
        return "".join(f"{printable(line)}\n" for line in lines).encode()

    def _shown(self, value: bytes) -> str:
        return value.decode() if self._values else MASK

    def tail(self, counts: Counts) -> bytes:
        if not counts:
            return b"nothing differs\n"
        lines = [
            f"{resource_type}: " + ", ".join(f"{of[change]:,} {change}" for change in CHANGES if of[change])
            for resource_type, of in sorted(counts.items())
        ]
        return ("\n" + "".join(f"{line}\n" for line in lines)).encode()


class _AsJson:
    """For programs: one object, in one line; `old` and `new` only with `--values`, and where there is a value."""

    def __init__(self, connection: str, earlier: int, later: int, *, values: bool) -> None:
        self._head = {"connection": connection, "from": earlier, "to": later}
        self._values = values
        self._due = ""

    def head(self) -> bytes:
        return (json.dumps(self._head)[:-1] + ', "differences": [').encode()

    def line(self, difference: Difference) -> bytes:
        elements = []
        for one in difference.elements:
            change = "added" if one.old is None else "deleted" if one.new is None else "changed"
            members = [f'"pointer": {json.dumps(one.pointer)}, "change": "{change}"']
            if self._values:
                members += [
                    f'"{name}": {value.decode()}' for name, value in (("old", one.old), ("new", one.new)) if value
                ]
            elements.append("{" + ", ".join(members) + "}")
        whole = {
            "type": difference.resource_type,
            "id": difference.id,
            "patient": difference.patient,
            "change": difference.change,
        }
        due, self._due = self._due, ", "
        return f'{due}{json.dumps(whole)[:-1]}, "elements": [{", ".join(elements)}]}}'.encode()

    def tail(self, counts: Counts) -> bytes:
        facts = {"counts": counts, "status": "complete" if counts else "nothing"}
        return f"], {json.dumps(facts)[1:]}\n".encode()
