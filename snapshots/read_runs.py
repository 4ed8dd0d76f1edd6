"""What a snapshot says about connections and their runs: those that it reads, those that it shows, those that it leaves out."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class ShownRun(NamedTuple):
    """The newest run of a connection that left anything in a snapshot, and how it ended."""

    run: int
    connection: str
    kind: str  # "sync" or "pull"
    state: str  # "complete", "partial", "failed" or "nothing"
    last_complete: int | None  # the newest complete sync; None: there is none
    began: datetime


class Source(NamedTuple):
    """A connection that is read."""

    name: str
    number: int
    base_url: str
    newest: int | None  # of the runs that have ended
    run: int | None  # of those that left anything
    began: datetime | None
    kind: str | None
    state: str | None
    last_complete: int | None
    history_from: int | None  # the first run whose moment can still be read; None: all can
    ended: datetime | None  # the run
    erasures: int  # patients who were erased so far
    erased_after: int | None  # its newest run when the last of them was erased; None: nobody was

    @property
    def has_erased_since(self) -> bool:
        """Whether a patient was erased after the newest of these runs had ended."""
        return self.newest is not None and self.erased_after is not None and self.erased_after >= self.newest


class UnendedRun(NamedTuple):
    """A run that has not ended; the snapshot contains nothing of it."""

    run: int
    connection: str
    began: datetime
