"""A patient is erased: from every table, and from nobody else's chart."""

from __future__ import annotations

import re

import orjson
import psycopg
import pytest
from psycopg import sql

from snapshots.audit_event import Action
from snapshots.erasure import Erased
from snapshots.errors import ConnectionBusyError, StoreError
from snapshots.record import Batch, Quarantined, Record
from snapshots.sql_views import rows_of
from snapshots.store import Store
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import (
    SCHEMA,
    cut_at,
    execute,
    full_run,
    killed_at,
    live,
    person,
    record,
    rows,
    scope,
    search,
    settled,
)

pytestmark = pytest.mark.anyio

WHO, OTHER = "pat.7", "pat.77"  # the one begins as the other, and has a character that patterns know
TRACE = re.compile(r"pat\.7(?!\d)")


def naming(identity: str, patient: str, *, kind: str = "Group") -> Record:
    """A resource of no patient that refers to one."""
    body = {
        "resourceType": kind,
        "id": identity,
        "member": [{"entity": {"reference": f"Patient/{patient}/_history/2"}}],
    }
    return record(identity, orjson.dumps(body), kind=kind, patient=None)


async def known(store: Store) -> None:
    """Two patients who are in every table."""
    units = [search(patient=WHO), search(patient=OTHER)]
    lines = [
        Quarantined(
            "Observation", "file 1, line 1", "not JSON", b'{"subject": "Patient/pat.7", \x00\xff', units[1].key
        ),
        Quarantined("Observation", "file 1, line 2", "not JSON", b'{"id": "pat.7"', units[1].key),
        Quarantined("Observation", "file 1, line 3", "not JSON", b'{"subject": "Patient/pat.77"', units[1].key),
        Quarantined("Observation", "file 1, line 4", "not JSON", b"{'id': 'pat.7'", units[1].key),
        Quarantined("Observation", "file 1, line 5", "not JSON", b'{"next": "?x=Patient%2Fpat.7', units[1].key),
        Quarantined("Observation", "page 1", "not JSON", b"{", units[0].key),
    ]
    both = record("both", patient=OTHER, others=(WHO,))
    brought = [person(WHO), person(OTHER), record("a", 1, patient=WHO), record("moved", 1, patient=WHO)]
    brought += [record("b", 1, patient=OTHER), both, naming("g", WHO), naming("h", OTHER)]
    async with await store.begin_run(scope()) as run:
        await run.knowledge.speak_for("all", [])
        await run.plan(units)
        await run.write(Batch(records=brought, quarantined=lines, results=[settled(one) for one in units]))
        await run.finish(watermark=None)
    changed = [
        record("a", 2, patient=WHO),
        record("moved", 2, patient=OTHER),
        *(one for one in brought if one.id not in "a moved"),
    ]
    await full_run(await store.begin_run(scope()), changed, [search(patient="p9")])


BESIDE = """
INSERT INTO roster VALUES (1, 'all', 'WHO', 1, 1);
INSERT INTO lag (connection, selection, resource_type, patient_id, run) VALUES (1, 'all', 'Goal', 'WHO', 1);
INSERT INTO deferral VALUES (1, 'Goal', 'WHO', 'paused', now());
INSERT INTO alias VALUES (1, 'former-of-WHO', 'WHO', true, 1, 1);
INSERT INTO referenced (connection, resource_type, id, patient_id, run, depth) VALUES (1, 'Goal', 'of-WHO', 'WHO', 1, 1);
INSERT INTO attachment (sha256, size, content_type, content, text)
VALUES ('WHO', 1, 'a/b', 'WHO', 'WHO'),
    ('old WHO', 1, 'a/b', 'WHO', 'WHO'), ('lost', 1, 'a/b', 'WHO', 'WHO'), ('S', 1, 'a/b', 'x', 'x');
INSERT INTO attachment_use (connection, resource_type, resource_id, place, patient_id, inline, version, run, state, sha256,
    outcome_run)
VALUES
    (1, 'Observation', 'a', 0, 'WHO', true, 1, 1, 'stored', 'WHO', 1),
    (1, 'Observation', 'a', 1, 'WHO', true, 1, 1, 'stored', 'S', 1),
    (1, 'Observation', 'b', 0, 'OTHER', true, 1, 1, 'stored', 'S', 1);
INSERT INTO attachment_use_history (connection, resource_type, resource_id, place, version, outcome, sha256, outcome_run, to_run)
VALUES (1, 'Observation', 'a', 0, 1, 'stored', 'old WHO', 1, 2), (1, 'Observation', 'a', 1, 1, 'stored', 'S', 1, 2);
INSERT INTO evidence (connection, resource_type, id, state, run) VALUES (1, 'Observation', 'a', 'doubted', 1);
"""


