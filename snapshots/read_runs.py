"""The connections and runs of a snapshot: those that it reads, those that it shows, those that it leaves out. Pure.

`opening` asks the store for them, `reader` reads their rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

BEFORE_ALL_RUNS = datetime.fromtimestamp(0, UTC)


class ShownRun(NamedTuple):
    """The newest run of a connection that left anything in a snapshot, and how it ended."""

    run: int
    connection: str
    kind: str  # "sync" or "pull"
    state: str  # "complete", "partial", "failed" or "nothing"
    last_complete: int | None  # the newest complete sync; None: none yet
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
    ended: int | None  # the run: its place in the order of ends
    erasures: int  # patients who were erased so far
    erased_after: int | None  # its newest run when the last of them was erased; None: nobody was

    @property
    def has_erased_since(self) -> bool:
        """Whether a patient was erased after the newest of these runs had ended."""
        return self.newest is not None and self.erased_after is not None and self.erased_after >= self.newest

    @property
    def shown(self) -> ShownRun | None:
        """Its newest run that left anything; None: no run did."""
        if self.run is None or self.began is None or self.kind is None or self.state is None:
            return None
        return ShownRun(self.run, self.name, self.kind, self.state, self.last_complete, self.began)


class UnendedRun(NamedTuple):
    """A run that has not ended; the snapshot contains nothing of it."""

    run: int
    connection: str
    began: datetime


@dataclass(frozen=True)
class ReadRuns:
    """The connections of a snapshot by name, and the runs whose work it leaves out.

    `unended`: the runs that have not ended, ascending. `left_out`: those, and the runs that ended after the selection's moment.
    """

    sources: tuple[Source, ...]
    unended: tuple[UnendedRun, ...]
    left_out: tuple[int, ...]

    def are_behind(self, others: ReadRuns) -> bool:
        """Whether those show a run of some connection that these leave out."""
        newest = {one.number: one.newest or 0 for one in self.sources}
        return any((one.newest or 0) > newest.get(one.number, 0) for one in others.sources)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The connections' numbers in the store."""
        return tuple(one.number for one in self.sources)

    @property
    def shown(self) -> tuple[ShownRun, ...]:
        """The newest finished run of each connection that left anything, ascending."""
        return tuple(sorted(one.shown for one in self.sources if one.shown is not None))

    @property
    def as_of(self) -> datetime:
        """When the newest included run began; the epoch if none has finished. Never the time of reading."""
        return max((one.began for one in self.sources if one.began), default=BEFORE_ALL_RUNS)

    @property
    def left_by(self) -> int | None:
        """The one of these runs that ended last, for the next `changed_since`; None: no run.

        Times and the highest number are no substitute: runs of several connections may end in another order than they began, and
        by clocks that differ.
        """
        ended = [(one.ended, one.run) for one in self.sources if one.ended is not None and one.run is not None]
        return max(ended)[1] if ended else None
