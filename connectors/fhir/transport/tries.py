"""When a call has been tried often enough: its own limits, the connection's retry budget, and an EHR that counts as down.

`retry_table` says what a try means, `client` how long to wait before the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenacity import RetryCallState

from connectors.fhir.transport.retry_budget import RetryBudget
from connectors.fhir.transport.retry_table import Verdict

PACED_TRIES = 4  # refusals (429) allowed per further try of a call: they cost the server nothing


class Tries:
    """Counts one call's tries against its own limits and the connection's budget, and says when to stop."""

    def __init__(self, most: int, budget: RetryBudget, is_down: Callable[[], bool]) -> None:
        self.budget_empty = False
        self._most = most
        self._budget = budget
        self._is_down = is_down
        self._failed = 0
        self._refused = 0

    def stop(self, state: RetryCallState) -> bool:
        """Whether the try that just ended was the last: tenacity's `stop`."""
        verdict: Verdict = outcome_of(state).verdict
        if verdict.paced:
            self._refused += 1
            if self._refused > PACED_TRIES * (self._most - 1) or self._is_down():
                return True
            self.budget_empty = not self._budget.take_paced()
        else:
            self._failed += 1
            if self._failed >= min(verdict.tries or self._most, self._most) or self._is_down():
                return True
            self.budget_empty = not self._budget.take_retry()
        return self.budget_empty


def outcome_of(state: RetryCallState) -> Any:
    """What the try that just ended returned; raises what it raised."""
    assert state.outcome is not None
    return state.outcome.result()
