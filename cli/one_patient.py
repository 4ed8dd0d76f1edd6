"""One patient, named on the command line or, unseen by others, on stdin."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.patient_file import read_patients
from cli.render import print_message

STDIN = "-"
PATIENT_HELP = "- reads the FHIR id (VA: ICN) from stdin; other users of this machine can see an id written here."
ConnectionArgument = Annotated[
    str, typer.Argument(metavar="CONNECTION", help="The patient's connection.", show_default=False)
]
PatientArgument = Annotated[str, typer.Argument(metavar="PATIENT", help=PATIENT_HELP, show_default=False)]


def one_patient(word: str, takes_one: str) -> str:
    """Return the patient's id; raise a usage error if nobody is named; if stdin names several, it ends in `takes_one`."""
    if word != STDIN:
        return _named(word)
    if sys.stdin.isatty():
        print_message("Type the patient's FHIR id (VA: ICN), then press Enter:")
        return _named(sys.stdin.readline())
    patients = tuple(read_patients(STDIN))
    if len(patients) != 1:
        raise typer.BadParameter(f"stdin names {len(patients)} patients; {takes_one}")
    return patients[0]


def _named(text: str) -> str:
    """An empty id, as of an unset shell variable, must not reach an EHR: many answer `patient=` with everybody's rows."""
    found = text.strip().removeprefix("Patient/")
    if not found:
        raise typer.BadParameter("no patient is named: the id is empty")
    return found
