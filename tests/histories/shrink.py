"""Makes a history that fails smaller, as long as it fails in the same kind: fewer steps, fewer faults, plainer runs and site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from tests.histories import steps as s
from tests.histories.watch import Failure

Plays = Callable[[s.History, bool], Failure | None]  # a history, and whether its end is played too

_PLAIN = s.Site(home=s.Ask())


class _Spent(Exception):  # noqa: N818  no error: there were enough plays
    """No more plays."""


class _Shrinking:
    def __init__(self, history: s.History, failure: Failure, plays: Plays, most: int) -> None:
        self.history = history
        self.failure = failure
        self._plays = plays
        self._left = most
        self._at_end = failure.step < 0

    def takes(self, smaller: s.History) -> bool:
        """Whether it fails alike; then it is the history from now on."""
        if not self._left:
            raise _Spent
        self._left -= 1
        found = self._plays(smaller, self._at_end)
        if found is None or found.kind != self.failure.kind:
            return False
        self.history, self.failure = smaller, found
        return True

    def shrink(self) -> None:
        if self.failure.step >= 0:  # nothing after it matters
            self.history = self.history._replace(steps=self.history.steps[: self.failure.step + 1])
        size = len(self.history.steps) // 2
        while size:
            self._drop(size)
            size //= 2
        for plainer in _plainer_sites(self.history.site):
            self.takes(self.history._replace(site=plainer(self.history.site)))
        at = 0
        while at < len(self.history.steps):
            steps = self.history.steps
            if not any(
                self.takes(self.history._replace(steps=(*steps[:at], plainer, *steps[at + 1 :])))
                for plainer in _plainer(steps[at])
            ):
                at += 1
        self._drop(1)

    def _drop(self, size: int) -> None:
        """From the last steps to the first: what comes later depends on what came before."""
        at = len(self.history.steps) - size
        while at >= 0:
            steps = self.history.steps
            self.takes(self.history._replace(steps=steps[:at] + steps[at + size :]))
            at -= size


def shrunk(history: s.History, failure: Failure, plays: Plays, *, most: int) -> tuple[s.History, Failure]:
    """The smallest that was found in `most` plays, and how it fails."""
    shrinking = _Shrinking(history, failure, plays, most)
    with suppress(_Spent):
        shrinking.shrink()
    return shrinking.history, shrinking.failure


def _plainer_sites(site: s.Site) -> Iterator[Callable[[s.Site], s.Site]]:
    for name, value in _PLAIN._asdict().items():
        if name not in {"home", "levels"} and getattr(site, name) != value:
            yield lambda now, name=name, value=value: now._replace(**{name: value})  # type: ignore[misc]


def _plainer(step: s.Step) -> Iterator[s.Step]:
    if isinstance(step, s.AddMany) and step.count > 1:
        yield step._replace(count=step.count // 2)
    if not isinstance(step, s.Run):
        return
    if step.kill is not None:
        yield step._replace(kill=None)
    for at in range(len(step.faults)):
        yield step._replace(faults=step.faults[:at] + step.faults[at + 1 :])
    for at in range(len(step.during)):
        yield step._replace(during=step.during[:at] + step.during[at + 1 :])
