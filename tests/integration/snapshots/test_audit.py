"""Who saw whom: a read and its audit are one transaction, the chain reveals tampering, and no read waits for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import psycopg
import pytest

from exports.chart import deliver_chart
from exports.delivery.destination import LocalFolder
from exports.errors import ExportError
from exports.plan import ExportRequest
from exports.run import export
from snapshots.actor import Actor
from snapshots.audit_event import Action, ReadEvent
from snapshots.errors import StoreError
from snapshots.selection import Selection
from snapshots.store import Store, open_store
from tests.integration.snapshots.stored import execute, full_run, person, record, rows, scope

pytestmark = pytest.mark.anyio

ANA = Actor(name="ana", login="svc", roles=("research",), origin="ward-7", reason="ticket 4711")


async def filled(store: Store) -> int:
    """Three patients: two with an Observation, one row of which is a third's as well; one Location of nobody."""
    given = [
        *(person(one) for one in ("p1", "p2", "p3")),
        record("o1", patient="p1"),
        record("o2", patient="p2", others=("p3",)),
        record("c1", kind="Condition", patient="p1"),
        record("l1", kind="Location", patient=None),
    ]
    return (await full_run(await store.begin_run(scope()), given, [])).id


async def read(store: Store, wanted: Sequence[str], selection: Selection | None = None) -> None:
    async with store.snapshot(selection or Selection()) as snapshot:
        for each in wanted:
            async for _ in snapshot.ndjson(each):
                pass


def audited(url: str) -> dict[int, set[str]]:
    """The patients of each event."""
    found = rows(url, "SELECT e.id, p.patient_id FROM audit_event e LEFT JOIN audit_patient p ON p.event = e.id")
    return {event: {who for each, who in found if each == event and who} for event, _ in found}


async def whose(store: Store, patient: str) -> list[ReadEvent]:
    return await store.audit.who_saw(patient)


async def test_an_export_is_audited_with_reader_types_patients_and_reason(store_url: str) -> None:
    async with open_store(store_url, "default", ANA) as store:
        run = await filled(store)
        await read(store, ["Observation", "Location"])
        (event,) = await whose(store, "p2")
    login = rows(store_url, "SELECT current_user")[0][0]
    assert event[3:] == (
        login, "ana", "svc", ("research",), "ward-7", "ticket 4711", Action.EXPORT, ("mercy",),
        ("Location", "Observation"), (run,), False, None, None,
    )  # fmt: skip
    assert event.began <= event.at
    assert audited(store_url)[event.id] == {"p1", "p2", "p3"}


@pytest.mark.parametrize(
    ("wanted", "selection", "patients"),
    [
        (["Condition"], Selection(), {"p1"}),
        (["Location"], Selection(), set()),
        ([], Selection(), set()),
        (["Observation"], Selection(patients=("p3",)), {"p2", "p3"}),
        (["Observation"], Selection(patients=("p1", "unknown")), {"p1"}),
        (["Patient"], Selection(types=("Patient",)), {"p1", "p2", "p3"}),
    ],
)
async def test_a_read_is_audited_for_exactly_the_patients_whose_rows_it_returned(
    store: Store, store_url: str, wanted: list[str], selection: Selection, patients: set[str]
) -> None:
    await filled(store)
    await read(store, wanted, selection)
    assert list(audited(store_url).values()) == [patients]


async def test_parallel_sessions_of_one_read_are_one_event(store: Store, store_url: str) -> None:
    await filled(store)
    async with store.snapshot(Selection()) as snapshot, snapshot.beside() as second:
        assert [chunk async for chunk in snapshot.ndjson("Location")]
        assert [chunk async for chunk in second.ndjson("Condition")]
    assert list(audited(store_url).values()) == [{"p1"}]


async def test_a_read_of_changes_is_audited_for_changed_and_deleted_patients(store: Store, store_url: str) -> None:
    first = await filled(store)
    given = [*(person(one) for one in ("p1", "p2", "p3")), record("o1", "new", patient="p1")]
    await full_run(await store.begin_run(scope()), given, [])
    execute(store_url, "UPDATE resource SET deleted_run = 2, deleted_at = now() WHERE id = 'o2'")
    async with store.snapshot(Selection(changed_since=first)) as snapshot:
        assert [chunk async for chunk in snapshot.ndjson("Observation")]
        assert [chunk async for chunk in snapshot.removed()]
    assert list(audited(store_url).values()) == [{"p1", "p2"}]


