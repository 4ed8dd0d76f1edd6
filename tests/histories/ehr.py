"""The EHR in memory: rows, merges, groups, what is wrong tonight; and what of it a client could see. No HTTP (`answers`).

Rows are made anew at each change, so that a look at them stays what it was. Dates are by the EHR's own clock, which a site may
have wrong (`Site.skew_s`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import singledispatchmethod
from typing import Any

from tests.histories import steps as s

Key = tuple[str, str]
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)  # no deletion of which an export of news would tell
CONTENTS: Mapping[str, Mapping[str, str]] = {"first": {}, "second": {"language": "de"}, "third": {"language": "fr"}}


@dataclass(frozen=True)
class Row:
    """One resource as it now is."""

    type: str
    id: str
    patient: str | None
    at: datetime  # as its date says
    version: int = 1
    shown: bool = True
    withheld: bool = False
    device: str | None = None
    link: tuple[str, str] | None = None  # of a Patient: (type, other)
    uses: int = 1  # of the id, one after another
    also: str | None = None  # another patient whose compartment it is in
    category: str = "a"

    @property
    def key(self) -> Key:
        return self.type, self.id

    @property
    def patients(self) -> tuple[str, ...]:
        """In whose compartments it is."""
        return tuple(one for one in (self.patient, self.also) if one is not None)

    def body(self, *, dated: bool = True) -> dict[str, Any]:
        """The resource; a version is also a content."""
        found: dict[str, Any] = {"resourceType": self.type, "id": self.id}
        if dated:
            found["meta"] = {"versionId": str(self.version), "lastUpdated": told(self.at)}
        if self.type == s.PATIENT:
            found |= {"active": self.link is None or self.link[0] != "replaced-by", "name": [{"family": self._text}]}
            if self.link is not None:
                other = {"reference": f"Patient/{self.link[1]}"}
                found["link"] = [{"other": other, "type": self.link[0]}]
            return found
        if self.type == s.ORGANIZATION:
            return {**found, "name": self._text}
        if self.type != s.DEVICE:
            found |= {"code": {"text": self._text}}
        if self.type == s.OBSERVATION:
            found |= {"status": "final", "category": [{"coding": [{"code": self.category}]}]}
        if self.also is not None:
            other = {"reference": f"Patient/{self.also}"}
            found |= {"performer": [other]} if self.type == s.OBSERVATION else {"asserter": other}
        if self.patient is not None:
            found |= {"subject": {"reference": f"Patient/{self.patient}"}}
        if self.device is not None:
            found |= {"device": {"reference": f"Device/{self.device}"}}
        return found

    @property
    def _text(self) -> str:
        return f"{self.id} v{self.version}" + (f" use {self.uses}" if self.uses > 1 else "")


def plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body without what its contents of one version differ in (`Site.told_twice`)."""
    return {name: value for name, value in body.items() if name != "language"}


def told(at: datetime) -> str:
    """A FHIR instant."""
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def matches(pattern: str, key: Key) -> bool:
    """Whether "Type/id", with * at the end, names the row."""
    name = f"{key[0]}/{key[1]}"
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


@dataclass
class Heard:
    """What one run asked and was told, as (way, type, patient): "*" stands for every patient, "" for rows of none."""

    answered: set[tuple[str, str, str]] = field(default_factory=set)
    refused: set[tuple[str, str, str]] = field(default_factory=set)
    deleted: set[Key] = field(default_factory=set)  # what an export's `deleted` list named
    requests: int = 0


