"""Makes a history out of a seed: the same for ever, as long as this file is. Pure.

The EHR is carried along, so that what is chosen applies. Bounded where no client could do right: neither lists nor reads have a
row that is there (`Lie` and its kin) in one night of a history alone, since what lists and reads say on two nights is believed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from tests.histories import steps as s
from tests.histories.ehr import Ehr
from tests.histories.twists import twisted

T = TypeVar("T")

_TYPES: tuple[tuple[tuple[str, ...], int], ...] = (
    ((), 3),
    ((s.PATIENT, s.OBSERVATION, s.CONDITION), 5),
    ((s.PATIENT, s.OBSERVATION), 2),
    ((s.OBSERVATION,), 1),
)
_MODES = (  # of the home ask: who, mode, weight
    ("all", "crawl", 5),
    ("all", "bulk", 4),
    ("all", "auto", 3),
    ("group:A", "bulk", 4),
    ("group:A", "crawl", 2),
    ("cohort", "crawl", 4),
    ("cohort", "bulk", 1),
    ("store", "crawl", 1),
)
_MASS = 0.12  # of all histories: rows in number
_BLIND = 0.25  # of all histories: reads that know nothing, at the end
_TOLD_TWICE = 0.25  # of all histories with exports: two contents of one version
_LIES = (s.Lie, s.Blind, s.Patients410, s.All410, s.Misled)


def history(seed: int) -> s.History:
    """What the seed means."""
    return twisted(untwisted(seed), seed)


def untwisted(seed: int) -> s.History:
    """What the seed means without its twists."""
    made = _Director(random.Random(seed)).history()
    # by chance of its own: what else a seed means stays the same
    rng = random.Random(f"told twice {seed}")
    if made.site.levels and made.site.dated and rng.random() < _TOLD_TWICE:
        made = made._replace(site=made.site._replace(told_twice=rng.choice(("first", "second", "third"))))
    return made


class _Director:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._many = rng.random() < _MASS
        self._patients = [f"p{n}" for n in range(1, rng.choice((2, 2, 3, 3, 4)) + 1)]
        self._steps: list[s.Step] = []
        self._number = 0
        self._lied = False
        self._undoings: list[s.Happening] = []  # what will be taken back on a later night
        self._types = self._weighted(_TYPES)
        home = self._ask(*self._weighted([((who, mode), weight) for who, mode, weight in _MODES]))
        self._site = self._made_site(home)
        self._ehr = Ehr(self._site, lambda: datetime(2020, 1, 1, tzinfo=UTC))
        self._asks = [home, *self._others(home)]

    def history(self) -> s.History:
        self._populate()
        if self._rng.random() < 0.7:  # a first night on which nothing is wrong
            self._do(s.Run(self._asks[0]))
        for _ in range(self._rng.randint(2, 4)):
            self._night()
        if not self._lied and self._rng.random() < 0.3:
            self._one_lied_to_and_another_not()
        if not self._lied and self._rng.random() < _BLIND:
            self._reads_know_nothing()
        return s.History(self._site, tuple(self._steps))

    # -- the site

    def _made_site(self, home: s.Ask) -> s.Site:
        rng = self._rng
        needed = {"group:A": "group", "all": rng.choice(("system", "patient"))}.get(home.who, "patient")
        levels = {level for level in ("system", "patient", "group") if rng.random() < 0.25}
        if home.mode == "bulk" or (home.mode == "auto" and rng.random() < 0.8):
            levels.add(needed)
        return s.Site(
            home=home,
            levels=tuple(sorted(levels)),
            incremental=rng.random() < 0.7,
            reconcile_every_d=rng.choice((2, 7, 7)),
            page=rng.choice((None, None, 2, 3)) if not self._many else rng.choice((None, 10)),
            totals=rng.random() < 0.5,
            dated=rng.random() < 0.9,
            skew_s=rng.choice((0, 0, 0, -7200, 600)),
            date_skewed=rng.random() < 0.6,
            gone=rng.choice((404, 410)),
            reads=rng.random() < 0.85,
            batches=rng.random() < 0.7,
            tells_deletions=rng.random() < 0.4,
            readable_groups=home.mode == "crawl" or rng.random() < 0.8,
            follow=rng.random() < 0.4,
        )

    def _ask(self, who: str, mode: str) -> s.Ask:
        if who == "cohort":
            who = f"cohort:{','.join(self._some_patients())}"
        return s.Ask(who, mode, self._types)

    def _some_patients(self) -> list[str]:
        return sorted(self._rng.sample(self._patients, self._rng.randint(1, len(self._patients))))

    def _others(self, home: s.Ask) -> list[s.Ask]:
        """Further asks of the same connection: other selections, modes and types."""
        rng = self._rng
        found = []
        for _ in range(rng.choice((0, 1, 1, 2))):
            kind = rng.random()
            if kind < 0.3:
                found.append(s.Ask(f"pull:{rng.choice(self._patients)}", "crawl", self._types))
            elif kind < 0.5:
                found.append(home._replace(types=self._weighted(_TYPES)))
            elif kind < 0.65 and home.group:
                found.append(home._replace(who="group:B"))
            else:
                found.append(self._ask(*self._weighted([((who, mode), weight) for who, mode, weight in _MODES])))
        return found

    def _populate(self) -> None:
        rng = self._rng
        for patient in self._patients:
            self._do(s.Add(s.PATIENT, patient, patient, age_d=300))
        if rng.random() < 0.4:
            self._do(s.Add(s.ORGANIZATION, "org", age_d=300))
        device = None
        if rng.random() < 0.4:
            device = "d1"
            self._do(s.Add(s.DEVICE, device, age_d=300))
        for patient in self._patients:
            for kind in s.CHARTS:
                for _ in range(rng.choice((0, 1, 1, 2, 4))):
                    self._do(s.Add(kind, self._new_id(kind), patient, age_d=rng.choice((0, 0, 3, 30, 200))))
        if device:
            self._do(s.Add(s.OBSERVATION, self._new_id(s.OBSERVATION), self._patients[0], age_d=30, device=device))
        if rng.random() < 0.5:
            self._do(s.Add(s.OBSERVATION, self._new_id("nobody"), age_d=100))
        self._populate_in_number()
        for group in ("A", "B"):
            for patient in self._some_patients():
                self._do(s.Join(group, patient))

    def _populate_in_number(self) -> None:
        rng = self._rng
        if self._many:
            if rng.random() < 0.3:
                self._do(s.AddMany(s.PATIENT, "q", 24, None))
            self._do(s.AddMany(s.OBSERVATION, "m", rng.choice((24, 40, 60)), rng.choice(self._patients)))

    def _new_id(self, kind: str) -> str:
        self._number += 1
        return f"{kind[0].lower()}{self._number}"

    # -- a night

    def _night(self) -> None:
        rng = self._rng
        self._do(s.Wait(rng.choice((24, 24, 24, 1, 72))))
        for undoing in list(self._undoings):
            if rng.random() < 0.5:
                self._undoings.remove(undoing)
                self._do(undoing)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            self._happening()
        if rng.random() < 0.04:
            self._do(s.Upgrade())
        ask = self._asks[0] if rng.random() < 0.6 else rng.choice(self._asks)
        if ask.named and not ask.is_pull and rng.random() < 0.2:
            ask = ask._replace(who=f"cohort:{','.join(self._some_patients())}")
        run = s.Run(
            ask,
            since="none" if rng.random() < 0.2 else "auto",
            faults=self._faults(),
            during=self._during() if rng.random() < 0.12 else (),
            kill=self._kill() if rng.random() < 0.12 else None,
        )
        self._do(run)
        if run.kill is not None and rng.random() < 0.7:  # and goes on
            if rng.random() < 0.3:
                self._happening()
            self._do(run._replace(kill=None, during=(), faults=()))

    def _one_lied_to_and_another_not(self) -> None:
        """Two selections know a row; one is told that it is gone, and then the other asks for news, or the same in full."""
        rng, home = self._rng, self._asks[0]
        others = [ask for ask in self._asks if not ask.is_pull]
        if home.group:
            others.append(home._replace(who="group:B"))
        elif home.mode == "crawl":
            others.append(home._replace(who=f"cohort:{','.join(self._patients)}"))
        first = rng.choice(others)
        second = rng.choice([ask for ask in others if ask != first] or others)
        for group in ("A", "B"):  # a row more that both know is what lets the lie be believed
            self._do(s.Join(group, self._patients[0]))
        known = [self._new_id(s.OBSERVATION) for _ in range(2)]
        for one in known:
            self._do(s.Add(s.OBSERVATION, one, self._patients[0], age_d=100))
        for ask in (first, second):
            self._do(s.Run(ask))
            self._do(s.Wait(rng.choice((1, 24))))
        self._lied = True
        row = self._pattern() if self._many else f"Observation/{known[0]}"
        self._do(s.Run(first, since="none", faults=(s.Lie((row,)),)))
        self._do(s.Wait(24))
        self._do(s.Run(second))

    def _reads_know_nothing(self) -> None:
        """A row is known, and then no list has it while reads of its type answer 404 to everything."""
        kind = self._rng.choice(s.CHARTS)
        row = self._new_id(kind)
        self._do(s.Add(kind, row, self._patients[0], age_d=100))
        self._do(s.Run(self._asks[0]))
        self._do(s.Wait(24))
        self._lied = True
        self._do(s.Run(self._asks[0], since="none", faults=(s.Blind(kind, (f"{kind}/{row}",)),)))

    def _kill(self) -> s.Kill:
        at = self._rng.choice(("request", "write", "written"))
        return s.Kill(at, self._rng.randint(2, 12) if at == "request" else self._rng.randint(1, 5))

    def _during(self) -> tuple[tuple[int, s.Happening], ...]:
        rng = self._rng
        found = []
        for _ in range(rng.choice((1, 1, 2))):
            made = rng.choice((self._changed, self._dropped, self._added, self._moved))()
            if made is not None:
                found.append((rng.randint(2, 12), made))
                self._ehr.happens(made)
        return tuple(found)

    def _faults(self) -> tuple[s.Fault, ...]:
        rng = self._rng
        if rng.random() > 0.4:
            return ()
        rows = self._pattern()
        faults: list[Callable[[], s.Fault]] = [
            lambda: s.Sick((rows,)),
            lambda: s.Sick((rows, self._pattern())),
            lambda: s.Refuse(
                rng.choice((s.PATIENT, *s.CHARTS)), rng.choice((403, 404, 404, 400, 501)), self._refused()
            ),
            lambda: s.Incomplete(rng.choice(s.CHARTS)),
            s.NoExport,
            lambda: s.Flaky(rng.choice((3, 5))),
        ]
        if not self._lied:
            faults += [
                lambda: s.Lie((rows,)),
                lambda: s.Lie((rows, self._pattern())),
                s.Patients410,
                s.All410,
                lambda: s.Misled(*rng.sample(self._patients, 2)),
            ]
        fault = rng.choice(faults)()
        self._lied = self._lied or isinstance(fault, _LIES)
        return (fault,)

    def _refused(self) -> tuple[str, ...]:
        return (self._rng.choice(self._patients),) if self._rng.random() < 0.5 else ()

    def _pattern(self) -> str:
        """Some row, a patient, or a mass."""
        if self._many and self._rng.random() < 0.6:
            return "Observation/m*"
        if self._rng.random() < 0.2:
            return f"{self._rng.choice(s.CHARTS)}/*"
        keys = sorted(self._ehr.rows)
        return "/".join(self._rng.choice(keys)) if keys else "Observation/o1"

    # -- what happens

    def _happening(self) -> None:
        choices = [
            (self._added, 4), (self._changed, 4), (self._dropped, 5), (self._patient_dropped, 1), (self._restored, 3),
            (self._moved, 3), (self._hidden, 2), (self._shown, 3), (self._withheld, 1), (self._permitted, 2),
            (self._merged, 2), (self._unmerged, 3), (self._joined, 2), (self._left, 2), (self._levels, 1),
        ]  # fmt: skip
        made = self._weighted(choices)()
        if made is not None:
            self._do(made)
            if (undoing := self._undoing(made)) is not None and self._rng.random() < 0.5:
                self._undoings.append(undoing)

    def _undoing(self, made: s.Happening) -> s.Happening | None:
        """What takes it back: histories are about servers that change their mind."""
        match made:
            case s.Hide() | s.Add(shown=False):
                return s.Show(made.type, made.id)
            case s.Withhold():
                return s.Permit(made.type, made.id)
            case s.Merge():
                return s.Unmerge(made.former, dated=self._dated())
            case s.Leave():
                return s.Join(*made)
            case s.Join():
                return s.Leave(*made)
            case s.Drop():
                return s.Restore(made.type, made.id, dated=self._dated())
            case s.DropPatient():
                return s.Restore(s.PATIENT, made.id, dated=self._dated())
            case s.Levels():
                return s.Levels(self._site.levels)
        return None

    def _do(self, step: s.Step) -> None:
        self._steps.append(step)
        if isinstance(step, s.Happening):
            self._ehr.happens(step)

    def _row(self, *types: str) -> tuple[str, str] | None:
        keys = sorted(
            key for key in self._ehr.rows if key[0] in (types or s.TYPES) and not key[1].startswith(("m", "q"))
        )
        return self._rng.choice(keys) if keys else None

    def _dated(self) -> bool:
        return self._rng.random() < 0.7

    def _added(self) -> s.Happening:
        rng, kind = self._rng, self._rng.choice(s.CHARTS)
        patient = rng.choice([*self._patients, self._patients[0], None])
        return s.Add(kind, self._new_id(kind), patient, age_d=rng.choice((0, 0, 0, 1, 300)), shown=rng.random() < 0.8)

    def _changed(self) -> s.Happening | None:
        key = self._row()
        return s.Change(*key, dated=self._dated()) if key else None

    def _dropped(self) -> s.Happening | None:
        if self._many and self._rng.random() < 0.3:
            return s.Drop(s.OBSERVATION, "m*")
        key = self._row(*s.CHARTS, *s.CHARTS, s.DEVICE, s.ORGANIZATION)
        return s.Drop(*key) if key else None

    def _patient_dropped(self) -> s.Happening:
        return s.DropPatient(self._rng.choice(self._patients))

    def _restored(self) -> s.Happening | None:
        keys = sorted(self._ehr.dropped)
        return s.Restore(*self._rng.choice(keys), dated=self._dated()) if keys else None

    def _moved(self) -> s.Happening | None:
        key = self._row(*s.CHARTS)
        return s.Move(*key, self._rng.choice(self._patients), dated=self._dated()) if key else None

    def _hidden(self) -> s.Happening | None:
        key = self._row(s.PATIENT, *s.CHARTS)
        return s.Hide(*key) if key else None

    def _shown(self) -> s.Happening | None:
        keys = sorted(row.key for row in self._ehr.rows.values() if not row.shown)
        return s.Show(*self._rng.choice(keys)) if keys else None

    def _withheld(self) -> s.Happening | None:
        key = self._row(s.PATIENT, *s.CHARTS)
        return s.Withhold(*key) if key else None

    def _permitted(self) -> s.Happening | None:
        keys = sorted(row.key for row in self._ehr.rows.values() if row.withheld)
        return s.Permit(*self._rng.choice(keys)) if keys else None

    def _merged(self) -> s.Happening:
        former, survivor = self._rng.sample(self._patients, 2)
        return s.Merge(former, survivor, self._rng.choice(("redirect", "redirect", "link", "gone")))

    def _unmerged(self) -> s.Happening | None:
        formers = sorted(self._ehr.merged)
        return s.Unmerge(self._rng.choice(formers), dated=self._dated()) if formers else None

    def _joined(self) -> s.Happening:
        return s.Join(self._rng.choice("AAB"), self._rng.choice(self._patients))

    def _left(self) -> s.Happening:
        return s.Leave(self._rng.choice("AAB"), self._rng.choice(self._patients))

    def _levels(self) -> s.Happening:
        return s.Levels(tuple(level for level in ("group", "patient", "system") if self._rng.random() < 0.4))

    def _weighted(self, choices: Sequence[tuple[T, int]]) -> T:
        return self._rng.choices([value for value, _ in choices], [weight for _, weight in choices])[0]
