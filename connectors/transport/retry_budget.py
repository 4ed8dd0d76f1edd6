"""The retry budget of one connection: when everything fails, retries stay a share of the traffic instead of multiplying it.

After Google's SRE book, "Handling Overload". Pure: it counts; who waits and sends is `client`.
"""

from __future__ import annotations


class RetryBudget:
    """Allows retries while `retries <= share * requests + floor`; the floor lets a small run survive a bad minute."""

    def __init__(self, share: float, floor: int) -> None:
        self.share = share
        self.floor = floor
        self.requests = 0
        self.retries = 0

    def count_request(self) -> None:
        """A call begins; its retries are not requests."""
        self.requests += 1

    def take_retry(self) -> bool:
        """Take one retry out of the budget; False, and nothing taken, when it is empty."""
        if self.retries + 1 > self.share * self.requests + self.floor:
            return False
        self.retries += 1
        return True
