"""What the oracle keeps of one run: what it asked for, what was visible all the while, and how it was answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tests.histories import steps as s
from tests.histories.ehr import Ehr, Heard
from tests.histories.rows import Key, Row, fhir_instant, same
from tests.histories.store_view import Stored

CLOCKS_DIFFER = timedelta(minutes=5)  # by which they may, and nobody wonders
_SHOWN = 6


class Failure(NamedTuple):
    """A clause that does not hold. `kind` has no ids in it."""

    kind: str
    detail: str = ""
    step: int = -1
    small: bool = False  # the history goes on: it may have a graver one

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


@dataclass
class Watch:
    """One run: what was visible and readable all the while, and what it heard."""

    ask: s.Ask
    full: bool
    reach: str
    stored: tuple[str, ...]  # Patients that were live when it began
    before: Stored  # the store when it began
    begun: datetime  # by the clock that dates rows
    visible: dict[Key, Any]
    readable: dict[Key, Any]
    whole: frozenset[Key]  # what would be visible were nothing wrong
    doubted: frozenset[Key] = frozenset()  # by an earlier run
    appeared: set[Key] = field(default_factory=set)  # what was visible for a part of it
    missed_before: frozenset[Key] = frozenset()  # of these, what an earlier run missed and did not find either
    formers: frozenset[str] = frozenset()  # patients who were merged, as far as the store knew
    since: datetime | None = None  # the instant from which the run was to ask, where one was given
    survivors: frozenset[str] = frozenset()  # of them, by a redirect of one night too: they were asked for as well
    until: datetime | None = None  # before which what it exports was last changed, where it was asked so
    touched: bool = False  # the EHR changed while it ran
    run: int = 0
    heard: Heard = field(default_factory=Heard)
    parts: int = 0
    in_full: bool = False  # it turned out to be a full listing, perhaps although it was to ask for news

    @property
    def narrowed(self) -> str:
        """How its export leaves out some of what there is; "": it does not, or is none."""
        return "" if self.reach in {"", "crawl"} else self.ask.narrowed

    @property
    def whose(self) -> tuple[str, str, str]:
        """Selection, reach and what narrows it: what has knowledge of its own. An export "until" shares that of whole ones."""
        who, _, _ = self.ask.who.partition(":")
        apart = self.narrowed if self.narrowed != "until" else ""
        return (self.ask.who if who in {"group", "pull"} else who), self.reach, apart

    def leaves_out(self, resource_type: str) -> bool:
        """Whether a row of the type may be left out, and be there: nobody can miss it then."""
        return self.narrowed in {"elements", "until"} or (self.narrowed == "filter" and resource_type == s.OBSERVATION)

    def may_speak_of(self, row: Row) -> bool:
        """Whether it asked for what was last changed when the row was, and began after that."""
        later = self.since is None or row.at >= self.since
        return later and row.at <= self.begun and (self.until is None or row.at < self.until)

    def all_before(self, row: Row) -> bool:
        """Whether nothing of the row's type that came is dated later, by more than clocks differ."""
        later = fhir_instant(row.at + CLOCKS_DIFFER)
        dates = [
            body.get("meta", {}).get("lastUpdated", "") for (kind, _), body in self.visible.items() if kind == row.type
        ]
        return max(dates, default="") <= later

    def look(self, ehr: Ehr) -> None:
        visible = ehr.visible(self.ask, self.reach, self.stored)
        self.appeared |= visible.keys()
        self.visible = same(self.visible, visible)
        self.readable = same(self.readable, ehr.readable())

    def tells_of(self, answers: set[tuple[str, str, str]], row: Row) -> bool:
        """Whether these answers, or refusals, are about the row, in this run's way of asking."""
        way = "search" if self.reach == "crawl" else "export"
        if not row.patients if way == "export" else row.patient is None:
            return (way, row.type, "" if way == "export" else "*") in answers
        whose = row.patients if way == "export" else (row.patient,)
        return bool({(way, row.type, one) for one in (*whose, "*")} & answers)


def some(keys: list[Key]) -> str:
    """The first rows, by name."""
    shown = ", ".join("/".join(key) for key in sorted(keys)[:_SHOWN])
    return shown + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
