"""What earlier runs of a history listed, and what follows from that: what lists can miss, and what news cannot tell of."""

from __future__ import annotations

from collections.abc import Collection

from tests.histories import steps as s
from tests.histories.ehr import Ehr
from tests.histories.rows import Key, Row
from tests.histories.watch import CLOCKS_DIFFER, Watch


class Past:
    """The runs of one history, as far as the store can know of them."""

    def __init__(self, ehr: Ehr) -> None:
        self._ehr = ehr
        self.runs: list[Watch] = []
        self.listed: dict[tuple[s.Ask, str], set[Key]] = {}  # by full and green runs of the ask that reached alike
        self.last_full: dict[tuple[s.Ask, str], set[Key]] = {}  # what the last of these listed
        self.whose: dict[int, tuple[str, str, str]] = {}  # a run's selection and reach
        self.witnessed: set[Key] = set()  # by any run
        self.missed: set[Key] = set()  # by lists of the last run, where no read is served that could tell more
        self._taken: dict[Key, int] = {}  # others' rows that went with an erased patient, after how many runs
        self._cut: set[str] = (
            set()
        )  # types of which a killed run was given files, which the run that goes on needs no more
        self.had_astray = False  # whether rows came of whom nobody asked
        self._reached: dict[str, set[Key]] = {}  # what runs of each reach listed, or would have, had nothing been wrong
        self._surely: dict[str, set[Key]] = {}  # what green ones listed

    def upgraded(self) -> None:
        """The store knows nothing any more of what was listed."""
        for known in (self.runs, self._reached, self._surely, self.listed, self.last_full):
            known.clear()
        self._taken = dict.fromkeys(self._taken, 0)

    def erased(self, shared: Collection[Key], live: Collection[Key]) -> None:
        """The store has forgotten rows, and who listed them. `shared` were in others' charts too: they must come again."""
        self._taken |= dict.fromkeys(
            (key for key in shared if key in self._ehr.rows and key not in live), len(self.runs)
        )
        for known in (*self.listed.values(), *self._reached.values(), *self._surely.values()):
            known.intersection_update(live)

    def was_killed(self, watch: Watch) -> None:
        """A run's process has ended; it may not have come to what it would have listed."""
        self._cut |= watch.heard.filed
        before = self.missed
        self._note_missed(watch)
        self.missed |= before
        self._note_witnessed(watch)

    def has_ended(self, watch: Watch, live: Collection[Key], *, green: bool) -> None:
        """A run has ended. `live`: the rows of the store."""
        self.runs.append(watch)
        watch.heard.filed |= self._cut
        self._cut = set()
        self._taken = {key: number for key, number in self._taken.items() if key not in live}
        self._note_missed(watch)
        self._note_witnessed(watch)
        self._reached[watch.reach].update(key for key in live if self._appeared(watch, key))
        if green:
            listed = {
                key for key in watch.visible if not watch.leaves_out(key[0])
            }  # a narrowed export can miss nothing
            self._surely.setdefault(watch.reach, set()).update(listed)
        if watch.full and green:
            self.listed.setdefault((watch.ask, watch.reach), set()).update(watch.visible)
            self.last_full[watch.ask, watch.reach] = set(watch.visible)

    def _appeared(self, watch: Watch, key: Key) -> bool:
        """Whether a list of the run had the row, though it was not there all the while.

        A row that is new in the store may have come by a read alone, where reads are served.
        """
        return key in watch.appeared or (not self._ehr.site.reads and key not in watch.before.live)

    def _note_witnessed(self, watch: Watch) -> None:
        """What the run listed, or would have had nothing been wrong: a run of its ask can list it again."""
        self.witnessed |= watch.visible.keys() | watch.whole
        for ask in {watch.ask, *(one.ask for one in self.runs)}:  # what came since their runs, they could list too
            self.witnessed |= self._ehr.whole(ask, self._ehr.reach(ask), watch.stored)
        astray = {key for key in self._ehr.rows if self._ehr.unnarrowed(key[0])}  # they came, whoever was asked for
        self._reached.setdefault(watch.reach, set()).update(watch.visible, watch.whole, astray)
        self.had_astray = self.had_astray or bool(astray)
        self.witnessed |= {key for key, row in self._ehr.rows.items() if row.patient in watch.survivors}
        if watch.reach == "crawl" and watch.ask.who == "all":  # lists Patients whatever types it names
            self.witnessed |= {
                key for key, row in self._ehr.rows.items() if key[0] == s.PATIENT and self._ehr.listed(row)
            }

    def _note_missed(self, watch: Watch) -> None:
        """Two lists without a row, or without one that moved away, are believed where reads are not served.

        A search of whoever a patient is said to be merged into is one too. An export has the patient's rows as before.
        """
        served = self._ehr.site.reads
        listed = self._reached.get(watch.reach, set()) if not served else set()
        misled = {fault.patient for fault in self._ehr.faults if isinstance(fault, s.Misled) and watch.reach == "crawl"}
        there = {key for key in watch.visible if self._ehr.rows[key].patient not in misled}
        missed = {key for key in listed - there if key[0] != s.PATIENT and not watch.leaves_out(key[0])}
        self.missed = (self.missed - there) | missed

    def was_taken(self, watch: Watch, key: Key) -> bool:
        """Whether another patient's erasure took the row, and no full listing alike has ended since: even news must bring it.

        But of a type of which the last full export had no file nothing was known: earlier rows come with the next full one.
        """
        if key not in self._taken:
            return False
        full = [(at, one) for at, one in enumerate(self.runs) if one.in_full and one.whose == watch.whose]
        if full and watch.reach != "crawl" and key[0] not in full[-1][1].heard.filed:
            return False
        return not any(at >= self._taken[key] for at, _ in full)

    def can_miss(self, watch: Watch, row: Row, asked: Collection[str]) -> bool:
        """Whether a run's lists can tell that the row is gone: they had it before, and it is of whom the run asks.

        Else only reads tell, the first of which proves nothing: nothing lists it any more (its way is retired or not known, its
        patient has left).
        """
        if row.key not in self._surely.get(watch.reach, ()) or watch.leaves_out(row.type):
            return False
        is_everyones = watch.reach in {"system", "patient"} or not row.patients
        # an export of members is judged by the patient under whom a row is filed, a search by the patient who was searched for
        whose = {*row.patients} if watch.reach == "crawl" else {row.patient}
        return is_everyones or bool(whose.intersection(asked))

    def unforeseeable(self, watch: Watch, row: Row) -> bool:
        """Whether no news could tell of it: an answer to the same question has been given since its date, and without it.

        A tombstone that another selection, or another way, made since then lowers what this one knows: it asks in full.
        """
        if watch.reach == "crawl" and row.type == s.PATIENT:
            return False  # never asked by date
        if watch.since is not None:
            return row.at < watch.since
        if watch.reach == "group" and not self._ehr.site.readable_groups:
            return True
        if self._first_met(watch, row.type):
            return False
        # what is known up to a moment that has not come was dated by a clock that has been set back: it counts for nothing
        # (a crawl learns so from the Date header alone, or where it is ahead of ours; else it goes by the newest date that came)
        is_shown = watch.reach != "crawl" or self._ehr.site.date_skewed
        latest = max(watch.begun, watch.begun if is_shown else self._ehr.true_time()) + CLOCKS_DIFFER
        alike = [one for one in self.runs if one.whose == watch.whose and one.begun <= latest]
        past = [one for one in alike if one.may_speak_of(row) or not (is_shown or one.all_before(row))]
        heard = [one for one in past if watch.tells_of(one.heard.answered, row)]
        if not heard:  # of a type that an export of everything had no file of, nothing is said
            silent = [
                one for one in past if row.type not in {kind for _, kind, _ in one.heard.refused | one.heard.answered}
            ]
            return bool(silent) and watch.reach != "crawl" and not watch.ask.types
        died = watch.before.dead.get(row.key, 0)
        return died < max(one.run for one in heard) or self.whose.get(died, watch.whose) == watch.whose

    def _first_met(self, watch: Watch, kind: str) -> bool:
        """Whether only exports of news have listed the type since the last full one, which did not: the next must be full."""
        alike = [one for one in self.runs if one.whose == watch.whose]
        at = max((at for at, one in enumerate(alike) if one.in_full), default=None)
        if at is None or watch.reach == "crawl" or any(one.narrowed for one in (watch, *alike)):
            return False
        return kind not in alike[at].heard.filed and any(kind in one.heard.filed for one in alike[at + 1 :])
