"""smart_fetch_faults exposes chartferry and smart-fetch to the same faults, on equal mocks, and reports what happened.

Every fault affects a first run; then the fault ends and the same command runs again. Missing rows are counted against the source,
row by row: in the store for chartferry, in the files for smart-fetch. Nothing is assumed: the table shows observations.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.crawl import cohort
from benchmarks.figures import Behaviour
from benchmarks.processes import CHARTFERRY
from benchmarks.smart_fetch_command import smart_fetch
from benchmarks.workplace import CLIENT_ID, Workplace, tell
from mocks.mock_config import MockConfig
from mocks.serving import Served, serve

PATIENTS = 12
PAGE_ROWS = 20
TYPES = ("Patient", "Condition", "Immunization", "Observation")
_LONGEST_S = 600.0  # smart-fetch waits whole minutes between tries if the server does not say how long
Keys = set[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """One fault: its description, what the mock does, and how the run starts. `killed_at`: SIGKILL after this many requests."""

    text: str
    mode: str = "crawl"
    rules: Sequence[dict[str, Any]] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    killed_at: int | None = None
    also: Callable[[Served], str] | None = None


def _tokens_astray(served: Served) -> str:
    """Count the tokens sent to `localhost` by `next` links; that is not the base URL's origin, 127.0.0.1."""
    sent = sum(
        entry.had_authorization and entry.headers.get("host", "").startswith("localhost") for entry in served.log
    )
    return f"token sent to the other origin {sent} times" if sent else "the token stayed at its origin"


FAULTS = (
    _Fault(
        text="`next` leads to another origin",
        rules=[{"match": {"purpose": "search", "path": "/Observation"}, "action": {"rewrite": "next-foreign"}}],
        also=_tokens_astray,
    ),
    _Fault(
        text="one patient's searches of a type answer 503 for the whole night (Retry-After: 0)",
        rules=[{
            "match": {"purpose": "search", "path": "/Condition\\?.*{patient}"},
            "action": {"status": 503, "headers": {"Retry-After": "0"}},
        }],
    ),
    _Fault(
        text="429 for the next 80 requests (Retry-After: 1)",
        rules=[{
            "match": {"purpose": "search"}, "first": 10, "last": 89, "action": {"status": 429, "headers": {"Retry-After": "1"}},
        }],
    ),
    _Fault(
        text="a firewall's web page, HTTP 200, instead of one page",
        rules=[{"match": {"purpose": "search", "path": "/Observation"}, "nth": 3, "action": {"wrong_content": True}}],
    ),
    _Fault(
        text="a bulk file loses its last line; Content-Length fits, the manifest's count does not", mode="bulk",
        rules=[{"match": {"purpose": "file"}, "nth": 2, "action": {"rewrite": "without-last-line"}}],
    ),
    _Fault(
        text="a bulk file is cut off mid-stream, once", mode="bulk",
        rules=[{"match": {"purpose": "file"}, "nth": 2, "action": {"cut_after_bytes": 500}}],
    ),
    _Fault(
        text="SIGKILL after 250 searches of a crawl at 100 ms, then the same command again", killed_at=250,
        settings={"latency_s": 0.1},
    ),
)  # fmt: skip


@dataclass
class _Run:
    """The result of one run of a client."""

    code: int
    seconds: float
    missing: int
    broken_lines: int
    twice: int


def run(place: Workplace) -> list[Behaviour]:
    """Expose both clients to every fault; return the observations."""
    key = place.folder / "key.jwks"
    shutil.copyfile(place.folder / "key.jwk.json", key)
    seen = []
    for number, fault in enumerate(FAULTS, start=1):
        tell(f"fault {number} of {len(FAULTS)}: {fault.text}")
        seen.append(Behaviour(
            fault=fault.text,
            ours=_struck(place, fault, _Chartferry(place)),
            theirs=_struck(place, fault, _SmartFetch(place, key)),
        ))  # fmt: skip
    return seen


