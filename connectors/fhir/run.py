"""The request of one run of an EHR, and what its steps share meanwhile: `bulk.steps` and `crawl.steps`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal, Protocol

from config.bulk_options import BulkOptions
from config.how_many import how_many
from connectors.core.pipeline import Noticed
from connectors.core.run import Progress, Run
from connectors.fhir.memories import EhrRunStore
from connectors.fhir.profile import Mode, VendorProfile
from connectors.fhir.transport.client import EhrClient
from snapshots.record import Record
from snapshots.traffic import Traffic
from snapshots.unit import UnitResult

Readable = Callable[[str], bool]  # whether the login lets a type be requested
LogIn = Callable[[tuple[str, ...]], Awaitable[Readable]]  # for these types; none: for all that a wildcard allows


@dataclass(frozen=True, kw_only=True)
class CohortSource:
    """Which patients a crawl is for, as configured: ids, or MRNs of one identifier system."""

    values: tuple[str, ...] = ()
    identifier_system: str | None = None
    lines: tuple[int, ...] = ()  # of the values, where they came from a file
    name: str | None = None  # of the file, however its content changes; None: the values name themselves
    stored: bool = False  # the patients that the store has of the connection, in place of values

    @property
    def digest(self) -> str:
        """Of what was given, whatever its order: the same cohort has the same."""
        text = "\n".join((self.identifier_system or "", *sorted(self.values)))
        return sha256(text.encode()).hexdigest()[:16]

    def selection(self, mode: str) -> str:
        """The selection whose watermarks and roster a run has.

        A crawl's roster shows who is new and who left; an export has no such roster.
        """
        if self.stored:
            return "store"
        return self.name if self.name is not None and mode != "bulk" else f"patients:{self.digest}"


@dataclass(frozen=True, kw_only=True)
class SyncRequest:
    """One run to do. It has everything that a flag may override, already resolved."""

    connection: str
    base_url: str
    profile: VendorProfile
    kind: Literal["sync", "pull"] = "sync"
    mode: Mode = "auto"
    since: str = "auto"  # "auto" | "none" | an instant
    types: tuple[str, ...] = ()
    group: str | None = None
    cohort: CohortSource | None = None
    bulk: BulkOptions = field(default_factory=BulkOptions)
    logs_in: bool = True  # False: the connection is configured without a login
    # against FHIR R4B; what is not valid is noted, and stored all the same
    validate: Literal["off", "sample", "all"] = "off"

    @property
    def named_patients(self) -> tuple[str, ...]:
        """The ids that were given one by one, or none."""
        return self.cohort.values if self.cohort is not None and self.cohort.identifier_system is None else ()


class RecordNotices(Protocol):
    """Notices what records bring while they pass by on their way to the store; `linked.notices` is the real one."""

    def listed(self, records: Sequence[Record]) -> Noticed:
        """What was listed: what it has attached, and what it refers to."""

    def received(self, records: Sequence[Record]) -> Noticed:
        """What came otherwise: what it has attached."""


@dataclass(kw_only=True)
class EhrProgress(Progress):
    """How far a run is, and how the EHR takes it."""

    requests: int = 0
    retries: int = 0
    retries_left: int | None = None  # of the retry budget, for failures
    places: int | None = None  # requests at a time, by the present pace
    down_until: datetime | None = None  # the EHR is taken to be down
    paused_s: float = 0.0  # waited, because the server's rate headers asked for it

    @property
    def details(self) -> list[str]:
        """Return the requests, and what slows the run down: "240 requests", "12 retries (93 left)", "down until 14:05 UTC"."""
        parts = [how_many(self.requests, "request")] if self.requests else []
        if self.retries:
            left = "" if self.retries_left is None else f" ({self.retries_left:,} left)"
            parts.append(f"{how_many(self.retries, 'retry', 'retries')}{left}")
        if self.retries and self.places is not None:
            parts.append(f"{self.places} at a time")
        if self.paused_s >= 1:
            parts.append(f"{self.paused_s:,.0f} s paused by the server's rate headers")
        if self.down_until is not None:
            parts.append(f"EHR down until {self.down_until:%H:%M} UTC")
        return parts


@dataclass(kw_only=True)
class EhrRun(Run):
    """What the steps of one run of an EHR share."""

    store: EhrRunStore
    progress: EhrProgress
    request: SyncRequest
    client: EhrClient
    notices: RecordNotices
    is_full: bool = True  # everything is requested, not only changes

    @property
    def workers(self) -> int:
        """How many units are fetched at a time: two per request, so that one can parse while the other waits for an answer."""
        return 2 * self.request.profile.limits.max_concurrency

    @property
    def traffic(self) -> Traffic:
        """What this process has sent for the run."""
        budget = self.client.budget
        return Traffic(requests=self.client.requests, retries=self.client.retries, spent=budget.spent, left=budget.left)

    @property
    def uncounted(self) -> Traffic:
        """What of it the store has not counted yet."""
        return self.traffic.since(self.store.pace.counted)

    @property
    def down_until(self) -> datetime | None:
        """Until when the EHR is taken to be down, if it is."""
        until = self.client.pace_state().down_until
        return None if until is None else datetime.fromtimestamp(until, UTC)

    async def keep_pace(self) -> None:
        """Keep for the connection's next run what this one found of its pace.

        Say so where the EHR was down at the end, and how long its rate headers made the run wait.
        """
        state = self.client.pace_state()
        if self.down_until is not None:
            found = f" ({state.down_reason})" if state.down_reason else ""
            self.notes.append(
                f"the EHR counts as down until {self.down_until:%H:%M} UTC{found}: what was not requested is a hole, and a "
                "sync before then sends one request"
            )
        limits = self.client.limits
        if limits.paused_s >= 1:
            self.notes.append(
                f"the server's rate headers ordered pauses: {limits.pauses} times, {limits.paused_s:,.0f} s in all"
            )
        await self.store.pace.save(state, self.traffic)

    def show(self, phase: str | None = None) -> None:
        """Tell whoever watches how far the run is, and how the EHR takes it."""
        self.progress.requests, self.progress.retries = self.client.requests, self.client.retries
        self.progress.retries_left = self.client.budget.left
        self.progress.places = self.client.limits.requests.level
        self.progress.down_until = self.down_until
        self.progress.paused_s = self.client.limits.paused_s
        super().show(phase)

    def sleeper(self, reason: str) -> Callable[[float], Awaitable[None]]:
        """Return a function that sleeps for this reason, which is shown while it lasts."""
        return self.client.waits.sleeper(reason, self.sleep)

    def settled(self, results: Sequence[UnitResult], records: int) -> None:
        """Count units that ended, and records that were written; the pace is kept with one of the next batches."""
        self.store.pace.note(self.client.pace_state(), self.traffic)
        super().settled(results, records)
