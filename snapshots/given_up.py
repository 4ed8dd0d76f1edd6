"""The shapes of given-up work: when a run begins at a new address, or by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class LeftBehind(NamedTuple):
    """What a run gave up when it began, because its connection's base_url had changed."""

    runs: int = 0  # that were open
    jobs: int = 0  # exports at the old address


@dataclass(frozen=True, kw_only=True)
class Discarded:
    """What was given up by hand for one run."""

    run_closed: bool  # it was open
    job: Literal["dropped", "left to the next run"] | None  # its export; None: it has left none