class Ehr:
    """Its content and its faults. `clock` gives the true time."""

    def __init__(self, site: s.Site, clock: Callable[[], datetime]) -> None:
        self.site = site
        self.rows: dict[Key, Row] = {}
        self.dropped: dict[Key, tuple[Row, datetime]] = {}
        self.led: dict[str, str] = {}  # former patient -> survivor, where the former id redirects
        self.merged: dict[str, tuple[s.Merge, tuple[Key, ...], Row]] = {}
        self.groups: dict[str, list[str]] = {"A": [], "B": []}
        self.levels = site.levels
        self.unserved: set[str] = set()
        self.faults: tuple[s.Fault, ...] = ()
        self.heard = Heard()
        self._first_site = site
        self._backup: dict[str, Any] = {}
        self._clock = clock

    def now(self) -> datetime:
        """By the clock that dates rows."""
        return self._clock() + timedelta(seconds=self.site.skew_s)

    def true_time(self) -> datetime:
        """By a clock that is right."""
        return self._clock()

    def body(self, row: Row) -> dict[str, Any]:
        return row.body(dated=self.site.dated)

    def shown(self, row: Row) -> dict[str, Any]:
        """As searches and reads give it."""
        return {**self.body(row), **CONTENTS[self.site.told_twice or "first"]}

    def written(self, row: Row) -> list[dict[str, Any]]:
        """As exports give it."""
        contents = ("first", "second") if self.site.told_twice else ("first",)
        return [{**self.body(row), **CONTENTS[content]} for content in contents]

    # -- what happens

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

    def heal(self) -> None:
        """Nothing is wrong any more: every index is whole. What is withheld stays so, and a manner is no fault: it stays too.

        But who reads no Group has no members to ask for.
        """
        self.faults = ()
        self.site, self.unserved = self.site._replace(readable_groups=self._first_site.readable_groups), set()
        self.levels = self.site.levels
        self.rows = {key: replace(row, shown=True) for key, row in self.rows.items()}

    def _put(self, row: Row, *, new: bool = False) -> None:
        if new and (row.key in self.rows or row.key in self.dropped):
            return
        self.rows[row.key] = row

    def _next(self, row: Row, *, dated: bool, **changes: Any) -> None:
        at = self.now() if dated else row.at
        self._put(replace(row, version=row.version + 1, at=at, **changes))

    def _drop(self, key: Key) -> None:
        self.dropped[key] = (self.rows.pop(key), self.now())

    def _set(self, step: Any, **changes: Any) -> None:
        if (row := self.rows.get((step.type, step.id))) is not None:
            self._put(replace(row, **changes))

    # -- what is wrong tonight

    def has(self, kind: type) -> bool:
        return any(isinstance(fault, kind) for fault in self.faults)

    def refusal(self, resource_type: str, patient: str | None) -> int | None:
        """The status that a search of a type answers, for one patient or for all."""
        if self.has(s.All410):
            return 410
        if resource_type in self.unserved:
            return 404
        for fault in self.faults:
            of_type = isinstance(fault, s.Refuse) and fault.type == resource_type
            if of_type and (not fault.patients or patient in fault.patients):
                return fault.status
        return None

    def incomplete(self, resource_type: str) -> bool:
        return any(isinstance(fault, s.Incomplete) and fault.type == resource_type for fault in self.faults)

    def unnarrowed(self, resource_type: str) -> bool:
        """Whether searches of the type take no notice of the patient whom they name."""
        return any(isinstance(fault, s.Unnarrowed) and fault.type == resource_type for fault in self.faults)

    def misled(self, patient: str) -> str | None:
        return next(
            (fault.to for fault in self.faults if isinstance(fault, s.Misled) and fault.patient == patient), None
        )

    def blind(self, resource_type: str) -> bool:
        """Whether reads of the type know nothing."""
        return any(isinstance(fault, s.Blind) and fault.type == resource_type for fault in self.faults)

    def _named(self, kinds: tuple[type, ...], key: Key) -> bool:
        return any(
            isinstance(fault, kinds) and any(matches(pattern, key) for pattern in fault.rows)  # type: ignore[union-attr]
            for fault in self.faults
        )

    # -- what can be seen

    def listed(self, row: Row) -> bool:
        """Whether lists have the row tonight."""
        if not row.shown or row.withheld or self._named((s.Sick, s.Lie, s.Blind), row.key):
            return False
        return row.type != s.PATIENT or not (self.has(s.Patients410) or self.misled(row.id))

    def read_status(self, key: Key) -> int:
        """What a read of the row answers; 301: it leads elsewhere."""
        row = self.rows.get(key)
        if (
            key[0] == s.PATIENT and (refused := self.refusal(*key)) is not None
        ):  # a Patient's own read is how he is listed
            return refused
        if self.has(s.All410) or (key[0] == s.PATIENT and self.has(s.Patients410)):
            return 410
        if key[0] == s.PATIENT and (self.misled(key[1]) or key[1] in self.led):
            return 301
        if key[0] in self.unserved or (key[0] != s.PATIENT and not self.site.reads):
            return 404
        if self._named((s.Lie,), key) or self.blind(key[0]):
            return 404
        if row is None:
            return self.site.gone if key in self.dropped else 404
        return 403 if row.withheld else 200

    def readable(self) -> dict[Key, dict[str, Any]]:
        """The rows that a read tonight shows to be there, or of whose type nothing is to be known.

        Where no reads are served that is every row: one listing without it proves nothing.
        """
        return {
            key: self.body(row)
            for key, row in self.rows.items()
            if key[0] in self.unserved or self.read_status(key) in {200, 403} or self._unread(key[0])
        }

    def _unread(self, resource_type: str) -> bool:
        return resource_type != s.PATIENT and not self.site.reads

    def reach(self, ask: s.Ask) -> str:
        """How a run of this ask comes to its rows: "crawl", or the level of an export; "" where it cannot."""
        level = self._level(ask)
        if ask.mode == "crawl" or ask.is_pull:
            return "crawl"
        if ask.mode == "bulk":
            return level if level and not self.has(s.NoExport) else ""
        if ask.named or ask.who == "store" or not level:
            return "crawl"
        if self.has(s.NoExport):
            return "" if level == "group" else "crawl"
        return level

    def _level(self, ask: s.Ask) -> str:
        if ask.group is not None:
            return "group" if "group" in self.levels else ""
        if ask.named or ask.who == "store":
            return "patient-list" if "patient" in self.levels and ask.mode == "bulk" else ""
        return next((level for level in ("patient", "system") if level in self.levels), "")

    def patients_of(self, ask: s.Ask, stored: Iterable[str]) -> list[str]:
        """Whose charts a crawl, or an export of a group or list, asks for."""
        if ask.group is not None:
            asked = self.groups[ask.group]
        elif ask.who == "store":
            asked = sorted(stored)
        elif ask.named is not None:
            asked = list(ask.named)
        else:
            asked = [row.id for row in self.of_type(s.PATIENT) if self.listed(row)]
        return list(dict.fromkeys(asked))

    def visible(self, ask: s.Ask, reach: str, stored: Iterable[str]) -> dict[Key, dict[str, Any]]:
        """The rows that a run of this ask must bring, were it to begin and end now."""
        if reach in {"", "crawl"}:
            rows = self._crawled(ask, list(stored)) if reach else iter(())
        else:
            rows = self.exported(reach, self.patients_of(ask, stored), ask.types, filtered=ask.filtered)
        return {row.key: self.body(row) for row in rows}

    def whole(self, ask: s.Ask, reach: str, stored: Iterable[str]) -> frozenset[Key]:
        """What would be visible were nothing wrong tonight."""
        faults, self.faults = self.faults, ()
        try:
            return frozenset(self.visible(ask, reach, stored))
        finally:
            self.faults = faults

    def _crawled(self, ask: s.Ask, stored: list[str]) -> Iterator[Row]:
        if ask.group is not None and not self.site.readable_groups:
            return
        if ask.who == "all" and (self.refusal(s.PATIENT, None) or self.incomplete(s.PATIENT)):
            return
        patients = set(self.patients_of(ask, stored))
        patients |= {self.led[one] for one in patients if one in self.led}
        wanted = ask.types or (s.PATIENT, *s.CHARTS, *(() if ask.is_pull else (s.ORGANIZATION,)))
        for row in self.rows.values():
            if row.type not in wanted or not self.listed(row) or self.incomplete(row.type):
                continue
            if self.refusal(row.type, row.patient):
                continue
            if row.patient in self.led:  # a search of a former id asks the survivor's
                continue
            if self.site.splits and row.type == s.OBSERVATION and row.category not in {"a", "b"}:
                continue
            directory = row.type == s.ORGANIZATION and not ask.is_pull
            if directory or (row.type in (s.PATIENT, *s.CHARTS) and row.patient in patients):
                yield row

    def exported(
        self, level: str, patients: Iterable[str], types: tuple[str, ...], *, filtered: bool = False
    ) -> Iterator[Row]:
        """The rows of an export's files."""
        members = set(patients)
        for row in self.rows.values():
            if types and row.type not in types:
                continue
            if not self.listed(row) or self.refusal(row.type, row.patient):
                continue
            if filtered and row.type == s.OBSERVATION and not row.version % 2:
                continue
            if level == "system" or (row.patients and (level == "patient" or members.intersection(row.patients))):
                yield row

    def of_type(self, resource_type: str) -> list[Row]:
        return [row for row in self.rows.values() if row.type == resource_type]


def same(left: Mapping[Key, Any], right: Mapping[Key, Any]) -> dict[Key, Any]:
    """What both have alike."""
    return {key: body for key, body in left.items() if right.get(key) == body}
