"""What the connections to one origin share, since they ask one server: its quota, its pauses, and whether it is there.

Lets calls begin, or says that the EHR is down. Each connection has its own number of open requests (`pace`), and `limits` waits
until one may be sent. Other processes know of an origin only what earlier runs left in the store.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from connectors.fhir.errors import EhrDownError
from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.breaker import Breaker
from connectors.fhir.transport.links import origin
from connectors.fhir.transport.quota import Quota
from snapshots.traffic import PaceState

if TYPE_CHECKING:  # a sync has its origins before it has imported httpx, which is done while the store opens
    from connectors.fhir.transport.call import Call


class SharedOrigin:
    """One origin's. The strictest quota of its connections holds, and the most patient breaker."""

    def __init__(self) -> None:
        self.quota = Quota(None)
        self.breaker = Breaker(1, 0.0)
        self.paused_until = 0.0  # epoch seconds
        self.headers_until = 0.0  # of paused_until, what rate headers asked for
        self._probe_over = anyio.Event()
        self._is_asked = False

    def join(self, profile: VendorProfile) -> None:
        """One more connection to this origin."""
        self.quota.tighten(profile.limits.requests_per_minute)
        self.breaker.be_as_patient(profile.limits.breaker_failures, profile.limits.breaker_open_s)

    def restore(self, state: PaceState) -> None:
        """Go on where an earlier run left the origin; what this process has seen since is newer."""
        if state.quota_free_at is not None:
            self.quota.free_at = max(self.quota.free_at, state.quota_free_at)
        if not self._is_asked:
            self.breaker.remember(down_until=state.down_until, trips=state.trips, reason=state.down_reason or "")

    def pause(self, until: float, *, by_headers: bool = False) -> None:
        """Send nothing before this moment."""
        if until > self.paused_until:
            self.paused_until = until
            if by_headers:
                self.headers_until = until

    async def admit(self, call: Call, clock: Callable[[], float]) -> bool:
        """Let a call begin; True: it is the probe that all others wait for, and it has one try.

        Raises:
            EhrDownError: the EHR counts as down, and it is not yet time for a probe.
        """
        self._is_asked = True
        while (admission := self.breaker.admit(clock())) == "wait":
            await self._probe_over.wait()
        if admission == "down":
            raise self.down_error(call, clock())
        return admission == "probe"

    def is_down(self, now: float) -> bool:
        """Whether calls under way should stop trying."""
        return self.breaker.down_until is not None and self.breaker.is_open(now)

    def down_error(self, call: Call, now: float) -> EhrDownError:
        """Return the error of a call that is not sent."""
        until = datetime.fromtimestamp(self.breaker.down_until or now, UTC)
        found = f": {self.breaker.reason}" if self.breaker.reason else ""
        return EhrDownError(
            f"{call.template}: not sent, because the EHR counts as down until {until:%H:%M} UTC{found}; "
            "a sync before then sends only one request"
        )

    def answered(self) -> None:
        """Note that the EHR answered a call, even if with a refusal."""
        if not self.breaker.untroubled:
            self.breaker.worked()
            self._wake()

    def unanswered(self, now: float, reason: str) -> None:
        """Note that a call ended without an answer of the EHR; `reason` is what was found instead, without PHI."""
        self.breaker.failed(now, reason)
        self._wake()

    def probe_lost(self) -> None:
        """Note that the probe was cancelled."""
        self.breaker.probe_lost()
        self._wake()

    def _wake(self) -> None:
        self._probe_over.set()
        self._probe_over = anyio.Event()


class Origins:
    """The origins that one process asks, each with what its connections share."""

    def __init__(self) -> None:
        self._known: dict[str, SharedOrigin] = {}

    def of(self, base_url: str) -> SharedOrigin:
        """Give the one of this base URL's origin; raises UnsafeLinkError where it is no http(s) URL."""
        return self._known.setdefault(origin(base_url), SharedOrigin())
