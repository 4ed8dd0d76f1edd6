"""What is believed of rows that a run missed: each row of the table in docs/completeness-rules.md, and who can miss what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snapshots.patient import Alias
from snapshots.record import Batch, Quarantined, Record
from snapshots.report import RunReport
from snapshots.store import Store
from snapshots.unit import Unit, UnitKind
from snapshots.witness import Deletion, Said, Way, WayScope
from tests.integration.snapshots.stored import (
    BESIDE,
    DIRECTORY,
    GROUP,
    PATIENTS,
    PERIOD,
    asked_for,
    execute,
    failed,
    file,
    live,
    open_evidence,
    person,
    read,
    record,
    rows,
    scope,
    search,
    settled,
    weighed,
)

pytestmark = pytest.mark.anyio
OLDER_THAN_WAYS = (  # tombstones
    "INSERT INTO evidence (connection, resource_type, id, state, run) SELECT connection, resource_type, id, 'old-tombstone', "
    "deleted_run FROM resource WHERE deleted_at IS NOT NULL"
)
T1, T2 = "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"
P1, P2, R1, R2 = search(patient="p1"), search(patient="p2"), read("p1"), read("p2")
ASKED = [R1, R2, P1, P2]
ONE, TWO = person("p1"), person("p2")
A1, A2, B1 = record("a1", 1), record("a2", 2), record("b1", 1, patient="p2")
ALL = [ONE, TWO, A1, A2, B1]
LESS = [ONE, TWO, A1, B1]  # a2 is missed by p1's search
IDS = {"p1", "p2", "a1", "a2", "b1"}
NARROW = Way("export group narrowed x", WayScope.MEMBERS, strict=False)
SYSTEM = Way("export system", WayScope.EVERYTHING)
EXPORT = scope(mode="bulk", selection="group:1")
MEMBERS = [person("p1", way=GROUP), person("p2", way=GROUP)]
FILES = [file("Patient"), file("Observation")]
CHARTS = [record("a1", 1, way=GROUP), record("a2", 2, way=GROUP), record("b1", 1, patient="p2", way=GROUP)]
NONE_OF = [Unit(key="deleted-file:1", kind=UnitKind.DELETED_FILE, resource_type="*")]


def again(one: Record) -> Record:
    """The record as a read by its id brings it."""
    return one._replace(way=None)


def deleted(*identities: str, kind: str = "Observation") -> list[Deletion]:
    return [Deletion(kind, identity) for identity in identities]


def outcome_of(report: RunReport) -> tuple[str, int, list[str]]:
    """How a run ended: status, tombstones, types of its holes."""
    return report.status, report.deleted, [hole.resource_type for hole in report.holes]


# --- listed, read, exported, referenced: alive -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way", [None, Way("reference", WayScope.NOTHING), GROUP], ids=["read", "referenced", "exported"]
)
async def test_a_row_that_any_way_lists_is_alive_again_and_no_longer_doubted(
    store: Store, store_url: str, way: Way | None
):
    await weighed(store, [*ALL, record("a3", 3)], ASKED)
    await weighed(store, LESS, ASKED, answers={"a2": Said.NOT_FOUND})
    assert (live(store_url), open_evidence(store_url)) == (IDS - {"a2"} | {"a3"}, {"a3": "doubted"})
    await weighed(store, [*LESS, A2._replace(way=way), record("a3", 3, way=way)], ASKED)
    assert (live(store_url), open_evidence(store_url)) == (IDS | {"a3"}, {})


async def test_a_merged_patient_listed_by_the_former_id_is_no_longer_merged(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    merged = [Deletion("Patient", "p2", Said.MERGED, PATIENTS)]
    await weighed(store, [ONE, A1, A2], [R1, P1], words=merged, aliases=[Alias("p2", "p1", gone=True)])
    assert "p2" not in live(store_url)
    await weighed(store, ALL, ASKED)
    assert "p2" in live(store_url)
    assert rows(store_url, "SELECT former_id, surviving_id, gone FROM alias") == [("p2", "p2", False)]


# --- missed; read 404 or 410; control 200: gone -------------------------------------------------------------------------


@pytest.mark.parametrize("word", [Said.NOT_FOUND, Said.GONE])
async def test_a_missed_row_that_its_read_does_not_find_is_gone_and_its_tombstone_keeps_the_content(
    store: Store, store_url: str, word: Said
):
    await weighed(store, ALL, ASKED)
    report = await weighed(store, LESS, ASKED, answers={"a2": word})
    assert outcome_of(report) == ("complete", 1, [])
    assert asked_for(store_url, report.id) == ["a2"]
    dead = rows(store_url, "SELECT id, deleted_run, body ->> 'value' FROM resource WHERE deleted_at IS NOT NULL")
    assert dead == [("a2", report.id, "2")]


# --- missed; not asked for, no control, no answer: doubted --------------------------------------------------------------


@pytest.mark.parametrize(
    "asking",
    [
        {"limit": 0, "answers": {"a2": Said.NOT_FOUND}},
        {"readable": ["Patient"], "answers": {"a2": Said.NOT_FOUND}},
        {"controlled": False, "answers": {"a2": Said.NOT_FOUND}},
        {"answers": {"a2": Said.UNANSWERED}},
    ],
    ids=["beyond the cap", "no reads of the type", "no control", "no answer"],
)
async def test_a_missed_row_without_certain_evidence_is_doubted_and_a_hole(
    store: Store, store_url: str, asking: dict[str, Any]
):
    await weighed(store, ALL, ASKED)
    report = await weighed(store, LESS, ASKED, **asking)
    assert outcome_of(report) == ("partial", 0, ["Observation"])
    assert (live(store_url), open_evidence(store_url)) == (IDS, {"a2": "doubted"})


async def test_a_404_proves_nothing_if_no_row_of_the_type_was_listed(store: Store, store_url: str):
    await weighed(store, [ONE, A2], [R1, P1])
    report = await weighed(store, [ONE], [R1, P1], answers={"a2": Said.NOT_FOUND})
    assert outcome_of(report) == ("partial", 0, ["Observation"])


async def test_no_more_rows_than_the_cap_are_read_and_patients_come_first(store: Store, store_url: str):
    await weighed(store, [*MEMBERS, *CHARTS], FILES, requested=EXPORT, watermark=T1)
    gone = dict.fromkeys(("p2", "a2", "b1"), Said.NOT_FOUND)
    report = await weighed(store, [MEMBERS[0], CHARTS[0]], FILES, requested=EXPORT, answers=gone, limit=2, watermark=T2)
    assert asked_for(store_url, report.id) == ["p2", "a2"]
    assert (outcome_of(report), open_evidence(store_url)) == (("partial", 2, ["Observation"]), {"b1": "doubted"})


# --- the same again -----------------------------------------------------------------------------------------------------


async def test_a_doubted_row_that_a_later_run_misses_again_is_gone(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    await weighed(store, LESS, ASKED, limit=0)
    report = await weighed(store, LESS, ASKED, limit=0)
    assert outcome_of(report) == ("complete", 1, [])
    assert (live(store_url), open_evidence(store_url)) == (IDS - {"a2"}, {})


async def test_a_doubted_row_that_could_not_be_read_stays_doubted(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    await weighed(store, LESS, ASKED, limit=0)
    report = await weighed(store, LESS, ASKED, answers={"a2": Said.UNANSWERED})
    assert outcome_of(report) == ("partial", 0, ["Observation"])
    assert (live(store_url), open_evidence(store_url)) == (IDS, {"a2": "doubted"})


async def test_a_row_that_returned_after_a_doubt_must_be_missed_twice_again(store: Store, store_url: str):
    for night in (ALL, LESS, ALL, LESS):
        report = await weighed(store, night, ASKED, limit=0)
    assert (outcome_of(report), live(store_url)) == (("partial", 0, ["Observation"]), IDS)


async def test_a_doubt_is_not_settled_by_a_run_that_has_newly_missed_a_mass(store: Store, store_url: str):
    many = [record(f"m{number:02}", number) for number in range(30)]
    await weighed(store, [A1, A2, *many], [P1])
    await weighed(store, [A1, *many], [P1], limit=0)
    report = await weighed(store, [A1], [P1])
    assert (report.deleted, len(live(store_url))) == (0, 32)
    settled_now = await weighed(store, [A1], [P1], limit=0)
    assert (settled_now.status, live(store_url)) == ("complete", {"a1"})


# --- Patient 410; `deleted` file; merge: gone at once ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [Deletion("Patient", "p2", Said.GONE, PATIENTS), Deletion("Patient", "p2", Said.MERGED, PATIENTS), *deleted("b1")],
    ids=["410", "merged", "deleted file"],
)
async def test_a_deletion_stated_by_the_ehr_is_believed_at_once(store: Store, store_url: str, word: Deletion):
    await weighed(store, ALL, ASKED)
    ended = [settled(R1, records=1), settled(P1, records=2)]
    report = await weighed(store, [ONE, A1, A2], [R1, P1], results=ended, words=[word], limit=0)
    assert (word.id in live(store_url), report.deleted) == (False, 1)


@pytest.mark.parametrize("read", [Said.NOT_FOUND, Said.GONE])
async def test_a_deletion_is_believed_though_a_mention_of_the_row_is_read_and_not_found(
    store: Store, store_url: str, read: Said
):
    await weighed(store, ALL, ASKED)
    ended = [settled(R1, records=1), settled(P1, records=2)]
    words = [*deleted("b1"), Deletion("Observation", "b1", read, way=None)]
    async with await store.begin_run(scope()) as run:
        await run.plan([R1, P1])
        await run.write(Batch(records=[ONE, A1, A2], deletions=words[:1]))
        await run.write(Batch(deletions=words[1:], results=ended))
        await run.evidence.note_missed()
        report = await run.finish(watermark=None)
    assert ("b1" in live(store_url), report.deleted) == (False, 1)


async def test_a_410_for_a_row_proves_nothing_without_a_control(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    report = await weighed(store, LESS, ASKED, answers={"a2": Said.GONE}, controlled=False)
    assert (outcome_of(report), live(store_url)) == (("partial", 0, ["Observation"]), IDS)


async def test_a_chart_is_deleted_row_by_row_and_not_with_its_patient(store: Store, store_url: str):
    await weighed(store, [*ALL, record("b2", 2, patient="p2"), record("b3", 3, patient="p2")], ASKED)
    gone = [Deletion("Patient", "p2", Said.GONE, PATIENTS)]
    ended = [settled(R1, records=1), settled(P1, records=2), settled(R2, complete=False), settled(P2)]
    answers: dict[str, Any] = {"b1": Said.NOT_FOUND, "b2": again(record("b2", 2, patient="p2"))}
    report = await weighed(store, [ONE, A1, A2], ASKED, results=ended, words=gone, answers=answers)
    assert asked_for(store_url, report.id) == ["b1", "b2", "b3"]
    assert live(store_url) == IDS - {"b1"} | {"b2", "b3"}
    assert open_evidence(store_url) == {"p2": "doubted", "b2": "contradicted", "b3": "doubted"}


async def test_a_patient_whose_chart_was_listed_is_not_dead_but_doubted(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    gone = [Deletion("Patient", "p2", Said.GONE, PATIENTS)]
    report = await weighed(store, [ONE, A1, A2, B1], [R1, P1, P2], words=gone)
    assert outcome_of(report) == ("partial", 0, ["Patient"])
    assert (live(store_url), open_evidence(store_url)) == (IDS, {"p2": "doubted"})


async def test_rows_of_a_merged_patient_that_the_survivors_search_lacks_are_missed(store: Store, store_url: str):
    await weighed(store, [ONE, TWO, record("stays", 1, patient="p2"), record("moved", 1), record("left", 1)], ASKED)
    merged = [Deletion("Patient", "p1", Said.MERGED, PATIENTS)]
    brought = [TWO, record("stays", 1, patient="p2"), record("moved", 2, patient="p2")]
    report = await weighed(
        store,
        brought,
        [R2, P2],
        words=merged,
        aliases=[Alias("p1", "p2", gone=True)],
        answers={"left": Said.NOT_FOUND},
    )
    assert asked_for(store_url, report.id) == ["left"]
    assert (report.status, live(store_url)) == ("complete", {"p2", "stays", "moved"})


# --- a mass: nothing is believed at once --------------------------------------------------------------------------------

MANY = [record(f"m{number:02}", number, patient=f"p{1 + number % 2}") for number in range(30)]


async def test_if_a_way_misses_most_of_a_type_nothing_is_read_and_two_runs_must_agree(store: Store, store_url: str):
    await weighed(store, MANY, [P1, P2])
    doubted = await weighed(store, MANY[:2], [P1, P2])
    assert asked_for(store_url, doubted.id) == []
    assert (outcome_of(doubted), len(live(store_url))) == (("partial", 0, ["Observation"]), 30)
    believed = await weighed(store, MANY[:2], [P1, P2], limit=0)
    assert (believed.status, believed.deleted, live(store_url)) == ("complete", 28, {"m00", "m01"})


@pytest.mark.parametrize(("missed", "gone"), [(21, 21), (22, 0)])
async def test_slightly_less_than_half_of_a_ways_rows_are_no_mass(store: Store, store_url: str, missed: int, gone: int):
    forty_four = [record(f"m{number:02}", number, patient=f"p{1 + number % 2}") for number in range(44)]
    await weighed(store, forty_four, [P1, P2])
    not_there = {one.id: Said.NOT_FOUND for one in forty_four}
    report = await weighed(store, forty_four[missed:], [P1, P2], answers=not_there)
    assert (report.deleted, len(asked_for(store_url, report.id))) == (gone, gone)


async def test_fewer_than_twenty_rows_are_no_mass(store: Store, store_url: str):
    twenty = [record(f"m{number:02}", number) for number in range(20)]
    await weighed(store, twenty, [P1])
    report = await weighed(store, twenty[:1], [P1], answers={one.id: Said.NOT_FOUND for one in twenty})
    assert (report.status, report.deleted) == ("complete", 19)


async def test_a_mass_is_measured_by_the_rows_of_its_own_way(store: Store, store_url: str):
    lab, vital = search(split="category=laboratory"), search(split="category=vital-signs")
    labs = [record(f"l{number:02}", number, way=lab.way) for number in range(30)]
    vitals = [record(f"v{number:03}", number, way=vital.way) for number in range(100)]
    await weighed(store, [*labs, *vitals], [lab, vital])
    report = await weighed(store, [labs[0], *vitals], [lab, vital], answers={one.id: Said.NOT_FOUND for one in labs})
    assert (outcome_of(report), asked_for(store_url, report.id)) == (("partial", 0, ["Observation"]), [])


OF_P1 = [record(f"a{number:02}", number) for number in range(20)]
OF_P2 = [record(f"b{number:02}", number, patient="p2") for number in range(60)]


async def test_if_a_living_patient_loses_all_of_a_type_two_runs_must_agree(store: Store, store_url: str):
    await weighed(store, [ONE, TWO, *OF_P1, *OF_P2], ASKED)
    not_there = {one.id: Said.NOT_FOUND for one in OF_P1}
    doubted = await weighed(store, [ONE, TWO, *OF_P2], ASKED, answers=not_there)
    assert (outcome_of(doubted), asked_for(store_url, doubted.id)) == (("partial", 0, ["Observation"]), [])
    believed = await weighed(store, [ONE, TWO, *OF_P2], ASKED, limit=0)
    assert outcome_of(believed) == ("complete", 20, [])


async def test_a_dead_patient_may_lose_all_of_a_type_at_once(store: Store, store_url: str):
    await weighed(store, [ONE, TWO, *OF_P1, *OF_P2], ASKED)
    gone = [Deletion("Patient", "p1", Said.GONE, PATIENTS)]
    not_there = {one.id: Said.NOT_FOUND for one in OF_P1}
    ended = [settled(R1, complete=False), settled(R2, records=1), settled(P1), settled(P2, records=60)]
    report = await weighed(store, [TWO, *OF_P2], ASKED, results=ended, words=gone, answers=not_there)
    assert outcome_of(report) == ("complete", 21, [])


async def test_a_deleted_file_that_names_a_mass_is_not_believed_at_once(store: Store, store_url: str):
    await weighed(store, MANY, [P1, P2])
    named = deleted(*(one.id for one in MANY[:20]))
    assert outcome_of(await weighed(store, [], NONE_OF, words=named)) == ("partial", 0, ["Observation"])
    assert outcome_of(await weighed(store, [], NONE_OF, words=named)) == ("complete", 20, [])


# --- given, and said to be deleted, in one run ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [1, 5], ids=["unchanged", "changed"])
async def test_a_row_both_listed_and_reported_deleted_in_one_run_is_doubted(store: Store, store_url: str, content: int):
    await weighed(store, ALL, ASKED)
    brought = [ONE, TWO, record("a1", content), A2, B1]
    report = await weighed(store, brought, [*ASKED, *NONE_OF], words=deleted("a1"))
    assert outcome_of(report) == ("partial", 0, ["Observation"])
    assert (live(store_url), open_evidence(store_url)) == (IDS, {"a1": "doubted"})


# --- missed; read 200 -----------------------------------------------------------------------------------------------------


async def test_a_missed_row_that_now_belongs_to_another_patient_has_moved_and_is_stored(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    report = await weighed(store, LESS, ASKED, answers={"a2": record("a2", 3, patient="p2", way=None)})
    assert (outcome_of(report), open_evidence(store_url)) == (("complete", 0, []), {})
    assert rows(store_url, "SELECT patient_id, body ->> 'value' FROM resource WHERE id = 'a2'") == [("p2", "3")]


def coded(identity: str, code: str, way: Way | None) -> Record:
    coding = f'"category":[{{"coding":[{{"code":"{code}"}}]}}]'
    return record(identity, f'{{"resourceType":"Observation","id":"{identity}",{coding}}}'.encode(), way=way)


@pytest.mark.parametrize(("now", "state"), [("therapy", {}), ("laboratory", {"lab": "contradicted"})])
async def test_a_missed_row_that_is_now_in_another_category_has_moved(
    store: Store, store_url: str, now: str, state: dict[str, str]
):
    labs = search(split="category=laboratory")
    await weighed(store, [ONE, A1, coded("lab", "laboratory", labs.way)], [R1, P1, labs])
    report = await weighed(store, [ONE, A1], [R1, P1, labs], answers={"lab": coded("lab", now, None)})
    assert (asked_for(store_url, report.id), open_evidence(store_url)) == (["lab"], state)


async def test_a_row_that_left_its_category_is_not_read_again_by_every_run(store: Store, store_url: str):
    labs = search(split="category=laboratory")
    await weighed(store, [ONE, A1, coded("lab", "laboratory", labs.way)], [R1, P1, labs])
    await weighed(store, [ONE, A1], [R1, P1, labs], answers={"lab": coded("lab", "therapy", None)})
    report = await weighed(store, [ONE, A1], [R1, P1, labs])
    assert (asked_for(store_url, report.id), outcome_of(report)) == ([], ("complete", 0, []))


@pytest.mark.parametrize(
    ("brought", "state"),
    [
        (record("family", 1, patient=None, way=None), {"family": "contradicted"}),
        (record("family", 2, patient="p3", way=None), {}),
    ],
    ids=["unchanged", "another patient's"],
)
async def test_an_ownerless_row_that_its_search_no_longer_lists_contradicts_it_unless_moved(
    store: Store, store_url: str, brought: Record, state: dict[str, str]
):
    await weighed(store, [*ALL, record("family", 1, patient=None, searched="p2")], ASKED)
    await weighed(store, ALL, ASKED, answers={"family": brought})
    assert open_evidence(store_url) == state
    await weighed(store, ALL, ASKED, answers={"family": brought})
    later = await weighed(store, ALL, ASKED)
    assert (asked_for(store_url, later.id), open_evidence(store_url)) == ([], {})


async def test_a_row_that_no_longer_passes_a_filter_is_no_longer_listed_by_it(store: Store, store_url: str):
    files = [file("Patient", NARROW), file("Observation", NARROW)]
    people = [one._replace(way=NARROW) for one in MEMBERS]
    charts = [one._replace(way=NARROW) for one in CHARTS]
    await weighed(store, [*people, *charts], files, requested=EXPORT, watermark=T1)
    without = [*people, charts[0], charts[2]]
    report = await weighed(store, without, files, requested=EXPORT, answers={"a2": again(A2)}, watermark=T2)
    assert (asked_for(store_url, report.id), outcome_of(report)) == (["a2"], ("complete", 0, []))
    assert rows(store_url, "SELECT first_way FROM resource WHERE id = 'a2'") == [(None,)]
    later = await weighed(store, without, files, requested=EXPORT, watermark=T2)
    assert (asked_for(store_url, later.id), open_evidence(store_url)) == ([], {})


MEDS = [file("Patient"), file("Medication", GROUP, of_none=BESIDE)]
M1, M2 = (record(f"m{n}", n, kind="Medication", patient=None, way=BESIDE) for n in (1, 2))


async def test_a_row_that_members_charts_no_longer_mention_leaves_the_export(store: Store, store_url: str):
    await weighed(store, [*MEMBERS, M1, M2], MEDS, requested=EXPORT, watermark=T1)
    report = await weighed(store, [*MEMBERS, M2], MEDS, requested=EXPORT, answers={"m1": again(M1)}, watermark=T2)
    assert (asked_for(store_url, report.id), outcome_of(report)) == (["m1"], ("complete", 0, []))
    assert rows(store_url, "SELECT id FROM resource WHERE first_way IS NULL") == [("m1",)]


async def test_a_row_of_no_patient_that_no_longer_exists_is_gone(store: Store, store_url: str):
    await weighed(store, [*MEMBERS, M1, M2], MEDS, requested=EXPORT, watermark=T1)
    report = await weighed(store, [*MEMBERS, M2], MEDS, requested=EXPORT, answers={"m1": Said.NOT_FOUND}, watermark=T2)
    assert (outcome_of(report), live(store_url)) == (("complete", 1, []), {"p1", "p2", "m2"})


async def test_another_groups_export_says_nothing_about_rows_that_this_groups_charts_mention(
    store: Store, store_url: str
):
    await weighed(store, [*MEMBERS, M1, M2], MEDS, requested=EXPORT, watermark=T1)
    beside = BESIDE._replace(name="export group beside 2")
    files = [file("Patient"), file("Medication", GROUP, of_none=beside)]
    other = scope(mode="bulk", selection="group:2")
    report = await weighed(
        store, [person("p3", way=GROUP), M2._replace(way=beside)], files, requested=other, watermark=T1
    )
    assert (asked_for(store_url, report.id), outcome_of(report)) == ([], ("complete", 0, []))


async def test_an_existing_unlisted_row_makes_the_listing_a_hole_and_the_second_time_a_note(
    store: Store, store_url: str
):
    await weighed(store, ALL, ASKED)
    first = await weighed(store, LESS, ASKED, answers={"a2": again(A2)})
    assert (outcome_of(first), open_evidence(store_url)) == (("partial", 0, ["Observation"]), {"a2": "contradicted"})
    second = await weighed(store, LESS, ASKED, answers={"a2": again(A2)})
    assert (outcome_of(second), open_evidence(store_url)) == (("complete", 0, []), {})
    assert [note.split(":")[0] for note in second.notes] == ["Observation"]
    third = await weighed(store, LESS, ASKED)
    assert (asked_for(store_url, third.id), live(store_url)) == ([], IDS)


async def test_a_contradicted_way_that_lists_the_row_again_must_be_contradicted_twice_again(
    store: Store, store_url: str
):
    for night in (ALL, LESS, ALL, LESS):
        report = await weighed(store, night, ASKED, answers={"a2": again(A2)})
    assert (report.status, open_evidence(store_url)) == ("partial", {"a2": "contradicted"})


# --- withheld ---------------------------------------------------------------------------------------------------------------


async def test_a_withheld_row_is_kept_noted_and_read_again(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    for _ in range(3):
        report = await weighed(store, LESS, ASKED, answers={"a2": Said.WITHHELD})
        assert (asked_for(store_url, report.id), outcome_of(report)) == (["a2"], ("complete", 0, []))
        assert ["withheld" in note for note in report.notes] == [True]
    assert (live(store_url), open_evidence(store_url)) == (IDS, {"a2": "withheld"})


# --- patients no longer in a Group, list or cohort --------------------------------------------------------------------------

COHORT = scope(selection="cohort")


@pytest.mark.parametrize("exported", [True, False], ids=["Group", "cohort"])
async def test_a_living_patient_who_is_no_longer_selected_has_left_and_the_chart_is_not_read(
    store: Store, store_url: str, exported: bool
):
    requested, units, brought = (EXPORT, FILES, [*MEMBERS, *CHARTS]) if exported else (COHORT, ASKED, ALL)
    await weighed(store, brought, units, requested=requested, watermark=T1)
    fewer = [one for one in brought if one.patient_id == "p1"]
    units = FILES if exported else [R1, P1]
    report = await weighed(store, fewer, units, requested=requested, answers={"p2": again(TWO)}, watermark=T2)
    assert (asked_for(store_url, report.id), outcome_of(report)) == (["p2"], ("complete", 0, []))
    assert (live(store_url), open_evidence(store_url)) == (IDS, {})
    left = rows(store_url, "SELECT patient_id FROM roster WHERE removed_run = %s", report.id)
    assert left == [("p2",)]
    later = await weighed(store, fewer, units, requested=requested, watermark=T2)
    assert (asked_for(store_url, later.id), later.status) == ([], "complete")


@pytest.mark.parametrize("exported", [True, False], ids=["Group", "cohort"])
@pytest.mark.parametrize("word", [Said.NOT_FOUND, Said.GONE])
async def test_each_row_of_a_deselected_and_deleted_patient_is_read(
    store: Store, store_url: str, exported: bool, word: Said
):
    requested, units, brought = (EXPORT, FILES, [*MEMBERS, *CHARTS]) if exported else (COHORT, ASKED, ALL)
    await weighed(store, brought, units, requested=requested, watermark=T1)
    fewer = [one for one in brought if one.patient_id == "p1"]
    answers = {"p2": word, "b1": Said.NOT_FOUND}
    report = await weighed(
        store, fewer, FILES if exported else [R1, P1], requested=requested, answers=answers, watermark=T2
    )
    assert asked_for(store_url, report.id) == ["p2", "b1"]
    assert (outcome_of(report), live(store_url)) == (("complete", 2, []), {"p1", "a1", "a2"})


async def test_a_deselected_patient_without_an_answer_is_doubted(store: Store, store_url: str):
    await weighed(store, ALL, ASKED, requested=COHORT, watermark=T1)
    report = await weighed(store, [ONE, A1, A2], [R1, P1], requested=COHORT, watermark=T2)
    assert (outcome_of(report), open_evidence(store_url)) == (("partial", 0, ["Patient"]), {"p2": "doubted"})
    assert rows(store_url, "SELECT patient_id FROM roster WHERE removed_run IS NOT NULL") == []


async def test_a_patient_without_a_stored_patient_row_leaves_the_cohort_without_a_read(store: Store, store_url: str):
    await weighed(store, [A1, A2, B1], [P1, P2, R1], requested=COHORT, watermark=T1)
    report = await weighed(store, [A1, A2], [P1, R1], requested=COHORT, watermark=T2)
    assert (asked_for(store_url, report.id), live(store_url)) == ([], {"a1", "a2", "b1"})
    assert rows(store_url, "SELECT patient_id FROM roster WHERE removed_run IS NULL") == [("p1",)]


async def test_nobody_leaves_while_the_members_of_the_cohort_are_unknown(store: Store, store_url: str):
    await weighed(store, ALL, ASKED, requested=COHORT, watermark=T1)
    lost = Unit(key="cohort:2", kind=UnitKind.COHORT, resource_type="Patient")
    ended = [settled(R1, records=1), settled(P1, records=2), failed(lost)]
    report = await weighed(store, [ONE, A1, A2], [R1, P1, lost], results=ended, requested=COHORT, watermark=T2)
    assert (asked_for(store_url, report.id), open_evidence(store_url)) == ([], {})


# --- unwitnessed ------------------------------------------------------------------------------------------------------------

REFERRED = [record(f"m{n}", n, kind="Medication", patient=None, way=None) for n in range(1, 6)]


@pytest.mark.parametrize("word", [Said.NOT_FOUND, Said.GONE])
async def test_an_unwitnessed_row_that_two_runs_do_not_find_is_gone(store: Store, store_url: str, word: Said):
    await weighed(store, [*ALL, *REFERRED[:2]], ASKED)
    brought = [*ALL, REFERRED[0]]
    first = await weighed(store, brought, ASKED, rotated=50, answers={"m2": word})
    assert (outcome_of(first), open_evidence(store_url)) == (("partial", 0, ["Medication"]), {"m2": "not-found"})
    second = await weighed(store, brought, ASKED, rotated=50, answers={"m2": word})
    assert (outcome_of(second), live(store_url)) == (("complete", 1, []), IDS | {"m1"})


async def test_an_unwitnessed_row_stays_where_no_control_can_be_read(store: Store, store_url: str):
    await weighed(store, [*ALL, *REFERRED[:2]], ASKED)
    for _ in range(3):
        answers = {"m2": Said.NOT_FOUND}
        await weighed(store, [*ALL, REFERRED[0]], ASKED, rotated=50, answers=answers, controlled=False)
    assert live(store_url) == IDS | {"m1", "m2"}


async def test_unwitnessed_rows_stay_if_another_stored_row_of_their_type_cannot_be_read_either(
    store: Store, store_url: str
):
    await weighed(store, [*ALL, *REFERRED], ASKED)
    for _ in range(4):
        answers = {one.id: Said.NOT_FOUND for one in REFERRED}
        unread = {"Medication"}  # withdrawn: controls of other types are read
        report = await weighed(store, ALL, ASKED, rotated=2, answers=answers, controlled=True, withdrawn=unread)
        assert outcome_of(report) == ("complete", 0, [])
    assert live(store_url) == IDS | {one.id for one in REFERRED}


async def test_unwitnessed_rows_of_a_type_with_refused_searches_stay_even_if_reads_find_nothing(
    store: Store, store_url: str
):
    now = datetime.now(UTC)
    await weighed(store, ALL, ASKED, requested=COHORT, watermark=T1, rotated=50, at=now)
    for days in (40, 41, 42):
        refused = [settled(R1, records=1), settled(R2, records=1), failed(P1), failed(P2)]
        answers = dict.fromkeys(("a1", "a2", "b1"), Said.NOT_FOUND)
        await weighed(
            store,
            [ONE, TWO],
            ASKED,
            requested=COHORT,
            results=refused,
            answers=answers,
            rotated=50,
            at=now + timedelta(days=days),
        )
    assert live(store_url) == IDS


async def test_unwitnessed_rows_are_read_in_turn_starting_with_those_not_found_before(store: Store, store_url: str):
    await weighed(store, [*ALL, *REFERRED], ASKED)
    there: dict[str, Any] = {one.id: one for one in REFERRED}
    turns = []
    for answers in (there, there, there, {**there, "m2": Said.NOT_FOUND}, there):
        report = await weighed(store, ALL, ASKED, rotated=2, answers=answers)
        turns.append(asked_for(store_url, report.id))
    assert turns == [["m1", "m2"], ["m3", "m4"], ["m1", "m5"], ["m2", "m3"], ["m2", "m4"]]


@pytest.mark.parametrize("number", [6, 1_200])  # looked up one by one, and compared all together
async def test_what_was_heard_of_since_the_listings_were_compared_is_not_unwitnessed(
    store: Store, store_url: str, number: int
):
    referred = [record(f"m{n:04}", n, kind="Medication", patient=None, way=None) for n in range(number)]
    await weighed(store, [*ALL, *referred], ASKED)
    now = datetime.now(UTC)
    async with await store.begin_run(scope()) as run:
        units = [*ASKED, search("Location", None)]  # that a type is listed whole is why the rows are compared here
        await run.plan(units)
        await run.write(Batch(records=ALL, results=[settled(unit) for unit in units]))
        await run.evidence.note_missed()
        came = [referred[0], record("m0001", "changed", kind="Medication", patient=None, way=None)]
        await run.write(Batch(records=came, deletions=deleted("m0002", kind="Medication")))
        execute(
            store_url,
            "INSERT INTO referenced (connection, resource_type, id, run, depth, state, checked_at) "
            "SELECT connection, resource_type, id, last_changed_run, 1, 'found', now() FROM resource WHERE id = 'm0003'",
        )
        await run.evidence.note_listings(now)
        left = await run.evidence.rotate(None, 1, at=now, period=PERIOD, fresh=timedelta(days=1))
        assert left == {"Medication": number - 4}
        await run.finish(watermark=None)


async def test_another_selections_full_listing_witnesses_a_row_for_one_period(store: Store, store_url: str):
    now = datetime.now(UTC)
    await weighed(store, [ONE, A1], [R1, P1], requested=COHORT, watermark=T1, rotated=50, at=now)
    other = scope(selection="patients")
    soon = await weighed(store, [TWO, B1], [R2, P2], requested=other, rotated=50, at=now + timedelta(days=34))
    assert asked_for(store_url, soon.id) == []
    late = await weighed(store, [TWO, B1], [R2, P2], requested=other, rotated=50, at=now + timedelta(days=36))
    assert asked_for(store_url, late.id) == ["p1", "a1"]


async def test_the_rows_of_a_patient_who_left_are_unwitnessed(store: Store, store_url: str):
    await weighed(store, ALL, ASKED, requested=COHORT, watermark=T1, rotated=50)
    fewer: list[Record] = [ONE, A1, A2]
    report = await weighed(
        store, fewer, [R1, P1], requested=COHORT, answers={"p2": again(TWO)}, watermark=T2, rotated=50
    )
    assert asked_for(store_url, report.id) == ["p2"]
    later = await weighed(store, fewer, [R1, P1], requested=COHORT, watermark=T2, rotated=50)
    assert asked_for(store_url, later.id) == ["p2", "b1"]


@pytest.mark.parametrize(
    ("answer", "alive", "state"),
    [
        (again(A2), IDS, {}),
        (Said.NOT_FOUND, IDS - {"a2"}, {}),
        (Said.UNANSWERED, IDS - {"a2"}, {"a2": "old-tombstone"}),
    ],
)
async def test_a_tombstone_older_than_ways_is_read_until_there_is_an_answer(
    store: Store, store_url: str, answer: Any, alive: set[str], state: dict[str, str]
):
    await weighed(store, ALL, ASKED)
    await weighed(store, LESS, ASKED, answers={"a2": Said.NOT_FOUND})
    execute(store_url, OLDER_THAN_WAYS)
    report = await weighed(store, LESS, ASKED, rotated=50, answers={"a2": answer})
    assert asked_for(store_url, report.id) == ["a2"]
    assert (live(store_url), open_evidence(store_url)) == (alive, state)


async def test_an_unreadable_patient_who_is_no_longer_requested_is_doubted_once_and_then_kept_with_a_note(
    store: Store, store_url: str
):
    await weighed(store, ALL, ASKED, requested=COHORT, watermark=T1, rotated=50)
    fewer: list[Record] = [ONE, A1, A2]
    values: dict[str, Any] = {"requested": COHORT, "watermark": T2, "rotated": 50, "readable": []}
    first = await weighed(store, fewer, [R1, P1], **values)
    assert outcome_of(first) == ("partial", 0, ["Patient"])
    for notes in (1, 0):  # who has left is not asked for any more
        later = await weighed(store, fewer, [R1, P1], **values)
        assert (
            outcome_of(later),
            len([note for note in later.notes if "no longer listed for this selection" in note]),
        ) == (
            ("complete", 0, []),
            notes,
        )
    assert live(store_url) == IDS


async def test_a_row_that_nothing_mentions_any_more_is_not_missed(store: Store, store_url: str):
    await weighed(store, [*ALL, *REFERRED], ASKED)
    for _ in range(2):
        report = await weighed(store, ALL, ASKED)
        assert (asked_for(store_url, report.id), outcome_of(report)) == ([], ("complete", 0, []))
    assert live(store_url) == IDS | {one.id for one in REFERRED}


# --- pulls --------------------------------------------------------------------------------------------------------------------


async def test_a_pull_never_deletes_what_it_misses_however_often(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    for _ in range(3):
        report = await weighed(store, [ONE, A1], [R1, P1], requested=scope(kind="pull"), answers={"a2": Said.NOT_FOUND})
        assert outcome_of(report) == ("partial", 0, ["Observation"])
    assert (live(store_url), open_evidence(store_url)) == (IDS, {"a2": "doubted"})
    sync = await weighed(store, LESS, ASKED, answers={"a2": Said.NOT_FOUND})
    assert outcome_of(sync) == ("complete", 1, [])


async def test_a_pull_does_not_delete_a_missed_row_on_a_410(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    await weighed(store, [ONE, A1], [R1, P1], requested=scope(kind="pull"), answers={"a2": Said.GONE})
    assert (live(store_url), open_evidence(store_url)) == (IDS, {"a2": "doubted"})


# --- who can miss what --------------------------------------------------------------------------------------------------------


async def test_only_a_way_that_listed_a_row_misses_it(store: Store, store_url: str):
    exported = [person("p1", way=SYSTEM), record("a1", 1, way=SYSTEM), record("only", 1, way=SYSTEM)]
    await weighed(store, exported, [file("Patient", SYSTEM), file(way=SYSTEM)], requested=scope(mode="bulk"))
    report = await weighed(store, [ONE, A1], [R1, P1])
    assert (asked_for(store_url, report.id), outcome_of(report)) == ([], ("complete", 0, []))
    assert live(store_url) == {"p1", "a1", "only"}


async def test_any_way_that_has_listed_a_row_can_miss_it(store: Store, store_url: str):
    directory = search(patient=None)
    seen_by_both = [A1, A1._replace(way=directory.way)]
    await weighed(store, [ONE, *seen_by_both, A2], [R1, P1, directory])
    taught = "SELECT l.id, w.name FROM listed l JOIN way w ON w.id = l.way ORDER BY 1"
    assert rows(store_url, taught) == [("a1", "directory")]
    report = await weighed(store, [ONE, *seen_by_both, A2._replace(way=directory.way)], [R1, P1, directory])
    assert rows(store_url, taught) == [("a1", "directory"), ("a2", "directory")]
    assert (asked_for(store_url, report.id), outcome_of(report)) == ([], ("complete", 0, []))
    await weighed(store, [ONE, A1._replace(way=directory.way)], [R1, directory])
    missed = "SELECT e.id, w.name FROM evidence e JOIN way w ON w.id = ANY(e.ways)"
    assert rows(store_url, missed) == [("a2", "directory")]


async def test_an_empty_answer_about_a_patient_not_known_to_exist_misses_nothing(store: Store, store_url: str):
    await weighed(store, [A1, A2, B1], [P1, P2])
    report = await weighed(store, [A1, A2], [P1, P2])
    assert asked_for(store_url, report.id) == []
    alive = await weighed(store, [A1, A2, TWO], [P1, P2, R2])
    assert asked_for(store_url, alive.id) == ["b1"]


@pytest.mark.parametrize(
    "ended",
    [
        [settled(R1, records=1), settled(R2, records=1), failed(P1), settled(P2, records=1)],
        [
            settled(R1, records=1),
            settled(R2, records=1),
            settled(P1, records=1, complete=False),
            settled(P2, records=1),
        ],
        [settled(R1, records=1), settled(R2, records=1), settled(P2, records=1)],
    ],
    ids=["failed", "not complete", "nobody settled it"],
)
async def test_an_incomplete_listing_misses_nothing(store: Store, store_url: str, ended: list[Any]):
    await weighed(store, ALL, ASKED)
    report = await weighed(store, LESS, ASKED, results=ended)
    assert (asked_for(store_url, report.id), live(store_url), open_evidence(store_url)) == ([], IDS, {})


async def test_another_patients_hole_does_not_affect_what_a_patients_search_misses(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    ended = [settled(R1, records=1), settled(R2, records=1), settled(P1, records=1), failed(P2)]
    report = await weighed(store, [ONE, TWO, A1], ASKED, results=ended, answers={"a2": Said.NOT_FOUND})
    assert (report.status, live(store_url)) == ("partial", IDS - {"a2"})


async def test_a_split_misses_nothing_that_another_split_listed(store: Store, store_url: str):
    lab, vital = search(split="category=laboratory"), search(split="category=vital-signs")
    await weighed(store, [ONE, record("l", 1, way=lab.way), record("v", 1, way=vital.way)], [R1, lab, vital])
    ended = [settled(R1, records=1), settled(lab), failed(vital)]
    report = await weighed(store, [ONE], [R1, lab, vital], results=ended)
    assert asked_for(store_url, report.id) == ["l"]


@pytest.mark.parametrize("whole", [True, False])
async def test_a_directory_misses_patients_only_if_complete(store: Store, store_url: str, whole: bool):
    everyone = search("Patient", None)
    people = [person("p1", way=DIRECTORY), person("p2", way=DIRECTORY)]
    await weighed(store, [*people, A1, A2, B1], [everyone, P1, P2])
    ended = [settled(everyone, records=1) if whole else failed(everyone), settled(P1, records=2)]
    gone = {"p2": Said.NOT_FOUND, "b1": Said.NOT_FOUND}
    report = await weighed(store, [people[0], A1, A2], [everyone, P1], results=ended, answers=gone)
    assert asked_for(store_url, report.id) == (["p2"] if whole else [])
    assert live(store_url) == (IDS - {"p2"} if whole else IDS)


async def test_unrequested_patients_are_left_alone(store: Store, store_url: str):
    await weighed(store, ALL, ASKED, requested=scope(selection="patients:1"), watermark=T1)
    report = await weighed(store, [ONE, A1, A2], [R1, P1], requested=scope(selection="patients:2"), watermark=T1)
    assert (asked_for(store_url, report.id), live(store_url)) == ([], IDS)


async def test_a_type_with_a_failed_file_misses_nothing(store: Store, store_url: str):
    second = file(number=2)
    await weighed(store, [*MEMBERS, *CHARTS], [*FILES, second], requested=EXPORT, watermark=T1)
    ended = [settled(FILES[0], records=2), settled(FILES[1]), failed(second)]
    report = await weighed(store, MEMBERS, [*FILES, second], results=ended, requested=EXPORT, watermark=T2)
    assert (asked_for(store_url, report.id), live(store_url)) == ([], IDS)


async def test_quarantined_input_of_no_unit_makes_a_file_miss_nothing(store: Store, store_url: str):
    everything = [file(way=SYSTEM)]
    await weighed(store, [one._replace(way=SYSTEM) for one in CHARTS], everything, requested=scope(mode="bulk"))
    async with await store.begin_run(scope(mode="bulk")) as run:
        await run.plan(everything)
        line = Quarantined(None, "file 1, line 2", "not JSON", b"{")
        await run.write(Batch(quarantined=[line], results=[settled(everything[0])]))
        await run.evidence.note_missed()
        assert await run.evidence.due(None, 10) == []
        report = await run.finish(watermark=T1)
    assert (report.status, report.quarantined, len(live(store_url))) == ("partial", 1, 3)
    async with await store.begin_run(scope()) as run:
        assert await run.knowledge.watermarks() == {}


async def test_a_failed_run_deletes_and_doubts_nothing(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    async with await store.begin_run(scope()) as run:
        await run.plan([R1, P1])
        await run.write(Batch(records=[ONE], deletions=deleted("a1"), results=[settled(R1, records=1), settled(P1)]))
        await run.evidence.note_missed()
        report = await run.fail(reason="login refused")
    assert (live(store_url), open_evidence(store_url)) == (IDS, {})
    assert (report.status, report.error) == ("failed", "login refused")
    assert rows(store_url, "SELECT count(*) FROM absence") == [(0,)]


async def test_an_export_of_members_witnesses_only_its_members(store: Store, store_url: str):
    await weighed(store, [*MEMBERS, *CHARTS], FILES, requested=EXPORT, watermark=T1)
    other = scope(mode="bulk", selection="group:2")
    three, theirs = person("p3", way=GROUP), record("c1", 1, patient="p3", way=GROUP)
    report = await weighed(store, [three, theirs], FILES, requested=other, watermark=T1)
    assert asked_for(store_url, report.id) == []
    later = await weighed(store, [*MEMBERS, CHARTS[0]], FILES, requested=EXPORT, watermark=T2)
    assert asked_for(store_url, later.id) == ["a2", "b1"]


async def test_a_row_that_does_not_name_the_searched_patient_can_be_missed_by_that_search(store: Store, store_url: str):
    group = record("family", 1, patient=None, others=("p1",), searched="p2")
    await weighed(store, [*ALL, group], ASKED)
    members = "SELECT patient_id, searched FROM member ORDER BY 1"
    assert rows(store_url, members) == [("p1", False), ("p2", True)]
    only = await weighed(store, [ONE, A1, A2], [R1, P1])
    assert asked_for(store_url, only.id) == []
    report = await weighed(store, ALL, ASKED)
    assert asked_for(store_url, report.id) == ["family"]


async def test_a_changed_resource_forgets_the_patients_it_named_but_not_its_search(store: Store, store_url: str):
    await weighed(store, [record("x", 1, others=("p2", "p3"), searched="p4")], [P1])
    await weighed(store, [record("x", 2, others=("p3",))], [P1])
    assert rows(store_url, "SELECT patient_id FROM member ORDER BY 1") == [("p3",), ("p4",)]


# --- what no selection knows any more -------------------------------------------------------------------------------------------

OTHER = scope(selection="store")


async def lags(store: Store, requested: Any) -> dict[tuple[str, str], str | None]:
    async with await store.begin_run(requested) as run:
        found = dict(await run.roster.lags())
        await run.fail(reason="only looked")
        return found


@pytest.mark.parametrize("limit", [10, 0], ids=["buried", "doubted"])
async def test_a_deletion_or_doubt_of_one_selection_makes_every_selection_list_in_full(store: Store, limit: int):
    for requested in (OTHER, COHORT):
        await weighed(store, ALL, ASKED, requested=requested, watermark=T1)
    await weighed(store, LESS, ASKED, requested=COHORT, answers={"a2": Said.NOT_FOUND}, limit=limit, watermark=T2)
    owed = {("Observation", "p1"): None}
    assert (await lags(store, OTHER), await lags(store, COHORT)) == (owed, owed)
    await weighed(store, LESS, ASKED, requested=OTHER, watermark=T2)
    assert await lags(store, OTHER) == ({} if limit else owed)


async def test_a_full_listing_knows_the_rows_it_revives_and_other_selections_do_not(store: Store):
    for requested in (OTHER, COHORT):
        await weighed(store, ALL, ASKED, requested=requested, watermark=T1)
    for requested in (OTHER, COHORT):
        await weighed(store, LESS, ASKED, requested=requested, answers={"a2": Said.NOT_FOUND}, watermark=T1)
    for requested in (OTHER, COHORT):
        await weighed(store, LESS, ASKED, requested=requested, watermark=T1)
    assert (await lags(store, OTHER), await lags(store, COHORT)) == ({}, {})
    await weighed(store, ALL, ASKED, requested=OTHER, watermark=T2)
    assert (await lags(store, OTHER), await lags(store, COHORT)) == ({}, {("Observation", "p1"): None})


@pytest.mark.parametrize("how", ["pull", "failed", "interrupted"])
async def test_no_selection_knows_a_row_revived_by_a_run_without_listings(store: Store, how: str):
    await weighed(store, ALL, ASKED, requested=COHORT, watermark=T1)
    await weighed(store, LESS, ASKED, requested=COHORT, answers={"a2": Said.NOT_FOUND}, watermark=T1)
    await weighed(store, LESS, ASKED, requested=COHORT, watermark=T1)
    assert await lags(store, COHORT) == {}
    async with await store.begin_run(scope(kind="pull" if how == "pull" else "sync")) as run:
        await run.write(Batch(records=[again(A2)]))
        if how == "pull":
            await run.finish(watermark=None)
        elif how == "failed":
            await run.fail(reason="down")
    assert await lags(store, COHORT) == {("Observation", "p1"): None}


# --- evidence counts as of its own instant --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hours", "alive"), [(-1, False), (1, True)])
async def test_an_export_older_than_a_deletion_does_not_undo_it(store: Store, store_url: str, hours: int, alive: bool):
    await weighed(store, ALL, ASKED)
    execute(store_url, "UPDATE run SET started_at = started_at - interval '2 days'")
    await weighed(store, LESS, ASKED, answers={"a2": Said.NOT_FOUND})
    instant = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    exported = [one._replace(way=SYSTEM) for one in (A1, A2, B1)]
    await weighed(store, exported, [file(way=SYSTEM)], requested=scope(mode="bulk"), exported_at=instant)
    assert ("a2" in live(store_url)) is alive


async def test_an_older_export_settles_no_doubt(store: Store, store_url: str):
    await weighed(store, ALL, ASKED)
    await weighed(store, LESS, ASKED, answers={"a2": Said.NOT_FOUND})
    execute(store_url, OLDER_THAN_WAYS)
    instant = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    exported = [one._replace(way=GROUP) for one in (A1, A2, B1)]
    await weighed(store, exported, [file(way=GROUP)], requested=scope(mode="bulk"), exported_at=instant)
    assert open_evidence(store_url) == {"a2": "old-tombstone"}


@pytest.mark.parametrize(("hours", "value"), [(-1, "new"), (1, "old")])
async def test_an_export_older_than_a_change_does_not_undo_it(store: Store, store_url: str, hours: int, value: str):
    await weighed(store, [record("a1", "new", updated="2024-01-02T00:00:00Z")], [P1])
    instant = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    older = record("a1", "old", updated="2024-01-01T00:00:00Z", way=SYSTEM)
    await weighed(store, [older], [file(way=SYSTEM)], requested=scope(mode="bulk"), exported_at=instant)
    assert rows(store_url, "SELECT body ->> 'value' FROM resource") == [(value,)]
