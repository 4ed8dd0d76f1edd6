"""Reading patients' charts: what is filed under them, what names them elsewhere, and what their charts mention."""

from __future__ import annotations

import orjson
import pytest

from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.snapshots.stored import execute, full_run, record, scope, search

pytestmark = pytest.mark.anyio
U = search()
Keys = set[tuple[str, str]]


async def keys(store: Store, *patients: str, mentioned: bool = False, types: tuple[str, ...] = ()) -> Keys:
    """The rows of a selection; the counts, the NDJSON and the source of views must agree."""
    found: list[tuple[str, str]] = []
    async with store.snapshot(Selection(patients=patients, mentioned=mentioned, types=types)) as snapshot:
        counts = await snapshot.types()
        assert set(await snapshot.present()) == set(counts)
        for kind, count in counts.items():
            text = b"".join([chunk async for chunk in snapshot.ndjson(kind)])
            ids = [orjson.loads(line)["id"] for line in text.splitlines()]
            assert ids == [
                id_ for one in snapshot.sources(kind) for id_ in sorted(row[1] for row in await snapshot.fetch(one))
            ]
            assert len(ids) == count
            found += [(kind, one) for one in ids]
    assert len(found) == len(set(found))
    return set(found)


def member(url: str, kind: str, identity: str, patient: str, connection: int = 1) -> None:
    execute(url, f"INSERT INTO member VALUES ({connection}, '{kind}', '{identity}', '{patient}', false, 1)")


def mentions(identity: str, *references: str, kind: str = "Observation", patient: str | None = "p1"):
    body = {"resourceType": kind, "id": identity, "x": [{"reference": one} for one in references]}
    return record(identity, orjson.dumps(body), kind=kind, patient=patient)


async def test_a_patients_chart_includes_rows_filed_under_others_that_name_the_patient(store: Store, store_url: str):
    batch = [
        record("a", kind="Account", patient=None),
        record("v", kind="Appointment", patient="p2"),
        record("o"),
        record("n", kind="Account", patient=None),
    ]
    await full_run(await store.begin_run(scope()), batch, [U])
    member(store_url, "Account", "a", "p1")
    member(store_url, "Appointment", "v", "p1")
    assert await keys(store, "p1") == {("Account", "a"), ("Appointment", "v"), ("Observation", "o")}
    assert await keys(store, "p2") == {("Appointment", "v")}
    assert await keys(store, "p1", types=("Account",)) == {("Account", "a")}


async def test_a_row_of_two_cohort_patients_is_returned_once(store: Store, store_url: str):
    await full_run(await store.begin_run(scope()), [record("a", patient=None), record("b", patient="p1")], [U])
    for one in ("a", "b"):
        for patient in ("p1", "p2", "p3"):
            member(store_url, "Observation", one, patient)
    assert await keys(store, "p1", "p2") == {("Observation", "a"), ("Observation", "b")}


async def test_a_member_of_another_connection_or_a_tombstone_is_not_shown(store: Store, store_url: str):
    await full_run(await store.begin_run(scope(connection="other")), [record("a", patient=None)], [U])
    await full_run(await store.begin_run(scope()), [record("a", patient=None), record("d", patient=None)], [U])
    execute(store_url, "UPDATE resource SET deleted_at = now(), deleted_run = last_changed_run WHERE id = 'd'")
    member(store_url, "Observation", "a", "p1")
    member(store_url, "Observation", "d", "p1", connection=2)
    async with store.snapshot(Selection(connections=("mercy",), patients=("p1",))) as snapshot:
        assert await snapshot.types() == {}
    assert await keys(store, "p1") == {("Observation", "a")}


async def test_a_chart_includes_what_it_mentions_and_nothing_of_another_patient(store: Store, store_url: str):
    batch = [
        mentions("o", "Practitioner/d", "Appointment/v", "Account/a", "Condition/c"),
        mentions("d", "Organization/h/_history/2", kind="Practitioner", patient=None),
        mentions("h", kind="Organization", patient=None),
        mentions("v", "Location/l", kind="Appointment", patient=None),
        mentions("a", kind="Account", patient=None),
        mentions("c", kind="Condition", patient="p2"),
        mentions("l", kind="Location", patient=None),
        mentions("m", kind="Medication", patient=None),
    ]
    await full_run(await store.begin_run(scope()), batch, [U])
    member(store_url, "Appointment", "v", "p1")
    member(store_url, "Account", "a", "p2")
    own = {("Observation", "o"), ("Appointment", "v")}
    assert await keys(store, "p1") == own
    shared = {("Practitioner", "d"), ("Organization", "h"), ("Location", "l")}
    assert await keys(store, "p1", mentioned=True) == own | shared


async def test_a_mention_leads_to_its_own_connection(store: Store):
    other = [mentions("o", "Practitioner/d"), mentions("d", kind="Practitioner", patient=None)]
    await full_run(await store.begin_run(scope(connection="other")), other, [U])
    mine = [mentions("d", kind="Practitioner", patient=None), mentions("p", patient="p2")]
    await full_run(await store.begin_run(scope()), mine, [U])
    async with store.snapshot(Selection(patients=("p1",), mentioned=True)) as snapshot:
        stream = snapshot.ndjson("Practitioner")
        assert [chunk async for chunk in stream]
        assert stream.rows_by_query == [0, 1]  # mercy, other
