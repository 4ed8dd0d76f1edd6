"""What must be true after each run, and at the end: the clauses of completeness, judged from the EHR's side.

*Visible* is what a run's ask reaches and nothing hides, from the run's begin to its end. A clause that does not hold is a
`Failure`; its kind is what shrinking keeps.

always   a row that can be read all the while and was live, is live; if it was right, it is right. Where reads are not served:
         on the first night that no list has it
(a)      exit 0, full: what is visible is live, as it is. Dead rows that this ask once listed are not live, or named.
         What refused an answer stands in the notes.
(b)      exit 0, news: the same, but for what no date told (`_unforeseeable`). Deletions that an export told of are believed, and
         others' rows that an erasure took are back
(c)      exit 3: the same, but for types that a hole names; knowledge that moved all the same shows in the next runs. One night
         proves neither a mass dead, nor a Patient whose chart was listed.
(d)      after the EHR is well, two full runs: (a), no hole excuses. Dead rows go within some more runs, what else is live is
         named, or could be listed by a run of another ask.
(e)      an unchanged night changes nothing, and is green. Where exports and searches give a version other contents, nights of
         both in turns write no row
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from snapshots.report import RunReport
from tests.histories import steps as s
from tests.histories.ehr import Ehr, Heard, Key, Row, plain, same
from tests.histories.store_view import Stored, StoreView

_GREEN = {"complete", "nothing"}
_SHOWN = 6
_MASS = 20  # rows, and half of what was asked: must be said twice (issue 7, "The mass rule")


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
    begun: datetime  # by the clock that dates rows
    visible: dict[Key, Any]
    readable: dict[Key, Any]
    whole: frozenset[Key]  # what would be visible were nothing wrong
    doubted: frozenset[Key] = frozenset()  # by an earlier run
    missed_before: frozenset[Key] = frozenset()  # of these, what an earlier run missed and did not find either
    formers: frozenset[str] = frozenset()  # patients who were merged, as far as the store knew
    since: datetime | None = None  # the instant from which the run was to ask, where one was given
    survivors: frozenset[str] = frozenset()  # of them, by a redirect of one night too: they were asked for as well
    touched: bool = False  # the EHR changed while it ran
    run: int = 0
    heard: Heard = field(default_factory=Heard)
    parts: int = 0

    @property
    def whose(self) -> tuple[str, str]:
        """Selection and reach: what has knowledge of its own."""
        who, _, _ = self.ask.who.partition(":")
        return (self.ask.who if who in {"group", "pull"} else who), self.reach

    def look(self, ehr: Ehr) -> None:
        self.visible = same(self.visible, ehr.visible(self.ask, self.reach, self.stored))
        self.readable = same(self.readable, ehr.readable())


class Oracle:
    """Follows one history."""

    def __init__(self, ehr: Ehr, view: StoreView) -> None:
        self._ehr = ehr
        self._view = view
        self._past: list[Watch] = []
        self._listed: dict[tuple[s.Ask, str], set[Key]] = {}  # by full and green runs of the ask that reached alike
        self._whose: dict[int, tuple[str, str]] = {}  # a run's selection and reach
        self._witnessed: set[Key] = set()  # by any run
        self._missed: set[Key] = set()  # by lists of the last run, where no read is served that could tell more
        self._taken: set[Key] = set()  # others' rows that went with an erased patient: even news must bring them
        self._open: Watch | None = None  # a run that was killed, and may go on
        self._now: Watch | None = None
        self._before = Stored({}, {})
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
        self._listed.clear()
        self._open = None

    def erased(self, patient: str, before: Collection[Key]) -> None:
        """The store has forgotten rows, of those that were live before, and who listed them. Others' rows must come again."""
        live = self._view.stored().live.keys()
        rows = [self._ehr.rows[key] for key in before if key in self._ehr.rows and key not in live]
        self._taken |= {row.key for row in rows if {*row.patients} - {patient}}
        for known in self._listed.values():
            known.intersection_update(live)

    def killed(self) -> Failure | None:
        """The run's process has ended."""
        watch = self._now
        assert watch is not None
        after = self._stored()
        if watch.run:
            self._open = watch
        self._now = None
        self._note_missed(watch)
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
        self._past.append(watch)
        self._taken -= after.live.keys()
        self._note_missed(watch)
        self._note_witnessed(watch)
        if watch.full and report.status in _GREEN:
            self._listed.setdefault((watch.ask, watch.reach), set()).update(watch.visible)
        return failure

    def _note_witnessed(self, watch: Watch) -> None:
        """What the run listed, or would have had nothing been wrong: a run of its ask can list it again."""
        self._witnessed |= watch.visible.keys() | watch.whole
        self._witnessed |= {key for key, row in self._ehr.rows.items() if row.patient in watch.survivors}
        if watch.reach == "crawl" and watch.ask.who == "all":  # lists Patients whatever types it names
            self._witnessed |= {
                key for key, row in self._ehr.rows.items() if key[0] == s.PATIENT and self._ehr.listed(row)
            }

    def _note_missed(self, watch: Watch) -> None:
        """Two lists without a row, or without one that moved away, are believed where reads are not served."""
        served = self._ehr.site.reads
        missed = {key for key in self._ehr.rows if not served and key[0] != s.PATIENT and key not in watch.visible}
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
            asked = sum(key[0] == kind and key in watch.whole for key in self._before.live)
            if number >= _MASS and number * 2 >= asked:
                return Failure(f"c: a mass died in one night ({watch.reach})", f"{kind}: {number} of {asked}")
        return None

    def _judge(self, watch: Watch, report: RunReport, after: Stored, *, sound: bool) -> Failure | None:
        if report.status not in {*_GREEN, "partial"}:
            if sound and watch.visible:
                return Failure(f"d: a sound run failed ({watch.reach})", str(report.error))
            return None
        green = report.status in _GREEN
        clause = "d" if sound else "c" if not green else "a" if watch.full else "b"
        how = f"{'full' if watch.full else 'news'}, {watch.reach}, exit {0 if green else 3}"
        holes = set() if sound else {hole.resource_type for hole in report.holes}
        for kind, keys in self._wrong(watch, report, after).items():
            bare = [key for key in keys if not {key[0], "*"} & holes and not self._reached_through(key, holes, watch)]
            if bare:
                return Failure(f"{clause}: a visible row is {kind} ({how})", some(bare))
        return self._green(watch, report, after, f"{clause} {how}") if green else None

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
            failure = self._haunted(watch, report, after, how) or self._claimed(watch, report)
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
        if watch.reach == "group" and not self._ehr.site.readable_groups:
            return True
        if watch.since is not None and row.at < watch.since:
            return True
        past = [one for one in self._past if one.begun >= row.at and (one.since is None or row.at >= one.since)]
        heard = [one for one in past if _told(one.heard.answered, watch, row)]
        if not heard:
            return False
        died = self._before.dead.get(row.key, 0)
        return died < max(one.run for one in heard) or self._whose.get(died, watch.whose) == watch.whose

    def _of_unknown_member(self, watch: Watch, report: RunReport, row: Row) -> bool:
        """Whether it is an old row of somebody who joined, and is not there or was merged, as his read says: the report tells."""
        if watch.reach != "group" or self._ehr.read_status((s.PATIENT, row.patient or "")) not in {301, 404, 410}:
            return False
        older = any(one.whose == watch.whose and one.begun >= row.at for one in self._past)
        return older and any("new members of the Group whom the server does not have" in note for note in report.notes)

    def _silence(self, watch: Watch, report: RunReport) -> Failure | None:
        said = " ".join(report.notes)
        for _, kind, patient in sorted(watch.heard.refused):
            rows = [row for row in self._ehr.of_type(kind) if patient in {"*", row.patient}]
            if rows and kind not in said:
                return Failure(f"a: a refusal without a word ({watch.reach})", kind)
        return None

    def _haunted(self, watch: Watch, report: RunReport, after: Stored, how: str) -> Failure | None:
        """Dead rows that a green full run left live, though this ask had listed them before."""
        if watch.touched or report.status == "nothing":  # which claims nothing
            return None
        known = self._listed.get((watch.ask, watch.reach), set())
        members = set(self._ehr.patients_of(watch.ask, watch.stored))
        doubted = self._view.doubted()
        # an export that names no types proves nothing of a type that it has no file of, and says so by name
        unproved = {t for note in report.notes if note.startswith("earlier exports had") for t in s.TYPES if t in note}
        left = []
        for key in after.live:
            if key in known and key not in self._ehr.rows and key not in doubted and key[0] not in unproved:
                row = self._ehr.dropped[key][0]
                patient = row.patient
                if _told(watch.heard.refused, watch, row):
                    continue
                if watch.ask.filtered and watch.reach != "crawl" and row.type == s.OBSERVATION:
                    continue  # a filtered export shows no deletion (docs/bulk.md): reads in rotation do
                if watch.reach == "system" or patient is None or patient in members:
                    left.append(key)
        # no export can name a patient whom the server does not have: the store counts his rows among those that nothing lists
        nobodys = {key for key in left if (s.PATIENT, self._ehr.dropped[key][0].patient) not in self._ehr.rows}
        unlisted = self._view.unwitnessed(self._ehr.true_time()) if nobodys else set()
        left = [key for key in left if key not in nobodys or key not in unlisted]
        return Failure(f"a: a dead row is live after a green run ({how[2:]})", some(left)) if left else None

    def _untold(self, watch: Watch, after: Stored, how: str) -> Failure | None:
        """Deletions since the last run alike, of which an export of news told, and that were not believed, nor named."""
        alike = [one for one in self._past if (one.ask, one.reach) == (watch.ask, watch.reach)]
        if watch.ask.filtered or not alike or watch.since or watch.touched:
            return None
        known, doubted = self._listed.get((watch.ask, watch.reach), set()), self._view.doubted()
        since = alike[-1].begun + timedelta(hours=1)
        told = {key for key, (_, at) in self._ehr.dropped.items() if at > since} & watch.heard.deleted
        left = [key for key in told & known & after.live.keys() if key not in doubted]
        return Failure(f"b: a deletion that was told of is not believed ({how[2:]})", some(left)) if left else None

    def _claimed(self, watch: Watch, report: RunReport) -> Failure | None:
        """Whether the claims, where the report has such, speak of every type of which there is something to see."""
        claims = getattr(report, "claims", None)
        if claims is None:
            return None
        told = {claim.resource_type for claim in claims} | {hole.resource_type for hole in report.holes}
        said = " ".join(report.notes)
        missing = [key for key in watch.visible if key[0] not in told and key[0] not in said]
        return (
            Failure(f"a: nothing is claimed of a type that was asked ({watch.reach})", some(missing))
            if missing
            else None
        )

    # -- at the end

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
        asked = survivors | unshown | orphaned
        left = [key for key in self.unseen(ask) if key not in named and self._patient_of(key) not in asked]
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
        asked = self._ehr.patients_of(ask, [id_ for kind, id_ in self._view.stored().live if kind == s.PATIENT])
        there = all((s.PATIENT, one) in rows for one in asked)
        orphans = any((s.PATIENT, one) not in rows for row in rows.values() for one in row.patients)
        reach = self._ehr.reach(ask)
        others = any(key[0] == s.PATIENT for key in self._ehr.visible(ask, reach, asked))
        if not others and reach != "crawl" and s.PATIENT in ask.types:
            return False
        return there and (others or not orphans) and not any(row.withheld for row in rows.values())


def _told(heard: set[tuple[str, str, str]], watch: Watch, row: Row) -> bool:
    """Whether what was heard speaks of the row, in the watch's way of asking."""
    way = "search" if watch.reach == "crawl" else "export"
    if not row.patients if way == "export" else row.patient is None:
        return (way, row.type, "" if way == "export" else "*") in heard
    whose = row.patients if way == "export" else (row.patient,)
    return bool({(way, row.type, one) for one in (*whose, "*")} & heard)


def some(keys: list[Key]) -> str:
    """The first rows, told."""
    shown = ", ".join("/".join(key) for key in sorted(keys)[:_SHOWN])
    return shown + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