class _Chartferry:
    """The chartferry command, with its own empty tenant."""

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._tenant = place.tenant()
        self.broken_lines = 0  # the store takes none

    def command(self, served: Served, mode: str) -> list[str]:
        settings: dict[str, Any] = {"group": served.group_id} if mode == "bulk" else {"types": list(TYPES)}
        if mode == "crawl":
            settings["cohort"] = f"file:{cohort(self._place.folder, served.patient_ids)}"
        config = self._place.configure(self._tenant, {
            "vendor": "generic", "base_url": served.base_url, "mode": mode, "profile": {"search": {"page_size": PAGE_ROWS}},
            **settings, **self._place.login(),
        })  # fmt: skip
        return [str(CHARTFERRY), "sync", "--json", "--config", str(config)]

    def has(self) -> Keys:
        table = sql.Identifier(f"tenant_{self._tenant}", "resource")
        with psycopg.connect(self._place.url) as connection:
            query = sql.SQL("SELECT resource_type, id FROM {} WHERE deleted_at IS NULL").format(table)
            return set(connection.execute(query))

    def close(self) -> None:
        self._place.drop(self._tenant)


class _SmartFetch:
    """smart-fetch, with its own empty folder."""

    def __init__(self, place: Workplace, key: Path) -> None:
        self._folder = place.folder
        self._out = place.folder / "smart-fetch-faults"
        self._login = ("--smart-client-id", CLIENT_ID, "--smart-key", str(key))
        self.broken_lines = 0
        shutil.rmtree(self._out, ignore_errors=True)

    def command(self, served: Served, mode: str) -> list[str]:
        which = (
            ("--group", served.group_id)
            if mode == "bulk"
            else ("--id-file", str(cohort(self._folder, served.patient_ids)))
        )
        return smart_fetch(mode, self._out, served.base_url, TYPES, *which, *self._login)

    def has(self) -> Keys:
        found: Keys = set()
        self.broken_lines = 0
        for file in self._out.glob("*.ndjson.gz"):
            if file.name.startswith("log."):
                continue
            unpacked = zlib.decompressobj(31).decompress(file.read_bytes())  # also in a file that was left half written
            for line in unpacked.splitlines():
                try:
                    resource = json.loads(line)
                except json.JSONDecodeError:
                    self.broken_lines += 1
                    continue
                found.add((resource["resourceType"], resource["id"]))
        return found

    def close(self) -> None:
        shutil.rmtree(self._out, ignore_errors=True)


def _struck(place: Workplace, fault: _Fault, client: _Chartferry | _SmartFetch) -> str:
    config = MockConfig(
        patients=PATIENTS, seed=7, client_id=CLIENT_ID, jwks=place.jwks, page_size=PAGE_ROWS, polls=0, retry_after_s=0,
        rows_per_file=200, max_parallel_files=None, **fault.settings,
    )  # fmt: skip
    with serve(config) as served:
        for rule in fault.rules:
            text = json.dumps(rule).replace("{patient}", served.patient_ids[3])
            served.faults.add(json.loads(text))
        first = _run(fault, client, served, fault.killed_at)
        also = fault.also(served) if fault.also else ""
        served.faults.clear()
        second = _run(fault, client, served, None)
    client.close()
    if fault.killed_at is not None:
        return f"{_described(second, 'rerun: ')}, {second.twice} searches sent again"
    return "; ".join(part for part in (_described(first, ""), also, _described(second, "rerun: ")) if part)


def _run(fault: _Fault, client: _Chartferry | _SmartFetch, served: Served, killed_at: int | None) -> _Run:
    source = {(row.type, row.id) for kind in TYPES for row in served.dataset.of_type(kind) if row.patient}
    before = {entry.target for entry in served.log.of("search") if entry.status == 200}
    at = len(served.log)
    begins = time.perf_counter()
    command = client.command(served, fault.mode)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        if killed_at is not None:
            while process.poll() is None and len(served.log.of("search")) < killed_at:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        code = process.wait(_LONGEST_S)
    seconds = time.perf_counter() - begins
    requests = list(served.log)[at:]
    missing = len(source - client.has())
    twice = sum(entry.purpose == "search" and entry.target in before for entry in requests)
    return _Run(code, seconds, missing, client.broken_lines, twice)


def _described(run: _Run, prefix: str) -> str:
    whole = "nothing missing" if not run.missing else f"{run.missing:,} rows missing"
    if run.broken_lines:
        whole += f", {run.broken_lines} broken lines in its files"
    ending = "exit 0" if run.code == 0 else f"exit {run.code}"
    if run.code == 0 and run.missing:
        ending = "exit 0, SILENTLY"
    return f"{prefix}{ending}, {whole}, {run.seconds:.0f} s"