def beside(who: str, other: str) -> str:
    return BESIDE.replace("WHO", who).replace("OTHER", other)


def traces(url: str) -> dict[str, list[str]]:
    """Where the patient is found, by an independent search of the text of every row of every table but the audit's."""
    found: dict[str, list[str]] = {}
    with psycopg.connect(url, autocommit=True, options=f"-c search_path={SCHEMA} -c bytea_output=escape") as conn:
        tables = conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'm')"
        ).fetchall()
        for (table,) in tables:
            lines = [row[0] for row in conn.execute(f'SELECT t::text FROM "{table}" t')]  # type: ignore[call-overload]
            if some := [line for line in lines if TRACE.search(line)]:
                found[table] = some
    return {table: some for table, some in found.items() if not table.startswith("audit_")}


async def test_erasing_a_patient_leaves_nothing_of_them_and_everything_of_others(store: Store, store_url: str) -> None:
    await known(store)
    execute(store_url, beside(WHO, OTHER))
    before = traces(store_url)
    assert {"resource_patient", "resource_history", "unit", "quarantine", "attachment", "alias", "lag"} <= set(before)
    erased = await store.erase("mercy", WHO)
    assert traces(store_url) == {}
    assert live(store_url) == {OTHER, "b", "h"}
    assert rows(store_url, "SELECT source FROM quarantine") == [("file 1, line 3",)]
    assert rows(store_url, "SELECT sha256 FROM attachment") == [(b"S",)]
    assert rows(store_url, "SELECT resource_id FROM attachment_use") == [("b",)]
    assert erased.shared == 2  # one that names both, and one that now belongs to the other
    assert erased.rows["resource"] == 5
    assert (erased.rows["quarantine"], erased.rows["attachment"], erased.rows["evidence"]) == (5, 3, 1)
    event = rows(store_url, "SELECT action, erased, types FROM audit_event")
    assert event == [("erase", dict(erased.rows), ["Group", "Observation", "Patient"])]
    assert rows(store_url, "SELECT patient_id FROM audit_patient") == [(WHO,)]
    assert (await store.audit.verify()).faults == ()
    (seen,) = await store.audit.who_saw(WHO)
    assert (seen.action, seen.actor, seen.erased) == (Action.ERASE, "tester", erased.rows)
    execute(store_url, "UPDATE audit_event SET erased = '{}' WHERE action = 'erase'")
    assert [one.kind for one in (await store.audit.verify()).faults] == ["altered"]


