"""One seed's trial under way: runs as processes of their own, killed as the trial says, until the store is the source.

A run that says "complete" is taken at its word and compared at once. What a seed means is `trial`'s; what the EHR holds and
what can be had of it, the acceptance tests' `user_site`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psycopg

from mocks.serving import Served
from tests.acceptance.faulted import charts, charts_only, live
from tests.chaos.trial import FAULTY_RUNS, Kill, Trial
from tests.user_site import Site, mock, reachable, source

FAULTLESS_RUNS = 3  # without faults one is enough; a second may be asked to wait for what the first left behind
RUN_S = 1500  # for what hangs; on a busy machine a run may be slow
PARTIAL, FAILED = 3, 5
KILLED = -signal.SIGKILL
CHANGED, DELETED = 3, 2
PROFILE = {
    "retry.base_s": 0.01,
    "retry.cap_s": 0.05,
    "retry.after_cap_s": 0.05,
    "http.connect_timeout_s": 60,
    "limits.breaker_open_s": 0.1,
    "login.refused_waits_s": [0, 0],
    "kickoff.wait_s": 5,
    "kickoff.again_s": 0.2,
}
# how long an answer may keep a run waiting: while some never come, not long; else as long as a busy machine takes for one
WITH_FAULTS_S, WITHOUT_S = 0.7, 60
# what may be under way when a process is killed: requests on the wire, and answers that wait for company before they are
# written (0.2 s at 40 ms each) or in the hands of workers
IN_FLIGHT = {"epic": 60, "va": 60, "cerner": 20 * 10 + 40, "allscripts": 60, "generic": 10 * 10 + 20}

# what a sync imports is imported once; each run is a process all the same
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["cli.command_line", "cli.wiring", "connectors.fhir.sync", "connectors.fhir.auth.login", "snapshots.pool"]
)


class Postgres(Protocol):
    """The server that a trial may kill."""

    def url(self) -> str:
        """A database of this trial's own, migrated and empty."""

    def crash(self) -> None:
        """Kill the server in the middle of whatever it does, and start it again."""


class ChaosError(AssertionError):
    """The store is not what it must be; the message names the seed's trouble, and no patient."""


@dataclass
class Outcome:
    """How a trial went: exit codes of the runs in order, and what happened."""

    trial: Trial
    codes: list[int] = field(default_factory=list)
    killed: int = 0
    faults: int = 0
    seconds: float = 0

    def __str__(self) -> str:
        runs = " ".join("kill" if code == KILLED else str(code) for code in self.codes)
        return f"seed {self.trial.seed}: runs {runs}; {self.faults} faults, {self.killed} kills, {self.seconds:.1f} s"


