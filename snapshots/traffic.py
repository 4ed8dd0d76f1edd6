"""What was sent to a source, and its pace. Shapes only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class PaceState:
    """A connection's pace, as the last run left it. Times are epoch seconds."""

    concurrency: int | None = None  # concurrent requests; None: never measured
    file_concurrency: int | None = None
    down_until: float | None = None  # the circuit breaker is open until then
    down_reason: str | None = None  # what was found, without PHI
    trips: int = 0  # how often it opened since the last success
    quota_free_at: float | None = None  # the time from which the next request is within the quota


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a process has sent for a run, and its retry budget: `spent` on failures, `left` (None: not known)."""

    requests: int = 0
    retries: int = 0
    spent: int = 0
    left: int | None = None

    def since(self, before: Traffic) -> Traffic:
        """Return what was added after `before`; `left` stays the same."""
        return Traffic(
            requests=self.requests - before.requests,
            retries=self.retries - before.retries,
            spent=self.spent - before.spent,
            left=self.left,
        )


NO_TRAFFIC = Traffic()


class Down(NamedTuple):
    """A connection whose EHR was found down."""

    connection: str
    until: datetime
    reason: str
