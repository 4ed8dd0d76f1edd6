"""How much of one connection is used at a time, and whether anything may be asked at all: the waiting around the pure rules.

A place covers the request and its body, not the wait before the next try. Token requests take none: they go to another server,
and a request that waits for its token may hold the last place. Files take a place of a second, scarcer kind as well. How
many places there are is `pace`'s, what a minute may hold `quota`'s, which hours are spared `quiet_hours`', whether anybody is at
home `breaker`'s, and these two are shared by the connections to one origin (`origins`); here requests wait for them, and
answers are told to them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from anyio import CapacityLimiter, WouldBlock

from connectors.core.waits import Waits
from connectors.fhir.errors import EhrDownError, QuietHoursError
from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.call import Call, Purpose
from connectors.fhir.transport.origins import SharedOrigin
from connectors.fhir.transport.pace import Pace
from connectors.fhir.transport.quiet_hours import QuietHours
from connectors.fhir.transport.quota import allowance_from
from connectors.fhir.transport.retry_table import Seen, Signal, server_time
from snapshots.traffic import PaceState

_FOREVER = float("inf")
_RATE_LIMIT = b"ratelimit"
_RATE_LIMIT_DASHED = b"rate-limit"


class Place:
    """One request's place. `sent_at` is when it could be sent, `answered_at` when its headers were there (epoch seconds)."""

    __slots__ = ("answered_at", "is_file", "sent_at")

    def __init__(self, *, is_file: bool) -> None:
        self.is_file = is_file
        self.sent_at = 0.0
        self.answered_at = 0.0


