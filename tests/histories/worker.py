"""One of the processes that histories are played in: a stage of its own, a seed at a time, each failure made small."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

from tests.histories.director import history
from tests.histories.shrink import shrunk
from tests.histories.stage import Stage


class Played(NamedTuple):
    """How one seed ended."""

    seed: int
    kind: str = ""
    text: str = ""


@dataclass(frozen=True)
class _Worker:
    stage: Stage
    shrink: int  # plays to make a failure smaller


_worker: list[_Worker] = []  # a process has one


def enter(url: str, shrink: int) -> None:
    """Begin this process."""
    _worker.append(_Worker(Stage(url, f"worker{os.getpid()}"), shrink))


def played(seed: int) -> Played:
    """Play one seed."""
    stage, most = _worker[0].stage, _worker[0].shrink
    made = history(seed)
    failure, runs = stage.play(made)
    if failure is None:
        return Played(seed)
    small, smallest = shrunk(made, failure, lambda one, to_end: stage.play(one, to_end=to_end)[0], most=most)
    if most:
        runs = stage.play(small, to_end=smallest.step < 0)[1]
    text = f"FAIL  seed {seed}: {smallest}\n{_indented(str(small))}\n      runs: {'; '.join(runs)}"
    return Played(seed, failure.kind, text)


def _indented(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines())
