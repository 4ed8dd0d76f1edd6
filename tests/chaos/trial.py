"""What a seed means: which vendor and way, what is wrong with the EHR and how often, when who is killed. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

FAULTY_RUNS = 6  # then the faults end, so that every seed comes to an end
LEAST, MOST = 0.01, 0.20  # of requests that meet a fault

# vendor, --mode; Epic's bulk is one request a day, VA has none
WAYS = (
    ("epic", "crawl"),
    ("va", "crawl"),
    ("cerner", "bulk"),
    ("cerner", "crawl"),
    ("allscripts", "bulk"),
    ("allscripts", "crawl"),
    ("generic", "bulk"),
    ("generic", "crawl"),
)

_ERRORS = (500, 502, 503, 504)
_BODIES = ("empty", "html", "operation-outcome")
_LIES = ("cut-line", "gzip-cut", "xml", "empty-body", "cut-json", "type-html")

FAULTS: Mapping[str, Callable[[random.Random], dict[str, Any]]] = {
    "cut": lambda rng: {"cut_after_bytes": rng.randrange(3000)},
    "drop": lambda rng: {"drop": True},
    "stall": lambda rng: {"stall": True},
    "stall-midway": lambda rng: {"stall_after_bytes": rng.randrange(3000)},
    "error": lambda rng: {"status": rng.choice(_ERRORS), "body": rng.choice(_BODIES)},
    "throttle": lambda rng: {"status": 429, "headers": rng.choice(({}, {"Retry-After": "0"}, {"Retry-After": "7200"}))},
    "firewall": lambda rng: {"wrong_content": True},
    "token-expiry": lambda rng: {"forget_tokens": True},
    "lie": lambda rng: {"rewrite": rng.choice(_LIES)},
    "slow": lambda rng: {"delay_s": rng.uniform(0, 0.2)},
}
_STALLS = {"stall", "stall-midway"}  # each costs a time-out: rarer than the others


@dataclass(frozen=True, kw_only=True)
class Kill:
    """The end of a process: at which run, after how many requests of it, and whose."""

    run: int
    after: int
    victim: Literal["sync", "postgres"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """All that happens under one seed."""

    seed: int
    vendor: str
    mode: str
    rate: float
    kinds: tuple[str, ...]
    rules: tuple[Mapping[str, Any], ...]
    knobs: Mapping[str, Any]
    profile: Mapping[str, Any]
    earlier_night: bool  # a good sync first, after which the source changes
    kills: tuple[Kill, ...]

    def __str__(self) -> str:
        ends = ", ".join(f"{s.victim} killed in run {s.run} after {s.after} requests" for s in self.kills)
        before = "after a good night and changes, " if self.earlier_night else ""
        return (
            f"{self.vendor} {self.mode}, {before}{self.rate:.0%} of {' '.join(self.kinds)}{'; ' if ends else ''}{ends}"
        )


def trial_of(seed: int) -> Trial:
    """What this seed means; the same for ever, as long as this file is."""
    rng = random.Random(seed)
    vendor, mode = WAYS[seed % len(WAYS)]
    rate = rng.uniform(LEAST, MOST)
    kinds = tuple(sorted(rng.sample(sorted(FAULTS), rng.randint(2, 5))))
    rules = [
        {
            "match": {},
            "action": FAULTS[kind](rng),
            "probability": min(rate / len(kinds), 0.02) if kind in _STALLS else rate / len(kinds),
        }
        for kind in kinds
    ]
    if rng.random() < 0.4:  # a storm of refusals: for a while every request is refused
        begins = rng.randrange(5, 60)
        rules.insert(
            0, {"match": {}, "action": {"status": 429}, "first": begins, "last": begins + rng.randrange(5, 40)}
        )
        kinds = (*kinds, "storm")
    kills = [
        Kill(run=run, after=rng.randrange(2, 60), victim="sync" if rng.random() < 0.65 else "postgres")
        for run in range(rng.choice((0, 1, 1, 2, 3)))
    ]
    knobs = {
        "rows_per_file": rng.choice((20, 60, 5000)),
        "page_size": rng.choice((10, 50, None)),
        "clock_skew_s": rng.choice((0, 0, 0, 400, -400)),
        "latency_s": 0.04 if kills else rng.choice((0, 0.01)),
        "polls": rng.randint(0, 3),
        "fault_seed": seed,
    }
    profile = {"retry.floor": rng.choice((5, 100, 2000)), "retry.max_tries": rng.choice((3, 9))}
    return Trial(
        seed=seed,
        vendor=vendor,
        mode=mode,
        rate=rate,
        kinds=kinds,
        rules=tuple(rules),
        knobs=knobs,
        profile=profile,
        earlier_night=rng.random() < 0.5,
        kills=tuple(kills),
    )