class ConnectionLimits:
    """Places of one connection, first come first served, and the reasons to wait before using one."""

    def __init__(
        self, profile: VendorProfile, *, clock: Callable[[], float], waits: Waits, shared: SharedOrigin | None = None
    ) -> None:
        """`shared` is what the connections to this one's origin have in common; None: it is the only one."""
        self._shared = SharedOrigin() if shared is None else shared
        self._shared.join(profile)
        self._profile = profile
        self._clock = clock
        self._waits = waits
        self.pace = Pace(profile.limits.max_concurrency, base_s=profile.retry.base_s)
        self.file_pace = Pace(profile.limits.file_concurrency, base_s=profile.retry.base_s)
        self.quota = self._shared.quota
        self.breaker = self._shared.breaker
        self._quiet_hours = (
            QuietHours(profile.limits.quiet_hours, profile.limits.time_zone) if profile.limits.quiet_hours else None
        )
        self._look_again_at = 0.0 if self._quiet_hours else _FOREVER
        self._quiet = False
        self.pauses = 0  # that rate headers asked for and that were waited out ...
        self.paused_s = 0.0  # ... and how long they were in all
        self._pause_counted_until = 0.0
        self._next_at = 0.0
        self._places = CapacityLimiter(self.pace.level)
        self._files = CapacityLimiter(self.file_pace.level)

    # -- what outlives a run

    def restore(self, state: PaceState) -> None:
        """Go on where the last run of this connection ended."""
        if state.concurrency is not None:
            self.pace = Pace(self.pace.ceiling, start=state.concurrency, base_s=self._profile.retry.base_s)
        if state.file_concurrency is not None:
            start = state.file_concurrency
            self.file_pace = Pace(self.file_pace.ceiling, start=start, base_s=self._profile.retry.base_s)
        self._shared.restore(state)
        self._resize()

    def state(self) -> PaceState:
        """What the next run of this connection should know."""
        return PaceState(
            concurrency=self.pace.level,
            file_concurrency=self.file_pace.level,
            down_until=self.breaker.down_until,
            down_reason=self.breaker.reason or None,
            trips=self.breaker.trips,
            quota_free_at=self.quota.free_at if self.quota.per_minute is not None else None,
        )

    # -- before a call

    async def admit(self, call: Call) -> bool:
        """Let a call begin; True: it is the probe that everybody waits for, and one try is all it gets.

        Raises EhrDownError: nobody is at home, and it is not time to look again.
        """
        while True:
            self._shared.asked()
            admission = self.breaker.admit(self._clock())
            if admission == "down":
                raise self.down_error(call)
            if admission != "wait":
                return admission == "probe"
            await self._shared.probe_over()

    def down_error(self, call: Call) -> EhrDownError:
        """What a call that is not sent ends with."""
        until = datetime.fromtimestamp(self.breaker.down_until or self._clock(), UTC)
        found = f": {self.breaker.reason}" if self.breaker.reason else ""
        return EhrDownError(
            f"{call.template}: not sent, because the EHR counts as down until {until:%H:%M} UTC{found}; "
            "a sync before then sends only one request"
        )

    def ended(self, *, reason: str | None) -> None:
        """A call ended: answered by the EHR (None), or by nobody, with what was found instead."""
        if reason is None:
            if not self.breaker.untroubled:
                self.breaker.worked()
                self._shared.wake()
        else:
            self.breaker.failed(self._clock(), reason)
            self._shared.wake()

    def probe_lost(self) -> None:
        """The probe was cancelled."""
        self.breaker.probe_lost()
        self._shared.wake()

    # -- around a request

    async def acquire(self, purpose: Purpose) -> Place:
        """Wait for a place, and for the moment to use it; give it back with `release`.

        Raises QuietHoursError: nothing may be asked for longer than profile.limits.quiet_wait_s.
        """
        place = Place(is_file=purpose == "file")
        if place.is_file:
            await _take(self._files, place)
        try:
            if self._clock() >= self._look_again_at:
                self._look_at_quiet_hours()
            await _take(self._places, place)
            try:
                await self._until_it_may_be_sent(place)
            except BaseException:
                self._places.release_on_behalf_of(place)
                raise
        except BaseException:
            if place.is_file:
                self._files.release_on_behalf_of(place)
            raise
        return place

    def release(self, place: Place) -> None:
        """Give the place back."""
        self._places.release_on_behalf_of(place)
        if place.is_file:
            self._files.release_on_behalf_of(place)

    async def _until_it_may_be_sent(self, place: Place) -> None:
        now = self._clock()
        if now >= self._look_again_at:
            self._look_at_quiet_hours()
        if self._quiet and not self._profile.limits.quiet_max_concurrency:
            await self._wait_for_the_quiet_to_end(now)
        while self._shared.paused_until > now:
            until = self._shared.paused_until
            if until == self._shared.headers_until:
                self._count_pause(now, until)
            said = "its rate headers ask" if until == self._shared.headers_until else "Retry-After asks"
            await self._waits.sleep(until - now, f"the EHR makes everything wait ({said} for it)")
            now = self._clock()
            if self._shared.paused_until == until:
                break
        gap = self.file_pace.gap_s or self.pace.gap_s if place.is_file else self.pace.gap_s
        wait = self.quota.take(now) if self.quota.rules(now) else 0.0
        if wait and self.quota.spreads(now):
            self._count_pause(now, now + wait)
        if gap:
            at = max(self._next_at, now)
            self._next_at = at + gap
            wait = max(wait, at - now)
        if wait:
            await self._waits.sleep(wait, "the quota or the pace allows no earlier request")
            now = self._clock()
        place.sent_at = now

    def _count_pause(self, now: float, until: float) -> None:
        """Time that several wait through together counts once."""
        if until > self._pause_counted_until:
            self.pauses += 1
            self.paused_s += until - max(now, self._pause_counted_until)
            self._pause_counted_until = until

    def _look_at_quiet_hours(self) -> None:
        if self._quiet_hours is not None:
            self._quiet, self._look_again_at = self._quiet_hours.at(self._clock())
            self._resize()

    async def _wait_for_the_quiet_to_end(self, now: float) -> None:
        left = self._look_again_at - now
        if left > self._profile.limits.quiet_wait_s:
            until = datetime.fromtimestamp(self._look_again_at, UTC)
            raise QuietHoursError(
                f"profile.limits.quiet_hours = {self._profile.limits.quiet_hours} ({self._profile.limits.time_zone}) last until "
                f"{until:%H:%M} UTC, longer than profile.limits.quiet_wait_s lets a run wait; sync again then, or set "
                "profile.limits.quiet_max_concurrency to 1 or more"
            )
        await self._waits.sleep(
            left, f"quiet hours ({self._profile.limits.quiet_hours} {self._profile.limits.time_zone})"
        )
        self._look_at_quiet_hours()

    # -- after an answer

    def saw(self, call: Call, place: Place, seen: Seen, signal: Signal) -> None:
        """Let the pace learn from one try."""
        pace = self.file_pace if place.is_file else self.pace
        before = pace.level
        if signal == "fine":
            if place.answered_at:
                pace.good(call.template, place.answered_at - place.sent_at)
        elif signal == "refused":
            pace.refused(place.sent_at, self._clock())
        elif signal == "strained":
            pace.strained(place.sent_at, self._clock())
        if seen.retry_after_s and signal in ("refused", "strained") and not seen.foreign:
            self._shared.pause(self._clock() + seen.retry_after_s)
        if pace.level != before:
            self._resize()

    def heard(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Follow the rate limit headers of an answer of the EHR, if it has any."""
        for name, _ in headers:
            lower = name.lower()
            if _RATE_LIMIT in lower or _RATE_LIMIT_DASHED in lower:
                break
        else:
            return
        now = self._clock()
        date = next((value.decode("latin-1") for name, value in headers if name.lower() == b"date"), None)
        # a reset is a moment of the server's clock, which may be off
        said = allowance_from(headers, server_time(date) or now)
        if said is not None:
            cap = self._profile.retry.after_cap_s
            until = self.quota.heard(said._replace(reset_s=min(said.reset_s, cap)), now, in_use=self.pace.level)
            self._shared.pause(until, by_headers=True)

    def _resize(self) -> None:
        most = self._profile.limits.quiet_max_concurrency or 1 if self._quiet else _FOREVER
        self._places.total_tokens = int(min(self.pace.level, most))
        self._files.total_tokens = int(min(self.file_pace.level, most))


async def _take(limiter: CapacityLimiter, place: Place) -> None:
    try:
        limiter.acquire_on_behalf_of_nowait(place)
    except WouldBlock:
        await limiter.acquire_on_behalf_of(place)
