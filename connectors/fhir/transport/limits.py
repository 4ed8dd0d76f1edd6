"""When one connection may send its next request: the waiting around the pure rules.

A place covers the request and its body, not the wait before the next try. Token requests take none: they go to another server,
and a request that waits for its token may hold the last place. A file takes a place of a second, scarcer kind as well.

`pace` decides how many places there are, `quota` how many requests a minute, `quiet_hours` which hours to spare. `origins` has
what the connections to one server share, and decides whether a call may begin at all.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from anyio import CapacityLimiter, WouldBlock

from connectors.core.waits import Waits
from connectors.fhir.errors import QuietHoursError
from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.call import Call, Purpose
from connectors.fhir.transport.origins import SharedOrigin
from connectors.fhir.transport.pace import Pace
from connectors.fhir.transport.quiet_hours import QuietHours
from connectors.fhir.transport.quota import allowance_from
from connectors.fhir.transport.retry_table import Signal, TryResult, server_time
from snapshots.traffic import PaceState

_FOREVER = float("inf")


class Places:
    """The places of one kind: as many as their pace allows, first come, first served."""

    def __init__(self, ceiling: int, base_s: float) -> None:
        self._base_s = base_s
        self.pace = Pace(ceiling, base_s=base_s)
        self._limiter = CapacityLimiter(self.pace.level)

    @property
    def level(self) -> int:
        """How many there are at the moment."""
        return self.pace.level

    def restore(self, level: int | None) -> None:
        """Go on with the level at which an earlier run ended."""
        if level is not None:
            self.pace = Pace(self.pace.ceiling, start=level, base_s=self._base_s)

    def resize(self, most: float) -> None:
        """Offer as many as the pace allows now, and at most so many."""
        self._limiter.total_tokens = int(min(self.level, most))

    async def take(self, place: Place) -> None:
        """Wait for a free one."""
        try:
            self._limiter.acquire_on_behalf_of_nowait(place)
        except WouldBlock:
            await self._limiter.acquire_on_behalf_of(place)
        place.held.append(self)

    def give_back(self, place: Place) -> None:
        """Let the next one have it."""
        self._limiter.release_on_behalf_of(place)


class Place:
    """What one request holds. `sent_at` is when it could be sent, `answered_at` when its headers were there (epoch seconds)."""

    __slots__ = ("answered_at", "held", "sent_at")

    def __init__(self) -> None:
        self.held: list[Places] = []  # the scarcest first
        self.sent_at = 0.0
        self.answered_at = 0.0


class ConnectionLimits:
    """The places of one connection, and the reasons to wait before using one."""

    def __init__(
        self, profile: VendorProfile, *, clock: Callable[[], float], waits: Waits, origin: SharedOrigin
    ) -> None:
        self._origin = origin
        self._profile = profile
        self._clock = clock
        self._waits = waits
        limits = profile.limits
        self.requests = Places(limits.max_concurrency, profile.retry.base_s)
        self.files = Places(limits.file_concurrency, profile.retry.base_s)
        self._quiet_hours = QuietHours(limits.quiet_hours, limits.time_zone) if limits.quiet_hours else None
        self._look_again_at = 0.0 if self._quiet_hours else _FOREVER
        self._quiet = False
        self.pauses = 0  # that rate headers asked for and that were waited out ...
        self.paused_s = 0.0  # ... and how long they were in all
        self._pause_counted_until = 0.0
        self._next_at = 0.0

    # -- what outlives a run

    def restore(self, state: PaceState) -> None:
        """Go on where the last run of this connection ended."""
        self.requests.restore(state.concurrency)
        self.files.restore(state.file_concurrency)
        self._resize()

    def state(self) -> PaceState:
        """Return what the next run of this connection should know."""
        breaker, quota = self._origin.breaker, self._origin.quota
        return PaceState(
            concurrency=self.requests.level,
            file_concurrency=self.files.level,
            down_until=breaker.down_until,
            down_reason=breaker.reason or None,
            trips=breaker.trips,
            quota_free_at=quota.free_at if quota.per_minute is not None else None,
        )

    # -- around a request

    async def acquire(self, purpose: Purpose) -> Place:
        """Wait for a place, and for the moment to use it; give it back with `release`.

        Raises:
            QuietHoursError: nothing may be requested for longer than profile.limits.quiet_wait_s.
        """
        place = Place()
        try:
            for places in (self.files, self.requests) if purpose == "file" else (self.requests,):
                self._look_at_quiet_hours()
                await places.take(place)
            await self._until_it_may_be_sent(place)
        except BaseException:
            self.release(place)
            raise
        return place

    def release(self, place: Place) -> None:
        """Give the place back."""
        while place.held:
            place.held.pop().give_back(place)

    async def _until_it_may_be_sent(self, place: Place) -> None:
        self._look_at_quiet_hours()
        if self._quiet and not self._profile.limits.quiet_max_concurrency:
            await self._wait_for_the_quiet_to_end()
        await self._wait_for_pauses_to_end()
        now = self._clock()
        quota = self._origin.quota
        gap = next((places.pace.gap_s for places in place.held if places.pace.gap_s), 0.0)
        wait = quota.take(now) if quota.rules(now) else 0.0
        if wait and quota.spreads(now):
            self._count_pause(now, now + wait)
        if gap:
            at = max(self._next_at, now)
            self._next_at = at + gap
            wait = max(wait, at - now)
        if wait:
            await self._waits.sleep(wait, "the quota or the pace allows no earlier request")
        place.sent_at = self._clock()

    async def _wait_for_pauses_to_end(self) -> None:
        origin = self._origin
        while (until := origin.paused_until) > (now := self._clock()):
            by_headers = until == origin.headers_until
            if by_headers:
                self._count_pause(now, until)
            cause = "its rate headers ask" if by_headers else "Retry-After asks"
            await self._waits.sleep(until - now, f"the EHR makes everything wait ({cause} for it)")
            if origin.paused_until == until:
                return

    def _count_pause(self, now: float, until: float) -> None:
        """Time that several wait through together counts once."""
        if until > self._pause_counted_until:
            self.pauses += 1
            self.paused_s += until - max(now, self._pause_counted_until)
            self._pause_counted_until = until

    def _look_at_quiet_hours(self) -> None:
        if self._quiet_hours is not None and (now := self._clock()) >= self._look_again_at:
            self._quiet, self._look_again_at = self._quiet_hours.at(now)
            self._resize()

    async def _wait_for_the_quiet_to_end(self) -> None:
        limits, left = self._profile.limits, self._look_again_at - self._clock()
        if left > limits.quiet_wait_s:
            until = datetime.fromtimestamp(self._look_again_at, UTC)
            raise QuietHoursError(
                f"profile.limits.quiet_hours = {limits.quiet_hours} ({limits.time_zone}) last until {until:%H:%M} UTC, longer "
                "than profile.limits.quiet_wait_s lets a run wait; sync again then, or set profile.limits.quiet_max_concurrency "
                "to 1 or more"
            )
        await self._waits.sleep(left, f"quiet hours ({limits.quiet_hours} {limits.time_zone})")
        self._look_at_quiet_hours()

    # -- after an answer

    def saw(self, call: Call, place: Place, seen: TryResult, signal: Signal) -> None:
        """Let the pace learn from one try."""
        pace = place.held[0].pace
        before = pace.level
        if signal == "fine":
            if place.answered_at:
                pace.good(call.template, place.answered_at - place.sent_at)
        elif signal == "refused":
            pace.refused(place.sent_at, self._clock())
        elif signal == "strained":
            pace.strained(place.sent_at, self._clock())
        if seen.retry_after_s and signal in ("refused", "strained") and not seen.foreign:
            self._origin.pause(self._clock() + seen.retry_after_s)
        if pace.level != before:
            self._resize()

    def heard(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Follow the rate limit headers of an answer of the EHR, if it has any."""
        names = b" ".join([name for name, _ in headers])
        if b"ratelimit" not in names.lower().replace(b"-", b""):
            return
        now = self._clock()
        date = next((value.decode("latin-1") for name, value in headers if name.lower() == b"date"), None)
        # a reset is a moment of the server's clock, which may be off
        allowance = allowance_from(headers, server_time(date) or now)
        if allowance is not None:
            cap = self._profile.retry.after_cap_s
            in_time = allowance._replace(reset_s=min(allowance.reset_s, cap))
            self._origin.pause(self._origin.quota.heard(in_time, now, in_use=self.requests.level), by_headers=True)

    def _resize(self) -> None:
        most = self._profile.limits.quiet_max_concurrency or 1 if self._quiet else _FOREVER
        self.requests.resize(most)
        self.files.resize(most)
