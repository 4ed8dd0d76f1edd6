"""Plays one history: the real `connectors.fhir.sync` on a real store, the EHR in memory, a clock that only the history moves.

Nights cost milliseconds: one embedded Postgres and one tenant for all histories of a process, emptied between them; requests
never leave the process; sleeping moves the clock. A kill is an exception that nothing of the product catches, after which
neither the EHR nor the store answers the run any more.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import anyio.lowlevel

from config.bulk_options import BulkOptions
from config.connections import Connection
from connectors.fhir.profile import VendorProfile
from connectors.fhir.sync import CohortSource, SyncRequest, sync
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.vendors import profile_for
from snapshots.errors import StoreError
from snapshots.report import RunReport, RunScope
from snapshots.store import Store
from tests.histories import steps as s
from tests.histories.answers import BASE, Server, Wire
from tests.histories.at_end import AtEnd
from tests.histories.ehr import Ehr, Heard
from tests.histories.oracle import Oracle
from tests.histories.rows import ELEMENTS, Key, fhir_instant
from tests.histories.store_view import BESIDE, StoreView
from tests.histories.watch import Failure, some

# in the past of any Postgres: what it dates is never older than the history
BEGIN = datetime(2020, 6, 1, 2, 0, tzinfo=UTC)
ROTATION_RUNS = 8  # more sound ones, for rows that are read in rotation
KNOWN_RUNS = 3  # after which each way's contents are known
NAME = "ehr"


class KilledError(BaseException):
    """The end of a run's process."""


