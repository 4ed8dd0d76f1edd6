"""How many requests per minute: a site's quota, and what rate limit headers say is left. Pure; `limits` does the waiting.

The quota is a token bucket in the form of GCRA (ITU-T I.371): one number, the moment from which the next request is in time,
so that a run can hand it to the next. A tenth of the quota may come at once; no minute sees more than the quota.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple, cast

from http_sf import StructuredFieldError, parse

from connectors.fhir.instants import wait_until

MINUTE_S = 60.0
_NUMBER = re.compile(r"\d{1,18}(\.\d{1,18})?")  # longer ones are infinite as a float, or no int at all
_WINDOWS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
_REMAINING = re.compile(r"(?:x-)?rate-?limit-remaining(?:-(\w+))?")
_RESET = re.compile(r"(?:x-)?rate-?limit-reset(?:-\w+)?")


class Allowance(NamedTuple):
    """What a server says: so many more requests within the next `reset_s` seconds."""

    left: int
    reset_s: float


class Quota:
    """When the next request is in time. `per_minute` None: only what the server says counts."""

    def __init__(self, per_minute: int | None) -> None:
        self.free_at = 0.0
        self.per_minute: int | None = None
        self._interval_s = self._tolerance_s = 0.0
        self._spread_s = 0.0
        self._spread_until = 0.0
        self.tighten(per_minute)

    def tighten(self, per_minute: int | None) -> None:
        """Keep to this quota too; the smallest holds."""
        if per_minute is None or (self.per_minute is not None and self.per_minute <= per_minute):
            return
        self.per_minute = per_minute
        burst = max(1, per_minute // 10)
        self._interval_s = MINUTE_S / max(per_minute - burst, 1)
        self._tolerance_s = (burst - 1) * self._interval_s

    def rules(self, now: float) -> bool:
        """Whether requests must be counted at all."""
        return self.per_minute is not None or now < self._spread_until

    def spreads(self, now: float) -> bool:
        """Whether what the server says is left is being spread over the time."""
        return now < self._spread_until

    def take(self, now: float) -> float:
        """Take one request out of the quota; return the seconds to wait before sending it."""
        interval, tolerance = self._interval_s, self._tolerance_s
        if now < self._spread_until:
            interval, tolerance = max(interval, self._spread_s), 0.0
        at = max(self.free_at, now)
        self.free_at = at + interval
        return max(0.0, at - tolerance - now)

    def heard(self, allowance: Allowance, now: float, *, in_use: int) -> float:
        """Follow the server's own count; return the moment until which nothing may be sent (0: there is none).

        While much is left nothing changes; when less is left than twice the places, the rest is spread over the time.
        """
        if allowance.left <= 0:
            return now + allowance.reset_s
        if allowance.left <= 2 * in_use:
            self._spread_s, self._spread_until = allowance.reset_s / allowance.left, now + allowance.reset_s
        return 0.0


def allowance_from(headers: Iterable[tuple[bytes, bytes]], now: float) -> Allowance | None:
    """The tightest allowance in an answer's headers; None if they have none.

    Read are X-RateLimit-* (also by -Second, -Minute, -Hour, -Day as Kong writes them; reset in seconds, epoch seconds or ms),
    the IETF draft's RateLimit-* and RateLimit (`limit=, remaining=, reset=`; `"policy";r=;t=`) with RateLimit-Policy (`;w=`). A
    field with several policies has one allowance for each.
    """
    found: list[tuple[int, float | None, str]] = []  # so many, within, of this policy
    reset: float | None = None
    windows: dict[str, float] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
        if remaining := _REMAINING.fullmatch(name):
            if _NUMBER.fullmatch(value):
                found.append((int(float(value)), _WINDOWS.get(remaining[1] or ""), ""))
        elif _RESET.fullmatch(name):
            reset = _seconds(value, now) if reset is None else reset
        elif name == "ratelimit":
            for policy, fields in _policies(raw_value):
                left, then = fields.get("remaining", fields.get("r")), fields.get("reset", fields.get("t"))
                if left is not None:
                    found.append((left, None if then is None else float(then), policy))
        elif name == "ratelimit-policy":
            windows |= {policy: float(fields["w"]) for policy, fields in _policies(raw_value) if "w" in fields}
    if not found:
        return None
    rest = reset if reset is not None else min(windows.values(), default=MINUTE_S)
    allowances = (Allowance(left, windows.get(policy, rest) if own is None else own) for left, own, policy in found)
    return min(allowances, key=lambda allowance: allowance.left)


def _policies(field: bytes) -> Iterator[tuple[str, dict[str, int]]]:
    """Each policy of a structured field (RFC 9651) and its numbers; none where it is no such field.

    Since the draft's 8th version a policy is a member of a list and has parameters; before it the field was one dictionary.
    """
    try:
        listed = cast("list[tuple[object, dict[str, object]]]", parse(field.lower(), tltype="list"))
        yield from ((str(policy), _counts(parameters)) for policy, parameters in listed)
    except StructuredFieldError:
        with suppress(StructuredFieldError):
            named = cast("dict[str, tuple[object, dict[str, object]]]", parse(field.lower(), tltype="dictionary"))
            yield "", _counts({name: item for name, (item, _) in named.items()})


def _counts(parameters: Mapping[str, object]) -> dict[str, int]:
    return {name: each for name, each in parameters.items() if type(each) is int and each >= 0}


def _seconds(value: str, now: float) -> float | None:
    return wait_until(float(value), now=now) if _NUMBER.fullmatch(value) else None
