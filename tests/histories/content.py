"""The content of the EHR in memory, and what happens to it by each step. What of it can be seen is `ehr`'s.

Dates are by the EHR's own clock, which a site may have wrong (`Site.skew_s`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import singledispatchmethod
from typing import Any

from tests.histories import steps as s
from tests.histories.rows import Key, Row, matches

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)  # no deletion of which an export of news would tell


class Content:
    """Rows, merges and groups, and the site's manners. `clock` gives the true time."""

    def __init__(self, site: s.Site, clock: Callable[[], datetime]) -> None:
        self.site = site
        self.rows: dict[Key, Row] = {}
        self.dropped: dict[Key, tuple[Row, datetime]] = {}
        self.led: dict[str, str] = {}  # former patient -> survivor, where the former id redirects
        self.merged: dict[str, tuple[s.Merge, tuple[Key, ...], Row]] = {}
        self.groups: dict[str, list[str]] = {"A": [], "B": []}
        self.levels = site.levels
        self.unserved: set[str] = set()
        self.ever_of: dict[Key, set[str]] = {}  # in whose compartments a row is, or was
        self._backup: dict[str, Any] = {}
        self._clock = clock

    def now(self) -> datetime:
        """By the clock that dates rows."""
        return self._clock() + timedelta(seconds=self.site.skew_s)

    def true_time(self) -> datetime:
        """By a clock that is right."""
        return self._clock()

    def of_type(self, resource_type: str) -> list[Row]:
        return [row for row in self.rows.values() if row.type == resource_type]

    @singledispatchmethod
    def happens(self, step: Any) -> None:
        """Do a step to the content; one that does not apply does nothing."""
        raise TypeError(step)

    @happens.register
    def _(self, step: s.Add) -> None:
        at = self.now() - timedelta(days=step.age_d)
        self._put(
            Row(step.type, step.id, step.patient, at, shown=step.shown, device=step.device, also=step.also), new=True
        )

    @happens.register
    def _(self, step: s.AddMany) -> None:
        for number in range(step.count):
            id_ = f"{step.prefix}{number}"
            self.happens(s.Add(step.type, id_, id_ if step.type == s.PATIENT else step.patient, age_d=300))

    @happens.register
    def _(self, step: s.Change) -> None:
        if (row := self.rows.get((step.type, step.id))) is not None:
            self._next(row, dated=step.dated)

    @happens.register
    def _(self, step: s.Drop) -> None:
        for key in [key for key in self.rows if matches(f"{step.type}/{step.id}", key)]:
            self._drop(key)

    @happens.register
    def _(self, step: s.DropPatient) -> None:
        for key in [row.key for row in self.rows.values() if row.patient == step.id]:
            self._drop(key)

    @happens.register
    def _(self, step: s.Restore) -> None:
        if step.type == s.PATIENT:
            # who is there again is read under his own id: no EHR lists him and redirects his reads
            self.led.pop(step.id, None)
        for key, (row, _) in list(self.dropped.items()):
            own = step.type == s.PATIENT and row.patient == step.id
            if key == (step.type, step.id) or own:
                del self.dropped[key]
                self.rows[key] = row
                if step.dated:
                    self._next(row, dated=True)

    @happens.register
    def _(self, step: s.Move) -> None:
        row = self.rows.get((step.type, step.id))
        if row is not None and row.type in s.CHARTS and (s.PATIENT, step.patient) in self.rows:
            self._next(row, dated=step.dated, patient=step.patient)

    @happens.register
    def _(self, step: s.Recategorize) -> None:
        if (row := self.rows.get((step.type, step.id))) is not None:
            self._next(row, dated=step.dated, category=step.category)

    @happens.register
    def _(self, step: s.Hide) -> None:
        self._set(step, shown=False)

    @happens.register
    def _(self, step: s.Show) -> None:
        self._set(step, shown=True)

    @happens.register
    def _(self, step: s.Withhold) -> None:
        self._set(step, withheld=True)

    @happens.register
    def _(self, step: s.Permit) -> None:
        self._set(step, withheld=False)

    @happens.register
    def _(self, step: s.Merge) -> None:
        former, survivor = self.rows.get((s.PATIENT, step.former)), self.rows.get((s.PATIENT, step.survivor))
        taken = {*self.merged, *(merge.survivor for merge, _, _ in self.merged.values())}
        if former is None or survivor is None or former == survivor or {step.former, step.survivor} & taken:
            return
        keys = tuple(row.key for row in self.rows.values() if row.patient == step.former and row.type in s.CHARTS)
        for key in keys:
            self._next(self.rows[key], dated=True, patient=step.survivor)
        if step.how == "link":
            self._next(former, dated=True, link=("replaced-by", step.survivor))
            self._next(survivor, dated=True, link=("replaces", step.former))
        else:
            self._drop(former.key)
        if step.how == "redirect":
            self.led[step.former] = step.survivor
        self.merged[step.former] = (step, keys, former)

    @happens.register
    def _(self, step: s.Unmerge) -> None:
        found = self.merged.pop(step.former, None)
        if found is None:
            return
        merge, keys, former = found
        self.led.pop(step.former, None)
        self.dropped.pop(former.key, None)
        now = self.rows.get(former.key)
        if now is None:
            self.rows[former.key] = former  # a row of old, with its old date
            if step.dated:
                self._next(former, dated=True)
        else:
            self._next(now, dated=step.dated, link=None)
        if merge.how == "link" and (survivor := self.rows.get((s.PATIENT, merge.survivor))) is not None:
            self._next(survivor, dated=step.dated, link=None)
        for key in keys:
            row = self.rows.get(key)
            if row is not None and row.patient == merge.survivor:
                self._next(row, dated=step.dated, patient=step.former)

    @happens.register
    def _(self, step: s.Join) -> None:
        if step.patient not in self.groups[step.group]:
            self.groups[step.group].append(step.patient)

    @happens.register
    def _(self, step: s.Leave) -> None:
        if step.patient in self.groups[step.group]:
            self.groups[step.group].remove(step.patient)

    @happens.register
    def _(self, step: s.Levels) -> None:
        self.levels = step.names

    @happens.register
    def _(self, step: s.Reuse) -> None:
        if (found := self.dropped.get((step.type, step.id))) is None or (s.PATIENT, step.patient) not in self.rows:
            return
        row = self.dropped.pop((step.type, step.id))[0]
        at = self.now() if step.dated else self.now() - timedelta(days=300)
        self._put(Row(step.type, step.id, step.patient, at, uses=found[0].uses + 1, shown=row.shown))

    @happens.register
    def _(self, step: s.Unserve) -> None:
        self.unserved.add(step.type)

    @happens.register
    def _(self, step: s.Serve) -> None:
        self.unserved.discard(step.type)

    @happens.register
    def _(self, step: s.Backup) -> None:
        groups = {name: list(members) for name, members in self.groups.items()}
        self._backup = {
            "rows": dict(self.rows),
            "dropped": dict(self.dropped),
            "led": dict(self.led),
            "merged": dict(self.merged),
            "groups": groups,
        }

    @happens.register
    def _(self, step: s.SetBack) -> None:
        if not self._backup:
            return
        before = {**self.rows, **{key: row for key, (row, _) in self.dropped.items()}}
        for name, value in self._backup.items():
            setattr(self, name, dict(value))
        self.groups = {name: list(members) for name, members in self.groups.items()}
        for key in before.keys() - self.rows.keys() - self.dropped.keys():
            self.dropped[key] = before[key], _LONG_AGO

    @happens.register
    def _(self, step: s.Becomes) -> None:
        self.site = self.site._replace(**{step.field: step.value})

    def _put(self, row: Row, *, new: bool = False) -> None:
        if new and (row.key in self.rows or row.key in self.dropped):
            return
        self.rows[row.key] = row
        self.ever_of.setdefault(row.key, set()).update(row.patients)

    def _next(self, row: Row, *, dated: bool, **changes: Any) -> None:
        at = self.now() if dated else row.at
        self._put(replace(row, version=row.version + 1, at=at, **changes))

    def _drop(self, key: Key) -> None:
        self.dropped[key] = (self.rows.pop(key), self.now())

    def _set(self, step: Any, **changes: Any) -> None:
        if (row := self.rows.get((step.type, step.id))) is not None:
            self._put(replace(row, **changes))
