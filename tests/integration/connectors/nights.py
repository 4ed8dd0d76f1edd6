"""Night after night against one mock EHR: syncs with a clock that the test sets, into a real store."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from config.connections import Connection
from connectors.fhir.auth.credentials import Credentials
from connectors.fhir.auth.login import log_in
from connectors.fhir.run import CohortSource
from connectors.fhir.sync import SyncRequest, sync
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.vendors import profile_for
from mocks.serving import Served
from snapshots.report import RunReport
from tests.integration.connectors.kept_rows import KeptRows
from tests.profiles import grouped
from tests.user_site import key_pair


class Nights:
    """One connection. `asked` are the searches and reads of the last run, as the mock saw them."""

    def __init__(self, served: Served, kept: KeptRows, **profile: Any) -> None:
        self.served = served
        self.kept = kept
        self.moment = datetime.now(UTC)
        retry = {"base_s": 0.01, "max_tries": 3}
        self._profile = {"retry": retry, "http.read_timeout_s": 60, "references.follow": (), **profile}
        if served.vendor == "va":
            self._profile["login.audience"] = served.audience

    async def sync(self, *patients: str, later: timedelta = timedelta(), **asked: Any) -> RunReport:
        """Crawl these patients as a cohort file that stays the same file; without any, whom the request says."""
        self.moment += later
        self.served.log.clear()
        served = self.served
        chosen = profile_for(served.vendor, grouped(self._profile))
        connection = Connection(name="site", vendor=served.vendor, base_url=served.base_url, auth="none")
        login = Credentials(
            auth="smart", client_id=served.client_id, key=json.dumps(key_pair(served.vendor).private), scopes=()
        )
        if patients:
            asked["cohort"] = CohortSource(values=patients, name="cohort")
        request = SyncRequest(connection="site", base_url=served.base_url, profile=chosen, **{"mode": "crawl", **asked})
        rng = random.Random(1)
        async with EhrClient(connection, chosen, clock=self._clock, sleep=self._sleep, rng=rng) as client:

            async def enter(types: tuple[str, ...]) -> Callable[[str], bool]:
                found = await log_in(client, login, chosen, types, clock=self._clock, sleep=self._sleep, rng=rng)
                return found.readable

            return await sync(request, client, self.kept.open, enter, now=lambda: self.moment, sleep=self._sleep)

    def _clock(self) -> float:
        return self.moment.timestamp()

    async def _sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        await anyio.sleep(0.005 if seconds else 0)

    def asked(self, kind: str, patient: str = "") -> list[str]:
        """Targets of the last run's requests of a type that name a patient."""
        return [
            entry.target
            for purpose in ("search", "read")
            for entry in self.served.log.of(purpose, kind)  # type: ignore[arg-type]
            if patient in entry.target
        ]
