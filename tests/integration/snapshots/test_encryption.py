"""An encrypted store: its tables identify no patient, and a reader with the keys gets what a plain store gives."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.fhir.linked.attachment_finder import PATHS, with_attached
from snapshots.actor import Actor
from snapshots.audit_event import Action
from snapshots.errors import SealedValueError, StoreKeyError
from snapshots.record import Batch, Quarantined, Record
from snapshots.referred import Document
from snapshots.sealed_values import Keyring, Sealer
from snapshots.sealing import UnsealableError, opened_row, sealed_record
from snapshots.selection import Selection
from snapshots.store import Store
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import everything, execute, full_run, record, rows, scope, search

pytestmark = pytest.mark.anyio

KEYS = Keyring(current="k1", keys={"k1": b"1" * 32})
OTHER = Keyring(current="k1", keys={"k1": b"2" * 32})
BOTH = Keyring(current="k2", keys={**KEYS.keys, "k2": b"2" * 32})
UNITS = [search("Patient"), search()]
NAMED = (
    "Zappa",
    "Moon",
    "Unité",
    "1940-12-21",
    "999-12-3456",
    "Laurel",
    "5550142",
    "34.117",
    "Gail",
    "Adelaide",
    "Rosie",
)


def patient(identity: str = "p1", family: str = "Zappa", **more: object) -> Record:
    body = {
        "resourceType": "Patient",
        "id": identity,
        "text": {"status": "generated", "div": f"<div>{family}, see Patient/p9</div>"},
        "identifier": [{"use": "usual", "type": {"text": "SSN"}, "system": "urn:ssn", "value": "999-12-3456"}],
        "name": [{"use": "official", "family": family, "given": ["Moon", "Unité"]}],
        "birthDate": "1940-12-21",
        "_birthDate": {"extension": [{"url": "birthTime", "valueDateTime": "1940-12-21T07:00:00Z"}]},
        "address": [{"line": ["1 Laurel Way"], "extension": [{"url": "geo", "valueDecimal": 34.1170}]}],
        "telecom": [{"system": "phone", "value": "5550142"}],
        "contact": [{"relationship": [{"text": "wife"}], "name": {"given": ["Gail"]}}],
        "extension": [{"url": "maiden", "valueString": "Adelaide"}],
        **more,
    }
    return record(identity, orjson.dumps(body).replace(b"34.117", b"34.1170"), kind="Patient", patient=identity)


def seen(identity: str = "o1", display: str = "Rosie", patient: str = "p1", **more: object) -> Record:
    body = {
        "id": identity,
        "subject": {"display": display, "reference": f"Patient/{patient}"},
        "performer": [{"reference": "Practitioner/7", "display": "Dr. Payne"}],
        "code": {"coding": [{"system": "s", "code": "8867-4", "display": "Heart rate"}]},
        "contained": [{"resourceType": "RelatedPerson", "id": "r", "name": [{"text": "Gail"}]}],
        "resourceType": "Observation",
        **more,
    }
    return record(identity, orjson.dumps(body).replace(b"Heart rate", b"Heart r\\u0061te"), patient=patient)


async def brought(store: Store, *records: Record, **batch: Any) -> None:
    await full_run(await store.begin_run(scope()), records, UNITS, **batch)


async def read(store: Store, kind: str = "Patient", form: str = "ndjson") -> bytes:
    async with store.snapshot(Selection()) as snapshot:
        return b"".join([chunk async for chunk in getattr(snapshot, form)(kind)])


async def test_a_comparison_of_two_runs_is_the_same_as_from_a_plain_store(store_url: str) -> None:
    async with opened_store(store_url, "plain") as plain, opened_store(store_url, "sealed", keyring=KEYS) as store:
        read = []
        for each in (plain, store):
            for family in ("Zappa", "Frank"):
                await brought(each, patient(family=family), seen())
            async with each.snapshot(Selection(changed_since=1), Action.DIFF) as snapshot:
                read.append([chunk async for chunk in await snapshot.differences()])
    one, other = (orjson.loads(b"".join(lines)) for lines in read)
    assert (one, one["change"]) == (other, "changed")
    assert '"Frank"' in other["new"]


async def test_a_masked_reader_sees_where_two_runs_differ_but_no_values(store_url: str) -> None:
    for_ben = Actor(name="ben", masked=True)
    async with (
        opened_store(store_url, keyring=KEYS) as store,
        opened_store(store_url, actor=for_ben, keyring=KEYS) as masked,
    ):
        for family in ("Zappa", "Frank"):
            await brought(store, patient(family=family), seen())
        async with masked.snapshot(Selection(changed_since=1), Action.DIFF) as snapshot:
            (line,) = [chunk async for chunk in await snapshot.differences()]
    difference = orjson.loads(line)
    old, new = (orjson.loads(difference[side]) for side in ("old", "new"))
    assert (old["birthDate"], old["name"][0]["family"] != new["name"][0]["family"]) == (new["birthDate"], True)
    assert all(one["name"][0]["family"].startswith("***") for one in (old, new))
    assert b"Zappa" not in line
    assert b"Frank" not in line


async def test_under_a_new_key_masks_differ_only_where_values_differ(store_url: str) -> None:
    for_ben = Actor(name="ben", masked=True)
    async with opened_store(store_url, keyring=KEYS) as store:
        await brought(store, patient(), seen())
    async with opened_store(store_url, keyring=BOTH) as store:
        await brought(store, patient(family="Frank"), seen())
    async with (
        opened_store(store_url, actor=for_ben, keyring=BOTH) as masked,
        masked.snapshot(Selection(changed_since=1), Action.DIFF) as snapshot,
    ):
        difference = orjson.loads(b"".join([chunk async for chunk in await snapshot.differences()]))
    old, new = (orjson.loads(difference[side]) for side in ("old", "new"))
    differing = {name for name in old if old[name] != new[name]}
    assert differing == {"name", "text"}
    assert old["name"][0]["given"] == new["name"][0]["given"]


async def test_no_table_contains_anything_that_identifies_a_patient(store_url: str) -> None:
    line = Quarantined("Patient", "page 1", "not JSON", b'{"name": [{"family": "Zappa"', UNITS[0].key)
    note = Document(
        "Observation", "o1", 0, "stored", content=b"Zappa was here", content_type="text/plain", text="Zappa was"
    )
    rival = patient(family="Moon")._replace(version_id="1")
    async with opened_store(store_url, keyring=KEYS) as store:
        await brought(store, patient()._replace(version_id="1"), rival, seen(), quarantined=[line], documents=[note])
        await brought(store, patient(gender="female")._replace(version_id="2"), seen())
    stored = everything(store_url)
    assert "Heart rate" in stored  # the search looks where it should
    assert "Dr. Payne" in stored
    assert "official" in stored
    assert [word for word in NAMED if word in stored] == []


@pytest.mark.parametrize("form", ["ndjson", "entries"])
async def test_a_reader_with_the_keys_gets_the_bytes_of_a_plain_store(store_url: str, form: str) -> None:
    async with opened_store(store_url) as plain, opened_store(store_url, "sealed", keyring=KEYS) as sealed:
        for store in (plain, sealed):
            await brought(store, patient(), patient("p2", 'Zap"pa \\ \t é'), seen())
        for kind in ("Patient", "Observation"):
            assert await read(sealed, kind, form) == await read(plain, kind, form)


async def test_an_unchanged_chart_with_other_white_space_writes_nothing(store_url: str) -> None:
    async with opened_store(store_url, keyring=KEYS) as store:
        await brought(store, patient(), seen())
        before = rows(store_url, "SELECT xmin::text, ctid::text, id FROM resource_stored ORDER BY id")
        await brought(store, patient(), seen())
        spaced = patient()
        spaced = record("p1", spaced.body.replace(b'":', b'" : '), kind="Patient")
        await brought(store, spaced, seen())
        assert rows(store_url, "SELECT xmin::text, ctid::text, id FROM resource_stored ORDER BY id") == before
        await brought(store, patient(family="Moon"), seen())
    assert rows(store_url, "SELECT count(*) FROM resource_history") == [(1,)]


@pytest.mark.parametrize(
    "keyring", [BOTH, replace(KEYS, paths=frozenset({"Observation.code"}))], ids=["a new key", "a new path"]
)
async def test_content_with_reordered_keys_is_unchanged_and_encrypted_as_it_would_be_now(
    store_url: str, keyring: Keyring
) -> None:
    async with opened_store(store_url, keyring=KEYS) as store:
        await brought(store, patient(), seen(), seen("o2", "Moon"))
    turned = orjson.dumps(dict(reversed(orjson.loads(seen().body).items())))
    damaged = seen("o2", "Moon", note=[])
    execute(store_url, "UPDATE resource SET body = replace(body::text, ':/subject', ':/other')::jsonb WHERE id = 'o2'")
    async with opened_store(store_url, keyring=keyring) as store:
        await brought(store, patient(), record("o1", turned), damaged)
        assert b"Rosie" in await read(store, "Observation")
    assert rows(store_url, "SELECT id FROM resource_history") == [("o2",)]  # which no key opened
    ((stored,),) = rows(store_url, "SELECT body::text FROM resource WHERE id = 'o1'")
    assert stored.count("~sealed:1:k2:" if keyring is BOTH else "~sealed:1:k1:o1:/code/") >= 2


LOGICAL = {
    "type": "http://hl7.org/fhir/StructureDefinition/Patient",
    "identifier": {"system": "urn:mrn", "value": "MRN"},
}
SEALED: dict[str, tuple[object, bool]] = {
    "a reference to a patient": ({"subject": {"reference": "http://x/Patient/1/_history/2", "display": "MRN"}}, True),
    "one that names only the type": ({"subject": LOGICAL}, True),
    "one that names the type in small letters": ({"asserter": {"type": "patient", "display": "MRN"}}, True),
    "one to somebody contained": ({"performer": [{"reference": "#p", "display": "MRN"}]}, True),
    "one without a target": ({"asserter": {"display": "MRN"}}, True),
    "one by an identifier alone": ({"patient": {"identifier": {"value": "MRN"}}}, True),
    "one by an identifier, in any place": ({"member": [{"entity": {"identifier": {"value": "MRN"}}}]}, True),
    "one to somebody contained, by an identifier": (
        {"performer": [{"reference": "#p", "identifier": {"value": "MRN"}}]},
        True,
    ),
    "identifiers of a thing": ({"container": [{"identifier": [{"value": "MRN"}], "type": {"text": "tube"}}]}, False),
    "an identifier of a thing": ({"instance": [{"identifier": {"value": "MRN"}}]}, False),
    "one to a practitioner": ({"performer": [{"reference": "Practitioner/1", "display": "MRN"}]}, False),
    "a coding": ({"code": {"coding": [{"display": "MRN"}]}, "class": {"code": "MRN", "display": "MRN"}}, False),
    "a coding without a code": ({"class": {"display": "MRN"}, "meta": {"tag": [{"display": "MRN"}]}}, False),
    "a person within": ({"contained": [{"name": [{"text": "MRN"}], "resourceType": "Patient"}]}, True),
    "what R4 does not know of a person": ({"contained": [{"resourceType": "Patient", "ssn": "MRN"}]}, True),
    "an extension of a display": ({"subject": {"_display": {"extension": [{"valueString": "MRN"}]}}}, True),
    "a section's narrative": ({"section": [{"text": {"div": "MRN"}}]}, True),
    "a document": ({"presentedForm": [{"data": "MRN"}]}, True),
    "what a consent is about": ({"provision": {"data": [{"meaning": "MRN"}]}}, False),
    "samples": ({"valueSampledData": {"dimensions": 1, "data": "MRN"}}, False),
}


@pytest.mark.parametrize("what", SEALED)
def test_identifying_values_in_other_types_are_recognised_by_structure(what: str) -> None:
    more, sealed = SEALED[what]
    body = orjson.dumps({"resourceType": "Observation", "id": "o1", **more})  # type: ignore[dict-item]
    sealer = Sealer("default", KEYS, b"s" * 32)
    assert (b"MRN" not in sealed_record(record("o1", body), sealer).body) is sealed


async def test_a_hash_reveals_nothing_without_the_key(store_url: str) -> None:
    async with opened_store(store_url, keyring=KEYS) as store:
        await brought(store, patient())
    ((kept,),) = rows(store_url, "SELECT content_hash FROM resource")
    assert kept != patient().content_hash


@pytest.mark.parametrize(("keyring", "message"), [(None, "no keys are configured"), (OTHER, "not the one")])
async def test_an_encrypted_store_opens_with_its_key_alone(
    store_url: str, keyring: Keyring | None, message: str
) -> None:
    async with opened_store(store_url, keyring=KEYS):
        pass
    with pytest.raises(StoreKeyError, match=message):
        async with opened_store(store_url, keyring=keyring):
            pass
    assert rows(store_url, "SELECT key_id FROM sealing_key") == [("k1",)]


async def test_configuring_keys_alone_does_not_encrypt_a_store_with_charts(store_url: str) -> None:
    async with opened_store(store_url) as store:
        await brought(store, patient())
    with pytest.raises(StoreKeyError, match="plain text: `chartferry keys rotate-store` encrypts"):
        async with opened_store(store_url, keyring=KEYS):
            pass
    assert rows(store_url, "SELECT count(*) FROM sealing_key") == [(0,)]


async def test_a_process_that_opened_the_store_before_encryption_begins_no_run(store_url: str) -> None:
    async with opened_store(store_url) as early:
        async with opened_store(store_url, keyring=KEYS):
            pass
        with pytest.raises(StoreKeyError, match="encrypted meanwhile"):
            await early.begin_run(scope())
    assert rows(store_url, "SELECT count(*) FROM run") == [(0,)]


async def test_after_a_new_key_the_old_one_still_decrypts_its_values(store_url: str) -> None:
    async with opened_store(store_url, keyring=KEYS) as store:
        await brought(store, patient())
    async with opened_store(store_url, keyring=KEYS) as early, opened_store(store_url, keyring=BOTH) as store:
        before = rows(store_url, "SELECT xmin::text FROM resource_stored")
        await brought(store, patient(), patient("p2"))
        assert rows(store_url, "SELECT xmin::text FROM resource_stored WHERE id = 'p1'") == before
        assert (await read(store)).count(b"Zappa,") == 2
        with pytest.raises(SealedValueError, match="encrypted with key k2, which the configuration does not have"):
            await read(early)


@pytest.mark.parametrize("keyring", [KEYS, replace(BOTH, keys={"k2": BOTH.keys["k2"]})], ids=["older", "newer"])
async def test_a_store_with_values_of_two_keys_is_not_opened_with_one(store_url: str, keyring: Keyring) -> None:
    for before in (KEYS, BOTH):
        async with opened_store(store_url, keyring=before):
            pass
    with pytest.raises(
        StoreKeyError, match=r"has values that key k\d encrypted, and \[encryption\] keys has k\d: add it"
    ):
        async with opened_store(store_url, keyring=keyring):
            pass


async def test_another_tenants_values_cannot_be_decrypted_with_the_same_key(store_url: str) -> None:
    async with opened_store(store_url, keyring=KEYS) as store, opened_store(store_url, "other", keyring=KEYS) as other:
        await brought(store, patient())
        await brought(other, patient())
        execute(store_url, "UPDATE resource SET body = o.body FROM tenant_other.resource o WHERE o.id = resource.id")
        with pytest.raises(SealedValueError):
            await read(store)


MOVED = "UPDATE resource SET body = jsonb_set(body, '{name,0,family}', %s) WHERE id = 'p1'"
TAMPERED: dict[str, str] = {
    "from another row": MOVED % "(SELECT body #> '{name,0,family}' FROM resource WHERE id = 'p2')",
    "within the row": MOVED % "body #> '{name,0,given,0}'",
    "one letter": MOVED % "to_jsonb(overlay(body #>> '{name,0,family}' PLACING 'AAAA' FROM 45))",
    "cut": MOVED % "to_jsonb(left(body #>> '{name,0,family}', 50))",
    "a whole body": "UPDATE resource SET body = (SELECT body FROM resource WHERE id = 'p2') WHERE id = 'p1'",
}


@pytest.mark.parametrize("how", TAMPERED)
async def test_an_altered_or_moved_value_is_an_error_that_quotes_nothing(store_url: str, how: str) -> None:
    async with opened_store(store_url, keyring=KEYS) as store:
        await brought(store, patient(), patient("p2", "Beefheart"))
        execute(store_url, TAMPERED[how])
        with pytest.raises(SealedValueError, match="Patient") as caught:
            await read(store)
    assert not re.search("Zappa|Beefheart|Moon|p1|p2", str(caught.value))


async def test_erasing_finds_a_patient_in_encrypted_values_and_in_quarantined_input(store_url: str) -> None:
    line = Quarantined("Patient", "page 1", "not JSON", b'{"id": "p9", "name"', UNITS[0].key)
    daughter = b'{"resourceType":"Person","id":"d","extension":[{"url":"mother","valueUri":"http://x/Patient/p9"}]}'
    records = [patient("p9", "Underwood"), patient(), record("d", daughter, kind="Person", patient=None)]
    refused = record(
        "o8", b'{"resourceType":"Observation","id":"o8","text":{"div":"see Patient/p9"},"value":"\\u0000"}'
    )
    async with opened_store(store_url, keyring=KEYS) as store:
        await brought(store, *records, refused, seen("o9", patient="p2"), quarantined=[line])
        erased = await store.erase("mercy", "p9")
    assert erased.rows["quarantine"] == 2
    assert rows(store_url, "SELECT id FROM resource") == [("o9",)]


async def test_an_undecryptable_value_is_kept_and_named_but_erased_with_its_known_patient(
    store_url: str,
) -> None:
    lines = [Quarantined("Patient", f"page {n}", "not JSON", b'{"id": "p2"', UNITS[0].key) for n in (1, 2)]
    async with opened_store(store_url, keyring=KEYS) as store:
        others = [patient("p2"), seen("o2", patient="p2"), seen("o3", patient="p2"), patient("p3", "Beefheart")]
        await brought(store, patient(), seen(), *others, quarantined=lines)
        execute(store_url, "UPDATE resource SET body = replace(body::text, '/name/0/family:', '/other:')::jsonb")
        cut = """jsonb_set(body, '{subject,display}', '"~sealed:1:k1:o1"') WHERE id = 'o1'"""
        execute(store_url, f"UPDATE resource SET body = {cut}")
        execute(store_url, "UPDATE quarantine SET raw = raw || 'x' WHERE source = 'page 2'")
        erased = await store.erase("mercy", "p2")
        again = await store.erase("mercy", "p2")
    assert rows(store_url, "SELECT id FROM resource ORDER BY id") == [("o1",), ("p1",), ("p3",)]
    assert (erased.rows["resource"], erased.rows["quarantine"]) == (3, 1)
    named = [re.sub("~.{8}", "~", one) for one in erased.unread]
    assert named == ["Observation ~, /subject/display", *["Patient ~, /name/0/family"] * 2, "quarantine ~, the whole"]
    ((noted,),) = rows(store_url, "SELECT erased FROM audit_event WHERE action = 'erase'")
    assert noted == {**erased.rows, "unread": 4}
    assert (again.rows, again.unread) == ({}, erased.unread)


async def test_values_that_postgres_would_refuse_are_quarantined_and_encrypted(store_url: str) -> None:
    bad = record("p2", patient("p2").body.replace(b"Zappa,", b"Zappa\\u0000,"), kind="Patient", patient="p2")
    cut = record("p3", patient("p3").body.replace(b"Moon", b"Moon\\ud800"), kind="Patient", patient="p3")
    torn = record("o5", b'{"resourceType":"Observation","id":"o5","valueString":"\\u0041\xe9"}')
    big = record("p4", b'{"resourceType":"Patient","id":"p4","x":1e200000,"name":[{"text":"Zappa"}]}', kind="Patient")
    async with opened_store(store_url, keyring=KEYS) as store:
        await brought(store, patient(), bad, cut, torn, big)
        assert (await store.run(1)).quarantined == 4
    assert rows(store_url, "SELECT id FROM resource") == [("p1",)]
    assert "Zappa" not in everything(store_url)


async def test_inline_documents_are_decrypted_for_reading_their_text(store_url: str) -> None:
    body = {
        "resourceType": "DocumentReference",
        "id": "d1",
        "content": [{"attachment": {"contentType": "text/plain", "data": "WmFwcGE="}}],
    }
    given_ = record("d1", orjson.dumps(body), kind="DocumentReference")
    async with opened_store(store_url, keyring=KEYS) as store, await store.begin_run(scope()) as run:
        await run.plan(UNITS)
        await run.write(Batch(records=with_attached([given_])))
        found = await run.attachments.inline(PATHS, most=100, together=1000, leftovers=False)
    assert [data for _, data in found] == ["WmFwcGE="]
    assert "WmFwcGE" not in everything(store_url)


ODD = ["~sealed:1:k1:p1:/x:AAAA~", "\\", '"', "\x7f", "\U0001f600"]
JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,4})(\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(JSON, NUMBERS, st.booleans())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_encrypted_values_decrypt_to_what_postgres_would_have_stored(
    store_server: str, value: object, number: str, ascii_: bool
) -> None:
    sealer = Sealer("default", KEYS, b"s" * 32)
    extension = [{"url": "u", "valueDecimal": 0}]
    content = orjson.dumps({"resourceType": "Patient", "id": "p1", "name": value, "extension": extension})
    body = content.replace(b'"valueDecimal":0', b'"valueDecimal": ' + number.encode())
    if ascii_:  # the same, written with escapes
        body = "".join(sign if sign < "\x7f" else _escaped(sign) for sign in body.decode()).encode()
    given_ = record("p1", body, kind="Patient")
    try:
        sealed = sealed_record(given_, sealer).body
    except UnsealableError:
        sealed = None
    with psycopg.connect(store_server) as conn:
        try:
            plain = conn.execute("SELECT %s::jsonb::text", [body.decode()]).fetchone()
        except psycopg.DataError:
            plain = None
        if plain is None:
            return
        assert sealed is not None
        conn.rollback()
        kept = conn.execute("SELECT %s::jsonb::text", [sealed.decode()]).fetchone()
    assert kept is not None
    assert opened_row(kept[0].encode(), "Patient", "p1", sealer) == plain[0].encode()


def _escaped(sign: str) -> str:
    units = sign.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
