"""What was given up of a connection's work: as a run begins at another address, or by hand. Shapes only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class LeftBehind(NamedTuple):
    """What a run gave up as it began, since its connection's base_url had changed."""

    runs: int = 0  # that were open
    jobs: int = 0  # exports at the old address


@dataclass(frozen=True, kw_only=True)
class Discarded:
    """What was given up by hand of one run."""

    run_closed: bool  # it was open
    job: Literal["dropped", "left to the next run"] | None  # its export; None: it has left none
