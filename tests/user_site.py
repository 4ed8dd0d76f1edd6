"""A user's working directory for acceptance tests: a chartferry.toml, a store, mock EHRs, and the real command.

The command runs in this process, which saves the second that Python takes to import it; what is about processes starts one.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import dataclasses
import functools
import gzip
import io
import json
import re
import subprocess
import sys
import threading
import unittest.mock
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from cli.command_line import call
from mocks.keys import KeyPair, make_key_pair
from mocks.mock_config import MockConfig
from mocks.server import load_dataset
from mocks.serving import Served, serve
from tests.profiles import grouped

CHARTFERRY = str(Path(sys.executable).with_name("chartferry"))
_ALGORITHM = {"va": "RS256"}  # takes no other; each time that a command reads an RSA key costs 50 ms
_KEYS: dict[str, KeyPair] = {}

Key = tuple[str, str]


def key_pair(vendor: str) -> KeyPair:
    """One pair an algorithm and test session: making RSA keys takes longer than most tests."""
    algorithm = _ALGORITHM.get(vendor, "ES384")
    if algorithm not in _KEYS:
        _KEYS[algorithm] = make_key_pair(algorithm)  # type: ignore[arg-type]
    return _KEYS[algorithm]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def remarks(self) -> str:
        """What it told beside its waits: on a busy machine anything may take the two seconds after which a wait is told."""
        return re.sub(r"^[^\n]* \(\d+ s\)\n", "", self.stderr, flags=re.MULTILINE)


class Site:
    """One directory with a configuration, written anew at every `connect`."""

    def __init__(self, folder: Path, store_url: str) -> None:
        self.folder = folder
        self._store_url = store_url
        self._connections: list[str] = []
        self._encryption = ""
        self._more = ""
        self._write()

    def add(self, text: str) -> None:
        """Write more into the configuration, after the connections."""
        self._more += text
        self._write()

    def connect(self, served: Served, name: str | None = None, **settings: Any) -> str:
        """Write a connection to a running mock; what the vendor's way needs (cohort, group, audience) is filled in."""
        vendor = served.vendor
        name = name or f"site-{vendor}"
        lines: dict[str, Any] = {"vendor": vendor, "base_url": served.base_url}
        profile: dict[str, Any] = {
            "retry.base_s": 0.01,
            "poll.first_s": 0.05,
            "poll.cap_s": 0.2,
            "kickoff.again_s": 0.5,
            "login.refused_waits_s": [0, 0],
        }
        if not served.ehr.config.open:
            key = self.folder / f"{name}.jwk.json"
            key.write_text(json.dumps(key_pair(vendor).private))
            lines |= {"client_id": served.client_id, "key": f"file:{key.name}"}
        if vendor in {"epic", "va"}:
            cohort = self.folder / f"{name}.csv"
            cohort.write_text("\n".join(["patient_id", *served.patient_ids]))
            lines["cohort"] = f"file:{cohort.name}"
        if vendor in {"cerner", "allscripts"}:
            lines["group"] = served.group_id
        if vendor == "va":
            profile["login.audience"] = served.audience
        profile |= settings.pop("profile", {})
        lines |= settings
        text = "\n".join(f"{key} = {_toml(value)}" for key, value in lines.items() if value is not None)
        self._connections.append(f"[connections.{name}]\n{text}\nprofile = {_toml(grouped(profile))}\n")
        self._write()
        return name

    def encrypt(
        self,
        key: str | None,
        name: str = "k1",
        *,
        former: Mapping[str, str] | None = None,
        shown_to: Sequence[str] | None = None,
    ) -> None:
        """Configure this key (base64) for the store, former ones beside it, and who sees; None: no keys any more."""
        self._encryption = ""
        if key is not None:
            keys = {**(former or {}), name: key}
            for each, value in keys.items():
                (self.folder / f"{each}.key").write_text(value)
            listed = ", ".join(f'{each} = "file:{each}.key"' for each in keys)
            seen = "" if shown_to is None else f"shown_to = {_toml(list(shown_to))}\n"
            self._encryption = f'[encryption]\nkeys = {{ {listed} }}\ncurrent = "{name}"\n{seen}\n'
        self._write()

    def use_store(self, url: str) -> None:
        """Configure another store."""
        self._store_url = url
        self._write()

    def move(self, served: Served) -> None:
        """Write another base_url into the only connection: its EHR has moved."""
        self._connections = [
            "\n".join(
                f'base_url = "{served.base_url}"' if line.startswith("base_url") else line for line in text.split("\n")
            )
            for text in self._connections
        ]
        self._write()

    def _write(self) -> None:
        text = f'[store]\nurl = "{self._store_url}"\n\n{self._encryption}' + "\n".join(self._connections) + self._more
        (self.folder / "chartferry.toml").write_text(text)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command and come back at once."""
        return subprocess.Popen(
            [CHARTFERRY, *words], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def process(self, *words: str) -> Done:
        """Run a command to its end, in a process of its own."""
        ended = subprocess.run([CHARTFERRY, *words], cwd=self.folder, capture_output=True, text=True, check=False)
        return Done(ended.returncode, ended.stdout, ended.stderr)

    def run(self, *words: str, stdin: str = "") -> Done:
        """Run a command to its end: in this process, but where an event loop runs, which cannot hold another, or beside one."""
        if asyncio._get_running_loop() is not None or threading.current_thread() is not threading.main_thread():
            return self.process(*words)
        with contextlib.chdir(self.folder):
            return in_process(*words, stdin=stdin)

    def sync(self, *words: str, code: int = 0) -> dict[str, Any]:
        """`sync --json`, with the exit code that it must have."""
        done = self.run("sync", "--json", *words)
        assert done.code == code, f"exit {done.code}\n{done.stdout}\n{done.stderr}"
        return done.json

    def exported(self, *words: str) -> dict[Key, Any]:
        """`export` as NDJSON, read back: every live resource as JSON value with numbers as written."""
        out = self.folder / "exported"
        done = self.run("export", "--out", str(out), *words)
        assert done.code in {0, 4}, done.stderr
        if done.code == 4:
            return {}
        listed = {file["path"] for file in json.loads((out / "manifest.json").read_text())["files"]}
        return by_key(
            line
            for path in sorted(listed)
            if ".ndjson" in path
            for line in gzip.decompress((out / path).read_bytes()).splitlines()
        )


def until(happened: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    """Wait till it has happened, while the process that brings it about lives; without taking the processor from it."""
    while not happened():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert process.poll() is None, "it ended before that"


def in_process(*words: str, stdin: str = "") -> Done:
    """The command as `chartferry` runs it, without the time that a process takes to start."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    given = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        unittest.mock.patch.object(sys, "stdin", given),
    ):
        code = call(words)
    output, errors = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return Done(int(code), output, errors)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def _digits(digits: str) -> tuple[str, str]:
    return ("number", digits)


