"""`chartferry mock serve`: a mock EHR on a real socket, and the configuration that connects to it.

Prints the configuration on stdout (TOML, or one JSON object), so that it can be written to a file, then serves until it is
interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cli.exit_codes import ExitCode
from cli.invocation import invocation_of
from cli.mock_connection import MockConnection, connection_to, mock_jwks
from cli.render import emit_json, print_line, print_message
from config.how_many import how_many
from mocks.faults import read_script
from mocks.manners import MANNERS
from mocks.mock_config import MockConfig
from mocks.serving import Served, run_forever
from mocks.web_server import ServingError

EXAMPLES = (
    "chartferry mock serve --vendor epic --port 8001 > chartferry.toml",
    "chartferry mock serve --vendor cerner --data synthea/ --faults faults.toml",
    "chartferry mock serve --vendor generic --patients 200 --open",
)
LOCAL = "127.0.0.1"
MS = 1000


VendorOption = Annotated[str, typer.Option("--vendor", metavar="VENDOR", help="Vendor to imitate.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="NDJSON(.gz) files by type; default: synthetic.", show_default=False),
]
PatientsOption = Annotated[int, typer.Option("--patients", metavar="N", min=1, help="Number of synthetic patients.")]
SeedOption = Annotated[
    int, typer.Option("--seed", metavar="N", help="Seed of the synthetic patients: same seed, same patients.")
]
FaultsOption = Annotated[
    Path | None, typer.Option("--faults", metavar="FILE", help="Scripted faults, TOML or JSON.", show_default=False)
]
PortOption = Annotated[
    int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port to listen on; 0: any free port.")
]
HostOption = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")]
OpenOption = Annotated[bool, typer.Option("--open", help="Accept requests without a token.")]
LatencyMsOption = Annotated[int, typer.Option("--latency-ms", metavar="N", min=0, help="Delay of every answer.")]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="Name of the printed connection; default: mock-VENDOR.", show_default=False
    ),
]
KeysOption = Annotated[Path, typer.Option("--keys", metavar="DIR", help="Folder for the key and cohort files.")]
UntilEofOption = Annotated[bool, typer.Option("--until-eof", hidden=True, help="Stop when stdin is closed.")]


def serve(
    context: typer.Context,
    *,
    vendor: VendorOption,
    data: DataOption = None,
    patients: PatientsOption = 20,
    seed: SeedOption = 1,
    faults: FaultsOption = None,
    port: PortOption = 0,
    host: HostOption = LOCAL,
    open_: OpenOption = False,
    latency_ms: LatencyMsOption = 0,
    name: NameOption = None,
    keys: KeysOption = Path("mock-keys"),
    until_eof: UntilEofOption = False,
) -> int:
    """Serve a mock EHR that imitates a vendor, until interrupted; prints the connection to it."""
    invocation = invocation_of(context)
    if vendor not in MANNERS:
        raise typer.BadParameter(f"--vendor {vendor}: one of {', '.join(MANNERS)}")
    if data is not None and not data.is_dir():
        raise typer.BadParameter(f"--data {data}: not a folder; name a folder of NDJSON(.gz) files by type")

    folder = keys.resolve()
    called = name or f"mock-{vendor}"
    key = None if open_ else folder / f"{called}.jwk.json"
    jwks = None if key is None else mock_jwks(key, vendor)
    mock = MockConfig(
        vendor=vendor,  # type: ignore[arg-type]  # checked against the same names above
        data=data,
        patients=patients,
        seed=seed,
        open=open_,
        jwks=jwks,
        latency_s=latency_ms / MS,
    )
    mock = mock if faults is None else _with_faults(mock, faults)

    def announce(served: Served) -> None:
        connection = connection_to(served, name=called, key=key, folder=folder, tenant=invocation.tenant)
        show_served(served, connection, json=invocation.json)

    if until_eof:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        run_forever(mock, host, port, announce)
    except ServingError as exc:
        raise typer.BadParameter(str(exc)) from exc
    return ExitCode.COMPLETE


def show_served(served: Served, connection: MockConnection, *, json: bool) -> None:
    """Print the connection to a mock that is being served: TOML, or one JSON object."""
    if json:
        found = {
            "connection": connection.name, "vendor": served.vendor, "base_url": served.base_url,
            "token_url": served.token_url, "audience": served.audience, "client_id": connection.client_id,
            "key": connection.key, "groups": served.group_ids, "patients": len(served.patient_ids),
            "cohort": connection.cohort, "toml": connection.toml(),
        }  # fmt: skip
        emit_json(found)
    else:
        print_line(connection.toml())
    print_message(
        f"# {served.vendor} mock at {served.base_url}, {how_many(len(served.patient_ids), 'patient')}; press Ctrl-C to stop"
    )


def _end_with_stdin() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)


def _with_faults(mock: MockConfig, faults: Path) -> MockConfig:
    """Return the mock with a fault script, whose seed leaves the patients as they are."""
    script = read_script(faults)
    return replace(mock, fault_seed=script.seed, faults=script.rules)
