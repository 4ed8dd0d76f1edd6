"""What must be true once the EHR is well: which rows haunt the store, and which nobody names (clauses d and e)."""

from __future__ import annotations

from tests.histories import steps as s
from tests.histories.ehr import Ehr
from tests.histories.rows import Key
from tests.histories.store_view import StoreView


class AtEnd:
    """Judges the store after a history. `witnessed` are the rows that any run listed."""

    def __init__(self, ehr: Ehr, view: StoreView, witnessed: set[Key]) -> None:
        self._ehr = ehr
        self._view = view
        self._witnessed = witnessed

    def haunting(self, ask: s.Ask) -> list[Key]:
        """Live rows that the EHR has no more, and that reads could tell of.

        Where the ask lists nothing else of the type there is no control read: its rows may stay, by name.
        """
        site, doubted = self._ehr.site, self._view.doubted()
        live = self._view.stored().live
        left = [key for key in live if key not in self._ehr.rows and (site.reads or key[0] == s.PATIENT)]
        if not left:
            return left
        stored = [id_ for kind, id_ in live if kind == s.PATIENT]
        listed = {kind for kind, _ in self._ehr.visible(ask, self._ehr.reach(ask), stored)}
        # of a deleted patient too: enough for a doubt
        charts = {one for row in self._ehr.rows.values() for one in row.patients}
        left = [key for key in left if not (key[0] == s.PATIENT and key[1] in charts and key in doubted)]
        named = doubted | self._view.unwitnessed(self._ehr.true_time())
        return [key for key in left if key[0] in listed or key not in named]

    def unseen(self, ask: s.Ask) -> list[Key]:
        """Live rows that are not visible to the ask."""
        live = self._view.stored().live
        stored = [id_ for kind, id_ in live if kind == s.PATIENT]
        visible = self._ehr.visible(ask, self._ehr.reach(ask), stored)
        return [key for key in live if key not in visible]

    def unnamed(self, ask: s.Ask) -> list[Key]:
        """Live rows that no run of any ask could list, and that the store does not name.

        Who was deleted, or is not shown any more, is on the roster still: of what the EHR has of his chart, each run asks.
        """
        named = self._view.unwitnessed(self._ehr.true_time()) | self._view.doubted() | self._witnessed
        lists_patients = self._ehr.reach(ask) == "crawl" and ask.who == "all"  # whatever types it names
        survivors = {merge.survivor for merge, _, _ in self._ehr.merged.values()}  # asked for in the former's place
        rows = self._ehr.rows
        orphaned = {one for row in rows.values() for one in row.patients if (s.PATIENT, one) not in rows}
        unshown = {row.id for row in self._ehr.of_type(s.PATIENT) if row.withheld}
        known = survivors | unshown | orphaned
        left = [key for key in self.unseen(ask) if key not in named and self._patient_of(key) not in known]
        return [key for key in left if not (lists_patients and key[0] == s.PATIENT)]

    def _patient_of(self, key: Key) -> str | None:
        row = self._ehr.rows.get(key)
        return row.patient if row is not None else None

    def all_is_well(self, ask: s.Ask) -> bool:
        """Whether nothing is left that a sound run must name as a hole: everybody asked for is there, nothing is withheld.

        Who is gone beside the chart is no hole for ever, unless nobody else's read shows what a 404 means. An export that was
        asked for Patients and brings none is one each night.
        """
        rows = self._ehr.rows
        patients = self._ehr.patients_of(ask, [id_ for kind, id_ in self._view.stored().live if kind == s.PATIENT])
        there = all((s.PATIENT, one) in rows for one in patients)
        orphans = any((s.PATIENT, one) not in rows for row in rows.values() for one in row.patients)
        reach = self._ehr.reach(ask)
        others = any(key[0] == s.PATIENT for key in self._ehr.visible(ask, reach, patients))
        if not others and reach != "crawl" and s.PATIENT in ask.types:
            return False
        if (
            reach != "crawl"
            and not ask.types
            and any(
                all(kind != lost for kind, _ in self._ehr.visible(ask, reach, patients))
                for lost in self._view.unlisted()
            )
        ):
            return False  # no export says that there is none of a type whose files failed, unless `types` names it
        return there and (others or not orphans) and not any(row.withheld for row in rows.values())