_read = json.JSONDecoder(parse_float=_digits, parse_int=_digits).decode


@functools.lru_cache(maxsize=1 << 13)
def written(text: str | bytes) -> Any:
    """JSON with numbers as they are written: 1.0 and 1.00 are different. To be read only: who asks again gets the same.

    Most tests judge the same charts, several times each: without the cache that was half of what acceptance tests computed.
    """
    return _read(text if isinstance(text, str) else text.decode())


def by_key(lines: Iterable[bytes]) -> dict[Key, Any]:
    """Resources by type and id; a repeated one fails."""
    found: dict[Key, Any] = {}
    for line in lines:
        resource = written(line)
        key = (resource["resourceType"], resource["id"])
        assert key not in found, f"{key} comes twice"
        found[key] = resource
    return found


def source(served: Served, types: Iterable[str] | None = None) -> dict[Key, Any]:
    """What the mock holds, of the given types."""
    dataset = served.dataset
    chosen = dataset.types if types is None else sorted(set(types) & set(dataset.types))
    return by_key(row.raw for t in chosen for row in dataset.of_type(t))


# what each EHR's documentation says, written here anew: the client's own lists are not asked
EPIC_CATEGORIES = {"social-history", "vital-signs", "imaging", "laboratory", "survey", "exam"}
CERNER_EXPORTS = {
    "AllergyIntolerance", "CarePlan", "CareTeam", "Condition", "Device", "DiagnosticReport", "DocumentReference", "Encounter",
    "Goal", "Immunization", "Location", "MedicationRequest", "Patient", "Procedure", "Observation", "Organization",
    "Practitioner", "Provenance",
}  # fmt: skip
ALLSCRIPTS_EXPORTS = CERNER_EXPORTS - {"Provenance"} | {
    "Binary", "Group", "Medication", "MedicationAdministration", "MedicationStatement", "PractitionerRole", "RelatedPerson",
}  # fmt: skip


