"""`chartferry verify`: checks a published dataset, in a folder or on a server, as its followers would read it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from cli.dataset_source import dataset_at
from cli.exit_codes import ExitCode
from cli.invocation import invocation_of
from cli.render import emit_json, print_line, print_message
from config.how_many import how_many
from exports.publishing.verification import verify as verify_dataset

EXAMPLES = ("chartferry verify dataset", "chartferry verify https://data.example.org/charts/manifest.json")


def verify(
    context: typer.Context,
    where: Annotated[str, typer.Argument(metavar="DIR|URL", help="A folder, or the URL of a manifest.")],
) -> int:
    """Follow a Bulk Publish dataset from its root to its end: links, counts, checksums, every line of every file.

    It may be in a folder, at another destination (s3://…), or on a web server.

    Exit codes: 0 it can be followed, 3 something in it is wrong, 5 it cannot be read.
    """
    found = verify_dataset(*dataset_at(where))
    if invocation_of(context).json:
        emit_json({"status": "partial" if found.problems else "complete", **asdict(found)})
    else:
        for problem in found.problems:
            print_message(problem)
        ending = {"#pending": "open for the next increment", "#closed": "closed"}.get(
            found.ends or "", "without increments"
        )
        print_line(
            f"{how_many(found.pages, 'page')}, {how_many(found.files, 'file')}, {how_many(found.written, 'resource')}, "
            f"{how_many(found.deleted, 'deletion')}; as of {found.transaction_time}, {ending}"
        )
        print_line(how_many(len(found.problems), "problem") if found.problems else "the dataset can be followed")
    return ExitCode.PARTIAL if found.problems else ExitCode.COMPLETE