async def test_no_name_of_a_cohort_is_left_from_which_an_erased_id_could_be_guessed(
    store: Store, store_url: str
) -> None:
    alone, beside, both, others, listed = "a10e", "be51", "b07h", "07he", "f11e"
    for kind, cohort, patients in (
        ("pull", alone, [WHO]), ("pull", beside, [OTHER]),
        ("sync", both, [WHO, OTHER]), ("sync", others, [OTHER]), ("sync", listed, [WHO, OTHER]),
    ):  # fmt: skip
        name = "file:1" if cohort == listed else f"patients:{cohort}"
        async with await store.begin_run(scope(kind=kind, selection=name, cohort=cohort)) as run:
            await run.knowledge.speak_for(f"{name} by crawl", [])
            units = [search(patient=one) for one in patients]
            await run.plan(units)
            brought = [
                one for patient in patients for one in (person(patient), record(f"of {patient}", patient=patient))
            ]
            await run.write(Batch(records=brought, results=[settled(one) for one in units]))
            claimed = None if kind == "pull" else "2026-01-01T00:00:00Z"
            await run.finish(watermark=claimed)
    with psycopg.connect(store_url, autocommit=True, options=f"-c search_path={SCHEMA}") as conn:
        known = "SELECT selection FROM watermark UNION SELECT selection FROM roster UNION SELECT knowledge FROM full_listing"
        before = {row[0] for row in conn.execute(known)}  # type: ignore[call-overload]
        await store.erase("mercy", WHO)
        after = {row[0] for row in conn.execute(known)}  # type: ignore[call-overload]
        assert before - after == {f"patients:{both} by crawl"}
        assert after == {f"patients:{others} by crawl", "file:1 by crawl"}
        ran = conn.execute("SELECT selection, knowledge, cohort_digest FROM run ORDER BY id").fetchall()
    assert ran == [
        ("erased", "erased", ""),
        (f"patients:{beside}", f"patients:{beside} by crawl", beside),
        ("erased", "erased", ""),
        (f"patients:{others}", f"patients:{others} by crawl", others),
        ("file:1", "file:1 by crawl", ""),
    ]


async def test_materialised_views_have_nothing_of_an_erased_patient_or_are_named(store: Store, store_url: str) -> None:
    await known(store)
    query = sql.SQL("SELECT v.id, v.body FROM {} v").format(rows_of("Patient"))
    async with store.sql_views() as there:
        await there.create("whole", query, digest="x", materialized=True)
        await there.create("torn", query, digest="x", materialized=True)
    execute(store_url, "ANALYZE")
    assert {"whole", "torn"} <= set(traces(store_url)) & sampled(store_url)
    execute(store_url, "ALTER MATERIALIZED VIEW torn OWNER TO pg_monitor")
    erased = await store.erase("mercy", WHO)
    assert (erased.views, set(traces(store_url))) == (("torn",), {"torn"})
    assert "whole" not in sampled(store_url)
    execute(store_url, "ALTER MATERIALIZED VIEW torn OWNER TO CURRENT_USER")
    assert ((await store.erase("mercy", WHO)).views, traces(store_url)) == ((), {})


def sampled(url: str) -> set[str]:
    """The tables of whose rows the planner has samples with the patient."""
    texts = rows(url, "SELECT tablename, concat(most_common_vals::text, histogram_bounds::text) FROM pg_stats")
    return {table for table, text in texts if TRACE.search(text)}


async def test_the_planners_samples_contain_nothing_of_an_erased_patient(store: Store, store_url: str) -> None:
    await known(store)
    execute(store_url, "ANALYZE")
    assert "resource_patient" in sampled(store_url)
    assert (await store.erase("mercy", WHO)).resampled
    left = {table for table in sampled(store_url) if rows(store_url, f'SELECT count(*) FROM "{table}"') != [(0,)]}
    assert left == set()


@pytest.mark.parametrize("table", ["resource", "unit", "quarantine", "audit_event"])
async def test_an_erasure_killed_at_any_statement_has_erased_nothing_and_can_be_repeated(
    store: Store, store_url: str, table: str
) -> None:
    await known(store)
    before = traces(store_url)
    await killed_at(store_url, f"LOCK TABLE {table} IN SHARE MODE", lambda: store.erase("mercy", WHO))
    assert traces(store_url) == before
    assert rows(store_url, "SELECT count(*) FROM audit_event") == [(0,)]
    await store.erase("mercy", WHO)
    assert traces(store_url) == {}


async def test_an_erasure_that_loses_its_server_after_the_commit_reports_what_it_has_erased(
    store: Store, store_url: str
) -> None:
    await known(store)
    done: list[Erased] = []

    async def erasing() -> None:
        done.append(await store.erase("mercy", WHO))

    await cut_at(store_url, "LOCK TABLE audit_seal IN SHARE MODE", erasing)
    assert (done[0].rows["resource"], done[0].copies_known, traces(store_url)) == (5, False, {})
    assert await store.erase("mercy", WHO) == Erased({}, 0, ())


