"""The retry budget of one connection: when everything fails, retries stay a share of the traffic instead of multiplying it.

After Google's SRE book, "Handling Overload". Pure: it counts; `client` waits and sends.

There are two budgets. A retry after a failure (5xx, time-outs, cut answers) repeats work that the EHR lost: at most `share` of
the calls, plus the floor. A retry after a refusal (429) is pacing: the server spent nothing, and `pace` reacts by sending less.
Taken out of the first budget, a storm of refusals would leave nothing for true failures, and 20,000 small files would end as
holes although each of them comes at the second try. So refusals have a separate budget: PACED_SHARE for each call that was
answered, plus the floor. A server that only refuses answers none, so it gets the floor and no more.

An empty budget forbids retries, not first tries: each unit is requested once, and `breaker` ends that if nothing is answered.
"""

from __future__ import annotations

PACED_SHARE = 4.0


class RetryBudget:
    """Allows retries while `spent <= share * requests + floor`; the floor lets a small run survive a bad minute."""

    def __init__(self, share: float, floor: int) -> None:
        self.share = share
        self.floor = floor
        self.requests = 0
        self.answers = 0
        self.spent = 0
        self.paced = 0

    @property
    def retries(self) -> int:
        """Every try after the first of a call, failures and refusals together."""
        return self.spent + self.paced

    @property
    def left(self) -> int:
        """How many retries after failures are left at this moment; calls to come add their share."""
        return max(0, int(self.share * self.requests + self.floor) - self.spent)

    def count_request(self) -> None:
        """A call begins; its retries are not requests."""
        self.requests += 1

    def count_answer(self) -> None:
        """A call was answered."""
        self.answers += 1

    def take_retry(self) -> bool:
        """Take one retry after a failure out of the budget; False, and nothing taken, when it is empty."""
        if self.spent + 1 > self.share * self.requests + self.floor:
            return False
        self.spent += 1
        return True

    def take_paced(self) -> bool:
        """Take one retry after a refusal; False, and nothing taken, when refusals outnumber answers by far."""
        if self.paced + 1 > PACED_SHARE * self.answers + self.floor:
            return False
        self.paced += 1
        return True