async def test_a_comparison_is_audited_for_the_patients_before_and_after(store: Store, store_url: str) -> None:
    first = await filled(store)
    given = [record("o2", 2, patient="p1"), record("c2", kind="Condition", patient="p4")]
    await full_run(await store.begin_run(scope()), given, [])
    async with store.snapshot(Selection(changed_since=first), Action.DIFF) as snapshot:
        async for _ in await snapshot.differences():
            pass
    (event,) = await store.audit.who_saw("p2")
    assert (event.action, event.types) == (Action.DIFF, ("Condition", "Observation"))
    assert audited(store_url)[event.id] == {"p1", "p2", "p3", "p4"}


async def test_a_comparison_of_one_patient_is_audited_even_if_nothing_differs(store: Store, store_url: str) -> None:
    first = await filled(store)
    await full_run(await store.begin_run(scope()), [record("o1", 2, patient="p1")], [])
    async with store.snapshot(Selection(changed_since=first, patients=("p3",)), Action.DIFF) as snapshot:
        assert [one async for one in await snapshot.differences()] == []
    assert list(audited(store_url).values()) == [{"p3"}]


async def test_a_read_broken_off_by_an_error_returns_and_audits_nothing(store: Store, store_url: str) -> None:
    await filled(store)

    async def broken_off() -> None:
        async with store.snapshot(Selection()) as snapshot:
            assert [chunk async for chunk in snapshot.ndjson("Patient")]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken_off()
    assert audited(store_url) == {}


async def test_a_read_that_cannot_be_audited_leaves_no_file(store: Store, store_url: str, tmp_path: Path) -> None:
    await filled(store)
    execute(store_url, "ALTER TABLE audit_patient ADD CHECK (patient_id <> 'p2')")
    with pytest.raises((StoreError, ExportError)):
        async with store.snapshot(Selection()) as snapshot:
            await export(ExportRequest(out=LocalFolder(tmp_path / "out"), formats=("ndjson",)), snapshot)
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == []
    assert audited(store_url) == {}


async def test_a_chart_that_cannot_be_audited_is_not_shown_on_a_stream_either(store: Store, store_url: str) -> None:
    await filled(store)
    execute(store_url, "ALTER TABLE audit_patient ADD CHECK (patient_id <> 'p2')")
    shown = BytesIO()
    with pytest.raises(StoreError):
        async with store.snapshot(Selection(patients=("p2",)), Action.PULL) as snapshot:
            await deliver_chart(snapshot, shown, "ndjson")
    assert (shown.getvalue(), audited(store_url)) == (b"", {})
    async with store.snapshot(Selection(patients=("p1",)), Action.PULL) as snapshot:
        delivered = await deliver_chart(snapshot, shown, "ndjson")
        assert (delivered.rows, len(shown.getvalue().splitlines())) == (3, 3)
        assert audited(store_url).popitem()[1] == {"p1"}


async def test_reads_of_history_proofs_and_the_audit_itself_are_audited(store: Store, store_url: str) -> None:
    await filled(store)
    assert (await store.chart_history("mercy", "p1")).changes
    async with store.proof("mercy") as proof:
        assert await proof.patients() == ["p1", "p2", "p3"]
        assert await proof.held("Observation", "p1")
        assert await proof.number("Condition", "p1") == 1
        assert await proof.by_id("Observation", ["o2"])
        assert await proof.number("Condition", None) == 1
    assert [(one.action, one.everyone) for one in await whose(store, "p1")] == [
        (Action.SNAPSHOTS, False), (Action.LISTING, True), (Action.PROOF, False), (Action.PROOF, False),
    ]  # fmt: skip
    assert [one.action for one in await whose(store, "p1")][-1] is Action.AUDIT
    assert [one.action for one in await whose(store, "p2")] == [Action.LISTING, Action.PROOF]
    assert [one.types for one in await whose(store, "p2") if one.action is Action.PROOF] == [("Observation",)]


async def test_an_audit_of_a_period_lists_only_its_reads(store: Store) -> None:
    await filled(store)
    await read(store, ["Patient"])
    (event,) = await whose(store, "p1")
    later = event.at + timedelta(microseconds=1)
    assert [one.id for one in await store.audit.who_saw("p1", event.at, later)] == [event.id]
    assert await store.audit.who_saw("p1", until=event.at) == []
    assert [one.action for one in await store.audit.who_saw("p1", since=later)] == [Action.AUDIT] * 3
    async with store.audit.reads(event.at, later) as reads:
        assert [(one.event.id, one.connection, one.patient) async for one in reads] == [
            (event.id, "mercy", who) for who in ("p1", "p2", "p3")
        ]


