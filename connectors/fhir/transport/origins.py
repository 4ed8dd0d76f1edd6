"""What the connections to one origin share, since it is one server that they ask: its quota, its pauses, and whether it is there.

How many requests a connection has open at a time is its own (`pace`); who waits for what here is told in `limits`. Between
processes the store's memory of the pace does the same, as far as it goes: what a run left, and not what one is just doing.
"""

from __future__ import annotations

import anyio

from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.breaker import Breaker
from connectors.fhir.transport.links import origin
from connectors.fhir.transport.quota import Quota
from snapshots.traffic import PaceState


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

    def asked(self) -> None:
        """A call is about to begin."""
        self._is_asked = True

    async def probe_over(self) -> None:
        """Wait for the outcome of the call that looks whether anybody is there."""
        await self._probe_over.wait()

    def wake(self) -> None:
        """Let those look again who wait for it."""
        self._probe_over.set()
        self._probe_over = anyio.Event()


class Origins:
    """The origins that one process asks, each with what its connections share."""

    def __init__(self) -> None:
        self._known: dict[str, SharedOrigin] = {}

    def of(self, base_url: str) -> SharedOrigin:
        """Give the one of this base URL's origin; raises UnsafeLinkError where it is no http(s) URL."""
        return self._known.setdefault(origin(base_url), SharedOrigin())
