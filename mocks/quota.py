"""A quota of requests per window, as API gateways enforce it, and the headers that report what is left."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

RateLimitHeaders = Literal["none", "x", "ratelimit", "fields"]


class Counted(NamedTuple):
    """One request as the quota saw it."""

    allowed: bool
    left: int
    reset_s: float


class WindowQuota:
    """Limits requests in each fixed window, without counting refused ones; a window begins with its first request."""

    def __init__(self, requests: int, window_s: float) -> None:
        self.requests = requests
        self.window_s = window_s
        self._ends_at = 0.0
        self._used = 0

    def take(self, now: float) -> Counted:
        """Count one request at `now` (monotonic seconds)."""
        if now >= self._ends_at:
            self._ends_at, self._used = now + self.window_s, 0
        allowed = self._used < self.requests
        self._used += allowed
        return Counted(allowed, self.requests - self._used, self._ends_at - now)

    def headers(self, counted: Counted, style: RateLimitHeaders, epoch: float) -> list[tuple[bytes, bytes]]:
        """Return the headers of one style: X-RateLimit-* (reset as epoch seconds), RateLimit-*, or the draft's two fields."""
        reset = math.ceil(counted.reset_s)
        if style == "x":
            names, reset = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"), math.ceil(epoch + reset)
        elif style == "ratelimit":
            names = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")
        elif style == "fields":
            policy = f'"all";q={self.requests};w={self.window_s:g}'
            return [
                (b"ratelimit-policy", policy.encode()),
                (b"ratelimit", f'"all";r={counted.left};t={reset}'.encode()),
            ]
        else:
            return []
        values = (self.requests, counted.left, reset)
        return [(name.encode(), b"%d" % value) for name, value in zip(names, values, strict=True)]
