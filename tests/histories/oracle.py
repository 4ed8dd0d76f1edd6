"""What must be true after each run, and at the end: the clauses of completeness, judged from the EHR's side.

*Visible* is what a run's ask reaches and nothing hides, from the run's begin to its end. A clause that does not hold is a
`Failure`; its kind is what shrinking keeps.

always   a row that can be read all the while and was live, is live; if it was right, it is right. Where reads are not served:
         on the first night that no list has it. A row is in no chart that it was never of, and pruning changes no row.
(a)      exit 0, full: what is visible is live, as it is; of a part (`_elements`) only that it is there. Dead rows that this ask
         once listed are not live, or named. What refused an answer stands in the notes. A row is in each chart that it is of.
         One that is no longer listed but can be read is stored as it is read, and so is a Device that a visible row refers to,
         where references are followed.
(b)      exit 0, news: the same, but for what no date told (`_unforeseeable`). Deletions that an export told of are believed, and
         others' rows that an erasure took are back. Only a run of the same selection makes a date too old to tell, and
         `--since INSTANT` brings all from then on, whatever is known.
(c)      exit 3: the same, but for types that a hole names; knowledge that moved all the same shows in the next runs. One night
         proves neither a mass dead, nor a Patient whose chart was listed.
(d)      after the EHR is well, two full runs: (a), no hole excuses. Dead rows go within some more runs, what else is live is
         named, or could be listed by a run of another ask (`at_end`).
(e)      an unchanged night changes nothing, and is green. Where exports and searches give a version other contents, nights of
         both in turns write no row.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from snapshots.report import RunReport
from tests.histories import steps as s
from tests.histories.ehr import Ehr, Heard
from tests.histories.green import Green
from tests.histories.past import Past
from tests.histories.rows import Key, Row, plain, same
from tests.histories.store_view import Stored, StoreView
from tests.histories.watch import Failure, Watch, some

_GREEN = {"complete", "nothing"}
_MASS = 20  # rows, and half of what was asked: must be said twice (issue 7, "The mass rule")


class Oracle:
    """Follows one history."""

    def __init__(self, ehr: Ehr, view: StoreView) -> None:
        self._ehr = ehr
        self._view = view
        self.past = Past(ehr)
        self._open: Watch | None = None  # a run that was killed, and may go on
        self._now: Watch | None = None
        self.knows_all = True  # that the server says; one that a test wrote may say more than its content
        # what exports also give of a row under one version: either content is as good
        self.told_otherwise: dict[Key, list[Any]] = {}

    def _stored(self) -> Stored:
        """The store; of contents of one version either is as good."""
        stored = self._view.stored()
        if not self._ehr.site.told_twice:
            return stored
        return stored._replace(live={key: plain(body) for key, body in stored.live.items()})

    # -- along a run

    def begin(self, step: s.Run, since: datetime | None = None) -> None:
        """A run begins, its faults are there. `since`: the instant from which it asks, where one was given."""
        ehr = self._ehr
        before = self._stored()
        stored = tuple(id_ for kind, id_ in before.live if kind == s.PATIENT)
        reach = ehr.reach(step.ask)
        first = not self.past.runs and self._open is None  # nothing is known: all is asked
        ehr.heard = Heard()
        self._now = Watch(
            ask=step.ask,
            full=step.ask.is_pull or step.since == "none" or (since is None and (first or not ehr.site.incremental)),
            since=since,
            until=ehr.until(step.ask),
            reach=reach,
            stored=stored,
            before=before,
            begun=ehr.now(),
            visible=ehr.visible(step.ask, reach, stored),
            readable={key: body for key, body in ehr.readable().items() if key not in self.past.missed},
            whole=ehr.whole(step.ask, reach, stored),
            doubted=frozenset(self._view.doubted()),
            missed_before=frozenset(self._view.doubted("doubted", "not-found")),
            formers=frozenset(self._view.formers()),
            survivors=frozenset(self._view.survivors()),
            heard=ehr.heard,
        )

    def opened(self, run: int) -> None:
        """The store has given the run its number: another's, where it goes on."""
        watch, before = self._now, self._open
        assert watch is not None
        watch.run = run
        self.past.whose[run] = watch.whose
        if before is not None and before.run == run:
            watch.begun = before.begun
            if not watch.reach:  # what went on needs no kick-off
                watch.reach = before.reach
                watch.visible = self._ehr.visible(watch.ask, watch.reach, watch.stored)
                watch.whole = self._ehr.whole(watch.ask, watch.reach, watch.stored)
                self.past.whose[run] = watch.whose
            watch.visible = same(before.visible, watch.visible)
            watch.readable = same(before.readable, watch.readable)  # what its first part was told counts as well
            watch.appeared |= before.appeared
            watch.heard.answered |= before.heard.answered
            watch.heard.refused |= before.heard.refused
            watch.touched = watch.touched or before.touched
            watch.parts = before.parts + 1
        elif before is not None:
            self.past.runs.append(before)
        self._open = None

    def changed(self, *, content: bool = True) -> None:
        """The EHR is not what it was: its content, or only what is wrong with it."""
        for watch in (self._now, self._open):
            if watch is not None:
                watch.look(self._ehr)
                watch.touched = watch.touched or content

    def upgraded(self) -> None:
        """The store knows nothing any more of what was listed."""
        self.past.upgraded()
        self._open = None

    def erased(self, patient: str, before: Collection[Key], filed: Collection[tuple[Key, str]]) -> None:
        """The store has forgotten a patient. `before`: the rows that were live; `filed`: in whose charts."""
        others = {key for key, whose in filed if whose != patient}
        self.past.erased(others.intersection(before), self._view.stored().live.keys())

    def killed(self) -> Failure | None:
        """The run's process has ended."""
        watch = self._now
        assert watch is not None
        after = self._stored()
        if watch.run:
            self._open = watch
        self._now = None
        self.past.was_killed(watch)
        return self._never(watch, after)

    def ended(self, report: RunReport, *, sound: bool = False) -> Failure | None:
        """The run has ended so. `sound`: nothing was wrong, and no hole excuses."""
        watch = self._now
        assert watch is not None
        watch.look(self._ehr)
        after = self._stored()
        self._now = None
        failure = (
            self._never(watch, after)
            or self._too_soon_dead(watch, after)
            or self._judge(watch, report, after, sound=sound)
        )
        watch.in_full = self._view.is_full(watch.run)
        self.past.has_ended(watch, after.live.keys(), green=report.status in _GREEN)
        return failure

    # -- clauses

    def _never(self, watch: Watch, after: Stored) -> Failure | None:
        """What holds however the run went."""
        died, spoilt = [], []
        for key, body in watch.readable.items():
            if key in watch.before.live:
                if key not in after.live:
                    died.append(key)
                elif watch.before.live[key] == body and after.live[key] != body:
                    spoilt.append(key)
        if died:
            return Failure(f"always: a row that could be read was made dead ({watch.reach})", some(died))
        if spoilt:
            return Failure(f"always: a row that was right was made wrong ({watch.reach})", some(spoilt))
        filed = self._view.filed()
        if astray := {
            key for key, one in filed if key[0] != s.PATIENT and one not in self._ehr.ever_of.get(key, {one})
        }:
            return Failure(f"always: a row is in a chart that it was never of ({watch.reach})", some([*astray]))
        return None

    def _too_soon_dead(self, watch: Watch, after: Stored) -> Failure | None:
        """Of rows that are at the EHR, though all it said tonight was that they are not: what one night cannot prove."""
        died = [key for key, run in after.dead.items() if run == watch.run and key in watch.before.live]
        died = [key for key in died if key in self._ehr.rows and not watch.touched]
        if blind := [key for key in died if self._ehr.blind(key[0]) and key not in watch.doubted]:
            return Failure(f"c: dead by reads that know nothing ({watch.reach})", some(blind))
        listed = watch.visible if watch.full else ()
        alive = {self._ehr.rows[key].patient for key in listed if key[0] != s.PATIENT}
        if patients := [key for key in died if key[0] == s.PATIENT and key[1] in alive]:
            return Failure(f"c: a Patient is dead whose chart was listed ({watch.reach})", some(patients))
        for kind in {kind for kind, _ in died}:
            number = sum(key[0] == kind and key not in watch.missed_before for key in died)
            whole = sum(key[0] == kind and key in watch.whole for key in watch.before.live)
            if number >= _MASS and number * 2 >= whole:
                return Failure(f"c: a mass died in one night ({watch.reach})", f"{kind}: {number} of {whole}")
        return None

    def _judge(self, watch: Watch, report: RunReport, after: Stored, *, sound: bool) -> Failure | None:
        if report.status not in {*_GREEN, "partial"}:
            if sound and watch.visible:
                return Failure(f"d: a sound run failed ({watch.reach})", str(report.error))
            return None
        if failure := self._strangers(watch, after) or self._needless_hole(watch, report):
            return failure
        green = report.status in _GREEN
        clause = "d" if sound else "c" if not green else "a" if watch.full else "b"
        how = f"{'full' if watch.full else 'news'}, {watch.reach}, exit {0 if green else 3}"
        holes = set() if sound else {hole.resource_type for hole in report.holes}
        for kind, keys in self._wrong(watch, report, after).items():
            bare = [key for key in keys if not {key[0], "*"} & holes and not self._reached_through(key, holes, watch)]
            if bare:
                return Failure(f"{clause}: a visible row is {kind} ({how})", some(bare))
        if not green:
            return None
        judge = Green(self._ehr, self._view, self.past, knows_all=self.knows_all)
        return judge.failure(watch, report, after, f"{clause} {how}")

    def _strangers(self, watch: Watch, after: Stored) -> Failure | None:
        """Patients who are new to the store, of whom the run did not ask, and to whom nobody whom it asked for leads."""
        undeclared = not (self._ehr.site.batches or self._ehr.site.dated)  # no search of Patients is: `_id` is tried
        if watch.ask.who == "all" or undeclared or self._ehr.has(s.Unnarrowed):
            return None
        merges = [merge for merge, _, _ in self._ehr.merged.values()]
        links = {row.link[1] for row in self._ehr.of_type(s.PATIENT) if row.link}
        led = {one.survivor for one in merges} | {one.former for one in merges} | links
        led |= watch.survivors  # by a redirect or a link of an earlier night, which is believed
        known = {*self._ehr.patients_of(watch.ask, watch.stored), *led, *self._ehr.led.values()}
        came = {key for key in after.live if key[0] == s.PATIENT} - watch.before.live.keys() - watch.before.dead.keys()
        new = [key for key in came if key[1] not in known and not self._ehr.has(s.Misled)]
        return (
            Failure(f"a: a Patient came who was not asked for ({watch.reach})", some(new))
            if new and not watch.touched
            else None
        )

    def _needless_hole(self, watch: Watch, report: RunReport) -> Failure | None:
        """A hole of a full run to which the EHR told nothing but what is, and about which nothing was in doubt."""
        ehr = self._ehr
        if (
            not self.knows_all
            or report.status != "partial"
            or not watch.full
            or watch.touched
            or ehr.faults
            or watch.parts
        ):
            return None
        odd = (
            self.past.had_astray
            or watch.doubted
            or ehr.unserved
            or ehr.merged
            or watch.formers  # whom the store takes for merged, though they may be no more
            or not ehr.site.reads
            or ehr.site.told_twice
        )
        odd = odd or any(not row.shown or row.withheld for row in ehr.rows.values())
        if watch.ask.is_pull and ehr.dropped:
            return None  # what a pull misses is in doubt, however surely it is gone
        gone = [kind for kind, _ in ehr.dropped]
        unsure = {kind for kind in gone if kind == s.PATIENT or gone.count(kind) >= _MASS}
        unsure |= {*gone} - {kind for kind, _ in watch.visible}
        # moved back to patients of whom the run does not ask, as when a merge is undone
        away = [kind for kind, id_ in watch.before.live if (kind, id_) in ehr.rows and (kind, id_) not in watch.visible]
        unsure |= {kind for kind in away if away.count(kind) >= _MASS}
        asked = {*ehr.patients_of(watch.ask, watch.stored)}
        dropped = [row for key, (row, _) in ehr.dropped.items() if key in watch.before.live]
        unsure |= {row.type for row in dropped if not self.past.can_miss(watch, row, asked)}
        asked_for_all = all((s.PATIENT, one) in ehr.rows for one in asked)
        if odd or s.PATIENT in unsure or not asked_for_all:
            return None
        bare = [hole.reason for hole in report.holes if hole.resource_type not in unsure]
        return Failure(f"c: a hole without a cause ({watch.reach})", "; ".join(bare)[:300]) if bare else None

    def _reached_through(self, key: Key, holes: set[str], watch: Watch) -> bool:
        """Whether the row's patient was to be met through a read alone, which is a named hole.

        Through a former id's, since nobody knew of him; or through his own, since he was merged, and an export named another.
        """
        patient = self._ehr.rows[key].patient
        unknown = patient in self._ehr.led.values() and (s.PATIENT, patient) not in watch.before.live
        return s.PATIENT in holes and (unknown or patient in watch.formers)

    def _wrong(self, watch: Watch, report: RunReport, after: Stored) -> dict[str, list[Key]]:
        """What is visible, was to be brought, and is not there or not right."""
        found: dict[str, list[Key]] = {}
        for key, body in watch.visible.items():
            if after.live.get(key) == body or after.live.get(key) in self.told_otherwise.get(key, ()):
                continue
            kind = "stale" if key in after.live else "dead" if key in after.dead else "missing"
            row = self._ehr.rows[key]
            foreseeable = watch.full or (watch.since is None and self.past.was_taken(watch, key))
            if watch.narrowed == "elements" and (key in after.live or key in watch.before.dead):
                continue  # a part replaces no whole resource, and revives none
            if self._slipped(watch, key) or not (foreseeable or not self.past.unforeseeable(watch, row)):
                continue
            if not watch.full and self._of_unknown_member(watch, report, row):
                continue
            found.setdefault(kind, []).append(key)
        return found

    def _slipped(self, watch: Watch, key: Key) -> bool:
        """Whether it may have slipped between two pages, and nothing could have told."""
        site = self._ehr.site
        never_stored = key not in watch.before.live and key not in watch.before.dead
        untold = site.page is not None and not site.totals
        return watch.touched and watch.reach == "crawl" and untold and (never_stored or not watch.full)

    def _of_unknown_member(self, watch: Watch, report: RunReport, row: Row) -> bool:
        """Whether it is an old row of somebody who joined, and is not there or was merged, as his read says: the report tells."""
        if watch.reach != "group" or self._ehr.read_status((s.PATIENT, row.patient or "")) not in {301, 404, 410}:
            return False
        older = any(one.whose == watch.whose and one.begun >= row.at for one in self.past.runs)
        return older and any("new members of the Group whom the server does not have" in note for note in report.notes)
