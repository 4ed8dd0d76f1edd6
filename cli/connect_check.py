"""`chartferry config check --connect`: checks the store, then each connection's EHR and each receiver, step by step.

`snapshots.inquiry` and `connectors.fhir.inquiry` do the steps; `config_check` checks only the file.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cli.exit_codes import explain
from cli.in_store import keyring_of
from cli.wiring import inquire_connection, inquire_receiver_of
from config.connections import Connection
from config.errors import Problem
from config.fhir_server import FhirServer
from config.receivers import Receiver
from config.settings import Settings
from connectors.fhir.auth.assertion import load_signing_key
from connectors.fhir.vendors import profile_for
from snapshots.inquiry import inquire_store


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The result of one step; as JSON, its keys are a contract."""

    where: str  # "store", a connection's name, or "receivers." and a receiver's
    step: str
    verdict: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""

    def line(self) -> str:
        """Format it for people."""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.verdict:6}{self.where:18}{self.step:11}{self.found}{advice}"


async def check_store(settings: Settings, connections: Sequence[Connection]) -> AsyncIterator[Checked]:
    """Yield the results of the store's steps."""
    tenants = sorted({each.tenant for each in connections}) or ["default"]
    for step in await inquire_store(settings.store_url, tenants, keyring_of(settings)):
        yield Checked(where="store", step=step.name, verdict=step.verdict, found=step.found, advice=step.advice)


async def check_server(server: Connection | Receiver, problems: Sequence[Problem]) -> AsyncIterator[Checked]:
    """Yield the results of one server's steps; if the file has a problem with it, contact nothing. Raises nothing."""
    name = server.name if isinstance(server, Connection) else server.path
    for one in problems:
        yield Checked(where=name, step="config", verdict="fail", found=f"{one.path}: {one.found}", advice=one.allowed)
    if problems:
        return
    try:
        if server.auth == "smart":
            yield Checked(where=name, step="key", verdict="ok", found=_key(server))
        steps = inquire_connection(server) if isinstance(server, Connection) else inquire_receiver_of(server)
        async for step in steps:
            yield Checked(where=name, step=step.name, verdict=step.verdict, found=step.found, advice=step.advice)
    except Exception as exc:  # noqa: BLE001  ends here: the other servers are checked anyway
        yield Checked(where=name, step="asking", verdict="fail", found=explain(exc)[1])


def _key(server: FhirServer) -> str:
    secret = server.secrets["key"].read(os.environ).reveal()
    profile = profile_for(server.profile_name, server.profile)
    key = load_signing_key(secret, profile, kid=server.kid, alg=server.alg)
    return f"signs {key.alg}, {'no kid' if key.kid is None else f'kid {key.kid}'}"


async def check_all(
    settings: Settings,
    connections: Sequence[Connection],
    receivers: Sequence[Receiver],
    problems: Mapping[str, Sequence[Problem]],
    *,
    store: bool,
) -> AsyncIterator[Checked]:
    """Yield all steps of the store (unless its URL or its keys are a problem), then of each connection and receiver.

    `problems` are those of the file, by the path of the server's table.
    """
    if store:
        async for checked in check_store(settings, connections):
            yield checked
    servers: list[Connection | Receiver] = [*connections, *receivers]
    for server in servers:
        async for checked in check_server(server, problems.get(server.path, ())):
            yield checked
