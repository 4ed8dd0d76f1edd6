"""Adds twists to the history that `director` makes of a seed: a server or its operator that changes its ways. Pure.

A twist inserts a few steps, or changes what a run requests. Twists draw from a random generator of their own, so the rest of a
seed's history stays the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

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
_NARROWED = ("filter", "elements", "until")
_LEVELS = ("group", "patient", "system")
_OF_ONES_OWN = 0.5  # of some twists: nights of their own at the end, in place of one that comes anywhere
_TYPES = (*s.CHARTS, s.DEVICE, s.ORGANIZATION)


def twisted(made: s.History, seed: int) -> s.History:
    """The same history, with some twists, or as it is."""
    if not any(isinstance(step, s.Run) for step in made.steps):
        return made
    return _twice_there(_changeful(made, seed), seed)


def forced(made: s.History, name: str, seed: int) -> s.History | None:
    """The same history with this twist alone; None: it leaves the history as it is, or there is no run."""
    if not any(isinstance(step, s.Run) for step in made.steps):
        return None
    twisting = _Twisting(made, random.Random(f"{name} {seed}"))
    twisting.named[name]()
    found = s.History(twisting.site, tuple(twisting.steps))
    return None if found == made else found


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
        faults = (
            s.LostJob(),
            s.LostFile(s.PATIENT, 404),
            s.CutFile(s.PATIENT),
            s.LostPage(404),
            s.Unnarrowed(s.OBSERVATION),
        )
        self.twists: tuple[Callable[[], None], ...] = (
            self._manner,
            self._manner,
            self._slipped,
            self._out_and_back,
            self._clock_back,
            self._clock_behind,
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
            self._narrowed,
            self._narrowed,
            self._categories,
        )
        self.named: dict[str, Callable[[], None]] = {
            **{name: partial(self._manner, name) for name in _MANNERS},
            **{type(fault).__name__: partial(self._fault, type(fault)) for fault in faults},
            **{name: partial(self._narrowed, name) for name in _NARROWED},
            **{twist.__name__.removeprefix("_"): twist for twist in self.twists},
            **{twist.__name__: twist for twist in (self.beside, self.other_case, self.at_once)},
        }

    def _puts(self, *steps: s.Step | None) -> None:
        """Between the steps that are there, one after another; a None is left out."""
        places = sorted(self._rng.randint(self._first, len(self.steps)) for _ in steps)
        for place, step in reversed(list(zip(places, steps, strict=True))):
            if step is not None:
                self.steps.insert(place, step)

    def _perhaps(self, step: s.Step) -> s.Step | None:
        return step if self._rng.random() < 0.6 else None

    def _manner(self, field: str = "") -> None:
        field = field or self._rng.choice(sorted(_MANNERS))
        before = getattr(self._site, field)
        after = self._rng.choice([value for value in _MANNERS[field] if value != before])
        self._puts(s.Becomes(field, after), self._perhaps(s.Becomes(field, before)))

    def _slipped(self) -> None:
        """While pages of the first night are read, the first of a patient's rows goes, so that another slips through."""
        rng, number = self._rng, len(self.steps)
        at, run = next((at, step) for at, step in enumerate(self.steps) if isinstance(step, s.Run))
        kind, patient = rng.choice(s.CHARTS), rng.choice(self._patients)
        rows = [s.Add(kind, f"{prefix}{number}", patient) for prefix in ("a", "zy", "zz")]
        goes = (rng.randint(4, 25), s.Drop(kind, rows[0].id))
        self.site = self._site._replace(page=1, totals=rng.random() < 0.8)
        self.steps[at : at + 1] = [*rows, run._replace(during=(*run.during, goes))]
        self._first += len(rows)

    def _out_and_back(self) -> None:
        """While nobody can read the Group, somebody is not in it, and his rows change."""
        home, number = self._site.home, len(self.steps)
        if home.group is None or home.mode == "crawl" or "group" not in self._site.levels:
            return
        run, two = s.Run(home), (f"out{number}", f"in{number}")
        out = (home.group, two[0])
        self.steps += [
            *(s.Becomes("incremental", True), s.Becomes("readable_groups", True), s.Levels(self._site.levels)),
            *(s.Add(s.PATIENT, one, one, age_d=300) for one in two),
            *(s.Add(s.OBSERVATION, f"o-{one}", one, age_d=30) for one in two),
            *(*(s.Join(home.group, one) for one in two), s.Wait(1), run),
            *(s.Becomes("readable_groups", False), s.Leave(*out)),
            *(*(s.Change(s.OBSERVATION, f"o-{one}") for one in two), s.Wait(1), run),
            *(s.Becomes("readable_groups", True), s.Join(*out), s.Wait(1), run),
        ]

    def _clock_back(self) -> None:
        """The EHR's clock is a day ahead on one night, and put right; rows change before the next."""
        run = s.Run(self._site.home)
        self.steps += [
            *(s.Becomes("incremental", True), s.Becomes("skew_s", 90_000), s.Wait(1), run),
            *(s.Becomes("skew_s", 0), *self._changes(self._rng.choice(self._patients)), s.Wait(1), run),
        ]

    def _clock_behind(self) -> None:
        """What changes is dated two hours before it did, and no Date header tells of it."""
        run = s.Run(self._site.home)
        self.steps += [
            *(s.Becomes("incremental", True), s.Becomes("skew_s", -7200), s.Becomes("date_skewed", False)),
            *(s.Wait(1), run),
            *(*self._changes(self._rng.choice(self._patients)), s.Wait(1), run),
        ]

    def _changes(self, patient: str) -> list[s.Step]:
        """A row of the patient's changes, if there is one."""
        rows = [step for step in self.steps if isinstance(step, s.Add) and step.patient == patient]
        return [s.Change(row.type, row.id) for row in rows if row.type in s.CHARTS][-1:]

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

    def _narrowed(self, how: str = "") -> None:
        """Exports that leave something out, at home or on one night."""
        how = how or self._rng.choice(_NARROWED)
        if how == "until" and self._by_chance("until") < _OF_ONES_OWN:
            self._until_twice()
            return
        asks = [step.ask for step in self.steps if isinstance(step, s.Run)]
        if how == "filter" and any(s.OBSERVATION not in one.types for one in (*asks, self._site.home)):
            return  # a filter names its type
        if self._rng.random() < 0.5:
            self._alters(lambda run: run._replace(ask=run.ask._replace(narrowed=how)))
            return
        home = self._site.home
        self.site = self._site._replace(home=home._replace(narrowed=how))
        for at, step in enumerate(self.steps):
            if isinstance(step, s.Run) and step.ask == home:
                self.steps[at] = step._replace(ask=self.site.home)

    def _until_twice(self) -> None:
        """A row that exports until an instant have, until it changes after that instant."""
        ask = self._site.home._replace(mode="bulk", narrowed="until")
        run, ((row,), joins) = s.Run(ask, since="none"), self._of_home("until")
        self.steps += [
            *(s.Levels(_LEVELS), row, *joins, s.Wait(1), run),
            *(s.Wait(2 * s.UNTIL_H), s.Change(row.type, row.id), run, s.Wait(), run),
        ]

    def _of_home(self, *names: str) -> tuple[list[s.Add], list[s.Join]]:
        """Old Observations of somebody whom the home ask asks for; and what it takes to be so."""
        home = self._site.home
        patient = home.named[0] if home.named else self._patients[0]
        rows = [s.Add(s.OBSERVATION, f"{name}{len(self.steps)}", patient, age_d=30) for name in names]
        return rows, [s.Join(home.group, patient)] if home.group else []

    def _by_chance(self, of: str) -> float:
        """By chance of its own: what else a seed means stays the same."""
        return random.Random(f"{of} {len(self.steps)} {self._patients}").random()

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
        if self._by_chance("pruned") < _OF_ONES_OWN:
            self._pruned_when_first_met()
        else:
            self._puts(s.Prune())

    def _pruned_when_first_met(self) -> None:
        """Exports of news are the first to list a type, and the store is pruned before the one that must be full."""
        (row, new), run = self._of_home("old", "new")[0], s.Run(s.Ask(mode="bulk"))
        self.steps += [
            *(s.Becomes("incremental", True), s.Levels(_LEVELS), row, s.Unserve(row.type)),
            *(s.Wait(1), run._replace(since="none"), s.Serve(row.type), new, s.Change(new.type, new.id)),
            *(s.Wait(1), run, s.Prune(), s.Wait(1), run),
        ]

    def _since(self) -> None:
        """A run asks from an instant and so has a row that the one before could not list; another leaves a gap behind it."""
        runs = [at for at, step in enumerate(self.steps) if isinstance(step, s.Run)]
        if len(runs) < 2:
            return
        number = self._rng.randint(1, len(runs) - 1)
        before, at = runs[number - 1], runs[number]
        run, home = self.steps[at], s.Run(self._site.home)
        assert isinstance(run, s.Run)
        kind, patient, late = self._rng.choice(s.CHARTS), self._rng.choice(self._patients), f"late{at}"
        self.steps[at] = run._replace(since=self._rng.choice(("1h", "36h", "100h")))
        self.steps.insert(at, s.Show(kind, late))
        self.steps.insert(before, s.Add(kind, late, patient, shown=False))
        self._first += before < self._first
        (gap, near), joins = self._of_home("gap", "near")  # what is near moves the watermark of a crawl
        self.steps += [
            *(s.Becomes("incremental", True), gap, near, *joins, s.Wait(1), home._replace(since="none")),
            *(s.Change(gap.type, gap.id), s.Wait(), s.Change(near.type, near.id), home._replace(since="1h")),
            *(s.Wait(1), home),
        ]

    def _fault(self, wanted: type | None = None) -> None:
        rng, kind = self._rng, self._rng.choice(s.CHARTS)
        fault = rng.choice(
            [
                fault
                for fault in (
                    s.LostJob(),
                    s.LostFile(rng.choice((s.PATIENT, kind)), rng.choice((404, 403, 410, 500))),
                    s.CutFile(rng.choice((s.PATIENT, kind))),
                    s.LostPage(rng.choice((404, 410, 500))),
                    s.Unnarrowed(kind),
                )
                if wanted is None or isinstance(fault, wanted)
            ]
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
