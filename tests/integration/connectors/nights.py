"""Night after night against one mock EHR: syncs with a clock that the test sets, into a real store."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from connectors.fhir.run import CohortSource, SyncRequest
from connectors.fhir.vendors import profile_for
from mocks.serving import Served
from snapshots.report import RunReport
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.runs import Clock, signing, whole_run
from tests.profiles import grouped


class Nights:
    """One connection. `asked` are the searches and reads of the last run, as the mock saw them."""

    def __init__(self, served: Served, kept: KeptRows, **profile: Any) -> None:
        self.served = served
        self.kept = kept
        self.clock = Clock()
        retry = {"base_s": 0.01, "max_tries": 3}
        self._profile = {"retry": retry, "http.read_timeout_s": 60, "references.follow": (), **profile}
        if served.vendor == "va":
            self._profile["login.audience"] = served.audience

    async def sync(self, *patients: str, later: timedelta = timedelta(), **settings: Any) -> RunReport:
        """Crawl these patients as a cohort file that stays the same file; without any, whom the request says."""
        self.clock.moment += later
        self.served.log.clear()
        served = self.served
        chosen = profile_for(served.vendor, grouped(self._profile))
        if patients:
            settings["cohort"] = CohortSource(values=patients, name="cohort")
        request = SyncRequest(
            connection="site", base_url=served.base_url, profile=chosen, **{"mode": "crawl", **settings}
        )
        return await whole_run(request, signing(served.vendor, served.client_id), self.kept, self.clock)

    def targets(self, kind: str, patient: str = "") -> list[str]:
        """Targets of the last run's requests of a type that name a patient."""
        return [
            entry.target
            for purpose in ("search", "read")
            for entry in self.served.log.of(purpose, kind)  # type: ignore[arg-type]
            if patient in entry.target
        ]
