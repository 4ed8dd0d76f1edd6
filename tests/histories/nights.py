"""Histories that a test tells night by night, and what the store says after each: status, holes, rows, evidence, knowledge.

The runs are `player`'s, the EHR is `ehr`'s, and the oracle judges each night as it does of any history. A night here comes a day
after the one before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import anyio
import httpx

from snapshots.report import RunReport
from snapshots.store import Store
from tests.histories import steps as s
from tests.histories.answers import Answer, Server, Wire
from tests.histories.ehr import Ehr
from tests.histories.player import NAME, Player
from tests.histories.rows import Key, Row, fhir_instant
from tests.histories.store_view import StoreView
from tests.histories.watch import Failure

NIGHT = timedelta(days=1)
OLD = "2020-01-01T00:00:00Z"  # months before the first night


@dataclass(frozen=True)
class Written(Row):
    """A row whose content the test wrote."""

    resource: str = ""

    def body(self, *, dated: bool = True) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.resource)
        return found


class Night(NamedTuple):
    """One run, and the store after it. Rows are "Type/id"."""

    status: str  # "killed", where it did not end
    holes: set[str]  # "Observation doubted", "Condition search not-served"
    live: set[str]
    dead: set[str]
    evidence: dict[str, str]
    known: dict[str, str]  # the selection's watermarks by type
    behind: set[str]  # the selection's lags: "Observation p1"
    counts: tuple[int, int, int, int]  # new, changed, unchanged, deleted
    notes: tuple[str, ...]


class _Server(Server):
    """With lines that no row is behind, in files of their type."""

    further: Mapping[str, str] = {}
    by_patient: tuple[str, ...] = ()  # types that are searched by patient too

    def _capability(self) -> dict[str, Any]:
        found = super()._capability()
        for one in found["rest"][0]["resource"]:
            if one["type"] in self.by_patient:
                one["searchParam"].append({"name": "patient", "type": "token"})
        return found

    def _kick_off(self, path: list[str], query: dict[str, list[str]], body: bytes) -> Answer:
        answer = super()._kick_off(path, query, body)
        if answer.status == 202:
            job = self._jobs[str(len(self._jobs))]
            for kind, line in self.further.items():
                job.files.setdefault(kind, []).append(line)
        return answer


class _Wire(Wire):
    """`at` gets each URL before it is answered, and may keep it waiting."""

    def __init__(
        self, server: Server, ehr: Ehr, before: Callable[[int], None], at: Callable[[str], Coroutine[Any, Any, None]]
    ) -> None:
        super().__init__(server, ehr, before)
        self._at = at

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._at(str(request.extensions["url"]))
        return await super().handle_async_request(request)


class Nights(Player):
    """A history that goes on as the test says. `run` runs a coroutine to its end."""

    def __init__(
        self, site: s.Site, store: Store, view: StoreView, run: Callable[[Coroutine[Any, Any, Any]], Any]
    ) -> None:
        super().__init__(s.History(site, ()), store, view)
        self._server: _Server = _Server(self._ehr)
        self._oracle.knows_all = False
        self._run_to_end = run
        self._report: RunReport | None = None
        self._home = site.home
        self._dies_at = ""
        self._written = anyio.Event()
        view.empty()

    # -- what happens at the EHR

    def happens(self, *steps: s.Happening) -> None:
        """Change the EHR's content."""
        for step in steps:
            self._run_to_end(self._step(step))

    def put(self, *resources: Mapping[str, Any]) -> None:
        """Write resources into the EHR as they are."""
        for one in resources:
            kind, id_ = one["resourceType"], one["id"]
            subject = one.get("subject", {}).get("reference", "")
            patient = id_ if kind == s.PATIENT else subject.removeprefix("Patient/") or None
            at = datetime.fromisoformat(one.get("meta", {}).get("lastUpdated", OLD))
            # another server's Patient is no patient of this one
            patient = patient if patient is None or "/" not in patient else None
            self._ehr.rows[kind, id_] = Written(kind, id_, patient, at, resource=json.dumps(one))
        self._oracle.changed()

    def alter(self, kind: str, id_: str, **changes: Any) -> None:
        """Change a row, and not its version."""
        row = self._ehr.rows[kind, id_]
        self._ehr.rows[row.key] = replace(row, **changes)
        self._oracle.changed()

    def exports_also(self, **lines: str) -> None:
        """From now on every export has this line too, in a file of its type."""
        self._server.further = lines
        for line in lines.values():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            self._oracle.told_otherwise.setdefault((row["resourceType"], row["id"]), []).append(row)

    def searches_by_patient(self, *types: str) -> None:
        """Types of which there is a search by patient too, which shows nothing that is of none."""
        self._server.by_patient = types

    @property
    def instant(self) -> str:
        """Now, as the EHR would date a row."""
        return fhir_instant(self._ehr.now())

    @property
    def at_ehr(self) -> set[str]:
        return {"/".join(key) for key in self._ehr.rows}

    # -- nights

    def sync(
        self,
        ask: s.Ask | None = None,
        *,
        since: str = "auto",
        faults: tuple[s.Fault, ...] = (),
        during: tuple[tuple[int, s.Happening], ...] = (),
        dies_at: str = "",
        connection: str = NAME,
        later: timedelta = NIGHT,
    ) -> Night:
        """Let a night pass, and make a run; no clause of the oracle may fall.

        `dies_at`: the process dies when the server is asked for this type, and all that was asked before it is stored.
        """
        self._moment += later
        self._report, self._dies_at, self.connection = None, dies_at, connection
        step = s.Run(ask or self._home, since=since, faults=faults, during=during)
        failure = self._run_to_end(self._run(step))
        assert failure is None or self._is_of_another(failure), str(failure)
        return self._night()

    def _is_of_another(self, failure: Failure) -> bool:
        """The oracle sees all connections' rows as one: with several, it tells of crashes alone."""
        return self.connection != NAME and not failure.kind.startswith("a run crashed")

    def end(self) -> Night:
        """Make the EHR well, make two full runs, and a night on which nothing happens: the store is whole, and stays so."""
        failure = self._run_to_end(self._end())
        assert failure is None, str(failure)
        night = self._night()
        assert night.live == self.at_ehr
        assert (night.status, night.holes, night.evidence) == ("complete", set(), {})
        return night

    def _wire(self) -> Wire:
        return _Wire(self._server, self._ehr, self._before_request, self._at)

    async def _at(self, url: str) -> None:
        if self._dies_at and f"/{self._dies_at}?" in url:
            while not self._view.pending_alone(self._dies_at):
                self._written = anyio.Event()
                await self._written.wait()
            self.die()

    def wrote(self) -> None:
        self._written.set()
        super().wrote()

    async def _sync(self, step: s.Run) -> RunReport:
        self._report = await super()._sync(step)
        return self._report

    def state(self) -> dict[str, list[tuple[Any, ...]]]:
        """What an unchanged night leaves as it was."""
        return self._view.state()

    def body(self, name: str) -> Any:
        """A live row's content in the store."""
        kind, _, id_ = name.partition("/")
        return self._view.stored().live[kind, id_]

    def live_of(self, connection: str) -> set[str]:
        """Live rows of one connection alone."""
        return {"/".join(key) for key in self._view.live_of(connection)}

    def chart(self, patient: str) -> set[str]:
        """Live rows that the store has as this patient's."""
        return {"/".join(key) for key in self._view.chart(patient)}

    def _night(self) -> Night:
        stored, report = self._view.stored(), self._report
        told_of = self._view.told_of(report.id) if report is not None else self._view.told_of(None)
        return Night(
            status=report.status if report is not None else "killed",
            holes=told_of.holes,
            live=_names(stored.live),
            dead=_names(stored.dead),
            evidence={"/".join(key): state for key, state in self._view.evidence().items()},
            known=told_of.known,
            behind=told_of.behind,
            counts=(report.new, report.changed, report.unchanged, report.deleted) if report else (0, 0, 0, 0),
            notes=tuple(report.notes) if report else (),
        )


def _names(keys: Mapping[Key, Any]) -> set[str]:
    return {"/".join(key) for key in keys}


# -- resources


def patient(id_: str, **fields: Any) -> dict[str, Any]:
    return {"resourceType": s.PATIENT, "id": id_, "meta": _meta(1, OLD), "name": [{"family": id_}], **fields}


def observation(id_: str, of: str | None, version: int = 1, at: str = OLD, **fields: Any) -> dict[str, Any]:
    """`of`: a patient's id, or a reference as it is to be written."""
    found = {"resourceType": s.OBSERVATION, "id": id_, "meta": _meta(version, at), "status": "final"}
    if of is not None:
        found["subject"] = {"reference": of if "/" in of else f"Patient/{of}"}
    return {**found, "code": {"text": "x"}, **fields}


def _meta(version: int, at: str) -> dict[str, str]:
    return {"versionId": str(version), "lastUpdated": at}
