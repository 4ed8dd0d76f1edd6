"""An EHR in memory that answers what a test says in place of its own answer, and nights with it that no oracle judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.histories import steps as s
from tests.histories.answers import BASE, Answer, Job, Server, _outcome
from tests.histories.nights import Night, Nights
from tests.histories.steps import OBSERVATION, PATIENT, Add, Ask

CHART = (PATIENT, OBSERVATION)
Hook = Callable[[Server, list[str], Mapping[str, list[str]]], Answer | None]


class OddServer(Server):
    """What `hook` answers stands in place of the server's own answer."""

    hook: Hook | None = None
    refuses_dead = False  # so is one that names who is deleted
    refused_parameter: str | None = None  # of an export, with 400 and no word about which
    refuses_formers = False  # an export that names who is not there under that id is refused as a whole, as HAPI does

    def answer(self, method: str, url: str, body: bytes) -> Answer:
        parts = urlsplit(url)
        path = parts.path[len(urlsplit(BASE).path) :].strip("/").split("/")
        found = self.hook(self, path, parse_qs(parts.query)) if self.hook is not None else None
        return found if found is not None else super().answer(method, url, body)

    def _kick_off(self, path: list[str], query: dict[str, list[str]], body: bytes) -> Answer:
        if self.refused_parameter is not None and f'"{self.refused_parameter}"'.encode() in body:
            return _outcome(400, "invalid")
        if self.refuses_formers and any(f'"Patient/{former}"'.encode() in body for former in self._ehr.led):
            return _outcome(404, "not-found")
        dropped = (id_ for kind, id_ in self._ehr.dropped if kind == PATIENT)
        if self.refuses_dead and any(f'"Patient/{one}"'.encode() in body for one in dropped):
            return _outcome(404, "not-found")
        answer = super()._kick_off(path, query, body)
        if answer.status == 202:
            number = str(len(self._jobs))
            self._jobs[number] = self.exported_as(self._jobs[number])
        return answer

    exported_as: Callable[[Job], Job] = staticmethod(lambda job: job)


def odd(nights: Nights) -> OddServer:
    server = OddServer(nights._ehr)
    nights._server = server  # type: ignore[assignment]
    return server


def unjudged(
    nights: Nights,
    ask: Ask | None = None,
    *,
    since: str = "auto",
    faults: tuple[s.Fault, ...] = (),
    kill: s.Kill | None = None,
    later: timedelta = timedelta(days=1),
) -> Night:
    """A night that the oracle cannot judge, since it does not know what the server does, or that only these assertions judge."""
    nights._moment += later
    nights._report, nights._dies_at = None, ""
    failure = nights._run_to_end(nights._run(s.Run(ask or nights._home, since=since, faults=faults, kill=kill)))
    assert failure is None or not failure.kind.startswith("a run crashed"), str(failure)
    return nights._night()


def pats(*ids: str) -> tuple[Add, ...]:
    return tuple(Add(PATIENT, one, one, age_d=300) for one in ids)


def obs(id_: str, of: str | None, age_d: int = 300) -> Add:
    return Add(OBSERVATION, id_, of, age_d=age_d)


def without(*types: str) -> Callable[[Job], Job]:
    """An export without the files of these types."""
    return lambda job: job._replace(files={kind: rows for kind, rows in job.files.items() if kind not in types})


def whole(nights: Nights, **how: Any) -> bool:
    """Whether a further night is complete, and the store has all that the EHR has."""
    night = unjudged(nights, **how)
    return night.status == "complete" and nights.at_ehr <= night.live
