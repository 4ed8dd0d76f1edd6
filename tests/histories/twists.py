"""Adds twists to the history that `director` makes of a seed: a server or its operator that changes its ways. Pure.

A twist inserts a few steps, or changes what a run requests. Twists draw from a random generator of their own, so the rest of a
seed's history stays the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.histories import steps as s

_SHARE = 0.5  # of all histories have twists
_TWICE_THERE = 0.3  # of all histories: something that is there more than once
_MANNERS: dict[str, tuple[object, ...]] = {
    "incremental": (True, False),
    "page": (None, 1, 2, 3),
    "totals": (True, False),
    "dated": (True, False),
    "skew_s": (0, -7200, 600, 90_000),
    "gone": (404, 410),
    "reads": (True, False),
    "batches": (True, False),
    "tells_deletions": (True, False),
    "readable_groups": (True, False),
    "follow": (True, False),
    "heeds_since": (True, False),
}
_TYPES = (*s.CHARTS, s.DEVICE, s.ORGANIZATION)


def twisted(made: s.History, seed: int) -> s.History:
    """The same history, with some twists, or as it is."""
    if not any(isinstance(step, s.Run) for step in made.steps):
        return made
    return _twice_there(_changeful(made, seed), seed)


def _twice_there(made: s.History, seed: int) -> s.History:
    """The same, perhaps beside another connection, with ids that differ in case alone, or several requests at once."""
    rng = random.Random(f"twice there {seed}")
    if rng.random() >= _TWICE_THERE:
        return made
    twisting = _Twisting(made, rng)
    rng.choice((twisting.beside, twisting.other_case, twisting.at_once))()
    return s.History(twisting.site, tuple(twisting.steps))


def _changeful(made: s.History, seed: int) -> s.History:
    rng = random.Random(f"twists {seed}")
    if rng.random() >= _SHARE:
        return made
    twisting = _Twisting(made, rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(twisting.twists)()
    return s.History(twisting.site, tuple(twisting.steps))


class _Twisting:
    def __init__(self, made: s.History, rng: random.Random) -> None:
        self._rng = rng
        self.steps = list(made.steps)
        self._first = next(at for at, step in enumerate(self.steps) if isinstance(step, s.Run)) + 1
        added = [step for step in self.steps[: self._first] if isinstance(step, s.Add)]
        self._patients = [step.id for step in added if step.type == s.PATIENT]
        self._rows = [(step.type, step.id) for step in added if step.type in s.CHARTS]
        self.site = self._site = made.site
        self.twists: tuple[Callable[[], None], ...] = (
            self._manner,
            self._manner,
            self._set_back,
            self._reused,
            self._unserved,
            self._erased,
            self._pruned,
            self._since,
            self._fault,
            self._fault,
            self._shared,
            self._shared,
            self._filtered,
            self._categories,
        )

    def _puts(self, *steps: s.Step | None) -> None:
        """Between the steps that are there, one after another; a None is left out."""
        places = sorted(self._rng.randint(self._first, len(self.steps)) for _ in steps)
        for place, step in reversed(list(zip(places, steps, strict=True))):
            if step is not None:
                self.steps.insert(place, step)

    def _perhaps(self, step: s.Step) -> s.Step | None:
        return step if self._rng.random() < 0.6 else None

    def _manner(self) -> None:
        field = self._rng.choice(sorted(_MANNERS))
        before = getattr(self._site, field)
        after = self._rng.choice([value for value in _MANNERS[field] if value != before])
        self._puts(s.Becomes(field, after), self._perhaps(s.Becomes(field, before)))

    def _shared(self) -> None:
        """A row of two patients, from the first night on, and what becomes of it."""
        rng, number = self._rng, len(self.steps)
        kind, whose, also = rng.choice(s.CHARTS), rng.choice([*self._patients, None]), rng.choice(self._patients)
        row = s.Add(kind, f"shared{number}", whose, age_d=rng.choice((0, 30, 200)), also=also)
        self.steps.insert(self._first - 1, row)
        self._first += 1
        becomes: s.Step = rng.choice(
            (
                s.Drop(kind, row.id),
                s.Change(kind, row.id),
                s.Withhold(kind, row.id),
                s.Move(kind, row.id, rng.choice(self._patients)),
            )
        )
        self._puts(self._perhaps(becomes))

    def _filtered(self) -> None:
        """Exports by a filter, at home or on one night."""
        asked = [step.ask for step in self.steps if isinstance(step, s.Run)]
        if any(s.OBSERVATION not in one.types for one in (*asked, self._site.home)):  # a filter names its type
            return
        if self._rng.random() < 0.5:
            self._alters(lambda run: run._replace(ask=run.ask._replace(filtered=True)))
            return
        home = self._site.home
        self.site = self._site._replace(home=home._replace(filtered=True))
        for at, step in enumerate(self.steps):
            if isinstance(step, s.Run) and step.ask == home:
                self.steps[at] = step._replace(ask=self.site.home)

    def _categories(self) -> None:
        """Crawls by category, and rows that are of another from some night on."""
        self.site = self.site._replace(splits=True)
        for kind, id_ in self._rows[:2]:
            if kind == s.OBSERVATION:
                to, back = (self._rng.choice("abc") for _ in range(2))
                dated = self._rng.random() < 0.7
                self._puts(s.Recategorize(kind, id_, to, dated), self._perhaps(s.Recategorize(kind, id_, back, dated)))

    def beside(self) -> None:
        self._puts(s.Beside())

    def other_case(self) -> None:
        """A patient, and a row of somebody's, whose ids differ from others in case alone; one of a pair may go."""
        rng = self._rng
        patient, row = rng.choice(self._patients), rng.choice([*self._rows, (s.CONDITION, "c0")])
        pairs = ((s.PATIENT, patient), row)
        also = [
            s.Add(s.PATIENT, patient.upper(), patient.upper(), age_d=300),
            s.Add(row[0], row[1].upper(), rng.choice([patient, patient.upper()]), age_d=100),
        ]
        self.steps[self._first - 1 : self._first - 1] = also
        self._first += len(also)
        self._puts(*(self._perhaps(s.Drop(kind, rng.choice((id_, id_.upper())))) for kind, id_ in pairs))

    def at_once(self) -> None:
        self.site = self.site._replace(at_once=self._rng.choice((2, 4, 8)))

    def _set_back(self) -> None:
        self._puts(s.Backup(), s.SetBack())

    def _reused(self) -> None:
        if self._rows:
            key, patient = self._rng.choice(self._rows), self._rng.choice(self._patients)
            self._puts(s.Drop(*key), s.Reuse(*key, patient, dated=self._rng.random() < 0.7))

    def _unserved(self) -> None:
        resource_type = self._rng.choice(_TYPES)
        self._puts(s.Unserve(resource_type), self._perhaps(s.Serve(resource_type)))

    def _erased(self) -> None:
        """Who shares a row with another patient: that one's goes too, and comes back."""
        patient = self._rng.choice(self._patients)
        # by chance of its own: what else a seed means stays the same
        rng = random.Random(f"erased {patient} {len(self.steps)}")
        other = rng.choice([one for one in self._patients if one != patient])
        row = s.Add(rng.choice(s.CHARTS), f"both{len(self.steps)}", other, age_d=30, also=patient)
        self.steps.insert(self._first - 1, row)
        self._first += 1
        self._puts(s.Erase(patient))

    def _pruned(self) -> None:
        self._puts(s.Prune())

    def _since(self) -> None:
        self._alters(lambda run: run._replace(since=self._rng.choice(("1h", "36h", "100h"))))

    def _fault(self) -> None:
        rng, kind = self._rng, self._rng.choice(s.CHARTS)
        fault = rng.choice(
            (
                s.LostJob(),
                s.LostFile(rng.choice((s.PATIENT, kind)), rng.choice((404, 403, 410, 500))),
                s.CutFile(rng.choice((s.PATIENT, kind))),
                s.LostPage(rng.choice((404, 410, 500))),
                s.Unauthorized(rng.randint(2, 12)),
                s.Unnarrowed(kind),
            )
        )
        self._alters(lambda run: run._replace(faults=(*run.faults, fault)))

    def _alters(self, change: Callable[[s.Run], s.Run]) -> None:
        """One run, not the first."""
        later = [at for at, step in enumerate(self.steps) if at >= self._first and isinstance(step, s.Run)]
        if later:
            at = self._rng.choice(later)
            run = self.steps[at]
            assert isinstance(run, s.Run)
            self.steps[at] = change(run)
