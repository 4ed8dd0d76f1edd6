"""How many requests at a time one connection may have: additive increase, multiplicative decrease. Pure; it counts.

`limits` waits for a place; `retry_table.signal_of` says which answer is which signal.

- It begins at the ceiling (a healthy server loses nothing), or where the last run ended.
- A refusal (429) halves the level; a second one counts only if its request was sent after the cut, so that the many answers
  of one round trip are one cut (as TCP NewReno does). Strain (502, 503, 504, a time-out) halves it when it comes in numbers:
  single ones are ordinary (F3), and one cut for each hundredth answer would halve the throughput of a healthy server.
- A window of good answers (as many as the level) adds one. At the level that was refused last, it takes more windows, twice
  as many after each failed attempt: a server with a fixed limit is not hit by a refusal every few answers.
- At one request at a time refusals spread requests out in time, up to some tenths of a second: a limit by rate has no
  concurrency that fits it. Longer waits come from Retry-After, or from each call's own growing waits.
- Latency is compared by kind of request with its own moving minimum of means, since pages of results take longer than reads.
  Only when more than half of a window is slow by far (three times the usual and a second more) a fifth of the level goes.
"""

from __future__ import annotations

FLOOR = 1
WINDOW = 16  # answers whose mean stands for a kind of request, and of which more than half must be slow
SLOW_TIMES, SLOW_S = 3.0, 1.0
DRIFT = 1.1  # by which the usual latency may rise per window: what stays slow becomes the usual
STRAIN_IN_NUMBERS = 2.0
STRAIN_FORGOTTEN = 0.05  # by one good answer: two strained ones among twenty cut, one in a hundred never does
MOST_PATIENCE = 64
GAP_STREAK = 4  # good answers after which the gap halves
LEAST_GAP, MOST_GAP = 0.05, 0.4  # of `retry.base_s`
MOST_KINDS = 256


class _UsualLatency:
    """How long one kind of request takes."""

    __slots__ = ("count", "least", "total")

    def __init__(self) -> None:
        self.least = float("inf")
        self.total = 0.0
        self.count = 0


class Pace:
    """The level of one connection, FLOOR to `ceiling`; times are seconds of one clock."""

    def __init__(self, ceiling: int, *, start: int | None = None, base_s: float = 0.5) -> None:
        self.ceiling = ceiling
        self.level = ceiling if start is None else min(max(start, FLOOR), ceiling)
        self.gap_s = 0.0  # between the beginnings of two requests
        self._base_s = base_s
        self._good = 0  # answers since the level last changed
        self._cut_at = float("-inf")
        self._refused_at_level = ceiling + 1
        self._patience = 1
        self._strain = 0.0
        self._usual: dict[str, _UsualLatency] = {}
        self._slow = 0
        self._seen = 0

    def good(self, kind: str, latency_s: float) -> None:
        """An answer to a request of this kind (its template), so long after it was sent."""
        if self._strain:
            self._strain = max(0.0, self._strain - STRAIN_FORGOTTEN)
        slow = self._is_slow(kind, latency_s)
        if slow or (self.level >= self.ceiling and not self.gap_s):
            return
        self._good += 1
        if self.gap_s:
            if self._good >= GAP_STREAK:
                self.gap_s = self.gap_s / 2 if self.gap_s > LEAST_GAP * self._base_s else 0.0
                self._good = 0
            return
        windows = self._patience if self.level + 1 >= self._refused_at_level else 1
        if self._good >= self.level * windows:
            self.level += 1
            self._good = 0
            if self.level > self._refused_at_level:
                self._refused_at_level, self._patience = self.ceiling + 1, 1

    def refused(self, sent_at: float, now: float) -> None:
        """The server says that it is too much (429), to a request that was sent at `sent_at`."""
        if sent_at <= self._cut_at:
            return
        if self.level == FLOOR:
            most = MOST_GAP * self._base_s
            self.gap_s = min(max(2 * self.gap_s, LEAST_GAP * self._base_s), most)
        self._cut(now)

    def strained(self, sent_at: float, now: float) -> None:
        """Note that the server, or what stands before it, could not cope (502, 503, 504, no answer in time)."""
        if sent_at <= self._cut_at:
            return
        self._strain += 1
        if self._strain >= STRAIN_IN_NUMBERS:
            self._cut(now)

    def _cut(self, now: float) -> None:
        again = self.level >= self._refused_at_level
        self._patience = min(self._patience * 2, MOST_PATIENCE) if again else 2
        self._refused_at_level = max(self.level, FLOOR + 1)
        self.level = max(FLOOR, self.level // 2)
        self._cut_at, self._strain, self._good = now, 0.0, 0

    def _is_slow(self, kind: str, latency_s: float) -> bool:
        usual = self._usual.get(kind)
        if usual is None:
            if len(self._usual) >= MOST_KINDS:
                return False
            usual = self._usual[kind] = _UsualLatency()
        slow = latency_s > SLOW_TIMES * usual.least + SLOW_S
        usual.total += latency_s
        usual.count += 1
        if usual.count == WINDOW:
            usual.least = min(usual.total / WINDOW, usual.least * DRIFT)
            usual.total, usual.count = 0.0, 0
        self._slow += slow
        self._seen += 1
        if self._seen >= WINDOW and self._seen >= 2 * self.level:
            if 2 * self._slow > self._seen:
                self.level = max(FLOOR, self.level - max(1, self.level // 5))
                self._good = 0
            self._slow = self._seen = 0
        return slow
