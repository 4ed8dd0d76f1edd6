"""Whatever nights, pruning, erasures and keys a store has seen, each moment that it keeps reads as a plain model says."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots.errors import HistoryPrunedError
from snapshots.record import Batch, Record
from snapshots.sealed_values import Keyring
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.witness import Deletion, Said
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import record, scope

pytestmark = pytest.mark.anyio
_NUMBERS = itertools.count(1)
T0 = datetime(2020, 1, 1, tzinfo=UTC)
PATIENTS = ("p1", "p2")
KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}


class Content(NamedTuple):
    """What an EHR has of one resource."""

    value: int
    patient: str
    other: str | None = None  # in whose compartment it is as well
    mention: str | None = None  # whom its narrative mentions; it is encrypted where anything is

    @property
    def people(self) -> set[str]:
        return {one for one in (self.patient, self.other, self.mention) if one is not None}

    def is_of(self, patient: str) -> bool:
        return patient in (self.patient, self.other)


Key = tuple[str, str]
State = Mapping[Key, Content]
KEYED = [("Observation", id_) for id_ in "abc"] + [("Patient", who) for who in PATIENTS]


class Version(NamedTuple):
    """A content, from one run on until another replaces it; none: it is deleted."""

    since: int
    content: Content | None


@dataclass
class Model:
    """The versions of each resource, oldest first, and the first run that can still be read."""

    runs: list[int] = field(default_factory=list)
    versions: dict[Key, list[Version]] = field(default_factory=dict)
    kept_from: int = 0

    def state(self, run: int) -> State:
        found = {}
        for key, some in self.versions.items():
            then = [one.content for one in some if one.since <= run][-1:]
            if then and then[0] is not None:
                found[key] = then[0]
        return found

    def night(self, run: int, work: Mapping[Key, Any]) -> None:
        self.runs.append(run)
        now = self.state(run)
        for key, one in work.items():
            content = one if isinstance(one, Content) else None
            if one is not None and now.get(key) != content:
                self.versions.setdefault(key, []).append(Version(run, content))

    def prune(self, kept_from: int) -> None:
        self.kept_from = kept_from
        for key, some in self.versions.items():
            replaced = [after.since <= kept_from for after in some[1:]]
            self.versions[key] = [one for one, gone in zip(some, [*replaced, False], strict=True) if not gone]

    def erase(self, patient: str) -> None:
        self.versions = {
            key: some
            for key, some in self.versions.items()
            if not any(one.content is not None and patient in one.content.people for one in some)
        }


def body(key: Key, content: Content) -> bytes:
    kind, id_ = key
    if kind == "Patient":
        return orjson.dumps({"resourceType": kind, "id": id_, "name": [{"family": f"Zappa {content.value}"}]})
    told = "" if content.mention is None else f"see Patient/{content.mention}."
    text = {"status": "additional", "div": f"<div>{told} {content.value}</div>"}
    subject = {"reference": f"Patient/{content.patient}"}
    return orjson.dumps({"resourceType": kind, "id": id_, "subject": subject, "text": text, "of": content.other})


def recorded(key: Key, content: Content) -> Record:
    others = () if content.other is None else (content.other,)
    version = str(next(_NUMBERS))
    return record(key[1], body(key, content), kind=key[0], patient=content.patient, version=version, others=others)


async def night(store: Store, day: int, work: Mapping[Key, Any]) -> int:
    records = [recorded(key, one) for key, one in work.items() if isinstance(one, Content)]
    gone = [Deletion(*key, Said.DELETED) for key, one in work.items() if one == "gone"]
    async with await store.begin_run(scope(), clock=lambda: T0 + timedelta(days=day)) as run:
        await run.write(Batch(records=records))
        await run.write(Batch(deletions=gone))
        await run.finish(watermark=None)
        return run.id


async def read(store: Store, run: int, patient: str | None = None) -> dict[Key, Any]:
    found = {}
    patients = None if patient is None else (patient,)
    async with store.snapshot(Selection(connections=("mercy",), patients=patients, as_of=run)) as snapshot:
        for kind in ("Observation", "Patient"):
            text = b"".join([chunk async for chunk in snapshot.ndjson(kind)])
            found.update({(kind, one["id"]): one for one in map(orjson.loads, text.splitlines())})
    return found


async def differences(store: Store, earlier: int, later: int) -> dict[Key, str]:
    async with store.snapshot(Selection(connections=("mercy",), as_of=later, changed_since=earlier)) as snapshot:
        text = b"".join([chunk async for chunk in await snapshot.differences()])
    return {(one["type"], one["id"]): one["change"] for one in map(orjson.loads, text.splitlines())}


def written(state: State, patient: str | None = None) -> dict[Key, Any]:
    return {key: orjson.loads(body(key, one)) for key, one in state.items() if patient is None or one.is_of(patient)}


def between(before: State, after: State) -> dict[Key, str]:
    told = dict.fromkeys(after.keys() - before.keys(), "added") | dict.fromkeys(before.keys() - after.keys(), "deleted")
    return told | {key: "changed" for key in after.keys() & before.keys() if after[key] != before[key]}


WHO = st.sampled_from(PATIENTS)
OBSERVED = st.builds(Content, st.integers(1, 2), WHO, st.none() | WHO, st.none() | WHO)
# a Patient of whom rows still come is not believed to be deleted (completeness-rules.md): here Patients stay
NIGHT = st.fixed_dictionaries(
    {
        key: st.none() | st.just("gone") | OBSERVED
        if key[0] == "Observation"
        else st.none() | st.builds(Content, st.integers(1, 2), st.just(key[1]), st.none(), st.none())
        for key in KEYED
    }
)
PRUNING = st.tuples(st.just("prune"), st.integers(0, 4))  # all but this many of the nights before
STEP = NIGHT | PRUNING | st.tuples(st.just("erase"), WHO) | st.tuples(st.just("rotate"), st.sampled_from(sorted(KEYS)))


@settings(max_examples=6)
@given(st.lists(STEP, min_size=4, max_size=9), st.booleans())
async def test_each_kept_moment_reads_as_the_model_says_after_nights_pruning_erasures_and_new_keys(
    store_url: str, steps: list[Any], encrypted: bool
) -> None:
    tenant = f"model{next(_NUMBERS)}"
    keyring = Keyring(current="k1", keys=KEYS) if encrypted else None
    model = Model()
    for step in [dict.fromkeys(KEYED), *steps, dict.fromkeys(KEYED)]:
        encrypts = False
        if isinstance(step, tuple) and step[0] == "rotate":
            encrypts, keyring = keyring is None, Keyring(current=step[1], keys=KEYS)
        async with opened_store(store_url, tenant, keyring=keyring, encrypts=encrypts) as store:
            if isinstance(step, dict):
                model.night(await night(store, len(model.runs), step), step)
            elif step[0] == "prune":
                done = await store.prune(history=T0 + timedelta(days=len(model.runs) - 1 - step[1]))
                model.prune(done.kept_from.get("mercy", model.kept_from))
            elif step[0] == "erase":
                await store.erase("mercy", step[1])
                model.erase(step[1])
            else:
                await store.rotate()
    async with opened_store(store_url, tenant, keyring=keyring) as store:
        for run in model.runs:
            if run < model.kept_from:
                with pytest.raises(HistoryPrunedError):
                    await read(store, run)
                continue
            assert await read(store, run) == written(model.state(run))
            for patient in PATIENTS:
                assert await read(store, run, patient) == written(model.state(run), patient)
            assert await differences(store, run, model.runs[-1]) == between(
                model.state(run), model.state(model.runs[-1])
            )
        assert (await store.audit.verify()).faults == ()
