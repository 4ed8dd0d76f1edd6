"""Makes a history that fails smaller, as long as it fails in the same kind: fewer steps, fewer faults, plainer runs and site."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.histories import steps as s
from tests.histories.oracle import Failure

Plays = Callable[[s.History], Failure | None]

_PLAIN = s.Site(home=s.Ask())


def shrunk(history: s.History, failure: Failure, plays: Plays, *, most: int) -> tuple[s.History, Failure]:
    """The smallest that was found in `most` plays, and how it fails."""
    tried = 0
    grown = True
    while grown:
        grown = False
        for smaller in _smaller(history):
            if tried >= most:
                return history, failure
            tried += 1
            found = plays(smaller)
            if found is not None and found.kind == failure.kind:
                history, failure, grown = smaller, found, True
                break
    return history, failure


def _smaller(history: s.History) -> Iterator[s.History]:
    """First without its later or earlier halves, then without one step, then with plainer steps and site."""
    steps = history.steps
    size = len(steps) // 2
    while size:
        for at in range(len(steps) - size, -1, -size):
            yield history._replace(steps=steps[:at] + steps[at + size :])
        size //= 2
    for at, step in enumerate(steps):
        for plainer in _plainer(step):
            yield history._replace(steps=(*steps[:at], plainer, *steps[at + 1 :]))
    for name, value in _PLAIN._asdict().items():
        if name != "home" and getattr(history.site, name) != value:
            yield history._replace(site=history.site._replace(**{name: value}))


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