class Player:
    """Plays one history on an empty store."""

    def __init__(self, history: s.History, store: Store, view: StoreView) -> None:
        self._history = history
        self._store = store
        self._view = view
        self._moment = BEGIN
        self._ehr = Ehr(history.site, self._now)
        self._server = Server(self._ehr)
        self._oracle = Oracle(self._ehr, view)
        self._at_end = AtEnd(self._ehr, view, self._oracle.past.witnessed)
        self._kill: s.Kill | None = None
        self._dead = False
        self._writes = 0
        self._during: list[tuple[int, s.Happening]] = []
        self.connection, self.base_url = NAME, BASE
        self.endings: list[str] = []  # how each run ended
        self._beside: dict[str, list[str]] | None = None  # what another connection has stored

    async def play(self, *, to_end: bool = True) -> Failure | None:
        """The first clause that does not hold, a grave one if there is one; or None."""
        self._view.empty()
        small: Failure | None = None
        for number, step in enumerate(self._history.steps):
            failure = await self._step(step) or self._touched()
            if failure is not None and not failure.small:
                return failure._replace(step=number)
            small = small or (failure and failure._replace(step=number))
        return (await self._end() or self._touched() if to_end else None) or small

    async def _step(self, step: s.Step) -> Failure | None:
        self._moment += timedelta(minutes=1)
        if isinstance(step, s.Run):
            return await self._run(step)
        if isinstance(step, s.Wait):
            self._moment += timedelta(hours=step.hours)
        elif isinstance(step, s.Beside):
            await self._sync_beside()
        elif isinstance(step, s.Upgrade):
            self._view.make_old()
            self._oracle.upgraded()
            self._beside = self._beside and self._view.beside()
        elif isinstance(step, s.Erase):
            return await self._erase(step.patient)
        elif isinstance(step, s.Prune):
            return await self._prune()
        else:
            self._ehr.happens(step)
            self._oracle.changed()
        return None

    async def _sync_beside(self) -> None:
        self.connection, own = BESIDE, self.connection
        self._kill, self._dead, self._during = None, False, []
        heard, self._ehr.heard = self._ehr.heard, Heard()  # what another connection asks is no answer to ours
        await self._sync(s.Run(s.Ask()))
        self.connection, self._ehr.heard = own, heard
        self._beside = self._view.beside()

    def _touched(self) -> Failure | None:
        if self._beside is None or (now := self._view.beside()) == self._beside:
            return None
        return Failure(f"always: another connection's {', '.join(t for t in now if now[t] != self._beside[t])} changed")

    async def _erase(self, patient: str) -> Failure | None:
        if not self._view.is_at_rest():
            return None
        before, filed = self._view.stored().live.keys(), self._view.filed()
        try:
            await self._store.erase(NAME, patient)
        except StoreError as error:
            return Failure("an erasure failed", str(error)[:300])
        self._oracle.erased(patient, before, filed)
        return None

    async def _prune(self) -> Failure | None:
        """What is pruned is past: all that is known of the rows as they are stays."""
        before = self._view.kept()
        await self._store.prune(history=self._moment, quarantine=self._moment, runs=self._moment)
        after = self._view.kept()
        lost = [table for table in before if before[table] != after[table]]
        return Failure(f"always: pruning changed {', '.join(lost)}") if lost else None

    async def _end(self) -> Failure | None:
        """The EHR is well: two full runs make the store whole, dead rows go, and an unchanged night changes nothing."""
        home = self._history.site.home
        self._ehr.heal()
        self._oracle.changed()
        full = s.Run(home, since="none")
        for sound in (False, True):
            self._moment += timedelta(days=1)
            if (failure := await self._run(full, sound=sound)) and not failure.small:
                return failure
        for _ in range(ROTATION_RUNS):
            if not self._at_end.haunting(home):
                break
            self._moment += timedelta(days=1)
            if failure := await self._run(full, sound=True):
                return failure
        if left := self._at_end.haunting(home):
            return Failure("d: a dead row stays live", some(left))
        if left := self._at_end.unnamed(home):
            return Failure("d: a live row is neither visible nor named", some(left))
        return await self._unchanged(home) or await self._in_turns(home)

    async def _unchanged(self, home: s.Ask) -> Failure | None:
        """Nights on which nothing happens. Rows that only rotation reads may still change, one night after another."""
        wrote: list[str] = []
        since = "auto" if len(self._history.steps) % 2 else "none"
        for _ in range(ROTATION_RUNS if self._at_end.unseen(home) else 1):
            before = self._view.state()
            self._moment += timedelta(days=1)
            failure = await self._run(s.Run(home, since=since), sound=True)
            after = self._view.state()
            wrote = [table for table in before if before[table] != after[table]]
            if not wrote:
                break
        if wrote:
            return Failure(f"e: an unchanged night wrote {', '.join(wrote)} (since {since})")
        if (
            failure is None
            and self._at_end.all_is_well(home)
            and not self.endings[-1].startswith(("complete", "nothing"))
        ):
            return Failure(f"e: nothing is wrong, and the run is {self.endings[-1]} (since {since})")
        return failure

    async def _in_turns(self, home: s.Ask) -> Failure | None:
        """Exports and searches in turns, where they give a version other contents: once each is known, none is written.

        But rows that only reads show, or that a run takes so, come some nights later, and may bring a content of their own.
        """
        other = home._replace(mode="bulk" if self._ehr.reach(home) == "crawl" else "crawl")
        dated = self._ehr.site.dated  # else contents have no version
        if not (self._history.site.told_twice and dated) or self._ehr.reach(other) in {"", self._ehr.reach(home)}:
            return None
        if {*self._at_end.unseen(home)} & {*self._at_end.unseen(other)}:
            return None
        before, read = self._view.versions(), set[Key]()
        for number, ask in enumerate((other, home, other, home, other)):
            if number == KNOWN_RUNS:
                before = self._view.versions()
            self._moment += timedelta(days=1)
            if failure := await self._run(s.Run(ask, since="none"), sound=True):
                return failure
            if number >= KNOWN_RUNS:
                read |= self._view.unwitnessed(self._ehr.true_time())
        wrote = {key for key, _ in before ^ self._view.versions()} - read
        return Failure("e: nights in turns wrote rows that lists show", some([*wrote])) if wrote else None

    # -- one run

    async def _run(self, step: s.Run, *, sound: bool = False) -> Failure | None:
        self._ehr.faults = step.faults
        self._kill, self._dead, self._writes = step.kill, False, 0
        self._during = sorted(step.during, key=lambda one: one[0])
        since = None
        if step.since.endswith("h"):
            since = self._ehr.now() - timedelta(hours=int(step.since[:-1]))
            step = step._replace(since=fhir_instant(since))
        self._oracle.begin(step, since)
        try:
            report = await self._sync(step)
        except BaseException as error:  # a kill comes alone or in a group
            if not self._dead:
                if not isinstance(error, Exception):
                    raise
                return Failure(f"a run crashed ({type(error).__name__})", str(error)[:300])
            self.endings.append("killed")
            failure = self._oracle.killed()
        else:
            holes = sorted({hole.resource_type for hole in report.holes})
            self.endings.append(f"{report.status}{' ' + ','.join(holes) if holes else ''}")
            failure = self._oracle.ended(report, sound=sound)
        self._ehr.faults = ()
        self._oracle.changed(content=False)
        return failure

    async def _sync(self, step: s.Run) -> RunReport:
        site, ask = self._ehr.site, step.ask
        profile = _profile(site)
        connection = Connection(name=self.connection, vendor="generic", base_url=self.base_url, auth="none")
        request = SyncRequest(
            connection=self.connection,
            base_url=self.base_url,
            profile=profile,
            kind="pull" if ask.is_pull else "sync",
            mode=ask.mode,  # type: ignore[arg-type]  # one of the three, by `Ask`
            since=step.since,
            types=ask.types,
            group=ask.group,
            cohort=_cohort(ask),
            validate="all" if site.validate else "off",
            bulk=self._bulk(ask),
        )
        rng = random.Random(1)
        async with EhrClient(connection, profile, clock=self._seconds, sleep=self._sleep, rng=rng) as client:
            client._sender._transport = self._wire()  # type: ignore[assignment]
            return await sync(request, client, self._open_run, _let_in, now=self._now, sleep=self._sleep)

    def _bulk(self, ask: s.Ask) -> BulkOptions:
        until = self._ehr.until(ask)
        return BulkOptions(
            type_filters=("Observation?version=odd",) if ask.narrowed == "filter" else (),
            elements=ELEMENTS if ask.narrowed == "elements" else (),
            until=None if until is None else fhir_instant(until),
        )

    def _wire(self) -> Wire:
        return Wire(self._server, self._ehr, self._before_request)

    @asynccontextmanager
    async def _open_run(self, scope: RunScope, clock: Callable[[], datetime]) -> AsyncIterator[Any]:
        async with await self._store.begin_run(scope, clock) as run:
            if self.connection != BESIDE:
                self._oracle.opened(run.id)
            yield _Mortal(run, self)

    def _now(self) -> datetime:
        return self._moment

    def _seconds(self) -> float:
        return self._moment.timestamp()

    async def _sleep(self, seconds: float) -> None:
        self._moment += timedelta(seconds=seconds)
        await anyio.lowlevel.checkpoint()

    def _before_request(self, number: int) -> None:
        self._moment += timedelta(seconds=1)
        self.live()
        while self._during and self._during[0][0] <= number:
            self._ehr.happens(self._during.pop(0)[1])
            self._oracle.changed()
        if self._kill is not None and self._kill.at == "request" and number >= self._kill.n:
            self.die()

    # -- what a run that can be killed asks

    def live(self) -> None:
        """A dead process does nothing more."""
        if self._dead:
            raise KilledError

    def die(self) -> None:
        self._dead = True
        raise KilledError

    def writes(self) -> None:
        """A write is about to be made."""
        self.live()
        self._writes += 1
        if self._kill is not None and self._kill.at == "write" and self._writes >= self._kill.n:
            self.die()

    def wrote(self) -> None:
        """A write has been made."""
        if self._kill is not None and self._kill.at == "written" and self._writes >= self._kill.n:
            self.die()


