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
from datetime import datetime, timedelta
from typing import Any

from snapshots.report import RunReport
from tests.histories import steps as s
from tests.histories.ehr import Ehr, Heard
from tests.histories.rows import Key, Row, plain, same
from tests.histories.store_view import Stored, StoreView
from tests.histories.watch import CLOCKS_DIFFER, Failure, Watch, some

_GREEN = {"complete", "nothing"}
_MASS = 20  # rows, and half of what was asked: must be said twice (issue 7, "The mass rule")


class Oracle:
    """Follows one history."""

    def __init__(self, ehr: Ehr, view: StoreView) -> None:
        self._ehr = ehr
        self._view = view
        self._past: list[Watch] = []
        self._listed: dict[tuple[s.Ask, str], set[Key]] = {}  # by full and green runs of the ask that reached alike
        self._whose: dict[int, tuple[str, str, str]] = {}  # a run's selection and reach
        self._reached: dict[str, set[Key]] = {}  # what runs of each reach listed
        self._last_full: dict[tuple[s.Ask, str], set[Key]] = {}  # what the last of these listed
        self.witnessed: set[Key] = set()  # by any run
        self._missed: set[Key] = set()  # by lists of the last run, where no read is served that could tell more
        self._taken: set[Key] = set()  # others' rows that went with an erased patient: even news must bring them
        self._open: Watch | None = None  # a run that was killed, and may go on
        self._now: Watch | None = None
        self._before = Stored({}, {})
        self._had_astray = False
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
        self._before = self._stored()
        stored = tuple(id_ for kind, id_ in self._before.live if kind == s.PATIENT)
        reach = ehr.reach(step.ask)
        first = not self._past and self._open is None  # nothing is known: all is asked
        ehr.heard = Heard()
        self._now = Watch(
            ask=step.ask,
            full=step.ask.is_pull or step.since == "none" or (since is None and (first or not ehr.site.incremental)),
            since=since,
            until=ehr.until(step.ask),
            reach=reach,
            stored=stored,
            begun=ehr.now(),
            visible=ehr.visible(step.ask, reach, stored),
            readable={key: body for key, body in ehr.readable().items() if key not in self._missed},
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
        self._whose[run] = watch.whose
        if before is not None and before.run == run:
            watch.begun = before.begun
            if not watch.reach:  # what went on needs no kick-off
                watch.reach = before.reach
                watch.visible = self._ehr.visible(watch.ask, watch.reach, watch.stored)
                watch.whole = self._ehr.whole(watch.ask, watch.reach, watch.stored)
                self._whose[run] = watch.whose
            watch.visible = same(before.visible, watch.visible)
            watch.readable = same(before.readable, watch.readable)  # what its first part was told counts as well
            watch.heard.answered |= before.heard.answered
            watch.heard.refused |= before.heard.refused
            watch.touched = watch.touched or before.touched
            watch.parts = before.parts + 1
        elif before is not None:
            self._past.append(before)
        self._open = None

    def changed(self, *, content: bool = True) -> None:
        """The EHR is not what it was: its content, or only what is wrong with it."""
        for watch in (self._now, self._open):
            if watch is not None:
                watch.look(self._ehr)
                watch.touched = watch.touched or content

    def upgraded(self) -> None:
        """The store knows nothing any more of what was listed."""
        self._past.clear()
        self._reached.clear()
        self._listed.clear()
        self._last_full.clear()
        self._open = None

    def erased(self, patient: str, before: Collection[Key]) -> None:
        """The store has forgotten rows, of those that were live before, and who listed them. Others' rows must come again."""
        live = self._view.stored().live.keys()
        rows = [self._ehr.rows[key] for key in before if key in self._ehr.rows and key not in live]
        self._taken |= {row.key for row in rows if {*row.patients} - {patient}}
        for known in (*self._listed.values(), *self._reached.values()):
            known.intersection_update(live)

    def killed(self) -> Failure | None:
        """The run's process has ended."""
        watch = self._now
        assert watch is not None
        after = self._stored()
        if watch.run:
            self._open = watch
        self._now = None
        before = self._missed
        self._note_missed(watch)
        self._missed |= before  # it may not have come to what it would have listed
        self._note_witnessed(watch)
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
        self._past.append(watch)
        self._taken -= after.live.keys()
        self._note_missed(watch)
        self._note_witnessed(watch)
        if watch.full and report.status in _GREEN:
            self._listed.setdefault((watch.ask, watch.reach), set()).update(watch.visible)
            self._last_full[watch.ask, watch.reach] = set(watch.visible)
        return failure

    def _note_witnessed(self, watch: Watch) -> None:
        """What the run listed, or would have had nothing been wrong: a run of its ask can list it again."""
        self.witnessed |= watch.visible.keys() | watch.whole
        for ask in {watch.ask, *(one.ask for one in self._past)}:  # what came since their runs, they could list too
            self.witnessed |= self._ehr.whole(ask, self._ehr.reach(ask), watch.stored)
        astray = {key for key in self._ehr.rows if self._ehr.unnarrowed(key[0])}  # they came, whoever was asked for
        self._reached.setdefault(watch.reach, set()).update(watch.visible, watch.whole, astray)
        self._had_astray = self._had_astray or bool(astray)
        self.witnessed |= {key for key, row in self._ehr.rows.items() if row.patient in watch.survivors}
        if watch.reach == "crawl" and watch.ask.who == "all":  # lists Patients whatever types it names
            self.witnessed |= {
                key for key, row in self._ehr.rows.items() if key[0] == s.PATIENT and self._ehr.listed(row)
            }

    def _note_missed(self, watch: Watch) -> None:
        """Two lists without a row, or without one that moved away, are believed where reads are not served."""
        served = self._ehr.site.reads
        listed = self._reached.get(watch.reach, set()) if not served else set()
        missed = {key for key in listed - watch.visible.keys() if key[0] != s.PATIENT and not watch.leaves_out(key[0])}
        self._missed = (self._missed - watch.visible.keys()) | missed

    # -- clauses

    def _never(self, watch: Watch, after: Stored) -> Failure | None:
        """What holds however the run went."""
        died, spoilt = [], []
        for key, body in watch.readable.items():
            if key in self._before.live:
                if key not in after.live:
                    died.append(key)
                elif self._before.live[key] == body and after.live[key] != body:
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
        died = [key for key, run in after.dead.items() if run == watch.run and key in self._before.live]
        died = [key for key in died if key in self._ehr.rows and not watch.touched]
        if blind := [key for key in died if self._ehr.blind(key[0]) and key not in watch.doubted]:
            return Failure(f"c: dead by reads that know nothing ({watch.reach})", some(blind))
        listed = watch.visible if watch.full else ()
        alive = {self._ehr.rows[key].patient for key in listed if key[0] != s.PATIENT}
        if patients := [key for key in died if key[0] == s.PATIENT and key[1] in alive]:
            return Failure(f"c: a Patient is dead whose chart was listed ({watch.reach})", some(patients))
        for kind in {kind for kind, _ in died}:
            number = sum(key[0] == kind and key not in watch.missed_before for key in died)
            whole = sum(key[0] == kind and key in watch.whole for key in self._before.live)
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
        return self._green(watch, report, after, f"{clause} {how}") if green else None

    def _strangers(self, watch: Watch, after: Stored) -> Failure | None:
        """Patients who are new to the store, of whom the run did not ask, and to whom nobody whom it asked for leads."""
        undeclared = not (self._ehr.site.batches or self._ehr.site.dated)  # no search of Patients is: `_id` is tried
        if watch.ask.who == "all" or undeclared or self._ehr.has(s.Unnarrowed):
            return None
        merges = [merge for merge, _, _ in self._ehr.merged.values()]
        links = {row.link[1] for row in self._ehr.of_type(s.PATIENT) if row.link}
        led = {one.survivor for one in merges} | {one.former for one in merges} | links
        known = {*self._ehr.patients_of(watch.ask, watch.stored), *led, *self._ehr.led.values()}
        came = {key for key in after.live if key[0] == s.PATIENT} - self._before.live.keys() - self._before.dead.keys()
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
            self._had_astray or watch.doubted or ehr.unserved or ehr.merged or not ehr.site.reads or ehr.site.told_twice
        )
        odd = odd or any(not row.shown or row.withheld for row in ehr.rows.values())
        if watch.ask.is_pull and ehr.dropped:
            return None  # what a pull misses is in doubt, however surely it is gone
        gone = [kind for kind, _ in ehr.dropped]
        unsure = {kind for kind in gone if kind == s.PATIENT or gone.count(kind) >= _MASS}
        unsure |= {*gone} - {kind for kind, _ in watch.visible}
        asked = {*ehr.patients_of(watch.ask, watch.stored)}
        dropped = [row for key, (row, _) in ehr.dropped.items() if key in self._before.live]
        unsure |= {row.type for row in dropped if not self._can_miss(watch, row, asked)}
        asked_for_all = all((s.PATIENT, one) in ehr.rows for one in asked)
        if odd or s.PATIENT in unsure or not asked_for_all:
            return None
        bare = [hole.reason for hole in report.holes if hole.resource_type not in unsure]
        return Failure(f"c: a hole without a cause ({watch.reach})", "; ".join(bare)[:300]) if bare else None

    def _can_miss(self, watch: Watch, row: Row, asked: Collection[str]) -> bool:
        """Whether a run's lists can tell that the row is gone: they had it before, and it is of whom the run asks.

        Else only reads tell, the first of which proves nothing: nothing lists it any more (its way is retired or not known, its
        patient has left).
        """
        if row.key not in self._reached.get(watch.reach, ()) or watch.leaves_out(row.type):
            return False
        is_everyones = watch.reach in {"system", "patient"} or not row.patients
        return is_everyones or bool({*row.patients}.intersection(asked))

    def _reached_through(self, key: Key, holes: set[str], watch: Watch) -> bool:
        """Whether the row's patient was to be met through a read alone, which is a named hole.

        Through a former id's, since nobody knew of him; or through his own, since he was merged, and an export named another.
        """
        patient = self._ehr.rows[key].patient
        unknown = patient in self._ehr.led.values() and (s.PATIENT, patient) not in self._before.live
        return s.PATIENT in holes and (unknown or patient in watch.formers)

    def _green(self, watch: Watch, report: RunReport, after: Stored, how: str) -> Failure | None:
        failure = self._silence(watch, report)
        if failure is None and watch.full:
            failure = (
                self._haunted(watch, report, after, how)
                or self._claimed(watch, report)
                or self._misfiled(watch, after)
                or self._not_followed(watch, after, how)
                or self._not_looked_for(watch, after, how)
            )
        else:
            failure = failure or self._untold(watch, after, how)
        if failure is None and report.status == "nothing" and watch.visible:
            return Failure(f"a: a quiet night is called nothing ({how[2:]})", small=True)
        return failure

    def _wrong(self, watch: Watch, report: RunReport, after: Stored) -> dict[str, list[Key]]:
        """What is visible, was to be brought, and is not there or not right."""
        found: dict[str, list[Key]] = {}
        for key, body in watch.visible.items():
            if after.live.get(key) == body or after.live.get(key) in self.told_otherwise.get(key, ()):
                continue
            kind = "stale" if key in after.live else "dead" if key in after.dead else "missing"
            row = self._ehr.rows[key]
            foreseeable = watch.full or (key in self._taken and watch.since is None)
            if watch.narrowed == "elements" and (key in after.live or key in self._before.dead):
                continue  # a part replaces no whole resource, and revives none
            if self._slipped(watch, key) or not (foreseeable or not self._unforeseeable(watch, row)):
                continue
            if not watch.full and self._of_unknown_member(watch, report, row):
                continue
            found.setdefault(kind, []).append(key)
        return found

    def _slipped(self, watch: Watch, key: Key) -> bool:
        """Whether it may have slipped between two pages, and nothing could have told."""
        site = self._ehr.site
        never_stored = key not in self._before.live and key not in self._before.dead
        untold = site.page is not None and not site.totals
        return watch.touched and watch.reach == "crawl" and untold and (never_stored or not watch.full)

    def _unforeseeable(self, watch: Watch, row: Row) -> bool:
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
        alike = [one for one in self._past if one.whose == watch.whose and one.begun <= latest]
        past = [one for one in alike if one.may_speak_of(row) or not (is_shown or one.all_before(row))]
        heard = [one for one in past if watch.tells_of(one.heard.answered, row)]
        if not heard:  # of a type that an export of everything had no file of, nothing is said
            silent = [
                one for one in past if row.type not in {kind for _, kind, _ in one.heard.refused | one.heard.answered}
            ]
            return bool(silent) and watch.reach != "crawl" and not watch.ask.types
        died = self._before.dead.get(row.key, 0)
        return died < max(one.run for one in heard) or self._whose.get(died, watch.whose) == watch.whose

    def _first_met(self, watch: Watch, kind: str) -> bool:
        """Whether only exports of news have listed the type since the last full one, which did not: the next must be full."""
        alike = [one for one in self._past if one.whose == watch.whose]
        at = max((at for at, one in enumerate(alike) if one.in_full), default=None)
        if at is None or watch.reach == "crawl" or any(one.narrowed for one in (watch, *alike)):
            return False
        return kind not in alike[at].heard.filed and any(kind in one.heard.filed for one in alike[at + 1 :])

    def _of_unknown_member(self, watch: Watch, report: RunReport, row: Row) -> bool:
        """Whether it is an old row of somebody who joined, and is not there or was merged, as his read says: the report tells."""
        if watch.reach != "group" or self._ehr.read_status((s.PATIENT, row.patient or "")) not in {301, 404, 410}:
            return False
        older = any(one.whose == watch.whose and one.begun >= row.at for one in self._past)
        return older and any("new members of the Group whom the server does not have" in note for note in report.notes)

    def _silence(self, watch: Watch, report: RunReport) -> Failure | None:
        notes = " ".join(report.notes)
        for _, kind, patient in sorted(watch.heard.refused):
            rows = [row for row in self._ehr.of_type(kind) if patient in {"*", row.patient}]
            if rows and kind not in notes:
                return Failure(f"a: a refusal without a word ({watch.reach})", kind)
        return None

    def _haunted(self, watch: Watch, report: RunReport, after: Stored, how: str) -> Failure | None:
        """Dead rows that a green full run left live, though this ask had listed them before."""
        if watch.touched or report.status == "nothing":  # which claims nothing
            return None
        known = self._listed.get((watch.ask, watch.reach), set())
        members = set(self._ehr.patients_of(watch.ask, watch.stored))
        doubted = self._view.doubted()
        # an export proves nothing of a type that it has no file of if it names no types, nor any run of one that is not declared;
        # they say so
        unproving = [
            note
            for note in report.notes
            if note.startswith("earlier exports had") or "nor declared by" in note or "no longer declared by" in note
        ]
        unproved = {t for note in unproving for t in s.TYPES if t in note}
        left = []
        for key in after.live:
            if key in known and key not in self._ehr.rows and key not in doubted and key[0] not in unproved:
                row = self._ehr.dropped[key][0]
                patient = row.patient
                if watch.tells_of(watch.heard.refused, row):
                    continue
                if watch.leaves_out(row.type):
                    continue  # a narrowed export shows no deletion (docs/bulk.md): reads in rotation do
                whose = {patient} if watch.reach == "crawl" else {*row.patients}
                if watch.reach in {"system", "patient"} or not row.patients or whose & members:
                    left.append(key)
        # no export can name a patient whom the server does not have: the store counts his rows among those that nothing lists
        nobodys = {key for key in left if (s.PATIENT, self._ehr.dropped[key][0].patient) not in self._ehr.rows}
        unlisted = self._view.unwitnessed(self._ehr.true_time()) if nobodys else set()
        left = [key for key in left if key not in nobodys or key not in unlisted]
        return Failure(f"a: a dead row is live after a green run ({how[2:]})", some(left)) if left else None

    def _misfiled(self, watch: Watch, after: Stored) -> Failure | None:
        """Rows that came, and are not in each chart that they are of."""
        if not self.knows_all:
            return None
        filed = self._view.filed()
        right = [key for key, body in watch.visible.items() if after.live.get(key) == body and key[0] != s.PATIENT]
        lost = [key for key in right if any((key, one) not in filed for one in self._ehr.rows[key].patients)]
        return Failure(f"a: a row is not in a chart that it is of ({watch.reach})", some(lost)) if lost else None

    def _not_followed(self, watch: Watch, after: Stored, how: str) -> Failure | None:
        """What visible rows refer to, where references are followed: a Device that could be read all the while."""
        is_wanted = not watch.ask.types or s.DEVICE in watch.ask.types
        if not self._ehr.site.follow or not is_wanted or watch.narrowed == "elements" or s.DEVICE in self._ehr.unserved:
            return None
        named = {body["device"]["reference"] for body in watch.visible.values() if "device" in body}
        left = [
            key
            for key, body in watch.readable.items()
            if "/".join(key) in named and self._ehr.read_status(key) == 200 and after.live.get(key) != body
        ]
        return Failure(f"a: what a row refers to is not there ({how[2:]})", some(left)) if left else None

    def _not_looked_for(self, watch: Watch, after: Stored, how: str) -> Failure | None:
        """Rows that the last green full run alike listed and this one did not, and that can be read: stored as they are read."""
        before = self._last_full.get((watch.ask, watch.reach), set())
        members = set(self._ehr.patients_of(watch.ask, watch.stored))
        left = []
        for key in (before & watch.readable.keys() & self._before.live.keys()) - watch.visible.keys():
            whose = self._before.live[key].get("subject", {}).get("reference", "").removeprefix("Patient/")
            is_asked = whose in members and (s.PATIENT, whose) in watch.visible and not watch.leaves_out(key[0])
            is_asked = is_asked and not watch.tells_of(watch.heard.refused, self._ehr.rows[key])
            if is_asked and self._ehr.read_status(key) == 200 and after.live[key] != watch.readable[key]:
                left.append(key)
        return Failure(f"a: a row that is no longer listed was not read ({how[2:]})", some(left)) if left else None

    def _untold(self, watch: Watch, after: Stored, how: str) -> Failure | None:
        """Deletions since the last run alike, of which an export of news told, and that were not believed, nor named."""
        alike = [one for one in self._past if (one.ask, one.reach) == (watch.ask, watch.reach)]
        if watch.ask.narrowed or not alike or watch.since or watch.touched:
            return None
        known, doubted = self._listed.get((watch.ask, watch.reach), set()), self._view.doubted()
        since = alike[-1].begun + timedelta(hours=1)
        deleted = {key for key, (_, at) in self._ehr.dropped.items() if at > since} & watch.heard.deleted
        left = [key for key in deleted & known & after.live.keys() if key not in doubted]
        return Failure(f"b: a deletion that was told of is not believed ({how[2:]})", some(left)) if left else None

    def _claimed(self, watch: Watch, report: RunReport) -> Failure | None:
        """Whether the claims, where the report has such, speak of every type of which there is something to see."""
        claims = getattr(report, "claims", None)
        if claims is None:
            return None
        named = {claim.resource_type for claim in claims} | {hole.resource_type for hole in report.holes}
        notes = " ".join(report.notes)
        missing = [key for key in watch.visible if key[0] not in named and key[0] not in notes]
        return (
            Failure(f"a: nothing is claimed of a type that was asked ({watch.reach})", some(missing))
            if missing
            else None
        )