async def test_the_charts_under_former_ids_of_an_erased_patient_are_erased_with_it(
    store: Store, store_url: str
) -> None:
    brought = [person(OTHER), record("b", 1, patient=OTHER)]
    for one in (WHO, "former", "before"):
        brought += [person(one), record(f"of-{one}", 1, patient=one)]
    await full_run(await store.begin_run(scope()), brought, [search()])
    execute(
        store_url, f"INSERT INTO alias VALUES (1, 'former', '{WHO}', true, 1, 1), (1, 'before', 'former', false, 1, 1)"
    )
    execute(store_url, f"INSERT INTO alias VALUES (1, '{OTHER}', '{OTHER}', false, 1, 1)")
    erased = await store.erase("mercy", WHO)
    assert live(store_url) == {OTHER, "b"}
    assert (erased.rows["resource"], erased.rows["alias"]) == (6, 2)
    assert rows(store_url, "SELECT patient_id FROM audit_patient ORDER BY 1") == [("before",), ("former",), (WHO,)]


async def test_a_quarantined_mention_with_an_escaped_slash_is_erased(store: Store, store_url: str) -> None:
    await known(store)
    bodies = orjson.dumps({"resourceType": "Observation", "id": "b", "subject": f"Patient/{WHO}"}).replace(b"/", b"\\/")
    rival = "INSERT INTO rival (connection, resource_type, id, way, content_hash, run, patient_id, body)"
    execute(
        store_url, rival + f" SELECT 1, 'Observation', 'b', id, 'x', 2, '{OTHER}', '{bodies.decode()}' FROM way LIMIT 1"
    )
    assert rows(store_url, "SELECT id FROM rival") == [("b",)]
    await store.erase("mercy", WHO)
    assert rows(store_url, "SELECT id FROM rival") == []


async def test_a_bundle_with_the_patient_within_and_a_mention_that_ends_a_sentence_are_erased(
    store: Store, store_url: str
) -> None:
    def bundle(identity: str, patient: str) -> Record:
        inner = {"resourceType": "Patient", "id": patient, "name": [{"family": "Underwood"}]}
        outer = {"resourceType": "Bundle", "id": f"in-{identity}", "entry": [{"resource": inner}]}
        body = {"resourceType": "Bundle", "id": identity, "entry": [{"resource": outer}]}
        return record(identity, orjson.dumps(body), kind="Bundle", patient=None)

    bodies = [
        record(id_, f"see Patient/{who}.", patient=OTHER) for id_, who in (("s", WHO), ("t", OTHER), ("u", f"{WHO}.x"))
    ]
    brought = [person(WHO), person(OTHER), bundle("b", WHO), bundle("c", OTHER), *bodies]
    await full_run(await store.begin_run(scope()), brought, [search()])
    await full_run(
        await store.begin_run(scope()), [*(one for one in brought if one.id != "b"), bundle("b", "x")], [search()]
    )
    await store.erase("mercy", WHO)
    assert live(store_url) == {OTHER, "c", "t", "u"}


URLS = (
    "https://ehr/Observation?patient=WHO",
    "Observation?code=x&patient=WHO&_sort=date",
    "Observation?subject:Patient=WHO",
    "Observation?encounter.patient=WHO,12",
    "Observation?patient=12,13,WHO",
    "https://ehr/launch?to=Observation%3Fpatient%3D12%2CWHO",
    "https://ehr/Patient?_id=12,WHO",
    "https://ehr/launch?iss=https%3A%2F%2Fehr%2Ffhir&record=Patient%2FWHO",
    "https://ehr/launch?to=https%3a%2f%2fehr%2fPatient%2fWHO%2f_history%2f1",
    "https://ehr/launch?to=Observation%3Fpatient%3DWHO%26code%3Dx",
)


