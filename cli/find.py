"""`chartferry find`: which patients of a connection have an identifier, a social security number, or a name and birth date."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.choosing import choose_connections
from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.in_store import in_store
from cli.invocation import invocation_of
from cli.one_patient import STDIN
from cli.render import emit_json, print_line, print_message
from config.how_many import how_many
from snapshots.patient_terms import Term, TermError, identifier_term, name_term, ssn_term

EXAMPLES = (
    "chartferry find mercy-epic --mrn - < mrn.txt",
    "chartferry find mercy-epic --ssn - < ssn.txt",
    "chartferry find mercy-epic --name - --birth-date - < name-and-date.txt",
)
_UNSEEN = "- reads a line of stdin; other users of this machine can see what is written here."


def find(
    context: typer.Context,
    *,
    connection: Annotated[
        str, typer.Argument(metavar="CONNECTION", help="The connection to look in.", show_default=False)
    ],
    mrn: Annotated[
        str | None,
        typer.Option(
            "--mrn", metavar="-|SYSTEM|VALUE", help=f"Any identifier of a Patient. {_UNSEEN}", show_default=False
        ),
    ] = None,
    ssn: Annotated[
        str | None,
        typer.Option("--ssn", metavar="-|VALUE", help="A US social security number; - as --mrn.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="-|FAMILY[,GIVEN]", help="A name, with --birth-date; - as --mrn.", show_default=False
        ),
    ] = None,
    birth_date: Annotated[
        str | None,
        typer.Option(
            "--birth-date", metavar="-|YYYY-MM-DD", help="A birth date; -: the line after the name.", show_default=False
        ),
    ] = None,
) -> int:
    """List the ids of a connection's patients who have exactly this identifier, number, or name and birth date.

    Exit codes: 0 found, 4 nobody has it, or the connection was never synced, 5 failed.
    """
    term = _term(mrn, ssn, name, birth_date)
    invocation = invocation_of(context)
    settings = settings_of(invocation)
    (chosen,) = choose_connections(settings, invocation.tenant, [connection])
    found = in_store(
        invocation,
        settings,
        chosen.tenant,
        lambda store: store.find(chosen.name, term),
        reads_charts=True,
        resume="nothing was changed",
    )
    if invocation.json:
        never = {"never_synced": True} if found is None else {}
        emit_json(
            {"status": "complete" if found else "nothing", "count": len(found or ()), "patients": found or [], **never}
        )
    elif found is None:
        print_message(f"{chosen.name} was never synced, so it has no patients yet: `chartferry sync {chosen.name}`")
    else:
        for one in found:
            print_line(one)
        print_message(f"{chosen.name}: {how_many(len(found), 'patient')}")
    return ExitCode.COMPLETE if found else ExitCode.NOTHING


def _term(mrn: str | None, ssn: str | None, name: str | None, birth_date: str | None) -> Term:
    """Return what is searched for; a usage error says what is expected, and quotes nothing."""
    if sum(one is not None for one in (mrn, ssn, name)) != 1:
        raise typer.BadParameter("give exactly one of --mrn, --ssn, or --name with --birth-date")
    if (name is None) != (birth_date is None):
        raise typer.BadParameter("--name and --birth-date must be given together")
    try:
        if mrn is not None:
            system, bar, value = _unseen(mrn, "the identifier, SYSTEM|VALUE").rpartition("|")
            return identifier_term(system, value if bar else "")
        if ssn is not None:
            return ssn_term(_unseen(ssn, "the social security number"))
        family, _, given = _unseen(name or "", "the name, FAMILY or FAMILY,GIVEN").partition(",")
        return name_term(family, given.strip() or None, _unseen(birth_date or "", "the birth date, YYYY-MM-DD"))
    except TermError as error:
        raise typer.BadParameter(str(error)) from None


def _unseen(word: str, what: str) -> str:
    """Return a word, or the next line of stdin for "-". Raises TermError for what is not UTF-8, and so would match nobody."""
    try:
        if word == STDIN:
            if sys.stdin.isatty():
                print_message(f"Type {what}, then press Enter:")
            word = sys.stdin.readline().strip()
        word.encode()  # what Python could not decode is a surrogate
    except UnicodeError:
        raise TermError(f"{what.partition(',')[0]} is not UTF-8") from None
    return word
