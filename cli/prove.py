"""`chartferry prove`: ask the EHR what it has and compare that with the store; a table or one JSON object, and exit 0 or 3.

`connectors.fhir.prove.prove` decides what to ask and judges the answers.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cli.acting import actor_of
from cli.certificate import print_certificate
from cli.choosing import choose_connections
from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.in_store import import_connectors, opened_store
from cli.invocation import invocation_of
from cli.log_lines import start_logging
from cli.progress import run_progress
from cli.render import certificate_as_json, emit_json
from cli.run_options import RunOptions
from cli.supervise import supervise
from cli.type_words import OnlyTypesOption, checked_types
from snapshots.proof import Certificate

EXAMPLES = (
    "chartferry prove mercy-epic",
    "chartferry prove mercy-epic --sample 100 --seed 7 --json",
    "chartferry prove mercy-epic --all --types Patient,Observation",
)
DEFAULT_SAMPLE = 20
_CODES = {
    "equal": ExitCode.COMPLETE,
    "more": ExitCode.COMPLETE,
    "fewer": ExitCode.PARTIAL,
    "unanswered": ExitCode.PARTIAL,
    "not asked": ExitCode.NOTHING,
}


ConnectionArgument = Annotated[
    str, typer.Argument(metavar="CONNECTION", help="The connection whose last sync to check.", show_default=False)
]
SampleOption = Annotated[
    int | None,
    typer.Option(
        "--sample", metavar="N", min=1, help=f"Ask about N patients; default: {DEFAULT_SAMPLE}.", show_default=False
    ),
]
EveryoneOption = Annotated[bool, typer.Option("--all", help="Ask about every patient, and show every type.")]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", help="Seed of the sample; default: the run's number.", show_default=False),
]


def prove(
    context: typer.Context,
    *,
    connection: ConnectionArgument,
    sample: SampleOption = None,
    everyone: EveryoneOption = False,
    seed: SeedOption = None,
    types: OnlyTypesOption = None,
) -> int:
    """After a sync, compare what the EHR has with what the store holds, patient by patient and type by type.

    Exit codes: 0 nothing is missing, 3 the store holds fewer than the EHR (or the EHR did not answer), 4 nothing could be
    compared, 5 failed, 6 a sync is in progress, 2 usage or configuration.
    """
    if everyone and sample is not None:
        raise typer.BadParameter("--all asks about every patient, --sample about some: give one of them")
    invocation = invocation_of(context)
    settings = settings_of(invocation)
    chosen = choose_connections(settings, invocation.tenant, [connection])[0]
    size = None if everyone else sample or DEFAULT_SAMPLE
    actor = actor_of(invocation, settings, reads_charts=True)
    options = RunOptions(types=checked_types(types))
    with run_progress(terminal=invocation.terminal) as show:

        async def proved() -> Certificate:
            start_logging(invocation)
            async with opened_store(settings, chosen.tenant, actor, meanwhile=import_connectors) as store:
                from cli.wiring import prove_connection  # noqa: PLC0415  was imported while the store opened

                return await prove_connection(chosen, store, options, show, sample=size, seed=seed)

        certificate = supervise(proved, resume="nothing was changed: run the same command again")
    if invocation.json:
        emit_json({"status": certificate.verdict, "certificate": certificate_as_json(certificate)})
    else:
        print_certificate(certificate, every=everyone)
    return code_of(certificate)


def code_of(certificate: Certificate) -> ExitCode:
    """Return the exit code of a proof: 3 if something is missing, else 6 if it stopped for a sync."""
    code = _CODES[certificate.verdict]
    return ExitCode.BUSY if certificate.gave_way and code != ExitCode.PARTIAL else code