async def test_urls_of_other_peoples_rows_that_name_the_patient_are_erased_and_those_that_name_others_stay(
    store: Store, store_url: str
) -> None:
    longer = "pat.7:b"  # a colon is in no id of R4, and percent-encoded within a URL
    brought = [person(WHO), person(OTHER), person(longer)]
    for number, url in enumerate(URLS):
        for kept, who in (
            (f"u{number}", "WHO"),
            (f"k{number}", OTHER),
            (f"l{number}", longer),
            (f"e{number}", "pat.7%3Ab"),
        ):
            brought.append(record(kept, url.replace("WHO", WHO if who == "WHO" else who), patient=OTHER))
    brought.append(record("html", f"<a href='?x=y&amp;patient={WHO}'>chart</a>", patient=OTHER))
    await full_run(await store.begin_run(scope()), brought, [search()])
    await full_run(
        await store.begin_run(scope()), [*brought[:-1], record("html", "changed", patient=OTHER)], [search()]
    )
    await store.erase("mercy", WHO)
    assert live(store_url) == {OTHER, longer, *(f"{kept}{number}" for kept in "kle" for number in range(len(URLS)))}
    assert not any(re.search(r"pat\.7(?!7|:b|%3Ab)", text) for some in traces(store_url).values() for text in some)


@pytest.mark.parametrize("longer", ["pat.7_b", "pat.7~b", "pat.7:b", "pat.7é", "pat.7@x_b", "pat.7\\"])
async def test_patients_whose_ids_continue_where_an_r4_id_would_end_keep_their_charts(
    store: Store, store_url: str, longer: str
) -> None:
    named = [record("c", patient=longer), record("d", patient=longer, others=(OTHER,)), naming("g", longer)]
    lines = [
        Quarantined("Observation", f"line {who}", "not JSON", f'{{"subject": "Patient/{who}"'.encode(), None)
        for who in (WHO, longer)
    ]
    subject = orjson.dumps({"resourceType": "Observation", "id": "e", "subject": {"reference": f"Patient/{longer}"}})
    brought = [person(WHO), person(longer), *named, record("e", subject, patient=longer), naming("f", WHO)]
    async with await store.begin_run(scope()) as run:
        await run.plan([search()])
        await run.write(Batch(records=brought, quarantined=lines, results=[settled(search())]))
        await run.finish(watermark=None)
    await store.erase("mercy", WHO)
    assert live(store_url) == {longer, "c", "d", "e", "g"}
    assert rows(store_url, "SELECT source FROM quarantine") == [(f"line {longer}",)]
    await store.erase("mercy", longer)
    assert live(store_url) == set()
    assert rows(store_url, "SELECT source FROM quarantine") == []


async def test_erasing_an_unknown_patient_does_and_records_nothing(store: Store, store_url: str) -> None:
    await full_run(await store.begin_run(scope()), [person(OTHER)], [search()])
    assert (await store.erase("mercy", WHO)).rows == {}
    assert rows(store_url, "SELECT action FROM audit_event") == []
    with pytest.raises(StoreError, match="nothing is stored of connection nowhere"):
        await store.erase("nowhere", WHO)


async def test_nobody_is_erased_while_a_run_may_fetch_the_patient_again(store: Store) -> None:
    async with await store.begin_run(scope()):
        with pytest.raises(ConnectionBusyError):
            await store.erase("mercy", WHO)
    with pytest.raises(StoreError, match=r"run 1 of connection mercy has not ended.*runs discard 1"):
        await store.erase("mercy", WHO)


async def test_nothing_is_erased_if_anything_would_remain(store: Store, store_url: str) -> None:
    await known(store)
    execute(store_url, "CREATE TABLE remark (connection int, remark text)")
    execute(store_url, f"INSERT INTO remark VALUES (2, 'Patient/{WHO}'), (1, 'Patient/{OTHER}')")
    async with opened_store(store_url) as again:
        before = traces(store_url)
        execute(store_url, f"INSERT INTO remark VALUES (1, 'see https://ehr/Patient/{WHO}')")
        with pytest.raises(StoreError, match="1 row of remark would still refer to the patient"):
            await again.erase("mercy", WHO)
        execute(store_url, "DELETE FROM remark WHERE remark LIKE 'see%'")
        assert traces(store_url) == before
        assert (await again.erase("mercy", WHO)).rows
