"""One night with a fault and the night after it: a case as data, the command in this process, and the judgement of both.

What goes wrong and what must come of it is the cases' (`fault_cases_*.py`); what the EHR holds and what can be had of it is
`user_site`'s, written without asking the client.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from mocks.serving import Served
from mocks.synthetic import generate
from mocks.synthetic.json_bytes import to_json_bytes
from tests.acceptance.raw_front import Front, Wording, fronted, plain
from tests.user_site import Key, Site, in_process, mock, reachable, source, written

COMPLETE, PARTIAL, FAILED, BUSY = 0, 3, 5, 6
# no fault may make a test wait: what a server asks for, and what it takes to give a silent one up, are cut short
PROFILE = {
    "retry.after_cap_s": 0.05,
    "retry.cap_s": 0.1,
    "retry.floor": 2000,
    "http.connect_timeout_s": 60,  # cases of a silent server say less
    "http.read_timeout_s": 60,
    "login.refused_waits_s": [0, 0],
    "kickoff.wait_s": 20,
}


@functools.cache
def charts(patients: int) -> list[bytes]:
    """The same few charts for every case: some 200 resources a patient, of 15 types."""
    return [to_json_bytes(resource) for resource in generate(patients, 16)]


@dataclass(frozen=True, kw_only=True)
class Night:
    """What one run said and did."""

    code: int
    report: Mapping[str, Any]
    stderr: str
    served: Served

    @property
    def holes(self) -> list[dict[str, str]]:
        return [hole for run in self.report.get("runs", ()) for hole in run["holes"]]

    @property
    def words(self) -> str:
        """Every word for a human: holes, notes, errors."""
        runs = self.report.get("runs", ())
        parts = [*(hole["reason"] for hole in self.holes), *(note for run in runs for note in run.get("notes", ()))]
        parts += [str(run.get("error") or "") for run in runs]
        parts += [error["error"] for error in self.report.get("errors", ())]
        return "\n".join(parts)

    def requests(self, purpose: str) -> int:
        """How many requests of a purpose the EHR saw."""
        return sum(entry.purpose == purpose for entry in self.served.log)


def nothing(served: Served) -> None:
    """Leave the EHR as it is."""


def charts_only(served: Served) -> dict[Key, Any]:
    """What belongs to patients: all that a search by patient can bring, wherever bulk would bring more."""
    of_patients = {*served.dataset.patient_types, "Patient"}
    return {key: row for key, row in reachable(served).items() if key[0] in of_patients}


def anything(night: Night) -> None:
    """Ask nothing more of a night."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault: where it strikes, how the run must end, and what the next run, with the fault gone, must bring."""

    number: str  # of docs/faults.md
    what: str
    vendor: str = "generic"
    rules: tuple[Mapping[str, Any], ...] = ()
    mock: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the connection
    words: tuple[str, ...] = ()  # of the command
    holds: Callable[[Served], None] = nothing  # what is peculiar to the EHR's data from the first day
    wording: Wording | None = None  # how answers are put on the socket
    good_night_before: bool = False
    prepare: Callable[[Served], None] = nothing  # right before the faulted run
    code: int = COMPLETE
    holes: frozenset[str] | None = frozenset()  # the types that have them; None: whichever it is, there is one
    unserved: frozenset[str] = frozenset()  # types that the EHR says it has not, or that a hole alone leads to
    says: str = ""  # a regular expression, found in what the report says
    shown: Callable[[Night], None] = anything
    ends: Callable[[Served], None] = nothing  # what ends the fault, besides the end of its rules
    healed: int = COMPLETE
    advice: tuple[str, ...] = ()  # words that the message told the user to add next time
    expected: Callable[[Served], dict[Key, Any]] = reachable
    kept: Callable[[Served, str], None] = lambda served, store_url: None  # further judgement of the healed store
    shows: Callable[[Any], Any] = lambda resource: resource  # what the EHR makes of a resource before it leaves
    tolerates: Callable[[Any], bool] = lambda resource: False  # stored in the faulted run, and not as the EHR holds it
    charts: int = 2  # patients of the EHR, where the mock's own words say nothing
    extra_patients: tuple[str, ...] = ()  # of the cohort, beside those that the EHR knows
    patients: int | None = None  # of the cohort: the first so many
    waits: bool = False  # the next run comes when what the EHR put off is due again

    @property
    def id(self) -> str:
        return f"{self.number}-{self.what}"


