"""Whole runs of one connection, as the command makes them: client, login, sync, on a clock that passes only by waiting."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from config.connections import Connection
from connectors.fhir.auth.credentials import Credentials
from connectors.fhir.auth.login import log_in
from connectors.fhir.run import CohortSource, SyncRequest
from connectors.fhir.sync import sync
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.vendors import profile_for
from mocks.serving import Served
from snapshots.report import RunReport
from tests.integration.connectors.kept_rows import KeptRows
from tests.profiles import grouped
from tests.user_site import key_pair


@dataclass
class Clock:
    """Time that passes only when somebody waits; `waits` are its seconds."""

    moment: datetime = field(default_factory=lambda: datetime.now(UTC))
    waits: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.moment

    def seconds(self) -> float:
        return self.moment.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.moment += timedelta(seconds=seconds)
        await anyio.sleep(0.01 if seconds else 0)  # the others' turn


def signing(vendor: str, client_id: str, scopes: tuple[str, ...] = ()) -> Credentials:
    """The login of a client whose key the vendor's mock knows."""
    return Credentials(auth="smart", client_id=client_id, key=json.dumps(key_pair(vendor).private), scopes=scopes)


async def whole_run(
    request: SyncRequest,
    login: Credentials,
    store: KeptRows,
    clock: Clock,
    *,
    before_wait: Callable[[EhrClient], None] = lambda client: None,
    on_progress: Callable[[Any], None] = lambda progress: None,
) -> RunReport:
    """One run against a real socket, into a real store."""
    profile = request.profile
    connection = Connection(name=request.connection, vendor="generic", base_url=request.base_url, auth="none")
    rng = random.Random(1)

    async def sleep(seconds: float) -> None:
        before_wait(client)
        await clock.sleep(seconds)

    async with EhrClient(connection, profile, clock=clock.seconds, sleep=sleep, rng=rng) as client:

        async def enter(types: tuple[str, ...]) -> Callable[[str], bool]:
            found = await log_in(client, login, types, clock=clock.seconds, sleep=sleep, rng=rng)
            return found.readable

        return await sync(request, client, store.open, enter, now=clock.now, sleep=sleep, on_progress=on_progress)


async def run(
    served: Served,
    store: KeptRows,
    profile: dict[str, Any] | None = None,
    scopes: tuple[str, ...] = (),
    on_progress: Callable[[Any], None] = lambda progress: None,
    **settings: Any,
) -> RunReport:
    """One sync of a mock EHR, with what its vendor's way needs filled in."""
    vendor = served.vendor
    needs = {
        "epic": {"cohort": CohortSource(values=tuple(served.patient_ids))},
        "va": {"cohort": CohortSource(values=tuple(served.patient_ids))},
        "cerner": {"group": served.group_id},
        "allscripts": {"group": served.group_id},
    }.get(vendor, {})
    audience = {"login.audience": served.audience} if vendor == "va" else {}
    quick = {"retry.base_s": 0.01, "http.read_timeout_s": 60}
    chosen = profile_for(vendor, grouped({**quick, **audience, **(profile or {})}))
    request = SyncRequest(connection="site", base_url=served.base_url, profile=chosen, **{**needs, **settings})
    login = signing(vendor, served.client_id, scopes)
    return await whole_run(request, login, store, Clock(), on_progress=on_progress)
