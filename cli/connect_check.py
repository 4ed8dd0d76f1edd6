"""`chartferry config check --connect`: checks the store, then each connection's EHR, step by step.

`snapshots.inquiry` and `connectors.fhir.inquiry` do the steps; `config_check` checks the file alone.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cli.exit_codes import explain
from cli.wiring import inquire_connection
from config.connections import Connection
from config.errors import Problem
from config.settings import Settings
from connectors.fhir.auth.assertion import load_signing_key
from connectors.fhir.vendors import profile_for
from snapshots.inquiry import inquire_store


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The result of one step; as JSON, its keys are a contract."""

    where: str  # "store", or a connection's name
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
    for step in await inquire_store(settings.store_url, tenants):
        yield Checked(where="store", step=step.name, verdict=step.verdict, found=step.found, advice=step.advice)


async def check_connection(connection: Connection, problems: Sequence[Problem]) -> AsyncIterator[Checked]:
    """Yield the results of one connection's steps; if the file has a problem with it, contact nothing. Raises nothing."""
    name = connection.name
    for one in problems:
        yield Checked(where=name, step="config", verdict="fail", found=f"{one.path}: {one.found}", advice=one.allowed)
    if problems:
        return
    try:
        if connection.auth == "smart":
            yield Checked(where=name, step="key", verdict="ok", found=_key(connection))
        async for step in inquire_connection(connection):
            yield Checked(where=name, step=step.name, verdict=step.verdict, found=step.found, advice=step.advice)
    except Exception as exc:  # noqa: BLE001  ends here: the other connections are checked anyway
        yield Checked(where=name, step="asking", verdict="fail", found=explain(exc)[1])


def _key(connection: Connection) -> str:
    secret = connection.secrets["key"].read(os.environ).reveal()
    profile = profile_for(connection.vendor, connection.profile)
    key = load_signing_key(secret, profile, kid=connection.kid, alg=connection.alg)
    return f"signs {key.alg}, {'no kid' if key.kid is None else f'kid {key.kid}'}"


async def check_all(
    settings: Settings, connections: Sequence[Connection], problems: Mapping[str, Sequence[Problem]], *, store: bool
) -> AsyncIterator[Checked]:
    """Yield all steps of the store (unless its URL itself is a problem), then of each connection."""
    if store:
        async for checked in check_store(settings, connections):
            yield checked
    for connection in connections:
        async for checked in check_connection(connection, problems.get(connection.name, ())):
            yield checked
