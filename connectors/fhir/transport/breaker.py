"""The circuit breaker of one connection: after several calls in a row without an answer, it stops sending. Pure.

It counts calls that ended badly after all of their tries, not single requests: those have their growing waits, so that they
outlast an outage of a minute or two. While it is open, calls fail at once; when the time is over, one goes out as a probe, and
the others wait for its outcome. What is remembered from a run before makes the next run begin with a probe.
"""

from __future__ import annotations

from typing import Literal

LONGEST_OPEN_S = 3600.0

Admission = Literal["go", "probe", "wait", "down"]


class Breaker:
    """Closed while `down_until` (epoch seconds) is None. `trips`: how often it opened since the last success."""

    def __init__(self, failures: int, open_s: float) -> None:
        self.down_until: float | None = None
        self.trips = 0
        self.reason = ""
        self._failures = failures
        self._open_s = open_s
        self._in_a_row = 0
        self._well_in_a_row = 0
        self._probing = False
        self._probe_at_once = False

    def be_as_patient(self, failures: int, open_s: float) -> None:
        """Wait for as many failures, and stay open for as long, as the most patient of those who share it."""
        self._failures = max(self._failures, failures)
        self._open_s = max(self._open_s, open_s)

    @property
    def untroubled(self) -> bool:
        """Whether a good answer would change nothing."""
        return self.down_until is None and not self._in_a_row and not self.trips

    def remember(self, *, down_until: float | None, trips: int, reason: str) -> None:
        """Continue from an earlier run: if it left the breaker open, the first call is a probe, whatever the time."""
        self.down_until, self.trips, self.reason = down_until, trips, reason
        self._probe_at_once = down_until is not None

    def admit(self, now: float) -> Admission:
        """Whether a call may begin. A "probe" must be answered by `worked`, `failed` or `probe_lost`."""
        if self.down_until is None:
            return "go"
        if self._probing:
            return "wait"
        if self._probe_at_once or now >= self.down_until:
            self._probing, self._probe_at_once = True, False
            return "probe"
        return "down"

    def is_open(self, now: float) -> bool:
        """Whether running calls should stop retrying."""
        return self.down_until is not None and not self._probing and now < self.down_until

    def worked(self) -> None:
        """Note that the EHR answered a call, even if with a refusal."""
        self._probing = False
        self.down_until = None
        self._in_a_row = 0
        self._well_in_a_row += 1
        if self._well_in_a_row >= self._failures:
            self.trips, self.reason = 0, ""

    def failed(self, now: float, reason: str) -> None:
        """A call ended without the EHR having answered it; `reason` is what was found, without PHI."""
        self._well_in_a_row = 0
        self._in_a_row += 1
        if self._probing or (self.down_until is None and self._in_a_row >= self._failures):
            self.trips += 1
            self.down_until = now + min(self._open_s * 2.0 ** min(self.trips - 1, 16), LONGEST_OPEN_S)
            self.reason = reason
            self._in_a_row = 0
        self._probing = False

    def probe_lost(self) -> None:
        """Note that the probe was cancelled, so that another call may be it. Does nothing if it was answered."""
        if self._probing:
            self._probing, self._probe_at_once = False, True
