"""Patients are found by exact terms; the index of an encrypted store tells nobody which."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator

import anyio
import orjson
import psycopg
import pytest

from snapshots.audit_event import Action
from snapshots.patient_terms import Term, identifier_term, name_term, ssn_term
from snapshots.record import Record
from snapshots.sealed_values import Keyring
from snapshots.store import Store
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import PATIENTS, execute, full_run, read, record, rows, scope, who_waits

pytestmark = pytest.mark.anyio

KEYS = Keyring(current="k1", keys={"k1": b"1" * 32})
MRN, SSN = identifier_term("urn:mrn", "A12"), ssn_term("999-12-3456")
NAME = name_term("Zappa", "Moon", "1940-12-21")


def patient(identity: str, mrn: str = "A12", family: str = "Zappa") -> Record:
    body = {
        "resourceType": "Patient",
        "id": identity,
        "identifier": [
            {"system": "urn:mrn", "value": mrn},
            {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "999123456"},
        ],
        "name": [{"family": family, "given": ["Moon"]}],
        "birthDate": "1940-12-21",
    }
    return record(identity, orjson.dumps(body), kind="Patient", patient=identity, way=PATIENTS)


@pytest.fixture(params=[None, KEYS], ids=["plain", "encrypted"])
async def any_store(store_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with opened_store(store_url, keyring=request.param) as store:
        yield store


async def night(store: Store, *records: Record, connection: str = "mercy") -> None:
    units = [read("p1"), read("p2")]
    await full_run(await store.begin_run(scope(connection=connection)), list(records), units)


async def found(store: Store, *terms: Term, connection: str = "mercy") -> list[list[str] | None]:
    return [await store.find(connection, term) for term in terms]


async def test_a_patient_is_found_by_identifier_number_and_name_in_its_own_connection(any_store: Store):
    await night(any_store, patient("p1"), patient("p2", mrn="B7"))
    assert await found(any_store, MRN, SSN, NAME) == [["p1"], ["p1", "p2"], ["p1", "p2"]]
    await night(any_store, patient("p1", mrn="C9"), connection="other")
    assert await found(any_store, MRN, connection="other") == [[]]
    assert await found(any_store, MRN, connection="never synced") == [None]


async def test_a_patient_is_found_by_current_values_and_not_by_former_ones(any_store: Store, store_url: str):
    await night(any_store, patient("p1"), patient("p2", mrn="B7"))
    await night(any_store, patient("p1", family="Frank"))
    execute(store_url, "UPDATE resource SET deleted_at = now() WHERE id = 'p2'")
    gone = name_term("Frank", None, "1940-12-21")
    assert await found(any_store, NAME, gone, identifier_term("urn:mrn", "B7")) == [[], ["p1"], []]


async def test_a_patient_who_changes_during_a_search_is_not_found_by_former_values(store: Store, store_url: str):
    await night(store, patient("p1"))
    answers = []

    async def ask() -> None:
        answers.append(await store.find("mercy", MRN))

    async with await psycopg.AsyncConnection.connect(store_url) as conn, anyio.create_task_group() as group:
        await conn.execute("SET search_path = tenant_default; SET app.current_tenant_id = 'default'")
        await conn.execute(
            "LOCK TABLE patient_token IN ACCESS EXCLUSIVE MODE"
        )  # what is missing in the index was looked for
        group.start_soon(ask)
        await who_waits(conn)
        await conn.execute("UPDATE resource SET content_hash = 'another'")
        await conn.commit()
    assert answers == [[]]


@pytest.mark.parametrize("keyring", [None, KEYS], ids=["plain", "encrypted"])
async def test_a_store_older_than_the_index_gets_it_at_the_first_search(store_url: str, keyring: Keyring | None):
    async with opened_store(store_url, keyring=keyring) as store:
        await night(store, patient("p1"), patient("p2", mrn="B7"))
    execute(store_url, "TRUNCATE patient_token, patient_index")
    async with opened_store(store_url, keyring=keyring) as store:
        assert await found(store, MRN) == [["p1"]]
        execute(store_url, "DELETE FROM patient_index WHERE patient_id = 'p2'")  # stopped in the middle
        assert await found(store, MRN, SSN) == [["p1"], ["p1", "p2"]]
    assert rows(store_url, "SELECT count(*) FROM patient_index") == [(2,)]


async def test_a_run_without_changes_writes_no_index(any_store: Store, store_url: str):
    written = "SELECT xmin::text FROM patient_index UNION ALL SELECT xmin::text FROM patient_token ORDER BY 1"
    await night(any_store, patient("p1"))
    before = rows(store_url, written)
    assert len(before) == 1 + 5  # without anybody having asked
    await night(any_store, patient("p1"))
    assert rows(store_url, written) == before


async def test_index_tokens_need_the_secret_and_differ_between_connections(store_url: str):
    async with opened_store(store_url, keyring=KEYS) as store:
        await night(store, patient("p1"))
        await night(store, patient("p1"), connection="other")
    tokens = {bytes(token) for (token,) in rows(store_url, "SELECT token FROM patient_token")}
    assert len(tokens) == 2 * 5  # two identifiers, the number, and a name with and without its given name
    words = [len(word).to_bytes(8, "big") + word for word in (b"urn:mrn", b"A12")]
    guessed = {hmac.digest(b"default\nmercy\nidentifier", b"".join(words), "sha256")[:16]}
    assert not tokens & guessed


async def test_the_audit_says_who_was_found_and_not_by_which_terms(any_store: Store):
    await night(any_store, patient("p1"))
    await found(any_store, MRN, identifier_term("urn:mrn", "nobody's"))
    (event,) = await any_store.audit.who_saw("p1")
    assert (event.action, event.connections, event.types) == (Action.FIND, ("mercy",), ("Patient",))


async def test_an_erased_patient_is_in_no_index(any_store: Store, store_url: str):
    await night(any_store, patient("p1"), patient("p2", mrn="B7"))
    erased = await any_store.erase("mercy", "p1")
    assert (erased.rows["patient_index"], erased.rows["patient_token"]) == (1, 5)
    assert rows(store_url, "SELECT DISTINCT patient_id FROM patient_token") == [("p2",)]
    assert await found(any_store, MRN) == [[]]