class Faulted:
    """A case on its way through both nights."""

    def __init__(self, case: Case, site: Site, store_url: str, served: Served, front: Front | None = None) -> None:
        self.case = case
        self._front = front
        self.served = served
        self._site = site
        self._store_url = store_url
        case.holds(served)
        settings = dict(case.settings)
        if settings.get("group"):
            settings["group"] = served.group_id
        profile = {**PROFILE, **case.profile}
        if profile.get("login.token_url"):
            profile["login.token_url"] = served.token_url
        cohort = site.folder / "cohort.csv"
        cohort.write_text("\n".join(["patient_id", *case.extra_patients, *served.patient_ids[: case.patients]]))
        site.connect(served, profile=profile, **settings)

    def sync(self, *words: str) -> Night:
        """`chartferry sync --json`, in this process."""
        self.served.log.clear()
        done = in_process(
            "sync", "--json", "--config", str(self._site.folder / "chartferry.toml"), *self.case.words, *words
        )
        report = json.loads(done.stdout) if done.stdout.strip() else {}
        return Night(code=done.code, report=report, stderr=done.stderr, served=self.served)

    def strike(self) -> None:
        """Let the fault begin."""
        self.case.prepare(self.served)
        for rule in self.case.rules:
            self.served.faults.add(dict(rule))
        if self._front is not None and self.case.wording is not None:
            self._front.wording = self.case.wording

    def end(self) -> None:
        """Let the fault end."""
        self.served.faults.clear()
        if self._front is not None:
            self._front.wording = plain
        self.case.ends(self.served)
        if self.case.waits:
            with psycopg.connect(self._store_url) as connection:
                connection.execute("UPDATE tenant_default.deferral SET until = now() - interval '1 second'")

    def judge_faulted(self, night: Night) -> None:
        """The right code, the hole named, and not one row that is not the source's."""
        case = self.case
        assert night.code == case.code, f"{night.report}\n{night.stderr[-2000:]}"
        named = frozenset(hole["type"] for hole in night.holes)
        assert named == case.holes if case.holes is not None else named, night.holes
        assert re.search(case.says, night.words), night.words
        assert "Traceback" not in night.stderr
        missing = {key[0] for key in self._missing(named, case.tolerates)}
        if case.code in {COMPLETE, PARTIAL}:
            assert missing <= named | case.unserved, f"lost without a word: {missing}"
        case.shown(night)

    def judge_healed(self, night: Night) -> None:
        """Everything that the source has, exactly, and no hole."""
        assert night.code == self.case.healed, f"{night.report}\n{night.stderr[-2000:]}"
        assert night.holes == []
        assert not self._missing()
        self.case.kept(self.served, self._store_url)

    def _missing(
        self, holes: frozenset[str] = frozenset(), tolerates: Callable[[Any], bool] = lambda resource: False
    ) -> list[Key]:
        """What could be had and is not there; whatever is there is the source's, to the digit.

        Only of a type with a hole may the store keep what the EHR has deleted: nobody has seen that it is gone.
        """
        stored = live(self._store_url)
        held = {key: self.case.shows(row) for key, row in source(self.served).items()}
        wrong = [
            key
            for key, row in stored.items()
            if held.get(key) != row and (key in held or key[0] not in holes) and not tolerates(row)
        ]
        assert not wrong, f"{len(wrong)} rows are not the source's, first {wrong[0]}"
        return sorted(self.case.expected(self.served).keys() - stored.keys())


@contextlib.contextmanager
def faulted(case: Case, site: Site, store_url: str) -> Iterator[Faulted]:
    """The case's EHR, served; nothing has happened yet."""
    knobs = {
        "data": charts(case.charts),
        "kickoff_window_s": 0,
        "max_parallel_files": None,
        "abandoned_job_s": 0.5,
        **case.mock,
    }
    with mock(case.vendor, **knobs) as served:
        if case.wording is None:
            yield Faulted(case, site, store_url, served)
            return
        with fronted(served) as (named, front):
            yield Faulted(case, site, store_url, named, front)


def live(store_url: str) -> dict[Key, Any]:
    """What the store holds now: live resources by type and id, numbers as written."""
    with psycopg.connect(store_url) as connection:
        rows = connection.execute(
            "SELECT resource_type, id, body::text FROM tenant_default.resource WHERE deleted_run IS NULL"
        ).fetchall()
    return {(kind, id_): written(body) for kind, id_, body in rows}


def rule(purpose: str, path: str | None = None, *, action: Mapping[str, Any], **when: Any) -> dict[str, Any]:
    """A fault rule as a script would hold it."""
    match = {"purpose": purpose} if path is None else {"purpose": purpose, "path": path}
    return {"match": match, "action": action, **when}
