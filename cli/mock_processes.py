"""Mock EHRs in separate processes, for the demo: starts them together, reads their configuration, ends them with us.

Each is `chartferry mock serve --json`. It ends when our end of its stdin closes, so that even a killed demo leaves none behind.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cli.mock_connection import write_private
from config.errors import ConfigError

END_S = 10.0


@contextmanager
def mock_ehrs(
    vendors: Mapping[str, str], *, patients: int, folder: Path, faults: Mapping[str, str]
) -> Iterator[list[str]]:
    """Start a mock per vendor and yield the TOML tables of their connections.

    `vendors` maps a vendor to its connection's name, `faults` a vendor to its script.
    """
    with ExitStack() as running:
        processes = [
            running.enter_context(
                _process(_command(vendor, name, patients=patients, seed=seed, folder=folder, faults=faults.get(vendor)))
            )
            for seed, (vendor, name) in enumerate(vendors.items(), start=1)
        ]
        yield [_announced(process, vendor) for process, vendor in zip(processes, vendors, strict=True)]


def _command(vendor: str, name: str, *, patients: int, seed: int, folder: Path, faults: str | None) -> list[str]:
    command = [
        *(sys.executable, "-P", "-m", "cli.main", "mock", "serve", "--json", "--until-eof"),
        *("--vendor", vendor, "--name", name, "--patients", str(patients), "--seed", str(seed), "--keys", str(folder)),
    ]
    if faults is not None:
        script = folder / f"{name}.faults.toml"
        write_private(script, f"seed = {seed}\n{faults}")
        command += ["--faults", str(script)]
    return command


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(  # noqa: S603  our own interpreter and module, no shell
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        try:
            process.communicate(timeout=END_S)  # closes its stdin
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _announced(process: subprocess.Popen[str], vendor: str) -> str:
    line = process.stdout.readline() if process.stdout else ""
    try:
        return str(json.loads(line)["toml"])
    except (ValueError, KeyError):
        output = process.communicate()[1].strip() if process.stderr else ""
        raise ConfigError(f"the mock EHR of {vendor} did not start: {output or 'it printed nothing'}") from None
