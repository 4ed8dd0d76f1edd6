"""Scripted faults: which requests go wrong, and how. The gate applies the chosen action.

A script is JSON or TOML, with the fields of FaultRule:

    seed = 1
    [[rules]]
    match = { purpose = "search", path = "/Observation" }     # all given must fit; path is a regex; {} fits every request
    every = 7                                                 # or nth = 3, first = 2 with last = 5, probability = 0.1
    action = { status = 503, headers = { Retry-After = "1" }, body = "html" }

Each rule counts the requests that fit its match, from 1. The first rule that applies to a request wins.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from mocks.rewrites import REWRITES

Purpose = Literal["discovery", "token", "search", "read", "kickoff", "status", "file", "object", "delete", "other"]
BodyKind = Literal["empty", "html", "operation-outcome"]


class FaultScriptError(Exception):
    """A fault script cannot be read; the message names the file and the key path."""


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests a rule matches."""

    purpose: Purpose | None = None
    method: str | None = None
    path: str | None = None  # regular expression, searched in the path with its query


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens. Without `status`, `wrong_content`, `drop` or `stall` the server sends the true answer, or a rewrite of it."""

    status: int | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: BodyKind = "empty"
    issue_code: str = "transient"  # of an operation-outcome body
    delay_s: float = 0
    cut_after_bytes: int | None = None  # of the body as sent; then the connection closes
    drop: bool = False  # close the connection without any answer
    wrong_content: bool = False  # 200 with the HTML page of a web application firewall
    stall: bool = False  # never answer; the connection stays open
    stall_after_bytes: int | None = None  # of the body as sent; then nothing more, and the connection stays open
    drip_s: float = 0  # between pieces of 64 bytes of the body
    ignore: tuple[str, ...] = ()  # query parameters that the server then ignores
    forget_tokens: bool = False  # first, all issued tokens become invalid
    rewrite: str | None = None  # the true answer, changed: a name of mocks.rewrites.REWRITES

    def __post_init__(self) -> None:
        if self.rewrite is not None and self.rewrite not in REWRITES:
            raise ValueError(f"no rewrite {self.rewrite!r}; allowed: {', '.join(REWRITES)}")


class FaultRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule. Without nth, every, first, last or probability it applies to every request that fits."""

    match: Match = Match()
    action: Action
    nth: int | None = None
    every: int | None = None
    first: int = 1  # applies from this count ...
    last: int | None = None  # ... to this one
    probability: float | None = None


class FaultScript(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file with rules."""

    rules: tuple[FaultRule, ...]
    seed: int = 1


def read_script(file: Path) -> FaultScript:
    """Read a fault script (.toml or .json). Raises FaultScriptError."""
    try:
        raw = file.read_bytes().removeprefix(b"\xef\xbb\xbf")  # as Windows editors write it
        if file.suffix == ".toml":
            return msgspec.toml.decode(raw, type=FaultScript)
        return msgspec.json.decode(raw, type=FaultScript)
    except OSError as exc:
        raise FaultScriptError(f"fault script {file} cannot be read: {exc.strerror}; check the path") from exc
    except msgspec.DecodeError as exc:
        raise FaultScriptError(f"fault script {file}: {exc}; docs/mocks.md shows what a rule may hold") from exc


class _Counted:
    def __init__(self, rule: FaultRule) -> None:
        self.rule = rule
        self.path = re.compile(rule.match.path) if rule.match.path is not None else None
        self.seen = 0

    def applies(self, purpose: str, method: str, target: str, rng: random.Random) -> bool:
        rule, match = self.rule, self.rule.match
        if match.purpose not in (None, purpose) or match.method not in (None, method):
            return False
        if self.path is not None and not self.path.search(target):
            return False
        self.seen += 1
        if self.seen < rule.first or (rule.last is not None and self.seen > rule.last):
            return False
        if rule.nth is not None and self.seen != rule.nth:
            return False
        if rule.every is not None and self.seen % rule.every != 0:
            return False
        return rule.probability is None or rng.random() < rule.probability


class Faults:
    """The faults of a running mock; rules can be added while it serves. `hits` counts applied actions."""

    def __init__(self, rules: tuple[FaultRule, ...] = (), seed: int = 1) -> None:
        self._rng = random.Random(seed)
        self._rules = [_Counted(rule) for rule in rules]
        self.hits = 0

    def add(self, rule: FaultRule | dict[str, Any]) -> None:
        """Add a rule, as a FaultRule or as the dict that a script would hold. Raises FaultScriptError."""
        try:
            typed = rule if isinstance(rule, FaultRule) else msgspec.convert(rule, FaultRule)
        except msgspec.ValidationError as exc:
            raise FaultScriptError(f"fault rule: {exc}; see mocks/faults.py for the fields") from exc
        self._rules.append(_Counted(typed))

    def clear(self) -> None:
        """Forget every rule."""
        self._rules.clear()

    def pick(self, purpose: str, method: str, target: str) -> Action | None:
        """Return the action for this request, and count the request for every rule that it fits."""
        if not self._rules:
            return None
        found = None
        for counted in list(self._rules):
            if counted.applies(purpose, method, target, self._rng) and found is None:
                found = counted.rule.action
        self.hits += found is not None
        return found
