"""`chartferry submit`: hands a published dataset over to a receiver, and prints what it refused.

`connectors.fhir.submit` sends and follows; `exports.publishing` knows what a dataset holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cli.choosing import choose_receiver
from cli.configuration import settings_of
from cli.dataset_source import dataset_at
from cli.exit_codes import ExitCode
from cli.invocation import Invocation, invocation_of
from cli.log_lines import start_logging
from cli.render import emit_json, number, print_line, print_table
from cli.supervise import supervise
from cli.wiring import submit_to
from config.how_many import how_many
from config.receivers import Receiver
from config.settings import Settings
from config.urls import is_served
from connectors.fhir.submit.submit import Submitted
from exports.chart import check_place
from exports.delivery.files import AtomicFile
from exports.publishing.dataset_state import DatasetState, read_state

EXAMPLES = (
    "chartferry submit https://data.example.org/charts/manifest.json registry",
    "chartferry submit dataset registry --manifest-url https://data.example.org/charts/manifest.json",
)

DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="The URL of a published manifest, or its folder.", show_default=False)
]
TargetArgument = Annotated[
    str,
    typer.Argument(metavar="TARGET", help="A receiver of the configuration: \\[receivers.TARGET].", show_default=False),
]
ManifestUrlOption = Annotated[
    str | None,
    typer.Option(
        "--manifest-url",
        metavar="URL",
        help="Where the receiver finds the manifest; default: DATASET, or what the dataset's own links say.",
        show_default=False,
    ),
]
FhirBaseUrlOption = Annotated[
    str | None,
    typer.Option(
        "--fhir-base-url",
        metavar="URL",
        help="The server that the resources' references are relative to; default: base_url of the dataset's connection.",
        show_default=False,
    ),
]
OutcomesOption = Annotated[
    Path | None,
    typer.Option(
        "--outcomes",
        metavar="FILE",
        help="Keep the receiver's outcomes as NDJSON. They may contain patient data.",
        show_default=False,
    ),
]


def submit(
    context: typer.Context,
    *,
    dataset: DatasetArgument,
    target: TargetArgument,
    manifest_url: ManifestUrlOption = None,
    fhir_base_url: FhirBaseUrlOption = None,
    outcomes: OutcomesOption = None,
) -> int:
    """Submit a published dataset to a receiver ($bulk-submit), follow it, and count what was refused.

    If the receiver already has the submission, the same command follows it, and sends nothing twice.

    Exit codes: 0 the receiver took everything, 3 it refused some, 5 failed, 2 usage or configuration.
    """
    invocation = invocation_of(context)
    settings = settings_of(invocation)
    receiver = choose_receiver(settings, invocation.tenant, target)
    if outcomes is not None:
        check_place(str(outcomes))
    state = read_state(*dataset_at(dataset))
    served_at = manifest_url or (dataset if is_served(dataset) else state.manifest_url)
    if served_at is None:
        raise typer.BadParameter(
            f"the receiver cannot read {dataset}: name where it is served, with --manifest-url https://…/manifest.json"
        )
    base_url = fhir_base_url or _base_url(settings, receiver, state)
    for name, url in (("--manifest-url", served_at), ("--fhir-base-url", base_url)):
        if not is_served(url):
            raise typer.BadParameter(f"{name} takes an absolute http or https URL")
    start_logging(invocation)
    with _kept(outcomes) as keep:
        done = supervise(
            lambda: submit_to(
                receiver,
                manifest_url=served_at,
                fhir_base_url=base_url,
                state=state.checksum,
                on_progress=_progress(invocation, receiver),
                keep=keep,
            ),
            resume="the receiver continues; run the same command again to follow it",
        )
    return _show(done, state, receiver, json=invocation.json)


def _base_url(settings: Settings, receiver: Receiver, state: DatasetState) -> str:
    connection = settings.connections.get(state.connection or "")
    if connection is None:
        raise typer.BadParameter("the configuration has no connection for this dataset: add --fhir-base-url URL")
    if connection.tenant != receiver.tenant:
        raise typer.BadParameter(
            f"tenants' data never mix: the dataset is of tenant {connection.tenant}, the receiver of {receiver.tenant}"
        )
    return connection.base_url


@contextmanager
def _kept(path: Path | None) -> Iterator[Callable[[bytes], None]]:
    """Keep lines in a file that appears when all are there; without a path, keep none."""
    if path is None:
        yield lambda _: None
        return
    lines = 0
    with AtomicFile(path, compress="no") as file:

        def keep(line: bytes) -> None:
            nonlocal lines
            lines += 1
            file.write(line + b"\n")

        yield keep
        file.commit(kind="document", rows=lines)


def _progress(invocation: Invocation, receiver: Receiver) -> Callable[[str], None]:
    """Print each state once."""
    states: list[str] = []

    def show(state: str) -> None:
        if not invocation.json and states[-1:] != [state]:
            states.append(state)
            print_line(f"{receiver.name}: {state}")

    return show


def _show(done: Submitted, state: DatasetState, receiver: Receiver, *, json: bool) -> int:
    issues = sorted(done.issues.items())
    if json:
        emit_json(
            {
                "status": "complete" if done.is_whole else "partial",
                "receiver": receiver.name,
                "submission": done.id,
                "sent": done.sent,
                "resources": state.resources,
                "deletions": state.deletions,
                "refused": done.refused,
                "unread": done.unread,
                "issues": [{"severity": issue.severity, "code": issue.code, "count": count} for issue, count in issues],
            }
        )
        return ExitCode.COMPLETE if done.is_whole else ExitCode.PARTIAL
    if issues:
        print_table(("severity", "code", "issues#"), [(*issue, number(count)) for issue, count in issues])
    if done.unread:
        print_line(f"{how_many(done.unread, 'outcome')} missing or unreadable: they may be refusals")
    verb = "submitted" if done.sent else "nothing was sent again: submitted before,"
    ended = "the receiver took everything" if done.is_whole else f"the receiver refused {number(done.refused)}"
    print_line(
        f"{receiver.name}: {verb} {how_many(state.resources, 'resource')} and "
        f"{how_many(state.deletions, 'deletion')} as of "
        f"{state.transaction_time} (submission {done.id}); {ended}"
    )
    return ExitCode.COMPLETE if done.is_whole else ExitCode.PARTIAL