# what no search by patient lists, but charts refer to: read by id, R4's reference types
REFERRED = {
    "Observation", "EpisodeOfCare", "Medication", "PractitionerRole", "Practitioner", "Organization", "Location", "Device",
}  # fmt: skip


def listed(served: Served) -> dict[Key, Any]:
    """What this mock's listings bring by its vendor's way, said independently of the client."""
    dataset = served.dataset
    of_patients = set(dataset.patient_types) | {"Patient"}
    types = {"cerner": CERNER_EXPORTS, "allscripts": ALLSCRIPTS_EXPORTS}.get(served.vendor, of_patients)
    found = source(served, types)
    if served.vendor == "epic":
        return {key: r for key, r in found.items() if key[0] != "Observation" or _categories(r) & EPIC_CATEGORIES}
    return found


def reachable(served: Served) -> dict[Key, Any]:
    """What a careful client can get from this mock: what is listed, and what that refers to, again and again."""
    found, everything = listed(served), source(served)
    fresh = set(found)
    while fresh:
        mentioned = set().union(*(_mentioned(served.dataset.get(*key).raw) for key in fresh))  # type: ignore[union-attr]
        fresh = {key for key in mentioned if key[0] in REFERRED and key in everything and key not in found}
        found |= {key: everything[key] for key in fresh}
    return found


@functools.lru_cache(maxsize=1 << 13)
def _mentioned(raw: bytes) -> frozenset[Key]:
    return frozenset(mentions(written(raw)))


def mentions(value: Any) -> Iterable[Key]:
    """Every relative literal reference anywhere in a resource."""
    if isinstance(value, Mapping):
        text = value.get("reference")
        if isinstance(text, str) and text.count("/") == 1:
            kind, _, identity = text.partition("/")
            yield kind, identity
        for item in value.values():
            yield from mentions(item)
    elif isinstance(value, list):
        for item in value:
            yield from mentions(item)


def _categories(observation: Any) -> set[str]:
    return {coding["code"] for category in observation.get("category", []) for coding in category.get("coding", [])}


def csv_rows(path: Path) -> list[dict[str, str]]:
    """A gzip CSV, read by the standard library."""
    return list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))


def number(value: Any) -> Decimal:
    """A number as `written` gives it."""
    return Decimal(value[1])


def mock(vendor: str, **knobs: Any) -> Any:
    """A running mock of the vendor: quick polls, few patients."""
    defaults = {"patients": 4, "polls": 1, "retry_after_s": 0, "jwks": key_pair(vendor).jwks}
    config = MockConfig(vendor=vendor, **{**defaults, **knobs})  # type: ignore[arg-type]
    if config.data is None:
        config = dataclasses.replace(config, data=_synthetic(config.patients, config.seed, documents=config.documents))
    return serve(config)


@functools.cache
def _synthetic(patients: int, seed: int, *, documents: bool) -> list[bytes]:
    """The charts that a mock would make of these words, made once."""
    dataset = load_dataset(MockConfig(patients=patients, seed=seed, documents=documents))
    return [row.raw for kind in dataset.types for row in dataset.of_type(kind)]