def _command(folder: str, output: str) -> None:
    """What the process of a run does."""
    os.chdir(folder)
    for number in (1, 2):
        os.dup2(os.open(f"{output}.{number}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    from cli.command_line import call

    os._exit(call(["sync", "--json"]))


class TrialRun:
    """One trial under way."""

    def __init__(self, trial: Trial, served: Served, postgres: Postgres, folder: Path) -> None:
        self._trial = trial
        self._served = served
        self._postgres = postgres
        self._folder = folder
        self.url = postgres.url()
        self.outcome = Outcome(trial)

    def _configure(self, read_timeout_s: float) -> None:
        trial, served = self._trial, self._served
        profile = {**PROFILE, "http.read_timeout_s": read_timeout_s, **trial.profile}
        settings: dict[str, Any] = {"mode": trial.mode, "profile": profile}
        if trial.mode == "crawl" and trial.vendor in {"cerner", "allscripts"}:
            (self._folder / "cohort.csv").write_text("\n".join(["patient_id", *served.patient_ids]))
            settings |= {"group": None, "cohort": "file:cohort.csv"}
        Site(self._folder, self.url).connect(served, **settings)

    def run_all(self) -> Outcome:
        """The whole trial; raises ChaosError."""
        began = time.monotonic()
        changed = deleted = 0
        self._configure(WITHOUT_S)
        if self._trial.earlier_night:
            if (code := self._run(None)) != 0:
                raise ChaosError(f"a run without faults ended with {code}")
            changed, deleted = self._change()
            self.outcome.codes.clear()
        for rule in self._trial.rules:
            self._served.faults.add(dict(rule))
        self._configure(WITH_FAULTS_S)
        kills = {kill.run: kill for kill in self._trial.kills}
        for number in range(FAULTY_RUNS):
            code = self._run(kills.get(number))
            if code == 0 and number + 1 >= len(self._trial.kills):
                break
        self.outcome.faults = self._served.faults.hits
        self._served.faults.clear()
        self._configure(WITHOUT_S)
        for _ in range(FAULTLESS_RUNS):
            if self._run(None) == 0:
                break
        else:
            raise ChaosError("the faults have ended, and the runs do not get complete")
        self._judge_history(changed, deleted)
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    def _change(self) -> tuple[int, int]:
        """Some of the source changes, some of it goes: nothing that anything else refers to."""
        dataset = self._served.dataset
        rows = dataset.of_type("Immunization")
        for row in rows[:CHANGED]:
            dataset.replace(row.raw.replace(b'"completed"', b'"entered-in-error"', 1))
        for row in rows[CHANGED : CHANGED + DELETED]:
            dataset.delete(row.type, row.id)
        return CHANGED, DELETED

    def _run(self, kill: Kill | None) -> int:
        """One run, ended by force where a kill says so; what it leaves is judged by what it said."""
        before = _settled(self.url, self._served)
        self._served.log.clear()
        output = str(self._folder / "said")
        process = _CONTEXT.Process(target=_command, args=(str(self._folder), output))
        process.start()
        if kill is not None:
            self._kill(process, kill)
        process.join(RUN_S)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise ChaosError(f"a run did not end within {RUN_S} s")
        code = process.exitcode
        process.close()
        self.outcome.codes.append(code)
        self._judge(code, output, before, kill)
        return code

    def _kill(self, process: Any, kill: Kill) -> None:
        while process.is_alive() and len(self._served.log) < kill.after:
            process.join(0.002)
        if not process.is_alive():
            return
        self.outcome.killed += 1
        if kill.victim == "sync":
            process.kill()
            process.join()
        else:
            self._postgres.crash()

    def _judge(self, code: int, output: str, before: set[str], kill: Kill | None) -> None:
        errors = Path(f"{output}.2").read_text()
        if code not in {0, PARTIAL, FAILED, KILLED} or "Traceback" in errors:
            raise ChaosError(f"a run ended with {code}:\n{errors[-1500:]}")
        again = before & set(_asked(self._served)) - _controls(self.url, self._served)
        if again:
            raise ChaosError(f"{len(again)} units were asked again although a run that goes on had settled them")
        if code == KILLED:
            pending = _pending(self.url, self._served) & set(_asked(self._served))
            if len(pending) > IN_FLIGHT[self._trial.vendor]:
                raise ChaosError(
                    f"{len(pending)} units had been asked and were not settled when the process was killed"
                )
        holes: set[str] = set()
        if code == PARTIAL:
            run = json.loads(Path(f"{output}.1").read_text())["runs"][0]
            holes = {hole["type"] for hole in run["holes"]}
        if code in {0, PARTIAL}:
            self._judge_rows(holes)

    def _judge_rows(self, holes: set[str]) -> None:
        """Whatever has no hole is exactly the source's."""
        stored, held = live(self.url), source(self._served)
        wrong = {key[0] for key, row in stored.items() if held.get(key) != row}
        due = charts_only(self._served) if self._trial.mode == "crawl" else reachable(self._served)
        missing = {key[0] for key in due.keys() - stored.keys()}
        if "*" not in holes and (wrong | missing) - holes:
            raise ChaosError(f"holes {sorted(holes)}; but wrong: {sorted(wrong)}, missing: {sorted(missing)}")

    def _judge_history(self, changed: int, deleted: int) -> None:
        """Nothing doubled, nothing that went and came back: one old version a change, one tombstone a deletion."""
        with psycopg.connect(self.url) as conn:
            found = conn.execute(
                "SELECT (SELECT count(*) FROM tenant_default.resource_history),"
                " (SELECT count(*) FROM tenant_default.resource WHERE deleted_run IS NOT NULL)"
            ).fetchone()
        if found != (changed, deleted):
            raise ChaosError(f"old versions and tombstones are {found}, and not {(changed, deleted)}")


def _units(url: str, served: Served, state: str) -> set[str]:
    """What is asked first for units of the open run that stand so."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "SELECT CASE kind WHEN 'batch' THEN 'Patient?_id=' || array_to_string(ids, ',') ELSE detail->>'path' END,"
            " detail->>'url'"
            " FROM tenant_default.unit WHERE state = %s AND run ="
            " (SELECT max(id) FROM tenant_default.run WHERE status = 'running')",
            (state,),
        ).fetchall()
    return {link or f"{served.base_url}/{path}" for path, link in rows if link or path}


def _controls(url: str, served: Served) -> set[str]:
    """Reads of rows that the newest run has listed, to learn whether a 404 means anything: these are asked twice on purpose."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "SELECT resource_type, ids[1] FROM tenant_default.unit WHERE kind = 'control'"
            " AND run = (SELECT max(id) FROM tenant_default.run)"
        ).fetchall()
    return {f"{served.base_url}/{resource_type}/{id_}" for resource_type, id_ in rows}


def _settled(url: str, served: Served) -> set[str]:
    return _units(url, served, "settled")


def _pending(url: str, served: Served) -> set[str]:
    return _units(url, served, "pending")


def _asked(served: Served) -> list[str]:
    origin = "/".join(served.base_url.split("/", 3)[:3])
    return [origin + entry.target for entry in list(served.log) if entry.purpose in {"search", "read", "file"}]


@contextmanager
def prepared(trial: Trial, postgres: Postgres, folder: Path) -> Iterator[TrialRun]:
    """A trial ready to begin: its EHR served, its database empty."""
    knobs = {
        "data": charts(3),
        "kickoff_window_s": 0,
        "max_parallel_files": None,
        "abandoned_job_s": 0.3,
        **trial.knobs,
    }
    with mock(trial.vendor, **knobs) as served:
        yield TrialRun(trial, served, postgres, folder)


class CrashingPostgres:
    """An embedded server on a directory of its own, with a database a trial."""

    def __init__(self, directory: Path) -> None:
        from snapshots.embedded import EmbeddedPostgres

        self._directory = directory
        self._make = lambda: EmbeddedPostgres(directory)
        self._server = self._make()
        self._url = self._server.acquire()
        self._number = 0
        self._prepare()

    def _prepare(self) -> None:
        import anyio

        from tests.fix_store import opened_store

        with psycopg.connect(self._url, autocommit=True) as conn:
            conn.execute("CREATE DATABASE migrated")

        async def migrate() -> None:
            async with opened_store(self._of("migrated")):
                pass

        anyio.run(migrate)

    def _of(self, database: str) -> str:
        return self._url.replace("/postgres?", f"/{database}?")

    def url(self) -> str:
        """A database of this trial's own, migrated and empty."""
        if self._number:
            with psycopg.connect(self._url, autocommit=True) as conn:
                conn.execute(f"DROP DATABASE trial_{self._number} WITH (FORCE)")  # type: ignore[arg-type,call-overload] # a number
        self._number += 1
        with psycopg.connect(self._url, autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE trial_{self._number} TEMPLATE migrated STRATEGY FILE_COPY")  # type: ignore[arg-type,call-overload]
        return self._of(f"trial_{self._number}")

    def crash(self) -> None:
        """Immediate shutdown: no checkpoint, nothing flushed; then the start that recovers from the log."""
        pid = int((self._directory / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGQUIT)
        with suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                time.sleep(0.005)
        self._server = self._make()
        self._url = self._server.acquire()

    def close(self) -> None:
        """Stop the server."""
        self._server.release()