async def test_reads_under_ids_that_were_merged_with_a_patients_count_as_reads_of_the_patient(
    store: Store, store_url: str
) -> None:
    await filled(store)
    await read(store, ["Condition"])  # p1's alone
    await read(store, ["Patient"], Selection(patients=("p2",)))
    merged = "INSERT INTO alias VALUES (1, '{}', '{}', true, 1, 1)"
    execute(store_url, f"{merged.format('p1', 'between')}; {merged.format('between', 'p3')}")
    execute(store_url, "INSERT INTO connection (name) VALUES ('other')")
    execute(store_url, "INSERT INTO alias VALUES (2, 'p2', 'p3', true, 1, 1)")  # elsewhere p2 is another person
    assert [one.id for one in await whose(store, "p3")] == [1]
    assert audited(store_url)[3] == {"p1"}
    assert [one.id for one in await whose(store, "p1")] == [1, 3]
    assert await whose(store, "p9") == []
    execute(store_url, merged.format("p9", "p2"))
    assert [one.id for one in await whose(store, "p9")] == [2]


async def test_a_long_read_delays_no_other_seal_and_is_sealed_when_it_ends(store: Store, store_url: str) -> None:
    await filled(store)
    async with store.snapshot(Selection()) as long:
        assert [chunk async for chunk in long.ndjson("Condition")]
        await read(store, ["Patient"])
        await read(store, ["Observation"])
        assert (await store.audit.verify()).unsealed == 0
        assert rows(store_url, "SELECT events FROM audit_seal ORDER BY number") == [([1],), ([2],)]
    found = await store.audit.verify()
    assert (found.seals, found.events, found.unsealed, found.unused, found.faults) == (3, 3, 0, 0, ())


async def test_a_range_is_not_sealed_while_an_event_is_being_added(store: Store, store_url: str) -> None:
    await filled(store)
    with psycopg.connect(store_url) as other:
        other.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended('chartferry audit default', 0))")
        await read(store, ["Patient"])
        assert (await store.audit.verify()).seals == 0
    found = await store.audit.verify()
    assert (found.seals, found.events) == (1, 1)


NO_EVENT = "DELETE FROM audit_event WHERE id = {0};"
NO_PATIENTS = "DELETE FROM audit_patient WHERE event = {0};"
NO_SEAL = "DELETE FROM audit_seal WHERE number = {0};"
FORGED = """INSERT INTO audit_event (id, actor, account, roles, origin, action, connections, types, runs)
    OVERRIDING SYSTEM VALUE VALUES ({0}, 'x', 'x', '{{}}', '', 'pull', '{{}}', '{{}}', '{{}}');"""
TO_FIT = "UPDATE audit_seal SET digests = array_fill('x'::bytea, ARRAY[1]) WHERE number = {0};"
BY_BEN = "UPDATE audit_event SET actor = 'ben' WHERE id = {0};"
AS_ONE = r"""UPDATE audit_patient SET patient_id = patient_id || E'\n' || connection || ' p2'
    WHERE event = {0} AND patient_id = 'p1';
    DELETE FROM audit_patient WHERE event = {0} AND patient_id = 'p2'"""