class _Mortal:
    """A run's store, as long as its process lives. What it does not count it hands on."""

    def __init__(self, run: Any, player: Player) -> None:
        self._run = run
        self._player = player

    def __getattr__(self, name: str) -> Any:
        self._player.live()
        found = getattr(self._run, name)
        return self._counted(found) if name in {"plan", "write", "finish", "fail"} else found

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*args: Any, **kwargs: Any) -> Any:
            self._player.writes()
            found = await call(*args, **kwargs)
            self._player.wrote()
            return found

        return counted


def _cohort(ask: s.Ask) -> CohortSource | None:
    if ask.who == "store":
        return CohortSource(stored=True)
    if ask.named is None:
        return None
    return CohortSource(values=ask.named, name=None if ask.is_pull else "cohort")


async def _let_in(types: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda resource_type: True


@lru_cache(maxsize=64)
def _profile(site: s.Site) -> VendorProfile:
    return profile_for(
        "generic",
        {
            "changes": {"incremental": site.incremental, "reconcile_every_d": site.reconcile_every_d},
            "limits": {"max_concurrency": site.at_once, "file_concurrency": site.at_once},
            "retry": {"max_tries": 4},
            "search": {"splits": {s.OBSERVATION: ("category=a", "category=b")}} if site.splits else {},
            "attachments": {"fetch": False},
            "references": {"follow": (s.DEVICE, s.ORGANIZATION) if site.follow else (), "fresh_d": 0},
            "answers": {
                "restricted_retry_d": 0.5,
                "issue_codes": {"4100": "missing", "4119": "incomplete", "4130": "restricted"},
            },
        },
    )
