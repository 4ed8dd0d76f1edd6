"""The EHR in memory as a client meets it: what is wrong tonight, and what of its content could be seen. No HTTP (`answers`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tests.histories import steps as s
from tests.histories.content import Content
from tests.histories.rows import CONTENTS, Key, Row, in_part, matches


@dataclass
class Heard:
    """How a run's questions were answered, each a (way, type, patient): "*" stands for every patient, "" for rows of none."""

    answered: set[tuple[str, str, str]] = field(default_factory=set)
    refused: set[tuple[str, str, str]] = field(default_factory=set)
    deleted: set[Key] = field(default_factory=set)  # what an export's `deleted` list named
    filed: set[str] = field(default_factory=set)  # types of which it gave a file, whole
    requests: int = 0


class Ehr(Content):
    """Content, with faults."""

    def __init__(self, site: s.Site, clock: Callable[[], datetime]) -> None:
        super().__init__(site, clock)
        self.faults: tuple[s.Fault, ...] = ()
        self.heard = Heard()
        self._first_site = site
        self._until = self.now() + timedelta(hours=s.UNTIL_H)

    def body(self, row: Row) -> dict[str, Any]:
        return row.body(dated=self.site.dated)

    def shown(self, row: Row) -> dict[str, Any]:
        """As searches and reads give it."""
        return {**self.body(row), **CONTENTS[self.site.told_twice or "first"]}

    def written(self, row: Row, *, partly: bool = False) -> list[dict[str, Any]]:
        """As exports give it. `partly`: as one gives it that is asked for some elements."""
        contents = ("first", "second") if self.site.told_twice else ("first",)
        whole = [{**self.body(row), **CONTENTS[content]} for content in contents]
        return [in_part(body) for body in whole] if partly else whole

    def heal(self) -> None:
        """Nothing is wrong any more: every index is whole. What is withheld stays so, and a manner is no fault: it stays too.

        But who reads no Group has no members to ask for.
        """
        self.faults = ()
        self.site, self.unserved = self.site._replace(readable_groups=self._first_site.readable_groups), set()
        self.levels = self.site.levels
        self.rows = {key: replace(row, shown=True) for key, row in self.rows.items()}

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
            patients = self.groups[ask.group]
        elif ask.who == "store":
            patients = sorted(stored)
        elif ask.named is not None:
            patients = list(ask.named)
        else:
            patients = [row.id for row in self.of_type(s.PATIENT) if self.listed(row)]
        return list(dict.fromkeys(patients))

    def visible(self, ask: s.Ask, reach: str, stored: Iterable[str]) -> dict[Key, dict[str, Any]]:
        """The rows that a run of this ask must bring, were it to begin and end now."""
        if reach in {"", "crawl"}:
            rows = self._crawled(ask, list(stored)) if reach else iter(())
        else:
            patients, is_filtered = self.patients_of(ask, stored), ask.narrowed == "filter"
            rows = self.exported(reach, patients, ask.types, filtered=is_filtered, until=self.until(ask))
        return {row.key: self.body(row) for row in rows}

    def whole(self, ask: s.Ask, reach: str, stored: Iterable[str]) -> frozenset[Key]:
        """What would be visible were nothing wrong tonight."""
        faults, self.faults = self.faults, ()
        try:
            return frozenset(self.visible(ask, reach, stored))
        finally:
            self.faults = faults

    def until(self, ask: s.Ask) -> datetime | None:
        """Before which moment what such an export has was last changed; None: it has what has just changed too."""
        return self._until if ask.narrowed == "until" else None

    def _crawled(self, ask: s.Ask, stored: list[str]) -> Iterator[Row]:
        if ask.group is not None and not self.site.readable_groups:
            return
        if ask.who == "all" and (self.refusal(s.PATIENT, None) or self.incomplete(s.PATIENT)):
            return
        patients = set(self.patients_of(ask, stored))
        patients |= {self.led[one] for one in patients if one in self.led and not self.misled(one)}
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
        self,
        level: str,
        patients: Iterable[str],
        types: tuple[str, ...],
        *,
        filtered: bool = False,
        until: datetime | None = None,
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
            if until is not None and row.at >= until:
                continue
            if level == "system" or (row.patients and (level == "patient" or members.intersection(row.patients))):
                yield row