TAMPERED = {
    "an altered actor": (BY_BEN, 2, {("altered", 2, 2)}),
    "an altered moment": ("UPDATE audit_event SET at = at - interval '1 day' WHERE id = {0}", 2, {("altered", 2, 2)}),
    "another patient": ("UPDATE audit_patient SET patient_id = 'p9' WHERE event = {0}", 1, {("altered", 1, 1)}),
    "a patient less": ("DELETE FROM audit_patient WHERE event = {0} AND patient_id = 'p1'", 2, {("altered", 2, 2)}),
    "two patients written as one": (AS_ONE, 2, {("altered", 2, 2)}),
    "a deleted event": (NO_EVENT + NO_PATIENTS, 2, {("missing", 2, 2)}),
    "an event deleted without its patients": (NO_EVENT, 2, {("missing", 2, 2), ("no event", None, None)}),
    "an event in place of another": (NO_EVENT + FORGED, 2, {("altered", 2, 2)}),
    "an event of a number that was never used": (FORGED, 4, {("added", 4, 4)}),
    "an event before the first": (FORGED, 0, {("added", None, None)}),
    "a seal made to fit": (BY_BEN + TO_FIT, 2, {("altered", 2, 2), ("seal altered", 2, None)}),
    "a seal deleted with its event": (NO_EVENT + NO_PATIENTS + NO_SEAL, 2, {("chain broken", 3, None)}),
    "the end cut off": ((NO_EVENT + NO_PATIENTS).replace("{0}", "5") + NO_SEAL, 4, {("head missing", None, None)}),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
async def test_any_tampering_is_found(store: Store, store_url: str, what: str) -> None:
    await filled(store)
    for each in ("Patient", "Observation", "Condition"):
        await read(store, [each])
    execute(store_url, "SELECT nextval(pg_get_serial_sequence('audit_event', 'id'))")  # a read that was rolled back
    await read(store, ["Location"])
    whole = await store.audit.verify()
    assert (whole.seals, whole.events, whole.unused, whole.faults) == (4, 4, 1, ())
    statement, event, faults = TAMPERED[what]
    execute(store_url, statement.format(event))
    found = await store.audit.verify(whole.head)
    assert {(one.kind, one.seal, one.event) for one in found.faults} >= faults
    assert {one.kind for one in found.faults} - {kind for kind, _, _ in faults} <= {"chain broken"}


async def test_expired_events_are_deleted_and_the_chain_stays_valid(store: Store, store_url: str) -> None:
    await filled(store)
    await read(store, ["Patient"])
    head = (await store.audit.verify()).head
    between = datetime.now(UTC)
    await read(store, ["Observation"])
    assert await store.audit.prune(between) == 1
    found = await store.audit.verify(head)
    assert (found.pruned_through, found.faults, found.seals) == (1, (), 3)
    assert [one.action for one in await whose(store, "p1")] == [Action.EXPORT]
    assert await store.audit.prune(between) == 0


async def test_a_seal_with_a_false_time_lets_no_younger_event_be_pruned(store: Store, store_url: str) -> None:
    await filled(store)
    for _ in range(3):
        await read(store, ["Patient"])
    execute(store_url, "UPDATE audit_seal SET at = '2000-01-01' WHERE number = 3")
    execute(store_url, "UPDATE audit_event SET at = '2001-01-01' WHERE id IN (1, 3)")
    assert await store.audit.prune(datetime(2010, 1, 1, tzinfo=UTC)) == 1
    assert [row[0] for row in rows(store_url, "SELECT id FROM audit_event ORDER BY id")][:2] == [2, 3]


async def test_a_server_whose_clock_is_far_behind_prunes_nothing_of_the_audit(store: Store, store_url: str) -> None:
    await filled(store)
    await read(store, ["Patient"])
    execute(store_url, "UPDATE audit_event SET at = '2090-01-01'")  # later than the server's clock says now
    assert await store.audit.prune(datetime(2010, 1, 1, tzinfo=UTC)) == 0


@pytest.mark.parametrize(("through", "hidden"), [("9000000000000000000", {1}), ("NULL", set())])
async def test_a_claim_of_pruning_hides_no_later_deletion(
    store: Store, store_url: str, through: str, hidden: set[int]
) -> None:
    await filled(store)
    await read(store, ["Patient"])
    execute(
        store_url,
        "INSERT INTO audit_event (actor, account, roles, origin, action, connections, types, runs, through)"
        f" VALUES ('x', 'x', '{{}}', '', 'prune', '{{}}', '{{}}', '{{}}', {through})",
    )
    await read(store, ["Patient"])
    for event in (1, 3):
        execute(store_url, NO_EVENT.format(event) + NO_PATIENTS.format(event))
    found = await store.audit.verify()
    assert {(one.kind, one.event) for one in found.faults} == {("missing", event) for event in {1, 3} - hidden}


async def test_a_seal_covers_a_thousand_events_and_the_next_continues(store: Store, store_url: str) -> None:
    execute(
        store_url,
        "INSERT INTO audit_event (actor, account, roles, origin, action, connections, types, runs)"
        " SELECT 'a', 'a', '{}', '', 'pull', '{}', '{}', '{}' FROM generate_series(1, 2500)",
    )
    found = await store.audit.verify()
    assert (found.seals, found.events, found.faults) == (3, 2500, ())
